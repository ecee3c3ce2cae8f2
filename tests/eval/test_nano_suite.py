"""The bundled suite keeps its promises: enough of everything, held out, audible, and covered by its grammar."""

import json
import re
from collections import Counter

import pocketsphinx
import pytest

from eval.judges.grammar_automaton import minimise, read_network
from eval.metrics.has_answer import contains_words, words
from eval.suites import BUNDLED, SUITES, UNSEEN_ENGINE, load_suite
from tests.eval.test_grammar_automaton import accepts
from vita.training import world


@pytest.fixture(scope="module")
def suite():
    return load_suite("nano")


@pytest.fixture(scope="module")
def held_out():
    return json.loads((BUNDLED / "nano" / "voices.json").read_text(encoding="utf-8"))["held_out"]


def spoken(text):
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def test_size(suite):
    counts = Counter(item.task for item in suite.items if item.headline)
    assert counts["asr"] >= 60
    assert counts["tts"] >= 60
    assert counts["sqa"] >= 120
    assert sum(path.stat().st_size for path in suite.folder.rglob("*")) < 25e6
    assert sum(item.subset == UNSEEN_ENGINE for item in suite.items) >= 40


def test_no_sentence_was_trained_on(suite):
    trained = {" ".join(spoken(q.text)) for fact in world.load_facts() for split in ("train", "follow_up")
               for q in world.questions(fact, split)}
    trained |= {" ".join(spoken(world.answer_sentence(fact))) for fact in world.load_facts()}
    assert [item.id for item in suite.items if " ".join(spoken(item.text)) in trained] == []


def test_voices_are_held_out(suite, held_out):
    for item in suite.items:
        variant = item.voice.partition("+")[2]
        never_trained = variant in held_out["espeak_variants"] or item.voice in held_out["flite_voices"]
        if item.subset == "held-out-voices":
            assert never_trained, item.id
        elif item.subset == "training-voices":
            assert not never_trained, item.id
            if item.engine == "flite":
                stretches = [setting["duration_stretch"] for setting in held_out["flite_settings"]]
                assert min(abs(1 / item.rate - stretch) for stretch in stretches) < 0.002, item.id
            else:
                setting = {"rate": round(165 * item.rate), "pitch": round(50 + 60 * (item.pitch - 1))}
                assert setting in held_out["espeak_settings"], item.id
        elif item.subset == UNSEEN_ENGINE:
            assert item.engine in held_out["engines"], item.id


def test_repeating_the_question_is_no_answer(suite):
    for item in suite.items:
        for answer in item.answers:
            assert not contains_words(words(item.text), words(answer)), item.id


def test_audio_is_there(suite):
    for item in [item for item in suite.items if item.audio][::20]:
        samples, rate = suite.load_audio(item)
        assert rate == 16_000
        assert 0.5 < len(samples) / rate < 8
        assert 0.3 < abs(samples).max() < 0.6


@pytest.mark.parametrize(("rule", "texts"), [
    ("sentence", lambda item: [item.text] if item.task == "tts" else []),
    ("answer", lambda item: [item.answer_sentence] if item.task == "sqa" else []),
])
def test_grammar_covers_what_may_be_said(suite, rule, texts):
    jsgf = pocketsphinx.Jsgf(str(SUITES["nano"] / suite.judge["grammar"]))
    logmath = pocketsphinx.Decoder(lm=None, loglevel="FATAL").logmath
    automaton = minimise(*read_network(jsgf, jsgf.get_rule(f"nano.{rule}"), logmath))
    wanted = [text for item in suite.items for text in texts(item)]
    assert len(wanted) >= 60
    assert [text for text in wanted if not accepts(automaton, spoken(text))] == []
