"""nano's world, its phrasings and the sequences made of them."""

import random

import numpy as np
import pytest

from vita.training import world
from vita.training.corpus import ESPEAK_VARIANTS, draw_voice
from vita.training.samples import NUMBER_WORDS, interleave, split_chunks, typed


def test_at_least_twenty_training_phrasings_per_kind_and_some_held_out():
    for kind in {fact.kind for fact in world.load_facts()} - {"small talk"}:
        fact = next(f for f in world.load_facts() if f.kind == kind)
        assert len(world.templates(fact, "train")) >= 20
        assert len(world.templates(fact, "test")) >= 3


def test_held_out_phrasings_are_never_trained():
    for fact in world.load_facts():
        trained = {q.text for split in ("train", "follow_up") for q in world.questions(fact, split)}
        assert not trained & {q.text for q in world.questions(fact, "test")}


def test_every_answer_sentence_contains_its_answer():
    for fact in world.load_facts():
        sentence = world.answer_sentence(fact).lower()
        assert any(answer.lower() in sentence for answer in (fact.answer, *fact.aliases)), fact


def test_sums_and_differences_are_right():
    number = {word: i for i, word in enumerate(NUMBER_WORDS)}
    facts = [f for f in world.load_facts() if f.kind in ("sum", "difference")]
    assert len(facts) >= 187
    for fact in facts:
        a, operation, b = fact.subject.split()
        assert number[a] + (number[b] if operation == "plus" else -number[b]) == number[fact.answer]


def test_held_out_voices_are_never_drawn():
    held = {"edward", "benjamin", "announcer", "victor", "Gene", "steph3"}
    assert not held & set(ESPEAK_VARIANTS)
    rng = random.Random(0)
    voices = [draw_voice(rng) for _ in range(3000)]
    assert not {v.name for v in voices} & {"kal"}
    for voice in voices:
        if voice.engine == "flite":
            assert min(abs(1 / voice.rate - s) for s in (0.93, 1.07, 1.17)) > 0.01


@pytest.mark.parametrize(
    ("texts", "audios", "expected"),
    [
        (9, 24, [1, 8, 4, 8, 4, 8]),
        (8, 22, [1, 8, 4, 8, 3, 6]),
        (5, 40, [1, 8, 4, 32]),  # what is left of the audio goes into the last chunk
        (12, 10, [1, 8, 11, 2]),  # what is left of the text, too
        (1, 3, [1, 3]),
    ],
)
def test_interleaving_follows_the_paper(texts, audios, expected):
    begin, end = -1, -2
    out = interleave(list(range(100, 100 + texts)), list(range(500, 500 + audios)), begin, end)
    sizes, group = [], []
    for id in out:
        if id in (begin, end):
            sizes.append(len(group))
            group = []
        else:
            group.append(id)
    assert sizes == expected
    assert not group
    assert [i for i in out if 100 <= i < 500] == list(range(100, 100 + texts))
    assert [i for i in out if i >= 500] == list(range(500, 500 + audios))


def test_chunks_of_nothing():
    assert split_chunks([], (1, 4)) == []


def test_typed_numbers_become_digits_sometimes():
    seen = {typed("What is seven plus twelve?", random.Random(i)) for i in range(40)}
    assert {"What is 7 plus 12?", "what is seven plus twelve", "What is seven plus twelve?"} <= seen


def test_augmentation_is_a_function_of_its_generator():
    from vita.training.augment import augment

    samples = (np.sin(np.arange(16000) / 10) * 8000).astype(np.int16)
    one, same, other = (augment(samples, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert len(one) != len(other) or np.abs(one - other).max() > 0.01
    assert np.abs(one).max() <= 1.0
