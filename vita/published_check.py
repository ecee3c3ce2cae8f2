"""Compares the files of a published checkpoint and of its speech parts with what would be built from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from vita import hub
from vita.errors import CheckpointError, VitaError
from vita.model.causal_lm import VitaAudioForCausalLM, VitaAudioSenseVoiceForCausalLM
from vita.model.checkpoint import check_fit, open_weights, weight_files
from vita.published import (
    GLM_DECODER,
    GLM_TOKENIZER,
    MVN_FILE,
    SENSEVOICE,
    check_codebook,
    part_folder,
    read_config,
)
from vita.registry import PLUS_TYPE, SPEECH_PARTS, family_of
from vita.speech.glm4voice_tokenizer import Glm4VoiceTokenizer
from vita.speech.glm4voice_vocoder import Glm4VoiceVocoder
from vita.speech.sensevoice_frontend import read_mvn
from vita.vocabulary import Vocabulary
from vita.weights import key_difference, read_weights

SENSEVOICE_WEIGHTS = "model.pt"
Finding = tuple[str, str | None]
"""What was looked at, and what is wrong with it."""


def compare_model(folder: Path, deep: bool) -> Iterator[Finding]:
    """Configuration, tokenizer, names and shapes of all weights; with ``deep`` their values too."""
    yield from _finding("tokenizer", lambda: _vocabulary_fits(folder))
    yield from _finding("weights", lambda: _weights_fit(folder))
    if deep:
        for file in weight_files(folder):
            yield from _finding(file.name, lambda file=file: _weights_readable(file))


def compare_parts(folder: Path, deep: bool) -> Iterator[Finding]:
    """The speech parts: small, so they are opened as for use; missing ones are fetched if ``deep``."""
    plus = family_of(folder) == PLUS_TYPE
    if plus:
        included = (folder / MVN_FILE).is_file()
        yield from _part(SENSEVOICE, folder, deep, lambda path: read_mvn(path / MVN_FILE), included)
        original = hub.folder_beside(SENSEVOICE, folder)
        if deep and original is not None and (original / SENSEVOICE_WEIGHTS).is_file():
            path = original / SENSEVOICE_WEIGHTS
            yield from _finding(SENSEVOICE_WEIGHTS, lambda: _same_encoder(folder, path))
    else:
        yield from _part(
            GLM_TOKENIZER, folder, deep,
            lambda path: _codes_fit(folder, Glm4VoiceTokenizer.from_pretrained(path).codebook_size, path),
        )  # fmt: skip
    yield from _part(
        GLM_DECODER, folder, deep,
        lambda path: _codes_fit(folder, Glm4VoiceVocoder.from_pretrained(path).codebook_size, path),
    )  # fmt: skip


def build_on_meta(folder: Path) -> VitaAudioForCausalLM:
    """The language model of a folder's configuration, without memory for its weights."""
    config = read_config(folder)
    plus = config.audio_encoder is not None
    with torch.device("meta"):
        return (VitaAudioSenseVoiceForCausalLM if plus else VitaAudioForCausalLM)(config)


def _part(
    hub_id: str, folder: Path, deep: bool, use: Callable[[Path], object], included: bool = False
) -> Iterator[Finding]:
    name = hub_id.split("/")[1]
    if included:
        yield from _finding(name, lambda: use(folder))
        return
    here = hub.folder_beside(hub_id, folder) or hub.cached(hub_id, SPEECH_PARTS[hub_id].files)
    if here is None and not deep:
        yield name, f"{hub_id} is not here yet: 'check --deep' fetches it"
        return
    yield from _finding(name, lambda: use(here or part_folder(hub_id, folder)))


def _vocabulary_fits(folder: Path) -> None:
    vocabulary, config = Vocabulary.from_folder(folder), read_config(folder)
    if len(vocabulary) > config.vocab_size:
        raise CheckpointError(f"tokenizer.json has {len(vocabulary)} tokens, config.json {config.vocab_size}")
    if config.audio_encoder is not None:
        _ = vocabulary.context_of_audio  # refuses a tokenizer without it


def _codes_fit(folder: Path, codes: int, source: Path) -> None:
    check_codebook(Vocabulary.from_folder(folder), codes, source)


def _weights_fit(folder: Path) -> None:
    model = build_on_meta(folder)
    check_fit(model._stored_tensors(), weight_files(folder), type(model).__name__, model._is_unused)


def _same_encoder(folder: Path, path: Path) -> None:
    """SenseVoice's own weights have the shapes of those in the model, where they stand under one more name."""
    expected = build_on_meta(folder).model.audio_model.state_dict()
    problem = key_difference(expected, {f"model.{key}": tensor for key, tensor in read_weights(path).items()})
    if problem:
        raise CheckpointError(f"{path} is not the encoder of {folder}: {problem}")


def _weights_readable(file: Path) -> None:
    """Reads every tensor once, one at a time."""
    with open_weights(file) as tensors:
        for key in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
            tensor = tensors.get_tensor(key)
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise CheckpointError(f"{file}: {key} holds NaN or infinite values; download the file again")


def _finding(topic: str, look: Callable[[], object]) -> Iterator[Finding]:
    try:
        look()
    except (VitaError, OSError, ValueError, RuntimeError) as error:
        yield topic, str(error).splitlines()[0] if str(error) else type(error).__name__
    else:
        yield topic, None
