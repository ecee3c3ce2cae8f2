"""Choosing the next token from logits, alike for the main model and every MCTP module.

Order and meaning of the steps are those of transformers' logits processors: repetition penalty, temperature,
top-k, top-p. Greedy choice applies the repetition penalty only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vita.errors import VitaError


class SamplingError(VitaError):
    """A sampling setting is outside its range."""


@dataclass(frozen=True)
class Sampling:
    """Settings of one answer; the default is greedy.

    top_k 0 and top_p 1.0 switch that step off; repetition_penalty 1.0 likewise. seed: of this stream's own random
    generator; None draws one. Published defaults: temperature 0.7, top-k 20, top-p 0.8, penalty 1.05.
    Raises SamplingError for a value out of range.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (self.temperature > 0, "above 0; for temperature 0 leave do_sample off"),
            "top_k": (self.top_k >= 0, "0 (off) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0; 1 switches it off"),
        }
        for name, (valid, expected) in ranges.items():
            if not valid:
                raise SamplingError(f"{name} is {getattr(self, name)}; give a value {expected}.")


class Sampler:
    """Picks the tokens of one stream; owns the stream's random generator and the tokens it has seen."""

    def __init__(self, sampling: Sampling, vocab_size: int, device: torch.device) -> None:
        self.sampling = sampling
        self._seen = None
        if sampling.repetition_penalty != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self._generator = None
        if sampling.do_sample:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    def saw(self, tokens: Iterable[int]) -> None:
        """Prompt tokens or tokens picked elsewhere: the repetition penalty counts them too."""
        if self._seen is not None:
            self._seen[torch.tensor(list(tokens), dtype=torch.long, device=self._seen.device)] = True

    @torch.inference_mode()
    def pick(self, logits: Tensor) -> int:
        """The next token from logits [vocab]; the token counts as seen from now on."""
        if self._seen is not None:
            penalty = self.sampling.repetition_penalty
            penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
            logits = torch.where(self._seen, penalised, logits)
        if self.sampling.do_sample:
            probabilities, tokens = distribution(logits, self.sampling)
            token = int(tokens[torch.multinomial(probabilities, 1, generator=self._generator)])
        else:
            token = int(logits.argmax())
        if self._seen is not None:
            self._seen[token] = True
        return token


def distribution(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Temperature, top-k and top-p on logits [vocab]: weights [n], likeliest first, of the tokens [n].

    Weights of tokens cut off by top-p are 0; the rest is not normalised again.
    """
    count = min(sampling.top_k or logits.numel(), logits.numel())
    scores, tokens = logits.float().div(sampling.temperature).topk(count)
    weights = scores.softmax(-1)
    if sampling.top_p < 1.0:
        # Keep the smallest set of likeliest tokens that reaches top_p: those with less than that before them.
        before = weights.cumsum(-1) - weights
        weights = weights.masked_fill(before >= sampling.top_p, 0.0)
    return weights, tokens
