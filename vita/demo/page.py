"""The page: what is on it, how its parts are wired, and the server that serves it.

Everything the browser loads comes from this server: Gradio's own files, and the project's styles and scripts
put inline into the document head.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from vita.decoding.modes import MODES
from vita.demo import endpoints
from vita.demo.errors import StartError
from vita.demo.response_events import EventLog
from vita.demo.theme import theme
from vita.demo.turn import Question, stream_turn

if TYPE_CHECKING:
    from vita import VitaAudio
    from vita.prompts import History

STATIC = Path(__file__).with_name("static")
SCRIPTS = (
    "player.js",
    "turn-audio.js",
    "conversation.js",
    "latency.js",
    "talk.js",
    "gradio-transport.js",
)

MODEL_QUEUE = "model"
"""All events that run the model share one concurrency group: one answer at a time, the rest waits in line."""
MAX_WAITING = 16
MAX_UPLOAD = "128mb"
SESSION_SECONDS = 3600

MODE_HINTS = {
    "vanilla": "Every token from a main pass of its own: the slowest, and the reference.",
    "balance": "1 main + 4 MCTP tokens, then 3 + 8, then 4 + 10 for the rest.",
    "boost": "1 main + 10 MCTP tokens, so speech starts at once, then 4 + 10 for the rest.",
    "turbo": "1 main + 10 MCTP tokens all along: the fewest main passes.",
}
EXAMPLES = (
    "What is the capital of France?",
    "What is seven plus five?",
    "What is the opposite of hot?",
    "What day comes after Monday?",
    "How many legs does a spider have?",
)


@cache
def static(name: str) -> str:
    """Text of a file of the ``static`` folder."""
    return (STATIC / name).read_text(encoding="utf-8")


def head(sample_rate: int) -> str:
    """Styles and scripts of the page, inline; ``sample_rate`` in Hz is what the player is set to."""
    config = {"sampleRate": sample_rate, "workletSource": static("player-worklet.js")}
    # "<\/" keeps a closing tag inside the worklet's text from ending this script.
    parts = [f"window.Vita = {{ config: {json.dumps(config)} }};".replace("</", "<\\/")]
    parts += [static(name) for name in SCRIPTS]
    return f"<style>\n{static('style.css')}\n</style>\n<script>\n" + "\n".join(parts) + "\n</script>"


def conversation_html() -> str:
    """The empty conversation with its welcome and the example questions."""
    chips = "".join(
        f'<button type="button" data-example="{escape(text)}">{escape(text)}</button>' for text in EXAMPLES
    )
    return static("conversation.html").replace("{{chips}}", chips)


def build(assistant: VitaAudio, model_name: str) -> gr.Blocks:
    """The page and its events around one assistant."""
    ask, transcribe, speak = endpoints.build(assistant)
    on_model = {"concurrency_id": MODEL_QUEUE, "concurrency_limit": 1}
    modes = [(name.capitalize(), name) for name in MODES]

    def talk(
        text: str | None, audio: str | None, mode: str, turn: str, history: History | None
    ) -> Iterator[tuple[str, History | None]]:
        log = EventLog(turn)
        for events, kept in stream_turn(assistant, Question(audio, text, mode), history):
            yield log.append(events), kept

    with gr.Blocks(
        title="VITA-Audio", analytics_enabled=False, delete_cache=(SESSION_SECONDS, SESSION_SECONDS)
    ) as demo:
        gr.HTML(static("header.html").replace("{{model}}", escape(model_name)), js_on_load=None)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Talk", id="talk"):
                _talk_tab(talk, modes, on_model)
            with gr.Tab("Transcribe", id="transcribe"):
                _transcribe_tab(transcribe, modes, on_model)
            with gr.Tab("Speak", id="speak"):
                _speak_tab(speak, modes, on_model)
        _ask_endpoint(ask, modes, on_model)
    return demo


def _talk_tab(talk: Any, modes: list[tuple[str, str]], on_model: dict[str, Any]) -> None:
    history = gr.State(None, time_to_live=SESSION_SECONDS)
    with gr.Row(elem_id="talk-grid"):
        with gr.Column(elem_id="talk-main"):
            events = gr.HTML(
                "",
                html_template=conversation_html(),
                js_on_load="Vita.mount(element, props, watch)",
                apply_default_css=False,
                elem_id="conversation",
            )
            recorder = gr.Audio(
                label="Ask aloud: record or upload",
                sources=["microphone", "upload"],
                type="filepath",
                elem_id="recorder",
                buttons=[],
            )
            with gr.Row(elem_id="composer"):
                question = gr.Textbox(
                    label="Your question",
                    show_label=False,
                    container=False,
                    placeholder="Type a question …",
                    max_lines=4,
                    elem_id="question",
                    scale=8,
                )
                send = gr.Button("Ask", variant="primary", elem_id="send", scale=1, min_width=76)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=76)
        with gr.Column(elem_id="talk-side"):
            mode = gr.Radio(modes, value="boost", label="Decoding mode, from the next turn on", elem_id="mode")
            hints = "".join(f'<p data-hint="{name}">{escape(text)}</p>' for name, text in MODE_HINTS.items())
            gr.HTML(
                f'<div class="v-hints">{hints}</div>',
                js_on_load=None,
                apply_default_css=False,
                elem_classes="v-hint-slot",
            )
            gr.HTML(static("latency.html"), js_on_load=None, apply_default_css=False, elem_id="latency")
            clear = gr.Button("Clear conversation", variant="secondary", size="sm", elem_id="clear")

    pending_text = gr.Textbox(visible=False)
    pending_audio = gr.Audio(type="filepath", visible=False)
    turn = gr.Textbox(visible=False)
    cancel = gr.Button("Cancel", elem_id="cancel", visible="hidden")
    prepared = [question, recorder, pending_text, pending_audio, turn]

    typed = gr.on(
        [question.submit, send.click],
        fn=None,
        js="Vita.askText",
        inputs=[question, mode],
        outputs=prepared,
        api_visibility="private",
    )
    spoken = gr.on(
        [recorder.stop_recording, recorder.upload],
        fn=None,
        js="Vita.askAudio",
        inputs=[recorder, question, mode],
        outputs=prepared,
        api_visibility="private",
    )
    answers = [
        asked.success(
            talk,
            inputs=[pending_text, pending_audio, mode, turn, history],
            outputs=[events, history],
            show_progress="hidden",
            trigger_mode="multiple",
            api_visibility="private",
            **on_model,
        )
        for asked in (typed, spoken)
    ]
    for answer in answers:
        answer.then(fn=None, js="() => Vita.talk.transportEnded()", api_visibility="private")
    cancel.click(fn=None, cancels=answers, api_visibility="private")
    stop.click(fn=None, js="() => { Vita.talk.stop() }", api_visibility="private")
    recorder.start_recording(fn=None, js="() => { Vita.talk.stop() }", api_visibility="private")
    clear.click(fn=None, js="() => Vita.talk.clear()", api_visibility="private").then(
        lambda: None, outputs=[history], show_progress="hidden", api_visibility="private"
    )


def _transcribe_tab(transcribe: Any, modes: list[tuple[str, str]], on_model: dict[str, Any]) -> None:
    gr.Markdown("Speech in, words out: the same model asked to write down what it hears.")
    with gr.Row(elem_classes="two-up"):
        with gr.Column():
            recording = gr.Audio(
                label="Recording", sources=["microphone", "upload"], type="filepath", buttons=[],
                elem_id="transcribe-audio",
            )
            mode = gr.Radio(modes, value="vanilla", label="Decoding mode")
            start = gr.Button("Transcribe", variant="primary", elem_id="transcribe-start")
        with gr.Column():
            words = gr.Textbox(label="Transcript", lines=4, elem_id="transcript", buttons=["copy"])
            numbers = gr.JSON(label="Metrics", elem_id="transcribe-metrics")
    start.click(
        transcribe, inputs=[recording, mode], outputs=[words, numbers], api_name="transcribe",
        show_progress="minimal", **on_model,
    )


def _speak_tab(speak: Any, modes: list[tuple[str, str]], on_model: dict[str, Any]) -> None:
    gr.Markdown("Words in, speech out: the same model asked to read a text aloud.")
    with gr.Row(elem_classes="two-up"):
        with gr.Column():
            text = gr.Textbox(label="Text", lines=3, placeholder="What shall be said?", elem_id="speak-text")
            mode = gr.Radio(modes, value="boost", label="Decoding mode")
            start = gr.Button("Speak", variant="primary", elem_id="speak-start")
        with gr.Column():
            speech = gr.Audio(label="Speech", elem_id="speech", autoplay=True, buttons=["download"])
            numbers = gr.JSON(label="Metrics", elem_id="speak-metrics")
    gr.on(
        [start.click, text.submit], speak, inputs=[text, mode], outputs=[speech, numbers], api_name="speak",
        show_progress="minimal", **on_model,
    )


def _ask_endpoint(ask: Any, modes: list[tuple[str, str]], on_model: dict[str, Any]) -> None:
    """``/ask`` has no place on the page: the Talk tab does the same and streams."""
    audio = gr.Audio(type="filepath", label="Question as audio", visible=False)
    text = gr.Textbox(label="Question as text", visible=False)
    mode = gr.Radio(modes, value="boost", label="Decoding mode", visible=False)
    answer = gr.Textbox(label="Answer", visible=False)
    speech = gr.Audio(label="Answer as audio", visible=False)
    numbers = gr.JSON(label="Metrics", visible=False)
    gr.Button(visible=False).click(
        ask, inputs=[audio, text, mode], outputs=[answer, speech, numbers], api_name="ask", **on_model
    )


def serve(
    assistant: VitaAudio,
    *,
    model_name: str,
    host: str,
    port: int,
    share: bool = False,
) -> tuple[gr.Blocks, str]:
    """Build the page and start its server in the background; returns the Blocks and the address.

    Raises:
        StartError: the server cannot be started there.
    """
    # Gradio asks for matplotlib's backend in every event; unless one is named here the first visitor waits
    # seconds for the import of pyplot that chooses one.
    os.environ.setdefault("MPLBACKEND", "agg")
    demo = build(assistant, model_name)
    demo.queue(max_size=MAX_WAITING)
    try:
        _, local, public = demo.launch(
            server_name=host,
            server_port=port,
            share=share,
            theme=theme(),
            head=head(assistant.sample_rate),
            footer_links=["api"],
            run_history=False,
            # The Node server of server-side rendering does not pass WebSockets through and costs memory.
            ssr_mode=False,
            max_file_size=MAX_UPLOAD,
            show_error=True,
            quiet=True,
            prevent_thread_lock=True,
            # Skips a request of Gradio to itself that gives up after 3 s, which a busy machine may need.
            _frontend=False,
        )
    except OSError as problem:
        raise StartError(
            f"The server on {host}:{port} did not start ({problem}): try again or another --port."
        ) from problem
    return demo, public or local
