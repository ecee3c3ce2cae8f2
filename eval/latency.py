"""Clock readings of one answer, and what they come to over many.

Clock zero is the request, accepted with its audio in memory. A failed item has no finite time: it stays
in the percentiles as infinitely slow instead of leaving them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST_ITEMS = {50: 1, 90: 50, 95: 100, 99: 500}
"""Items a percentile needs before it is reported."""


def latin_square(modes: Sequence[str]) -> list[list[str]]:
    """Orders of the modes such that each stands equally often in each place.

    With an even number of modes each also follows each other equally often (Williams' design).
    """
    count = len(modes)
    first = [0]
    for step in range(1, count):
        first.append((step + 1) // 2 if step % 2 else count - step // 2)
    return [[modes[(place + shift) % count] for place in first] for shift in range(count)]


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Order statistic: the smallest value that ``percent`` % of all do not exceed.

    None with fewer values than `LEAST_ITEMS` asks for, or where it would be infinite.
    """
    if len(values) < LEAST_ITEMS[percent]:
        return None
    chosen = sorted(values)[math.ceil(percent / 100 * len(values)) - 1]
    return chosen if math.isfinite(chosen) else None


def underrun(chunks: Sequence[dict]) -> dict | None:
    """Playback simulated from the first chunk on: waiting in ms (total, longest, count) and the smallest
    start-up delay that avoids it. None with fewer than two chunks, where nothing was measured.

    Args:
        chunks: ``at`` (ms since the request) and ``seconds`` of each chunk in order.
    """
    if len(chunks) < 2:
        return None
    waits, behind = [], 0.0
    played_until = chunks[0]["at"]
    due = chunks[0]["at"]
    for chunk in chunks:
        wait = chunk["at"] - played_until
        if wait > 0:
            waits.append(wait)
        behind = max(behind, chunk["at"] - due)
        played_until = max(played_until, chunk["at"]) + 1000 * chunk["seconds"]
        due += 1000 * chunk["seconds"]
    return {"total": sum(waits), "max": max(waits, default=0.0), "count": len(waits), "min_buffer": behind}
