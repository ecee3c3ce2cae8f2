"""Settings every test runs under, and the few inputs many of them share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before any library reads them: no network, no telemetry, one thread (spinning threads on shared cores
# cost more than they bring, and sums are then reproducible).
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from vita import VitaAudio

torch.set_num_threads(1)

SAMPLE_RATE = 16_000


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tone() -> np.ndarray:
    """One second of 440 Hz at amplitude 0.3, float32 at 16 kHz."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * 440.0 * time)).astype(np.float32)


@pytest.fixture(scope="session")
def speech_like() -> np.ndarray:
    """1.5 s of harmonics of a moving pitch under two moving formants in four syllables, 16 kHz float32."""
    time = np.arange(int(1.5 * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 120.0 + 25.0 * np.sin(2 * np.pi * 0.9 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    first = 500.0 + 250.0 * np.sin(2 * np.pi * 1.3 * time)
    second = 1600.0 + 500.0 * np.cos(2 * np.pi * 0.8 * time)
    wave = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        low = np.exp(-(((frequency - first) / 180.0) ** 2))
        high = 0.5 * np.exp(-(((frequency - second) / 250.0) ** 2))
        wave += (low + high + 0.02) / harmonic**0.5 * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.7 * time), 0.0, None) ** 0.5
    noise = np.random.default_rng(7).normal(0.0, 0.003, len(time))
    wave = wave * syllables / np.abs(wave).max() * 0.5 + noise
    return wave.astype(np.float32)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder like nano's with a tiny random model; do not change it, copy it."""
    from tests.tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> VitaAudio:
    """An assistant with the tiny random model."""
    from vita import VitaAudio

    return VitaAudio.from_pretrained(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def nano() -> VitaAudio:
    """The embedded model."""
    from vita import VitaAudio

    return VitaAudio.from_pretrained("nano", device="cpu")
