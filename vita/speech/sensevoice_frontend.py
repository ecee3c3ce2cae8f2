"""SenseVoice features: 16 kHz waveform -> kaldi filter banks -> stacked frames -> normalised.

FunASR's ``WavFrontend`` without its dither: it adds noise of one sample step, which makes features random and
nothing better, so it is 0 here.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from vita.errors import AudioError, CheckpointError

SAMPLE_RATE = 16_000
MEL_BINS = 80
FRAME_SAMPLES, HOP = 400, 160
"""25 ms windows every 10 ms (``frontend_conf`` of SenseVoiceSmall's config.yaml)."""
LFR_WINDOW, LFR_HOP = 7, 6
"""Seven frames are stacked every six (``lfr_m``, ``lfr_n``): 60 ms per feature frame."""
FEATURE_SIZE = MEL_BINS * LFR_WINDOW
_INT16 = 32768.0
_PREEMPHASIS = 0.97
_LOG_FLOOR = torch.finfo(torch.float32).eps
_LOWEST_HZ = 20.0


class SenseVoiceFrontend:
    """Waveform to encoder input, with the mean and scale of ``am.mvn``.

    Args:
        shift, scale: ``[560]``; a stacked frame x becomes ``(x + shift) * scale``.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        self.shift, self.scale = shift.float(), scale.float()

    @classmethod
    def from_file(cls, path: str | Path) -> SenseVoiceFrontend:
        """Read kaldi's text file ``am.mvn``.

        Raises:
            CheckpointError: it is missing, damaged, or of another size.
        """
        return cls(*read_mvn(path))

    def __call__(self, samples: np.ndarray | Tensor) -> Tensor:
        """Mono float ``[n]`` in [-1, 1] at 16 kHz -> features ``[T, 560]``, one per 60 ms begun.

        Raises:
            AudioError: no samples.
        """
        stacked = stack_frames(filter_banks(torch.as_tensor(samples, dtype=torch.float32) * _INT16))
        return (stacked + self.shift) * self.scale


def filter_banks(samples: Tensor) -> Tensor:
    """kaldi's log-mel filter banks of int16-scaled samples ``[n]``: ``[frames, 80]``, natural logarithm.

    Only whole windows give a frame (``snip_edges``); less than one window becomes one short frame.
    """
    if samples.ndim != 1 or samples.shape[0] < 2:
        raise AudioError(f"audio of shape {tuple(samples.shape)} has no features; give mono samples.")
    width = min(FRAME_SAMPLES, samples.shape[0])
    frames = samples.unfold(0, width, HOP)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = F.pad(frames, (1, 0), mode="replicate")[:, :-1]
    frames = (frames - _PREEMPHASIS * before) * torch.hamming_window(width, periodic=False)
    size = 1 << (width - 1).bit_length()
    power = torch.fft.rfft(frames, n=size).abs().square()
    return (power @ _mel_filters(size)).clamp(min=_LOG_FLOOR).log()


def stack_frames(frames: Tensor) -> Tensor:
    """Low frame rate: ``[T, 80]`` -> ``[ceil(T / 6), 560]``, the ends filled by repeating the outer frames."""
    count = -(-frames.shape[0] // LFR_HOP)
    left = (LFR_WINDOW - 1) // 2
    right = max((count - 1) * LFR_HOP + LFR_WINDOW - left - frames.shape[0], 0)
    padded = torch.cat([frames[:1].expand(left, -1), frames, frames[-1:].expand(right, -1)])
    windows = padded.unfold(0, LFR_WINDOW, LFR_HOP)[:count]  # [count, 80, 7]
    return windows.transpose(1, 2).reshape(count, -1)


@cache
def _mel_filters(fft_size: int) -> Tensor:
    filters = mel_filter_bank(
        num_frequency_bins=fft_size // 2 + 1, num_mel_filters=MEL_BINS, min_frequency=_LOWEST_HZ,
        max_frequency=SAMPLE_RATE / 2, sampling_rate=SAMPLE_RATE, norm=None, mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(filters).float()


def read_mvn(path: str | Path) -> tuple[Tensor, Tensor]:
    """Shift and scale ``[560]`` each, from the ``<AddShift>`` and ``<Rescale>`` sections of a kaldi text file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; it belongs to FunAudioLLM/SenseVoiceSmall.") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not a text file; download it again.") from error
    vectors = []
    for section in ("AddShift", "Rescale"):
        found = re.search(rf"<{section}>[^\[]*\[([^\]]*)\]", text)
        try:
            vectors.append(torch.tensor([float(number) for number in found.group(1).split()]))
        except (AttributeError, ValueError) as error:
            raise CheckpointError(f"{path} has no readable section <{section}>; download it again.") from error
        if vectors[-1].shape[0] != FEATURE_SIZE:
            raise CheckpointError(
                f"{path}: <{section}> has {vectors[-1].shape[0]} values, expected {FEATURE_SIZE}; download it again."
            )
    return vectors[0], vectors[1]
