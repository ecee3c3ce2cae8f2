"""A system with a script instead of a model and a clock that only its own work moves.

It tests the harness: what comes out is known in advance, to the millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from eval.systems import AudioPiece, Done, Piece, Request, TextPiece, resolve

SAMPLE_RATE = 16_000
CHUNK_SECONDS = 0.64
"""One audio group of eight tokens at 12.5 Hz."""
MAIN_SECONDS, MCTP_SECONDS, ENCODE_SECONDS, VOCODE_SECONDS = 0.010, 0.001, 0.020, 0.005
MCTP_MODULES = 10

Script = Callable[[Request, str], str]
"""(request, mode) -> text of the answer; may raise to play a crash."""


def echo(request: Request, mode: str) -> str:
    """Says what it was given to say, and otherwise one sentence."""
    return request.text or "The capital of France is Paris."


class FakeSystem:
    """Answers by script; one 0.64 s chunk of tone per started group of four words.

    Args:
        script: what to say.
        silent: give no audio.
        seed_clock: where the clock starts, in seconds.
    """

    name = "fake"

    def __init__(self, script: Script = echo, silent: bool = False, seed_clock: float = 100.0) -> None:
        self._script = script
        self._silent = silent
        self._now = seed_clock
        self.requests: list[tuple[Request, str]] = []

    def clock(self) -> float:
        return self._now

    def describe(self) -> dict:
        return {"model": self.name, "weights": "script", "device": "cpu", "sampling": {"do_sample": False}}

    def mode(self, name: str) -> dict:
        return resolve(name)

    def run(self, request: Request, mode: str) -> Iterator[Piece]:
        self.requests.append((request, mode))
        began = self._now
        self._now += ENCODE_SECONDS
        text = self._script(request, mode)
        words = text.split()
        levels = self._levels(mode)
        passes: dict[str, int | None] = {"main": 0, "mctp": 0, "main_before_first_audio": None}
        marks: dict[str, float | None] = {"ttft": None, "ttf_audio_token": None, "ttfc": None}
        tokens = 0

        def emit(count: int) -> None:
            nonlocal tokens
            for _ in range(count):
                is_main = next(levels) == 0
                passes["main" if is_main else "mctp"] += 1
                self._now += MAIN_SECONDS if is_main else MCTP_SECONDS
                tokens += 1
                if marks["ttft"] is None:
                    marks["ttft"] = 1000 * (self._now - began)

        for start in range(0, len(words), 4):
            group = words[start:start + 4]
            emit(1 if start == 0 else len(group))
            yield TextPiece(" ".join(group) + " ")
            if request.kind == "transcribe" or self._silent:
                continue
            emit(10)
            self._now += VOCODE_SECONDS
            if marks["ttfc"] is None:
                marks["ttfc"] = marks["ttf_audio_token"] = 1000 * (self._now - began)
                passes["main_before_first_audio"] = passes["main"]
            yield AudioPiece(_tone(CHUNK_SECONDS), SAMPLE_RATE)
        marks["total"] = 1000 * (self._now - began)
        yield Done(text, tokens, passes, marks)

    def _levels(self, mode: str) -> Iterator[int]:
        from vita.decoding.modes import resolve_mode

        return resolve_mode(mode).levels(MCTP_MODULES)


def _tone(seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.2 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)
