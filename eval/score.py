"""Scores pairs of texts with one metric; needs no model and no run."""

from __future__ import annotations

import json
from pathlib import Path

from eval.errors import EvalError
from eval.metrics import Metric, get_metric
from eval.metrics.base import UndefinedSample


def read_pairs(path: Path, reference_lists: bool = False) -> list[dict]:
    """Pairs of a JSONL file: ``id``, ``ref`` (text, or a list where the metric takes one), ``hyp``.

    A missing or null ``hyp`` is an empty answer: the item counts.

    Raises:
        EvalError: unreadable file, broken line, missing field, duplicate id, or no pair at all.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvalError(f"cannot read {path}: {error}; give a UTF-8 file with one JSON object per line") from None
    pairs: list[dict] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pair = {"id": str(row["id"]), "ref": row["ref"], "hyp": row.get("hyp") or ""}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise EvalError(f'{path}:{number}: expected an object {{"id", "ref", "hyp"}}, got {line[:80]}') from None
        is_list = isinstance(pair["ref"], list) and all(isinstance(text, str) for text in pair["ref"])
        if not (isinstance(pair["ref"], str) or (reference_lists and is_list)) or not isinstance(pair["hyp"], str):
            wanted = "a text or a list of texts" if reference_lists else "a text"
            raise EvalError(f'{path}:{number}: "ref" must be {wanted} and "hyp" a text')
        if pair["id"] in seen:
            raise EvalError(f"{path}:{number}: id {pair['id']!r} appears twice; ids must be unique")
        seen.add(pair["id"])
        pairs.append(pair)
    if not pairs:
        raise EvalError(f"{path} holds no pairs; a score needs at least one")
    return pairs


def score_pairs(metric: Metric, pairs: list[dict]) -> dict:
    """``value`` in percent (with the decimals the protocol prints), ``exact``, and the items' statistics.

    Raises:
        EvalError: the protocol has no score for one of the references; the message names its id.
    """
    items, samples = [], []
    for pair in pairs:
        try:
            statistics = metric.sample(pair["ref"], pair["hyp"])
        except UndefinedSample as error:
            raise EvalError(f"item {pair['id']!r}: {error}; {metric.name} cannot score it, correct or remove it"
                            ) from None
        samples.append(statistics)
        items.append({"id": pair["id"], **statistics, "value": metric.printed(metric.item_value(statistics))})
    value = metric.reduce(samples)
    totals = {key: sum(sample[key] for sample in samples) for key in samples[0]}
    return {"metric": metric.name, "value": metric.printed(value), "exact": value, "unit": "%",
            "n": len(items), "totals": totals, "items": items}


def score_file(metric_name: str, path: Path) -> dict:
    """`score_pairs` over the file's pairs with the metric of that name."""
    metric = get_metric(metric_name)
    return score_pairs(metric, read_pairs(path, metric.accepts_reference_list))
