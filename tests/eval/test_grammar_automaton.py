"""The automaton accepts what the grammar accepts, and nothing else."""

import itertools

import pocketsphinx
import pytest

from eval.judges.grammar_automaton import minimise, read_network
from eval.suites import SUITES

GRAMMAR = """#JSGF V1.0;
grammar small;
<who> = anna | bob [ smith ];
public <all> = <who> ( sees | hears ) <who> | call <who> [ now | today ];
"""
WORDS = ["anna", "bob", "smith", "sees", "hears", "call", "now", "today"]


def accepts(automaton, sentence):
    state = automaton.start
    for word in sentence:
        if word not in automaton.arcs[state]:
            return False
        state = automaton.arcs[state][word]
    return state in automaton.final


@pytest.fixture(scope="module")
def logmath():
    return pocketsphinx.Decoder(lm=None, loglevel="FATAL").logmath


def test_same_language(tmp_path, logmath):
    path = tmp_path / "small.gram"
    path.write_text(GRAMMAR)
    jsgf = pocketsphinx.Jsgf(str(path))
    automaton = minimise(*read_network(jsgf, jsgf.get_rule("small.all"), logmath))
    people = [["anna"], ["bob"], ["bob", "smith"]]
    allowed = {(*a, verb, *b) for a in people for verb in ("sees", "hears") for b in people}
    allowed |= {("call", *a, *end) for a in people for end in ([], ["now"], ["today"])}
    everything = itertools.chain.from_iterable(itertools.product(WORDS, repeat=length) for length in range(6))
    assert {sentence for sentence in everything if accepts(automaton, sentence)} == allowed


def test_nano_grammar_is_small(logmath):
    jsgf = pocketsphinx.Jsgf(str(SUITES["nano"] / "judge.gram"))
    automaton = minimise(*read_network(jsgf, jsgf.get_rule("nano.sentence"), logmath))
    assert sum(map(len, automaton.arcs)) < 6000
