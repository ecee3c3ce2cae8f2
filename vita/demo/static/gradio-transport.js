// Carries response events from a Gradio generator event: the value of a gr.HTML component is a log of JSON
// lines that grows while the answer streams (see EventLog in vita/demo/response_events.py).
//
// Also the functions that Gradio's listeners call before and after such an event.
window.Vita = window.Vita || {};

// Gradio mounts the components of a page one after the other.
Vita.present = (selector) => new Promise((resolve) => {
  const look = () => {
    const found = document.querySelector(selector);
    if (found) { observer.disconnect(); resolve(found); }
  };
  const observer = new MutationObserver(look);
  observer.observe(document.documentElement, { childList: true, subtree: true });
  look();
});

Vita.mount = async (element, props, watch) => {
  await Vita.present(".v-latency");
  const talk = new Vita.Talk({
    root: element,
    sampleRate: Vita.config.sampleRate,
    workletSource: Vita.config.workletSource,
    stopTransport: () => document.querySelector("#cancel").click(),
  });
  watch("value", () => {
    for (const line of (props.value || "").split("\n")) if (line) talk.receive(JSON.parse(line));
  });
  Vita.talk = talk;
};

// Outputs of both: [question box, recorder, pending text, pending audio, turn].
Vita.askText = async (question, mode) => {
  const text = (question || "").trim();
  if (!text) {
    Vita.talk.complain("Type a question first, or record one.");
    throw new Error("empty question"); // ends Gradio's chain of events here
  }
  const turn = await Vita.talk.ask({ text, audioUrl: null, mode });
  return ["", null, text, null, turn];
};

Vita.askAudio = async (recording, question, mode) => {
  if (!recording) {
    Vita.talk.complain("The recording is empty. Allow the microphone and speak, or upload a file.");
    throw new Error("empty recording");
  }
  const turn = await Vita.talk.ask({ text: null, audioUrl: recording.url, mode });
  return [question, null, "", recording, turn];
};
