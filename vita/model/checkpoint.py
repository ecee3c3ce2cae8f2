"""Strict loading of safetensors weights: every key and shape must fit, or the message says which does not.

Knows nothing about what the tensors mean. transformers' own loader is not used because it leaves buffers that are
computed rather than stored (position tables of audio encoders) uninitialised, and only warns about missing keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from vita.errors import CheckpointError

_NAMES_SHOWN = 4


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint folder: ``model.safetensors`` or every shard its index names."""
    folder = Path(folder)
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise CheckpointError(
            f"{folder} has no weights: expected model.safetensors or model.safetensors.index.json; "
            "download the checkpoint again or give another folder"
        )
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a shard index ({error}); download it again") from error
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {_some(missing)}, named by {index.name}; download the missing files")
    return [folder / name for name in shards]


def stored_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every stored tensor, from the files' headers alone."""
    shapes = {}
    for file in files:
        with _opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    return shapes


def check_fit(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], source: Path) -> None:
    """Raise CheckpointError unless names and shapes agree exactly."""
    differences = []
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    misshaped = [
        f"{name} {_shape(found[name])} instead of {_shape(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    for kind, names in (("missing", missing), ("unexpected", extra), ("of another shape", misshaped)):
        if names:
            differences.append(f"{len(names)} {kind}: {_some(names)}")
    if differences:
        raise CheckpointError(
            f"{source} does not fit its config.json: {'; '.join(differences)}; "
            "use the config.json that belongs to these weights or download the checkpoint again"
        )


def load_weights(
    model: nn.Module, files: Iterable[Path], dtype: torch.dtype, device_of: Callable[[str], torch.device]
) -> None:
    """Put every stored tensor into the parameter or buffer of that name, as ``dtype`` on ``device_of(name)``.

    Works on meta-device models: the tensors replace what is there. Integer tensors keep their type.
    """
    for file in files:
        with _opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point():
                    tensor = tensor.to(dtype)
                _assign(model, name, tensor.to(device_of(name)))


def _assign(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if leaf in owner._parameters:
        trainable = owner._parameters[leaf].requires_grad
        owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=trainable)
    else:
        owner._buffers[leaf] = tensor


def _opened(file: Path):
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} cannot be read as safetensors ({error}); it is truncated or another kind of file: download it again"
        ) from error


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
