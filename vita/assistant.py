"""The assistant: one model that listens, answers, transcribes and reads aloud.

Composes prompt, decoding engine, answer parser and vocoder into a stream of events. Holds no state of
any conversation, so one assistant serves any number of streams at once; a stream's state lives in its
generator and is gone when that ends or is closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from vita.answer_parser import AnswerParser, AudioGroup
from vita.checkpoint import Checkpoint, open_checkpoint
from vita.decoding.engine import DecodedToken, decode
from vita.decoding.modes import DecodingMode, resolve_mode
from vita.decoding.sampling import Sampling
from vita.errors import TextInputError, VitaError
from vita.events import AudioChunk, Event, Finished, FinishReason, Passes, Speech, TextDelta, TokenTrace, Transcript
from vita.model.placement import DeviceMap
from vita.prompts import History, Prompt, PromptBuilder, Turn, check_text
from vita.registry import DEFAULT_MODEL
from vita.speech import audio_io
from vita.speech.audio_io import AudioSource
from vita.speech.parts import HeardAudio
from vita.timing import TurnClock

Mode = str | list[int] | DecodingMode
_OWNERS = count(1)
_ROOM_FOR_AN_ANSWER = 64
"""Tokens a prompt must leave free in the model's context."""


@dataclass(frozen=True, slots=True)
class _Request:
    """An accepted request: everything is checked, nothing is generated yet."""

    prompt: Prompt
    mode: DecodingMode
    sampling: Sampling
    max_new_tokens: int
    clock: TurnClock


