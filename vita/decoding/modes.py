"""Decoding modes: which level, main model or MCTP module, emits which new token.

A mode is a list ``[M1, m1, M2, m2, ...]``: M1 tokens of the main model, then m1 MCTP tokens, then M2 ..., the
last pair repeating for ever (arXiv 2505.03739, section 3.4). The pattern counts tokens and never looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from vita.errors import ModeError


@dataclass(frozen=True)
class DecodingMode:
    """A named schedule. ``pairs`` alternates counts of main tokens and counts of MCTP tokens."""

    name: str
    pairs: tuple[int, ...]

    def levels(self, num_mctp: int) -> Iterator[int]:
        """The level of every new token, without end: 0 = main model, k = k-th of ``num_mctp`` MCTP modules.

        A run of MCTP tokens starts with module 1 behind every main token of the schedule. When it outlasts the
        modules, the main model steps in and the run goes on with module 1.
        """
        level = 0
        for is_main in self._entries():
            if is_main:
                level = 0
            else:
                level = (level + 1) % (num_mctp + 1)
            yield level

    def _entries(self) -> Iterator[bool]:
        pairs = list(zip(self.pairs[::2], self.pairs[1::2]))
        for main, mctp in chain(pairs, repeat(pairs[-1])):
            yield from repeat(True, main)
            yield from repeat(False, mctp)


MODES = {
    mode.name: mode
    for mode in (
        DecodingMode("vanilla", (8192, 0)),
        DecodingMode("balance", (1, 4, 3, 8, 4, 10)),
        DecodingMode("boost", (1, 10, 4, 10)),
        DecodingMode("turbo", (1, 10)),
    )
}
"""The published modes (`mtp_inference_mode` in the reference's generation settings)."""


def resolve_mode(mode: DecodingMode | str | Sequence[int]) -> DecodingMode:
    """A mode from its name in any case, from a list of counts, or from that list as text ("1,4,2,8").

    Raises ModeError when it is neither.
    """
    if isinstance(mode, DecodingMode):
        return mode
    if isinstance(mode, str):
        known = MODES.get(mode.strip().lower())
        if known is not None:
            return known
        try:
            pairs = tuple(int(count) for count in mode.strip().strip("[]").split(","))
        except ValueError:
            raise _no_mode(mode) from None
    elif isinstance(mode, Sequence):
        pairs = tuple(mode)
    else:
        raise _no_mode(mode)
    if not all(type(count) is int and count >= 0 for count in pairs):
        raise _no_mode(mode)
    if not pairs or len(pairs) % 2 or pairs[0] < 1 or pairs[-2:] == (0, 0):
        raise _no_mode(mode)
    named = next((known for known in MODES.values() if known.pairs == pairs), None)
    return named or DecodingMode(",".join(map(str, pairs)), pairs)


def _no_mode(given: object) -> ModeError:
    return ModeError(
        f"{given!r} is no decoding mode; give {', '.join(MODES)}, or an even number of counts that alternate main "
        "and MCTP tokens and start with a main token, such as 1,4,2,8."
    )
