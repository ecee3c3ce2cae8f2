"""Speech synthesis: read the item's text aloud; word errors of what the judge hears."""

from eval.metrics import METRICS
from eval.suites import Item, Suite
from eval.systems import Request
from eval.tasks import Scorer, Task


def request(suite: Suite, item: Item) -> Request:
    return Request("speak", text=item.text)


TASK = Task(
    "tts", 1, request,
    (Scorer("tts-wer[judge:local]", METRICS["wer[whisper-en]"], lambda item, _: item.text,
            lambda _, answer: answer.heard),),
    grammar="sentence",
)