class VitaAudio:
    """An opened checkpoint, ready to talk. Make it with :meth:`from_pretrained`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._prompts = PromptBuilder(checkpoint.vocabulary, checkpoint.system)
        self._owner = next(_OWNERS)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike = DEFAULT_MODEL,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        device_map: DeviceMap = None,
    ) -> VitaAudio:
        """Open a model.

        Args:
            name: a name of ``python -m vita models``, the folder of a checkpoint, or a hub id.
            device: ``cpu``, ``cuda``, ``cuda:1``; None takes the GPU if there is one.
            dtype: precision; None leaves the choice to the checkpoint.
            device_map: "auto" spreads the language model over all GPUs; or parameter-name prefixes to devices.
        Raises:
            CheckpointError: it is unknown, missing, damaged or cannot run here.
        """
        return cls(open_checkpoint(name, device, dtype, device_map))

    @property
    def name(self) -> str:
        """The name or folder it was opened by."""
        return self._checkpoint.name

    @property
    def device(self) -> torch.device:
        return self._checkpoint.model.embed_tokens.weight.device

    @property
    def sample_rate(self) -> int:
        """Hz of the speech it produces."""
        return self._checkpoint.speech.vocoder.sample_rate

    @property
    def max_audio_seconds(self) -> float | None:
        """Longest recording it understands."""
        return self._checkpoint.speech.input.max_seconds

    def respond(
        self,
        audio: AudioSource | None = None,
        text: str | None = None,
        mode: Mode = "boost",
        history: History | None = None,
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        voice: AudioSource | None = None,
    ) -> Iterator[Event]:
        """Answer what a user said or typed, in text and speech, while it is being generated.

        The request is checked when this is called; the answer is generated as the events are read.

        Args:
            audio: ``(samples, sample rate)`` or the path of a file; give this or ``text``.
            text: what the user typed.
            mode: decoding mode: a name, or a list of main and MCTP counts.
            history: ``Finished.history`` of the turn before; None starts a new conversation.
            sampling: how tokens are chosen; None as the checkpoint says.
            max_new_tokens: where to cut an answer that does not end; None as the checkpoint says.
            voice: a recording whose voice is to answer; only models trained on voice prompts take one.
        Returns:
            A generator of TextDelta and AudioChunk events and one Finished at the end. Close it to stop early.
        Raises:
            AudioError, TextInputError, ModeError: what was given cannot be used.
        """
        history = self._own(history)
        resolved = resolve_mode(mode)
        if (audio is None) == (text is None):
            raise TextInputError("nothing, or both audio and text, was given: give one of the two")
        speaker = self._hear_voice(voice)
        user: HeardAudio | str
        if audio is not None:
            clock, user = self._hear(audio)
        else:
            user, clock = check_text(text), TurnClock()
        with clock.work("encode"):
            prompt = self._fit(user, history, speaker)
        request = self._accept(prompt, resolved, sampling, max_new_tokens, clock)
        return self._answer(request, user, history)

    def transcribe(
        self,
        audio: AudioSource,
        mode: Mode = "vanilla",
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
    ) -> Transcript:
        """Write down what is said in a recording. Arguments and errors as in :meth:`respond`."""
        resolved = resolve_mode(mode)
        clock, heard = self._hear(audio)
        with clock.work("encode"):
            prompt = self._prompts.transcription(heard)
        request = self._accept(prompt, resolved, sampling, max_new_tokens, clock)
        finished = _last(self._answer(request, heard, self._own(None)))
        return Transcript(
            text=finished.text.strip(),
            mode=finished.mode,
            timings=finished.timings,
            passes=finished.passes,
            tokens=finished.tokens,
            audio_seconds=heard.seconds,
            finish_reason=finished.finish_reason,
        )

    def speak_stream(
        self,
        text: str,
        mode: Mode = "boost",
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        voice: AudioSource | None = None,
    ) -> Iterator[Event]:
        """Read a text aloud; events, arguments and errors as in :meth:`respond`."""
        resolved = resolve_mode(mode)
        text, speaker, clock = check_text(text), self._hear_voice(voice), TurnClock()
        with clock.work("encode"):
            prompt = self._prompts.reading(text, speaker)
        request = self._accept(prompt, resolved, sampling, max_new_tokens, clock)
        return self._answer(request, text, self._own(None))

    def speak(
        self,
        text: str,
        mode: Mode = "boost",
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        voice: AudioSource | None = None,
    ) -> Speech:
        """Read a text aloud, the whole of it at once. Arguments and errors as in :meth:`respond`."""
        chunks = [np.zeros(0, np.float32)]
        for event in self.speak_stream(text, mode, sampling, max_new_tokens, voice):
            if isinstance(event, AudioChunk):
                chunks.append(event.samples)
            elif isinstance(event, Finished):
                finished = event
        return Speech(
            samples=np.concatenate(chunks),
            sample_rate=self.sample_rate,
            text=text,
            mode=finished.mode,
            timings=finished.timings,
            passes=finished.passes,
            tokens=finished.tokens,
            audio_seconds=finished.audio_seconds,
            finish_reason=finished.finish_reason,
        )

    def warm_up(self) -> None:
        """Touch everything a first answer needs, so that the first user does not wait for it."""
        noise = np.random.default_rng(0).normal(0.0, 0.01, self._checkpoint.speech.input.sample_rate)
        for _ in self.respond(audio=(noise, self._checkpoint.speech.input.sample_rate), max_new_tokens=24):
            pass
        stream = self._checkpoint.speech.vocoder.stream()
        stream.push([0] * 8)
        stream.push([], final=True)

    def _own(self, history: History | None) -> History:
        if history is None:
            return History(owner=self._owner)
        if not isinstance(history, History) or history.owner != self._owner:
            raise VitaError("the history belongs to another model: start a new conversation (history=None)")
        return history

    def _hear(self, audio: AudioSource) -> tuple[TurnClock, HeardAudio]:
        """Start the clock with the recording in memory, and encode it."""
        parts = self._checkpoint.speech.input
        name = audio_io.describe(audio)
        if isinstance(audio, str | os.PathLike):
            audio = audio_io.read_file(audio, max_seconds=parts.max_seconds)
        clock = TurnClock()
        with clock.work("encode"):
            samples = audio_io.prepare(
                audio, parts.sample_rate, max_seconds=parts.max_seconds, channel=parts.channel, name=name
            )
            return clock, parts.hear(samples)

    def _hear_voice(self, voice: AudioSource | None) -> HeardAudio | None:
        """The recording whose voice is wanted, encoded; before the clock of the request starts."""
        if voice is None:
            return None
        if not self._checkpoint.speech.input.takes_voice_prompts:
            raise VitaError(
                f"'{self.name}' has one voice and takes no voice prompt: leave it out, or use VITA-Audio-Boost or "
                "VITA-Audio-Balance"
            )
        return self._hear(voice)[1]

    def _fit(self, user: str | HeardAudio, history: History, voice: HeardAudio | None) -> Prompt:
        """The prompt with as many remembered turns as the model's context holds."""
        while True:
            prompt = self._prompts.conversation(user, history, voice)
            if not history.turns or len(prompt.ids) + _ROOM_FOR_AN_ANSWER <= self._context:
                return prompt
            history = History(history.turns[1:], history.owner)

    @property
    def _context(self) -> int:
        return self._checkpoint.model.config.max_position_embeddings

    def _accept(
        self,
        prompt: Prompt,
        mode: DecodingMode,
        sampling: Sampling | None,
        max_new_tokens: int | None,
        clock: TurnClock,
    ) -> _Request:
        room = self._context - len(prompt.ids)
        if room < _ROOM_FOR_AN_ANSWER:
            raise TextInputError(
                f"the question takes {len(prompt.ids)} of the model's {self._context} tokens: make it shorter"
            )
        limit = self._checkpoint.max_new_tokens if max_new_tokens is None else max_new_tokens
        if limit < 1:
            raise VitaError(f"max_new_tokens is {limit}: give at least 1")
        return _Request(prompt, mode, sampling or self._checkpoint.sampling, min(limit, room), clock)

    def _answer(self, request: _Request, user: str | HeardAudio, history: History) -> Iterator[Event]:
        """Run one accepted request to its end."""
        clock = request.clock
        parser = AnswerParser(self._checkpoint.vocabulary)
        voice = self._checkpoint.speech.vocoder.stream()
        tokens: list[TokenTrace] = []
        text: list[str] = []
        samples, main_before_first_audio = 0, None

        def sound(indices: list[int], traces: list[TokenTrace], final: bool = False) -> Iterator[AudioChunk]:
            nonlocal samples, main_before_first_audio
            with clock.work("vocode"):
                pcm = np.clip(voice.push(indices, final=final), -1.0, 1.0)
            if not len(pcm):
                return
            clock.mark("ttfc")
            passes = tokens[-1].main_passes
            if main_before_first_audio is None:
                main_before_first_audio = passes
            samples += len(pcm)
            yield AudioChunk(pcm, self.sample_rate, traces, clock.now(), passes)

        def show(parts: list[TextDelta | AudioGroup]) -> Iterator[Event]:
            for part in parts:
                if isinstance(part, AudioGroup):
                    yield from sound(part.indices, part.tokens)
                else:
                    text.append(part.text)
                    yield part

        for token in self._tokens(request):
            tokens.append(token)
            yield from show(parser.feed(token))
        yield from show(parser.finish())
        if any(token.kind == "audio" for token in tokens):
            yield from sound([], [], final=True)

        answer = "".join(text)
        last = tokens[-1]
        reason: FinishReason = "eos" if last.id in self._checkpoint.eos_ids else "length"
        yield Finished(
            text=answer,
            mode=request.mode.name,
            timings=clock.timings(),
            passes=Passes(
                main=last.main_passes, mctp=last.mctp_passes, main_before_first_audio=main_before_first_audio
            ),
            tokens=tokens,
            audio_seconds=samples / self.sample_rate,
            history=history.with_turn(Turn(user, answer.strip()), self._checkpoint.context_turns),
            finish_reason=reason,
        )

    def _tokens(self, request: _Request) -> Iterator[TokenTrace]:
        """The tokens of the answer, timed; the time between them belongs to whoever reads them."""
        checkpoint, clock = self._checkpoint, request.clock
        vocabulary = checkpoint.vocabulary
        engine = decode(
            checkpoint.model,
            request.prompt.ids,
            request.mode,
            audio_rows=request.prompt.audio_rows,
            sampling=request.sampling,
            eos_ids=checkpoint.eos_ids,
            max_new_tokens=request.max_new_tokens,
        )
        try:
            while True:
                with clock.work("decode" if clock.marked("ttft") else "prefill"):
                    token: DecodedToken | None = next(engine, None)
                if token is None:
                    return
                clock.mark("ttft")
                kind = vocabulary.kind(token.id)
                if kind == "audio":
                    clock.mark("ttf_audio_token")
                yield TokenTrace(
                    id=token.id,
                    text=vocabulary.decode([token.id]),
                    kind=kind,
                    level=token.level,
                    main_passes=token.main_passes,
                    mctp_passes=token.mctp_passes,
                    at_ms=clock.now(),
                )
        finally:
            engine.close()


def _last(events: Iterator[Event]) -> Finished:
    """Run an answer to its end for its last event alone."""
    for event in events:
        last = event
    return last
