"""SNAC 24 kHz behind the speech protocols: tokenizer and vocoder in one, 7 tokens per 85 ms frame.

No published VITA-Audio checkpoint uses it; a model trained on its tokens can. It needs the package ``snac``
(MIT), which is not among this project's requirements.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vita.errors import AudioError, CheckpointError
from vita.speech.features import resample
from vita.weights import load_strictly, read_weights

if TYPE_CHECKING:
    from snac import SNAC

_CONTEXT_FRAMES = 4
"""Frames on either side that a sample can depend on: the decoder's filters reach 2.5 of them."""


class SnacCodec:
    """``SpeechTokenizer`` and ``Vocoder`` over a SNAC model without attention (the 24 kHz one has none).

    A frame is one coarse code, two middle and four fine ones, in this order; code ``i`` of a frame is token
    ``code + i * codebook size``, as in VITA-Audio's tokenizer (which adds too few tokens for it: 4 x 4096 of the
    7 x 4096 that occur; ``codebook_size`` below is the number a tokenizer must have).
    """

    def __init__(self, model: SNAC) -> None:
        if getattr(model, "attn_window_size", None):
            raise CheckpointError("this SNAC model has attention and cannot be streamed; use hubertsiuzdak/snac_24khz.")
        self.model = model.eval()
        self.sample_rate = int(model.sampling_rate)
        self.tokens_per_frame = sum(model.vq_strides)
        self.samples_per_frame = int(model.hop_length) * max(model.vq_strides)
        self.samples_per_token = round(self.samples_per_frame / self.tokens_per_frame)
        self.look_ahead_tokens = _CONTEXT_FRAMES * self.tokens_per_frame
        self.codebook_size = self.tokens_per_frame * model.codebook_size

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SnacCodec:
        """Load ``config.json`` and ``pytorch_model.bin`` of a folder.

        Raises:
            CheckpointError: the package ``snac`` is not installed, or a file is missing or does not fit.
        """
        try:
            from snac import SNAC
        except ImportError as error:
            raise CheckpointError("SNAC needs the package snac, which is not installed: pip install snac") from error
        folder = Path(folder)
        try:
            model = SNAC(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{folder / 'config.json'} is missing or damaged: download it again") from error
        path = folder / "pytorch_model.bin"
        load_strictly(model, read_weights(path), path)
        return cls(model)

    @torch.inference_mode()
    def encode(self, samples: np.ndarray, sample_rate: int) -> list[int]:
        """Mono float samples ``[n]`` -> tokens, 7 per frame begun."""
        wave = resample(torch.as_tensor(np.asarray(samples), dtype=torch.float32), sample_rate, self.sample_rate)
        codes = self.model.encode(wave[None, None])
        frames = codes[0].shape[-1]
        rows = torch.cat([code.reshape(frames, -1) for code in codes], dim=1)
        return (rows + self._offsets()).flatten().tolist()

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """Whole frames of tokens -> float32 samples."""
        if not len(tokens):
            return np.zeros(0, dtype=np.float32)
        return self.model.decode(self._codes(tokens))[0, 0].float().numpy()

    def stream(self) -> SnacStream:
        """Start a new utterance."""
        return SnacStream(self)

    def _offsets(self) -> Tensor:
        return torch.arange(self.tokens_per_frame) * self.model.codebook_size

    def _codes(self, tokens: Sequence[int]) -> list[Tensor]:
        rows = torch.tensor(list(tokens)).reshape(-1, self.tokens_per_frame) - self._offsets()
        if ((rows < 0) | (rows >= self.model.codebook_size)).any():
            raise AudioError("SNAC tokens are out of order: each frame is 7 tokens, one from each range of 4096.")
        widths = [max(self.model.vq_strides) // stride for stride in self.model.vq_strides]
        return [part.reshape(1, -1) for part in rows.split(widths, dim=1)]


class SnacStream:
    """One utterance; frames are decoded with their neighbours and handed out when those are known."""

    def __init__(self, codec: SnacCodec) -> None:
        self._codec = codec
        self._tokens: list[int] = []
        self._first = 0
        """Frame at which ``_tokens`` begins."""
        self._spoken = 0

    def push(self, tokens: Sequence[int], final: bool = False) -> np.ndarray:
        """Take the next tokens; return the samples ``[n]`` that are now certain. A broken last frame is dropped."""
        codec = self._codec
        self._tokens += tokens
        known = self._first + len(self._tokens) // codec.tokens_per_frame
        end = known if final else max(known - _CONTEXT_FRAMES, self._spoken)
        if end == self._spoken:
            return np.zeros(0, dtype=np.float32)
        whole = (known - self._first) * codec.tokens_per_frame
        wave = codec.decode(self._tokens[:whole])
        start = (self._spoken - self._first) * codec.samples_per_frame
        chunk = wave[start : (end - self._first) * codec.samples_per_frame]
        self._spoken = end
        drop = max(end - _CONTEXT_FRAMES - self._first, 0)
        del self._tokens[: drop * codec.tokens_per_frame]
        self._first += drop
        return chunk
