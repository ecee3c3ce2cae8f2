"""Decoding modes: which level emits which token, and what is accepted as a mode."""

from __future__ import annotations

from itertools import islice

import pytest

from vita.decoding.modes import MODES, DecodingMode, resolve_mode
from vita.errors import ModeError


def levels(mode: object, num_mctp: int, count: int) -> list[int]:
    return list(islice(resolve_mode(mode).levels(num_mctp), count))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("vanilla", [0] * 30),
        ("turbo", [*range(11), *range(11), *range(8)]),
        ("boost", [*range(11), 0, 0, 0, 0, *range(1, 11), 0, 0, 0, 0, 1]),
        ("balance", [*range(5), 0, 0, 0, *range(1, 9), 0, 0, 0, 0, *range(1, 11)]),
    ],
)
def test_published_modes(mode: str, expected: list[int]) -> None:
    assert levels(mode, 10, len(expected)) == expected


def test_last_pair_repeats() -> None:
    assert levels([2, 1, 1, 2], 10, 12) == [0, 0, 1, 0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_main_model_steps_in_when_a_run_outlasts_the_modules() -> None:
    assert levels("turbo", 1, 6) == [0, 1, 0, 1, 0, 1]
    assert levels([1, 5], 3, 12) == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1]


def test_without_modules_every_mode_is_vanilla() -> None:
    assert levels("boost", 0, 40) == [0] * 40


@pytest.mark.parametrize("given", ["Boost", " BOOST ", [1, 10, 4, 10], (1, 10, 4, 10), "1,10,4,10", "[1, 10, 4, 10]"])
def test_a_mode_has_several_spellings(given: object) -> None:
    assert resolve_mode(given) is MODES["boost"]


def test_custom_lists_keep_their_counts_as_name() -> None:
    assert resolve_mode("1,4,2,8") == DecodingMode("1,4,2,8", (1, 4, 2, 8))


@pytest.mark.parametrize(
    "given",
    ["fast", "", "1", "1,x", "1,2,3", [], [1], [0, 10], [1, -1], [1, 2, 0, 0], [1.0, 2], [True, 2], None, 3, "-1,2"],
)
def test_anything_else_is_refused_with_the_known_names(given: object) -> None:
    with pytest.raises(ModeError, match="vanilla, balance, boost, turbo") as refusal:
        resolve_mode(given)
    assert "\n" not in str(refusal.value)
