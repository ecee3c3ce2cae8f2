"""Opens a checkpoint: model, vocabulary, speech parts and what its authors chose for prompts and sampling.

One opener per checkpoint family. To add one, write a function like :func:`open_nano` and name it in OPENERS.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from vita.decoding.sampling import Sampling
from vita.device import choose_device, choose_dtype
from vita.errors import CheckpointError
from vita.model.causal_lm import VitaAudioForCausalLM
from vita.model.placement import DeviceMap
from vita.prompts import persona
from vita.registry import PLUS_TYPE, TOKEN_TYPE, family_of, find, locate, read_json
from vita.speech.codecs import REFUSED
from vita.speech.parts import NanoSpeechInput, SpeechParts
from vita.vocabulary import Vocabulary

GENERATION_FILE = "generation_config.json"
MAX_NEW_TOKENS = 512
"""Where a checkpoint says nothing; about half a minute of speech."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything one model needs to talk."""

    name: str
    folder: Path
    model: VitaAudioForCausalLM
    vocabulary: Vocabulary
    speech: SpeechParts
    system: str
    """System message of a spoken conversation."""
    context_turns: int
    """Earlier turns the model was trained to remember."""
    sampling: Sampling
    max_new_tokens: int
    eos_ids: frozenset[int]


Opener = Callable[[str, Path, torch.device, torch.dtype | None, DeviceMap], Checkpoint]


def open_checkpoint(
    name: str | os.PathLike,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: DeviceMap = None,
) -> Checkpoint:
    """Open a model by registry name, folder or hub id.

    ``device_map`` places the language model ("auto" spreads it over all GPUs); the rest is on ``device``.

    Raises:
        CheckpointError: unknown, missing, damaged, or of a family this version cannot open.
    """
    chosen_device, chosen_dtype = choose_device(device), choose_dtype(dtype)
    entry = find(name)
    if entry is not None:
        _require_opener(entry.family, name)  # before anything is downloaded
    folder = locate(name)
    opener = _require_opener(family_of(folder), name)
    label = entry.name if entry is not None else str(name)
    try:
        return opener(label, folder, chosen_device, chosen_dtype, device_map)
    except torch.OutOfMemoryError as error:
        raise CheckpointError(f"'{label}' does not fit into the memory of {chosen_device}: use a larger one") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        # What the libraries say about a damaged file has many shapes; a person needs one line.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the checkpoint in {folder} cannot be opened ({reason}): download it again") from error


def _require_opener(family: str, name: str | os.PathLike) -> Opener:
    opener = OPENERS.get(family)
    if opener is not None:
        return opener
    if family in REFUSED:
        raise CheckpointError(f"'{name}' speaks with the codec '{family}'. {REFUSED[family]}")
    raise CheckpointError(
        f"'{name}' is a checkpoint of the unknown kind '{family}': this version opens {', '.join(OPENERS)}"
    )


def open_nano(
    name: str, folder: Path, device: torch.device, dtype: torch.dtype | None, device_map: DeviceMap = None
) -> Checkpoint:
    """nano and models trained like it: one folder holds everything. float32 unless asked otherwise."""
    from vita.speech.nano_vocoder import NanoVocoder

    vocabulary = Vocabulary.from_folder(folder)
    model = VitaAudioForCausalLM.from_pretrained(
        folder, dtype=dtype or torch.float32, device_map=device_map or str(device)
    )
    if len(vocabulary) > model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(vocabulary)} tokens, the model {model.config.vocab_size}: "
            "use the files that belong together"
        )
    vocoder = NanoVocoder.from_pretrained(folder)
    return Checkpoint(
        name=name,
        folder=folder,
        model=model,
        vocabulary=vocabulary,
        speech=SpeechParts(NanoSpeechInput(model, vocabulary), vocoder),
        system=persona("Nano", "female"),
        context_turns=1,
        **generation_defaults(folder, vocabulary),
    )


def open_published(
    name: str, folder: Path, device: torch.device, dtype: torch.dtype | None, device_map: DeviceMap = None
) -> Checkpoint:
    """The published models and what is laid out like them."""
    from vita.published import open_published as opener  # its speech parts are not needed for nano

    return opener(name, folder, device, dtype, device_map)


def generation_defaults(folder: Path, vocabulary: Vocabulary) -> dict:
    """``sampling``, ``max_new_tokens`` and ``eos_ids`` from the checkpoint's generation_config.json, if it has one."""
    path = folder / GENERATION_FILE
    given = read_json(path) if path.is_file() else {}
    eos = given.get("eos_token_id", vocabulary.im_end)
    fields = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")
    return {
        "sampling": Sampling(**{field: given[field] for field in fields if given.get(field) is not None}),
        "max_new_tokens": given.get("max_new_tokens") or MAX_NEW_TOKENS,
        "eos_ids": frozenset([eos] if isinstance(eos, int) else eos) | {vocabulary.im_end},
    }


OPENERS: dict[str, Opener] = {"nano": open_nano, TOKEN_TYPE: open_published, PLUS_TYPE: open_published}
