"""Training losses and gradient norms against the reference: every term, packed samples, frozen head, boundaries."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.parity.conftest import golden_set
from tests.parity.golden import GoldenSet
from vita.model.causal_lm import VitaAudioForCausalLM
from vita.training.losses import TrainingLosses, training_losses

ATOL, RTOL = 1e-4, 1e-3
"""Where the index states none: losses absolute, gradient norms relative."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    golden = golden_set(metafunc.config)
    cases = []
    for stem in golden.stems("lm_", "_train.json"):
        for name, case in golden.json(f"{stem}_train.json")["cases"].items():
            for kind, expected in case.items():
                if isinstance(expected, dict) and "loss" in expected:
                    cases.append(pytest.param((stem, case, kind, expected), id=f"{stem}-{name}-{kind}"))
    metafunc.parametrize("case", cases)


def losses_of(
    model: VitaAudioForCausalLM, case: dict[str, Any], boundary: str, num_targets: int | None = None
) -> TrainingLosses:
    ids, labels, positions = (torch.tensor(case[key]) for key in ("input_ids", "labels", "position_ids"))
    return training_losses(model, ids, labels, positions, boundary=boundary, num_targets=num_targets)


def test_losses_and_gradients(golden: GoldenSet, case) -> None:
    stem, batch, kind, expected = case
    file = f"{stem}_train.json"
    atol, rtol = golden.atol(file, ATOL), golden.rtol(file, RTOL)
    model = VitaAudioForCausalLM.from_pretrained(golden.path(stem)).train()
    model.config.mtp_loss_weight = golden.json(file).get("mtp_loss_weight", model.config.mtp_loss_weight)
    model.lm_head.weight.requires_grad_(kind != "lm_head_frozen")
    found = losses_of(model, batch, "faithful", expected.get("value"))
    assert found.total.item() == pytest.approx(expected["loss"], abs=atol)
    if "main_ce" in expected:
        assert found.main_ce.item() == pytest.approx(expected["main_ce"], abs=atol)
    if "mtp_ce" in expected:
        assert [loss.item() for loss in found.mctp_ce] == pytest.approx(expected["mtp_ce"], abs=atol)
    assert found.mctp_rows == expected.get("mtp_rows", found.mctp_rows)
    assert found.mctp_targets == expected.get("mtp_valid_targets", found.mctp_targets)
    if "grad_l2" in expected:
        found.total.backward()
        parameters = dict(model.named_parameters())
        for name, norm in expected["grad_l2"].items():
            gradient = parameters[name].grad
            if norm is None:
                assert gradient is None or not gradient.any(), name
            else:
                assert gradient.norm().item() == pytest.approx(norm, rel=rtol), name
