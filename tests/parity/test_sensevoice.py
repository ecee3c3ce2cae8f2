"""SenseVoice input of the Plus models against the reference: features, encoder, adapter, logits, tokens, losses."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tests.parity.conftest import golden_set
from tests.parity.decoding_checks import check_run
from tests.parity.golden import GoldenSet, assert_close
from vita.model.causal_lm import VitaAudioSenseVoiceForCausalLM
from vita.model.checkpoint import stored_shapes, weight_files
from vita.model.config import VitaAudioSenseVoiceConfig
from vita.model.sensevoice_encoder import SenseVoiceEncoder
from vita.speech.sensevoice_frontend import SenseVoiceFrontend, filter_banks
from vita.training.losses import training_losses
from vita.weights import read_weights

ATOL = 2e-4
SUM_ATOL = 5e-2
"""For logits summed over the vocabulary."""
_ENCODER_ARGUMENTS = (
    "output_size", "attention_heads", "linear_units", "num_blocks", "tp_blocks", "kernel_size",
)  # fmt: skip


_STORED = "model.audio_model.model."


def encoder_arguments(conf: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recorded ``encoder_conf``, and from the stored shapes what it does not say."""
    shapes = stored_shapes(weight_files(folder))
    return {
        **{name: conf[name] for name in _ENCODER_ARGUMENTS if name in conf},
        "input_size": shapes[f"{_STORED}embed.weight"][1],
        "vocab_size": shapes[f"{_STORED}ctc.ctc_lo.bias"][0],
    }


class RecordedPlus:
    """Everything recorded about one language model with SenseVoice input."""

    @torch.inference_mode(False)  # whichever test comes first, the weights must allow gradients
    def __init__(self, golden: GoldenSet, stem: str):
        folder = golden.path(stem)
        values = json.loads((folder / "config.json").read_text())
        config = VitaAudioSenseVoiceConfig.from_pretrained(folder)
        config.audio_encoder = {"type": "sensevoice", **encoder_arguments(values["_golden_encoder_conf"], folder)}
        self.model = VitaAudioSenseVoiceForCausalLM.from_pretrained(folder, config=config)
        self.decode = golden.json(f"{stem}_decode.json") if golden.has(f"{stem}_decode.json") else {}
        name = f"{stem}_tensors.safetensors"
        self.tensors = golden.tensors(name) if golden.has(name) else {}
        self.atol = golden.atol(name, ATOL)

    def features(self, names: list[str]) -> tuple[Tensor, Tensor]:
        feats = [self.tensors[name].float() for name in names]
        return pad_sequence(feats, batch_first=True), torch.tensor([len(rows) for rows in feats])

    @torch.inference_mode()
    def audio_rows(self, case: dict[str, Any]) -> list[tuple[int, Tensor]]:
        """The encoded audios of a prompt and where they go, from its recorded indices."""
        if not case["audio_feats"]:
            return []
        rows = self.model.encode_audio(*self.features(case["audio_feats"]))
        placed = []
        for (_, positions), row in zip(case["audio_indices"], rows, strict=True):
            positions = torch.tensor(positions).flatten().tolist()
            assert positions == list(range(positions[0], positions[0] + len(row)))
            placed.append((positions[0], row))
        return placed

    def prompt_ids(self, name: str) -> list[int]:
        return torch.tensor(self.decode["prompts"][name]["input_ids"]).flatten().tolist()


@cache
def recorded(folder: str, stem: str) -> RecordedPlus:
    return RecordedPlus(GoldenSet(folder), stem)


def plus_stems(golden: GoldenSet) -> list[str]:
    return [
        path.name for path in sorted(golden.folder.glob("sv_*"))
        if (path / "config.json").is_file() and "_golden_encoder_conf" in (path / "config.json").read_text()
    ]


