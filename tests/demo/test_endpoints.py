"""``/ask``, ``/transcribe`` and ``/speak`` as a program calls them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.demo.fake_assistant import FakeAssistant
from vita.demo import page


@pytest.fixture(scope="module")
def client(server) -> Client:
    return Client(server.url, verbose=False)


def test_ask_with_text(client):
    text, speech, metrics = client.predict(text="hello", mode="turbo", api_name="/ask")
    assert text == "turbo turn 1: you said hello"
    samples, rate = soundfile.read(speech)
    assert rate == 16_000
    assert len(samples) / rate == pytest.approx(metrics["audio_seconds"]) == pytest.approx(2.56)
    assert metrics["mode"] == "turbo"
    assert set(metrics["timings"]) >= {"ttft", "ttf_audio_token", "ttfc", "total"}
    assert metrics["passes"]["main"] > 0


def test_ask_with_a_recording(client, question_wav: Path):
    text, speech, _ = client.predict(audio=handle_file(question_wav), mode="boost", api_name="/ask")
    assert text == "boost turn 1: you said 1.5 seconds of sound"
    assert speech.endswith(".wav")


def test_every_call_to_ask_is_a_conversation_of_its_own(client):
    answers = [client.predict(text=word, api_name="/ask")[0] for word in ("one", "two")]
    assert answers == ["boost turn 1: you said one", "boost turn 1: you said two"]


def test_transcribe(client, question_wav: Path):
    text, metrics = client.predict(audio=handle_file(question_wav), api_name="/transcribe")
    assert text == "1.5 seconds of sound"
    assert metrics["mode"] == "vanilla"


def test_speak(client):
    speech, metrics = client.predict(text="good morning", mode="boost", api_name="/speak")
    assert soundfile.info(speech).duration == pytest.approx(1.28)
    assert metrics["tokens"]["audio"] == 16


def test_the_endpoints_are_documented_and_nothing_else_is_listed(client):
    api = client.view_api(return_format="dict")["named_endpoints"]
    assert set(api) == {"/ask", "/transcribe", "/speak"}
    for name, endpoint in api.items():
        assert endpoint.get("description"), name
        modes = [p for p in endpoint["parameters"] if p["parameter_name"] == "mode"]
        assert modes[0]["type"]["enum"] == ["vanilla", "balance", "boost", "turbo"]


@pytest.mark.parametrize(
    ("endpoint", "arguments", "told"),
    [
        ("/ask", {}, "record"),
        ("/ask", {"text": "   "}, "record"),
        ("/transcribe", {}, "record"),
        ("/speak", {"text": ""}, "empty"),
        ("/speak", {"text": "explode"}, "Something went wrong"),
    ],
)
def test_bad_input_is_answered_in_one_line_and_the_next_request_works(client, endpoint, arguments, told):
    with pytest.raises(AppError, match=told) as caught:
        client.predict(**arguments, api_name=endpoint)
    assert "\n" not in str(caught.value).strip()
    assert client.predict(text="again", api_name="/ask")[0].endswith("you said again")


def test_a_text_file_named_wav_is_refused(client, text_named_wav: Path):
    for endpoint in ("/ask", "/transcribe"):
        with pytest.raises(AppError, match="not audio"):
            client.predict(audio=handle_file(text_named_wav), api_name=endpoint)


def test_an_unknown_mode_is_refused(client):
    with pytest.raises(AppError, match="warp"):
        client.predict(text="hello", mode="warp", api_name="/ask")


def test_a_file_of_the_server_is_not_a_recording(client):
    with pytest.raises(AppError):
        client.predict(
            audio={"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}, api_name="/transcribe"
        )


def test_too_many_waiting_requests_are_turned_away_with_a_message(start_server, monkeypatch):
    monkeypatch.setattr(page, "MAX_WAITING", 2)
    fake = FakeAssistant(real_time_factor=1.0)
    client = Client(start_server(fake).url, verbose=False)
    jobs = []
    for number in range(5):
        jobs.append(client.submit(text=f"hello {number}", api_name="/ask"))
        deadline = time.monotonic() + 20
        while number == 0 and not fake.speaking and time.monotonic() < deadline:
            time.sleep(0.01)
    outcomes = [job.exception(timeout=60) for job in jobs]
    assert outcomes[0] is None
    refused = [str(problem) for problem in outcomes if problem is not None]
    assert refused
    assert all("Queue is full" in problem for problem in refused)
    assert fake.speaking == 0
