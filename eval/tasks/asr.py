"""Speech recognition: transcribe the item's audio; word errors against what was said."""

from eval.metrics import METRICS
from eval.suites import Item, Suite
from eval.systems import Request
from eval.tasks import Scorer, Task


def request(suite: Suite, item: Item) -> Request:
    samples, rate = suite.load_audio(item)
    return Request("transcribe", samples, rate)


TASK = Task(
    "asr", 1, request,
    tuple(
        Scorer(name, METRICS[name], lambda item, _: item.text, lambda _, answer: answer.text)
        for name in ("wer[whisper-en]", "wer[wenet]")
    ),
)
