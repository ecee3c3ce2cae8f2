"""VITA-Audio: speech-to-speech conversation with MCTP decoding.

    from vita import VitaAudio
    assistant = VitaAudio.from_pretrained("nano")
    for event in assistant.respond(audio=(samples, sample_rate), mode="boost"):
        print(event)

Names are imported when they are first used, so that ``import vita.errors`` does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vita.assistant import VitaAudio
    from vita.decoding.modes import MODES
    from vita.decoding.sampling import Sampling
    from vita.errors import AudioError, CheckpointError, ModeError, TextInputError, VitaError
    from vita.events import AudioChunk, Event, Finished, Speech, TextDelta, TokenTrace, Transcript
    from vita.prompts import History

__version__ = "0.1.0"

_HOME = {
    "VitaAudio": "vita.assistant",
    "Sampling": "vita.decoding.sampling",
    "MODES": "vita.decoding.modes",
    "History": "vita.prompts",
    **dict.fromkeys(("AudioError", "CheckpointError", "ModeError", "TextInputError", "VitaError"), "vita.errors"),
    **dict.fromkeys(
        ("AudioChunk", "Event", "Finished", "Speech", "TextDelta", "TokenTrace", "Transcript"), "vita.events"
    ),
}

__all__ = [
    "MODES",
    "AudioChunk",
    "AudioError",
    "CheckpointError",
    "Event",
    "Finished",
    "History",
    "ModeError",
    "Sampling",
    "Speech",
    "TextDelta",
    "TextInputError",
    "TokenTrace",
    "Transcript",
    "VitaAudio",
    "VitaError",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vita' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
