"""nano's voice: audio tokens -> 16 kHz sound, chunk by chunk, one token behind.

A small convolutional decoder turns tokens into 100 frames per second of pitch, a harmonic and a
noise spectrum; a source-filter synthesiser (harmonics at the pitch plus noise, each shaped by its
spectrum as a minimum-phase filter, as in DDSP, arXiv 2001.04643) turns frames into samples.
Every sample is a function of a bounded stretch of tokens, of the running phase, and of noise that
belongs to its absolute position: chunked and whole decoding therefore agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vita.speech.features import HOP, SAMPLE_RATE
from vita.speech.nano_codec import FRAME_SIZE, FRAMES_PER_TOKEN, PITCH_CENTRE, SAMPLES_PER_TOKEN
from vita.weights import read_weights

HIDDEN = 192
CONVOLUTIONS = ((7, 3), (5, 2), (5, 2), (5, 0), (5, 0))
"""(kernel, frames of look-ahead) of each layer."""
LOOK_AHEAD = sum(right for _, right in CONVOLUTIONS)
LEFT_CONTEXT = sum(kernel - 1 - right for kernel, right in CONVOLUTIONS)
"""Frames; with one frame more for interpolating pitch, the look-ahead is exactly one token."""
HARMONIC_BANDS, NOISE_BANDS = 64, 32
MAX_HARMONICS = 100
FFT = 1024
WINDOW = 2 * HOP
LEAD = HOP // 2
"""Frame ``t`` is centred on sample ``160 t + 80``; its window starts 80 samples before ``160 t``."""
NOISE_SEED = 0


class FrameDecoder(nn.Module):
    """Codebook entries -> pitch and spectra of each 10 ms frame."""

    def __init__(self, codebook_size: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.zeros(codebook_size, FRAMES_PER_TOKEN * FRAME_SIZE))
        widths = (FRAME_SIZE, *[HIDDEN] * len(CONVOLUTIONS))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, kernel) for a, b, (kernel, _) in zip(widths, widths[1:], CONVOLUTIONS, strict=False)
        )
        self.head = nn.Linear(HIDDEN, 1 + HARMONIC_BANDS + NOISE_BANDS)

    def frames(self, tokens: Tensor) -> Tensor:
        """Token indices ``[B, N]`` -> codebook frames ``[B, 8 N, 26]``."""
        return self.codebook[tokens].unflatten(-1, (FRAMES_PER_TOKEN, FRAME_SIZE)).flatten(1, 2)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, T, 26]`` -> Hz ``[B, T]``, harmonic and noise log magnitudes ``[B, T, 64]``, ``[B, T, 32]``."""
        x = frames.transpose(1, 2) * 0.3
        for i, (convolution, (kernel, right)) in enumerate(zip(self.convolutions, CONVOLUTIONS, strict=True)):
            y = F.gelu(convolution(F.pad(x, (kernel - 1 - right, right))))
            x = y if i == 0 else x + y
        out = self.head(x.transpose(1, 2))
        hz = torch.exp(PITCH_CENTRE + out[..., 0].clamp(-1, 1))
        return hz, out[..., 1 : 1 + HARMONIC_BANDS] - 4.0, out[..., 1 + HARMONIC_BANDS :] - 6.0


def band_matrix(bands: int) -> Tensor:
    """Linear interpolation ``[bands, 513]`` from bands evenly spaced on the mel scale to FFT bins."""
    hz = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    position = torch.log1p(hz / 700) / math.log1p(SAMPLE_RATE / 2 / 700) * (bands - 1)
    return (1 - (position[None, :] - torch.arange(bands)[:, None]).abs()).clamp(min=0)


