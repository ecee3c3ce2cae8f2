"""The spoken training corpus: which sentence is said by which voice, made once and kept in shards.

Two sets: ``input`` (many voices; what users might say) and ``canonical`` (nano's own voice; what
it will say). A shard is one ``.npz`` with int16 audio, written whole or not at all, so that an
interrupted build goes on where it stopped:

    python -m vita.training.corpus --out DIR --set input --shards 48 [--worker 0 --workers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vita.training import world
from vita.training.synthesis import CANONICAL, FLITE_VOICES, Voice, synthesise

SHARD_SIZE = 500
SEED = 2505_03739

ESPEAK_ACCENTS = {
    "en-us": 10,
    "en-gb": 4,
    "en-gb-x-rp": 2,
    "en-gb-scotland": 1,
    "en-gb-x-gbclan": 1,
    "en-gb-x-gbcwmd": 1,
    "en-029": 1,
    "en-us-nyc": 1,
}
ESPEAK_VARIANTS = {
    "": 16,
    **{f"f{i}": 4 for i in range(1, 6)},
    **{f"m{i}": 4 for i in range(1, 9)},
    **{f"klatt{i}": 3 for i in ("", 2, 3, 4, 5, 6)},
    **dict.fromkeys(
        (
            "Alex",
            "Alicia",
            "Andrea",
            "Andy",
            "Annie",
            "Denis",
            "Hugo",
            "Lee",
            "Mario",
            "Michael",
            "Mike",
            "adam",
            "anika",
            "antonio",
            "aunty",
            "belinda",
            "boris",
            "caleb",
            "david",
            "ed",
            "grandma",
            "grandpa",
            "iven",
            "iven2",
            "linda",
            "marcelo",
            "max",
            "michel",
            "miguel",
            "norbert",
            "pablo",
            "paul",
            "pedro",
            "quincy",
            "rob",
            "robert",
            "sandro",
            "shelby",
            "steph",
            "steph2",
            "travis",
            "zac",
        ),
        1,
    ),
}
FLITE_SHARE = 0.45


@dataclass(frozen=True)
class Utterance:
    """One spoken sentence. ``fact`` is a fact key for questions and follow-ups, otherwise empty."""

    role: str
    text: str
    fact: str
    voice: Voice


@cache
def _held_out() -> dict:
    return json.loads((world.DATA / "voices.json").read_text(encoding="utf-8"))["held_out"]


def _draw(weights: dict[str, int], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def draw_voice(rng: random.Random) -> Voice:
    """A training voice; voices and settings listed as held out in voices.json never come up."""
    held = _held_out()
    while True:
        if rng.random() < FLITE_SHARE:
            voice = Voice(
                "flite", rng.choice(FLITE_VOICES), round(rng.uniform(0.8, 1.3), 3), round(rng.uniform(0.75, 1.4), 3)
            )
            if all(abs(1 / voice.rate - s["duration_stretch"]) > 0.01 for s in held["flite_settings"]):
                return voice
        else:
            variant = _draw(ESPEAK_VARIANTS, rng)
            name = _draw(ESPEAK_ACCENTS, rng) + (f"+{variant}" if variant else "")
            voice = Voice("espeak-ng", name, round(rng.uniform(0.75, 1.3), 3), round(rng.uniform(0.6, 1.4), 3))
            rate, pitch = 165 * voice.rate, 50 + 60 * (voice.pitch - 1)
            if variant not in held["espeak_variants"] and all(
                abs(rate - s["rate"]) > 2 or abs(pitch - s["pitch"]) > 2 for s in held["espeak_settings"]
            ):
                return voice


@cache
def _open_words() -> tuple[list[str], list[str]]:
    """(frequent words, wider vocabulary incl. every word of the world) for sentences about nothing."""
    from wordfreq import top_n_list

    ranked = [w for w in top_n_list("en", 6000) if w.isascii() and w.isalpha() and (len(w) > 2 or w in _SHORT)]
    known = {
        w
        for fact in world.load_facts()
        for w in f"{fact.subject} {fact.answer} {world.answer_sentence(fact)}".replace(".", "").replace(",", "").split()
    }
    return ranked[:400], ranked[:4000] + 4 * sorted(known)


_SHORT = {
    "a",
    "i",
    "is",
    "it",
    "in",
    "on",
    "of",
    "to",
    "me",
    "my",
    "we",
    "he",
    "do",
    "go",
    "no",
    "so",
    "up",
    "us",
    "at",
    "as",
    "an",
    "am",
    "be",
    "by",
    "if",
    "or",
}


def open_sentence(rng: random.Random) -> str:
    """A sentence of 3-9 unrelated words: it can only be transcribed or spoken by listening or spelling."""
    frequent, wide = _open_words()
    words = [rng.choice(frequent if rng.random() < 0.4 else wide) for _ in range(rng.randint(3, 9))]
    return world.capitalise(" ".join(words)) + rng.choice("..?")


def draw_input(rng: random.Random) -> Utterance:
    facts, voice, dice = world.load_facts(), draw_voice(rng), rng.random()
    fact = rng.choice(facts)
    if dice < 0.67:
        return Utterance("question", rng.choice(world.questions(fact, "train")).text, fact.key, voice)
    if dice < 0.74:
        follow_ups = world.questions(fact, "follow_up")
        if follow_ups:
            return Utterance("follow_up", rng.choice(follow_ups).text, fact.key, voice)
    if dice < 0.82:
        return Utterance("statement", world.answer_sentence(fact), "", voice)
    return Utterance("open", open_sentence(rng), "", voice)


def canonical_sentences(count: int = 5000) -> list[str]:
    """What nano's own voice reads: every answer, then questions and open sentences in turn."""
    rng = random.Random(SEED + 1)
    facts = world.load_facts()
    sentences = dict.fromkeys(world.answer_sentence(fact) for fact in facts)
    sentences["Sorry, I did not understand that."] = None
    while len(sentences) < count:
        fact = rng.choice(facts)
        sentences[rng.choice(world.questions(fact, "train")).text if rng.random() < 0.45 else open_sentence(rng)] = None
    return list(sentences)


