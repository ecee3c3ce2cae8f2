"""A run on disk: written as it happens, readable at any moment, continued after any interruption.

    runs/<suite>/<model>/<UTC>-<configuration hash>/
        run.json       header, written first: schema, status, configuration, fingerprints
        config.yaml    the configuration, for people
        env.json       code, packages, machine
        items.jsonl    what was asked
        outputs.jsonl  one line per answer, appended and synced; a torn last line is dropped on resume
        heard.jsonl    what the judge heard, likewise
        scores.jsonl   statistics and value per answer and metric
        summary.json   values per task, mode and subset
        tables/        comparison tables, md and csv
        audio/         every spoken answer
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import soundfile
import yaml

from eval.errors import EvalError

SCHEMA = 1
COMPARED = ("suite", "data", "system", "modes", "tasks", "limit", "repeats", "warmup", "seed")
"""Configuration fields that must agree before a run may be continued."""


def digest(value: object) -> str:
    """sha256 of the value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns failures of the file system into one line that says what to do; nothing written before is lost."""
    try:
        yield
    except PermissionError:
        raise EvalError(f"no permission to write {path}: choose another folder with --out") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise EvalError(f"cannot write {path} ({reason}): mend that and start the same command again, it continues"
                        ) from None


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def to_jsonl(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path) -> list[dict]:
    """All complete lines; a torn last line is left out.

    Raises:
        EvalError: a line that is not the last is broken.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise EvalError(f"{path}:{number} is damaged: delete that line, the item is then done again") from None
    return rows


class Journal:
    """An append-only JSONL file: after `append` returns, the line survives a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read_jsonl(path)
        self._cut_torn_line()

    def _cut_torn_line(self) -> None:
        if not self.path.exists():
            return
        with explained(self.path), open(self.path, "r+b") as file:
            content = file.read()
            end = content.rfind(b"\n") + 1
            if end != len(content):
                tail = content[end:]
                try:
                    json.loads(tail)
                except ValueError:
                    file.truncate(end)
                else:
                    file.write(b"\n")

    def append(self, row: dict) -> None:
        with explained(self.path), open(self.path, "ab") as file:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)


class RunFolder:
    """One run. Made by `open_run` (to write) or `read_run` (to look at)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = _read_header(path)
        self._lock: io.IOBase | None = None

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def config(self) -> dict:
        return self.header["config"]

    def items(self) -> list[dict]:
        return read_jsonl(self.path / "items.jsonl")

    def journal(self, name: str) -> Journal:
        return Journal(self.path / f"{name}.jsonl")

    def lock(self) -> None:
        """Keep other processes out until `release` or the end of this one.

        Raises:
            EvalError: another process has the run.
        """
        with explained(self.path):
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held until `release`
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EvalError(f"{self.path} is being written by another process: wait for it, or use another --out"
                            ) from None

    def release(self) -> None:
        """Let other processes in again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def set_status(self, status: str) -> None:
        self.header["status"] = status
        self.header[status] = _now().isoformat(timespec="seconds")
        write_whole(self.path / "run.json", json.dumps(self.header, indent=1, ensure_ascii=False) + "\n")

    def save_audio(self, name: str, samples: np.ndarray, sample_rate: int) -> dict:
        """Keep the speech as 16-bit FLAC. Returns its file (relative), hash of the PCM, seconds and rate."""
        pcm = (np.clip(samples, -1, 1) * 32767).round().astype("<i2")
        relative = Path("audio") / f"{name}.flac"
        target = self.path / relative
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            encoded = io.BytesIO()
            soundfile.write(encoded, pcm, sample_rate, format="FLAC", subtype="PCM_16")
            target.write_bytes(encoded.getvalue())
        return {"file": relative.as_posix(), "sha256": hashlib.sha256(pcm.tobytes()).hexdigest(),
                "seconds": len(pcm) / sample_rate, "sample_rate": sample_rate}

    def load_audio(self, audio: dict) -> tuple[np.ndarray, int]:
        """Mono float32 ``[n]`` and rate of a kept answer.

        Raises:
            EvalError: it is gone or damaged.
        """
        path = self.path / audio["file"]
        try:
            return soundfile.read(path, dtype="float32")
        except (OSError, soundfile.SoundFileError) as error:
            raise EvalError(f"{path} of the run cannot be read ({error}): it cannot be judged; delete its line in "
                            "outputs.jsonl to have it made again") from None


def _now() -> datetime:
    return datetime.now(UTC)


def _read_header(path: Path) -> dict:
    try:
        header = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvalError(f"{path} is not a run ({error}): give a folder that holds run.json") from None
    if header.get("schema") != SCHEMA:
        raise EvalError(f"{path} has schema {header.get('schema')}, this version reads {SCHEMA}: measure again")
    return header


def read_run(path: Path) -> RunFolder:
    """A run that exists, to be read or scored again."""
    return RunFolder(path)


def open_run(out: Path, config: dict, items: list[dict], environment: dict, resume: bool = True) -> RunFolder:
    """The unfinished run of exactly this configuration, or a new one; locked for this process.

    Raises:
        EvalError: cannot be written, is in use, or was made with something else.
    """
    parent = out / config["suite"] / config["system"]["model"].replace("/", "--")
    fingerprint = digest(config)[:12]
    if resume:
        for path in sorted(parent.glob(f"*-{fingerprint}"), reverse=True):
            if (path / "run.json").exists() and _read_header(path)["status"] != "complete":
                run = RunFolder(path)
                run.lock()
                _check_same(run, config)
                return run
    path = _new_folder(parent, fingerprint)
    write_whole(path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_whole(path / "env.json", json.dumps(environment, indent=1, ensure_ascii=False) + "\n")
    write_whole(path / "items.jsonl", to_jsonl(items))
    header = {"schema": SCHEMA, "status": "generating", "started": _now().isoformat(timespec="seconds"),
              "config": config}
    write_whole(path / "run.json", json.dumps(header, indent=1, ensure_ascii=False) + "\n")
    run = RunFolder(path)
    run.lock()
    return run


def _new_folder(parent: Path, fingerprint: str) -> Path:
    """``<UTC>-<fingerprint>``; runs begun in the same second are numbered."""
    stamp = f"{_now():%Y%m%dT%H%M%SZ}"
    number = 1
    while (path := parent / f"{stamp}{'' if number == 1 else f'.{number}'}-{fingerprint}").exists():
        number += 1
    with explained(path):
        path.mkdir(parents=True)
    return path


def _check_same(run: RunFolder, config: dict) -> None:
    for name in COMPARED:
        if run.config.get(name) != config.get(name):
            raise EvalError(f"{run.path} was made with another {name} ({run.config.get(name)!r}, now "
                            f"{config.get(name)!r}): start afresh with --no-resume")
