"""Strict loading of checkpoint folders in safetensors: every key and shape must fit, or nothing is loaded.

Knows files and names, not what the tensors mean. transformers' own loader is not used because it leaves buffers
that are computed rather than stored (position tables) uninitialised and only warns about missing keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vita.errors import CheckpointError
from vita.weights import key_difference


def weight_files(folder: str | Path) -> list[Path]:
    """The weight files of a checkpoint folder: ``model.safetensors`` or every shard its index names.

    Raises CheckpointError when there are none or a shard is missing.
    """
    folder = Path(folder)
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise CheckpointError(
            f"{folder} has no weights: expected model.safetensors or model.safetensors.index.json; "
            "download the checkpoint again or give another folder."
        )
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of shards ({error}); download it again.") from error
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}, named by {index.name}; download the missing files."
        )
    return [folder / name for name in shards]


def stored_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every stored tensor, from the files' headers alone.

    Raises CheckpointError for a file that cannot be read.
    """
    shapes = {}
    for file in files:
        with open_weights(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                shapes[key] = tuple(tensors.get_slice(key).get_shape())
    return shapes


def check_fit(
    expected: Mapping[str, Tensor],
    files: Iterable[Path],
    owner: str,
    unused: Callable[[str], bool] = lambda key: False,
) -> None:
    """Compare names and shapes in the files' headers with ``expected``, before any weight is read.

    Raises CheckpointError with the missing, unexpected and misshapen keys, or for a file that cannot be read.
    """
    files = list(files)
    found = {key: torch.empty(shape, device="meta") for key, shape in stored_shapes(files).items()}
    problem = key_difference(expected, found, unused=unused)
    if problem:
        source = files[0] if len(files) == 1 else files[0].parent
        raise CheckpointError(
            f"{source} does not fit {owner}: {problem}; use the config.json that belongs to these weights "
            "or download the checkpoint again."
        )


def load_weights(
    model: nn.Module,
    files: Iterable[Path],
    dtype: torch.dtype,
    device_of: Callable[[str], torch.device],
    unused: Callable[[str], bool] = lambda key: False,
) -> None:
    """Give ``model`` every stored tensor, as ``dtype`` on ``device_of(key)``, file by file; see `check_fit` first.

    The tensors replace what is there, so the model may live on the meta device. Integers keep their type.
    """
    for file in files:
        weights = {}
        with open_weights(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                if not unused(key):
                    tensor = tensors.get_tensor(key)
                    weights[key] = tensor.to(device_of(key), dtype if tensor.is_floating_point() else None)
        model.load_state_dict(weights, strict=False, assign=True)  # each file holds a part


def open_weights(file: Path) -> safe_open:
    """Open a safetensors file; CheckpointError when it is missing, truncated or something else."""
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is truncated or not a safetensors file ({error}); delete it and download it again."
        ) from error
