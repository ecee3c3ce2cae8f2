"""Which encoder and adapter turn audio features into rows of the backbone's embedding space.

Knows the names only; the modules are imported when a configuration asks for them. The contract of a pair:

    encoder(features [B, T, F], lengths [B]) -> outputs (a tuple of tensors, whatever the adapter needs)
    adapter(*outputs) -> (rows [B, n, d_model], row_lengths [B])
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from vita.errors import CheckpointError

# type in config.audio_encoder -> (module, encoder class, adapter class)
AUDIO_INPUTS = {
    "nano": ("vita.model.nano_audio_encoder", "NanoAudioEncoder", "NanoAudioAdapter"),
    "sensevoice": ("vita.model.sensevoice_encoder", "SenseVoiceEncoder", "SenseVoiceAdapter"),
}


def build_audio_input(audio_encoder: dict[str, Any], hidden_size: int) -> tuple[nn.Module, nn.Module]:
    """The (encoder, adapter) pair that ``config.audio_encoder`` describes, with fresh weights.

    The adapter is told the backbone's width as ``d_model``. Raises CheckpointError for an unknown type.
    """
    kind = audio_encoder.get("type")
    if kind not in AUDIO_INPUTS:
        known = ", ".join(AUDIO_INPUTS)
        raise CheckpointError(f"audio_encoder type {kind!r} in config.json is unknown; this version knows {known}")
    module_name, encoder_name, adapter_name = AUDIO_INPUTS[kind]
    module = import_module(module_name)
    encoder = getattr(module, encoder_name)(**audio_encoder.get("encoder", {}))
    adapter = getattr(module, adapter_name)(d_model=hidden_size, **audio_encoder.get("adapter", {}))
    return encoder, adapter
