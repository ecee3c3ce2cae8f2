"""Takes the screenshots of the README: ``python docs/screenshots/take.py [--model nano] [--out docs/screenshots]``.

Needs Chromium (``CHROMIUM`` or on the PATH). Starts the demo, asks one question by voice and one by keyboard, and
writes one PNG in mid-answer and one after it, for desktop and phone, light and dark.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
FIRST = "What is the capital of France?"
SECOND = "What is seven plus five?"


def ask(page: Page, text: str) -> None:
    """Type a question and send it."""
    page.fill("#question textarea", text)
    page.press("#question textarea", "Enter")


def settled(page: Page) -> None:
    """Wait until the answer is complete and played to its end."""
    page.wait_for_function("() => Vita.talk.current && !Vita.talk.busy && Vita.talk.status.textContent === 'Ready'")


def take(browser: Browser, url: str, device: str, theme: str, recording: Path | None, out: Path) -> list[Path]:
    """Both pictures of one device and theme."""
    width, height = SIZES[device]
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=1)
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.goto(f"{url}?__theme={theme}")
    page.wait_for_function("() => window.Vita && Vita.talk")
    page.wait_for_selector("#mode input[value=boost]:checked", state="attached")
    if recording is None:
        ask(page, FIRST)
    else:
        page.click("#recorder button[aria-label='Upload file']")
        page.set_input_files("#recorder input[type=file]", str(recording))
        page.wait_for_function("() => Vita.talk.current")
        page.click("#recorder button[aria-label='Record audio']")
    settled(page)
    heard = page.evaluate("Vita.talk.log.filter((e) => e.type === 'player.audible').length")
    page.locator("#mode label:has(input[value=turbo])").click()
    ask(page, SECOND)
    page.wait_for_function(
        "(n) => Vita.talk.log.filter((e) => e.type === 'player.audible').length > n", arg=heard
    )
    pictures = [out / f"{device}-{theme}-{moment}.png" for moment in ("answering", "answered")]
    page.screenshot(path=pictures[0])
    settled(page)
    page.wait_for_timeout(300)
    page.screenshot(path=pictures[1], full_page=device == "phone")
    context.close()
    return pictures


def serve(model: str) -> str:
    """Start the demo in this process, return its address."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    sys.path.insert(0, str(ROOT))
    from vita import VitaAudio
    from vita.demo.page import serve as serve_page

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assistant = VitaAudio.from_pretrained(model)
    assistant.warm_up()
    return serve_page(assistant, model_name=Path(model).name, host="127.0.0.1", port=port)[1]


def main() -> None:
    """Parse the options and take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="registry name, folder or hub id")
    parser.add_argument("--url", help="a demo that is running already, instead of --model")
    parser.add_argument("--recording", type=Path, help="sound file of the first question; typed without it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    chosen = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("no Chromium found: install it or set CHROMIUM to its path")
    url = chosen.url or serve(chosen.model)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required",
                  "--disable-background-networking", "--no-first-run", "--disable-dev-shm-usage",
                  "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"],
        )
        for device in SIZES:
            for theme in ("light", "dark"):
                for picture in take(browser, url, device, theme, chosen.recording, chosen.out):
                    print(f"{picture} {picture.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
