"""The demo with models in the published layout: ``/ask`` in every mode, audio as tokens and as SenseVoice rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from gradio_client import Client, handle_file

from tests.lookalike import make_glm_decoder, make_glm_tokenizer, make_language_model
from vita import VitaAudio

MODES = ["vanilla", "balance", "boost", "turbo"]


@pytest.fixture(scope="module", params=[False, True], ids=["Boost", "Plus-Boost"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, start_server) -> Client:
    root = tmp_path_factory.mktemp("published")
    make_glm_tokenizer(root / "glm-4-voice-tokenizer")
    make_glm_decoder(root / "glm-4-voice-decoder")
    folder = make_language_model(root / "VITA-Audio", plus=request.param, mctp=10)
    server = start_server(VitaAudio.from_pretrained(folder, device="cpu"))
    return Client(server.url, verbose=False)


@pytest.mark.parametrize("mode", MODES)
def test_ask_with_a_recording(client: Client, question_wav: Path, mode: str) -> None:
    _, speech, metrics = client.predict(audio=handle_file(question_wav), mode=mode, api_name="/ask")
    assert soundfile.info(speech).samplerate == 22_050
    assert metrics["audio_seconds"] > 0  # random weights, sampled: how much they say is chance
    assert (metrics["passes"]["mctp"] == 0) == (mode == "vanilla")
