"""Command line of the evaluation: run, score, table, vocoder.

Errors a person can mend end with exit code 2 and one line on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.errors import EvalError
from vita.errors import VitaError

EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except VitaError as error:
        print(f"eval: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("eval: stopped; start the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _names(text: str) -> tuple[str, ...]:
    """Comma-separated names; a list of counts is written with spaces or in brackets: ``boost,[1,4,2,8]``."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    parts.append(current)
    names = [part.strip() for part in parts if part.strip()]
    if names and all(name.isdigit() for name in names):
        return (",".join(names),)
    return tuple(names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval", description="Measure quality and latency of a speech model in each decoding mode.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="measure a model on a suite and write the comparison table",
        description="Every item in every mode, timed and kept under OUT/SUITE/MODEL/RUN; then the judge listens and "
        "the tables are written. Interrupted at any moment, the same command goes on where it stopped.")
    run.add_argument("--model", default="nano", help="name, folder or hub id (default: nano)")
    run.add_argument("--suite", default="nano", help="bundled suite or a suite's folder (default: nano)")
    run.add_argument("--modes", type=_names, default="vanilla,balance,boost,turbo",
                     help="decoding modes, e.g. vanilla,boost or boost,[1,4,2,8] (default: all four)")
    run.add_argument("--tasks", type=_names, default="", help="of asr,tts,sqa (default: all of the suite)")
    run.add_argument("--limit", type=int, help="items per task, spread over the suite (default: all)")
    run.add_argument("--repeats", type=int, default=1, help="answers per item and mode (default: 1)")
    run.add_argument("--warmup", type=int, default=10, help="unrecorded requests per mode first (default: 10)")
    run.add_argument("--seed", type=int, default=0, help="recorded with every answer (default: 0)")
    run.add_argument("--out", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    run.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True,
                     help="go on with an unfinished run of the same configuration (default)")
    run.set_defaults(command=_run)

    score = commands.add_parser(
        "score", help="score pairs of texts, or a run again without its model",
        description="Either a RUN folder, or --metric and --pairs (JSONL with id, ref, hyp).")
    score.add_argument("run", nargs="?", type=Path, help="folder of a run")
    score.add_argument("--metric", help="e.g. 'wer[wenet]'; an unknown name lists all")
    score.add_argument("--pairs", type=Path, help="JSONL file, one {\"id\", \"ref\", \"hyp\"} per line")
    score.add_argument("--json", action="store_true", help="print one JSON object")
    score.set_defaults(command=_score)

    table = commands.add_parser("table", help="print a run's tables")
    table.add_argument("run", type=Path, help="folder of a run")
    table.add_argument("--name", default="comparison", help="comparison, subsets or latency (default: comparison)")
    table.add_argument("--format", choices=("md", "csv"), default="md")
    table.set_defaults(command=_table)

    vocoder = commands.add_parser(
        "vocoder", help="judge original speech against the same speech encoded and decoded again",
        description="Word errors of the suite's reference speech before and after nano's speech tokens and vocoder.")
    vocoder.add_argument("--model", default="nano", help="name or folder of a checkpoint (default: nano)")
    vocoder.add_argument("--suite", default="nano", help="suite whose reference speech is used (default: nano)")
    vocoder.add_argument("--limit", type=int, help="sentences (default: all)")
    vocoder.add_argument("--json", action="store_true", help="print one JSON object")
    vocoder.set_defaults(command=_vocoder)
    return parser


def _run(options: argparse.Namespace) -> None:
    from eval.bench import Plan, run_bench
    from eval.report import comparison_table
    from eval.table import render_markdown

    plan = Plan(options.model, options.suite, options.modes, options.tasks, options.limit, options.repeats,
                options.warmup, options.seed, options.out, options.resume)
    run, summary = run_bench(plan)
    print(render_markdown(comparison_table(summary)))
    print(f"written to {run.path}", file=sys.stderr)


def _score(options: argparse.Namespace) -> None:
    if options.run is not None:
        from eval.bench import score_run
        from eval.report import comparison_table
        from eval.table import render_markdown

        if options.metric or options.pairs:
            raise EvalError("give a run folder, or --metric with --pairs, not both")
        _, summary = score_run(options.run)
        print(json.dumps(summary, ensure_ascii=False) if options.json else render_markdown(comparison_table(summary)))
        return
    from eval.metrics import get_metric
    from eval.score import score_file

    if options.metric:
        get_metric(options.metric)
    if not (options.metric and options.pairs):
        raise EvalError("give --metric and --pairs, or the folder of a run")
    result = score_file(options.metric, options.pairs)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(f"{result['metric']} {result['value']} % of {result['n']} items {result['totals']}")


def _table(options: argparse.Namespace) -> None:
    from eval.report import TABLES
    from eval.runs import read_run
    from eval.table import RENDERERS

    run = read_run(options.run)
    try:
        summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise EvalError(f"{run.path} has no summary yet: python -m eval score {run.path}") from None
    tables = {table.name: table for table in (build(summary) for build in TABLES)}
    if options.name not in tables:
        raise EvalError(f"unknown table {options.name!r}; known: {', '.join(tables)}")
    print(RENDERERS[options.format](tables[options.name]), end="")


def _vocoder(options: argparse.Namespace) -> None:
    from eval.vocoder_check import check_vocoder

    result = check_vocoder(options.model, options.suite, options.limit)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(f"judge WER of the original {result['original']:.2f} %, after encoding and decoding "
              f"{result['resynthesised']:.2f} % ({result['n']} sentences)")


if __name__ == "__main__":
    sys.exit(main())
