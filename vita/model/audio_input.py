"""Which encoder and adapter turn audio features into rows of the backbone's embedding space.

Knows the names only; the modules are imported when a configuration asks for them. The contract of a pair:

    encoder = Encoder(**arguments)                        with the width of its output in encoder.config.hidden_size
    adapter = Adapter(encoder width, backbone width)
    adapter(*encoder(features [B, T, F], lengths [B])) -> (rows [B, n, d], row lengths [B])
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from vita.errors import CheckpointError

AUDIO_INPUTS = {
    "nano": ("vita.model.nano_audio_encoder", "NanoAudioEncoder", "NanoAudioAdapter"),
    "sensevoice": ("vita.model.sensevoice_encoder", "SenseVoiceEncoder", "SenseVoiceAdapter"),
}
"""``type`` in config.audio_encoder -> (module, encoder class, adapter class)."""


def build_audio_input(audio_encoder: dict[str, Any], hidden_size: int) -> tuple[nn.Module, nn.Module]:
    """The (encoder, adapter) pair that ``config.audio_encoder`` describes, freshly initialised.

    Raises CheckpointError for an unknown type or arguments that the encoder does not take.
    """
    arguments = dict(audio_encoder)
    kind = arguments.pop("type", None)
    if kind not in AUDIO_INPUTS:
        raise CheckpointError(
            f"config.json asks for audio_encoder type {kind!r}, this version knows {', '.join(AUDIO_INPUTS)}; "
            "use another checkpoint or a newer version."
        )
    module_name, encoder_name, adapter_name = AUDIO_INPUTS[kind]
    module = import_module(module_name)
    try:
        encoder = getattr(module, encoder_name)(**arguments)
    except TypeError as error:
        raise CheckpointError(
            f"config.json gives audio_encoder arguments that do not fit type {kind!r} ({error}); "
            "use the config.json that belongs to the weights."
        ) from error
    return encoder, getattr(module, adapter_name)(encoder.config.hidden_size, hidden_size)
