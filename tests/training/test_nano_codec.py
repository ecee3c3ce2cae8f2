"""nano's codec: streaming equals offline, no clicks, and it sounds like what went in."""

import numpy as np
import pytest
import torch

from vita.speech.nano_codec import SAMPLES_PER_TOKEN, NanoSpeechTokenizer, track_pitch
from vita.speech.nano_vocoder import FrameDecoder, NanoVocoder, band_matrix, minimum_phase

STREAMING_TOLERANCE = 1e-3
"""Of full scale 1.0: float32 convolutions over different windows; 4e-4 was the largest difference seen."""


@pytest.fixture(scope="module")
def vocoder():
    torch.manual_seed(0)
    decoder = FrameDecoder(64)
    torch.nn.init.normal_(decoder.codebook)
    return NanoVocoder(decoder)


@pytest.mark.parametrize("cuts", [[1], [2, 3, 5], [8], [8, 1, 1, 9], [30]])
def test_streaming_equals_offline(vocoder, cuts):
    tokens = np.random.default_rng(1).integers(0, 64, 30).tolist()
    whole = vocoder.decode(tokens)
    stream, parts, at = vocoder.stream(), [], 0
    while at < len(tokens):
        size = cuts[len(parts) % len(cuts)]
        parts.append(stream.push(tokens[at : at + size], final=at + size >= len(tokens)))
        at += size
    assert len(whole) == 30 * SAMPLES_PER_TOKEN
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=STREAMING_TOLERANCE * max(1, np.abs(whole).max()))


def test_look_ahead_is_one_token(vocoder):
    stream = vocoder.stream()
    assert len(stream.push([1])) == 0
    first = stream.push([2] * 7)
    assert 6 * SAMPLES_PER_TOKEN < len(first) <= 7 * SAMPLES_PER_TOKEN


def test_flush_without_new_tokens_gives_the_rest(vocoder):
    stream = vocoder.stream()
    sounded = len(stream.push([5, 6, 7]))
    assert sounded + len(stream.push([], final=True)) == 3 * SAMPLES_PER_TOKEN
    assert len(vocoder.stream().push([], final=True)) == 0


def test_two_streams_do_not_disturb_each_other(vocoder):
    one, other = vocoder.stream(), vocoder.stream()
    parts = [one.push([3, 4])]
    other.push([9, 9, 9])
    parts.append(one.push([5, 6], final=True))
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(_pushed(vocoder, [3, 4], [5, 6])))


def _pushed(vocoder, *groups):
    stream = vocoder.stream()
    return [stream.push(group, final=group is groups[-1]) for group in groups]


def test_pitch_of_a_pulse_train():
    samples = torch.zeros(16000)
    samples[:: 16000 // 125] = 1.0
    hz, voiced = track_pitch(samples)
    assert voiced[10:90].mean() > 0.95
    assert (hz[10:90] - 125).abs().max() < 2


def test_minimum_phase_keeps_the_magnitude():
    log_magnitude = torch.randn(3, 32) @ band_matrix(32)
    spectrum = minimum_phase(log_magnitude)
    torch.testing.assert_close(spectrum.abs().log(), log_magnitude, atol=1e-3, rtol=0)
    energy = torch.fft.irfft(spectrum).square()
    assert (energy[:, :512].sum(1) > energy[:, 512:].sum(1)).all()  # causal: early, not late


def test_tokens_per_second_and_nearest_code():
    torch.manual_seed(0)
    tokenizer = NanoSpeechTokenizer(torch.randn(16, 208))
    assert len(tokenizer.encode(np.zeros(16000, np.float32), 16000)) == 13  # 12.5 Hz, the last block padded
    assert len(tokenizer.encode(np.zeros(48000, np.float32), 48000)) == 13
