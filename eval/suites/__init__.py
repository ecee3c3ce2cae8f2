"""Suites: items with their data, read from a folder. A suite knows no model and no metric.

A suite folder holds ``suite.json`` (name, version, judge files), ``items.jsonl`` and the audio it names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import soundfile

from eval.errors import EvalError

BUNDLED = Path(__file__).resolve().parents[2] / "benchmarks_data"
SUITES = {"nano": BUNDLED / "nano" / "suite"}
TASKS = ("asr", "tts", "sqa")
UNSEEN_ENGINE = "unseen-engine"
"""Subset that is reported beside the headline numbers, not in them."""


@dataclass(frozen=True)
class Item:
    """One thing to do.

    Attributes:
        id: unique in the suite.
        task: ``asr``, ``tts`` or ``sqa``.
        text: what is said in the audio (asr, sqa) or to be said (tts).
        audio: file relative to the suite's folder; None for tts.
        reference_audio: the text read by the suite's reference voice (tts), for checks of vocoders.
        answers: accepted answers (sqa).
        answer_sentence: the sentence the reference data answers with (sqa).
        cluster: what the item shares with others (the fact asked for); bootstrap blocks.
        subset: which voices speak it.
        phrasing: id of the question or sentence frame.
        role: kind of sentence, e.g. ``question`` or ``statement``.
        engine, voice, rate, pitch: how the audio was made.
    """

    id: str
    task: str
    text: str
    audio: str | None = None
    reference_audio: str | None = None
    answers: tuple[str, ...] = ()
    answer_sentence: str = ""
    cluster: str = ""
    subset: str = ""
    phrasing: str = ""
    role: str = ""
    engine: str = ""
    voice: str = ""
    rate: float | None = None
    pitch: float | None = None

    @property
    def headline(self) -> bool:
        return self.subset != UNSEEN_ENGINE


@dataclass(frozen=True)
class Suite:
    """Items of one benchmark.

    Attributes:
        fingerprint: sha256 over the items and all their audio, so that no two data sets can be mixed.
        judge: file names of the judge's grammar and pronunciations.
    """

    name: str
    version: int
    folder: Path
    items: tuple[Item, ...]
    fingerprint: str
    judge: dict[str, str] = field(default_factory=dict)

    def load_audio(self, item: Item) -> tuple[np.ndarray, int]:
        """What the system hears: mono float32 ``[n]`` and its sample rate in Hz.

        Raises:
            EvalError: the file is missing or cannot be decoded.
        """
        return self._read(item, item.audio)

    def load_reference(self, item: Item) -> tuple[np.ndarray, int]:
        """The item's text in the reference voice, as `load_audio`."""
        return self._read(item, item.reference_audio)

    def _read(self, item: Item, name: str | None) -> tuple[np.ndarray, int]:
        path = self.folder / str(name)
        try:
            samples, rate = soundfile.read(path, dtype="float32")
        except (OSError, soundfile.SoundFileError) as error:
            raise EvalError(f"audio of item {item.id} cannot be read ({path}: {error}): restore the suite's files"
                            ) from None
        return samples, rate

    def input_hash(self, item: Item) -> str:
        """Changes with anything the system under test gets to see."""
        digest = hashlib.sha256(item.text.encode() if item.audio is None else b"")
        if item.audio is not None:
            digest.update(_read_bytes(self.folder / item.audio, item.id))
        return digest.hexdigest()


def _read_bytes(path: Path, item_id: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise EvalError(f"audio of item {item_id} is missing ({path}): restore the suite's files") from None


def _parse_item(row: dict, where: str) -> Item:
    known = {f.name for f in fields(Item)}
    unknown = sorted(set(row) - known)
    if unknown or not {"id", "task", "text"} <= set(row):
        raise EvalError(f"{where}: " + (f"unknown field {unknown[0]!r}" if unknown else 'needs "id", "task", "text"'))
    if row["task"] not in TASKS:
        raise EvalError(f"{where}: unknown task {row['task']!r}; known: {', '.join(TASKS)}")
    if row["task"] != "tts" and not row.get("audio"):
        raise EvalError(f"{where}: task {row['task']} needs audio")
    if row["task"] == "sqa" and not row.get("answers"):
        raise EvalError(f"{where}: task sqa needs answers")
    return Item(**{**row, "answers": tuple(row.get("answers", ()))})


def read_suite(folder: Path) -> Suite:
    """The suite of a folder.

    Raises:
        EvalError: wrong layout, broken line, duplicate id, missing audio.
    """
    try:
        head = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
        raw = (folder / "items.jsonl").read_bytes()
    except (OSError, ValueError) as error:
        raise EvalError(f"{folder} is not a suite ({error}): it needs suite.json and items.jsonl") from None
    digest = hashlib.sha256(raw)
    items: dict[str, Item] = {}
    for number, line in enumerate(raw.decode("utf-8").splitlines(), start=1):
        where = f"{folder / 'items.jsonl'}:{number}"
        try:
            row = json.loads(line)
        except ValueError:
            raise EvalError(f"{where}: not a JSON object") from None
        item = _parse_item(row, where)
        if item.id in items:
            raise EvalError(f"{where}: id {item.id!r} appears twice; ids must be unique")
        items[item.id] = item
        for audio in filter(None, (item.audio, item.reference_audio)):
            digest.update(hashlib.sha256(_read_bytes(folder / audio, item.id)).digest())
    if not items:
        raise EvalError(f"{folder / 'items.jsonl'} holds no items")
    return Suite(head["name"], head["version"], folder, tuple(items.values()), digest.hexdigest(),
                 head.get("judge", {}))


def load_suite(name: str) -> Suite:
    """A bundled suite by name, or the suite of a folder.

    Raises:
        EvalError: neither a known name nor a suite folder.
    """
    if name in SUITES:
        return read_suite(SUITES[name])
    if Path(name).is_dir():
        return read_suite(Path(name))
    raise EvalError(f"unknown suite {name!r}; known: {', '.join(SUITES)}, or give a suite's folder")
