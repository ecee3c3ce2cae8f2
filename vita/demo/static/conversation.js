// Paints the conversation: questions, answers as they stream, errors, and each answer's numbers.
//
// Knows nothing about transports and nothing about the player.
window.Vita = window.Vita || {};

Vita.Conversation = class {
  constructor(root, { onExample }) {
    this.list = root.querySelector(".v-turns");
    this.scroller = root.querySelector(".v-scroll");
    this.welcome = root.querySelector(".v-welcome");
    this.turns = new Map();
    root.querySelectorAll("[data-example]").forEach((button) =>
      button.addEventListener("click", () => onExample(button.dataset.example)));
  }

  follow() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  quiet(except) {
    for (const turn of this.turns.values())
      for (const sound of [turn.question, turn.sound]) if (sound && sound !== except) sound.pause();
  }

  begin(turn, { text, audioUrl, mode }) {
    const { el } = Vita;
    this.welcome.hidden = true;
    const entry = { spans: 0, question: null, sound: null, mode };
    const bubble = el("article", { class: "v-turn v-user", "data-turn": turn, "aria-label": "You" });
    if (text) bubble.append(el("p", { class: "v-text" }, text));
    if (audioUrl) {
      entry.question = new Vita.TurnAudio({ label: "your question", onPlay: (sound) => this.quiet(sound) });
      bubble.append(entry.question.root);
      entry.question.load(audioUrl).then(() => this.follow());
    }
    entry.text = el("p", { class: "v-text" });
    entry.note = el("p", { class: "v-note", hidden: true });
    entry.sound = new Vita.TurnAudio({ label: "the answer", onPlay: (sound) => this.quiet(sound) });
    entry.sound.root.hidden = true;
    entry.numbers = el("dl", { class: "v-numbers", hidden: true });
    entry.answer = el("article", { class: "v-turn v-answer v-waiting", "data-turn": turn, "data-mode": mode,
      "aria-label": "Answer", "aria-busy": "true" },
    el("span", { class: "v-mode" }, Vita.modeLabel(mode)), entry.text, entry.sound.root, entry.note, entry.numbers);
    this.turns.set(turn, entry);
    this.list.append(bubble, entry.answer);
    this.follow();
  }

  appendText(turn, delta, tokens) {
    const entry = this.turns.get(turn);
    entry.answer.classList.remove("v-waiting");
    const spelled = tokens.map(([text]) => text).join("");
    const parts = spelled === delta ? tokens : [[delta, tokens.length ? tokens[tokens.length - 1][1] : 0]];
    for (const [text, level] of parts) {
      entry.text.append(Vita.el("span", { class: "v-token", "data-level": level,
        title: Vita.levelLabel(level) }, text));
    }
    this.follow();
  }

  appendAudio(turn, int16, sampleRate, levels) {
    const entry = this.turns.get(turn);
    entry.answer.classList.remove("v-waiting");
    entry.sound.root.hidden = false;
    entry.sound.append(int16, sampleRate, levels);
    this.follow();
  }

  heard(turn, seconds) {
    const entry = this.turns.get(turn);
    if (entry) entry.sound.show(seconds);
  }

  note(turn, text, kind) {
    const entry = this.turns.get(turn);
    entry.note.textContent = text;
    entry.note.hidden = !text;
    entry.note.className = `v-note v-${kind}`;
    if (kind === "error") entry.note.setAttribute("role", "alert");
    this.follow();
  }

  numbers(turn, pairs) {
    const entry = this.turns.get(turn);
    if (!entry) return;
    entry.numbers.replaceChildren(...pairs.map(([name, value, title, key]) =>
      Vita.el("div", { title, "data-number": key }, Vita.el("dt", {}, name), Vita.el("dd", {}, value))));
    entry.numbers.hidden = false;
    this.follow();
  }

  finish(turn) {
    const entry = this.turns.get(turn);
    entry.answer.classList.remove("v-waiting");
    entry.answer.setAttribute("aria-busy", "false");
    entry.sound.finish(`answer-${entry.mode}.wav`);
    this.follow();
  }

  clear() {
    for (const entry of this.turns.values()) {
      if (entry.question) entry.question.dispose();
      entry.sound.dispose();
    }
    this.turns.clear();
    this.list.replaceChildren();
    this.welcome.hidden = false;
  }
};

Vita.modeLabel = (mode) => mode.charAt(0).toUpperCase() + mode.slice(1);
Vita.levelLabel = (level) => (level === 0 ? "main pass" : `MCTP module ${level}`);
