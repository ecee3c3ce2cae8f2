"""The one place where the device, its precision and the number of CPU threads are decided."""

from __future__ import annotations

import os

import torch

from vita.errors import CheckpointError

THREADS_VARIABLE = "VITA_THREADS"


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The asked-for device, or the GPU if there is one, or the CPU.

    Raises:
        CheckpointError: no such device.
    """
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"there is no device {device!r}: write cpu, cuda or cuda:1") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"there is no GPU for {device!r}: use cpu, or install a CUDA build of torch")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A torch dtype from its name; None leaves the choice to the checkpoint.

    Raises:
        CheckpointError: not a floating-point type.
    """
    if dtype is None or dtype == "auto":
        return None
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise CheckpointError(f"there is no precision {dtype!r}: write float32, bfloat16 or float16")
    return chosen


def limit_threads() -> int:
    """Set the CPU threads of this process: ``VITA_THREADS``, else one.

    One is the default because a model this small gains little from more, and threads that spin on a busy
    machine cost several times what they bring.
    """
    given = os.environ.get(THREADS_VARIABLE, "1")
    threads = int(given) if given.isdigit() and int(given) > 0 else 1
    torch.set_num_threads(threads)
    return threads
