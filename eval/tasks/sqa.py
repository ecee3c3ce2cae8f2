"""Spoken question answering: one generation, scored as text and as speech.

``self_wer`` compares the answer's own text with what is heard of its own speech.
"""

from eval.metrics import METRICS
from eval.suites import Item, Suite
from eval.systems import Request
from eval.tasks import Scorer, Task


def request(suite: Suite, item: Item) -> Request:
    samples, rate = suite.load_audio(item)
    return Request("respond", samples, rate)


TASK = Task(
    "sqa", 1, request,
    (
        *(Scorer(f"acc_text[{rule}]", METRICS[f"acc[{rule}]"], lambda item, _: item.answers,
                 lambda _, answer: answer.text) for rule in ("has-answer", "vita-contain")),
        *(Scorer(f"acc_speech[{rule}]", METRICS[f"acc[{rule}]"], lambda item, _: item.answers,
                 lambda _, answer: answer.heard) for rule in ("has-answer", "vita-contain")),
        Scorer("self_wer[judge:local]", METRICS["wer[whisper-en]"], lambda _, answer: answer.text,
               lambda _, answer: answer.heard, failure="skip"),
    ),
    grammar="answer",
)
