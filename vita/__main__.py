"""Command line: ask, transcribe, speak, models, check.

Errors a person can mend end with exit code 2 and one line on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vita.errors import AudioError, CheckpointError, TextInputError, VitaError

if TYPE_CHECKING:
    from vita.assistant import VitaAudio
    from vita.events import Finished, Speech, Transcript

EXIT_REFUSED = 2
_SHOWN_TIMINGS = ("ttft", "ttf_audio_token", "ttfc", "total")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except VitaError as error:
        print(f"vita: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vita", description="Talk with a VITA-Audio model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    ask = commands.add_parser("ask", help="answer a spoken or typed question")
    ask.add_argument("audio", nargs="?", help="recording of the question (WAV, FLAC, OGG, MP3)")
    ask.add_argument("--text", help="a typed question instead of a recording")
    ask.add_argument("--out", help="write the spoken answer here (.wav or .flac)")
    _model_options(ask, mode="boost")
    ask.set_defaults(run=_ask)

    transcribe = commands.add_parser("transcribe", help="write down what a recording says")
    transcribe.add_argument("audio", help="recording (WAV, FLAC, OGG, MP3)")
    _model_options(transcribe, mode="vanilla")
    transcribe.set_defaults(run=_transcribe)

    speak = commands.add_parser("speak", help="read a text aloud")
    speak.add_argument("text", help="what to say")
    speak.add_argument("--out", required=True, help="write the speech here (.wav or .flac)")
    _model_options(speak, mode="boost")
    speak.set_defaults(run=_speak)

    models = commands.add_parser("models", help="list the known models and speech parts")
    models.set_defaults(run=_models)

    check = commands.add_parser("check", help="say what a model needs, and whether its files fit")
    check.add_argument("model", help="name, folder or hub id")
    check.add_argument("--deep", action="store_true", help="download what is missing and read every weight")
    check.add_argument("--device", help="cpu, cuda or cuda:1 (default: the GPU if there is one)")
    check.set_defaults(run=_check)
    return parser


def _model_options(parser: argparse.ArgumentParser, mode: str) -> None:
    parser.add_argument("--model", default="nano", help="name, folder or hub id (default: nano)")
    parser.add_argument(
        "--mode", default=mode, help=f"vanilla, balance, boost, turbo or a list such as 1,4,2,8 (default: {mode})"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:1 (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: as the model needs)")
    parser.add_argument("--device-map", help="auto: spread the language model over all GPUs")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def _ask(options: argparse.Namespace) -> None:
    from vita.speech import audio_io

    if (options.audio is None) == (options.text is None):
        raise TextInputError("give a recording or --text, one of the two: python -m vita ask question.wav")
    if options.out:
        audio_io.check_writable(options.out)
    assistant = _open(options)
    from vita.events import AudioChunk, TextDelta

    chunks = []
    for event in assistant.respond(audio=options.audio, text=options.text, mode=options.mode):
        if isinstance(event, AudioChunk):
            chunks.append(event.samples)
        elif isinstance(event, TextDelta):
            if not options.json:
                print(event.text, end="", flush=True)
        else:
            finished = event
    if not options.json:
        print()
    _report(finished, options.json, text_shown=True)
    if options.out:
        import numpy as np

        _save(options.out, np.concatenate([np.zeros(0, np.float32), *chunks]), assistant.sample_rate)


def _transcribe(options: argparse.Namespace) -> None:
    _report(_open(options).transcribe(options.audio, mode=options.mode), options.json)


def _speak(options: argparse.Namespace) -> None:
    from vita.speech import audio_io

    audio_io.check_writable(options.out)
    speech = _open(options).speak(options.text, mode=options.mode)
    _save(options.out, speech.samples, speech.sample_rate)
    _report(speech, options.json)


def _models(_: argparse.Namespace) -> None:
    from vita.registry import table

    print(table())


def _check(options: argparse.Namespace) -> None:
    from vita.check import check

    report = check(options.model, options.deep, options.device)
    print(report.text())
    if report.problems:
        raise CheckpointError(f"'{options.model}' cannot be used as it is: {report.problems[0]}")


def _open(options: argparse.Namespace) -> VitaAudio:
    from vita.decoding.modes import resolve_mode

    resolve_mode(options.mode)  # a wrong mode is said before the model is loaded
    from vita.assistant import VitaAudio
    from vita.device import limit_threads

    limit_threads()
    return VitaAudio.from_pretrained(
        options.model, device=options.device, dtype=options.dtype, device_map=options.device_map
    )


def _save(path: str, samples: object, sample_rate: int) -> None:
    from vita.speech import audio_io

    if not len(samples):
        raise AudioError(f"the model gave no speech, '{path}' was not written: ask again or use another mode")
    audio_io.save(path, samples, sample_rate)


def _report(result: Finished | Transcript | Speech, as_json: bool, text_shown: bool = False) -> None:
    """Print the result: one JSON object, or the text with a line of timings on standard error."""
    timings = {name: _rounded(result.timings[name]) for name in _SHOWN_TIMINGS}
    if as_json:
        record = {
            "text": result.text,
            "mode": result.mode,
            "timings": timings,
            "passes": {"main": result.passes["main"], "mctp": result.passes["mctp"]},
            "audio_seconds": round(result.audio_seconds, 3),
        }
        print(json.dumps(record, ensure_ascii=False))
        return
    if not text_shown:
        print(result.text)
    times = ", ".join(f"{name} {value} ms" for name, value in timings.items() if value is not None)
    print(
        f"[{result.mode}: {times}; {result.passes['main']} main and {result.passes['mctp']} MCTP passes; "
        f"{result.audio_seconds:.2f} s of audio]",
        file=sys.stderr,
    )


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 2)


if __name__ == "__main__":
    sys.exit(main())
