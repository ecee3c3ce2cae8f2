"""Starting the demo: options, refusals, and a real start as a program."""

from __future__ import annotations

import socket

import pytest

from tests.demo.conftest import free_port
from vita.demo import launch
from vita.demo.launch import EXIT_UNUSABLE, StartError, check_port, main, options


@pytest.fixture(autouse=True)
def _environment_is_put_back(monkeypatch):
    """`main` sets variables that gradio reads."""
    for name in ("GRADIO_SERVER_PORT", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "False" if name.endswith("ENABLED") else "7860")


def test_defaults(monkeypatch):
    for name in ("VITA_MODEL", "GRADIO_SERVER_PORT", "GRADIO_SERVER_NAME"):
        monkeypatch.delenv(name, raising=False)
    chosen = options([])
    assert (chosen.model, int(chosen.port), chosen.host, chosen.share) == ("nano", 7860, "127.0.0.1", "off")


def test_environment_gives_the_defaults_and_options_win(monkeypatch):
    monkeypatch.setenv("VITA_MODEL", "some/folder")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7999")
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    chosen = options([])
    assert (chosen.model, int(chosen.port), chosen.host) == ("some/folder", 7999, "0.0.0.0")
    chosen = options(["--model", "nano", "--port", "8000", "--host", "::1"])
    assert (chosen.model, int(chosen.port), chosen.host) == ("nano", 8000, "::1")


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "80 80"])
def test_what_is_not_a_port_is_refused(port):
    with pytest.raises(StartError, match="1 to 65535"):
        check_port("127.0.0.1", port)


def one_line(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_port_in_use_ends_with_one_line_and_code_2(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == EXIT_UNUSABLE == 2
    message = one_line(capsys)
    assert str(port) in message
    assert "--port" in message


def test_an_unknown_model_ends_with_one_line_and_code_2(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["--model", "no-such-model", "--port", str(free_port())]) == 2
    assert "no-such-model" in one_line(capsys)


def test_missing_weights_end_with_one_line_and_code_2(capsys, tiny_folder, tmp_path):
    for file in tiny_folder.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert main(["--model", str(tmp_path), "--port", str(free_port())]) == 2
    assert "model.safetensors" in one_line(capsys)


def test_a_server_that_cannot_start_ends_with_one_line_and_code_2(capsys, monkeypatch, tiny_folder):
    def refuse(*_args, **_kwargs):
        raise OSError("Cannot find empty port in range")

    monkeypatch.setattr("gradio.Blocks.launch", refuse)
    assert launch.main(["--model", str(tiny_folder), "--port", str(free_port())]) == 2
    assert "did not start" in one_line(capsys)
