"""The audio tokenizer types of VITA-Audio's code base, and which of them this project can open.

The names are those of its ``audio_tokenizer_type``. What is refused is refused with the reason and the way out;
``ARCHITECTURE.md`` says where such a codec would plug in.
"""

from __future__ import annotations

from vita.errors import CheckpointError

SUPPORTED: dict[str, str] = {
    "glm4voice": "vita.published (VITA-Audio-Boost, VITA-Audio-Balance)",
    "sensevoice_glm4voice": "vita.published (VITA-Audio-Plus-Vanilla, VITA-Audio-Plus-Boost)",
    "snac24khz": "vita.speech.snac_codec, with the package snac; no published VITA-Audio model uses it",
}
"""Type -> where it is."""

REFUSED: dict[str, str] = {
    "cosyvoice2": (
        "CosyVoice2 tokens are not supported: no published VITA-Audio model uses them. Missing are its S3 v2 speech "
        "tokenizer (published for onnxruntime only), the upsampling conformer and causal estimator of its flow "
        "decoder, and the 24 kHz HiFT; the rest of the flow decoder and HiFT are those of GLM-4-Voice"
    ),
    "sensevoice_sparktts": (
        "Spark-TTS BiCodec tokens are not supported: no published VITA-Audio model uses them. Missing are the BiCodec "
        "decoder with its speaker tokens and, to encode, its wav2vec2 front end"
    ),
}
"""Type -> what is missing."""
REFUSED["bicodec"] = REFUSED["sensevoice_sparktts"]


def require_supported(kind: str) -> None:
    """Refuse a codec this project has no code for, saying what is missing.

    Raises:
        CheckpointError: it is refused or unknown.
    """
    if kind in REFUSED:
        raise CheckpointError(f"{REFUSED[kind]}: use a model with {' or '.join(SUPPORTED)}")
    if kind not in SUPPORTED:
        raise CheckpointError(f"the codec '{kind}' is unknown: known are {', '.join([*SUPPORTED, *REFUSED])}")
