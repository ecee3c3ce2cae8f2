"""What a caller gets back: the events of one streamed answer, and the results that collect them.

Plain data, no behaviour; nothing here knows a model. All times are milliseconds since the request was
accepted with its audio in memory, taken with a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

if TYPE_CHECKING:
    from vita.prompts import History
    from vita.vocabulary import TokenKind

FinishReason = Literal["eos", "length"]


class Timings(TypedDict):
    """Milliseconds; the first three are None when the answer had no such thing."""

    ttft: float | None
    """First token of the answer, of whatever kind."""
    ttf_audio_token: float | None
    """First audio token."""
    ttfc: float | None
    """First audio chunk: PCM ready to be played."""
    total: float
    """Everything, up to the last event."""
    encode: float
    """Work on the input: resampling, features, audio encoder or speech tokenizer, prompt."""
    prefill: float
    """Main forward over the prompt, up to the first token."""
    decode: float
    """All later main forwards and MCTP modules."""
    vocode: float
    """Audio tokens to PCM."""


class Passes(TypedDict):
    """How often the model ran for one answer; the prefill is the first main pass."""

    main: int
    mctp: int
    main_before_first_audio: int | None
    """Main passes done when the first audio chunk was handed out; None without audio."""


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """Where one token of the answer came from."""

    id: int
    text: str
    """The token spelled alone; part of a multi-byte character shows as U+FFFD."""
    kind: TokenKind
    level: int
    """0: main model; k >= 1: MCTP module k."""
    main_passes: int
    """Main passes done so far, this token's included."""
    mctp_passes: int
    at_ms: float


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of the answer, always whole characters."""

    text: str
    tokens: list[TokenTrace] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """The next stretch of the spoken answer; chunks joined end to end are the whole speech."""

    samples: np.ndarray
    """float32 ``[n]`` in [-1, 1], mono."""
    sample_rate: int
    tokens: list[TokenTrace] = field(default_factory=list)
    """The audio tokens that were handed to the vocoder for this chunk."""
    at_ms: float = 0.0
    main_passes: int = 0
    """Main passes done when this chunk was ready."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every answer."""

    text: str
    mode: str
    timings: Timings
    passes: Passes
    tokens: list[TokenTrace]
    """Every token of the answer in order, control tokens included."""
    audio_seconds: float
    """Length of the spoken answer."""
    history: History
    """Pass it to the next ``respond`` to go on with this conversation."""
    finish_reason: FinishReason
    """``eos``: the model ended its answer; ``length``: it was cut at the token limit."""


Event = TextDelta | AudioChunk | Finished


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a recording."""

    text: str
    mode: str
    timings: Timings
    passes: Passes
    tokens: list[TokenTrace]
    audio_seconds: float
    """Length of the recording."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Speech:
    """A text, spoken."""

    samples: np.ndarray
    """float32 ``[n]`` in [-1, 1], mono."""
    sample_rate: int
    text: str
    """The text that was to be spoken."""
    mode: str
    timings: Timings
    passes: Passes
    tokens: list[TokenTrace]
    audio_seconds: float
    finish_reason: FinishReason