def minimum_phase(log_magnitude: Tensor) -> Tensor:
    """Complex spectrum ``[..., 513]`` of the minimum-phase filter with this natural-log magnitude."""
    cepstrum = torch.fft.irfft(log_magnitude, FFT)
    fold = cepstrum.new_zeros(FFT)
    fold[0] = fold[FFT // 2] = 1.0
    fold[1 : FFT // 2] = 2.0
    return torch.exp(torch.fft.rfft(cepstrum * fold, FFT))


def harmonics(hz: Tensor, start_phase: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of all harmonics below 8 kHz, unit amplitude, each.

    Args:
        hz: pitch of every sample ``[B, n]``.
        start_phase: ``[B]`` float64 cycles at the first sample.
    Returns:
        excitation ``[B, n]`` and the phase after the last sample ``[B]``.
    """
    cycles = start_phase[:, None] + torch.cumsum(hz.double() / SAMPLE_RATE, dim=1)
    number = torch.arange(1, MAX_HARMONICS + 1, device=hz.device)
    highest = int(min(MAX_HARMONICS, math.ceil(SAMPLE_RATE / 2 / float(hz.min()))))
    number = number[:highest]
    phase = ((cycles % 1.0).float()[..., None] * number) * (2 * math.pi)
    audible = ((SAMPLE_RATE / 2 - hz[..., None] * number) / 400).clamp(0, 1)  # fades out instead of switching off
    total = (torch.cos(phase) * audible).sum(-1)
    return total * (hz / (SAMPLE_RATE / 2)).sqrt(), cycles[:, -1] % 1.0


def interpolate_pitch(hz: Tensor) -> Tensor:
    """Frame pitch ``[B, T + 2]`` (one frame of margin each side) -> ``[B, 160 (T + 1)]`` from centre to centre."""
    ramp = (torch.arange(HOP, device=hz.device) + 0.5) / HOP
    return (hz[:, :-1, None] * (1 - ramp) + hz[:, 1:, None] * ramp).flatten(1)


def shape_and_add(source: Tensor, noise: Tensor, harmonic_bands: Tensor, noise_bands: Tensor) -> Tensor:
    """Filter each frame's 20 ms of source and noise and overlap-add.

    Args:
        source, noise: ``[B, 160 (T + 1)]``; frame t covers ``[160 t, 160 t + 320)`` of it.
        harmonic_bands ``[B, T, 64]``, noise_bands ``[B, T, 32]``: log magnitudes.
    Returns:
        ``[B, 160 (T - 1) + 1024]``; only the first ``160 T`` samples are free of later frames.
    """
    window = torch.hann_window(WINDOW, periodic=True, device=source.device)
    to_bins = _bins(source.device)
    spectrum = torch.fft.rfft(source.unfold(1, WINDOW, HOP) * window, FFT) * minimum_phase(harmonic_bands @ to_bins[0])
    spectrum = spectrum + torch.fft.rfft(noise.unfold(1, WINDOW, HOP) * window, FFT) * minimum_phase(
        noise_bands @ to_bins[1]
    )
    pieces = torch.fft.irfft(spectrum, FFT)
    frames = pieces.shape[1]
    length = HOP * (frames - 1) + FFT
    return F.fold(pieces.transpose(1, 2), (1, length), (1, FFT), stride=(1, HOP)).reshape(source.shape[0], length)


_BINS: dict[torch.device, tuple[Tensor, Tensor]] = {}


def _bins(device: torch.device) -> tuple[Tensor, Tensor]:
    if device not in _BINS:
        _BINS[device] = (band_matrix(HARMONIC_BANDS).to(device), band_matrix(NOISE_BANDS).to(device))
    return _BINS[device]


class NanoVocoder:
    """Implements :class:`vita.speech.protocol.Vocoder` with nano's frame decoder."""

    sample_rate = SAMPLE_RATE
    samples_per_token = SAMPLES_PER_TOKEN
    look_ahead_tokens = 1

    def __init__(self, decoder: FrameDecoder) -> None:
        self.decoder = decoder.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> NanoVocoder:
        """Read ``codec.json`` and ``codec.safetensors``; :class:`vita.errors.CheckpointError` if they do not fit."""
        folder = Path(folder)
        tensors = read_weights(folder / "codec.safetensors")
        decoder = FrameDecoder(tensors["codebook"].shape[0])
        decoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return cls(decoder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``codec.json`` and ``codec.safetensors`` (float16)."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "type": "nano",
            "sample_rate": SAMPLE_RATE,
            "samples_per_token": SAMPLES_PER_TOKEN,
            "codes": self.decoder.codebook.shape[0],
        }
        (folder / "codec.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        save_file(
            {n: t.detach().half().contiguous() for n, t in self.decoder.state_dict().items()},
            folder / "codec.safetensors",
        )

    def stream(self) -> NanoVocoderStream:
        """Start a new utterance."""
        return NanoVocoderStream(self.decoder)

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """A whole utterance: ``N`` tokens -> float32 ``[1280 N]``."""
        return self.stream().push(tokens, final=True)


class NanoVocoderStream:
    """State of one utterance: codebook frames in reach, phase, noise, and the overlap of the last windows."""

    def __init__(self, decoder: FrameDecoder) -> None:
        self._decoder = decoder
        self._frames = torch.zeros(0, FRAME_SIZE)
        self._dropped = 0  # frames of the utterance that left reach
        self._done = 0  # frames already synthesised
        self._phase = torch.zeros(1, dtype=torch.float64)
        self._noise = np.random.default_rng(NOISE_SEED)
        self._source_tail = torch.zeros(1, 0)
        self._noise_tail = torch.zeros(1, 0)
        self._overlap = torch.zeros(FFT - HOP)

    @torch.inference_mode()
    def push(self, tokens: Sequence[int], final: bool = False) -> np.ndarray:
        """See :class:`vita.speech.protocol.VocoderStream`; all but the last token become sound at once."""
        if len(tokens):
            new = self._decoder.frames(torch.tensor([list(tokens)]))[0]
            self._frames = torch.cat((self._frames, new))
        known = self._dropped + len(self._frames)
        ready = known if final else known - FRAMES_PER_TOKEN
        if ready <= self._done:
            return self._finish(np.zeros(0, np.float32)) if final and self._done else np.zeros(0, np.float32)
        hz, harmonic, noise = self._decoder(self._frames[None])
        a, b = self._done - self._dropped, ready - self._dropped
        sound = self._synthesise(hz[0], harmonic[:, a:b], noise[:, a:b], a, b)
        self._done = ready
        keep = max(0, self._done - LEFT_CONTEXT - LOOK_AHEAD - 1 - self._dropped)
        self._frames, self._dropped = self._frames[keep:], self._dropped + keep
        return self._finish(sound) if final else sound

    def _synthesise(self, hz: Tensor, harmonic: Tensor, noise: Tensor, a: int, b: int) -> np.ndarray:
        first = self._done == 0
        # From the centre of frame a-1 (already sounded) to that of frame b; both repeat at the utterance's ends.
        margin = torch.cat((hz[max(a - 1, 0)][None], hz[a:b], hz[min(b, len(hz) - 1)][None]))[None]
        per_sample = interpolate_pitch(margin)
        if not first:
            per_sample = per_sample[:, HOP:]  # that stretch is the tail kept from the last push
        source, self._phase = harmonics(per_sample, self._phase)
        source = torch.cat((self._source_tail, source), dim=1)
        fresh = torch.from_numpy(self._noise.standard_normal(per_sample.shape[1]).astype(np.float32))[None]
        hiss = torch.cat((self._noise_tail, fresh), dim=1)
        self._source_tail, self._noise_tail = source[:, -HOP:], hiss[:, -HOP:]
        out = shape_and_add(source, hiss, harmonic, noise)[0]
        out[: len(self._overlap)] += self._overlap[: len(out)]
        size = HOP * (b - a)
        self._overlap = out[size:].clone()
        sound = out[:size]
        return sound[LEAD:].numpy().copy() if first else sound.numpy().copy()

    def _finish(self, sound: np.ndarray) -> np.ndarray:
        return np.concatenate((sound, self._overlap[:LEAD].numpy()))
