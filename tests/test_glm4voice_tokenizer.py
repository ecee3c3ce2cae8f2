"""The GLM-4-Voice tokenizer while audio arrives, at other sample rates, and with files in another layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vita.errors import AudioError, CheckpointError
from vita.speech.glm4voice_tokenizer import Glm4VoiceTokenizer
from vita.speech.whisper_vq import WhisperVQConfig, WhisperVQEncoder

FIXTURE = Path(__file__).parent / "fixtures" / "golden" / "vq_a"


@pytest.fixture(scope="module")
def tokenizer() -> Glm4VoiceTokenizer:
    return Glm4VoiceTokenizer.from_pretrained(FIXTURE)


@pytest.fixture(scope="module")
def speech(speech_like) -> np.ndarray:
    """36 s that begin with their loudest second."""
    tiled = np.tile(speech_like, 24)
    tiled[24_000:] *= 0.8
    return tiled


@pytest.mark.parametrize(
    ("samples", "piece"),
    [
        (100, 60), (1280, 1280), (64_040, 9_000), (64_039, 64_039), (70_000, 333),
        (480_000, 100_000), (480_000 + 1_270, 50_000), (480_000 + 64_000 - 100, 170_000),
    ],
)  # fmt: skip
def test_a_stream_gives_the_same_tokens(tokenizer, speech, samples, piece):
    stream, ids = tokenizer.stream(), []
    for start in range(0, samples, piece):
        ids += stream.push(speech[start : min(start + piece, samples)])
    ids += stream.finish()
    assert ids == tokenizer.encode(speech[:samples], 16_000)
    assert len(ids) == sum(-(-length // 1280) for length in (min(samples, 480_000), max(samples - 480_000, 0)))


def test_a_finished_block_is_encoded_once(tokenizer, speech, monkeypatch):
    frames: list[int] = []
    encode = WhisperVQEncoder.hidden_block

    def counted(self, features, state, valid=None):
        frames.append(features.shape[-1])
        return encode(self, features, state, valid)

    monkeypatch.setattr(WhisperVQEncoder, "hidden_block", counted)
    stream, ids = tokenizer.stream(), []
    for start in range(0, 160_000, 1_600):
        ids += stream.push(speech[start : start + 1_600])
    assert frames == [400, 400]  # 4 s each
    assert len(ids) == 100
    stream.finish()
    assert frames == [400, 400, 200]


def test_a_quiet_begin_is_cut_at_the_loudest_sound_so_far(tokenizer, speech):
    """The stated limit of streaming: 80 dB below the loudest sound of the segment, which may come later."""
    late = np.concatenate([speech[:64_040] * 1e-5, speech[:64_000]])
    stream = tokenizer.stream()
    streamed = stream.push(late) + stream.finish()
    whole = tokenizer.encode(late, 16_000)
    assert streamed[:50] != whole[:50]
    # Where it is loud only the quiet past differs, which later blocks attend to.
    assert len(streamed) == len(whole)


def test_other_sample_rates(tokenizer, speech):
    from vita.speech.features import resample

    fast = resample(torch.from_numpy(speech[:32_000]), 16_000, 48_000).numpy()
    ids, expected = tokenizer.encode(fast, 48_000), tokenizer.encode(speech[:32_000], 16_000)
    assert len(ids) == len(expected) == 25


def test_audio_without_samples_is_refused(tokenizer):
    for wrong in (np.zeros(0, np.float32), np.zeros((2, 100), np.float32)):
        with pytest.raises(AudioError):
            tokenizer.encode(wrong, 16_000)
    assert tokenizer.stream().finish() == []


def test_weights_of_a_whole_whisper_model_are_understood(tokenizer, speech, tmp_path):
    folder = Path(shutil.copytree(FIXTURE, tmp_path / "whole"))
    weights = {f"model.encoder.{key}": tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    layers = tokenizer.encoder.config.num_layers
    others = [f"model.encoder.layers.{layers}.fc1.bias", "model.encoder.layer_norm.bias"]
    others += ["model.decoder.layer_norm.bias", "proj_out.weight"]
    weights |= {key: torch.ones(3) for key in others}
    save_file(weights, folder / "model.safetensors")
    again = Glm4VoiceTokenizer.from_pretrained(folder)
    assert again.encode(speech[:20_000], 16_000) == tokenizer.encode(speech[:20_000], 16_000)


@pytest.mark.parametrize(
    "change",
    [{"encoder_causal_convolution": False}, {"pooling_position": 2}, {"pooling_type": "sum"},
     {"encoder_attention_heads": 5}, {"encoder_causal_attention": True}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_settings_without_code_are_refused(change):
    values = {"d_model": 32, "encoder_attention_heads": 4, "quantize_position": 4, "pooling_position": 4}
    with pytest.raises(CheckpointError, match=next(iter(change))):
        WhisperVQConfig.from_dict({**values, **change})
