"""Makes the nano suite: held-out sentences in held-out voices, and the judge's grammar.

    python -m eval.suites.build_nano [--out FOLDER]

Needs flite, espeak-ng and festival (with festvox-kdlpc16k and festvox-kallpc16k) on the machine; using the
suite needs none of them. Everything is drawn from one seed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from eval.errors import EvalError
from eval.metrics.has_answer import contains_words, words
from eval.suites import SUITES, UNSEEN_ENGINE
from eval.suites.nano_grammar import spoken_words, write_grammar
from vita.speech.features import SAMPLE_RATE, resample
from vita.training import world
from vita.training.synthesis import CANONICAL, FLITE_VOICES, Voice, synthesise, trim_silence

VERSION = 1
SEED = 20260
TRAINING_VOICES, HELD_OUT_VOICES = "training-voices", "held-out-voices"

QUESTIONS_PER_KIND = {
    "capital": 30, "sum": 24, "difference": 14, "opposite": 18, "colour": 6, "day after": 4, "day before": 4,
    "month after": 5, "month before": 5, "animal sound": 5, "baby animal": 4, "how many": 8, "fact": 14,
    "small talk": 3,
}
"""Spoken questions of the headline number; a third of each goes to the unseen engine again."""
TRAINING_VOICE_SHARE = 0.6
ASR_QUESTIONS, ASR_STATEMENTS, ASR_UNSEEN_ENGINE = 54, 18, 12
TTS_QUESTIONS, TTS_STATEMENTS = 36, 28

ESPEAK_RATE, ESPEAK_PITCH = 165, 50
"""What `synthesise` calls rate 1 and pitch 1 (words per minute, 0-99)."""
ESPEAK_ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland")
ESPEAK_TRAINING_VARIANTS = ("", "f1", "f2", "f3", "f4", "m1", "m2", "m3", "m7", "klatt", "klatt2", "klatt4")
FESTIVAL_VOICES = ("ked_diphone", "ked_diphone", "kal_diphone")


def held_out() -> dict:
    return json.loads((world.DATA / "voices.json").read_text(encoding="utf-8"))["held_out"]


def _espeak(variant: str, rng: random.Random) -> Voice:
    setting = rng.choice(held_out()["espeak_settings"])
    accent = rng.choice(ESPEAK_ACCENTS)
    return Voice("espeak-ng", f"{accent}+{variant}" if variant else accent, setting["rate"] / ESPEAK_RATE,
                 1 + (setting["pitch"] - ESPEAK_PITCH) / 60)


def _flite(name: str, rng: random.Random) -> Voice:
    return Voice("flite", name, 1 / rng.choice(held_out()["flite_settings"])["duration_stretch"])


def training_voice(rng: random.Random) -> Voice:
    """A voice training knows, at a rate and pitch it never used."""
    if rng.random() < 0.5:
        return _flite(rng.choice(FLITE_VOICES), rng)
    return _espeak(rng.choice(ESPEAK_TRAINING_VARIANTS), rng)


def held_out_voice(rng: random.Random) -> Voice:
    """A voice of the training engines that training never used."""
    if rng.random() < 0.25:
        return _flite(rng.choice(held_out()["flite_voices"]), rng)
    return _espeak(rng.choice(held_out()["espeak_variants"]), rng)


def festival_voice(rng: random.Random) -> Voice:
    return Voice("festival", rng.choice(FESTIVAL_VOICES))


def say(text: str, voice: Voice) -> np.ndarray:
    """Speech as int16 ``[n]`` at 16 kHz, outer silence cut."""
    if voice.engine != "festival":
        return synthesise(text, voice)
    program = shutil.which("text2wave")
    if program is None:
        raise EvalError("festival was not found: apt-get install festival festvox-kdlpc16k festvox-kallpc16k")
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "spoken.wav"
        subprocess.run([program, "-eval", f"(voice_{voice.name})", "-o", str(spoken)], input=text.encode(), check=True)
        samples, rate = soundfile.read(spoken, dtype="int16")
    wave = resample(torch.from_numpy(samples.astype(np.float32)), rate, SAMPLE_RATE).numpy()
    return trim_silence(wave.clip(-32768, 32767).astype(np.int16))


def write_audio(path: Path, samples: np.ndarray) -> None:
    """FLAC at half of full scale, with 0.1-0.3 s of near-silence on both sides, as a recording has."""
    rng = random.Random(f"{SEED} {path.name}")
    if not len(samples):
        raise EvalError(f"nothing was synthesised for {path.name}: check that the voice is installed")
    level = samples.astype(np.float64) * (0.5 / max(1, np.abs(samples.astype(np.int32)).max()))
    before, after = (int(rng.uniform(0.1, 0.3) * SAMPLE_RATE) for _ in range(2))
    wave = np.concatenate([np.zeros(before), level, np.zeros(after)])
    wave += np.random.default_rng(rng.getrandbits(32)).normal(0, 2e-4, len(wave))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    soundfile.write(partial, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(path)


def accepted_answers(fact: world.Fact) -> list[str]:
    return list(dict.fromkeys([fact.answer, *fact.aliases]))


def gives_away(fact: world.Fact, question: world.Question) -> bool:
    """Whether repeating the question would already count as a right answer."""
    heard = words(question.text + " " + fact.subject)
    return any(contains_words(heard, words(answer)) for answer in accepted_answers(fact))


@cache
def trained_sentences() -> frozenset[str]:
    """Every question and follow-up of the training split, as words."""
    return frozenset(
        spoken_words(question.text)
        for fact in world.load_facts() for split in ("train", "follow_up") for question in world.questions(fact, split)
    )


def draw_questions(rng: random.Random, per_kind: dict[str, int]) -> list[world.Question]:
    """Held-out phrasings, each of another fact as long as there are enough."""
    drawn = []
    for kind, count in per_kind.items():
        facts = [fact for fact in world.load_facts() if fact.kind == kind]
        rng.shuffle(facts)
        fitting = []
        for fact in facts:
            unheard = [q for q in world.questions(fact, "test")
                       if not gives_away(fact, q) and spoken_words(q.text) not in trained_sentences()]
            if unheard:
                fitting.append(rng.choice(unheard))
        drawn += fitting[:count]
    rng.shuffle(drawn)
    return drawn


def draw_statements(rng: random.Random, count: int) -> list[tuple[world.Fact, str]]:
    """Answer sentences with another fact's answer: in domain, and never said in training."""
    facts = [fact for fact in world.load_facts() if fact.kind != "small talk"]
    true = {world.answer_sentence(fact) for fact in facts}
    frames = world.load_phrasings()["kinds"]
    drawn: dict[str, world.Fact] = {}
    while len(drawn) < count:
        fact, other = rng.choice(facts), rng.choice(facts)
        if fact.kind == other.kind:
            values = {**world.slots(fact), "answer": other.spoken}
            sentence = world.capitalise(frames[fact.kind]["answer"].format(**values))
            if sentence not in true:
                drawn[sentence] = fact
    return [(fact, sentence) for sentence, fact in drawn.items()]


