// The numbers of a turn: the model's own clock beside the browser's, and medians per mode of this visit.
window.Vita = window.Vita || {};

Vita.ms = (value) => (value === null || value === undefined ? "–" : `${Math.round(value)} ms`);

Vita.Latency = class {
  constructor(root) {
    this.root = root;
    this.first = root.querySelector("[data-card=first]");
    this.ear = root.querySelector("[data-card=ear]");
    this.rtf = root.querySelector("[data-card=rtf]");
    this.passes = root.querySelector("[data-card=passes]");
    this.timeline = root.querySelector(".v-timeline");
    this.table = root.querySelector("tbody");
    this.turns = new Map();
  }

  // Pairs [name, value, explanation, key] for the line under an answer.
  pairs(turn) {
    const { done, ear, underruns } = this.turns.get(turn);
    const { timings, passes } = done;
    const list = [
      ["First token", Vita.ms(timings.ttft), "Model time to the first token of the answer", "ttft"],
      ["First sound", Vita.ms(timings.ttfc), "Model time to the first playable audio chunk", "ttfc"],
      ["At the ear", Vita.ms(ear), "From sending the question to the first audible sample in this browser", "ear"],
      ["Total", Vita.ms(timings.total), "Model time for the whole answer", "total"],
      ["RTF", this.factor(done), "Model time per second of speech; below 1 keeps up with the voice", "rtf"],
      ["Passes", `${passes.main} + ${passes.mctp}`, "Passes of the main model + of the MCTP modules", "passes"],
      ["Tokens", `${done.tokens.text} + ${done.tokens.audio}`, "Text tokens + audio tokens", "tokens"],
    ];
    if (underruns) list.push(["Gaps", String(underruns), "Times the player ran out of sound", "underruns"]);
    return list;
  }

  factor(done) {
    return done.rtf === null ? "–" : done.rtf.toFixed(2);
  }

  begin(turn, mode) {
    this.turns.set(turn, { mode, done: null, ear: null, underruns: 0 });
    this.blank();
  }

  set(turn, values) {
    const entry = this.turns.get(turn);
    if (!entry) return;
    Object.assign(entry, values);
    if (values.ear !== undefined) this.ear.textContent = Vita.ms(values.ear);
    if (entry.done) this.show(entry);
  }

  underrun(turn) {
    const entry = this.turns.get(turn);
    if (entry) entry.underruns += 1;
  }

  show({ done, ear }) {
    const { timings, passes } = done;
    this.first.textContent = Vita.ms(timings.ttfc);
    this.ear.textContent = Vita.ms(ear);
    this.rtf.textContent = this.factor(done);
    this.passes.textContent = `${passes.main} + ${passes.mctp}`;
    const stages = [
      ["Listen", timings.encode, "Resampling, features and audio encoder"],
      ["Prefill", Math.max(0, (timings.ttft ?? 0) - timings.encode), "Main pass over the prompt, to the first token"],
      ["First sound", (timings.ttfc ?? timings.ttft ?? 0) - (timings.ttft ?? 0), "First token to first playable audio"],
      ["Rest", timings.total - (timings.ttfc ?? timings.ttft ?? 0), "The rest of the answer, made while it is heard"],
    ];
    this.timeline.replaceChildren(...stages.map(([name, ms, title], index) => {
      const bar = Vita.el("i", { "data-stage": index });
      bar.style.setProperty("--share", Math.max(0, Math.min(1, ms / timings.total)).toFixed(4));
      return Vita.el("li", { title }, Vita.el("span", {}, name), bar, Vita.el("b", {}, Vita.ms(ms)));
    }));
    this.root.classList.add("v-has-turn");
    this.medians();
  }

  medians() {
    const modes = new Map();
    for (const { mode, done, ear } of this.turns.values()) {
      if (!done || done.timings.ttfc === null) continue;
      if (!modes.has(mode)) modes.set(mode, []);
      modes.get(mode).push({ first: done.timings.ttfc, ear, rtf: done.rtf });
    }
    const median = (values) => {
      const sorted = values.filter((v) => v !== null).sort((a, b) => a - b);
      if (!sorted.length) return null;
      return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
    };
    const { el } = Vita;
    this.table.replaceChildren(...["vanilla", "balance", "boost", "turbo"].filter((m) => modes.has(m)).map((mode) => {
      const turns = modes.get(mode);
      const rtf = median(turns.map((t) => t.rtf));
      return el("tr", {}, el("th", { scope: "row" }, Vita.modeLabel(mode)), el("td", {}, String(turns.length)),
        el("td", {}, Vita.ms(median(turns.map((t) => t.first)))), el("td", {}, Vita.ms(median(turns.map((t) => t.ear)))),
        el("td", {}, rtf === null ? "–" : rtf.toFixed(2)));
    }));
  }

  clear() {
    this.turns.clear();
    this.root.classList.remove("v-has-turn");
    this.table.replaceChildren();
    this.blank();
  }

  blank() {
    this.timeline.replaceChildren();
    [this.first, this.ear, this.rtf, this.passes].forEach((card) => { card.textContent = "–"; });
  }
};
