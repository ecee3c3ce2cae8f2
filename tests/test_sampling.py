"""Sampling: the same steps in the same order as transformers' logits processors."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vita.decoding.sampling import Sampler, Sampling, SamplingError, distribution

VOCAB = 50
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 20, 0.8), (0.3, 0, 0.9), (2.0, 5, 1.0), (1.0, 1, 0.5), (0.01, 0, 0.99), (1.0, 999, 0.5)],
)
def test_distribution_equals_transformers(temperature: float, top_k: int, top_p: float) -> None:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    for logits in torch.randn(20, VOCAB) * 3:
        expected = warpers(None, logits[None])[0].softmax(-1)
        weights, tokens = distribution(logits, Sampling(True, temperature, top_k, top_p))
        found = torch.zeros(VOCAB).index_put((tokens,), weights / weights.sum())
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_repetition_penalty_equals_transformers() -> None:
    seen = [3, 7, 7, 20]
    penalty = RepetitionPenaltyLogitsProcessor(1.5)
    sampler = Sampler(Sampling(repetition_penalty=1.5), VOCAB, CPU)
    sampler.saw(seen)
    for logits in torch.randn(30, VOCAB):
        expected = int(penalty(torch.tensor([seen]), logits[None].clone()).argmax())
        assert sampler.pick(logits) == expected
        seen.append(expected)


def test_greedy_by_default() -> None:
    logits = torch.randn(VOCAB)
    assert Sampler(Sampling(), VOCAB, CPU).pick(logits) == int(logits.argmax())


def test_seed_makes_a_stream_repeatable_and_leaves_the_global_generator_alone() -> None:
    logits = torch.zeros(VOCAB)

    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(do_sample=True, seed=seed), VOCAB, CPU)
        return [sampler.pick(logits) for _ in range(20)]

    state = torch.get_rng_state()
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(None) != draw(None)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0), ("temperature", -1), ("top_k", -1), ("top_p", 0), ("top_p", 1.5), ("repetition_penalty", 0)],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(SamplingError, match=f"^{name} is {value}; give a value"):
        Sampling(**{name: value})