def _voice_fields(voice: Voice) -> dict:
    return {"engine": voice.engine, "voice": voice.name, "rate": round(voice.rate, 4), "pitch": round(voice.pitch, 4)}


class Builder:
    """Collects items and speaks their audio."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.items: list[dict] = []

    def _id(self, task: str, fact: world.Fact, suffix: str = "") -> str:
        stem = re.sub(r"[^a-z0-9]+", "-", f"{task}-{fact.kind}-{fact.subject}{suffix}".lower()).strip("-")
        taken = sum(item["id"] == stem or item["id"].startswith(f"{stem}--") for item in self.items)
        return f"{stem}--{taken + 1}" if taken else stem

    def _say(self, name: str, text: str, voice: Voice) -> None:
        """Speak unless an interrupted build already did."""
        if not (self.out / name).exists():
            write_audio(self.out / name, say(text, voice))

    def heard(self, task: str, fact: world.Fact, text: str, subset: str, voice: Voice, **fields: object) -> None:
        """An item with audio."""
        item_id = self._id(task, fact, " festival" if subset == UNSEEN_ENGINE else "")
        audio = f"audio/{item_id}.flac"
        self._say(audio, text, voice)
        self.items.append({"id": item_id, "task": task, "text": text, "audio": audio, "cluster": fact.key,
                           "subset": subset, **fields, **_voice_fields(voice)})

    def read(self, fact: world.Fact, text: str, **fields: object) -> None:
        """An item to be read aloud, with the reference voice's reading."""
        item_id = self._id("tts", fact)
        reference = f"audio/{item_id}.reference.flac"
        self._say(reference, text, CANONICAL)
        self.items.append({"id": item_id, "task": "tts", "text": text, "reference_audio": reference,
                           "cluster": fact.key, **fields, **_voice_fields(CANONICAL)})


