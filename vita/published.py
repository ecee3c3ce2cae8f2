"""Opens the published VITA-Audio checkpoints: Boost, Balance, Plus-Vanilla, Plus-Boost, and whatever is laid out
like them.

A language model in safetensors shards; its speech parts are repositories of their own. For a folder they are looked
for beside it (``THUDM/glm-4-voice-decoder`` next to ``VITA-MLLM/VITA-Audio-Boost``), else on the hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from vita import hub
from vita.checkpoint import Checkpoint, generation_defaults
from vita.errors import CheckpointError
from vita.memory import require_memory
from vita.model.causal_lm import VitaAudioForCausalLM, VitaAudioSenseVoiceForCausalLM
from vita.model.checkpoint import stored_shapes, weight_files
from vita.model.config import VitaAudioConfig, VitaAudioSenseVoiceConfig
from vita.model.placement import DeviceMap
from vita.prompts import persona
from vita.registry import PLUS_TYPE, SPEECH_PARTS, family_of
from vita.speech.glm4voice_tokenizer import Glm4VoiceTokenizer
from vita.speech.glm4voice_vocoder import Glm4VoiceVocoder
from vita.speech.parts import SpeechInput, SpeechParts
from vita.speech.published_input import Glm4VoiceInput, SenseVoiceInput
from vita.speech.sensevoice_frontend import SenseVoiceFrontend
from vita.vocabulary import Vocabulary

GLM_TOKENIZER, GLM_DECODER, SENSEVOICE = SPEECH_PARTS
MVN_FILE, SENSEVOICE_CONFIG = "am.mvn", "config.yaml"
CONTEXT_TURNS = 4
"""Earlier turns kept in the prompt; the reference demo keeps none."""
_CTC_KEY = "model.audio_model.model.ctc.ctc_lo.bias"
_ENCODER_ARGUMENTS = (
    "output_size", "attention_heads", "linear_units", "num_blocks", "tp_blocks", "kernel_size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything a published model needs lies."""

    folder: Path
    config: VitaAudioConfig
    decoder: Path
    tokenizer: Path | None
    """Speech tokenizer of models that hear tokens."""
    mvn: Path | None
    """Feature statistics of models that hear through SenseVoice."""

    @property
    def model_class(self) -> type[VitaAudioForCausalLM]:
        return VitaAudioForCausalLM if self.mvn is None else VitaAudioSenseVoiceForCausalLM


def open_published(
    name: str,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype | None,
    device_map: DeviceMap = None,
) -> Checkpoint:
    """Open a published checkpoint. bfloat16 on a GPU, float32 on a CPU, unless asked otherwise."""
    vocabulary = Vocabulary.from_folder(folder)
    layout = find_layout(folder)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    check_vocabulary(layout, vocabulary)
    if device_map is None:
        require_memory(model_bytes(folder, dtype), device, f"'{name}' in {str(dtype).removeprefix('torch.')}")
    if layout.config.audio_encoder is not None and dtype == torch.bfloat16:
        # What the models were trained with; config.json can say otherwise.
        layout.config.audio_encoder.setdefault("legacy_bf16_positions", True)

    model = layout.model_class.from_pretrained(
        folder, config=layout.config, dtype=dtype, device_map=device_map or str(device)
    )
    # Tokenizer and decoder are small and were published in float32; half precision would change ids and voice.
    vocoder = Glm4VoiceVocoder.from_pretrained(layout.decoder, device)
    ears: SpeechInput
    if layout.mvn is not None:
        ears = SenseVoiceInput(model, vocabulary, SenseVoiceFrontend.from_file(layout.mvn))
    else:
        ears = Glm4VoiceInput(Glm4VoiceTokenizer.from_pretrained(layout.tokenizer, device), vocabulary)
    check_codebook(vocabulary, vocoder.codebook_size, layout.decoder)
    return Checkpoint(
        name=name,
        folder=folder,
        model=model,
        vocabulary=vocabulary,
        speech=SpeechParts(ears, vocoder),
        system=persona("Luke", "male"),
        context_turns=CONTEXT_TURNS,
        **generation_defaults(folder, vocabulary),
    )


def find_layout(folder: Path) -> Layout:
    """Configuration and speech parts of a model's folder; parts that are not beside it are fetched.

    Raises:
        CheckpointError: a part is missing and cannot be fetched, or the configuration contradicts itself.
    """
    config = read_config(folder)
    decoder = part_folder(GLM_DECODER, folder)
    if not isinstance(config, VitaAudioSenseVoiceConfig):
        return Layout(folder, config, decoder, part_folder(GLM_TOKENIZER, folder), None)
    mvn = folder / MVN_FILE  # copied into some repositories of Plus models
    if not mvn.is_file():
        mvn = part_folder(SENSEVOICE, folder) / MVN_FILE
    return Layout(folder, config, decoder, None, mvn)


def read_config(folder: Path) -> VitaAudioConfig:
    """``config.json``; for a Plus model completed by SenseVoice's ``config.yaml`` beside it, if there is one."""
    if family_of(folder) != PLUS_TYPE:
        return VitaAudioConfig.from_pretrained(folder)
    config = VitaAudioSenseVoiceConfig.from_pretrained(folder)
    path = folder / SENSEVOICE_CONFIG
    if path.is_file():
        try:
            conf = yaml.safe_load(path.read_text(encoding="utf-8"))["encoder_conf"]
            found = {key: conf[key] for key in _ENCODER_ARGUMENTS if key in conf}
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} has no readable encoder_conf: download it again") from error
        config.audio_encoder = {**found, **config.audio_encoder}
    ctc = stored_shapes(weight_files(folder)).get(_CTC_KEY)
    if ctc:  # its size follows from a tokenizer that nothing else needs
        config.audio_encoder.setdefault("vocab_size", ctc[0])
    return config


def part_folder(hub_id: str, model_folder: Path) -> Path:
    """The folder of a speech part: beside the model, in the hub's cache, or fetched.

    Raises:
        CheckpointError: it is nowhere and cannot be fetched.
    """
    part = SPEECH_PARTS[hub_id]
    found = hub.folder_beside(hub_id, model_folder)
    if found is not None:
        return found
    try:
        return hub.fetch(hub_id, part.files)
    except CheckpointError as error:
        raise CheckpointError(
            f"{model_folder} needs the {part.purpose} {hub_id}: {error}, or put it at "
            f"{model_folder.absolute().parent / hub_id.split('/')[1]}"
        ) from error


def check_vocabulary(layout: Layout, vocabulary: Vocabulary) -> None:
    """Raises CheckpointError where tokenizer and model do not belong together."""
    if len(vocabulary) > layout.config.vocab_size:
        raise CheckpointError(
            f"{layout.folder}: tokenizer.json has {len(vocabulary)} tokens, vocab_size in config.json is "
            f"{layout.config.vocab_size}: use the files that belong together"
        )
    if layout.mvn is not None:
        _ = vocabulary.context_of_audio  # refuses a tokenizer without it


def check_codebook(vocabulary: Vocabulary, codes: int, source: Path) -> None:
    """Raises CheckpointError where the language model speaks tokens that the speech part does not know."""
    if vocabulary.audio_count != codes:
        raise CheckpointError(
            f"the tokenizer has {vocabulary.audio_count} audio tokens, {source} has {codes} codes: use the speech "
            "parts that belong to the model"
        )


def model_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Memory of a folder's weights in ``dtype``, from the files' headers."""
    return sum(torch.Size(shape).numel() for shape in stored_shapes(weight_files(folder)).values()) * dtype.itemsize
