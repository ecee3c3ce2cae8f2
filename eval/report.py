"""From scores and outputs to the numbers of a run and its comparison tables."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from eval.latency import percentile, underrun
from eval.metrics.base import Metric
from eval.runs import RunFolder, write_whole
from eval.suites import UNSEEN_ENGINE
from eval.table import RENDERERS, Column, Table
from eval.tasks import get_task

HEADLINE = "headline"
"""All subsets but the unseen engine."""


def _metric(task: str, name: str) -> Metric:
    return next(scorer.metric for scorer in get_task(task).scorers if scorer.name == name)


def _subsets_of(item: dict) -> list[str]:
    subset = item.get("subset", "")
    return [subset or "all"] + ([HEADLINE] if subset != UNSEEN_ENGINE and subset else [])


def quality_rows(scores: Iterable[dict], items: dict[str, dict]) -> list[dict]:
    """Value, number of items and failures per task, mode, subset and metric."""
    groups: dict[tuple[str, str, str, str], list[dict]] = defaultdict(list)
    for score in scores:
        for subset in _subsets_of(items[score["item"]]):
            groups[score["task"], score["mode"], subset, score["metric"]].append(score)
    rows = []
    for (task, mode, subset, name), group in groups.items():
        metric = _metric(task, name)
        rows.append({
            "task": task, "mode": mode, "subset": subset, "metric": name, "unit": "%",
            "value": metric.reduce([score["statistics"] for score in group]),
            "n": len(group), "failures": sum(score["failed"] for score in group),
        })
    return rows


def _ratio(parts: float, whole: float) -> float | None:
    return parts / whole if whole else None


def latency_row(outputs: Sequence[dict]) -> dict:
    """Times (ms), speeds and passes of one mode's answers; failures count as infinitely slow."""
    def slow(read: Callable[[dict], float | None]) -> list[float]:
        values = [read(row) if row["status"] == "ok" else None for row in outputs]
        return [math.inf if value is None else value for value in values]

    fine = [row for row in outputs if row["status"] == "ok"]
    spoken = [row for row in fine if row["audio"]]
    times = {
        "ttft": slow(lambda row: row["timings"].get("ttft")),
        "ttf_audio_token": slow(lambda row: row["timings"].get("ttf_audio_token")),
        "ttfc": slow(lambda row: row["observed"]["first_audio"]),
        "total": slow(lambda row: row["observed"]["total"]),
        "rtf": slow(lambda row: row["observed"]["total"] / 1000 / row["audio"]["seconds"] if row["audio"] else None),
    }
    before = [row["passes"].get("main_before_first_audio") for row in spoken]
    known = [count for count in before if count is not None]
    main = sum(row["passes"].get("main") or 0 for row in fine)
    tokens = sum(row["tokens"] for row in fine)
    gaps = [found for found in (underrun(row["chunks"]) for row in spoken) if found is not None]
    breakdown = {
        part: percentile([row["timings"][part] for row in fine if row["timings"].get(part) is not None], 50)
        for part in ("encode", "prefill", "decode", "vocode")
    }
    return {
        "n": len(outputs), "failures": len(outputs) - len(fine),
        **{f"{name}_p{percent}": percentile(values, percent) for name, values in times.items() for percent in (50, 90)},
        "tokens_per_second": _ratio(tokens, sum(row["observed"]["total"] for row in fine) / 1000),
        "tokens_per_main_pass": _ratio(tokens, main),
        "main_before_first_audio": {"median": percentile(known, 50), "max": max(known, default=None)},
        "breakdown_p50": breakdown,
        "underrun_share": _ratio(sum(gap["count"] > 0 for gap in gaps), len(gaps)),
        "min_buffer_p50": percentile([gap["min_buffer"] for gap in gaps], 50),
    }


def summarise(run: RunFolder, scores: list[dict], judge: dict[str, str] | None) -> dict:
    """Everything the tables show."""
    items = {row["id"]: row for row in run.items()}
    outputs = run.journal("outputs").rows
    modes = [mode["name"] for mode in run.config["modes"]]
    latency = []
    for task in run.config["tasks"]:
        for mode in modes:
            chosen = [row for row in outputs if row["task"] == task and row["mode"] == mode]
            if chosen:
                latency.append({"task": task, "mode": mode, **latency_row(chosen)})
    expected = len(items) * len(modes) * run.config["repeats"]
    return {"run": run.id, "suite": run.config["suite"], "model": run.config["system"]["model"], "modes": modes,
            "judge": judge, "answers": len(outputs), "expected": expected,
            "quality": quality_rows(scores, items), "latency": latency}


class _Lookup:
    """Values of a summary by coordinates; None where nothing was measured."""

    def __init__(self, summary: dict) -> None:
        self._quality = {(row["task"], row["mode"], row["subset"], row["metric"]): row for row in summary["quality"]}
        self._latency = {(row["task"], row["mode"]): row for row in summary["latency"]}

    def quality(self, task: str, mode: str, metric: str, subset: str = HEADLINE) -> dict | None:
        found = self._quality.get((task, mode, subset, metric))
        return found or (self._quality.get((task, mode, "all", metric)) if subset == HEADLINE else None)

    def value(self, task: str, mode: str, metric: str, subset: str = HEADLINE) -> float | None:
        row = self.quality(task, mode, metric, subset)
        return row["value"] if row else None

    def latency(self, task: str, mode: str) -> dict:
        return self._latency.get((task, mode), {})


