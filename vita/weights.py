"""Reading weight files and fitting them into modules; every failure names the file, the key and the remedy.

Knows file formats and key names; knows nothing about what a module computes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vita.errors import CheckpointError

_SHOWN = 4
"""Keys named in a message before it is cut short: a person reads it on one line."""
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training frameworks wrap the weights they save."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read one weight file, ``*.safetensors`` or a torch pickle, onto the CPU.

    A pickle is only read with ``weights_only=True``: tensors and plain containers, never code.

    Raises:
        CheckpointError: the file is missing, truncated, of another kind, or carries code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; download the checkpoint again or give the right folder.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is truncated or not a safetensors file ({error}); delete it and download it again."
            ) from error
    return _unwrap(_read_pickle(path), path)


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise CheckpointError(
                f"{path} contains code or objects other than tensors and is refused; "
                "use weights from a source you trust, saved as safetensors or as plain tensors."
            ) from error
        raise CheckpointError(f"{path} is not a torch file ({reason}); download it again.") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is truncated or damaged ({reason}); download it again.") from error


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no table of named tensors; give a file of model weights.")
    return dict(content)


def load_strictly(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    source: str | Path,
    *,
    unused: Callable[[str], bool] = lambda key: False,
) -> None:
    """Copy ``weights`` into ``module``; every key and every shape must fit.

    Args:
        module: receives the weights, cast to the dtype and device of its own parameters.
        weights: key -> tensor, keys as in ``module.state_dict()``.
        source: the file the weights came from, for the message.
        unused: keys the file may have although the module does not use them.
    Raises:
        CheckpointError: with the missing, unexpected and misshapen keys.
    """
    problem = key_difference(module.state_dict(), weights, unused=unused)
    if problem:
        raise CheckpointError(f"{source} does not fit {type(module).__name__}: {problem}.")
    module.load_state_dict({key: tensor for key, tensor in weights.items() if not unused(key)}, strict=True)


def key_difference(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    *,
    unused: Callable[[str], bool] = lambda key: False,
) -> str:
    """Say in one line how ``found`` differs from ``expected`` in keys and shapes; empty when it does not."""
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected and not unused(key)]
    misshapen = [
        f"{key} is {_shape(found[key])}, expected {_shape(expected[key])}"
        for key in expected
        if key in found and tuple(found[key].shape) != tuple(expected[key].shape)
    ]
    parts = [_listed("missing", missing), _listed("unexpected", extra), _listed("wrong shape", misshapen)]
    return "; ".join(part for part in parts if part)


def _listed(title: str, items: Iterable[str]) -> str:
    items = list(items)
    if not items:
        return ""
    rest = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{len(items)} {title} ({', '.join(items[:_SHOWN])}{rest})"


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
