"""Codecs that no published checkpoint uses: SNAC behind the protocols, and the refusals of the others."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vita.errors import AudioError, CheckpointError
from vita.speech.codecs import REFUSED, SUPPORTED, require_supported
from vita.speech.snac_codec import SnacCodec

CODES = 16


class FakeSnac(torch.nn.Module):
    """SNAC's interface over a decoder whose samples depend on two neighbouring frames."""

    sampling_rate, hop_length, vq_strides, codebook_size, attn_window_size = 24_000, 8, [4, 2, 1], CODES, None

    def encode(self, wave: Tensor) -> list[Tensor]:
        wave = F.pad(wave, (0, -wave.shape[-1] % 32))
        levels = [wave.unflatten(-1, (-1, 8 * stride)).abs().amax(-1)[0] for stride in self.vq_strides]
        return [(level * 13).long().clamp(max=CODES - 1) for level in levels]

    def decode(self, codes: list[Tensor]) -> Tensor:
        fine = sum(
            code.repeat_interleave(stride, dim=1).float() * 3**i
            for i, (code, stride) in enumerate(zip(codes, self.vq_strides, strict=True))
        )
        wide = F.avg_pool1d(fine[None], 17, stride=1, padding=8, count_include_pad=False)
        return (wide / 200).repeat_interleave(8, dim=-1)


@pytest.fixture(params=["stub", "package"])
def codec(request) -> SnacCodec:
    if request.param == "stub":
        return SnacCodec(FakeSnac())
    snac = pytest.importorskip("snac", reason="the optional package snac is not installed")
    torch.manual_seed(0)
    return SnacCodec(snac.SNAC(
        sampling_rate=24_000, encoder_dim=4, encoder_rates=[2, 4, 8, 8], decoder_dim=16, decoder_rates=[8, 8, 4, 2],
        attn_window_size=None, codebook_size=CODES, vq_strides=[4, 2, 1], noise=False,
    ))  # fmt: skip


def test_seven_tokens_per_frame_each_from_its_own_range(codec, speech_like):
    tokens = codec.encode(speech_like[:8000], 16_000)
    assert len(tokens) % 7 == 0
    assert [token // CODES for token in tokens[:14]] == [*range(7), *range(7)]
    wave = codec.decode(tokens)
    assert len(wave) == len(tokens) // 7 * codec.samples_per_frame
    assert 0 <= len(wave) - 12_000 < codec.samples_per_frame
    assert codec.codebook_size == 7 * CODES


@pytest.mark.parametrize("size", [1, 7, 24, 1000])
def test_a_stream_equals_decoding_at_once(codec, size):
    rng = np.random.default_rng(5)
    tokens = (rng.integers(0, CODES, (14, 7)) + np.arange(7) * CODES).flatten().tolist()
    stream, chunks = codec.stream(), []
    for start in range(0, len(tokens), size):
        chunks.append(stream.push(tokens[start : start + size]))
    chunks.append(stream.push([], final=True))
    np.testing.assert_allclose(np.concatenate(chunks), codec.decode(tokens), atol=1e-5)


def test_tokens_out_of_order_are_refused(codec):
    with pytest.raises(AudioError, match="order"):
        codec.decode([CODES, 0, 0, 0, 0, 0, 0])


def test_snac_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "snac", None)
    with pytest.raises(CheckpointError, match="pip install snac"):
        SnacCodec.from_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "snac", SimpleNamespace(SNAC=FakeSnac))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        SnacCodec.from_pretrained(tmp_path)


def test_other_codecs_are_refused_with_what_is_missing():
    for kind in SUPPORTED:
        require_supported(kind)
    for kind, word in {"cosyvoice2": "conformer", "sensevoice_sparktts": "BiCodec", "bicodec": "wav2vec2"}.items():
        assert kind in REFUSED
        with pytest.raises(CheckpointError, match=word):
            require_supported(kind)
    with pytest.raises(CheckpointError, match="unknown"):
        require_supported("mimi")
