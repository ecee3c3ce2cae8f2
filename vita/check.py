"""``python -m vita check``: what a model needs before anything is downloaded, and whether its files fit afterwards.

Without ``--deep`` nothing is downloaded and no weight is read: files that are here are compared by their headers.
With it, missing files are fetched and every weight is read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vita import hub
from vita.device import choose_device
from vita.errors import CheckpointError
from vita.memory import MARGIN, available_bytes
from vita.registry import PLUS_TYPE, SPEECH_PARTS, TOKEN_TYPE, ModelEntry, family_of, find, format_bytes, locate


@dataclass(slots=True)
class Report:
    """What was found out, line by line, and what is wrong."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def say(self, topic: str, text: str) -> None:
        self.lines.append(f"{topic + ':':<10} {text}")

    def text(self) -> str:
        verdict = [f"problem:   {problem}" for problem in self.problems] or ["result:    everything fits"]
        return "\n".join([*self.lines, *verdict])


def check(name: str, deep: bool = False, device: str | None = None) -> Report:
    """Check a model by registry name, folder or hub id.

    Raises:
        CheckpointError: there is no such model.
    """
    report = Report()
    entry = find(name)
    on_device = choose_device(device)
    report.say("model", entry.name if entry else str(name))
    if entry is not None:
        report.say("about", entry.description)
        report.say("licence", entry.licence)
        report.say("hardware", entry.hardware)
    folder = _folder_here(name, entry)
    if folder is None:
        _plan_download(report, str(name), entry)
        if not deep:
            if entry is not None and entry.bytes is not None:
                _compare_memory(report, entry.bytes + _part_bytes(entry), on_device, torch.bfloat16)
            report.lines.append("files:     not here yet; 'check --deep' downloads and compares them")
            return report
        folder = locate(name)
    report.say("folder", str(folder))
    for topic, problem in _compare(folder, deep, on_device, report):
        report.say(topic, problem or "fits")
        if problem:
            report.problems.append(problem)
    return report


def _folder_here(name: str, entry: ModelEntry | None) -> Path | None:
    if Path(name).is_dir() or (entry is not None and entry.folder is not None):
        return locate(name)
    return hub.cached(str(name)) if "/" in str(name) else locate(name)


def _plan_download(report: Report, hub_id: str, entry: ModelEntry | None) -> None:
    """Say what a download would bring: from the hub if it can be asked, else from the table."""
    parts = entry.parts if entry else ()
    total = 0
    for repository, patterns in [(hub_id, hub.MODEL_FILES), *((part, SPEECH_PARTS[part].files) for part in parts)]:
        known = SPEECH_PARTS[repository].bytes if repository in SPEECH_PARTS else entry.bytes if entry else None
        try:
            files = hub.listing(repository, patterns)
        except CheckpointError:
            if known is None:
                raise
            report.say("download", f"{repository}, about {format_bytes(known)} (the hub cannot be reached now)")
            total += known
            continue
        missing = [file for file in files if not file.cached]
        size = sum(file.bytes for file in missing)
        report.say("download", f"{repository}, {len(missing)} of {len(files)} files, {format_bytes(size)}")
        total += size
    report.say("in all", f"{format_bytes(total)}; an interrupted download goes on where it stopped")


def _part_bytes(entry: ModelEntry) -> int:
    return sum(SPEECH_PARTS[part].bytes for part in entry.parts)


def _compare_memory(report: Report, needed: int, device: torch.device, dtype: torch.dtype) -> None:
    free = available_bytes(device)
    kind = str(dtype).removeprefix("torch.")
    text = f"{format_bytes(round(needed * MARGIN))} in {kind} on {device}"
    if free is None:
        report.say("memory", text)
        return
    report.say("memory", f"{text}, {format_bytes(free)} free")
    if needed * MARGIN > free:
        report.problems.append(f"too little memory on {device}: {format_bytes(free)} free, {text} needed; use another "
                               "device, or device_map='auto' for several GPUs")


def _compare(
    folder: Path, deep: bool, device: torch.device, report: Report
) -> Iterator[tuple[str, str | None]]:
    """What is looked at, and what is wrong with it."""
    try:
        family = family_of(folder)
    except CheckpointError as error:
        yield "config", str(error)
        return
    if family not in (TOKEN_TYPE, PLUS_TYPE):
        yield from _by_opening(folder, family)
        return
    from vita.published import model_bytes
    from vita.published_check import compare_model, compare_parts

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        _compare_memory(report, model_bytes(folder, dtype), device, dtype)
    except CheckpointError as error:
        yield "weights", str(error)
        return
    yield from compare_model(folder, deep)
    yield from compare_parts(folder, deep)


def _by_opening(folder: Path, family: str) -> Iterator[tuple[str, str | None]]:
    """Small models are simply opened."""
    from vita.checkpoint import open_checkpoint

    try:
        open_checkpoint(folder, "cpu")
    except CheckpointError as error:
        yield family, str(error)
    else:
        yield family, None
