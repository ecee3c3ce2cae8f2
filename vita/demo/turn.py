"""One turn of the conversation: the assistant works in a thread, the page is told in batches.

The thread keeps the model at its own pace, however slow the way to the page is. Closing the generator (the
visitor pressed stop, left, or lost the connection) stops the model at its next event and waits for it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from vita.demo import response_events
from vita.demo.response_events import ResponseEvent
from vita.errors import TextInputError, VitaError
from vita.events import AudioChunk, Event, Finished, TextDelta

if TYPE_CHECKING:
    from vita import VitaAudio
    from vita.prompts import History

log = logging.getLogger(__name__)

T = TypeVar("T")

UNEXPECTED = "Something went wrong inside the server. The conversation is kept: please ask again."


@dataclass(frozen=True, slots=True)
class Question:
    """What a visitor asks: a recording (path) or a text; the recording counts if both are given."""

    audio: str | None
    text: str | None
    mode: str


def stream_turn(
    assistant: VitaAudio, question: Question, history: History | None
) -> Iterator[tuple[list[ResponseEvent], History | None]]:
    """Answer one question; yields the new events and the history to keep.

    The history changes with the last batch of a complete answer and only then: a stopped or failed turn
    leaves the conversation as it was. Errors become an ``error`` event, never an exception.
    """
    try:
        with closing(InThread(lambda: respond(assistant, question, history))) as batches:
            yield [response_events.created(question.mode)], history
            for batch in batches:
                last = batch[-1]
                kept = last.history if isinstance(last, Finished) else history
                yield [describe(event) for event in batch], kept
    except VitaError as problem:
        yield [response_events.error(str(problem))], history
    except Exception:
        log.exception("a turn failed")
        yield [response_events.error(UNEXPECTED)], history


def respond(assistant: VitaAudio, question: Question, history: History | None) -> Iterator[Event]:
    """The assistant's events for a question, whichever way it was asked.

    Raises:
        TextInputError: there is neither a recording nor a text.
    """
    if question.audio:
        return assistant.respond(audio=question.audio, mode=question.mode, history=history)
    if not question.text or not question.text.strip():
        raise TextInputError("No question was given: record one, upload a file or type a text.")
    return assistant.respond(text=question.text, mode=question.mode, history=history)


def describe(event: Event) -> ResponseEvent:
    """An assistant event as the browser gets it."""
    match event:
        case TextDelta():
            return response_events.text_delta(event)
        case AudioChunk():
            return response_events.audio_delta(event)
        case Finished():
            return response_events.done(event)
    raise TypeError(f"not an event of an answer: {event!r}")


class InThread(Iterator[list[T]]):
    """An iterator that runs ahead in a thread of its own, from now on; each step gives what has come since.

    An exception of the iterator is raised here after the items before it. ``close`` closes the iterator at
    its next item and returns when its thread has ended; use it in every case.
    """

    def __init__(self, start: Callable[[], Iterator[T]]) -> None:
        self._start = start
        self._items: queue.SimpleQueue[T | BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._running = True
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="turn", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            source = self._start()
            try:
                for item in source:
                    self._items.put(item)
                    if self._stopped.is_set():
                        break
            finally:
                close = getattr(source, "close", None)
                if close is not None:
                    close()
            self._items.put(None)
        except BaseException as problem:  # raised again where the items are read
            self._items.put(problem)

    def __next__(self) -> list[T]:
        batch: list[T] = []
        while self._running and not (batch and self._items.empty()):
            item = self._items.get()
            if item is None or isinstance(item, BaseException):
                self._running, self._failure = False, item
            else:
                batch.append(item)
        if batch:
            return batch
        failure, self._failure = self._failure, None
        raise StopIteration if failure is None else failure

    def close(self) -> None:
        """Stop the iterator and wait for its thread."""
        self._stopped.set()
        self._thread.join()
