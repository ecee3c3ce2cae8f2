"""What a checkpoint hears and speaks with: one bundle per checkpoint type, made where the checkpoint is opened.

A new speech tokenizer or encoder plugs in as a :class:`SpeechInput`, a new codec as a
:class:`~vita.speech.protocol.Vocoder`; nothing else in the project asks which it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vita.speech import features
from vita.speech.protocol import Vocoder
from vita.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vita.model.causal_lm import VitaAudioForCausalLM


@dataclass(frozen=True, slots=True)
class HeardAudio:
    """One recording as a prompt holds it: the tokens that stand for it, and rows that overwrite some of them.

    ``rows [n, d]`` replace the embeddings from ``ids[rows_start]`` on; None where the audio tokens say it all.
    """

    ids: list[int]
    seconds: float
    rows: Tensor | None = None
    rows_start: int = 1


class SpeechInput(Protocol):
    """Turns checked audio into what a prompt holds."""

    sample_rate: int
    """Hz of the samples it takes."""
    max_seconds: float | None
    """Longest recording it understands; None for no limit."""
    channel: Literal["mean", "first"]
    """How several channels become one before it hears them."""
    takes_voice_prompts: bool
    """Whether the model was trained to speak in the voice of a recording."""

    def hear(self, samples: np.ndarray) -> HeardAudio:
        """Mono float32 ``[n]`` in [-1, 1] -> the tokens (and rows) that stand for it."""


@dataclass(frozen=True, slots=True)
class SpeechParts:
    """How one checkpoint hears and speaks."""

    input: SpeechInput
    vocoder: Vocoder


class NanoSpeechInput:
    """nano's ears: log-mel features through the model's own audio encoder, one row per 80 ms."""

    sample_rate = features.SAMPLE_RATE
    max_seconds = 30.0
    channel = "mean"
    takes_voice_prompts = False

    def __init__(self, model: VitaAudioForCausalLM, vocabulary: Vocabulary) -> None:
        self._model = model
        self._vocabulary = vocabulary

    @torch.inference_mode()
    def hear(self, samples: np.ndarray) -> HeardAudio:
        mel = features.log_mel(torch.from_numpy(samples))[None].to(self._model.embed_tokens.weight.device)
        lengths = torch.tensor([mel.shape[1]], device=mel.device)
        rows = self._model.encode_audio(mel.to(self._model.embed_tokens.weight.dtype), lengths)[0]
        vocabulary = self._vocabulary
        ids = [
            vocabulary.begin_of_audio,
            *[vocabulary.context_of_audio] * len(rows),
            vocabulary.end_of_audio,
        ]
        return HeardAudio(ids, len(samples) / self.sample_rate, rows)