def build(out: Path) -> None:
    """Write suite.json, items.jsonl, judge.gram and the audio into ``out``; judge.dict must be there.

    Audio that is already there is kept: to build with another seed, begin with an empty folder.
    """
    rng = random.Random(SEED)
    builder = Builder(out)

    def question(task: str, subset: str, draw: Callable[[random.Random], Voice], asked: world.Question) -> None:
        fields: dict[str, object] = {"role": "question", "phrasing": asked.phrasing}
        if task == "sqa":
            fields |= {"answers": accepted_answers(asked.fact), "answer_sentence": asked.answer_sentence}
        builder.heard(task, asked.fact, asked.text, subset, draw(rng), **fields)

    main = draw_questions(rng, QUESTIONS_PER_KIND)
    known = round(TRAINING_VOICE_SHARE * len(main))
    for place, asked in enumerate(tqdm(main, desc="sqa")):
        if place < known:
            question("sqa", TRAINING_VOICES, training_voice, asked)
        else:
            question("sqa", HELD_OUT_VOICES, held_out_voice, asked)
    unseen = draw_questions(rng, {kind: -(-count // 3) for kind, count in QUESTIONS_PER_KIND.items()})
    for asked in tqdm(unseen, desc="sqa festival"):
        question("sqa", UNSEEN_ENGINE, festival_voice, asked)

    share = {kind: -(-count // 2) for kind, count in QUESTIONS_PER_KIND.items()}
    heard = draw_questions(rng, share)
    for asked in tqdm(heard[:ASR_QUESTIONS], desc="asr"):
        question("asr", HELD_OUT_VOICES, held_out_voice, asked)
    for asked in heard[ASR_QUESTIONS:ASR_QUESTIONS + ASR_UNSEEN_ENGINE]:
        question("asr", UNSEEN_ENGINE, festival_voice, asked)
    statements = draw_statements(rng, ASR_STATEMENTS + TTS_STATEMENTS)
    for fact, text in statements[:ASR_STATEMENTS]:
        builder.heard("asr", fact, text, HELD_OUT_VOICES, held_out_voice(rng), role="statement")

    for asked in tqdm(draw_questions(rng, share)[:TTS_QUESTIONS], desc="tts"):
        builder.read(asked.fact, asked.text, role="question", phrasing=asked.phrasing)
    for fact, text in statements[ASR_STATEMENTS:]:
        builder.read(fact, text, role="statement")

    (out / "judge.gram").write_text(write_grammar(), encoding="utf-8")
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in builder.items)
    (out / "items.jsonl").write_text(lines, encoding="utf-8")
    head = {
        "name": "nano", "version": VERSION, "seed": SEED, "licence": "Apache-2.0",
        "description": "Held-out phrasings and sentences of nano's world in held-out voices of flite and espeak-ng, "
                       "and in festival voices (subset unseen-engine).",
        "judge": {"grammar": "judge.gram", "pronunciations": "judge.dict"},
    }
    (out / "suite.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SUITES["nano"])
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
