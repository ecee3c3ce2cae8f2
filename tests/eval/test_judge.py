"""The offline judge, on speech that the suite ships."""

import numpy as np
import pytest

from eval.errors import EvalError
from eval.judges.pocketsphinx_judge import PocketsphinxJudge
from eval.metrics import METRICS
from eval.scoring import open_judge
from eval.suites import load_suite

WER = METRICS["wer[whisper-en]"]


@pytest.fixture(scope="module")
def suite():
    return load_suite("nano")


@pytest.fixture(scope="module")
def judge(suite):
    return open_judge(suite.judge, suite.folder)


def test_reference_speech_is_heard(suite, judge):
    read = [item for item in suite.items if item.task == "tts"][::8]
    heard = [WER.sample(item.text, judge.transcribe(*suite.load_reference(item), "sentence")) for item in read]
    assert len(heard) == 8
    assert WER.reduce(heard) <= 10


def test_a_wrong_answer_is_heard_as_wrong(suite, judge):
    """Statements of the suite carry another fact's answer; hearing the right one would hide a model's mistake."""
    statements = [item for item in suite.items if item.task == "tts" and item.role == "statement"][:4]
    for item in statements:
        spoken = judge.transcribe(*suite.load_reference(item), "answer").split()
        assert spoken[-1] == item.text.lower().rstrip(".").split()[-1], item.text


@pytest.mark.parametrize("kind", ["nothing", "silence", "click", "noise", "tone"])
def test_what_is_not_speech_is_heard_as_nothing(judge, kind):
    time = np.arange(16_000)
    sounds = {"nothing": np.zeros(0), "silence": np.zeros(16_000), "click": np.ones(200),
              "noise": np.random.default_rng(0).normal(0, 0.1, 16_000), "tone": 0.3 * np.sin(time * 0.1)}
    assert judge.transcribe(sounds[kind].astype(np.float32), 16_000, "answer") == ""


def test_an_unusable_grammar_is_explained(tmp_path, suite):
    pronunciations = suite.folder / suite.judge["pronunciations"]
    grammar = tmp_path / "odd.gram"
    grammar.write_text("#JSGF V1.0;\ngrammar nano;\npublic <answer> = zzyzxian;\n")
    odd = PocketsphinxJudge(grammar, pronunciations)
    speech = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    with pytest.raises(EvalError, match="without a pronunciation"):
        odd.transcribe(speech, 16_000, "answer")
    with pytest.raises(EvalError, match="no public rule <sentence>"):
        odd.transcribe(speech, 16_000, "sentence")
    with pytest.raises(EvalError, match="cannot be read"):
        PocketsphinxJudge(tmp_path / "gone.gram", pronunciations)
