"""Scoring protocols by name. The protocol is part of the name because it changes the number:
the same five pairs score between 9 % and 77 % depending on the normaliser."""

from __future__ import annotations

from eval.errors import EvalError
from eval.metrics.base import Metric
from eval.metrics.contain import VitaContain
from eval.metrics.has_answer import HasAnswer
from eval.metrics.seedtts import SeedTtsRate
from eval.metrics.wenet import WenetCer, WenetWer
from eval.metrics.whisper import WhisperWer

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        WhisperWer(),
        WenetWer("wer[wenet]"),
        WenetWer("wer[wenet-words]", characters=False),
        WenetWer("wer[wenet-cased]", case_sensitive=True),
        WenetCer("cer[wenet]"),
        SeedTtsRate("wer[seedtts-en]", characters=False),
        SeedTtsRate("cer[seedtts-zh]", characters=True),
        HasAnswer(),
        VitaContain(),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        EvalError: there is none.
    """
    try:
        return METRICS[name]
    except KeyError:
        raise EvalError(f"unknown metric {name!r}; known: {', '.join(METRICS)}") from None
