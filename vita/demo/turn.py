"""One turn of the conversation: the assistant works in a thread, the page is told in batches.

The thread keeps the model at its own pace, however slow the way to the page is. Closing the generator (the
visitor pressed stop, left, or lost the connection) stops the model at its next event and waits for it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
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
    yield [response_events.created(question.mode)], history
    try:
        for batch in in_thread(lambda: respond(assistant, question, history)):
            last = batch[-1]
            yield [describe(event) for event in batch], last.history if isinstance(last, Finished) else history
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


def in_thread(start: Callable[[], Iterator[T]]) -> Iterator[list[T]]:
    """Run an iterator in its own thread; yields what has come since the last time, at least one item.

    An exception of the iterator is raised here after the items before it. When this generator is closed
    the iterator is closed too, and this returns only when its thread has ended.
    """
    items: queue.SimpleQueue[T | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        try:
            source = start()
            try:
                for item in source:
                    items.put(item)
                    if stopped.is_set():
                        break
            finally:
                close = getattr(source, "close", None)
                if close is not None:
                    close()
            items.put(None)
        except BaseException as problem:  # raised again where the items are read
            items.put(problem)

    worker = threading.Thread(target=work, name="turn", daemon=True)
    worker.start()
    try:
        end: BaseException | None = None
        running = True
        while running:
            arrived = [items.get()]
            while not items.empty():
                arrived.append(items.get())
            batch: list[T] = []
            for item in arrived:
                if item is None:
                    running = False
                elif isinstance(item, BaseException):
                    running, end = False, item
                else:
                    batch.append(item)
            if batch:
                yield batch
        if end is not None:
            raise end
    finally:
        stopped.set()
        worker.join()