def _utterances(which: str, shard: int) -> list[Utterance]:
    if which == "canonical":
        part = canonical_sentences()[shard * SHARD_SIZE : (shard + 1) * SHARD_SIZE]
        return [Utterance("canonical", text, "", CANONICAL) for text in part]
    rng = random.Random(f"{SEED} {which} {shard}")
    return [draw_input(rng) for _ in range(SHARD_SIZE)]


def build(out: Path, which: str, shards: int, worker: int = 0, workers: int = 1) -> None:
    """Write the missing shards ``worker, worker + workers, ...``."""
    folder = out / which
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(worker, shards, workers):
        path = folder / f"{shard:04d}.npz"
        utterances = _utterances(which, shard)
        if path.exists() or not utterances:
            continue
        spoken = [
            synthesise(u.text, u.voice) for u in tqdm(utterances, desc=f"{which} {shard + 1}/{shards}", leave=False)
        ]
        partial = path.with_name(path.name + ".part")
        with open(partial, "wb") as file:
            np.savez(
                file,
                samples=np.concatenate(spoken),
                ends=np.cumsum([len(s) for s in spoken]),
                meta=np.frombuffer(json.dumps([asdict(u) for u in utterances]).encode(), np.uint8),
            )
        os.replace(partial, path)


def read_shard(path: Path) -> Iterator[tuple[Utterance, np.ndarray]]:
    """(utterance, int16 samples ``[n]`` at 16 kHz) of one shard."""
    with np.load(path) as data:
        samples, ends, meta = data["samples"], data["ends"], json.loads(bytes(data["meta"]))
    start = 0
    for end, row in zip(ends, meta, strict=True):
        yield Utterance(row["role"], row["text"], row["fact"], Voice(**row["voice"])), samples[start:end]
        start = int(end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", choices=("input", "canonical"), required=True)
    parser.add_argument("--shards", type=int, required=True, help=f"of {SHARD_SIZE} sentences each")
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    build(args.out, args.set, args.shards, args.worker, args.workers)


if __name__ == "__main__":
    main()
