"""Second phase: the judge listens to what was kept, metrics score it. Needs no model; can be repeated at will."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from eval.errors import EvalError
from eval.judges import Judge
from eval.metrics.base import UndefinedSample
from eval.runner import Progress
from eval.runs import RunFolder, digest, to_jsonl, write_whole
from eval.suites import Item
from eval.tasks import Answer, get_task


def open_judge(judge_files: dict[str, str], folder: Path) -> Judge:
    """The offline judge with a suite's grammar.

    Raises:
        EvalError: it is not installed, or the suite names no grammar.
    """
    if not {"grammar", "pronunciations"} <= set(judge_files):
        raise EvalError(f"{folder} names no judge grammar in suite.json: speech cannot be scored; use --tasks asr")
    try:
        from eval.judges.pocketsphinx_judge import PocketsphinxJudge
    except ImportError as error:
        raise EvalError(f"the judge is not installed ({error}): pip install pocketsphinx==5.1.1") from None
    return PocketsphinxJudge(folder / judge_files["grammar"], folder / judge_files["pronunciations"])


def listen(run: RunFolder, judge: Judge, progress: Progress = tqdm) -> dict[str, str]:
    """Words heard by key; only audio that this judge has not heard before is decoded."""
    fingerprint = digest(judge.describe())[:16]
    journal = run.journal("heard")
    known = {(row["sha256"], row["grammar"]): row["heard"] for row in journal.rows if row["judge"] == fingerprint}
    wanted = []
    for row in run.journal("outputs").rows:
        grammar = get_task(row["task"]).grammar
        if grammar is not None and row["audio"] is not None:
            wanted.append((row, grammar))
    with progress(total=len(wanted), desc="judge", unit="answer") as bar:
        for row, grammar in wanted:
            identity = (row["audio"]["sha256"], grammar)
            if identity not in known:
                samples, rate = run.load_audio(row["audio"])
                known[identity] = judge.transcribe(samples, rate, grammar)
                journal.append({"key": row["key"], "judge": fingerprint, "grammar": grammar,
                                "sha256": identity[0], "heard": known[identity]})
            bar.update()
    return {row["key"]: known[row["audio"]["sha256"], grammar] for row, grammar in wanted}


def score_outputs(run: RunFolder, heard: dict[str, str]) -> list[dict]:
    """Statistics and value of every answer under every metric of its task; also written to scores.jsonl.

    A failed answer is scored as an empty one, so the denominator never shrinks.
    """
    items = {row["id"]: Item(**{**row, "answers": tuple(row.get("answers", ()))}) for row in run.items()}
    scores: list[dict] = []
    for row in run.journal("outputs").rows:
        item, task = items[row["item"]], get_task(row["task"])
        failed = row["status"] != "ok"
        # "no audio" still leaves a text that counts for the metrics of text.
        answer = Answer(row["text"] if row["error"] in (None, "no audio") else "", heard.get(row["key"], ""))
        for scorer in task.scorers:
            try:
                statistics = scorer.metric.sample(scorer.reference(item, answer), scorer.hypothesis(item, answer))
            except UndefinedSample as error:
                if scorer.failure == "skip":
                    continue
                raise EvalError(f"item {item.id}: {error}; {scorer.name} cannot score it, correct the suite") from None
            scores.append({
                "key": row["key"], "task": row["task"], "item": item.id, "mode": row["mode"],
                "repeat": row["repeat"], "metric": scorer.name, "failed": failed, "statistics": dict(statistics),
                "value": scorer.metric.item_value(statistics),
            })
    write_whole(run.path / "scores.jsonl", to_jsonl(scores))
    return scores


def needs_judge(tasks: Sequence[str]) -> bool:
    return any(get_task(task).grammar is not None for task in tasks)


def save_summary(run: RunFolder, summary: dict) -> None:
    write_whole(run.path / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
