"""Writes the grammar by which the judge listens to nano: every sentence frame with open slots.

Any subject may stand with any answer, so a wrong slot value is heard as wrong. Frames that share their
slots are folded into "any opening, slot, any ending": the grammar stays small and admits more sentences
than the world has, which only makes the judge stricter.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from vita.training import world

SLOT = re.compile(r"\{(\w+\}(?:'s)?)")
NOT_UNDERSTOOD = "Sorry, I did not understand that."
NUMBER_KINDS = ("sum", "difference")


def spoken_words(text: str) -> str:
    """The text as the judge's dictionary spells it: lower-case words, apostrophes kept inside words."""
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower().replace("’", "'")))


@dataclass
class Frames:
    """Sentence frames over one sequence of slots: what may be said before, between and after them."""

    gaps: list[set[str]] = field(default_factory=list)

    def add(self, pieces: list[str]) -> None:
        while len(self.gaps) < len(pieces):
            self.gaps.append(set())
        for gap, piece in zip(self.gaps, pieces, strict=True):
            gap.add(spoken_words(piece))


def _alternatives(choices: Iterable[str]) -> str:
    """A JSGF group; optional where one of the choices is empty."""
    ordered = sorted(set(choices))
    spoken = [choice for choice in ordered if choice]
    if not spoken:
        return ""
    joined = " | ".join(spoken)
    return f"[ {joined} ]" if len(spoken) < len(ordered) else f"( {joined} )"


def _slot_rule(kind: str, slot: str) -> str:
    slot = slot.replace("}", "").replace("'s", "_possessive")
    if slot in ("a", "b") or (slot == "answer" and kind in NUMBER_KINDS):
        return "number"
    return f"{kind} {slot}".replace(" ", "_")


def _frames(kind: str, templates: Iterable[str]) -> list[str]:
    """One JSGF expression per sequence of slots that the templates use."""
    grouped: dict[tuple[str, ...], Frames] = defaultdict(Frames)
    for template in templates:
        grouped[tuple(SLOT.findall(template))].add(SLOT.split(template)[::2])
    expressions = []
    for slots, frames in grouped.items():
        parts = [_alternatives(frames.gaps[0])]
        for slot, gap in zip(slots, frames.gaps[1:], strict=True):
            parts += [f"<{_slot_rule(kind, slot)}>", _alternatives(gap)]
        expressions.append(" ".join(part for part in parts if part))
    return expressions


def _answer_rules() -> dict[str, list[str]]:
    """Slot fillers and, under ``answer``, the frames of every sentence nano may answer with."""
    phrasings = world.load_phrasings()["kinds"]
    rules: dict[str, list[str]] = {"number": []}
    by_kind: dict[str, list[world.Fact]] = defaultdict(list)
    for fact in world.load_facts():
        by_kind[fact.kind].append(fact)
    answers = [spoken_words(NOT_UNDERSTOOD)]
    for kind, facts in by_kind.items():
        if kind == "small talk":
            answers += [spoken_words(world.answer_sentence(fact)) for fact in facts]
            continue
        answers += _frames(kind, [phrasings[kind]["answer"]])
        for fact in facts:
            for slot, value in world.slots(fact).items():
                rules.setdefault(_slot_rule(kind, slot), []).append(spoken_words(value))
                rules.setdefault(_slot_rule(kind, slot + "'s"), []).append(spoken_words(value + "'s"))
    rules["answer"] = answers
    return rules


def _question_frames() -> list[str]:
    """Frames of every way to ask, training and held-out phrasings alike."""
    phrasings = world.load_phrasings()
    wrappers = [*phrasings["wrappers"]["train"], *phrasings["wrappers"]["test"]]
    around = Frames()
    for wrapper in wrappers:
        around.add(SLOT.split(wrapper)[::2])
    noun_phrases, frames = [], []
    for kind, data in phrasings["kinds"].items():
        if "by_subject" in data:
            for splits in data["by_subject"].values():
                frames += [spoken_words(text) for text in (*splits["train"], *splits["test"])]
            continue
        noun_phrases += _frames(kind, data.get("noun_phrases", []))
        frames += _frames(kind, [*data["train"], *data["test"]])
    wrapped = [_alternatives(around.gaps[0]), "( " + " | ".join(noun_phrases) + " )", _alternatives(around.gaps[1])]
    return [" ".join(wrapped), *frames]


def write_grammar() -> str:
    """The JSGF text: rule ``answer`` for spoken answers, ``sentence`` for anything nano may read aloud."""
    rules = _answer_rules()
    answers = rules.pop("answer")
    questions = _question_frames()
    used = set(re.findall(r"<(\w+)>", " ".join([*answers, *questions])))
    lines = ["#JSGF V1.0;", "grammar nano;", ""]
    for name, fillers in sorted(rules.items()):
        if name in used:
            lines.append(f"<{name}> = {' | '.join(sorted(set(fillers)))};")
    lines += ["", "public <answer> = " + "\n  | ".join(answers) + ";"]
    lines += ["", "<question> = " + "\n  | ".join(questions) + ";"]
    lines += ["", "public <sentence> = <answer> | <question>;", ""]
    return "\n".join(lines)
