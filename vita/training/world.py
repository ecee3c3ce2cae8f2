"""nano's world as data: facts, the ways to ask for them, and the sentences that answer.

Reads ``benchmarks_data/nano/world.csv`` (kind, subject, answer, aliases, spoken) and
``phrasings.json`` (question templates per kind, split into ``train`` and held-out ``test``).
It knows nothing of audio or models.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "benchmarks_data" / "nano"

WITH_ARTICLE = {"Netherlands", "Czech Republic", "Philippines", "United States"}
# Facts whose subject splits into a counted thing and its place ("legs" / "on a spider").
PLACE_WORDS = (" in ", " on ")


@dataclass(frozen=True)
class Fact:
    """One thing nano knows. ``spoken`` is the answer as said inside a sentence, if that differs."""

    kind: str
    subject: str
    answer: str
    aliases: tuple[str, ...]
    spoken: str

    @property
    def key(self) -> str:
        return f"{self.kind}: {self.subject}"


@dataclass(frozen=True)
class Question:
    """A question in words with the sentence that answers it. ``phrasing`` names the template."""

    fact: Fact
    phrasing: str
    text: str
    answer_sentence: str


@cache
def load_facts() -> tuple[Fact, ...]:
    """All facts in file order."""
    with open(DATA / "world.csv", newline="", encoding="utf-8") as file:
        return tuple(
            Fact(
                r["kind"],
                r["subject"],
                r["answer"],
                tuple(a for a in r["aliases"].split("|") if a),
                r["spoken"] or r["answer"],
            )
            for r in csv.DictReader(file)
        )


@cache
def load_phrasings() -> dict:
    return json.loads((DATA / "phrasings.json").read_text(encoding="utf-8"))


def capitalise(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def slots(fact: Fact) -> dict[str, str]:
    """The values a template of this fact's kind may use."""
    subject = f"the {fact.subject}" if fact.subject in WITH_ARTICLE else fact.subject
    values = {"subject": subject, "answer": fact.spoken}
    if fact.kind in ("sum", "difference"):
        values["a"], _, values["b"] = fact.subject.split()
    if fact.kind in ("animal sound", "baby animal"):
        article = "an" if fact.subject[0] in "aeiou" else "a"
        values["a_subject"] = f"{article} {fact.subject}"
    if fact.kind == "how many":
        cut = min((fact.subject.find(w) for w in PLACE_WORDS if w in fact.subject), default=-1)
        if cut > 0:
            values["rest_first"], values["rest_rest"] = fact.subject[:cut], fact.subject[cut + 1 :]
    return values


def answer_sentence(fact: Fact) -> str:
    """The full sentence nano says, e.g. ``The capital of France is Paris.``"""
    return capitalise(load_phrasings()["kinds"][fact.kind]["answer"].format(**slots(fact)))


def templates(fact: Fact, split: str) -> list[str]:
    """Question templates of a fact for ``split`` ("train", "test" or "follow_up")."""
    data = load_phrasings()
    kind = data["kinds"][fact.kind]
    if fact.kind == "small talk":
        return list(kind["by_subject"][fact.subject].get(split, []))
    if split == "follow_up":
        return list(kind.get("follow_up", []))
    values = slots(fact)
    wrapped = [
        wrapper.replace("{np}", noun_phrase)
        for wrapper in data["wrappers"][split]
        for noun_phrase in kind["noun_phrases"]
    ]
    own = [t for t in kind[split] if "{rest_first}" not in t or "rest_first" in values]
    return own + wrapped


def questions(fact: Fact, split: str) -> list[Question]:
    """Every way the split knows to ask for this fact."""
    values, answer = slots(fact), answer_sentence(fact)
    return [Question(fact, t, capitalise(t.format(**values)), answer) for t in templates(fact, split)]
