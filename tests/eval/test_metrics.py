"""Every protocol equals the scores its reference script gave, item by item."""

import json
from pathlib import Path

import pytest

from eval.errors import EvalError
from eval.metrics import METRICS, get_metric
from eval.metrics.base import UndefinedSample
from eval.metrics.number_words import parse_number

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
WENET = json.loads((GOLDEN / "eval_wer_cer.json").read_text(encoding="utf-8"))
SEEDTTS = json.loads((GOLDEN / "eval_seedtts_wer.json").read_text(encoding="utf-8"))
CONTAIN = json.loads((GOLDEN / "eval_contain_acc.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", ["en", "zh", "all"])
@pytest.mark.parametrize(
    ("recorded", "name"),
    [("wer_char1", "wer[wenet]"), ("cer_char1", "cer[wenet]"), ("wer_char0", "wer[wenet-words]"),
     ("wer_char1_cs1", "wer[wenet-cased]")],
)
def test_wenet(language, recorded, name):
    metric = METRICS[name]
    pairs, expected = WENET[language]["pairs"], WENET[language][recorded]
    samples = [metric.sample(pair["ref"], pair["hyp"]) for pair in pairs]
    for pair, sample, line in zip(pairs, samples, expected["lines"], strict=True):
        assert {**sample, "wer": metric.printed(metric.item_value(sample))} == {
            key: line[key] for key in ("S", "D", "I", "N", "C", "wer")}, pair
    assert metric.printed(metric.reduce(samples)) == expected["overall"]["wer"]
    for key in "SDIN":
        assert sum(sample[key] for sample in samples) == expected["overall"][key]


@pytest.mark.parametrize(("language", "name"), [("en", "wer[seedtts-en]"), ("zh", "cer[seedtts-zh]")])
def test_seedtts(language, name):
    metric, expected = METRICS[name], SEEDTTS[language]
    samples = [metric.sample(pair["truth"], pair["hypo"]) for pair in expected["pairs"]]
    for pair, sample in zip(expected["pairs"], samples, strict=True):
        assert metric.item_value(sample) / 100 == pytest.approx(pair["wer"], abs=1e-9), pair
        for key, recorded in (("S", "subs"), ("D", "dele"), ("I", "inse")):
            assert sample[key] / sample["listed"] == pytest.approx(pair[recorded], abs=1e-9), pair
    assert metric.printed(metric.reduce(samples)) == expected["average_wer_percent"]


@pytest.mark.parametrize("case", SEEDTTS["empty_truth"])
def test_seedtts_has_no_score_without_reference(case):
    with pytest.raises(UndefinedSample):
        METRICS["wer[seedtts-en]"].sample(case["truth"], case["hypo"])


def test_contain():
    metric = METRICS["acc[vita-contain]"]
    samples = [metric.sample(pair["gt"], pair["pred"]) for pair in CONTAIN["pairs"]]
    for pair, sample in zip(CONTAIN["pairs"], samples, strict=True):
        assert sample["correct"] == pair["correct"], pair
    assert metric.reduce(samples) == CONTAIN["acc_percent"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("two hundred and five", 205), ("twenty-one", 21), ("one two three", 5), ("nineteen eighty four", 1524),
     ("one million nine thousand", 1010009), ("three point one four", 3.14), ("42", 42)],
)
def test_number_words_as_the_reference_package_reads_them(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["Lidia", "", "thousand thousand", "thousand million one"])
def test_text_that_is_no_number(text):
    with pytest.raises((ValueError, IndexError)):
        parse_number(text)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "correct"),
    [("10", "It was built in 1910.", 0), ("10", "It has 10 rooms.", 1), ("art", "He enjoys a party", 0),
     (["twelve", "12"], "Seven plus five is Twelve.", 1), ("twenty-four", "There are twenty four hours.", 1),
     ("New Delhi", "Delhi is new", 0), ("Brasília", "the capital is brasilia", 1), ("Paris", "", 0)],
)
def test_has_answer_matches_whole_words(reference, hypothesis, correct):
    assert METRICS["acc[has-answer]"].sample(reference, hypothesis)["correct"] == correct


def test_whisper_protocol_normalises_both_sides():
    sample = METRICS["wer[whisper-en]"].sample("The colour is, um, twenty-four!", "the color is 24")
    assert sample["S"] + sample["D"] + sample["I"] == 0
    assert sample["N"] == 4


def test_swapped_arguments_change_the_character_error_rate():
    metric = METRICS["cer[wenet]"]
    assert metric.item_value(metric.sample("abcd", "ab")) == 50.0
    assert metric.item_value(metric.sample("ab", "abcd")) == 100.0


def test_empty_hypothesis_keeps_all_reference_words():
    assert METRICS["wer[wenet]"].sample("three words here", "") == {"S": 0, "D": 3, "I": 0, "N": 3, "C": 0}


def test_unknown_metric_names_the_known_ones():
    with pytest.raises(EvalError, match=r"unknown metric 'wer'; known: wer\[whisper-en\]"):
        get_metric("wer")
