"""The training loop: optimiser, schedule, curves, checkpoints, exact resume.

Knows nothing of speech or text: a stage hands it a module and a function ``losses(step)``. All
randomness of a step comes from its number, so a resumed run sees the very batches, and gives the
very losses, of a run that was never interrupted.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vita.errors import VitaError


@dataclass(frozen=True)
class StageConfig:
    """One stage of a recipe.

    Attributes:
        name: also the folder of the stage's checkpoint and curve.
        steps: optimiser steps.
        learning_rates: parameter-name prefix -> peak learning rate; the longest match wins, and
            parameters without a match are frozen.
        warmup: share of the steps with a rising rate; cosine to ``floor`` of the peak afterwards.
        betas, clip, weight_decay: AdamW and gradient clipping (published values as defaults).
    """

    name: str
    steps: int
    learning_rates: dict[str, float]
    warmup: float = 0.03
    floor: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    save_every: int = 200
    log_every: int = 20
    options: dict = field(default_factory=dict)


def schedule(step: int, config: StageConfig) -> float:
    """Share of the peak learning rate at ``step``."""
    rising = max(1, round(config.steps * config.warmup))
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, config.steps - rising)
    return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _parameter_groups(model: nn.Module, rates: dict[str, float]) -> list[dict]:
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        match = max((p for p in rates if name.startswith(p)), key=len, default=None)
        trained = match is not None and rates[match] > 0
        parameter.requires_grad_(trained)
        if trained:
            groups.setdefault((rates[match], parameter.ndim > 1), []).append(parameter)
    return [{"params": p, "peak": rate, "decay": decay} for (rate, decay), p in groups.items()]


def train_stage(
    model: nn.Module, losses: Callable[[int], dict[str, Tensor]], config: StageConfig, folder: Path
) -> None:
    """Run or resume one stage; afterwards ``folder/model.pt`` holds the state dict.

    Args:
        model: trained in place.
        losses: step -> named scalar losses; ``"loss"`` is minimised, the others are only logged.
        config: the stage. A checkpoint written under another configuration is refused.
        folder: receives ``checkpoint.pt`` while running, ``model.pt`` when done, and ``curve.csv``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = _parameter_groups(model, config.learning_rates)
    optimizer = torch.optim.AdamW(
        [{"params": g["params"], "weight_decay": config.weight_decay if g["decay"] else 0.0} for g in groups],
        lr=0.0,
        betas=config.betas,
    )
    step = _resume(folder / "checkpoint.pt", model, optimizer, config)
    model.train()
    progress = tqdm(total=config.steps, initial=step, desc=config.name, mininterval=10, maxinterval=60)
    curve = _Curve(folder / "curve.csv", step)
    while step < config.steps:
        torch.manual_seed(hash((config.seed, step)) & 0x7FFFFFFF)
        for group, own in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = own["peak"] * schedule(step, config)
        named = losses(step)
        named["loss"].backward()
        norm = nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], config.clip)
        if torch.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        curve.add({name: float(value.detach()) for name, value in named.items()} | {"gradient_norm": float(norm)})
        step += 1
        progress.update()
        if step % config.log_every == 0:
            progress.set_postfix(curve.write(step))
        if step % config.save_every == 0 or step == config.steps:
            _save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "config": repr(asdict(config)),
                },
                folder / "checkpoint.pt",
            )
    progress.close()
    _save(model.state_dict(), folder / "model.pt")
    model.eval()


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: StageConfig) -> int:
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    if saved["config"] != repr(asdict(config)):
        raise VitaError(f"{path} was written under another configuration; finish that run or choose a new folder")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"]


def _save(state: dict, path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save(state, partial)  # a full disk fails here, and the previous checkpoint stays whole
    os.replace(partial, path)


class _Curve:
    """Means of the named values since the last line, as rows of a csv file."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.sums, self.count, self.started = path, {}, 0, time.time()
        if path.exists():  # drop rows after the checkpoint that is being resumed
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
            kept = [r for r in rows if int(r["step"]) <= step]
            self._dump(kept)

    def _dump(self, rows: list[dict]) -> None:
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        with open(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def write(self, step: int) -> dict[str, float]:
        means = {name: round(total / self.count, 4) for name, total in self.sums.items()}
        row = {"step": step, "seconds": round(time.time() - self.started, 1), **means}
        new = not self.path.exists()
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.sums, self.count = {}, 0
        return means
