"""Everything a person may hand over as audio: what is understood, and what is refused in which words."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from vita.errors import AudioError
from vita.speech.audio_io import check_writable, load, prepare, read_file, save

RATE = 16_000


def refused(source, **options) -> str:
    with pytest.raises(AudioError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message  # what is wrong: what to do
    return message


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [("wav", "PCM_16", 1e-4), ("wav", "FLOAT", 1e-6), ("wav", "PCM_U8", 1e-2), ("wav", "PCM_24", 1e-5),
     ("flac", "PCM_16", 1e-4)],
)
def test_lossless_files_come_back_as_they_were(tmp_path, tone, suffix, subtype, tolerance):
    path = tmp_path / f"question.{suffix}"
    soundfile.write(path, tone, RATE, subtype=subtype)
    out = load(path)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, tone, atol=tolerance)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_compressed_files_are_read(tmp_path, tone, suffix):
    path = tmp_path / f"question.{suffix}"
    soundfile.write(path, tone, RATE)
    out = load(path)
    assert len(out) == pytest.approx(RATE, abs=2500)  # codecs pad
    assert np.abs(out).max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("int16", 1e-4), ("int32", 1e-6), ("int8", 2e-2), ("float64", 1e-6), ("float16", 1e-3)]
)
def test_arrays_of_every_kind_are_scaled_to_one(tone, dtype, tolerance):
    kind = np.dtype(dtype)
    array = (tone * np.iinfo(kind).max).astype(kind) if kind.kind == "i" else tone.astype(kind)
    np.testing.assert_allclose(load((array, RATE)), tone, atol=tolerance)


def test_eight_bit_unsigned_is_centred(tone):
    np.testing.assert_allclose(load(((tone * 127 + 128).astype(np.uint8), RATE)), tone, atol=2e-2)


def test_stereo_at_48_khz_becomes_mono_at_16_khz():
    time = np.arange(48_000) / 48_000
    left, right = 0.4 * np.sin(2 * np.pi * 300 * time), 0.2 * np.sin(2 * np.pi * 300 * time)
    both = np.stack([left, right], axis=1)
    expected = 0.3 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(load((both, 48_000))[200:-200], expected[200:-200], atol=2e-3)
    np.testing.assert_allclose(load((both, 48_000), channel="first")[200:-200], expected[200:-200] * 4 / 3, atol=2e-3)


def test_clipped_noisy_and_very_quiet_audio_is_accepted_as_it_is(tone):
    clipped = np.clip(tone * 20, -1, 1)
    assert np.abs(load((clipped, 44_100))).max() <= 1.0
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    assert load((noise, RATE)).shape == (RATE,)
    quiet = np.random.default_rng(0).normal(0, 3e-4, RATE)
    assert load((quiet, RATE)).shape == (RATE,)


def test_a_file_that_is_not_audio(tmp_path):
    path = tmp_path / "letter.wav"
    path.write_text("Dear reader, this is not audio.\n" * 50)
    message = refused(path)
    assert "letter.wav" in message
    assert "WAV, FLAC, OGG or MP3" in message


def test_missing_empty_and_folder(tmp_path):
    assert "no audio file" in refused(tmp_path / "nowhere.wav")
    assert "folder" in refused(tmp_path)
    (tmp_path / "empty.wav").touch()
    assert "0 bytes" in refused(tmp_path / "empty.wav")


def test_a_truncated_file_gives_what_is_there_or_a_message(tmp_path, tone):
    path = tmp_path / "cut.wav"
    soundfile.write(path, tone, RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert 0.4 * RATE < len(load(path)) <= 0.5 * RATE
    path.write_bytes(whole[:30])
    refused(path)


def test_no_samples(tmp_path):
    assert "no samples" in refused((np.zeros(0, np.float32), RATE))
    assert "no samples" in refused((np.zeros((0, 2), np.int16), RATE))
    path = tmp_path / "header_only.wav"
    soundfile.write(path, np.zeros(0), RATE)
    assert "no samples" in refused(path)


def test_ten_milliseconds_and_ten_minutes(tmp_path, tone):
    assert "10 ms" in refused((tone[:160], RATE))
    minutes = np.tile((tone * 32767).astype(np.int16), 600)
    assert "longer than 30 s" in refused((minutes, RATE))
    path = tmp_path / "long.wav"
    soundfile.write(path, minutes, RATE)
    assert "longer than 30 s" in refused(path)
    assert len(read_file(path)[0]) == 30 * RATE + 1  # a long file is not read to its end
    assert len(load(path, max_seconds=None)) == 600 * RATE
    assert "longer than 0.5 s" in refused((tone, RATE), max_seconds=0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tone, bad):
    broken = tone.copy()
    broken[1234] = bad
    assert "NaN or infinite" in refused((broken, RATE))


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_digital_silence(level):
    assert "microphone" in refused((np.full(RATE, level, np.float32), RATE))


def test_unscaled_float_is_named(tone):
    assert "divide" in refused((tone * 32768, RATE))


@pytest.mark.parametrize("rate", [0, -16_000, 100, 10_000_000, 16_000.5, float("nan"), None, "16000", True])
def test_impossible_sample_rates(tone, rate):
    assert "sample rate" in refused((tone, rate))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "pair"),
        (np.zeros(100), "pair"),
        ((16_000, np.zeros(RATE)), "swap"),
        ((np.zeros((2, RATE)), RATE), "transpose"),
        ((np.zeros((4, 4, 4)), RATE), "shape"),
        ((np.array(["a"] * RATE), RATE), "values"),
        ((np.ones(RATE, bool), RATE), "values"),
        ((np.ones(RATE, complex), RATE), "values"),
    ],
)
def test_things_that_are_no_samples(source, words):
    assert words in refused(source)


def test_the_given_array_is_left_alone(tone):
    original = tone.copy()
    prepared = prepare((original, RATE))
    prepared *= 0
    np.testing.assert_array_equal(original, tone)


@pytest.mark.parametrize("suffix", ["wav", "flac", "WAV"])
def test_saved_audio_is_read_back(tmp_path, tone, suffix):
    path = tmp_path / f"answer.{suffix}"
    save(path, tone, RATE)
    np.testing.assert_allclose(load(path), tone, atol=1e-4)


def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path):
    for bad, words in [
        (tmp_path / "answer.xyz", ".wav or .flac"),
        (tmp_path / "none" / "answer.wav", "no folder"),
        (tmp_path, ".wav"),
        ("/proc/answer.wav", "answer.wav"),
    ]:
        with pytest.raises(AudioError, match=words):
            save(bad, np.zeros(100, np.float32), RATE)
    folder = tmp_path / "folder.wav"
    folder.mkdir()
    with pytest.raises(AudioError, match="folder"):
        check_writable(folder)