def encoder_stems(golden: GoldenSet) -> list[tuple[str, str]]:
    """(stem, folder of a stand-alone encoder)."""
    found = []
    for path in sorted(golden.folder.glob("sv_*")):
        if (path / "config.json").is_file() and "encoder_conf" in json.loads((path / "config.json").read_text()):
            found.append((path.name.split("_encoder")[0], path.name))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    golden = golden_set(metafunc.config)
    folder = str(golden.folder)
    if "frontend" in metafunc.fixturenames:
        metafunc.parametrize("frontend", golden.stems("sv_", "_frontend.safetensors"))
    if "encoder" in metafunc.fixturenames:
        metafunc.parametrize("encoder", encoder_stems(golden), ids=lambda pair: pair[1])
    if "plus" in metafunc.fixturenames:
        metafunc.parametrize("plus", [(folder, stem) for stem in plus_stems(golden)], ids=lambda pair: pair[1])
    for fixture, suffix, key in (("prompt", "_decode.json", "prompts"), ("run", "_decode.json", "runs"),
                                 ("training", "_train.json", "cases")):
        if fixture in metafunc.fixturenames:
            cases = []
            for stem in plus_stems(golden):
                if not golden.has(stem + suffix):
                    continue
                for i, case in enumerate(content := golden.json(stem + suffix).get(key, ())):
                    if fixture == "run":
                        name, case = f"{case['prompt']}-{case.get('mode_name', i)}", case
                    else:
                        name, case = case, content[case]
                    cases.append(pytest.param((folder, stem, name, case), id=f"{stem}-{name}"))
            metafunc.parametrize(fixture, cases)


def test_features(golden: GoldenSet, frontend: str) -> None:
    name = f"{frontend}_frontend.safetensors"
    tensors = golden.tensors(name)
    make = SenseVoiceFrontend(*tensors["cmvn_shift_scale"])
    waves = [key for key in tensors if key.endswith(".wav_int16")]
    assert waves
    for key in waves:
        case = key.removesuffix(".wav_int16")
        samples = tensors[key].float()
        assert_close(filter_banks(samples), tensors[f"{case}.fbank80"], golden.atol(name, 2e-3))
        expected = tensors[f"{case}.lfr_cmvn560"]
        assert_close(make(samples / 32768), expected, golden.atol(name, 1e-3, "lfr_cmvn560"))


@torch.inference_mode()
def test_stand_alone_encoder(golden: GoldenSet, encoder: tuple[str, str]) -> None:
    stem, folder = encoder
    tensors = golden.tensors(f"{stem}_tensors.safetensors")
    atol = golden.atol(f"{stem}_tensors.safetensors", ATOL)
    values = golden.json(f"{folder}/config.json")
    module = SenseVoiceEncoder(**encoder_arguments(values["encoder_conf"], golden.path(folder))).eval()
    weights = read_weights(golden.path(folder) / "model.safetensors")
    weights = {key.removeprefix("model.audio_model."): tensor.float() for key, tensor in weights.items()}
    module.load_state_dict(weights, strict=True)
    kept = module.state_dict()
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[key], weights[key]) for key in weights)

    label = folder.removeprefix(f"{stem}_encoder_")
    cases = [key.split(".")[1] for key in tensors if key.startswith(f"{label}.") and key.endswith(".out")]
    assert cases
    features = {key.removeprefix("feats."): tensors[key].float() for key in tensors if key.startswith("feats.")}
    for case in cases:
        batch = list(features.values()) if case == "batch" else [features[case]]
        out, lengths = module(
            pad_sequence(batch, batch_first=True), torch.tensor([len(rows) for rows in batch])
        )
        assert lengths.tolist() == tensors[f"{label}.{case}.lens"].flatten().tolist()
        for row, expected, length in zip(out, tensors[f"{label}.{case}.out"], lengths.tolist(), strict=True):
            assert_close(row[:length], expected[:length], atol)


