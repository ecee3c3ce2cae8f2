"""Finding and reading recorded reference numbers.

A golden folder holds, per recorded model ("stem"), a checkpoint folder ``STEM/`` and files ``STEM_*.json`` and
``STEM_*.safetensors``, and one ``index.json`` that describes every file with its tolerance. Stems, shapes, seeds
and the number of recorded cases vary from set to set: tests ask this module what is there and assume nothing.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


class GoldenSet:
    """One folder of recorded reference numbers."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    @cached_property
    def index(self) -> dict[str, dict[str, Any]]:
        """File name -> description, tolerance, tensors; empty where the set has no index."""
        path = self.folder / "index.json"
        return json.loads(path.read_text()).get("files", {}) if path.is_file() else {}

    def stems(self, prefix: str, suffix: str) -> list[str]:
        """Stems starting with ``prefix`` that have the file ``STEM + suffix``, e.g. ("lm_", "_train.json")."""
        return sorted(path.name.removesuffix(suffix) for path in self.folder.glob(f"{prefix}*{suffix}"))

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def path(self, name: str) -> Path:
        return self.folder / name

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name)

    def atol(self, name: str, default: float, about: str = "") -> float:
        """The first "atol X" of the file's tolerance text (behind the words ``about``), or ``default``."""
        return self._tolerance(name, "atol", default, about)

    def rtol(self, name: str, default: float, about: str = "") -> float:
        return self._tolerance(name, "rtol", default, about)

    def _tolerance(self, name: str, kind: str, default: float, about: str) -> float:
        text = self.index.get(name, {}).get("tolerance", "")
        found = re.search(rf"{kind}\s+([0-9.]+(?:e-?[0-9]+)?)", text[max(text.find(about), 0) :])
        return float(found.group(1)) if found else default


def assert_close(actual: torch.Tensor, recorded: torch.Tensor, atol: float, rtol: float = 0.0) -> None:
    """Same shape and equal within tolerance, compared in float32."""
    torch.testing.assert_close(actual.float().cpu(), recorded.float(), atol=atol, rtol=rtol)
