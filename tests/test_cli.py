"""``python -m vita``: output, exit codes, and one line on standard error for what a person can mend."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from tests.tiny_checkpoint import scripted, spoken_answer
from vita.__main__ import main
from vita.vocabulary import Vocabulary

KEYS = {"text", "mode", "timings", "passes", "audio_seconds"}


@pytest.fixture
def question(tmp_path, speech_like):
    path = tmp_path / "question.wav"
    soundfile.write(path, speech_like, 16_000)
    return str(path)


@pytest.fixture
def model(tiny_folder) -> list[str]:
    return ["--model", str(tiny_folder), "--device", "cpu"]


@pytest.fixture
def answer(tiny_folder) -> list[int]:
    return spoken_answer(Vocabulary.from_folder(tiny_folder), "It is Berlin.", audio=20)


def refused(capsys, *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vita: ")
    assert err.count("\n") == 1
    return err


def test_ask_prints_one_json_object_and_writes_the_answer(capsys, tmp_path, question, model, answer):
    out = tmp_path / "answer.wav"
    with scripted(answer):
        assert main(["ask", question, "--mode", "turbo", "--out", str(out), "--json", *model]) == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record) == KEYS
    assert record["text"] == "It is Berlin."
    assert record["mode"] == "turbo"
    assert set(record["timings"]) == {"ttft", "ttf_audio_token", "ttfc", "total"}
    assert 0 < record["timings"]["ttft"] <= record["timings"]["ttfc"] <= record["timings"]["total"]
    assert set(record["passes"]) == {"main", "mctp"}
    samples, rate = soundfile.read(out)
    assert len(samples) / rate == pytest.approx(record["audio_seconds"]) == pytest.approx(1.6)
    assert np.abs(samples).max() > 0


def test_ask_prints_the_text_and_keeps_numbers_off_standard_output(capsys, model, answer):
    with scripted(answer):
        assert main(["ask", "--text", "What is the capital of Germany?", *model]) == 0
    out, err = capsys.readouterr()
    assert out == "It is Berlin.\n"
    assert "ttfc" in err
    assert "boost" in err


def test_transcribe(capsys, tiny_folder, question, model):
    vocabulary = Vocabulary.from_folder(tiny_folder)
    with scripted([*vocabulary.encode("hello"), vocabulary.im_end]):
        assert main(["transcribe", question, "--json", *model]) == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record) == KEYS
    assert (record["text"], record["mode"], record["audio_seconds"]) == ("hello", "vanilla", 1.5)
    assert record["timings"]["ttfc"] is None


def test_speak(capsys, tmp_path, model, answer):
    out = tmp_path / "speech.flac"
    with scripted(answer):
        assert main(["speak", "It is Berlin.", "--out", str(out), "--json", *model]) == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record) == KEYS
    assert record["text"] == "It is Berlin."
    assert soundfile.info(out).duration == pytest.approx(record["audio_seconds"])


def test_models_lists_them_all(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for name in ("nano", "VITA-Audio-Boost", "VITA-Audio-Balance", "VITA-Audio-Plus-Vanilla", "VITA-Audio-Plus-Boost"):
        assert name in out


def test_refusals_are_one_line_and_exit_code_two(capsys, tmp_path, question, model, speech_like):
    letter, silence, endless = tmp_path / "letter.wav", tmp_path / "silence.wav", tmp_path / "endless.wav"
    letter.write_text("This is not audio.")
    soundfile.write(silence, np.zeros(16_000), 16_000)
    soundfile.write(endless, np.tile(speech_like, 400), 16_000)
    assert "not a readable audio file" in refused(capsys, "ask", str(letter), *model)
    assert "silence" in refused(capsys, "ask", str(silence), *model)
    assert "longer than 30 s" in refused(capsys, "transcribe", str(endless), "--json", *model)
    assert "no audio file" in refused(capsys, "transcribe", str(tmp_path / "none.wav"), *model)
    assert "one of the two" in refused(capsys, "ask", *model)
    assert "one of the two" in refused(capsys, "ask", question, "--text", "and this", *model)
    assert "empty" in refused(capsys, "ask", "--text", "  ", *model)
    assert "100000 characters" in refused(capsys, "speak", "a" * 100_000, "--out", str(tmp_path / "a.wav"), *model)
    assert "decoding mode" in refused(capsys, "ask", question, "--mode", "fast", *model)
    assert "no model 'nono'" in refused(capsys, "ask", question, "--model", "nono")
    assert "VITA_THREADS" not in refused(capsys, "ask", question, "--model", str(tmp_path))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(capsys, tmp_path, question, model):
    with scripted([]) as forwards:
        assert "no folder" in refused(capsys, "ask", question, "--out", str(tmp_path / "no" / "a.wav"), *model)
        assert ".wav or .flac" in refused(capsys, "speak", "Hello", "--out", str(tmp_path / "a.txt"), *model)
        refused(capsys, "speak", "Hello", "--out", str(tmp_path), *model)
    assert forwards.levels == []


def test_an_answer_without_speech_leaves_no_empty_file(capsys, tmp_path, tiny_folder, model):
    vocabulary = Vocabulary.from_folder(tiny_folder)
    out = tmp_path / "answer.wav"
    with scripted([*vocabulary.encode("No."), vocabulary.im_end]):
        assert main(["speak", "Hello", "--out", str(out), *model]) == 2
    assert "gave no speech" in capsys.readouterr().err
    assert not out.exists()


def test_the_module_is_a_command():
    command = [sys.executable, "-m", "vita", "ask", "missing.wav", "--mode", "fast"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("vita: 'fast'")
    assert "Traceback" not in done.stderr
