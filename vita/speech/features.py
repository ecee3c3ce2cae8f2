"""The only place where a waveform changes its sample rate or becomes model features.

Knows sampling and filter banks; knows nothing about models, files or tokens. Everything is
plain torch on the device of its input, batched over leading dimensions.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE = 16_000
"""Hz; what :func:`log_mel` expects."""
MEL_BINS = 80
FFT_SIZE = 400
"""Samples; 25 ms window, as in Whisper's front end."""
HOP = 160
"""Samples; 10 ms, so 100 feature frames per second."""
LOG_FLOOR = 1e-5
LOG_MEAN, LOG_SCALE = -4.0, 4.0
"""Fixed normalisation: no statistics of the utterance, so that a growing signal never changes old frames."""

LOWPASS_WIDTH = 6
ROLLOFF = 0.99
"""Defaults of torchaudio.transforms.Resample (sinc_interp_hann)."""
_MAX_KERNEL = 2_000_000
"""Kernel elements above which (rates with a tiny common divisor) taps are gathered instead of convolved."""


def log_mel(samples: Tensor) -> Tensor:
    """Normalised log-mel features of 16 kHz audio.

    Frame ``t`` sees samples ``[160 t - 240, 160 t + 160)``, with zeros before the start: it is
    causal, and complete as soon as its own 10 ms hop is. An incomplete last hop gives no frame.

    Args:
        samples: ``[..., n]`` float32 in [-1, 1] at 16 kHz.
    Returns:
        ``[..., n // 160, 80]`` float32, about zero mean and unit variance on speech.
    """
    lead = samples.shape[:-1]
    padded = F.pad(samples.float(), (FFT_SIZE - HOP, 0))
    if samples.shape[-1] < HOP:
        return padded.new_zeros(*lead, 0, MEL_BINS)
    windows = padded.unfold(-1, FFT_SIZE, HOP)
    spectrum = torch.fft.rfft(windows * _window(padded.device))
    power = spectrum.real.square() + spectrum.imag.square()
    with torch.autocast(padded.device.type, enabled=False):  # half precision would drown quiet bands
        mel = power @ mel_filters().to(padded.device)
    return (torch.log(mel + LOG_FLOOR) - LOG_MEAN) / LOG_SCALE


@cache
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(FFT_SIZE, periodic=True, device=device)


@cache
def mel_filters() -> Tensor:
    """Triangular filters ``[201, 80]`` on Slaney's mel scale, 0-8000 Hz, each of peak 1 (no area norm)."""
    # Linear below 1 kHz (200/3 Hz per mel), logarithmic above (27 mels per factor 6.4).
    break_hz, hz_per_mel, log_step = 1000.0, 200.0 / 3.0, math.log(6.4) / 27.0
    break_mel = break_hz / hz_per_mel
    top_mel = break_mel + math.log(SAMPLE_RATE / 2 / break_hz) / log_step
    mels = torch.linspace(0.0, top_mel, MEL_BINS + 2, dtype=torch.float64)
    above_break = break_hz * torch.exp((mels - break_mel) * log_step)
    edges = torch.where(mels < break_mel, mels * hz_per_mel, above_break)
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0).float()


def resample(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate with a Hann-windowed sinc, the defaults of ``torchaudio.transforms.Resample``.

    torchaudio does it where it is installed and imports; elsewhere the same kernel is built here.

    Args:
        samples: ``[..., n]`` float.
        from_rate, to_rate: whole Hz, above 0.
    Returns:
        ``[..., ceil(n * to_rate / from_rate)]`` float32; the input itself when the rates agree.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"sample rates must be above 0 Hz, got {from_rate} and {to_rate}")
    if from_rate == to_rate:
        return samples
    samples = samples.float()
    divisor = math.gcd(from_rate, to_rate)
    orig, new = from_rate // divisor, to_rate // divisor
    if samples.shape[-1] == 0:
        return samples
    if orig * new > _MAX_KERNEL:
        return _resample_gathered(samples, orig, new)
    converter = _torchaudio_resampler(from_rate, to_rate)
    if converter is not None:
        return converter.to(samples.device)(samples)
    return resample_with_own_kernel(samples, from_rate, to_rate)


@cache
def _torchaudio_resampler(from_rate: int, to_rate: int) -> torch.nn.Module | None:
    try:
        from torchaudio.transforms import Resample
    except (ImportError, OSError):  # OSError: a wheel built against CUDA beside a CPU torch
        return None
    return Resample(from_rate, to_rate, lowpass_filter_width=LOWPASS_WIDTH, rolloff=ROLLOFF)


def resample_with_own_kernel(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """:func:`resample` without torchaudio: one strided convolution, one filter per output phase."""
    divisor = math.gcd(from_rate, to_rate)
    orig, new = from_rate // divisor, to_rate // divisor
    kernel, width = _sinc_kernel(orig, new)
    flat = samples.reshape(-1, 1, samples.shape[-1])
    padded = F.pad(flat, (width, width + orig))
    phases = F.conv1d(padded, kernel.to(samples.device), stride=orig)  # [B, new, blocks]
    out = phases.transpose(1, 2).reshape(*samples.shape[:-1], -1)
    return out[..., : math.ceil(new * samples.shape[-1] / orig)]


def _cutoff_and_width(orig: int, new: int) -> tuple[float, int]:
    cutoff = min(orig, new) * ROLLOFF
    return cutoff, math.ceil(LOWPASS_WIDTH * orig / cutoff)


def _windowed_sinc(t: Tensor) -> Tensor:
    t = t.clamp(-LOWPASS_WIDTH, LOWPASS_WIDTH)
    return torch.sinc(t) * torch.cos(t * (math.pi / LOWPASS_WIDTH / 2)).square()


@cache
def _sinc_kernel(orig: int, new: int) -> tuple[Tensor, int]:
    """Filters ``[new, 1, 2 * width + orig]`` float32 and ``width`` in input samples."""
    cutoff, width = _cutoff_and_width(orig, new)
    taps = torch.arange(-width, width + orig, dtype=torch.float64) / orig
    # torchaudio divides two integers here and so gets single precision; kept, to agree to the last bit.
    phase = torch.arange(0, -new, -1)[:, None, None] / new
    return (_windowed_sinc((phase + taps) * cutoff) * (cutoff / orig)).float(), width


def _resample_gathered(samples: Tensor, orig: int, new: int) -> Tensor:
    """Same filter, taps gathered per output sample: for rates whose phase table would not fit in memory."""
    cutoff, width = _cutoff_and_width(orig, new)
    length = samples.shape[-1]
    out_length = math.ceil(new * length / orig)
    padded = F.pad(samples, (width, width + 1))
    offsets = torch.arange(-width, width + 1, device=samples.device)
    blocks = []
    for start in range(0, out_length, 1 << 16):
        position = torch.arange(start, min(start + (1 << 16), out_length), device=samples.device)
        nearest = position * orig // new
        remainder = (position * orig - nearest * new).double() / new  # in input samples, [0, 1)
        t = (offsets - remainder[:, None]) * (cutoff / orig)
        weights = (_windowed_sinc(t) * (cutoff / orig)).float()
        blocks.append((padded[..., nearest[:, None] + offsets + width] * weights).sum(-1))
    return torch.cat(blocks, dim=-1)
