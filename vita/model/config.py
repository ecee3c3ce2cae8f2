"""Configuration of VITA-Audio language models: a Qwen2 backbone followed by N MCTP modules.

Field and type names are those of the published checkpoints (config.json of VITA-MLLM/VITA-Audio-*), so their
files load unchanged. The MCTP modules are stored as the last N decoder layers: ``num_hidden_layers`` counts
main and MCTP layers together.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config

from vita.errors import CheckpointError


class VitaAudioConfig(Qwen2Config):
    """VITA-Audio models whose audio arrives as tokens (Boost, Balance) or through an ``audio_encoder``.

    Beyond Qwen2's fields:

    num_nextn_predict_layers: number N of MCTP modules; 0 for a model that decodes in Vanilla mode only.
    mtp_loss_weight: weight of the mean MCTP loss beside the main loss.
    audio_encoder: continuous audio input as ``{"type": name, **arguments of the encoder}`` (see
        `vita.model.audio_input`), or None where audio arrives as tokens only.
    speech_token_offset: id of the first audio token as published. Kept for the file's sake; it is wrong in some
        checkpoints, so everything here asks the tokenizer instead.

    Raises CheckpointError when the fields contradict each other.
    """

    model_type = "qwen2_mtp"

    num_nextn_predict_layers: int = 0
    mtp_loss_weight: float | int = 1.0
    audio_encoder: dict[str, Any] | None = None
    speech_token_offset: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        contradiction = self._contradiction()
        if contradiction:
            raise CheckpointError(
                f"config.json contradicts itself: {contradiction}; use the file that belongs to the weights."
            )

    @property
    def num_main_layers(self) -> int:
        """Decoder layers of the main model (28 in the 7B models)."""
        return self.num_hidden_layers - self.num_nextn_predict_layers

    @property
    def detach_mctp_inputs(self) -> bool:
        """Whether MCTP losses leave main layers and embeddings alone in training, as in all Plus models."""
        return self.audio_encoder is not None

    def _contradiction(self) -> str | None:
        if not 0 <= self.num_nextn_predict_layers < self.num_hidden_layers:
            return (
                f"num_nextn_predict_layers is {self.num_nextn_predict_layers}, expected at least 0 and less than "
                f"num_hidden_layers ({self.num_hidden_layers}), which counts main and MCTP layers together"
            )
        if self.hidden_size % self.num_attention_heads and not getattr(self, "head_dim", None):
            return (
                f"hidden_size {self.hidden_size} is no multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            return (
                f"num_attention_heads {self.num_attention_heads} is no multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if len(self.layer_types) != self.num_hidden_layers:
            return f"layer_types has {len(self.layer_types)} entries, num_hidden_layers is {self.num_hidden_layers}"
        if set(self.layer_types) != {"full_attention"}:
            return "it asks for sliding-window layers, but VITA-Audio models attend to the whole sequence"
        if self.audio_encoder is not None and "type" not in self.audio_encoder:
            return "audio_encoder has no 'type'"
        return None


class VitaAudioSenseVoiceConfig(VitaAudioConfig):
    """The published Plus models: SenseVoice features as audio input, in the published shape unless stated."""

    model_type = "qwen2_mtp_sensevoice"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.audio_encoder is None:
            self.audio_encoder = {"type": "sensevoice"}
        super().__post_init__(**kwargs)


AutoConfig.register(VitaAudioConfig.model_type, VitaAudioConfig)
AutoConfig.register(VitaAudioSenseVoiceConfig.model_type, VitaAudioSenseVoiceConfig)
