"""A deterministic assistant with the public API of `VitaAudio` and no model: an echo with a tone for a voice.

An answer names the mode, the number of the turn and what was asked, so a test can see in the page which mode
was used, that the history came along, and that nobody reads somebody else's answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import soundfile

from vita.errors import AudioError, TextInputError
from vita.events import AudioChunk, Event, Finished, Passes, Speech, TextDelta, Timings, TokenTrace, Transcript

SAMPLE_RATE = 16_000
TOKEN_SAMPLES = 1280
TOKENS_PER_CHUNK = 8
MCTP_MODULES = {"vanilla": 0, "balance": 4, "boost": 10, "turbo": 10}


@dataclass(frozen=True)
class FakeHistory:
    turns: tuple[str, ...] = ()


@dataclass
class FakeAssistant:
    """``real_time_factor`` is how long an answer takes per second of its speech; 0 does not wait at all."""

    real_time_factor: float = 0.4
    speaking: int = 0
    """Answers being made right now; back to 0 when every generator was closed."""
    finished: list[Finished] = field(default_factory=list)

    sample_rate = SAMPLE_RATE

    def warm_up(self) -> None:
        """Nothing is cold here."""

    def respond(self, audio=None, text=None, mode="boost", history=None, sampling=None,
                max_new_tokens=None) -> Iterator[Event]:
        if audio is not None:
            heard = f"{len(self._load(audio)) / SAMPLE_RATE:.1f} seconds of sound"
        elif text is None or not text.strip():
            raise TextInputError("The text is empty: type a question.")
        else:
            heard = text.strip()
        return self._stream(heard, mode, history or FakeHistory())

    def _stream(self, heard: str, mode: str, history: FakeHistory) -> Iterator[Event]:
        self.speaking += 1
        try:
            yield from self._answer(heard, mode, history)
        finally:
            self.speaking -= 1

    def _answer(self, heard: str, mode: str, history: FakeHistory) -> Iterator[Event]:
        started = time.monotonic()
        turn = len(history.turns) + 1
        words = f"{mode} turn {turn}: you said {heard}".split(" ")
        chunks = 20 if "long" in heard else 4
        words += ["and", "so", "on"] * (chunks - 4)
        modules = MCTP_MODULES[mode]
        tokens: list[TokenTrace] = []
        counts = {"main": 1, "mctp": 0}

        def token(text: str, kind: str) -> TokenTrace:
            level = len(tokens) % (modules + 1)
            counts["main" if level == 0 else "mctp"] += 1
            trace = TokenTrace(len(tokens), text, kind, level, counts["main"], counts["mctp"], now())
            tokens.append(trace)
            return trace

        def now() -> float:
            return (time.monotonic() - started) * 1000

        first_chunk: float | None = None
        before_first = None
        per_chunk = max(1, -(-len(words) // chunks))
        pitch = 220.0 + 20 * (sum(heard.encode()) % 20)
        for index in range(chunks):
            for word in words[index * per_chunk : (index + 1) * per_chunk]:
                piece = word if not tokens else f" {word}"
                yield TextDelta(piece, [token(piece, "text")])
            if "explode" in heard and index == 1:
                raise RuntimeError("the fake model was asked to explode")
            self._work(TOKENS_PER_CHUNK * TOKEN_SAMPLES / SAMPLE_RATE)
            traces = [token(f"<|audio_{i}|>", "audio") for i in range(TOKENS_PER_CHUNK)]
            if first_chunk is None:
                first_chunk, before_first = now(), counts["main"]
            yield AudioChunk(tone(index, pitch), SAMPLE_RATE, traces, now(), counts["main"])
        text = "".join(trace.text for trace in tokens if trace.kind == "text")
        result = Finished(
            text=text,
            mode=mode,
            timings=timings(first_chunk, now()),
            passes=Passes(main=counts["main"], mctp=counts["mctp"], main_before_first_audio=before_first),
            tokens=tokens,
            audio_seconds=chunks * TOKENS_PER_CHUNK * TOKEN_SAMPLES / SAMPLE_RATE,
            history=FakeHistory((*history.turns, heard)),
            finish_reason="eos",
        )
        self.finished.append(result)
        yield result

    def transcribe(self, audio, mode="vanilla") -> Transcript:
        seconds = len(self._load(audio)) / SAMPLE_RATE
        return Transcript(
            text=f"{seconds:.1f} seconds of sound", mode=mode, timings=timings(None, 5.0),
            passes=Passes(main=3, mctp=0, main_before_first_audio=None),
            tokens=[TokenTrace(0, "sound", "text", 0, 1, 0, 1.0)], audio_seconds=seconds, finish_reason="eos",
        )

    def speak(self, text, mode="boost") -> Speech:
        if not text.strip():
            raise TextInputError("The text is empty: type what is to be said.")
        if text == "explode":
            raise RuntimeError("the fake model was asked to explode")
        samples = np.concatenate([tone(index, 330.0) for index in range(2)])
        return Speech(
            samples=samples, sample_rate=SAMPLE_RATE, text=text, mode=mode, timings=timings(3.0, 9.0),
            passes=Passes(main=2, mctp=20, main_before_first_audio=1),
            tokens=[TokenTrace(i, f"<|audio_{i}|>", "audio", i % 11, 1, i, 1.0) for i in range(16)],
            audio_seconds=len(samples) / SAMPLE_RATE, finish_reason="eos",
        )

    def _work(self, speech_seconds: float) -> None:
        if self.real_time_factor:
            time.sleep(speech_seconds * self.real_time_factor)

    @staticmethod
    def _load(audio) -> np.ndarray:
        if isinstance(audio, tuple):
            return audio[0]
        try:
            samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as problem:
            raise AudioError("The file is not audio: give a WAV, FLAC or Ogg file.") from problem
        if len(samples) < 0.05 * rate:
            raise AudioError("The recording is empty: record at least a tenth of a second.")
        return samples[:, 0][:: max(1, round(rate / SAMPLE_RATE))]


def tone(chunk: int, pitch: float) -> np.ndarray:
    """One chunk of a continuous tone with a syllable-like swell, float32."""
    count = TOKENS_PER_CHUNK * TOKEN_SAMPLES
    time_axis = (chunk * count + np.arange(count)) / SAMPLE_RATE
    swell = 0.15 + 0.85 * np.abs(np.sin(2 * np.pi * 2.1 * time_axis))
    return (0.25 * swell * np.sin(2 * np.pi * pitch * time_axis)).astype(np.float32)


def timings(first_chunk: float | None, total: float) -> Timings:
    return Timings(
        ttft=min(40.0, total * 0.2), ttf_audio_token=first_chunk and first_chunk * 0.8, ttfc=first_chunk,
        total=total, encode=min(12.0, total * 0.05), prefill=min(28.0, total * 0.1), decode=total * 0.6,
        vocode=total * 0.1,
    )
