"""Starting the demo from a command line: options, checks, model, warm-up, server."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vita.demo.errors import StartError
from vita.errors import VitaError

DEFAULT_MODEL = "nano"
DEFAULT_PORT = 7860
EXIT_UNUSABLE = 2


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; environment variables give the defaults."""
    parser = argparse.ArgumentParser(prog="app.py", description="Serve the VITA-Audio web demo.")
    parser.add_argument(
        "--model",
        default=os.environ.get("VITA_MODEL") or DEFAULT_MODEL,
        help="registry name, folder or hub id (environment: VITA_MODEL; default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        default=os.environ.get("GRADIO_SERVER_PORT") or DEFAULT_PORT,
        help="port to listen on (environment: GRADIO_SERVER_PORT; default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1",
        help="address to listen on, 0.0.0.0 for all (environment: GRADIO_SERVER_NAME; default: %(default)s)",
    )
    parser.add_argument(
        "--share",
        choices=("on", "off"),
        default="off",
        help="public gradio.live address, needs the network (default: off)",
    )
    return parser.parse_args(arguments)


def check_port(host: str, port: int | str) -> int:
    """The port as a number, checked before any work is lost.

    Raises:
        StartError: not a port number, or somebody is listening there already.
    """
    try:
        number = int(port)
    except ValueError:
        number = -1
    if not 1 <= number <= 65535:
        raise StartError(f"Port {port!r} is not a number from 1 to 65535: choose one with --port.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as problem:
            raise StartError(
                f"Cannot listen on {host}:{number} ({problem.strerror or problem}): "
                "stop the program that uses the port or choose another one with --port."
            ) from problem
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo until it is interrupted; returns the exit code, 2 if it could not start."""
    chosen = options(arguments)
    started = time.monotonic()
    try:
        port = check_port(chosen.host, chosen.port)
        # Before gradio is imported: it reads these once.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_SERVER_PORT"] = str(port)
        print(f"Loading {chosen.model} ...", flush=True)
        from vita import VitaAudio

        assistant = VitaAudio.from_pretrained(chosen.model)
        assistant.warm_up()

        from vita.demo.page import serve

        demo, url = serve(
            assistant,
            model_name=Path(chosen.model).name,
            host=chosen.host,
            port=port,
            share=chosen.share == "on",
        )
    except VitaError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(f"Ready in {time.monotonic() - started:.1f} s: {url} (model {chosen.model}, stop with Ctrl+C)", flush=True)
    demo.block_thread()
    return 0
