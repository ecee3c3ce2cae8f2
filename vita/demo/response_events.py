"""What the browser is told while an answer is made: small JSON events, the same over every transport.

The names follow OpenAI's Realtime protocol (``response.created``, ``response.output_text.delta``,
``response.output_audio.delta``, ``response.done``, ``error``). Every event carries the ``turn`` it belongs to
and its ``seq`` within that turn, so a page can drop what it has seen or no longer wants.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from vita.events import AudioChunk, Finished, Passes, TextDelta, Timings, TokenTrace

ResponseEvent = dict[str, Any]


def created(mode: str) -> ResponseEvent:
    """The model took the question up."""
    return {"type": "response.created", "mode": mode}


def text_delta(event: TextDelta) -> ResponseEvent:
    """New text; ``tokens`` pairs each token's spelling with its level (0 main, k MCTP module k)."""
    return {
        "type": "response.output_text.delta",
        "delta": event.text,
        "tokens": [[token.text, token.level] for token in event.tokens],
    }


def audio_delta(event: AudioChunk) -> ResponseEvent:
    """New sound: base64 of little-endian int16, and the level of each audio token in it."""
    return {
        "type": "response.output_audio.delta",
        "delta": base64.b64encode(int16(event.samples).tobytes()).decode("ascii"),
        "sample_rate": event.sample_rate,
        "levels": [token.level for token in event.tokens],
    }


def done(event: Finished) -> ResponseEvent:
    """The answer is complete; carries the numbers of ``metrics``."""
    numbers = metrics(event.text, event.mode, event.timings, event.passes, event.tokens, event.audio_seconds)
    return {"type": "response.done", "finish_reason": event.finish_reason, **numbers}


def error(message: str) -> ResponseEvent:
    """Something went wrong; ``message`` is for the visitor."""
    return {"type": "error", "message": message}


def metrics(
    text: str,
    mode: str,
    timings: Timings,
    passes: Passes,
    tokens: Sequence[TokenTrace],
    audio_seconds: float,
) -> dict[str, Any]:
    """The numbers of one answer, as the page shows them and the endpoints return them.

    Times in ms, ``audio_seconds`` and ``rtf`` (model time per second of speech, None without speech) as
    plain numbers, ``tokens`` counted by kind.
    """
    kinds = Counter(token.kind for token in tokens)
    return {
        "text": text,
        "mode": mode,
        "timings": {name: None if value is None else round(value, 2) for name, value in timings.items()},
        "passes": dict(passes),
        "tokens": {kind: kinds.get(kind, 0) for kind in ("text", "audio", "control")},
        "audio_seconds": round(audio_seconds, 3),
        "rtf": round(timings["total"] / 1000 / audio_seconds, 4) if audio_seconds > 0 else None,
    }


def int16(samples: np.ndarray) -> np.ndarray:
    """float ``[n]`` in [-1, 1] -> little-endian int16 ``[n]``, clipped, never normalised."""
    return (np.clip(samples, -1.0, 1.0) * 32767.0).round().astype("<i2")


class EventLog:
    """JSON lines of one turn, as a value that only grows until it is long, then keeps its newest lines.

    Gradio sends what was appended to a string value and nothing else, so a growing log costs each event
    once; and a page that paints late and skips a value still finds every event in the next one.
    """

    def __init__(self, turn: str, max_chars: int = 256_000, keep_chars: int = 48_000) -> None:
        self._turn = turn
        self._max_chars = max_chars
        self._keep_chars = keep_chars
        self._seq = 0
        self._lines: deque[str] = deque()
        self._length = 0
        self.value = ""

    def append(self, events: Sequence[ResponseEvent]) -> str:
        """Add events in order, return the value to show to the page."""
        added = []
        for event in events:
            added.append(json.dumps({"turn": self._turn, "seq": self._seq, **event}) + "\n")
            self._seq += 1
        self._lines.extend(added)
        self._length += sum(map(len, added))
        if self._length <= self._max_chars:
            self.value += "".join(added)
            return self.value
        while len(self._lines) > len(added) and self._length > self._keep_chars:
            self._length -= len(self._lines.popleft())
        self.value = "".join(self._lines)
        return self.value
