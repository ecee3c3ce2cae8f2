"""A demo server with the fake assistant, and a real browser to visit it with."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from tests.demo.fake_assistant import FakeAssistant

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE_MS = 90_000
"""Tests wait for conditions, never for a time; this long before they give up on a busy machine."""

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    url: str
    fake: FakeAssistant


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[[FakeAssistant], Server]]:
    """Starts demo servers in this process; they end with the tests."""
    from vita.demo.page import serve

    running = []

    def start(fake: FakeAssistant) -> Server:
        demo, url = serve(fake, model_name="fake", host="127.0.0.1", port=free_port())
        running.append(demo)
        return Server(url, fake)

    yield start
    for demo in running:
        demo.close(verbose=False)


@pytest.fixture(scope="session")
def server(start_server: Callable[[FakeAssistant], Server]) -> Server:
    return start_server(FakeAssistant(real_time_factor=0.3))


@pytest.fixture(scope="session")
def question_wav(tmp_path_factory: pytest.TempPathFactory, speech_like: np.ndarray) -> Path:
    """1.5 s of speech-like sound at 16 kHz."""
    path = tmp_path_factory.mktemp("sound") / "question.wav"
    soundfile.write(path, speech_like, 16_000, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def text_named_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broken") / "letter.wav"
    path.write_text("Dear model, this is a letter and no sound at all.\n" * 40)
    return path


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory, speech_like: np.ndarray) -> Iterator[Browser]:
    """Headless Chromium whose microphone hears a WAV file in a loop."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine: install the package chromium, or set CHROMIUM to its path")
    from playwright.sync_api import sync_playwright

    microphone = tmp_path_factory.mktemp("microphone") / "microphone.wav"
    soundfile.write(microphone, np.repeat(speech_like, 3), 48_000, subtype="PCM_16")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable,
            headless=True,
            args=[*CHROMIUM_FLAGS, f"--use-file-for-fake-audio-capture={microphone}"],
        )
        yield chromium
        chromium.close()


@dataclass
class Visitor:
    """One browser context with the page open, and the moves a visitor makes."""

    page: Page
    problems: list[str] = field(default_factory=list)
    """Console errors, page errors and requests to other hosts."""

    def ask(self, text: str) -> None:
        self.page.fill("#question textarea", text)
        self.page.press("#question textarea", "Enter")

    def wait_ready(self) -> None:
        """Until the newest answer is complete and played to its end."""
        self.page.wait_for_function(
            "() => { const t = Vita.talk; return t.current && !t.busy && t.status.textContent === 'Ready' }"
        )

    def wait_event(self, kind: str, count: int = 1) -> None:
        self.page.wait_for_function(
            "([kind, count]) => Vita.talk.log.filter((e) => e.type === kind).length >= count", arg=[kind, count]
        )

    def log(self) -> list[str]:
        return self.page.evaluate("Vita.talk.log.map((e) => e.type)")

    def answers(self) -> list[str]:
        return self.page.locator(".v-answer .v-text").all_inner_texts()

    def choose_mode(self, mode: str) -> None:
        self.page.locator(f"#mode label:has(input[value={mode}])").click()
        self.page.wait_for_selector(f"#mode input[value={mode}]:checked", state="attached")

    def upload(self, path: Path) -> None:
        self.page.click("#recorder button[aria-label='Upload file']")
        self.page.set_input_files("#recorder input[type=file]", str(path))


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Visitor]]:
    """Opens the page in a new context; at the end nothing may have gone wrong in any of them."""
    visitors: list[Visitor] = []

    def open_page(width: int = 1280, height: int = 860, theme: str = "light", url: str | None = None) -> Visitor:
        context = browser.new_context(viewport={"width": width, "height": height}, permissions=["microphone"])
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        visitor = Visitor(page)
        here = (url or server.url, "data:", "blob:")
        page.on(
            "console", lambda m: visitor.problems.append(f"console: {m.text}") if m.type == "error" else None
        )
        page.on("pageerror", lambda e: visitor.problems.append(f"page: {e}"))
        page.on(
            "request",
            lambda r: None if r.url.startswith(here) else visitor.problems.append(f"request: {r.url}"),
        )
        visitors.append(visitor)
        page.goto(f"{here[0]}?__theme={theme}")
        page.wait_for_function("() => window.Vita && Vita.talk")
        page.wait_for_selector("#mode input[value=boost]:checked", state="attached")
        return visitor

    yield open_page
    for visitor in visitors:
        visitor.page.context.close()
    assert [visitor.problems for visitor in visitors] == [[] for _ in visitors]
