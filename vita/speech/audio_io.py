"""The one way audio comes in and goes out: a file or an array to checked mono float32, and back to a file.

Two steps, because the clock of a request starts between them: :func:`read_file` brings a file into
memory, :func:`prepare` checks an array, mixes it to mono and resamples it. :func:`load` does both.
Quiet, noisy, clipped or musical recordings are accepted as they are; what no model could answer is
refused with a message for the person who sent it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import torch

from vita.errors import AudioError
from vita.speech.features import resample

Audio = tuple[np.ndarray, int]
"""Samples, ``[n]`` or ``[n, channels]``, integer or float in [-1, 1], and their rate in Hz."""
AudioSource = Audio | str | os.PathLike

MIN_RATE, MAX_RATE = 4_000, 384_000
"""Hz; below telephone speech or above any recorder lies a broken header."""
MIN_SECONDS = 0.1
"""Shorter than any spoken word; also one whole audio token for every supported speech tokenizer."""
_MAX_CHANNELS = 32
_SILENCE = 2.0 / 32768
"""Peak-to-peak of one step of 16-bit audio: nothing but a constant or dither."""
_LOUDEST_FLOAT = 8.0
"""Float audio may overshoot 1 a little; beyond this it is unscaled integer data."""
_WRITABLE = {".wav": "PCM_16", ".flac": "PCM_16"}


def load(
    source: AudioSource,
    sample_rate: int = 16_000,
    *,
    max_seconds: float | None = 30.0,
    channel: Literal["mean", "first"] = "mean",
) -> np.ndarray:
    """Audio from a file or an array, ready for a model.

    Args:
        source: path of a file (WAV, FLAC, OGG, MP3 ...) or ``(samples, rate)``.
        sample_rate: wanted rate in Hz.
        max_seconds: longest accepted recording; None for no limit.
        channel: how several channels become one: their mean, or the first alone (published models).
    Returns:
        float32 ``[n]`` in [-1, 1] at ``sample_rate``.
    Raises:
        AudioError: the source is missing, not audio, empty, too short or too long, not finite, silent.
    """
    name = describe(source)
    audio = read_file(source, max_seconds=max_seconds) if isinstance(source, str | os.PathLike) else source
    return prepare(audio, sample_rate, max_seconds=max_seconds, channel=channel, name=name)


def describe(source: AudioSource) -> str:
    """What to call ``source`` in a message."""
    return f"'{source}'" if isinstance(source, str | os.PathLike) else "the given audio"


def read_file(path: str | os.PathLike, *, max_seconds: float | None = 30.0) -> Audio:
    """Decode a file into memory: float32 ``[n, channels]`` and its rate in Hz.

    Reads at most ``max_seconds``, so a huge or endless file costs no memory.
    """
    path = Path(path)
    if not path.exists():
        raise AudioError(f"there is no audio file '{path}': check the name")
    if path.is_dir():
        raise AudioError(f"'{path}' is a folder: give the path of one audio file")
    if path.stat().st_size == 0:
        raise AudioError(f"'{path}' is empty (0 bytes): record or export it again")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            wanted = -1 if max_seconds is None else int(max_seconds * rate) + 1
            return file.read(wanted, dtype="float32", always_2d=True), rate
    except PermissionError as error:
        raise AudioError(f"'{path}' may not be read: change its permissions") from error
    except (soundfile.SoundFileError, RuntimeError, OSError, ValueError) as error:
        raise AudioError(
            f"'{path}' is not a readable audio file: give WAV, FLAC, OGG or MP3, convert anything else (M4A, WebM)"
        ) from error


def prepare(
    audio: Audio,
    sample_rate: int = 16_000,
    *,
    max_seconds: float | None = 30.0,
    channel: Literal["mean", "first"] = "mean",
    name: str = "the given audio",
) -> np.ndarray:
    """Check ``(samples, rate)`` and bring it to mono float32 ``[n]`` in [-1, 1] at ``sample_rate``.

    Integers are scaled by their full range (8-bit unsigned around 128).
    """
    samples, rate = _unpack(audio, name)
    _check_length(samples.shape[0], rate, max_seconds, name)
    scaled = _to_float(samples, name)
    mono = scaled[:, 0] if channel == "first" else scaled.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise AudioError(f"{name} has NaN or infinite samples: record or export it again")
    if np.abs(mono).max() > _LOUDEST_FLOAT:
        raise AudioError(
            f"{name} is floating point with a peak of {np.abs(mono).max():.0f}, expected [-1, 1]: "
            "divide 16-bit values by 32768"
        )
    if np.ptp(mono) < _SILENCE:
        raise AudioError(f"{name} is digital silence: check that the microphone is on and record again")
    # Clipped last, since the resampling filter overshoots at clipped peaks.
    return resample(torch.from_numpy(np.ascontiguousarray(mono)), rate, sample_rate).clamp(-1.0, 1.0).numpy()


def _unpack(audio: Audio, name: str) -> tuple[np.ndarray, int]:
    try:
        samples, rate = audio
    except (TypeError, ValueError) as error:
        raise AudioError(f"{name} is no audio: give a path or a pair (samples, sample rate in Hz)") from error
    if isinstance(samples, int | np.integer):  # the order of scipy and of Gradio
        raise AudioError(f"{name} must be (samples, sample rate), not (sample rate, samples): swap them")
    if not isinstance(rate, int | np.integer) or isinstance(rate, bool) or not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name} has a sample rate of {rate}, expected whole Hz between {MIN_RATE} and {MAX_RATE}: "
            "give the true rate"
        )
    try:
        samples = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(f"{name} holds no samples: give a numpy array [n] or [n, channels]") from error
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2 or samples.shape[1] > _MAX_CHANNELS:
        raise AudioError(
            f"{name} has the shape {list(samples.shape)}, expected [n] or [n, channels]: transpose or mix it"
        )
    if samples.size == 0:
        raise AudioError(f"{name} has no samples: record something first")
    return samples, int(rate)


def _check_length(count: int, rate: int, max_seconds: float | None, name: str) -> None:
    seconds = count / rate
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{name} lasts {1000 * seconds:.0f} ms, at least {1000 * MIN_SECONDS:.0f} ms are needed: record again"
        )
    if max_seconds is not None and seconds > max_seconds:
        raise AudioError(f"{name} is longer than {max_seconds:g} s, the most this model understands: cut it")


def _to_float(samples: np.ndarray, name: str) -> np.ndarray:
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.signedinteger):
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    raise AudioError(f"{name} holds {samples.dtype} values, expected float in [-1, 1] or integer PCM: convert")


def check_writable(path: str | os.PathLike) -> Path:
    """Fail before the work instead of after it, when :func:`save` could not write ``path``.

    Raises:
        AudioError: unknown kind of file, no such folder, or no permission.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITABLE:
        raise AudioError(f"cannot write '{path}': give a name that ends in {' or '.join(_WRITABLE)}")
    if path.is_dir():
        raise AudioError(f"cannot write '{path}': it is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise AudioError(f"cannot write '{path}': there is no folder '{path.parent}'; create it first")
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise AudioError(f"cannot write '{path}': no permission; choose another place")
    return path


def save(path: str | os.PathLike, samples: np.ndarray, sample_rate: int) -> None:
    """Write mono float32 ``[n]`` in [-1, 1] as 16-bit WAV or FLAC, by the ending of ``path``.

    Raises:
        AudioError: the file cannot be written.
    """
    path = check_writable(path)
    try:
        subtype = _WRITABLE[path.suffix.lower()]
        soundfile.write(path, np.clip(samples, -1.0, 1.0), sample_rate, subtype=subtype)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"cannot write '{path}': {error}; choose another place") from error
