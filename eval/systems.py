"""Systems under test behind one small adapter: a request goes in, a stream of events comes out.

The harness stamps the events with the system's clock, so every system is timed in the same place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal, Protocol

import numpy as np


@dataclass(frozen=True)
class Request:
    """What a system is asked to do.

    Attributes:
        kind: ``transcribe`` the audio, ``speak`` the text, or ``respond`` to the audio.
        audio: mono float32 ``[n]`` in memory, or None.
        sample_rate: Hz of ``audio``.
        text: text to speak, or None.
    """

    kind: Literal["transcribe", "speak", "respond"]
    audio: np.ndarray | None = None
    sample_rate: int = 0
    text: str | None = None


@dataclass(frozen=True)
class TextPiece:
    """Text that became known."""

    text: str


@dataclass(frozen=True)
class AudioPiece:
    """PCM that became playable: mono float32 ``[n]``."""

    samples: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class Done:
    """The end of an answer, with what the system says about itself.

    Attributes:
        text: the whole text.
        tokens: generated tokens of all kinds.
        passes: ``main``, ``mctp`` and ``main_before_first_audio`` forwards, where they exist.
        timings: the system's own milliseconds (``ttft``, ``ttf_audio_token``, ``encode``, ...).
        finish: why it ended.
    """

    text: str
    tokens: int = 0
    passes: dict[str, int | None] = field(default_factory=dict)
    timings: dict[str, float | None] = field(default_factory=dict)
    finish: str = "eos"


Piece = TextPiece | AudioPiece | Done


class System(Protocol):
    """Anything that can be measured."""

    name: str
    clock: Callable[[], float]
    """Seconds, monotonic."""

    def describe(self) -> dict:
        """What identifies it: weights hash, device, precision, decoding settings."""

    def mode(self, name: str) -> dict:
        """``name`` and full settings of a decoding mode; raises a VitaError if there is none."""

    def run(self, request: Request, mode: str) -> Iterator[Piece]:
        """Do it, yielding pieces as they become known and `Done` last."""


HASHED_WHOLE = 2**30
"""Bytes up to which weights are hashed whole; beyond, names, sizes and first MiB of each file."""


def hash_folder(folder: Path) -> str:
    """sha256 over a checkpoint's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".safetensors"))
    whole = sum(path.stat().st_size for path in files) <= HASHED_WHOLE
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
                if not whole:
                    break
    return digest.hexdigest()


class VitaSystem:
    """A checkpoint behind the assistant's public API, decoding greedily.

    Args:
        model: registry name, folder or hub id.
    """

    def __init__(self, model: str) -> None:
        from vita import Sampling, VitaAudio
        from vita.device import limit_threads
        from vita.registry import locate

        self._threads = limit_threads()
        self.name = model
        self.clock = perf_counter
        self._assistant = VitaAudio.from_pretrained(model)
        self._sampling = Sampling(do_sample=False)
        self._weights = hash_folder(locate(model))

    def describe(self) -> dict:
        return {"model": self.name, "weights": self._weights, "device": str(self._assistant.device),
                "threads": self._threads, "sampling": {"do_sample": False}}

    def mode(self, name: str) -> dict:
        return resolve(name)

    def run(self, request: Request, mode: str) -> Iterator[Piece]:
        from vita import AudioChunk, Finished, TextDelta

        settings = {"mode": mode, "sampling": self._sampling}
        if request.kind == "transcribe":
            heard = self._assistant.transcribe((request.audio, request.sample_rate), **settings)
            yield Done(heard.text, len(heard.tokens), dict(heard.passes), dict(heard.timings), heard.finish_reason)
            return
        if request.kind == "speak":
            events = self._assistant.speak_stream(request.text, **settings)
        else:
            events = self._assistant.respond(audio=(request.audio, request.sample_rate), **settings)
        for event in events:
            if isinstance(event, TextDelta):
                yield TextPiece(event.text)
            elif isinstance(event, AudioChunk):
                yield AudioPiece(event.samples, event.sample_rate)
            elif isinstance(event, Finished):
                yield Done(event.text, len(event.tokens), dict(event.passes), dict(event.timings), event.finish_reason)


def resolve(name: str) -> dict:
    """Name and schedule of one of the project's decoding modes."""
    from vita.decoding.modes import resolve_mode

    mode = resolve_mode(name)
    return {"name": mode.name, "pairs": list(mode.pairs)}


def open_system(model: str) -> System:
    """The system of that name; ``fake`` is the harness's own test subject."""
    if model == "fake":
        from eval.fake_system import FakeSystem

        return FakeSystem()
    return VitaSystem(model)
