"""What a metric is: `sample` turns one item into statistics, `reduce` turns statistics into a value.

Statistics are plain numbers, so they can be stored, re-reduced and resampled without the texts.
Nothing here knows where references and hypotheses come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from eval.errors import EvalError

Statistics = Mapping[str, float]
Reference = str | Sequence[str]


class UndefinedSample(EvalError):
    """The protocol has no score for this item (usually: nothing is left of the reference)."""


class Metric(ABC):
    """A scoring protocol, named ``metric[protocol]``. Values are percentages."""

    name: str
    higher_is_better: bool
    accepts_reference_list = False

    @abstractmethod
    def sample(self, reference: Reference, hypothesis: str) -> dict[str, float]:
        """Statistics of one item.

        Raises:
            UndefinedSample: the protocol cannot score this reference.
        """

    @abstractmethod
    def item_value(self, statistics: Statistics) -> float:
        """The item's own score in percent."""

    @abstractmethod
    def reduce(self, samples: Sequence[Statistics]) -> float:
        """The score of all items together in percent; needs at least one item."""

    def printed(self, value: float) -> float:
        """The value with the decimals the protocol's own script prints; unchanged if it prints all."""
        return value


class ErrorRate(Metric):
    """Corpus error rate: all errors over all reference tokens.

    Statistics: S substitutions, D deletions, I insertions, N reference tokens, C correct tokens.
    """

    higher_is_better = False

    def item_value(self, statistics: Statistics) -> float:
        errors = statistics["S"] + statistics["D"] + statistics["I"]
        return 100.0 * errors / statistics["N"] if statistics["N"] else 0.0

    def reduce(self, samples: Sequence[Statistics]) -> float:
        return self.item_value({key: sum(s[key] for s in samples) for key in "SDIN"})


class Accuracy(Metric):
    """Share of correct items. Statistics: correct 0 or 1, N = 1."""

    higher_is_better = True
    accepts_reference_list = True

    def item_value(self, statistics: Statistics) -> float:
        return 100.0 * statistics["correct"]

    def reduce(self, samples: Sequence[Statistics]) -> float:
        return sum(s["correct"] for s in samples) / len(samples) * 100


def as_list(reference: Reference) -> list[str]:
    return [reference] if isinstance(reference, str) else list(reference)


def as_text(reference: Reference) -> str:
    """The one reference text of an error rate.

    Raises:
        UndefinedSample: more than one reference was given.
    """
    if isinstance(reference, str):
        return reference
    if len(reference) != 1:
        raise UndefinedSample(f"an error rate needs one reference text, got a list of {len(reference)}")
    return reference[0]
