// One spoken turn in the conversation: a row of bars that can be replayed, sought and saved.
//
// Bars are 80 ms each, the length of one audio token, coloured by the pass that made the token. While the
// answer streams the bars only show what came; `finish` makes the sound replayable.
window.Vita = window.Vita || {};

Vita.TOKEN_SECONDS = 0.08;

Vita.el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

Vita.wav = (pieces, sampleRate) => {
  const count = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const ascii = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  ascii(0, "RIFF"); view.setUint32(4, 36 + 2 * count, true); ascii(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, sampleRate, true); view.setUint32(28, 2 * sampleRate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  ascii(36, "data"); view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const piece of pieces) for (const value of piece) { view.setInt16(at, value, true); at += 2; }
  return new Blob([view], { type: "audio/wav" });
};

Vita.TurnAudio = class {
  constructor({ label, onPlay }) {
    this.pieces = [];
    this.sampleRate = 0;
    this.pending = [];
    this.levels = [];
    this.count = 0;
    this.audio = null;
    this.url = null;
    this.onPlay = onPlay || (() => {});
    const { el } = Vita;
    this.button = el("button", { type: "button", class: "v-play", "aria-label": `Play ${label}`, disabled: true,
      onclick: () => this.toggle() });
    this.label = label;
    this.bars = el("div", { class: "v-bars", "aria-hidden": "true", onclick: (event) => this.seek(event) });
    this.time = el("span", { class: "v-time" });
    this.save = el("a", { class: "v-save", hidden: true, "aria-label": `Save ${label}`, title: "Save as WAV" }, "↓");
    this.root = el("div", { class: "v-sound" }, this.button, this.bars, this.time, this.save);
  }

  get seconds() {
    return this.sampleRate ? this.count / this.sampleRate : 0;
  }

  append(int16, sampleRate, levels) {
    this.pieces.push(int16);
    this.sampleRate = sampleRate;
    this.levels.push(...levels);
    this.count += int16.length;
    const perBar = Math.round(Vita.TOKEN_SECONDS * sampleRate);
    let position = 0;
    while (position < int16.length) {
      const need = perBar - this.pending.length;
      this.pending.push(...int16.subarray(position, position + need));
      position += need;
      if (this.pending.length >= perBar) this.addBar();
    }
    this.time.textContent = Vita.clock(this.seconds);
  }

  addBar() {
    let sum = 0;
    for (const value of this.pending) sum += value * value;
    const loudness = Math.sqrt(sum / this.pending.length) / 32768;
    this.pending = [];
    const level = this.levels[this.bars.childElementCount];
    const bar = Vita.el("i");
    if (level !== undefined) bar.dataset.level = level;
    bar.style.setProperty("--loudness", Math.min(1, Math.sqrt(loudness) * 1.9).toFixed(3));
    this.bars.append(bar);
  }

  // The question's recording: a file the server keeps for this session.
  async load(url) {
    this.setSource(url);
    try {
      const bytes = await (await fetch(url)).arrayBuffer();
      const decoded = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes);
      const samples = decoded.getChannelData(0).subarray(0, 16000 * 120);
      this.append(Int16Array.from(samples, (v) => Math.max(-1, Math.min(1, v)) * 32767), 16000, []);
      if (this.pending.length) this.addBar();
      this.time.textContent = Vita.clock(decoded.duration);
    } catch {
      this.root.classList.add("v-undecodable"); // a broken upload: the server says what is wrong with it
      this.button.disabled = true;
    }
    this.pieces = [];
  }

  finish(name) {
    if (this.pending.length) this.addBar();
    if (!this.count) return;
    this.setSource(URL.createObjectURL(Vita.wav(this.pieces, this.sampleRate)));
    this.url = this.audio.src;
    this.save.href = this.url;
    this.save.download = name;
    this.save.hidden = false;
  }

  setSource(url) {
    this.audio = new Audio(url);
    this.audio.preload = "auto";
    this.audio.addEventListener("timeupdate", () => this.show(this.audio.currentTime));
    this.audio.addEventListener("ended", () => { this.setPlaying(false); this.show(0); });
    this.audio.addEventListener("pause", () => this.setPlaying(false));
    this.audio.addEventListener("play", () => this.setPlaying(true));
    this.button.disabled = false;
  }

  setPlaying(playing) {
    this.root.classList.toggle("v-playing", playing);
    this.button.setAttribute("aria-label", `${playing ? "Pause" : "Play"} ${this.label}`);
  }

  toggle() {
    if (!this.audio) return;
    if (this.audio.paused) { this.onPlay(this); this.audio.play().catch(() => {}); } else this.audio.pause();
  }

  pause() {
    if (this.audio) this.audio.pause();
  }

  seek(event) {
    if (!this.audio) return;
    const box = this.bars.getBoundingClientRect();
    const length = this.audio.duration || this.seconds;
    if (Number.isFinite(length)) this.audio.currentTime = ((event.clientX - box.left) / box.width) * length;
  }

  // Marks what has been heard so far, live or in a replay.
  show(seconds) {
    const heard = Math.floor(seconds / Vita.TOKEN_SECONDS);
    this.root.classList.toggle("v-live", seconds > 0);
    [...this.bars.children].forEach((bar, index) => bar.classList.toggle("v-heard", index < heard));
  }

  dispose() {
    this.pause();
    if (this.url) URL.revokeObjectURL(this.url);
  }
};

Vita.clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
