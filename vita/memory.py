"""Whether a model fits into memory, asked before it is loaded instead of after the machine has given up."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from vita.errors import CheckpointError

MARGIN = 1.05
"""Beside the weights: caches of a conversation and what one forward pass needs."""


def available_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        names = ("SC_AVPHYS_PAGES", "SC_PAGE_SIZE")
        if all(name in os.sysconf_names for name in names):
            return os.sysconf(names[0]) * os.sysconf(names[1])
        return None


def require_memory(needed: int, device: torch.device, what: str) -> None:
    """Refuse what cannot fit.

    Raises:
        CheckpointError: ``needed`` bytes and a margin exceed what ``device`` has free.
    """
    free = available_bytes(device)
    if free is not None and needed * MARGIN > free:
        raise CheckpointError(
            f"{what} needs {needed * MARGIN / 1e9:.1f} GB of memory on {device}, {free / 1e9:.1f} GB are free: use "
            "another device, dtype='bfloat16', device_map='auto' for several GPUs, or nano"
        )
