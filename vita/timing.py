"""The one clock of a turn: when things happened first, and how long each kind of work took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

from vita.events import Timings

Mark = Literal["ttft", "ttf_audio_token", "ttfc"]
Work = Literal["encode", "prefill", "decode", "vocode"]


class TurnClock:
    """Starts when it is made: the request is accepted and its audio is in memory. Milliseconds throughout."""

    def __init__(self) -> None:
        self._start = perf_counter()
        self._marks: dict[Mark, float] = {}
        self._work: dict[Work, float] = dict.fromkeys(("encode", "prefill", "decode", "vocode"), 0.0)

    def now(self) -> float:
        return 1000.0 * (perf_counter() - self._start)

    def mark(self, name: Mark) -> None:
        """Note the moment something happened for the first time; later times do not count."""
        self._marks.setdefault(name, self.now())

    def marked(self, name: Mark) -> bool:
        return name in self._marks

    @contextmanager
    def work(self, name: Work) -> Iterator[None]:
        """Add the time spent inside to this kind of work."""
        began = perf_counter()
        try:
            yield
        finally:
            self._work[name] += 1000.0 * (perf_counter() - began)

    def timings(self) -> Timings:
        """Everything measured, the total ending now."""
        marks = {name: self._marks.get(name) for name in ("ttft", "ttf_audio_token", "ttfc")}
        return Timings(**marks, total=self.now(), **self._work)
