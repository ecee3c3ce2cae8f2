"""A whole run: plan, answer, listen, score, tabulate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from eval.environment import describe_environment
from eval.errors import EvalError
from eval.judges import Judge
from eval.report import summarise, write_tables
from eval.runner import Progress, choose_items, generate, items_as_rows
from eval.runs import RunFolder, explained, open_run, read_run
from eval.scoring import listen, needs_judge, open_judge, save_summary, score_outputs
from eval.suites import SUITES, Suite, load_suite
from eval.systems import System, open_system, resolve
from eval.tasks import get_task


@dataclass(frozen=True)
class Plan:
    """What a person asked for.

    Attributes:
        modes: names or lists such as ``1,4,2,8``.
        tasks: empty for all of the suite.
        limit: items per task; None for all.
        warmup: unrecorded requests per mode before the first answer.
    """

    model: str = "nano"
    suite: str = "nano"
    modes: tuple[str, ...] = ("vanilla", "balance", "boost", "turbo")
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    repeats: int = 1
    warmup: int = 10
    seed: int = 0
    out: Path = Path("runs")
    resume: bool = True


def _check(plan: Plan) -> None:
    for name, value in (("limit", plan.limit), ("repeats", plan.repeats)):
        if value is not None and value < 1:
            raise EvalError(f"--{name} is {value}: give at least 1")
    if plan.warmup < 0:
        raise EvalError(f"--warmup is {plan.warmup}: give 0 or more")
    names = [resolve(mode)["name"] for mode in plan.modes]
    if not names:
        raise EvalError("--modes is empty: name at least one decoding mode")
    if len(set(names)) < len(names):
        raise EvalError(f"--modes names a mode twice: {', '.join(names)}")


def run_bench(plan: Plan, system: System | None = None, judge: Judge | None = None,
              progress: Progress = tqdm) -> tuple[RunFolder, dict]:
    """Measure, or go on measuring, and write everything.

    Args:
        system: what to measure; None opens ``plan.model``.
        judge: who listens; None opens the offline judge with the suite's grammar.
    Raises:
        VitaError: unknown model, mode, suite or task; a folder that cannot be written.
    """
    _check(plan)
    suite = load_suite(plan.suite)
    present = list(dict.fromkeys(item.task for item in suite.items))
    tasks = [get_task(name) for name in plan.tasks or present]
    items = choose_items(suite, tasks, plan.limit)
    if judge is None and needs_judge([task.name for task in tasks]):
        judge = open_judge(suite.judge, suite.folder)
    _check_writable(plan.out)
    system = system or open_system(plan.model)
    config = {
        "suite": suite.name, "data": suite.fingerprint, "system": system.describe(),
        "modes": [system.mode(mode) for mode in plan.modes],
        "tasks": [task.name for task in tasks], "limit": plan.limit, "repeats": plan.repeats,
        "warmup": plan.warmup, "seed": plan.seed,
    }
    run = open_run(plan.out, config, items_as_rows(items), describe_environment(), plan.resume)
    try:
        generate(system, suite, tasks, items, run, progress)
        run.set_status("scoring")
        return run, _finish(run, judge, progress)
    finally:
        run.release()


def _check_writable(out: Path) -> None:
    """Refuse before the model is loaded and minutes are spent."""
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".write-test"
        probe.write_text("")
        probe.unlink()


def _finish(run: RunFolder, judge: Judge | None, progress: Progress) -> dict:
    heard = listen(run, judge, progress) if judge is not None else {}
    scores = score_outputs(run, heard)
    summary = summarise(run, scores, judge.describe() if judge is not None else None)
    save_summary(run, summary)
    write_tables(run, summary)
    run.set_status("complete")
    return summary


def score_run(folder: Path, progress: Progress = tqdm) -> tuple[RunFolder, dict]:
    """Judge and score a run's kept answers again; the model is not needed."""
    run = read_run(folder)
    run.lock()
    try:
        judge = None
        if needs_judge(run.config["tasks"]):
            suite = _suite_of(run)
            judge = open_judge(suite.judge, suite.folder)
        status = run.header["status"]
        summary = _finish(run, judge, progress)
        if status == "generating":
            run.set_status("generating")
        return run, summary
    finally:
        run.release()


def _suite_of(run: RunFolder) -> Suite:
    name = run.config["suite"]
    if name not in SUITES:
        raise EvalError(f"the run's suite {name!r} is not bundled, so its judge grammar is missing here")
    return load_suite(name)
