"""Tasks: what to ask for an item, and which metrics score the answer. Data and models come from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from eval.errors import EvalError
from eval.metrics.base import Metric, Reference
from eval.suites import Item, Suite
from eval.systems import Request


@dataclass(frozen=True)
class Answer:
    """What scorers see: the text the system gave, and the words the judge heard in its speech."""

    text: str
    heard: str = ""


@dataclass(frozen=True)
class Scorer:
    """One named score of a task: which texts are compared by which metric."""

    name: str
    metric: Metric
    reference: Callable[[Item, Answer], Reference]
    hypothesis: Callable[[Item, Answer], str]
    failure: Literal["empty", "skip"] = "empty"
    """A failed item is scored as an empty answer; ``skip`` only where there is nothing to compare."""


@dataclass(frozen=True)
class Task:
    """A task of the bench.

    Attributes:
        grammar: the judge's rule for this task's speech; None where no speech is expected.
        version: part of every record's key; raise it when request or scoring changes.
    """

    name: str
    version: int
    request: Callable[[Suite, Item], Request]
    scorers: tuple[Scorer, ...]
    grammar: str | None = None


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        EvalError: there is none.
    """
    from eval.tasks import asr, sqa, tts

    tasks = {module.TASK.name: module.TASK for module in (asr, tts, sqa)}
    if name not in tasks:
        raise EvalError(f"unknown task {name!r}; known: {', '.join(tasks)}")
    return tasks[name]
