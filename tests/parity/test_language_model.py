"""The language model against the reference: logits of prompts and steps, every level, greedy tokens in every mode."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from tests.parity.conftest import golden_set
from tests.parity.decoding_checks import check_run, forced_logits
from tests.parity.golden import GoldenSet, assert_close
from vita.decoding.stream import Stream
from vita.model.causal_lm import VitaAudioForCausalLM

ATOL = 2e-4
"""Where the index states none: float32 logits with a standard deviation of about 3."""


class Recorded:
    """Everything recorded about one language model."""

    def __init__(self, golden: GoldenSet, stem: str):
        self.model = VitaAudioForCausalLM.from_pretrained(golden.path(stem))
        self.decode = golden.json(f"{stem}_decode.json") if golden.has(f"{stem}_decode.json") else {}
        name = f"{stem}_tensors.safetensors"
        self.tensors = golden.tensors(name) if golden.has(name) else {}
        self.atol = golden.atol(name, ATOL)

    def prompt(self, name: str) -> list[int]:
        return self.decode["prompts"][name]["input_ids"]


@cache
def recorded(folder: str, stem: str) -> Recorded:
    return Recorded(GoldenSet(folder), stem)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    golden = golden_set(metafunc.config)
    folder = str(golden.folder)
    cases = []
    for stem in golden.stems("lm_", "_decode.json"):
        content = golden.json(f"{stem}_decode.json")
        names = golden.index.get(f"{stem}_tensors.safetensors", {}).get("tensors")
        if names is None and golden.has(f"{stem}_tensors.safetensors"):
            names = golden.tensors(f"{stem}_tensors.safetensors")
        if "run" in metafunc.fixturenames:
            key = "forced" if metafunc.function.__name__.startswith("test_forced") else "runs"
            for run in content.get(key, []):
                cases.append(pytest.param((folder, stem, run), id=f"{stem}-{run['prompt']}-{run['mode_name']}"))
        elif "prefill" in metafunc.fixturenames:
            for name in names or ():
                if re.fullmatch(r"[^.]+\.prefill_logits(_last\d+)?", name):
                    cases.append(pytest.param((folder, stem, name), id=f"{stem}-{name}"))
        elif "cascade" in metafunc.fixturenames and "cascade.input_ids" in (names or ()):
            cases.append(pytest.param((folder, stem), id=stem))
    name = next((name for name in ("run", "prefill", "cascade") if name in metafunc.fixturenames), None)
    if name:
        metafunc.parametrize(name, cases)


def test_prompt_logits(prefill) -> None:
    folder, stem, name = prefill
    it = recorded(folder, stem)
    prompt = it.prompt(name.split(".")[0])
    expected = it.tensors[name]
    with torch.inference_mode():
        assert_close(it.model(torch.tensor([prompt]))[0, -len(expected) :], expected, it.atol)
    stream = Stream(it.model)
    stream.extend(prompt)
    assert_close(stream.logits(stream.advance(0))[-len(expected) :], expected, it.atol)


@torch.inference_mode()
def test_hidden_states_and_logits_of_every_level(cascade) -> None:
    it = recorded(*cascade)
    model, tensors = it.model, it.tensors
    ids = tensors["cascade.input_ids"].long()[None]
    positions = torch.arange(ids.shape[1])
    embeds = model.embed_tokens(ids)
    hidden = model.forward_main(embeds, positions)
    assert_close(hidden[0], tensors["cascade.main.hidden"], it.atol)
    assert_close(model.lm_head(hidden)[0], tensors["cascade.main.logits"], it.atol)
    for k in range(model.num_mctp):
        hidden = model.forward_mctp(k, embeds[:, k + 1 :], hidden[:, :-1], positions[k + 1 :])
        if f"cascade.mtp{k}.hidden" in tensors:
            assert_close(hidden[0], tensors[f"cascade.mtp{k}.hidden"], it.atol)
            assert_close(model.lm_head(hidden)[0], tensors[f"cascade.mtp{k}.logits"], it.atol)


def test_greedy_tokens(run) -> None:
    folder, stem, recording = run
    it = recorded(folder, stem)
    check_run(it.model, recording, it.prompt(recording["prompt"]), it.tensors, it.atol)


def test_forced_step_logits(run) -> None:
    folder, stem, recording = run
    it = recorded(folder, stem)
    prompt, mode = recording["prompt"], recording["mode_name"]
    expected = it.tensors[f"{prompt}.{mode}.forced_step_logits"]
    forced = it.tensors[f"{prompt}.forced_tokens"].tolist()
    logits = forced_logits(
        it.model, recording["mtp_inference_mode"], it.prompt(prompt), forced, len(expected)
    )
    assert_close(logits, expected, it.atol)
