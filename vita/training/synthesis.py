"""Training speech from flite and espeak-ng, which only training needs.

flite is driven through its shared libraries (no process per sentence), espeak-ng through its
command line. Both come from system packages; their absence is explained, not worked around.
"""

from __future__ import annotations

import ctypes
import io
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile
import torch

from vita.errors import VitaError
from vita.speech.features import SAMPLE_RATE, resample

INSTALL_HINT = "install the system packages first: apt-get install flite espeak-ng"
FLITE_VOICES = ("slt", "rms", "awb", "kal16")
CANONICAL_VOICE_NAME = "slt"


@dataclass(frozen=True)
class Voice:
    """One way of speaking.

    Attributes:
        engine: "flite" or "espeak-ng".
        name: flite voice ("slt") or espeak-ng voice with variant ("en-us+f2").
        rate: speaking speed relative to the voice's own (1.2 = faster).
        pitch: mean pitch relative to the voice's own.
    """

    engine: str
    name: str
    rate: float = 1.0
    pitch: float = 1.0


CANONICAL = Voice("flite", CANONICAL_VOICE_NAME)
"""nano's own voice; every answer is learned from it."""


class _CstWave(ctypes.Structure):
    """``cst_wave`` of flite's cst_wave.h."""

    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


class _CstVoice(ctypes.Structure):
    """The first fields of ``cst_voice`` (cst_voice.h)."""

    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


@cache
def _flite() -> ctypes.CDLL:
    try:
        for name in ("libflite.so.1", "libflite_usenglish.so.1", "libflite_cmulex.so.1"):
            library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        flite = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise VitaError(f"flite's libraries were not found ({error}); {INSTALL_HINT}") from None
    del library
    flite.flite_init()
    flite.flite_text_to_wave.restype = ctypes.POINTER(_CstWave)
    flite.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.POINTER(_CstVoice)]
    flite.delete_wave.argtypes = [ctypes.POINTER(_CstWave)]
    flite.flite_feat_set_float.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float]
    return flite


@cache
def _flite_voice(name: str) -> ctypes._Pointer:
    _flite()
    library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1", mode=ctypes.RTLD_GLOBAL)
    register = getattr(library, f"register_cmu_us_{name}")
    register.restype = ctypes.POINTER(_CstVoice)
    register.argtypes = [ctypes.c_void_p]
    return register(None)


FLITE_MEAN_F0 = {"slt": 170.0, "rms": 100.0, "awb": 125.0, "kal16": 95.0, "kal": 95.0}
"""Hz; the voices' own means, which ``pitch`` scales."""


def _synthesise_flite(text: str, voice: Voice) -> tuple[np.ndarray, int]:
    flite, handle = _flite(), _flite_voice(voice.name)
    features = handle.contents.features
    flite.flite_feat_set_float(features, b"duration_stretch", 1.0 / voice.rate)
    flite.flite_feat_set_float(features, b"int_f0_target_mean", FLITE_MEAN_F0[voice.name] * voice.pitch)
    wave = flite.flite_text_to_wave(text.encode("ascii", "ignore"), handle)
    try:
        samples = np.ctypeslib.as_array(wave.contents.samples, (wave.contents.num_samples,)).copy()
        return samples, wave.contents.sample_rate
    finally:
        flite.delete_wave(wave)


def _synthesise_espeak(text: str, voice: Voice) -> tuple[np.ndarray, int]:
    program = shutil.which("espeak-ng")
    if program is None:
        raise VitaError(f"espeak-ng was not found; {INSTALL_HINT}")
    done = subprocess.run(
        [
            program,
            "-v",
            voice.name,
            "-s",
            str(round(165 * voice.rate)),
            "-p",
            str(int(np.clip(round(50 + 60 * (voice.pitch - 1)), 0, 99))),
            "--stdout",
            text,
        ],
        capture_output=True,
        check=True,
    )
    return soundfile.read(io.BytesIO(done.stdout), dtype="int16")


def synthesise(text: str, voice: Voice) -> np.ndarray:
    """Speech of ``text`` as int16 ``[n]`` at 16 kHz, with the engine's outer silence cut to 40 ms."""
    engine = {"flite": _synthesise_flite, "espeak-ng": _synthesise_espeak}[voice.engine]
    samples, rate = engine(text, voice)
    wave = resample(torch.from_numpy(samples.astype(np.float32)), rate, SAMPLE_RATE).numpy()
    return trim_silence(wave.clip(-32768, 32767).astype(np.int16))


def trim_silence(samples: np.ndarray, keep: int = SAMPLE_RATE * 40 // 1000) -> np.ndarray:
    """Cut leading and trailing samples below 1 % of the peak, keeping ``keep`` samples of margin."""
    level = np.abs(samples.astype(np.int32))
    loud = np.flatnonzero(level > max(1, level.max(initial=0) // 100))
    if not len(loud):
        return samples
    return samples[max(0, loud[0] - keep) : loud[-1] + keep]
