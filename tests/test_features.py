"""Resampling against closed forms and torchaudio, log-mel against transformers, and the streaming promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from vita.speech import features
from vita.speech.features import log_mel, resample, resample_with_own_kernel

try:
    from torchaudio.transforms import Resample as TorchaudioResample
except (ImportError, OSError):
    TorchaudioResample = None


def sine(frequency: float, rate: int, seconds: float = 0.5) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * rate), dtype=torch.float64) / rate).float()


@pytest.mark.parametrize("from_rate", [8_000, 22_050, 24_000, 44_100, 48_000])
def test_a_sine_resampled_is_the_sine_sampled_at_the_new_rate(from_rate):
    out = resample(sine(1000.0, from_rate), from_rate, 16_000)
    expected = sine(1000.0, 16_000)
    assert out.shape == expected.shape
    middle = slice(200, -200)  # the ends see the zeros outside
    # A 6-zero-crossing Hann sinc is flat to about -48 dB below 0.8 of the cut-off.
    assert (out[middle] - expected[middle]).abs().max() < 4e-3


def test_what_lies_above_the_new_nyquist_frequency_is_removed():
    out = resample(sine(11_000.0, 48_000), 48_000, 16_000)
    assert out[200:-200].abs().max() < 0.01


@pytest.mark.parametrize(("from_rate", "length"), [(48_000, 1), (44_100, 4411), (8_000, 7), (22_050, 30_000)])
def test_length_is_rounded_up(from_rate, length):
    assert resample(torch.ones(length), from_rate, 16_000).shape == (math.ceil(length * 16_000 / from_rate),)


def test_equal_rates_change_nothing_and_batches_equal_single_signals():
    batch = torch.randn(2, 3, 4000)
    assert resample(batch, 16_000, 16_000) is batch
    together = resample(batch, 44_100, 16_000)
    assert together.shape[:2] == (2, 3)
    torch.testing.assert_close(together[1, 2], resample(batch[1, 2], 44_100, 16_000), atol=1e-6, rtol=0)


def test_rates_without_a_common_divisor_use_the_same_filter():
    signal = torch.randn(5000)
    gathered = features._resample_gathered(signal, 441, 160)
    torch.testing.assert_close(gathered, resample_with_own_kernel(signal, 44_100, 16_000), atol=2e-5, rtol=0)
    odd = resample(sine(500.0, 44_101), 44_101, 16_000)
    assert (odd[200:-200] - sine(500.0, 16_000)[200 : len(odd) - 200]).abs().max() < 4e-3


@pytest.mark.parametrize("rates", [(0, 16_000), (16_000, -1)])
def test_a_rate_must_be_positive(rates):
    with pytest.raises(ValueError, match="above 0 Hz"):
        resample(torch.ones(10), *rates)


@pytest.mark.skipif(TorchaudioResample is None, reason="torchaudio is not installed beside this torch")
@pytest.mark.parametrize("from_rate", [8_000, 22_050, 24_000, 44_100, 48_000])
def test_own_kernel_equals_torchaudio(from_rate):
    signal = torch.randn(2, 20_000)
    theirs = TorchaudioResample(from_rate, 16_000)(signal)
    torch.testing.assert_close(resample_with_own_kernel(signal, from_rate, 16_000), theirs, atol=1e-6, rtol=0)


def test_log_mel_equals_transformers_on_the_padded_signal(speech_like):
    ours = log_mel(torch.from_numpy(speech_like))
    filters = mel_filter_bank(201, 80, 0.0, 8000.0, 16_000, norm=None, mel_scale="slaney")
    padded = np.concatenate([np.zeros(240, np.float32), speech_like])
    power = spectrogram(
        padded, window_function(400, "hann"), 400, 160, power=2.0, center=False, mel_filters=filters, mel_floor=0.0
    )
    theirs = (np.log(power.T + 1e-5) + 4.0) / 4.0
    assert ours.shape == (len(speech_like) // 160, 80)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-3)


def test_frames_of_a_growing_signal_never_change(speech_like):
    signal = torch.from_numpy(speech_like)
    whole = log_mel(signal)
    for end in (0, 159, 160, 161, 4000, 12_345):
        part = log_mel(signal[:end])
        assert part.shape == (end // 160, 80)
        torch.testing.assert_close(part, whole[: end // 160], atol=1e-5, rtol=0)


def test_features_are_finite_on_silence_and_full_scale_noise():
    batch = torch.stack([torch.zeros(16_000), torch.rand(16_000) * 2 - 1])
    out = log_mel(batch)
    assert out.shape == (2, 100, 80)
    assert torch.isfinite(out).all()
    assert torch.allclose(out[0], torch.tensor((math.log(1e-5) + 4.0) / 4.0))
