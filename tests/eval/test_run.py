"""A run from plan to table, with a system whose every millisecond is known."""

import errno
import itertools
import json
import os

import pytest

from eval import runs
from eval.errors import EvalError
from eval.fake_system import FakeSystem
from eval.latency import latin_square, percentile, underrun
from eval.report import comparison_table
from eval.scoring import listen, score_outputs
from tests.eval.conftest import PARIS, ScriptedJudge, quiet

ITEMS, MODES = 10, 2


@pytest.fixture
def runs_folder(tmp_path):
    return tmp_path / "runs"


def outputs(run):
    return runs.read_jsonl(run.path / "outputs.jsonl")


def quality(summary, task, mode, metric, subset="headline"):
    return next(row for row in summary["quality"]
                if (row["task"], row["mode"], row["metric"], row["subset"]) == (task, mode, metric, subset))


def latency(summary, task, mode):
    return next(row for row in summary["latency"] if (row["task"], row["mode"]) == (task, mode))


def test_values_of_a_known_system(bench):
    run, summary = bench()
    assert summary["answers"] == summary["expected"] == ITEMS * MODES
    assert quality(summary, "asr", "boost", "wer[whisper-en]")["value"] == 0
    assert quality(summary, "tts", "boost", "tts-wer[judge:local]", "all")["value"] == 0
    headline = quality(summary, "sqa", "boost", "acc_text[has-answer]")
    assert (headline["value"], headline["n"]) == (40.0, 5)  # 2 of 5 questions are about Paris
    assert quality(summary, "sqa", "boost", "acc_text[has-answer]", "unseen-engine")["n"] == 1
    assert run.header["status"] == "complete"
    for name in ("config.yaml", "env.json", "items.jsonl", "heard.jsonl", "scores.jsonl", "summary.json",
                 "tables/comparison.md", "tables/comparison.csv"):
        assert (run.path / name).stat().st_size > 0


def test_times_are_the_clock_of_the_system(bench):
    _, summary = bench()
    boost, vanilla = latency(summary, "sqa", "boost"), latency(summary, "sqa", "vanilla")
    # 20 ms to encode; one main pass (10 ms) and ten MCTP passes (1 ms), or eleven main passes; 5 ms to vocode.
    assert boost["ttft_p50"] == vanilla["ttft_p50"] == pytest.approx(30)
    assert boost["ttfc_p50"] == pytest.approx(20 + 10 + 10 + 5)
    assert vanilla["ttfc_p50"] == pytest.approx(20 + 110 + 5)
    assert boost["main_before_first_audio"] == {"median": 1, "max": 1}
    assert vanilla["main_before_first_audio"] == {"median": 11, "max": 11}
    assert vanilla["tokens_per_main_pass"] == 1
    assert boost["tokens_per_main_pass"] > 2
    assert boost["ttft_p90"] is None  # six answers are too few for a 90th percentile


def test_every_answer_can_be_traced_to_its_sound(bench):
    run, _ = bench()
    for row in outputs(run):
        if row["task"] == "asr":
            assert row["audio"] is None
        else:
            samples, rate = run.load_audio(row["audio"])
            assert len(samples) / rate == pytest.approx(row["audio"]["seconds"])


def test_a_crash_on_one_item_is_counted_and_the_run_goes_on(bench):
    def script(request, mode):
        if request.kind == "transcribe" and mode == "boost":
            raise RuntimeError("out of memory")
        return PARIS

    _, summary = bench(FakeSystem(script))
    failed = quality(summary, "asr", "boost", "wer[whisper-en]")
    assert (failed["value"], failed["n"], failed["failures"]) == (100.0, 2, 2)
    assert quality(summary, "asr", "vanilla", "wer[whisper-en]")["failures"] == 0
    assert latency(summary, "asr", "boost")["ttft_p50"] is None
    assert "out of memory" in next(row["error"] for row in outputs(bench(FakeSystem(script))[0]) if row["error"])


def test_answers_without_audio_stay_in_the_denominator(bench):
    _, summary = bench(FakeSystem(silent=True))
    text = quality(summary, "sqa", "boost", "acc_text[has-answer]")
    speech = quality(summary, "sqa", "boost", "acc_speech[has-answer]")
    assert (text["value"], text["n"]) == (40.0, 5)
    assert (speech["value"], speech["n"], speech["failures"]) == (0.0, 5, 5)
    assert quality(summary, "tts", "boost", "tts-wer[judge:local]", "all")["value"] == 100.0
    assert latency(summary, "sqa", "boost")["underrun_share"] is None


def test_what_the_judge_hears_decides_the_speech_scores(bench):
    _, summary = bench(judge=ScriptedJudge("the capital of france is rome"))
    assert quality(summary, "sqa", "boost", "acc_text[has-answer]")["value"] == 40.0
    assert quality(summary, "sqa", "boost", "acc_speech[has-answer]")["value"] == 60.0
    assert quality(summary, "tts", "boost", "tts-wer[judge:local]", "all")["value"] == pytest.approx(100 / 6)


def interrupted_after(count):
    """A script that is stopped by the keyboard after ``count`` answers."""
    answered = []

    def script(request, mode):
        if len(answered) == count:
            raise KeyboardInterrupt
        answered.append(mode)
        return PARIS

    return script


