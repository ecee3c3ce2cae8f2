"""First phase of a run: every item in every mode, one after the other, timed and kept. Nothing is judged here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
from tqdm import tqdm

from eval.errors import EvalError
from eval.latency import latin_square
from eval.runs import Journal, RunFolder, digest
from eval.suites import Item, Suite
from eval.systems import AudioPiece, Done, Request, System, TextPiece
from eval.tasks import Task

Progress = Callable[..., tqdm]


def output_key(task: Task, item: Item, input_hash: str, config: dict, mode: dict, repeat: int) -> str:
    """Two answers share a key only if nothing that could change them differs."""
    return digest({
        "task": task.name, "version": task.version, "item": item.id, "input": input_hash,
        "system": config["system"], "mode": mode, "seed": config["seed"], "repeat": repeat,
    })[:24]


def choose_items(suite: Suite, tasks: Sequence[Task], limit: int | None) -> list[Item]:
    """Items of the tasks in suite order; with a limit, that many per task, spread evenly over the suite.

    Raises:
        EvalError: the suite has nothing for a task.
    """
    chosen = []
    for task in tasks:
        items = [item for item in suite.items if item.task == task.name]
        if not items:
            raise EvalError(f"suite {suite.name} has no items for task {task.name}")
        if limit is not None and limit < len(items):
            items = [items[math.floor(index * len(items) / limit)] for index in range(limit)]
        chosen += items
    return chosen


def measure(system: System, request: Request, mode: str) -> tuple[dict, np.ndarray, int]:
    """One answer: its record without audio and key, its samples ``[n]`` and their rate.

    A system that raises gives a record with status ``failed``: the item counts, the run goes on.
    """
    pieces: list[np.ndarray] = []
    chunks: list[dict] = []
    rate, done, error = 0, None, None
    first: dict[str, float] = {}
    began = system.clock()

    def since() -> float:
        return 1000 * (system.clock() - began)

    try:
        for piece in system.run(request, mode):
            now = since()
            if isinstance(piece, TextPiece):
                first.setdefault("text", now)
            elif isinstance(piece, AudioPiece):
                first.setdefault("audio", now)
                pieces.append(piece.samples)
                chunks.append({"at": round(now, 3), "seconds": len(piece.samples) / piece.sample_rate})
                rate = piece.sample_rate
            else:
                done = piece
    except Exception as failure:  # whatever a system does, the run goes on
        error = f"{type(failure).__name__}: {failure}"
    total = since()
    if error is None and done is None:
        error = "the system ended without saying so"
    finished = done or Done("")
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if error is None and request.kind != "transcribe" and not len(samples):
        error = "no audio"
    record = {
        "status": "ok" if error is None else "failed",
        "error": error,
        "text": finished.text.strip(),
        "finish": finished.finish,
        "tokens": finished.tokens,
        "passes": finished.passes,
        "timings": {name: value if value is None else round(value, 3) for name, value in finished.timings.items()},
        "observed": {"first_text": first.get("text"), "first_audio": first.get("audio"), "total": total},
        "chunks": chunks,
    }
    return record, samples, rate


def warm_up(system: System, suite: Suite, tasks: Sequence[Task], modes: Sequence[str], count: int,
            measured: Sequence[Item], progress: Progress = tqdm) -> None:
    """``count`` requests per mode that are not recorded, on other items where the suite has any to spare."""
    if count < 1:
        return
    taken = {item.id for item in measured}
    names = {task.name: task for task in tasks}
    spare = [item for item in suite.items if item.task in names and item.id not in taken]
    pool = spare or list(measured)
    picked = [pool[math.floor(index * len(pool) / count)] for index in range(min(count, len(pool)))]
    with progress(total=len(picked) * len(modes), desc="warm-up", unit="request", leave=False) as bar:
        for item in picked:
            request = names[item.task].request(suite, item)
            for mode in modes:
                measure(system, request, mode)
                bar.update()


def generate(system: System, suite: Suite, tasks: Sequence[Task], items: Sequence[Item], run: RunFolder,
             progress: Progress = tqdm) -> Journal:
    """Answer what the run still lacks, in Latin-square order of the modes within each item."""
    config = run.config
    modes = {mode["name"]: mode for mode in config["modes"]}
    journal = run.journal("outputs")
    present = {row["key"] for row in journal.rows}
    orders = latin_square(list(modes))
    by_name = {task.name: task for task in tasks}

    todo = []
    for repeat in range(config["repeats"]):
        for index, item in enumerate(items):
            task, input_hash = by_name[item.task], suite.input_hash(item)
            for mode in orders[(index + repeat) % len(orders)]:
                key = output_key(task, item, input_hash, config, modes[mode], repeat)
                if key not in present:
                    todo.append((key, task, item, mode, repeat))
    total = len(items) * len(modes) * config["repeats"]
    if todo:
        warm_up(system, suite, tasks, list(modes), config["warmup"], items, progress)

    request_of: tuple[str, Request] | None = None
    with progress(total=total, initial=total - len(todo), desc="answers", unit="answer", smoothing=0.05) as bar:
        for key, task, item, mode, repeat in todo:
            if request_of is None or request_of[0] != item.id:
                request_of = item.id, task.request(suite, item)
            bar.set_postfix_str(f"{task.name} {mode}", refresh=False)
            record, samples, rate = measure(system, request_of[1], mode)
            audio = None
            if len(samples):
                suffix = f".{repeat}" if config["repeats"] > 1 else ""
                audio = run.save_audio(f"{task.name}/{item.id}.{mode.replace(',', '-')}{suffix}", samples, rate)
            journal.append({"key": key, "task": task.name, "item": item.id, "mode": mode, "repeat": repeat,
                            **record, "audio": audio})
            bar.update()
    return journal


def items_as_rows(items: Sequence[Item]) -> list[dict]:
    """Items as they are stored in the run, so that it can be scored again anywhere."""
    return [{name: value for name, value in asdict(item).items() if value not in (None, "", ())} for item in items]
