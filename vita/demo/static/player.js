// Plays PCM that arrives in pieces, whatever brought it here.
//
//   const player = new Vita.Player({ workletSource, sampleRate, onEvent });
//   await player.unlock();                    // inside a click or key press
//   player.begin(turn); player.push(turn, int16, 16000); ... player.end(turn);
//   player.flush();                           // silence now, forget what is queued
//
// `unlock` opens the audio output; browsers allow that only after the visitor touched the page.
//
// onEvent receives { type, turn, at, played }: "queued" (first piece handed over), "started", "audible"
// (first sample loud enough to hear), "level", "underrun", "drained", "flushed". `at` is performance.now()
// in milliseconds; for "audible" it includes the output latency the browser reports.
window.Vita = window.Vita || {};

// Stands in for the worklet where a page has none (browsers keep it to https and localhost): every piece
// becomes a buffer source scheduled behind the one before. Same messages as player-worklet.js.
Vita.ScheduledOutput = class {
  constructor(context, prebufferMs) {
    this.context = context;
    this.prebuffer = prebufferMs / 1000;
    this.onmessage = () => {};
    this.reset(null);
  }

  reset(turn) {
    (this.sources || []).forEach((source) => { source.onended = null; source.stop(); });
    this.sources = [];
    this.turn = turn;
    this.next = 0;
    this.ended = false;
    this.played = 0;
  }

  tell(type, time) {
    this.onmessage({ data: { type, turn: this.turn, time, played: this.played } });
  }

  postMessage(message) {
    if (message.type === "begin") {
      this.reset(message.turn);
    } else if (message.type === "flush") {
      this.reset(null);
      this.onmessage({ data: { type: "flushed" } });
    } else if (message.turn === this.turn && message.type === "push") {
      this.schedule(message.samples);
    } else if (message.turn === this.turn && message.type === "end") {
      this.ended = true;
      if (!this.sources.length) this.tell("drained", this.context.currentTime);
    }
  }

  schedule(samples) {
    const buffer = this.context.createBuffer(1, samples.length, this.context.sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    const first = this.next === 0;
    if (!first && this.next < this.context.currentTime) this.tell("underrun", this.context.currentTime);
    const start = Math.max(this.next, this.context.currentTime + this.prebuffer);
    this.next = start + buffer.duration;
    source.start(start);
    source.onended = () => {
      this.played += buffer.duration;
      this.sources.shift();
      this.onmessage({ data: { type: "level", turn: this.turn, level: 0.4, played: this.played } });
      if (this.ended && !this.sources.length) this.tell("drained", this.context.currentTime);
    };
    this.sources.push(source);
    if (first) { this.tell("started", start); this.tell("audible", start); }
  }
};

Vita.Player = class {
  constructor({ workletSource, sampleRate, onEvent, prebufferMs = 40 }) {
    this.workletSource = workletSource;
    this.sampleRate = sampleRate;
    this.onEvent = onEvent || (() => {});
    this.prebufferMs = prebufferMs;
    this.context = null;
    this.port = null;
    this.ready = null;
    this.turn = null;
    this.backlog = [];
    this.resampler = null;
    this.queuedPieces = 0;
  }

  unlock() {
    if (!this.ready) this.ready = this.open();
    if (this.context && this.context.state === "suspended") this.context.resume();
    return this.ready;
  }

  async open() {
    const Context = window.AudioContext || window.webkitAudioContext;
    try {
      this.context = new Context({ sampleRate: this.sampleRate, latencyHint: "interactive" });
    } catch {
      this.context = new Context({ latencyHint: "interactive" });
    }
    this.context.resume();
    if (this.context.audioWorklet) await this.openWorklet();
    else this.port = new Vita.ScheduledOutput(this.context, this.prebufferMs);
    this.port.onmessage = ({ data }) => this.report(data);
    const waiting = this.backlog;
    this.backlog = [];
    waiting.forEach((message) => this.post(message));
  }

  async openWorklet() {
    const url = URL.createObjectURL(new Blob([this.workletSource], { type: "text/javascript" }));
    await this.context.audioWorklet.addModule(url);
    URL.revokeObjectURL(url);
    const node = new AudioWorkletNode(this.context, "vita-player", {
      numberOfInputs: 0,
      outputChannelCount: [2],
      processorOptions: {
        prebufferMs: this.prebufferMs, prebufferStepMs: 10, prebufferMaxMs: 160, audibleAmplitude: 0.004,
      },
    });
    node.connect(this.context.destination);
    this.port = node.port;
  }

  // Browser clock of a moment on the audio clock, at the loudspeaker rather than at the worklet.
  clock(time) {
    const latency = this.context.outputLatency || this.context.baseLatency || 0;
    return performance.now() + (time - this.context.currentTime + latency) * 1000;
  }

  report(message) {
    const at = "time" in message ? this.clock(message.time) : performance.now();
    this.onEvent({ ...message, at });
  }

  post(message) {
    if (!this.port) this.backlog.push(message);
    else this.port.postMessage(message);
  }

  begin(turn) {
    this.turn = turn;
    this.resampler = null;
    this.queuedPieces = 0;
    this.post({ type: "begin", turn });
  }

  push(turn, int16, sampleRate) {
    if (turn !== this.turn || int16.length === 0) return;
    this.unlock();
    const samples = this.resample(int16, sampleRate);
    this.queuedPieces += 1;
    if (this.queuedPieces === 1) this.onEvent({ type: "queued", turn, at: performance.now(), played: 0 });
    this.post({ type: "push", turn, samples });
  }

  end(turn) {
    if (turn === this.turn) this.post({ type: "end", turn });
  }

  flush() {
    this.turn = null;
    this.backlog = [];
    this.post({ type: "flush" });
  }

  // int16 at any rate -> float32 at the context's rate; linear, continuous across pieces of one turn.
  resample(int16, sampleRate) {
    const rate = this.context ? this.context.sampleRate : this.sampleRate;
    if (sampleRate === rate) return Float32Array.from(int16, (value) => value / 32768);
    if (!this.resampler) this.resampler = { position: 1, last: int16[0] };
    const state = this.resampler;
    const step = sampleRate / rate;
    const at = (index) => (index < 0 ? state.last : int16[index]);
    const out = [];
    // position is measured from the sample before this piece (index -1).
    let position = state.position;
    while (position < int16.length) {
      const left = Math.floor(position) - 1;
      const share = position - Math.floor(position);
      out.push((at(left) * (1 - share) + at(left + 1) * share) / 32768);
      position += step;
    }
    state.position = position - int16.length;
    state.last = int16[int16.length - 1];
    return Float32Array.from(out);
  }
};
