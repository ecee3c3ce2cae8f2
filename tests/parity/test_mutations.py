"""The comparisons can fail: typical mistakes in the cascade, made on purpose, change the recorded tokens.

Each mistake is one that a port of the reference makes easily and that decodes plausible-looking tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.parity.decoding_checks import check_run
from tests.parity.golden import GoldenSet
from tests.parity.test_language_model import ATOL
from tests.parity.test_training_losses import losses_of
from vita.decoding.cached_layer import CachedLayer
from vita.decoding.stream import Stream
from vita.model.causal_lm import VitaAudioForCausalLM


class SwappedHalves(Stream):
    """The hidden state first, the embedding second."""

    def _mctp_input(self, k: int, ahead: Tensor, below: Tensor) -> Tensor:
        projection = self.model.mtp_projs[k].weight
        kept = projection.data
        try:
            projection.data = torch.cat(kept.chunk(2, dim=1)[::-1], dim=1)
            return super()._mctp_input(k, ahead, below)
        finally:
            projection.data = kept


class NoNormBetweenLevels(Stream):
    """Levels hand on their output before the final norm."""

    def _run(self, layers: list[CachedLayer], hidden: Tensor, past: int, position: int) -> Tensor:
        self.before_norm = super()._run(layers, hidden, past, position)
        return self.before_norm

    def advance(self, level: int) -> Tensor:
        hidden = super().advance(level)
        if level + 1 < len(self.unread):
            self.unread[level + 1][-1] = self.before_norm
        return hidden


class MctpForgets(Stream):
    """MCTP modules attend to their newest rows only."""

    def advance(self, level: int) -> Tensor:
        self.level = level
        return super().advance(level)

    def _mask(self, rows: int, past: int) -> Tensor | None:
        if self.level == 0 or past == 0:
            return super()._mask(rows, past)
        mask = torch.zeros(rows, past + rows)
        mask[:, past:] = torch.full((rows, rows), float("-inf")).triu(1)
        mask[:, :past] = float("-inf")
        return mask.repeat(self._queries_per_key, 1)


class SeesAhead(Stream):
    """Rows caught up with in one chunk see each other in both directions."""

    def _mask(self, rows: int, past: int) -> Tensor | None:
        mask = super()._mask(rows, past)
        return mask if mask is None else torch.zeros_like(mask)


class TopLeftMask(Stream):
    """The causal triangle starts at the first cached key, as SDPA's own causal flag has it."""

    def _mask(self, rows: int, past: int) -> Tensor | None:
        if super()._mask(rows, past) is None:
            return None
        return torch.full((rows, past + rows), float("-inf")).triu(1).repeat(self._queries_per_key, 1)


class Recording(NamedTuple):
    model: VitaAudioForCausalLM
    run: dict
    prompt: list[int]
    tensors: dict[str, Tensor]
    atol: float


def _recordings(golden: GoldenSet) -> Iterator[Recording]:
    """One run per model in which MCTP modules and main model catch up on several rows."""
    for stem in golden.stems("lm_", "_decode.json"):
        content = golden.json(f"{stem}_decode.json")
        runs = [run for run in content["runs"] if run["mtp_inference_mode"][:2] == [1, 10]]
        file = f"{stem}_tensors.safetensors"
        tensors = golden.tensors(file) if golden.has(file) else {}
        for run in runs[:1]:
            model = VitaAudioForCausalLM.from_pretrained(golden.path(stem))
            if model.num_mctp:
                prompt = content["prompts"][run["prompt"]]["input_ids"]
                yield Recording(model, run, prompt, tensors, golden.atol(file, ATOL))


@pytest.mark.parametrize("mutant", [SwappedHalves, NoNormBetweenLevels, MctpForgets, SeesAhead, TopLeftMask])
def test_mistake_in_the_cascade_is_caught(
    golden: GoldenSet, monkeypatch: pytest.MonkeyPatch, mutant: type[Stream]
) -> None:
    recordings = list(_recordings(golden))
    if not recordings:
        pytest.skip("the golden set has no run with MCTP tokens")
    for recording in recordings:
        check_run(*recording)
        with monkeypatch.context() as patch:
            patch.setattr("vita.decoding.engine.Stream", mutant)
            with pytest.raises(AssertionError):
                check_run(*recording)


def test_boundary_of_packed_samples_matters(golden: GoldenSet) -> None:
    """Where the reference scores a sample's last row against the next sample's label, masking changes the loss."""
    differences = []
    for stem in golden.stems("lm_", "_train.json"):
        model = VitaAudioForCausalLM.from_pretrained(golden.path(stem))
        for case in golden.json(f"{stem}_train.json")["cases"].values():
            with torch.no_grad():
                faithful, masked = (losses_of(model, case, which) for which in ("faithful", "masked"))
            assert all(a >= b for a, b in zip(faithful.mctp_targets, masked.mctp_targets))
            if faithful.mctp_targets != masked.mctp_targets:
                differences.append(abs(faithful.total.item() - masked.total.item()))
    if not differences:
        pytest.skip("no packed sample of the golden set begins with a label that is learnt")
    assert min(differences) > 1e-3
