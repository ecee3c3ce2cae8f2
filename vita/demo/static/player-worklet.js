// The last stage before the loudspeaker: a queue of sample blocks read by the audio thread.
//
// Knows nothing about turns beyond an opaque label, nothing about transports, nothing about sample rates
// (blocks arrive at the rate of the audio context).
class VitaPlayerProcessor extends AudioWorkletProcessor {
  constructor(options) {
    super();
    const { prebufferMs, prebufferStepMs, prebufferMaxMs, audibleAmplitude } = options.processorOptions;
    this.frames = (ms) => Math.round((ms / 1000) * sampleRate);
    this.prebuffer = this.frames(prebufferMs);
    this.prebufferStep = this.frames(prebufferStepMs);
    this.prebufferMax = this.frames(prebufferMaxMs);
    this.audibleAmplitude = audibleAmplitude;
    this.levelPeriod = this.frames(50);
    this.reset(null);
    this.port.onmessage = ({ data }) => this.receive(data);
  }

  reset(turn) {
    this.turn = turn;
    this.blocks = [];
    this.offset = 0;
    this.available = 0;
    this.played = 0;
    this.running = false;
    this.ended = false;
    this.audible = false;
    this.started = false;
    this.power = 0;
    this.sinceLevel = 0;
  }

  receive(message) {
    if (message.type === "begin") {
      this.reset(message.turn);
    } else if (message.type === "flush") {
      this.reset(null);
      this.port.postMessage({ type: "flushed" });
    } else if (message.turn === this.turn && message.type === "push") {
      this.blocks.push(message.samples);
      this.available += message.samples.length;
    } else if (message.turn === this.turn && message.type === "end") {
      this.ended = true;
    }
  }

  tell(type, frame = 0) {
    // currentTime is the time of the first frame of this block on the context's clock.
    this.port.postMessage({ type, turn: this.turn, time: currentTime + frame / sampleRate,
      played: this.played / sampleRate });
  }

  process(_inputs, outputs) {
    const output = outputs[0][0];
    if (this.turn === null) return true;
    if (!this.running) {
      const enough = this.available >= this.prebuffer || (this.ended && this.available > 0);
      if (enough) {
        this.running = true;
        if (!this.started) {
          this.started = true;
          this.tell("started");
        }
      } else {
        if (this.ended && this.started) this.finish();
        return true;
      }
    }
    let written = 0;
    while (written < output.length && this.blocks.length > 0) {
      const block = this.blocks[0];
      const count = Math.min(output.length - written, block.length - this.offset);
      output.set(block.subarray(this.offset, this.offset + count), written);
      written += count;
      this.offset += count;
      if (this.offset === block.length) {
        this.blocks.shift();
        this.offset = 0;
      }
    }
    this.available -= written;
    this.played += written;
    for (let i = 0; i < written; i++) {
      const value = Math.abs(output[i]);
      this.power = Math.max(this.power, value);
      if (!this.audible && value > this.audibleAmplitude) {
        this.audible = true;
        this.tell("audible", i);
      }
    }
    for (let channel = 1; channel < outputs[0].length; channel++) outputs[0][channel].set(output);
    this.sinceLevel += written;
    if (this.sinceLevel >= this.levelPeriod) {
      this.port.postMessage({ type: "level", turn: this.turn, level: this.power, played: this.played / sampleRate });
      this.power = 0;
      this.sinceLevel = 0;
    }
    if (written < output.length) {
      if (this.ended) {
        this.finish();
      } else {
        this.running = false;
        this.prebuffer = Math.min(this.prebuffer + this.prebufferStep, this.prebufferMax);
        this.tell("underrun");
      }
    }
    return true;
  }

  finish() {
    this.tell("drained");
    this.reset(null);
  }
}

registerProcessor("vita-player", VitaPlayerProcessor);
