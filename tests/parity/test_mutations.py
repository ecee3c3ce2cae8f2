"""The comparisons can fail: typical mistakes in the cascade, made on purpose, change the recorded tokens.

Each mistake is one that a port of the reference makes easily and that decodes plausible-looking tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.parity.conftest import golden_set
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


def _recording(golden: GoldenSet) -> Iterator[tuple[VitaAudioForCausalLM, dict, list[int]]]:
    """One run per model in which every MCTP module catches up on several rows."""
    for stem in golden.stems("lm_", "_decode.json"):
        content = golden.json(f"{stem}_decode.json")
        runs = [run for run in content["runs"] if run["mtp_inference_mode"][:2] == [1, 10]]
        for run in runs[:1]:
            yield (
                VitaAudioForCausalLM.from_pretrained(golden.path(stem)),
                run,
                content["prompts"][run["prompt"]]["input_ids"],
            )


@pytest.mark.parametrize("mutant", [SwappedHalves, NoNormBetweenLevels, MctpForgets, SeesAhead, TopLeftMask])
def test_mistake_in_the_cascade_is_caught(
    golden: GoldenSet, monkeypatch: pytest.MonkeyPatch, mutant: type[Stream]
) -> None:
    recordings = list(_recording(golden))
    if not recordings:
        pytest.skip("the golden set has no run with MCTP tokens")
    for model, run, prompt in recordings:
        check_run(model, run, prompt, {}, ATOL)
        with monkeypatch.context() as patch:
            patch.setattr("vita.decoding.engine.Stream", mutant)
            with pytest.raises(AssertionError):
                check_run(model, run, prompt, {}, ATOL)


def test_boundary_of_packed_samples_matters(request: pytest.FixtureRequest) -> None:
    """Where a sample's last rows meet labels of the next one, masked and faithful losses differ."""
    golden = golden_set(request.config)
    differences = []
    for stem in golden.stems("lm_", "_train.json"):
        model = VitaAudioForCausalLM.from_pretrained(golden.path(stem))
        for case in golden.json(f"{stem}_train.json")["cases"].values():
            if sum(position == 0 for position in case["position_ids"][0]) > 1:
                with torch.no_grad():
                    faithful, masked = (losses_of(model, case, which) for which in ("faithful", "masked"))
                differences.append(abs(faithful.total.item() - masked.total.item()))
                assert all(a >= b for a, b in zip(faithful.mctp_targets, masked.mctp_targets))
    if not differences:
        pytest.skip("the golden set has no packed samples")
    assert max(differences) > 0.01
