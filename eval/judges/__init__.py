"""Recognisers that listen to synthetic speech so that it can be scored as text; none shares code or
weights with the models under test."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Judge(Protocol):
    """Hears one utterance at a time."""

    name: str

    def describe(self) -> dict[str, str]:
        """What a run's record must keep about this judge: package, version, hashes of its data."""

    def transcribe(self, samples: np.ndarray, sample_rate: int, grammar: str) -> str:
        """Words heard in mono float32 ``[n]``; empty when nothing of the grammar was heard."""
