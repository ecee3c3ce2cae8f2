"""GLM-4-Voice tokenizer, flow decoder and vocoder against the reference."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden_decoder import golden_decoder
from tests.parity.conftest import golden_set
from tests.parity.golden import GoldenSet, assert_close
from vita.speech.flow_decoder import FlowDecoder
from vita.speech.glm4voice_tokenizer import Glm4VoiceTokenizer
from vita.speech.hift import HiFT, SourceNoise

ATOL, WAVE_ATOL = 5e-4, 1e-3
REFERENCE_SEED = 42
"""The reference's flow decoder seeds torch's global generator with it on every call."""


class RecordedSpeech:
    """One recorded set ``glm4voice_X`` with the tokenizer ``vq_X`` and the decoder ``decoder_X`` behind it."""

    def __init__(self, golden: GoldenSet, stem: str):
        self.cases = golden.json(f"{stem}.json")
        name = f"{stem}_tensors.safetensors"
        self.tensors = golden.tensors(name)
        self.description = golden.index.get(name, {}).get("description", "")
        self.atol = golden.atol(name, ATOL)
        self.wave_atol = golden.atol(name, WAVE_ATOL, "wav atol")
        self._vq, self._decoder = (_partner(golden, stem, kind) for kind in ("vq", "decoder"))

    @property
    def tokenizer(self) -> Glm4VoiceTokenizer:
        return _tokenizer(self._vq)

    @property
    def flow(self) -> FlowDecoder:
        return golden_decoder(self._decoder)[0]

    @property
    def hift(self) -> HiFT:
        return golden_decoder(self._decoder)[1]

    def of(self, prefix: str) -> dict[str, Tensor]:
        """Tensors under a prefix, without it."""
        return {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(prefix + ".")}

    def wave(self, name: str) -> np.ndarray:
        return self.tensors[name].numpy().astype(np.float32) / 32768


def _partner(golden: GoldenSet, stem: str, kind: str) -> Path:
    own = golden.path(f"{kind}_{stem.split('_', 1)[1]}")
    others = sorted(golden.folder.glob(f"{kind}_*"))
    assert own.is_dir() or len(others) == 1, f"which {kind}_* belongs to {stem}?"
    return own if own.is_dir() else others[0]


@cache
def _tokenizer(folder: Path) -> Glm4VoiceTokenizer:
    return Glm4VoiceTokenizer.from_pretrained(folder)


@cache
def recorded(folder: str, stem: str) -> RecordedSpeech:
    return RecordedSpeech(GoldenSet(folder), stem)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    golden = golden_set(metafunc.config)
    found = {"features": [], "heard": [], "waveform": [], "flow_case": [], "hift_case": [], "speech": [], "stream": []}
    for stem in golden.stems("glm4voice_", ".json"):
        content = golden.json(f"{stem}.json")
        tensors = golden.tensors(f"{stem}_tensors.safetensors")
        names = {
            "features": [key.split(".")[0] for key in tensors if re.fullmatch(r"vq\w*\.input_features", key)],
            # "vq" is the batch of all recorded waveforms; others are random features.
            "heard": ["vq"] if "vq.input_features" in tensors and "wav16k.0" in tensors else [],
            "waveform": list(content.get("extract_speech_token", ())),
            "flow_case": list(content.get("flow", ())),
            "hift_case": list(content.get("hift", ())),
            "speech": ["final"] if "t2w.final.wav" in tensors else [],
            "stream": ["stream"] if content.get("t2w_stream") else [],
        }
        for kind, cases in names.items():
            found[kind] += [
                pytest.param((str(golden.folder), stem, case), id=f"{stem}-{case.split(' ')[0]}") for case in cases
            ]
    for kind, cases in found.items():
        if kind in metafunc.fixturenames:
            metafunc.parametrize(kind, cases)


@torch.inference_mode()
def test_tokenizer_hidden_states_and_ids(features) -> None:
    folder, stem, name = features
    it = recorded(folder, stem)
    case, encoder = it.of(name), it.tokenizer.encoder
    valid = case["attention_mask"].bool()
    hidden = encoder.hidden(case["input_features"].float(), valid)
    assert_close(hidden, case["pre_quant_hidden"], it.atol)
    ids = encoder.quantize(hidden)
    assert torch.equal(ids, case["quantized_token_ids"].long())
    if "last_hidden_state" in case:
        assert_close(encoder.embed_codes(ids), case["last_hidden_state"], it.atol)


def test_tokenizer_features(heard) -> None:
    folder, stem, name = heard
    it = recorded(folder, stem)
    waves = sorted(key for key in it.tensors if key.startswith("wav16k."))
    found, valid = it.tokenizer.batch_features([torch.from_numpy(it.wave(key)) for key in waves])
    assert_close(found, it.of(name)["input_features"], it.atol)
    assert torch.equal(valid, it.of(name)["attention_mask"].bool())


def _samples(it: RecordedSpeech, recipe: str) -> np.ndarray:
    """The waveform a recorded case speaks of: a recorded one, or ``np.resize`` of one to so many samples."""
    resized = re.search(r"np\.resize\((wav16k\.\w+), (\d+)\)", recipe)
    if resized:
        return np.resize(it.wave(resized.group(1)), int(resized.group(2)))
    return it.wave(recipe)


def test_ids_of_waveforms(waveform) -> None:
    folder, stem, recipe = waveform
    it = recorded(folder, stem)
    assert it.tokenizer.encode(_samples(it, recipe), 16_000) == it.cases["extract_speech_token"][recipe]


def test_ids_of_waveforms_while_they_arrive(waveform) -> None:
    folder, stem, recipe = waveform
    it = recorded(folder, stem)
    samples, stream = _samples(it, recipe), it.tokenizer.stream()
    ids: list[int] = []
    for start in range(0, len(samples), 7_777):
        ids += stream.push(samples[start : start + 7_777])
    assert ids + stream.finish() == it.cases["extract_speech_token"][recipe]


@torch.inference_mode()
def test_flow_decoder(flow_case) -> None:
    folder, stem, name = flow_case
    it = recorded(folder, stem)
    case, flow = it.of(f"flow.{name}"), it.flow
    steps = it.cases["flow"][name]["option_steps"]
    tokens = torch.cat([case["prompt_token"], case["token"]]) if "prompt_token" in case else case["token"]
    encoded = flow.encode(tokens.long())
    assert_close(encoded, case["encoder_out"], it.atol)
    assert_close(flow.mu(encoded), case["mu"], it.atol)
    assert_close(flow.decoder.times(steps), case["t_span"], 1e-6)
    mel = flow(
        case["token"].long(), case["noise_z"], steps,
        prompt_tokens=case["prompt_token"].long() if "prompt_token" in case else None,
        prompt=case["prompt_feat"].T if "prompt_feat" in case else None,
        embedding=case.get("embedding"),
    )
    assert_close(mel, case["mel"], it.atol)


@torch.inference_mode()
def test_vocoder(hift_case) -> None:
    folder, stem, name = hift_case
    it = recorded(folder, stem)
    case, hift = it.of(f"hift.{name}"), it.hift
    f0 = hift.f0_predictor(case["mel"][None])[0]
    assert_close(f0, case["f0"], it.atol, rtol=1e-5)
    assert_close(hift(case["mel"], case["source"]), case["wav"], it.wave_atol)
    if "sine_noise" in case:
        source = hift.m_source(f0, SourceNoise(case["phase_vec"].flatten(), case["sine_noise"]))
        assert_close(source, case["source"], it.wave_atol)


def _reference_noise(it: RecordedSpeech, frames: int) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(REFERENCE_SEED)
    return torch.randn(it.flow.config.mel_bins, frames, generator=generator), generator


@torch.inference_mode()
def test_token2wav(speech) -> None:
    folder, stem, _ = speech
    it = recorded(folder, stem)
    recipe = re.search(r"token2wav of flow\.(\w+) \(final, option_steps (\d+)\)", it.description)
    name, steps = (recipe.group(1), int(recipe.group(2))) if recipe else ("s10", 10)
    tokens = it.tensors[f"flow.{name}.token"].long()
    noise, generator = _reference_noise(it, it.flow.frames(len(tokens)))
    mel = it.flow(tokens, noise, steps)
    wave = it.hift(mel, it.hift.source(it.hift.f0_predictor(mel[None])[0], generator))
    assert_close(wave, it.tensors["t2w.final.wav"], it.wave_atol)


@torch.inference_mode()
def test_token2wav_as_the_reference_streams(stream) -> None:
    """The reference's stream: overlapping mel faded with a Hamming window, one mel frame and its source repeated.

    Only pushes whose tokens were recorded can be compared.
    """
    folder, stem, _ = stream
    it = recorded(folder, stem)
    recipe = re.search(r"cached stream of (\d+) steps", it.description)
    overlap = it.cases["derived"]["mel_overlap_len"]
    tokens = _streamed_tokens(it)
    if tokens is None:
        pytest.skip("the tokens of the stream were not recorded")
    hop = it.hift.config.hop
    window = torch.from_numpy(np.hamming(2 * overlap)).float()
    held = cache_mel = cache_source = None
    for i, push in enumerate(it.cases["t2w_stream"]):
        start, end = push["tokens"]
        if end > len(tokens):
            return
        noise, generator = _reference_noise(it, it.flow.frames(end - start))
        mel = it.flow(tokens[start:end], noise, int(recipe.group(1)) if recipe else 3)
        if held is not None:
            mel[:, :overlap] = mel[:, :overlap] * window[:overlap] + held[:, -overlap:] * window[overlap:]
            mel = torch.cat([cache_mel, mel], dim=1)
        if not push["finalize"]:
            held, mel = mel[:, -overlap:].clone(), mel[:, :-overlap]
        source = it.hift.source(it.hift.f0_predictor(mel[None])[0], generator)
        if cache_source is not None:
            source[:hop] = cache_source
        wave = it.hift(mel, source)
        cache_mel, cache_source = mel[:, -1:], source[-hop:]
        assert_close(mel, it.tensors[f"t2w.stream.{i}.mel"], it.atol)
        assert_close(wave if push["finalize"] else wave[:-hop], it.tensors[f"t2w.stream.{i}.wav"], it.wave_atol)


def _streamed_tokens(it: RecordedSpeech) -> Tensor | None:
    """The recorded tokens that begin the stream: those whose first push gives the recorded mel."""
    first = it.cases["t2w_stream"][0]["tokens"][1]
    expected = it.tensors["t2w.stream.0.mel"]
    noise, _ = _reference_noise(it, it.flow.frames(first))
    recipe = re.search(r"cached stream of (\d+) steps", it.description)
    steps = int(recipe.group(1)) if recipe else 3
    longest: Tensor | None = None
    for name in it.cases["flow"]:
        tokens = it.tensors[f"flow.{name}.token"].long()
        if len(tokens) < first or (longest is not None and len(tokens) <= len(longest)):
            continue
        mel = it.flow(tokens[:first], noise, steps)[:, : expected.shape[1]]
        if (mel - expected).abs().max() < it.atol:
            longest = tokens
    return longest
