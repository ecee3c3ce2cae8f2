"""What programs may call: ``/ask``, ``/transcribe`` and ``/speak``. The two tabs of these names use them too.

Each function takes and returns plain values; errors reach the caller as ``gr.Error`` with one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from vita.demo.response_events import int16, metrics
from vita.demo.turn import UNEXPECTED, Question, respond
from vita.errors import AudioError, VitaError
from vita.events import AudioChunk, Finished, Speech, Transcript

if TYPE_CHECKING:
    from vita import VitaAudio

log = logging.getLogger(__name__)

Sound = tuple[int, np.ndarray]
"""(sample rate in Hz, int16 samples ``[n]``), what ``gr.Audio`` turns into a WAV file."""


@contextmanager
def reported() -> Iterator[None]:
    """Whatever goes wrong inside becomes a ``gr.Error`` of one line."""
    try:
        yield
    except VitaError as problem:
        raise gr.Error(str(problem), print_exception=False) from problem
    except gr.Error:
        raise
    except Exception as problem:
        log.exception("a request failed")
        raise gr.Error(UNEXPECTED, print_exception=False) from problem


def numbers(result: Finished | Transcript | Speech) -> dict[str, Any]:
    """The ``metrics`` of any result of the assistant."""
    return metrics(
        result.text, result.mode, result.timings, result.passes, result.tokens, result.audio_seconds
    )


def sound(samples: np.ndarray, sample_rate: int) -> Sound | None:
    """Float samples ``[n]`` as ``gr.Audio`` takes them; None when there are none."""
    return (sample_rate, int16(samples)) if len(samples) else None


def build(assistant: VitaAudio) -> tuple[Callable, Callable, Callable]:
    """The three functions ``(ask, transcribe, speak)``, bound to an assistant."""

    def ask(
        audio: str | None = None, text: str | None = None, mode: str = "boost"
    ) -> tuple[str, Sound | None, dict[str, Any]]:
        """Ask one question, spoken or typed, and get the whole answer at once.

        Every call is a conversation of its own.

        Args:
            audio: Recording of the question: WAV, FLAC or Ogg file, any sample rate, or None.
            text: The question as text; used when there is no recording.
            mode: Decoding mode: vanilla, balance, boost or turbo.

        Returns:
            answer: The answer as text.
            speech: The answer as a WAV file, None if the model said nothing.
            metrics: Times in ms, forward passes, token counts, audio seconds, real-time factor.
        """
        with reported():
            chunks: list[AudioChunk] = []
            finished: Finished | None = None
            for event in respond(assistant, Question(audio, text, mode), None):
                if isinstance(event, AudioChunk):
                    chunks.append(event)
                elif isinstance(event, Finished):
                    finished = event
            if finished is None:
                raise RuntimeError("the assistant ended an answer without its Finished event")
            samples = np.concatenate([chunk.samples for chunk in chunks]) if chunks else np.zeros(0)
            return finished.text, sound(samples, assistant.sample_rate), numbers(finished)

    def transcribe(audio: str | None = None, mode: str = "vanilla") -> tuple[str, dict[str, Any]]:
        """Write down what is said in a recording.

        Args:
            audio: The recording: WAV, FLAC or Ogg file, any sample rate.
            mode: Decoding mode: vanilla, balance, boost or turbo.

        Returns:
            transcript: The words.
            metrics: Times in ms, forward passes, token counts, length of the recording in seconds.
        """
        with reported():
            if not audio:
                raise AudioError("No recording was given: record one or upload a file.")
            result = assistant.transcribe(audio, mode=mode)
            return result.text, numbers(result)

    def speak(text: str | None = None, mode: str = "boost") -> tuple[Sound | None, dict[str, Any]]:
        """Speak a text.

        Args:
            text: What is to be said.
            mode: Decoding mode: vanilla, balance, boost or turbo.

        Returns:
            speech: The spoken text as a WAV file, None if the model said nothing.
            metrics: Times in ms, forward passes, token counts, audio seconds, real-time factor.
        """
        with reported():
            result = assistant.speak(text or "", mode=mode)
            return sound(result.samples, result.sample_rate), numbers(result)

    return ask, transcribe, speak
