"""The page in a real browser, with the fake assistant behind it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.demo.fake_assistant import FakeAssistant
from vita.demo.page import EXAMPLES
from vita.demo.turn import UNEXPECTED

pytestmark = pytest.mark.browser


def wait_until_silent(fake: FakeAssistant, seconds: float = 20.0) -> None:
    """Until the fake model makes no answer any more."""
    deadline = time.monotonic() + seconds
    while fake.speaking and time.monotonic() < deadline:
        time.sleep(0.02)
    assert fake.speaking == 0, "the model still works for somebody who is gone"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_loads_from_this_server_alone_and_fits(visit, width, theme):
    page = visit(width=width, height=844, theme=theme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    for tab in ("Transcribe", "Speak", "Talk"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector({"Transcribe": "#transcribe-start", "Speak": "#speak-start", "Talk": "#send"}[tab])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    # `visit` fails the test if anything was asked from elsewhere or an error was logged.


def test_every_control_has_a_name(visit):
    page = visit().page
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, textarea, input:not([type=file]), select, a[href]')]
          .filter((e) => e.offsetParent !== null)
          .filter((e) => !(e.innerText || e.getAttribute('aria-label') || e.title || e.labels?.length
                           || e.getAttribute('placeholder')))
          .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []


def test_typed_question_streams_text_and_sound_while_the_answer_is_made(visit, server):
    visitor = visit()
    visitor.ask("a long question")
    visitor.wait_event("player.queued")
    assert server.fake.speaking == 1, "the first sound reached the player only after the answer was finished"
    visitor.wait_event("player.audible")
    visitor.page.keyboard.press("Escape")
    log = visitor.log()
    assert log.index("response.output_text.delta") < log.index("player.queued")
    assert "response.done" not in log[: log.index("player.audible")]


def test_finished_answer_shows_its_numbers_and_can_be_replayed(visit):
    visitor = visit()
    visitor.ask("hello there")
    visitor.wait_event("response.done")
    visitor.wait_ready()
    page = visitor.page
    assert visitor.answers() == ["boost turn 1: you said hello there"]
    assert page.locator(".v-user .v-text").all_inner_texts() == ["hello there"]
    numbers = {
        key: page.locator(f".v-answer [data-number={key}] dd").inner_text()
        for key in ("ttft", "ttfc", "ear", "total", "rtf", "passes", "tokens")
    }
    for key in ("ttft", "ttfc", "ear", "total"):
        assert re.fullmatch(r"\d+ ms", numbers[key]), (key, numbers)
    model, ear = (int(numbers[key].removesuffix(" ms")) for key in ("ttfc", "ear"))
    assert ear > model, "the ear cannot be ahead of the model"
    assert numbers["tokens"] == "7 + 32"
    assert page.locator("[data-card=first]").inner_text() == numbers["ttfc"]
    assert page.locator("#latency tbody th").all_inner_texts() == ["Boost"]
    # Sound: 4 chunks of 8 tokens of 80 ms, one bar each, saved as WAV.
    assert page.locator(".v-answer .v-bars i").count() == 32
    page.get_by_role("button", name="Play the answer").click()
    page.wait_for_selector(".v-answer .v-playing")
    seconds = page.evaluate(
        """async () => {
          const bytes = await (await fetch(document.querySelector('.v-answer .v-save').href)).arrayBuffer();
          return (await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes)).duration }"""
    )
    assert seconds == pytest.approx(32 * 0.08, abs=0.001)


def test_all_of_the_sound_reaches_the_player_in_order(visit, server):
    visitor = visit()
    visitor.ask("hello order")
    visitor.wait_event("response.done")
    levels = visitor.page.evaluate("[...Vita.talk.conversation.turns.values()][0].sound.levels")
    expected = [token.level for token in server.fake.finished[-1].tokens if token.kind == "audio"]
    assert levels == expected
    spoken = visitor.page.evaluate(
        """async () => {
          const bytes = await (await fetch(document.querySelector('.v-answer .v-save').href)).arrayBuffer();
          const pcm = new Int16Array(bytes.slice(44)); let sum = 0;
          pcm.forEach((value, index) => { sum = (sum + value * ((index % 97) + 1)) % 1e9 });
          return [pcm.length, sum] }"""
    )
    import numpy as np

    from tests.demo.fake_assistant import tone
    from vita.demo.response_events import int16

    pitch = 220.0 + 20 * (sum(b"hello order") % 20)
    pcm = np.concatenate([int16(tone(index, pitch)) for index in range(4)]).astype(np.int64)
    total = 0
    for index, value in enumerate(pcm.tolist()):
        total = int(np.fmod(total + value * (index % 97 + 1), 1e9))
    assert spoken == [len(pcm), total]


def test_mode_is_effective_from_the_next_turn_and_the_turn_before_is_context(visit):
    visitor = visit()
    visitor.ask("one")
    visitor.wait_event("response.created")
    visitor.choose_mode("turbo")
    visitor.wait_ready()
    visitor.ask("two")
    visitor.wait_event("response.done", 2)
    visitor.choose_mode("vanilla")
    visitor.ask("three")
    visitor.wait_event("response.done", 3)
    assert visitor.answers() == [
        "boost turn 1: you said one",
        "turbo turn 2: you said two",
        "vanilla turn 3: you said three",
    ]
    levels = visitor.page.evaluate(
        "[...document.querySelectorAll('.v-answer')].map((a) =>"
        " Math.max(...[...a.querySelectorAll('[data-level]')].map((e) => +e.dataset.level)))"
    )
    assert levels == [10, 10, 0]


def test_uploaded_question_is_answered_and_shown(visit, question_wav):
    visitor = visit()
    visitor.upload(question_wav)
    visitor.wait_event("response.done")
    assert visitor.answers() == ["boost turn 1: you said 1.5 seconds of sound"]
    visitor.page.wait_for_function("() => document.querySelectorAll('.v-user .v-bars i').length === 19")
    visitor.ask("and typed")
    visitor.wait_event("response.done", 2)
    assert visitor.answers()[1] == "boost turn 2: you said and typed"


def test_microphone_question_is_answered(visit):
    visitor = visit()
    page = visitor.page
    page.click("#recorder .record-button")
    page.wait_for_selector("#recorder .stop-button", state="visible")
    page.wait_for_timeout(2000)
    page.click("#recorder .stop-button")
    visitor.wait_event("response.done")
    heard = re.fullmatch(r"boost turn 1: you said (\d+\.\d) seconds of sound", visitor.answers()[0])
    assert heard, visitor.answers()
    assert 1.0 <= float(heard[1]) <= 30.0
    # The recorder is empty again and takes the next question.
    page.wait_for_selector("#recorder .record-button", state="visible")


def test_stop_frees_the_model_silences_the_player_and_leaves_the_conversation_as_it_was(visit, server):
    visitor = visit()
    visitor.ask("a long question")
    visitor.wait_event("player.started")
    visitor.page.get_by_role("button", name="Stop", exact=True).first.click()
    visitor.wait_event("player.flushed")
    wait_until_silent(server.fake)
    visitor.page.wait_for_selector(".v-note:has-text('Stopped.')")
    heard = visitor.log().count("response.output_audio.delta")
    assert heard < 20
    visitor.ask("next")
    visitor.wait_event("response.done")
    assert visitor.answers()[1] == "boost turn 1: you said next"
    assert visitor.page.locator(".v-answer").first.locator(".v-bars i").count() <= heard * 8


def test_a_new_question_interrupts_the_answer_before_it(visit, server):
    visitor = visit()
    visitor.ask("a long question")
    visitor.wait_event("player.started")
    visitor.ask("short")
    visitor.wait_event("response.done")
    wait_until_silent(server.fake)
    assert visitor.answers()[1] == "boost turn 1: you said short"
    assert "so on and so on and so on and so on and so on" not in visitor.answers()[0]


def test_clear_empties_the_page_and_the_memory(visit):
    visitor = visit()
    visitor.ask("remember me")
    visitor.wait_ready()
    visitor.page.get_by_role("button", name="Clear conversation").click()
    visitor.page.wait_for_selector(".v-welcome", state="visible")
    assert visitor.page.locator(".v-turn").count() == 0
    visitor.page.wait_for_timeout(500)
    visitor.ask("who are you")
    visitor.wait_event("response.done", 2)
    assert visitor.answers() == ["boost turn 1: you said who are you"]


def test_example_questions_are_asked_with_one_click(visit):
    visitor = visit()
    visitor.page.get_by_role("button", name=EXAMPLES[0]).click()
    visitor.wait_event("response.done")
    assert visitor.answers() == [f"boost turn 1: you said {EXAMPLES[0]}"]


def test_a_broken_upload_is_explained_and_the_next_question_works(visit, text_named_wav):
    visitor = visit()
    visitor.upload(text_named_wav)
    alert = visitor.page.wait_for_selector(".v-answer [role=alert]")
    assert "not audio" in alert.inner_text()
    visitor.ask("better now")
    visitor.wait_event("response.done")
    assert visitor.answers()[1] == "boost turn 1: you said better now"
    visitor.problems[:] = [p for p in visitor.problems if "decode" not in p.lower()]


def test_an_empty_question_is_refused_in_words(visit):
    visitor = visit()
    visitor.ask("   ")
    visitor.page.wait_for_selector(".v-status:has-text('Type a question first')")
    assert visitor.page.locator(".v-turn").count() == 0
    visitor.problems[:] = [p for p in visitor.problems if "empty question" not in p]


def test_a_failure_inside_the_model_is_reported_and_the_conversation_goes_on(visit):
    visitor = visit()
    visitor.ask("before")
    visitor.wait_ready()
    visitor.ask("please explode")
    alert = visitor.page.wait_for_selector(".v-answer [role=alert]")
    assert alert.inner_text() == UNEXPECTED
    visitor.ask("after")
    visitor.wait_event("response.done", 2)
    assert visitor.answers()[2] == "boost turn 2: you said after"


def test_two_visitors_do_not_see_each_other(visit):
    first, second = visit(), visit()
    first.ask("alpha secret")
    second.ask("beta secret")
    first.wait_ready()
    second.wait_ready()
    first.ask("alpha again")
    first.wait_event("response.done", 2)
    assert first.answers() == ["boost turn 1: you said alpha secret", "boost turn 2: you said alpha again"]
    assert second.answers() == ["boost turn 1: you said beta secret"]
    assert "beta" not in first.page.inner_text("body")
    assert "alpha" not in second.page.inner_text("body")


def test_a_visitor_who_leaves_frees_the_model(visit, server):
    leaver, other = visit(), visit()
    leaver.ask("a long question")
    leaver.wait_event("player.started")
    leaver.page.goto("about:blank")
    wait_until_silent(server.fake)
    other.ask("still there")
    other.wait_event("response.done")
    assert other.answers() == ["boost turn 1: you said still there"]
    # Whether Gradio's own script still gets to report its cut stream depends on how fast the page goes.
    cut = ("AbortError", "Connection errored out")
    leaver.problems[:] = [problem for problem in leaver.problems if not any(text in problem for text in cut)]


def test_transcribe_and_speak_tabs(visit, question_wav: Path):
    page = visit().page
    page.get_by_role("tab", name="Transcribe").click()
    page.click("#transcribe-audio button[aria-label='Upload file']")
    page.set_input_files("#transcribe-audio input[type=file]", str(question_wav))
    page.wait_for_selector("#transcribe-audio [aria-label='Play'], #transcribe-audio .play-pause-button")
    page.click("#transcribe-start")
    page.wait_for_function(
        "() => document.querySelector('#transcript textarea').value === '1.5 seconds of sound'"
    )
    page.get_by_role("tab", name="Speak").click()
    page.fill("#speak-text textarea", "good morning")
    page.click("#speak-start")
    page.wait_for_selector("#speech .play-pause-button, #speech [aria-label='Play']")
    page.wait_for_selector("#speak-metrics :text('audio_seconds')")
