"""What happens to speech between a mouth and a model: speed, gain, room, microphone, telephone, noise."""

from __future__ import annotations

import numpy as np

from vita.speech.features import SAMPLE_RATE


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play faster (> 1) or slower; pitch and formants move along, like another, smaller speaker."""
    length = max(1, int(len(samples) / factor))
    return np.interp(np.linspace(0, len(samples) - 1, length), np.arange(len(samples)), samples)


def random_room_and_microphone(spectrum_size: int, rng: np.random.Generator) -> np.ndarray:
    """Complex frequency response ``[spectrum_size]``: smooth random equaliser, sometimes telephone band or a room."""
    hz = np.linspace(0, SAMPLE_RATE / 2, spectrum_size)
    knots = rng.normal(0, 2.5, 8)  # dB
    response = 10 ** (np.interp(hz, np.geomspace(60, 8000, 8), knots) / 20)
    dice = rng.random()
    if dice < 0.05:  # telephone
        response = response / (1 + (300 / np.maximum(hz, 1)) ** 4) / (1 + (hz / 3400) ** 8)
    elif dice < 0.12:  # any low-pass: old microphones, 8 kHz recordings
        response = response / (1 + (hz / rng.uniform(3000, 7500)) ** 8)
    if rng.random() < 0.12:
        length = int(SAMPLE_RATE * rng.uniform(0.05, 0.3))
        tail = rng.normal(size=length) * np.exp(-6.9 * np.arange(length) / length) * rng.uniform(0.01, 0.06)
        tail[0] = 1.0
        response = response * np.fft.rfft(tail, 2 * (spectrum_size - 1))
    return response


def noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Unit-power noise ``[length]`` with a random spectral slope between white and brown."""
    spectrum = np.fft.rfft(rng.normal(size=length))
    slope = rng.uniform(0, 1)
    spectrum *= (1 + np.arange(len(spectrum))) ** -slope
    out = np.fft.irfft(spectrum, length)
    return out / (np.sqrt(np.mean(out**2)) + 1e-9)


def augment(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int16 ``[n]`` -> float32 ``[m]`` in [-1, 1]: a new recording of the same sentence."""
    x = samples.astype(np.float64) / 32768
    if rng.random() < 0.4:
        x = change_speed(x, rng.uniform(0.9, 1.1))
    before, after = (int(SAMPLE_RATE * rng.uniform(0, 0.3)) for _ in range(2))
    x = np.pad(x, (before, after))
    size = 1 << (len(x) + SAMPLE_RATE // 4 - 1).bit_length()  # room for the reverberation, no wrap-around
    if rng.random() < 0.3:
        x = np.fft.irfft(np.fft.rfft(x, size) * random_room_and_microphone(size // 2 + 1, rng), size)[: len(x)]
    peak = np.abs(x).max() + 1e-9
    x = x / peak * 10 ** rng.uniform(-1.3, 0.0)
    if rng.random() < 0.25:
        power = np.sqrt(np.mean(x**2))
        x = x + noise(len(x), rng) * power * 10 ** (-rng.uniform(10, 45) / 20)
    if rng.random() < 0.03:  # a recorder set too loud
        x = x * rng.uniform(1.5, 4)
    return np.clip(x, -1, 1).astype(np.float32)


def mask_features(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """SpecAugment (arXiv 1904.08779) on ``[T, 80]``: one band and sometimes a short moment fall silent."""
    out = features.copy()
    if rng.random() < 0.15:
        width = rng.integers(1, 10)
        start = rng.integers(0, out.shape[1] - width)
        out[:, start : start + width] = out.mean()
    for _ in range(rng.integers(0, 2)):
        width = rng.integers(1, 8)
        start = rng.integers(0, max(1, out.shape[0] - width))
        out[start : start + width] = out.mean()
    return out
