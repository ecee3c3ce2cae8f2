"""The models this project knows by name, as one table, and how a name becomes a folder on disk."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from vita import hub
from vita.errors import CheckpointError

BUNDLED = Path(__file__).parent / "checkpoints"
CONFIG_FILE, CODEC_FILE = "config.json", "codec.json"
DEFAULT_MODEL = "nano"

PLUS_TYPE, TOKEN_TYPE = "qwen2_mtp_sensevoice", "qwen2_mtp"
"""``model_type`` of the published checkpoints: SenseVoice features in, or GLM-4-Voice tokens in."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of the table."""

    name: str
    """What a user writes: a short name, or the id on the Hugging Face hub."""
    family: str
    """Which loader opens it, see ``vita.checkpoint.OPENERS``."""
    description: str
    parameters: int | None
    """None: counted in the bundled file."""
    licence: str
    hardware: str
    folder: Path | None = None
    """Where it lies if it is part of this package."""
    parts: tuple[str, ...] = ()
    """Hub ids of the speech parts it needs besides its own files."""

    @property
    def bytes(self) -> int | None:
        """Size of the published weights, which are bfloat16."""
        return None if self.parameters is None else 2 * self.parameters


@dataclass(frozen=True, slots=True)
class SpeechPart:
    """A repository that published models need besides their own."""

    purpose: str
    files: tuple[str, ...]
    """What is fetched of it."""
    bytes: int
    licence: str


SPEECH_PARTS: dict[str, SpeechPart] = {
    "THUDM/glm-4-voice-tokenizer": SpeechPart(
        "speech tokenizer", ("config.json", "preprocessor_config.json", "model.safetensors"), 1_460_000_000,
        "GLM-4 licence (commercial use needs registration)",
    ),
    "THUDM/glm-4-voice-decoder": SpeechPart(
        "vocoder", ("config.yaml", "flow.pt", "hift.pt"), 527_000_000,
        "GLM-4 licence (commercial use needs registration)",
    ),
    "FunAudioLLM/SenseVoiceSmall": SpeechPart(
        "feature statistics", ("am.mvn",), 11_000, "FunASR model licence 1.1 (attribution)",
    ),
}  # fmt: skip
"""Hub id -> part. The Plus models carry SenseVoice's weights themselves and need its feature statistics only."""

_TOKENIZER, _DECODER, _SENSEVOICE = SPEECH_PARTS
_TOKEN_LICENCES = "weights: model card; speech parts: GLM-4 licence, commercial use needs registration"
_PLUS_LICENCES = f"{_TOKEN_LICENCES}; SenseVoice: FunASR model licence 1.1, attribution"

MODELS: tuple[ModelEntry, ...] = (
    ModelEntry(
        "nano", "nano", "embedded English speech-to-speech model with 10 MCTP modules, trained by this project",
        None, "Apache-2.0", "any CPU", BUNDLED / "nano",
    ),
    ModelEntry(
        "VITA-MLLM/VITA-Audio-Boost", TOKEN_TYPE, "7B, 10 MCTP modules, trained for Boost; voice prompts",
        10_317_912_576, _TOKEN_LICENCES, "GPU with 24 GB", parts=(_TOKENIZER, _DECODER),
    ),
    ModelEntry(
        "VITA-MLLM/VITA-Audio-Balance", TOKEN_TYPE, "7B, 10 MCTP modules, trained for Balance; voice prompts",
        10_317_912_576, _TOKEN_LICENCES, "GPU with 24 GB", parts=(_TOKENIZER, _DECODER),
    ),
    ModelEntry(
        "VITA-MLLM/VITA-Audio-Plus-Vanilla", PLUS_TYPE, "7B, SenseVoice input, no MCTP modules",
        7_979_042_111, _PLUS_LICENCES, "GPU with 20 GB", parts=(_SENSEVOICE, _DECODER),
    ),
    ModelEntry(
        "VITA-MLLM/VITA-Audio-Plus-Boost", PLUS_TYPE, "7B, SenseVoice input, 10 MCTP modules",
        10_566_592_831, _PLUS_LICENCES, "GPU with 24 GB", parts=(_SENSEVOICE, _DECODER),
    ),
)  # fmt: skip


def find(name: str | os.PathLike) -> ModelEntry | None:
    """The table's entry of that name, whatever its case; None for other folders and hub ids."""
    wanted = str(name).lower()
    return next((entry for entry in MODELS if entry.name.lower() == wanted), None)


def locate(name: str | os.PathLike) -> Path:
    """The folder of a model: a bundled one, a folder on this machine, or a hub id, fetched if it is not cached.

    Raises:
        CheckpointError: there is no such model, or it cannot be fetched.
    """
    entry = find(name)
    if entry is not None and entry.folder is not None:
        if not entry.folder.is_dir():
            raise CheckpointError(
                f"the weights of '{entry.name}' are missing ({entry.folder}): clone the repository again or "
                "give another --model"
            )
        return entry.folder
    path = Path(name)
    if path.is_dir():
        if not (path / CONFIG_FILE).is_file():
            raise CheckpointError(f"the folder '{path}' holds no {CONFIG_FILE}: give the folder of a checkpoint")
        return path
    if entry is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        known = ", ".join(entry.name for entry in MODELS)
        raise CheckpointError(f"there is no model '{name}': use a folder, a hub id such as owner/name, or {known}")
    return hub.fetch(str(name))


def family_of(folder: Path) -> str:
    """Which loader opens this folder: the codec's type if it has one, else the ``model_type`` of its configuration.

    Raises:
        CheckpointError: a file is damaged.
    """
    codec = folder / CODEC_FILE
    if codec.is_file():
        return str(read_json(codec).get("type"))
    return str(read_json(folder / CONFIG_FILE).get("model_type"))


def read_json(path: Path) -> dict:
    """A JSON object from a checkpoint's file; CheckpointError when it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: download the checkpoint again") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object: download it again")
    return content


def table() -> str:
    """The known models, and the speech parts the published ones need, as aligned text for a terminal."""
    models = [("NAME", "PARAMETERS", "SIZE", "HARDWARE", "SPEECH PARTS", "LICENCE", "DESCRIPTION")]
    for entry in MODELS:
        parts = ", ".join(part.split("/")[1] for part in entry.parts) or "included"
        models.append((entry.name, *_size(entry), entry.hardware, parts, entry.licence, entry.description))
    speech = [("SPEECH PART", "SIZE", "PURPOSE", "LICENCE")]
    for hub_id, part in SPEECH_PARTS.items():
        speech.append((hub_id, format_bytes(part.bytes), part.purpose, part.licence))
    return f"{_aligned(models)}\n\n{_aligned(speech)}"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def format_bytes(count: int) -> str:
    """``20.6 GB``, ``12 MB``, ``11 kB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.{0 if count >= 100 * size else 1}f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _size(entry: ModelEntry) -> tuple[str, str]:
    """Parameters and bytes of the weights, as text; counted in the file where the model is bundled."""
    if entry.parameters is not None:
        return f"{entry.parameters / 1e9:.2f} B", format_bytes(entry.bytes)
    files = list(entry.folder.glob("*.safetensors")) if entry.folder else []
    if not files:
        return "?", "missing"
    from vita.model.checkpoint import stored_shapes

    count = sum(_product(shape) for shape in stored_shapes(files).values())
    return f"{count / 1e6:.1f} M", format_bytes(sum(file.stat().st_size for file in files))


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