QUALITY_COLUMNS = (
    ("ASR WER", "asr", "wer[whisper-en]"), ("TTS WER", "tts", "tts-wer[judge:local]"),
    ("SQA text", "sqa", "acc_text[has-answer]"), ("SQA speech", "sqa", "acc_speech[has-answer]"),
)


def comparison_table(summary: dict) -> Table:
    """The headline: one row per decoding mode."""
    look = _Lookup(summary)
    columns = [Column("mode"), *(Column(title, ".1f", "%") for title, _, _ in QUALITY_COLUMNS),
               Column("ttft p50", ".0f", "ms"), Column("ttft p90", ".0f", "ms"),
               Column("ttfc p50", ".0f", "ms"), Column("ttfc p90", ".0f", "ms"),
               Column("tokens/s", ".0f"), Column("RTF", ".3f"),
               Column("main passes before audio"), Column("tokens per main pass", ".2f"), Column("failures")]
    table = Table("comparison", f"{summary['model']} on {summary['suite']}, by decoding mode", columns)
    timed = "sqa" if any(row["task"] == "sqa" for row in summary["latency"]) else (
        "tts" if any(row["task"] == "tts" for row in summary["latency"]) else "asr")
    for mode in summary["modes"]:
        fast = look.latency(timed, mode)
        failures = sum(row["failures"] for row in summary["latency"] if row["mode"] == mode)
        table.rows.append([
            mode, *(look.value(task, mode, metric) for _, task, metric in QUALITY_COLUMNS),
            fast.get("ttft_p50"), fast.get("ttft_p90"), fast.get("ttfc_p50"), fast.get("ttfc_p90"),
            fast.get("tokens_per_second"), fast.get("rtf_p50"),
            fast.get("main_before_first_audio", {}).get("median"), fast.get("tokens_per_main_pass"), failures,
        ])
    first = summary["modes"][0]
    counts = [f"{title} {row['n']}" for title, task, metric in QUALITY_COLUMNS
              if (row := look.quality(task, first, metric))]
    timed_count = look.latency(timed, first).get("n", 0)
    table.footers = [
        f"Items per mode: {', '.join(counts)}; times from {timed_count} {timed} answers. "
        "Failed answers count as empty and as infinitely slow.",
        "ASR: wer[whisper-en]; TTS: tts-wer[judge:local]; SQA: acc[has-answer]. "
        "RTF: median over answers; tokens/s: all tokens over all time from request to last chunk.",
        *_judge_footer(summary), f"Run {summary['run']}.",
    ]
    return table


def _judge_footer(summary: dict) -> list[str]:
    judge = summary.get("judge")
    return [f"Speech heard by {judge['judge']} {judge['version']} with the suite's grammar."] if judge else []


def subsets_table(summary: dict) -> Table:
    """Quality by the voices that speak the items."""
    columns = [Column("task"), Column("voices"), Column("mode"), Column("metric"), Column("value", ".1f", "%"),
               Column("items"), Column("failures")]
    table = Table("subsets", f"{summary['model']} on {summary['suite']}, by voices", columns)
    order = {mode: place for place, mode in enumerate(summary["modes"])}
    for row in sorted(summary["quality"], key=lambda r: (r["task"], r["metric"], r["subset"], order[r["mode"]])):
        if row["subset"] != HEADLINE:
            table.rows.append([row["task"], row["subset"], row["mode"], row["metric"], row["value"], row["n"],
                               row["failures"]])
    table.footers = [f"Run {summary['run']}."]
    return table


def latency_table(summary: dict) -> Table:
    """Where the time goes, per task and mode."""
    parts = ("encode", "prefill", "decode", "vocode")
    columns = [Column("task"), Column("mode"), Column("ttf audio token p50", ".0f", "ms"),
               Column("total p50", ".0f", "ms"), *(Column(f"{part} p50", ".1f", "ms") for part in parts),
               Column("answers with underrun", ".2f"), Column("min buffer p50", ".0f", "ms")]
    table = Table("latency", f"{summary['model']} on {summary['suite']}, where the time goes", columns)
    for row in summary["latency"]:
        table.rows.append([row["task"], row["mode"], row["ttf_audio_token_p50"], row["total_p50"],
                           *(row["breakdown_p50"][part] for part in parts), row["underrun_share"],
                           row["min_buffer_p50"]])
    table.footers = ["Underrun: playback simulated from the first chunk; empty where no answer had two chunks.",
                     f"Run {summary['run']}."]
    return table


TABLES = (comparison_table, subsets_table, latency_table)


def write_tables(run: RunFolder, summary: dict) -> list[Table]:
    """All tables of a run in every format under ``tables/``."""
    tables = [build(summary) for build in TABLES]
    for table in tables:
        for suffix, render in RENDERERS.items():
            write_whole(run.path / "tables" / f"{table.name}.{suffix}", render(table))
    return tables