@torch.inference_mode()
def test_encoder_and_adapter_in_the_model(plus: tuple[str, str]) -> None:
    it = recorded(*plus)
    cases = sorted({key.split(".")[1] for key in it.tensors if key.startswith("full.")})
    assert cases
    all_features = sorted(key for key in it.tensors if key.startswith("feats."))
    for case in cases:
        features, lengths = it.features(all_features if case == "batch" else [f"feats.{case}"])
        if f"full.{case}.encoder_out" in it.tensors:
            hidden, _ = it.model.model.audio_model(features, lengths)
            assert_close(hidden, it.tensors[f"full.{case}.encoder_out"], it.atol)
        rows = it.model.encode_audio(features, lengths)
        assert [len(row) for row in rows] == it.tensors[f"full.{case}.lens"].flatten().tolist()
        for row, expected in zip(rows, it.tensors[f"full.{case}.projector_out"], strict=True):
            assert_close(row, expected[: len(row)], it.atol)


@torch.inference_mode()
def test_logits_of_a_prompt_with_audio(prompt) -> None:
    folder, stem, name, case = prompt
    it = recorded(folder, stem)
    ids = torch.tensor([it.prompt_ids(name)])
    logits = it.model(ids, audio_rows=it.audio_rows(case))[0]
    if not any(key.startswith(f"{name}.prefill") for key in it.tensors):
        pytest.skip("no logits of this prompt were recorded")
    for key, expected in it.tensors.items():
        if key.startswith(f"{name}.prefill_logits") and "sum" not in key:
            assert_close(logits[-len(expected) :], expected, it.atol)
    if f"{name}.prefill_logits_sum_per_pos" in it.tensors:
        assert_close(logits.sum(-1), it.tensors[f"{name}.prefill_logits_sum_per_pos"], SUM_ATOL)
    if f"{name}.prefill_argmax_per_pos" in it.tensors:
        best, second = logits.topk(2).values.T
        clear = best - second > 2 * it.atol
        expected = it.tensors[f"{name}.prefill_argmax_per_pos"].long()
        assert torch.equal(logits.argmax(-1)[clear], expected[clear])


def test_greedy_tokens_after_audio(run) -> None:
    folder, stem, _, recording = run
    it = recorded(folder, stem)
    rows = it.audio_rows(it.decode["prompts"][recording["prompt"]])
    check_run(it.model, recording, it.prompt_ids(recording["prompt"]), it.tensors, it.atol, rows)


def test_training_losses_with_audio(golden: GoldenSet, training) -> None:
    folder, stem, _, case = training
    it = recorded(folder, stem)
    name = f"{stem}_train.json"
    atol, rtol = golden.atol(name, 1e-4), golden.rtol(name, 1e-3)
    model = it.model
    model.config.mtp_loss_weight = golden.json(name).get("mtp_loss_weight", model.config.mtp_loss_weight)
    ids, labels, positions = (torch.tensor(case[key]) for key in ("input_ids", "labels", "position_ids"))
    for kind in (key for key, value in case.items() if isinstance(value, dict) and "loss" in value):
        expected = case[kind]
        model.zero_grad()
        model.lm_head.weight.requires_grad_(kind != "lm_head_frozen")
        with torch.enable_grad():
            found = training_losses(
                model, ids, labels, positions, main_embeds=_embeds(it, ids, case), boundary="faithful",
                num_targets=expected.get("value"),
            )  # fmt: skip
            found.total.backward()
        assert found.total.item() == pytest.approx(expected["loss"], abs=atol)
        if "main_ce" in expected:
            assert found.main_ce.item() == pytest.approx(expected["main_ce"], abs=atol)
        if "mtp_ce" in expected:
            assert [loss.item() for loss in found.mctp_ce] == pytest.approx(expected["mtp_ce"], abs=atol)
        assert found.mctp_targets == expected.get("mtp_valid_targets", found.mctp_targets)
        parameters = dict(model.named_parameters())
        for key, norm in expected.get("grad_l2", {}).items():
            gradient = parameters[key].grad
            if norm is None:
                assert gradient is None or not gradient.any(), key
            else:
                assert gradient.norm().item() == pytest.approx(norm, rel=rtol), key


def _embeds(it: RecordedPlus, ids: Tensor, case: dict[str, Any]) -> Tensor:
    return it.model.embed_prompt(ids, [(start, row.clone()) for start, row in it.audio_rows(case)])
