"""The recorded float32 numbers against bfloat16, on a GPU where there is one: bounds, not equality.

Speech tokenizer, flow decoder and vocoder always run in float32 (they are small, and half precision would change
ids and voice), so only the language model and SenseVoice are compared.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.parity.golden import GoldenSet
from tests.parity.test_sensevoice import RecordedPlus, plus_stems
from vita.model.causal_lm import VitaAudioForCausalLM

RELATIVE_ERROR = 0.05
"""Root mean square of the difference over that of the numbers; measured 0.020 (logits) and 0.006 (audio rows)."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def relative_error(found: Tensor, recorded: Tensor) -> float:
    found, recorded = found.float().cpu(), recorded.float()
    return ((found - recorded).square().mean() / recorded.square().mean()).sqrt().item()


@torch.inference_mode()
def test_prompt_logits(golden: GoldenSet) -> None:
    compared = 0
    for stem in golden.stems("lm_", "_decode.json"):
        if not golden.has(f"{stem}_tensors.safetensors"):
            continue
        tensors, prompts = golden.tensors(f"{stem}_tensors.safetensors"), golden.json(f"{stem}_decode.json")["prompts"]
        model = VitaAudioForCausalLM.from_pretrained(golden.path(stem), dtype=torch.bfloat16, device_map=DEVICE)
        for name, prompt in prompts.items():
            for key in (key for key in tensors if key.startswith(f"{name}.prefill_logits")):
                recorded = tensors[key]
                logits = model(torch.tensor([prompt["input_ids"]], device=DEVICE))[0, -len(recorded) :]
                assert relative_error(logits, recorded) < RELATIVE_ERROR, key
                compared += 1
    if not compared:
        pytest.skip("no logits were recorded")


@torch.inference_mode()
def test_audio_rows(golden: GoldenSet) -> None:
    compared = 0
    for stem in plus_stems(golden):
        it = RecordedPlus(golden, stem)
        model = it.model.to(DEVICE, torch.bfloat16)
        for key in (key for key in it.tensors if key.startswith("full.") and key.endswith(".projector_out")):
            case = key.split(".")[1]
            if case == "batch":
                continue
            features, lengths = it.features([f"feats.{case}"])
            rows = model.encode_audio(features.to(DEVICE), lengths.to(DEVICE))[0]
            assert relative_error(rows, it.tensors[key][0, : len(rows)]) < RELATIVE_ERROR, key
            compared += 1
    if not compared:
        pytest.skip("no audio rows were recorded")
