"""One turn without a browser: events, history, errors, and what happens when nobody listens any more."""

from __future__ import annotations

import base64
import threading
import time

import numpy as np
import pytest

from tests.demo.fake_assistant import FakeAssistant, FakeHistory
from vita.demo.response_events import EventLog, int16
from vita.demo.turn import UNEXPECTED, InThread, Question, stream_turn


@pytest.fixture
def fake() -> FakeAssistant:
    return FakeAssistant(real_time_factor=0.0)


def run(fake: FakeAssistant, text: str | None, mode: str = "boost", history: FakeHistory | None = None):
    """All events of a turn, and the history after it."""
    batches = list(stream_turn(fake, Question(None, text, mode), history))
    return [event for events, _ in batches for event in events], batches[-1][1]


def test_a_turn_is_created_streamed_and_done(fake):
    events, history = run(fake, "hello")
    kinds = [event["type"] for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.done"
    assert kinds.index("response.output_audio.delta") < len(kinds) - 2
    text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert text == events[-1]["text"] == "boost turn 1: you said hello"
    assert history == FakeHistory(("hello",))


def test_sound_travels_as_int16_without_normalisation(fake):
    events, _ = run(fake, "hello")
    pieces = [
        np.frombuffer(base64.b64decode(e["delta"]), "<i2")
        for e in events
        if e["type"] == "response.output_audio.delta"
    ]
    pcm = np.concatenate(pieces)
    assert len(pcm) == events[-1]["audio_seconds"] * 16_000
    assert 0.2 * 32767 < np.abs(pcm).max() <= 0.25 * 32767 + 1


def test_int16_clips_and_rounds():
    assert int16(np.array([0.0, 1.0, -1.0, 1.7, -3.0, 0.5])).tolist() == [0, 32767, -32767, 32767, -32767, 16384]


def test_numbers_of_the_answer(fake):
    done = run(fake, "hello", "vanilla")[0][-1]
    assert done["mode"] == "vanilla"
    assert done["passes"]["mctp"] == 0
    assert done["tokens"] == {"text": 6, "audio": 32, "control": 0}
    assert done["rtf"] == pytest.approx(done["timings"]["total"] / 1000 / 2.56, abs=1e-3)


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_nothing_asked_is_an_error_event(fake, text):
    events, history = run(fake, text)
    assert [event["type"] for event in events] == ["response.created", "error"]
    assert "record" in events[1]["message"]
    assert history is None


def test_a_crash_is_told_in_general_words_after_what_came_before_it(fake, caplog):
    before = FakeHistory(("earlier",))
    events, history = run(fake, "explode", history=before)
    assert events[-1] == {"type": "error", "message": UNEXPECTED}
    assert any(event["type"] == "response.output_audio.delta" for event in events)
    assert history is before
    assert "asked to explode" in caplog.text  # the log has the cause


def test_closing_a_turn_stops_the_model_before_it_returns():
    fake = FakeAssistant(real_time_factor=0.05)
    turn = stream_turn(fake, Question(None, "a long question", "boost"), None)
    next(turn), next(turn)
    assert fake.speaking == 1
    turn.close()
    assert fake.speaking == 0
    assert fake.finished == []


def test_the_model_is_not_slowed_down_by_a_slow_reader():
    ready = threading.Event()

    def model():
        yield from range(50)
        ready.set()

    batches = InThread(model)
    first = next(batches)
    assert ready.wait(5), "the model waited for its reader"
    time.sleep(0.05)
    assert first + [item for batch in batches for item in batch] == list(range(50))
    batches.close()


def test_the_model_starts_before_the_page_asks_for_more():
    fake = FakeAssistant(real_time_factor=0.0)
    turn = stream_turn(fake, Question(None, "hello", "boost"), None)
    assert next(turn)[0] == [{"type": "response.created", "mode": "boost"}]
    deadline = time.monotonic() + 10
    while not fake.finished and time.monotonic() < deadline:
        time.sleep(0.005)
    assert fake.finished, "the model waited for the page to take the first event"
    turn.close()


def test_log_grows_by_appending_only_and_numbers_its_lines():
    log = EventLog("t")
    first = log.append([{"type": "a"}])
    second = log.append([{"type": "b"}, {"type": "c"}])
    assert second.startswith(first)
    assert second.splitlines()[2] == '{"turn": "t", "seq": 2, "type": "c"}'


def test_a_long_log_forgets_its_oldest_lines_but_never_a_new_one():
    log = EventLog("t", max_chars=2000, keep_chars=400)
    seen: set[int] = set()
    for number in range(200):
        value = log.append([{"type": "x", "n": number}])
        assert len(value) <= 2000
        seen |= {int(line.split('"n": ')[1].rstrip("}")) for line in value.splitlines()}
        assert value.splitlines()[-1].endswith(f'"n": {number}}}')
    assert seen == set(range(200))
    assert len(log.append([{"type": "y", "pad": "z" * 3000}]).splitlines()) == 1


def test_a_page_that_misses_values_still_finds_every_event():
    log = EventLog("t", max_chars=2000, keep_chars=600)
    seen: set[int] = set()
    for number in range(300):
        value = log.append([{"type": "x", "n": number}])
        if number % 5 == 4 or number == 299:  # four of five values are never painted
            seen |= {int(line.split('"n": ')[1].rstrip("}")) for line in value.splitlines()}
    assert seen == set(range(300))
