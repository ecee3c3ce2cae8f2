"""The training loop: exact resume, freezing, refusals."""

import csv
from dataclasses import replace

import pytest
import torch

from vita.errors import VitaError
from vita.training.loop import StageConfig, schedule, train_stage

CONFIG = StageConfig("toy", 12, {"": 1e-2, "0.": 0.0}, save_every=4, log_every=2)


def toy():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))


def losses_of(model, stop_at=None):
    def losses(step):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    return losses


def curve(folder):
    with open(folder / "curve.csv", newline="") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, stop_at):
    whole = toy()
    train_stage(whole, losses_of(whole), CONFIG, tmp_path / "whole")
    cut = toy()
    with pytest.raises(KeyboardInterrupt):
        train_stage(cut, losses_of(cut, stop_at), CONFIG, tmp_path / "cut")
    again = toy()
    train_stage(again, losses_of(again), CONFIG, tmp_path / "cut")
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_frozen_parameters_stay(tmp_path):
    model = toy()
    before = model[0].weight.clone()
    train_stage(model, losses_of(model), CONFIG, tmp_path)
    assert torch.equal(before, model[0].weight)


def test_another_configuration_is_refused(tmp_path):
    model = toy()
    train_stage(model, losses_of(model), CONFIG, tmp_path)
    with pytest.raises(VitaError, match="another configuration"):
        train_stage(model, losses_of(model), replace(CONFIG, clip=0.5), tmp_path)


def test_schedule_rises_and_falls():
    config = StageConfig("x", 1000, {"": 1.0})
    rates = [schedule(step, config) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 30)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(config.floor, abs=1e-3)
    assert rates[30:] == sorted(rates[30:], reverse=True)
