// The conversation's controller: turns questions into requests and response events into text, sound, numbers.
//
// Response events are the same whatever carries them (see vita/demo/response_events.py); `receive` takes
// them one by one. `Vita.GradioTransport` below feeds it from the value of a gr.HTML component.
window.Vita = window.Vita || {};

Vita.Talk = class {
  constructor({ root, sampleRate, workletSource, stopTransport }) {
    this.root = root;
    this.status = document.querySelector(".v-status");
    this.conversation = new Vita.Conversation(root, { onExample: (text) => this.example(text) });
    this.latency = new Vita.Latency(document.querySelector(".v-latency"));
    this.player = new Vita.Player({ workletSource, sampleRate, onEvent: (event) => this.played(event) });
    this.stopTransport = stopTransport;
    this.current = null;
    this.ended = Promise.resolve();
    this.log = [];
    const unlock = () => this.player.unlock();
    ["pointerdown", "keydown"].forEach((name) => document.addEventListener(name, unlock, { passive: true }));
    document.addEventListener("keydown", (event) => { if (event.key === "Escape" && this.busy) this.stop(); });
    this.say("Ready");
  }

  get busy() {
    return this.current !== null && (!this.current.delivered || this.current.sounding);
  }

  say(text, state = "idle") {
    this.status.textContent = text;
    document.documentElement.dataset.vita = state;
  }

  // -- requests -------------------------------------------------------------------------------------------

  // Opens a turn and returns its label; the turn before it is stopped first.
  async ask({ text, audioUrl, mode }) {
    const asked = performance.now();
    if (this.current) await this.stop();
    this.conversation.quiet();
    const turn = crypto.randomUUID ? crypto.randomUUID() : `turn-${Date.now()}-${Math.random()}`;
    let release;
    this.ended = new Promise((resolve) => { release = resolve; });
    this.current = { turn, asked, release, seen: -1, created: false, delivered: false, sounding: false };
    this.latency.begin(turn, mode);
    this.conversation.begin(turn, { text, audioUrl, mode });
    this.player.unlock();
    this.player.begin(turn);
    this.say("Waiting for the model…", "waiting");
    setTimeout(() => {
      const { current } = this;
      if (current && current.turn === turn && !current.created)
        this.conversation.note(turn, "The model is answering somebody else. You are in the queue.", "wait");
    }, 1500);
    return turn;
  }

  async stop() {
    const { current } = this;
    if (!current) return;
    this.player.flush();
    current.sounding = false;
    if (!current.delivered) {
      current.delivered = true;
      this.conversation.finish(current.turn);
      this.conversation.note(current.turn, "Stopped.", "wait");
      this.stopTransport();
      await Promise.race([this.ended, new Promise((resolve) => setTimeout(resolve, 3000))]);
    }
    this.current = null;
    this.say("Stopped");
  }

  async clear() {
    await this.stop();
    this.conversation.clear();
    this.latency.clear();
    this.say("Ready");
  }

  example(text) {
    const box = document.querySelector("#question textarea, #question input");
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    setTimeout(() => document.querySelector("#send").click(), 0);
  }

  complain(text) {
    this.say(text, "error");
  }

  // -- responses ------------------------------------------------------------------------------------------

  receive(event) {
    const { current } = this;
    if (!current || event.turn !== current.turn || event.seq <= current.seen || current.delivered) return;
    current.seen = event.seq;
    this.log.push({ type: event.type, at: performance.now() });
    if (event.type === "response.created") {
      current.created = true;
      this.conversation.note(current.turn, "", "wait");
      this.say("Answering…", "answering");
    } else if (event.type === "response.output_text.delta") {
      this.conversation.appendText(current.turn, event.delta, event.tokens);
    } else if (event.type === "response.output_audio.delta") {
      const samples = Vita.int16(event.delta);
      current.sounding = true;
      this.player.push(current.turn, samples, event.sample_rate);
      this.conversation.appendAudio(current.turn, samples, event.sample_rate, event.levels);
    } else if (event.type === "response.done") {
      current.delivered = true;
      this.player.end(current.turn);
      this.conversation.finish(current.turn);
      this.latency.set(current.turn, { done: event });
      this.conversation.numbers(current.turn, this.latency.pairs(current.turn));
      if (event.finish_reason === "length")
        this.conversation.note(current.turn, "The answer reached the length limit.", "wait");
      this.settle(event.audio_seconds);
    } else if (event.type === "error") {
      this.fail(event.message);
    }
  }

  fail(message) {
    const { current } = this;
    if (!current || current.delivered) return;
    current.delivered = true;
    current.sounding = false;
    this.player.flush();
    this.conversation.finish(current.turn);
    this.conversation.note(current.turn, message, "error");
    this.say("That did not work", "error");
  }

  // The transport has nothing more to bring for the running request, for whatever reason.
  transportEnded() {
    const { current } = this;
    if (!current) return;
    current.release();
    // Events may still be on their way from the component to `receive`.
    setTimeout(() => {
      if (this.current !== current || current.delivered) return;
      this.fail(current.created
        ? "The connection broke before the answer was complete. Please ask again."
        : "The server did not take the question: too many people are waiting, or the connection broke. "
          + "Please try again in a moment.");
    }, 400);
  }

  settle(audioSeconds) {
    const { current } = this;
    this.say(current.sounding ? "Speaking…" : "Ready", current.sounding ? "answering" : "idle");
    // A machine without sound output never reports that the sound has ended.
    setTimeout(() => {
      if (this.current === current && current.sounding) this.drained(current);
    }, audioSeconds * 1000 + 5000);
  }

  drained(current) {
    current.sounding = false;
    this.root.style.setProperty("--level", "0");
    this.conversation.heard(current.turn, 0);
    if (current.delivered) this.say("Ready");
  }

  // -- the player -----------------------------------------------------------------------------------------

  played(event) {
    this.log.push({ type: `player.${event.type}`, at: event.at });
    const { current } = this;
    if (!current || event.turn !== current.turn) return;
    if (event.type === "level") {
      this.root.style.setProperty("--level", Math.min(1, event.level * 1.6).toFixed(3));
      this.conversation.heard(event.turn, event.played);
    } else if (event.type === "audible") {
      this.latency.set(event.turn, { ear: event.at - current.asked });
    } else if (event.type === "underrun") {
      this.latency.underrun(event.turn);
    } else if (event.type === "drained") {
      this.drained(current);
    }
    const { done } = this.latency.turns.get(event.turn) || {};
    if (done && event.type !== "level") this.conversation.numbers(event.turn, this.latency.pairs(event.turn));
  }
};

Vita.int16 = (base64) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Int16Array(bytes.buffer);
};