def test_an_interrupted_run_goes_on_where_it_stopped(bench):
    with pytest.raises(KeyboardInterrupt):
        bench(FakeSystem(interrupted_after(7)))
    second = FakeSystem()
    resumed, summary = bench(second)
    assert len(second.requests) == ITEMS * MODES - 7
    whole, expected = bench(resume=False)
    assert resumed.path != whole.path
    assert [row["key"] for row in outputs(resumed)] == [row["key"] for row in outputs(whole)]
    assert len({row["key"] for row in outputs(resumed)}) == ITEMS * MODES
    assert summary["quality"] == expected["quality"]


@pytest.mark.parametrize("torn", [1, 25, 200])
def test_a_torn_last_line_costs_one_answer(bench, runs_folder, torn):
    with pytest.raises(KeyboardInterrupt):
        bench(FakeSystem(interrupted_after(5)))
    path = next(runs_folder.rglob("outputs.jsonl"))
    path.write_bytes(path.read_bytes()[:-torn])
    second = FakeSystem()
    run, summary = bench(second)
    lost = 0 if torn == 1 else 1  # without its newline the last record is still whole
    assert len(second.requests) == ITEMS * MODES - 5 + lost
    assert len({row["key"] for row in outputs(run)}) == len(outputs(run)) == summary["answers"] == ITEMS * MODES


def test_damage_in_the_middle_is_not_repaired_silently(tmp_path):
    path = tmp_path / "outputs.jsonl"
    path.write_text('{"key": 1}\n{"key": \n{"key": 3}\n')
    with pytest.raises(EvalError, match=r"outputs\.jsonl:2 is damaged"):
        runs.read_jsonl(path)


def test_a_run_is_not_continued_with_anything_else(bench, runs_folder):
    with pytest.raises(KeyboardInterrupt):
        bench(FakeSystem(interrupted_after(3)))
    path = next(runs_folder.rglob("run.json"))
    header = json.loads(path.read_text())
    header["config"]["system"]["weights"] = "others"
    path.write_text(json.dumps(header))
    with pytest.raises(EvalError, match="was made with another system"):
        bench()


def test_other_settings_get_a_folder_of_their_own(bench):
    first, _ = bench()
    second, _ = bench(modes=("vanilla", "turbo"))
    assert first.path.name.rsplit("-", 1)[1] != second.path.name.rsplit("-", 1)[1]
    keys = [row["key"] for run in (first, second) for row in outputs(run) if row["mode"] != "vanilla"]
    assert len(set(keys)) == len(keys)


def test_two_processes_cannot_write_one_run(bench, runs_folder):
    with pytest.raises(KeyboardInterrupt):
        bench(FakeSystem(interrupted_after(3)))
    holder = runs.RunFolder(next(runs_folder.rglob("run.json")).parent)
    holder.lock()
    with pytest.raises(EvalError, match="written by another process"):
        bench()


def test_a_full_disk_says_so_and_loses_nothing(bench, monkeypatch):
    real, written = os.fsync, []

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EvalError, match=r"cannot write .* \(No space left on device\)") as caught:
        bench()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    _, summary = bench()
    assert summary["answers"] == ITEMS * MODES


def test_no_permission_is_refused_before_the_model_is_asked(bench, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.write_text", denied)
    system = FakeSystem()
    with pytest.raises(EvalError, match=r"no permission to write .* --out"):
        bench(system)
    assert system.requests == []


def test_limit_takes_items_from_all_over_the_suite(bench):
    run, summary = bench(limit=2)
    assert summary["answers"] == 6 * MODES
    asked = [row["item"] for row in outputs(run) if row["mode"] == "boost" and row["task"] == "sqa"]
    assert asked == ["sqa-2", "sqa-7"]


def test_warm_up_is_not_recorded(bench):
    system = FakeSystem()
    _, summary = bench(system, warmup=3)
    assert len(system.requests) == 3 * MODES + ITEMS * MODES
    assert summary["answers"] == ITEMS * MODES


def test_modes_change_places_within_items(bench):
    run, _ = bench()
    order = [row["mode"] for row in outputs(run)]
    assert order[:4] == ["vanilla", "boost", "boost", "vanilla"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_latin_square(count):
    square = latin_square([str(n) for n in range(count)])
    for lines in (square, list(zip(*square))):
        assert all(len(set(line)) == count for line in lines)
    if count % 2 == 0:
        follows = [pair for row in square for pair in itertools.pairwise(row)]
        assert len(set(follows)) == len(follows)


def test_percentiles_are_order_statistics_and_need_enough_items():
    assert percentile([3, 1, 2, 4], 50) == 2
    assert percentile(list(range(49)), 90) is None
    assert percentile(list(range(1, 101)), 90) == 90
    assert percentile([1, float("inf"), float("inf")], 50) is None


def test_underrun_is_simulated_playback():
    chunks = [{"at": 100, "seconds": 0.5}, {"at": 700, "seconds": 0.5}, {"at": 800, "seconds": 0.5}]
    assert underrun(chunks) == {"total": 100, "max": 100, "count": 1, "min_buffer": 100}
    assert underrun(chunks[:1]) is None


def test_comparison_table_has_a_row_per_mode(bench):
    _, summary = bench()
    table = comparison_table(summary)
    assert [row[0] for row in table.rows] == ["vanilla", "boost"]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_scoring_again_needs_neither_model_nor_a_second_hearing(bench):
    run, _ = bench()
    judge = ScriptedJudge()
    scores = score_outputs(run, listen(run, judge, progress=quiet))
    assert judge.calls == 0
    assert len(scores) == len(runs.read_jsonl(run.path / "scores.jsonl")) > 0


def test_another_judge_hears_everything_anew(bench):
    run, _ = bench()
    judge = ScriptedJudge("nothing of the kind")
    listen(run, judge, progress=quiet)
    assert judge.calls > 0
