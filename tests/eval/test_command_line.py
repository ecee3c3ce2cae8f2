"""What a person types, and what they are told when it cannot work."""

import json

import pytest

from eval.__main__ import main
from eval.suites import load_suite


def refused(capsys, *arguments):
    """The one line on standard error."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def write_pairs(path, *pairs):
    path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), encoding="utf-8")
    return path


def test_score_prints_value_and_counts_per_item(tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl", {"id": "a", "ref": "hello, world", "hyp": "hello world"},
                        {"id": "b", "ref": "one two three", "hyp": None})
    assert main(["score", "--metric", "wer[wenet]", "--pairs", str(pairs), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["value"] == 80.0
    assert [{key: item[key] for key in ("id", "S", "D", "I", "N")} for item in result["items"]] == [
        {"id": "a", "S": 1, "D": 0, "I": 0, "N": 2}, {"id": "b", "S": 0, "D": 3, "I": 0, "N": 3}]


def test_score_takes_a_list_of_accepted_answers(tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl", {"id": 1, "ref": ["Lidia", "Petra"], "hyp": "It was Petra."})
    assert main(["score", "--metric", "acc[vita-contain]", "--pairs", str(pairs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == 100.0


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"id": 1, "ref": "a", "hyp": "b"}\n{"id": 1, "ref": "a", "hyp": "b"}', "appears twice"),
     ('{"id": 1, "hyp": "b"}', "expected an object"), ("not json", "expected an object"), ("", "holds no pairs"),
     ('{"id": 1, "ref": ["a"], "hyp": "b"}', '"ref" must be a text'),
     ('{"id": "x", "ref": "...", "hyp": "b"}', "item 'x': the reference is empty")],
)
def test_bad_pairs(tmp_path, capsys, content, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    assert message in refused(capsys, "score", "--metric", "wer[seedtts-en]", "--pairs", path)


def test_unknown_names(tmp_path, capsys):
    assert "unknown metric 'wer[x]'" in refused(capsys, "score", "--metric", "wer[x]", "--pairs", "none.jsonl")
    assert "unknown suite 'moon'" in refused(capsys, "run", "--suite", "moon", "--model", "fake")
    assert "'warp' is no decoding mode" in refused(capsys, "run", "--modes", "warp", "--model", "fake")
    assert "unknown task 'vqa'" in refused(capsys, "run", "--tasks", "vqa", "--model", "fake")
    assert "no model 'moon'" in refused(capsys, "run", "--model", "moon", "--limit", "1", "--out", tmp_path)
    assert "is not a run" in refused(capsys, "score", tmp_path)
    assert "cannot read" in refused(capsys, "score", "--metric", "wer[wenet]", "--pairs", tmp_path / "none.jsonl")


def test_a_run_that_cannot_be_written(suite_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    line = refused(capsys, "run", "--suite", suite_folder, "--model", "fake", "--tasks", "asr",
                   "--out", tmp_path / "file" / "runs")
    assert "cannot write" in line


def test_run_prints_the_table_it_wrote(suite_folder, tmp_path, capsys):
    assert main(["run", "--suite", str(suite_folder), "--model", "fake", "--tasks", "asr", "--modes", "boost,[1,4,2,8]",
                 "--warmup", "0", "--out", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    written = next((tmp_path / "runs").rglob("comparison.md"))
    assert printed.strip() == written.read_text().strip()
    assert "| 1,4,2,8 " in printed
    assert main(["table", str(written.parents[1]), "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("mode,ASR WER (%)")


@pytest.mark.parametrize(
    ("rows", "message"),
    [([{"id": "a", "task": "tts", "text": "x"}] * 2, "appears twice"), ([], "holds no items"),
     ([{"id": "a", "task": "asr", "text": "x"}], "needs audio"),
     ([{"id": "a", "task": "sing", "text": "x"}], "unknown task 'sing'"),
     ([{"id": "a", "task": "asr", "text": "x", "audio": "gone.flac"}], "audio of item a is missing"),
     ([{"id": "a", "task": "tts", "text": "x", "txet": "y"}], "unknown field 'txet'")],
)
def test_a_suite_in_the_wrong_layout(tmp_path, capsys, rows, message):
    (tmp_path / "suite.json").write_text('{"name": "broken", "version": 1}')
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert message in refused(capsys, "run", "--suite", tmp_path, "--model", "fake")


def test_data_has_a_fingerprint(suite_folder):
    before = load_suite(str(suite_folder)).fingerprint
    audio = next((suite_folder / "audio").iterdir())
    audio.write_bytes(audio.read_bytes() + b"\0")
    assert load_suite(str(suite_folder)).fingerprint != before
