"""nano's speech tokens: what 80 ms of its own voice look like, and the nearest of 4096 such looks.

One token is 8 frames of 10 ms; a frame is a short cepstrum of the log-mel spectrum with pitch and
voicing. Encoding is needed to make training targets; at run time only the codebook is used, by
:mod:`vita.speech.nano_vocoder`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vita.speech.features import HOP, MEL_BINS, SAMPLE_RATE, log_mel, resample

FRAMES_PER_TOKEN = 8
SAMPLES_PER_TOKEN = FRAMES_PER_TOKEN * HOP
CEPSTRA = 24
FRAME_SIZE = CEPSTRA + 2
"""Values per frame: cepstra, weighted log pitch, weighted voicing."""
PITCH_WEIGHT, VOICING_WEIGHT = 6.0, 2.0
"""How much pitch and voicing count beside the spectrum when the nearest code is sought."""
PITCH_RANGE = (70.0, 400.0)
"""Hz."""
PITCH_CENTRE = math.log(170.0)


def cosine_basis() -> Tensor:
    """Orthonormal DCT-II ``[80, 24]``: log-mel -> cepstra."""
    k, n = torch.arange(CEPSTRA)[None, :], torch.arange(MEL_BINS)[:, None]
    basis = torch.cos(math.pi / MEL_BINS * (n + 0.5) * k) * math.sqrt(2 / MEL_BINS)
    basis[:, 0] /= math.sqrt(2)
    return basis


def track_pitch(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Pitch by normalised autocorrelation of 40 ms windows around each 10 ms frame.

    Args:
        samples: ``[n]`` at 16 kHz.
    Returns:
        Hz ``[n // 160]``, interpolated through unvoiced stretches, and voicing ``[n // 160]`` in {0, 1}.
    """
    frames, width = len(samples) // HOP, 640
    shortest, longest = int(SAMPLE_RATE / PITCH_RANGE[1]), int(SAMPLE_RATE / PITCH_RANGE[0])
    span = width + longest
    left = (span - HOP) // 2
    windows = F.pad(samples, (left, span)).unfold(0, span, HOP)[:frames]
    head = windows[:, :width]
    size = 2048
    product = torch.fft.irfft(torch.fft.rfft(windows, size) * torch.fft.rfft(head, size).conj(), size)[:, : longest + 1]
    energy = F.pad(windows.square().cumsum(1), (1, 0))
    lagged = energy[:, width : width + longest + 1] - energy[:, : longest + 1]
    correlation = product / (energy[:, width : width + 1] * lagged).clamp(min=1e-9).sqrt()
    search = correlation[:, shortest:]
    best = search.max(dim=1, keepdim=True).values
    # The first lag that is nearly as good as the best avoids half the true pitch.
    peak = (
        (search >= 0.92 * best) & (search >= F.pad(search, (1, 0))[:, :-1]) & (search >= F.pad(search, (0, 1))[:, 1:])
    )
    lag = shortest + peak.float().argmax(dim=1)
    loud = energy[:, -1] > 1e-4 * energy[:, -1].max().clamp(min=1e-9)
    voiced = ((best[:, 0] > 0.55) & loud).numpy()
    hz = (SAMPLE_RATE / lag.double()).numpy()
    padded = np.pad(hz, 2, mode="edge")
    hz = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    if voiced.any():
        at = np.flatnonzero(voiced)
        hz = np.interp(np.arange(frames), at, hz[at])
    else:
        hz = np.full(frames, math.exp(PITCH_CENTRE))
    return torch.from_numpy(hz).float(), torch.from_numpy(voiced).float()


def analyse(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks to be quantised, and the pitch track.

    Args:
        samples: ``[n]`` float at 16 kHz.
    Returns:
        blocks ``[N, 8 * 26]`` with ``N = ceil(n / 1280)``; Hz ``[8 N]``; voicing ``[8 N]``.
    """
    samples = F.pad(samples, (0, -len(samples) % SAMPLES_PER_TOKEN))
    cepstra = log_mel(samples) @ cosine_basis()
    hz, voiced = track_pitch(samples)
    frames = torch.cat(
        (
            cepstra,
            PITCH_WEIGHT * (hz.log() - PITCH_CENTRE)[:, None] * voiced[:, None],
            VOICING_WEIGHT * voiced[:, None],
        ),
        dim=1,
    )
    return frames.reshape(-1, FRAMES_PER_TOKEN * FRAME_SIZE), hz, voiced


def nearest(blocks: Tensor, codebook: Tensor) -> Tensor:
    """Index of the closest code (Euclidean) of each block: ``[N, D]``, ``[K, D]`` -> ``[N]`` int64."""
    half_norms = codebook.square().sum(1) / 2
    return torch.cat([(half_norms - part @ codebook.T).argmin(1) for part in blocks.split(4096)])


class NanoSpeechTokenizer:
    """Speech in nano's own voice -> audio token indices at 12.5 Hz."""

    def __init__(self, codebook: Tensor) -> None:
        """``codebook``: ``[4096, 208]`` as fitted by training."""
        self.codebook = codebook

    def encode(self, samples: np.ndarray, sample_rate: int) -> list[int]:
        """Mono float samples ``[n]`` in [-1, 1] -> ``ceil(seconds * 12.5)`` indices."""
        wave = resample(torch.from_numpy(np.asarray(samples, np.float32)), sample_rate, SAMPLE_RATE)
        return nearest(analyse(wave)[0], self.codebook).tolist()
