"""What the rest of the project may ask of a speech codec; nothing here knows any codec in particular."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class SpeechTokenizer(Protocol):
    """Turns a waveform into discrete audio tokens."""

    def encode(self, samples: np.ndarray, sample_rate: int) -> list[int]:
        """Mono float samples [n] in [-1, 1] -> audio token indices in [0, codebook size)."""


class VocoderStream(Protocol):
    """One utterance being turned into sound; holds all state of that utterance."""

    def push(self, tokens: Sequence[int], final: bool = False) -> np.ndarray:
        """Take the next audio token indices, return the float32 samples [n] that are now certain.

        Concatenating what all pushes return equals decoding the whole utterance at once.
        ``final=True`` flushes the look-ahead; the stream must not be used afterwards.
        """


class Vocoder(Protocol):
    """Turns audio tokens into a waveform, utterance by utterance."""

    sample_rate: int
    samples_per_token: int
    look_ahead_tokens: int

    def stream(self) -> VocoderStream:
        """Start a new utterance."""
