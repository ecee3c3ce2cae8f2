"""Files of the Hugging Face hub: what a download would fetch, the download itself, what is here already.

Downloads resume where they were cut off and show their progress; nothing is fetched that was not asked for,
in particular no program code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vita.errors import CheckpointError

MODEL_FILES = ("*.json", "*.txt", "*.safetensors", "am.mvn", "config.yaml")
"""What a language model's repository is asked for."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository."""

    name: str
    bytes: int
    cached: bool
    """Whether it is on this machine."""


def listing(hub_id: str, patterns: Sequence[str] = MODEL_FILES) -> list[HubFile]:
    """The files a download would bring, without downloading.

    Raises:
        CheckpointError: no such repository, or the hub cannot be reached.
    """
    files = _hub_call(hub_id, patterns, dry_run=True)
    return [HubFile(file.filename, file.file_size or 0, file.is_cached) for file in files]


def fetch(hub_id: str, patterns: Sequence[str] = MODEL_FILES) -> Path:
    """The folder with these files, downloading what is missing.

    Raises:
        CheckpointError: no such repository, or files are missing and the hub cannot be reached.
    """
    return Path(_hub_call(hub_id, patterns))


def cached(hub_id: str, patterns: Sequence[str] = MODEL_FILES) -> Path | None:
    """The folder with these files if all of them are on this machine."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def folder_beside(hub_id: str, model_folder: Path) -> Path | None:
    """Where a speech part lies near a model's folder: inside it, beside it, or as ``owner/name`` beside its owner."""
    owner, name = hub_id.split("/")
    model_folder = model_folder.absolute()
    for place in (model_folder / name, model_folder.parent / name, model_folder.parent.parent / owner / name):
        if place.is_dir():
            return place
    return None


def _hub_call(hub_id: str, patterns: Sequence[str], **options: bool) -> str | list:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        DryRunError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return snapshot_download(hub_id, allow_patterns=list(patterns), **options)
    except GatedRepoError as error:
        raise CheckpointError(
            f"'{hub_id}' asks for its licence to be accepted first: do so on its hub page and log in"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(f"the hub has no model '{hub_id}', or it is private: check the id") from error
    except (DryRunError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"'{hub_id}' is not on this machine and the hub cannot be reached: connect to the network, or give the "
            "folder of a copy"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"'{hub_id}' has none of {', '.join(patterns)}: it is another kind of model") from error
