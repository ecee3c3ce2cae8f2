"""GLM-4-Voice speech tokenizer: waveform in, 12.5 speech tokens per second out.

Cuts audio into independent segments of 30 s as VITA-Audio does, makes Whisper features and asks
:class:`vita.speech.whisper_vq.WhisperVQEncoder` for the codes. ``Glm4VoiceTokenizer.stream`` encodes audio
while it is being spoken: a finished 4 s block is never encoded again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from vita.errors import AudioError, CheckpointError
from vita.speech.features import resample
from vita.speech.whisper_vq import BlockState, WhisperVQConfig, WhisperVQEncoder
from vita.weights import load_strictly, read_weights

SAMPLE_RATE = 16_000
SEGMENT_SECONDS = 30
"""Positions restart every 30 s (``extract_speech_token`` of GLM-4-Voice); there is no overlap."""
_TRAINING_ONLY = ("ema_count", "ema_weight")


class WhisperLogMel:
    """Whisper's log-mel features (``preprocessor_config.json``: 25 ms window, 10 ms hop, Slaney mels)."""

    def __init__(self, mel_bins: int = 128, n_fft: int = 400, hop: int = 160) -> None:
        self.n_fft, self.hop = n_fft, hop
        filters = mel_filter_bank(
            num_frequency_bins=1 + n_fft // 2, num_mel_filters=mel_bins, min_frequency=0.0,
            max_frequency=SAMPLE_RATE / 2, sampling_rate=SAMPLE_RATE, norm="slaney", mel_scale="slaney",
        )
        self.filters = torch.from_numpy(filters).float()
        self.window = torch.hann_window(n_fft)

    def log_power(self, samples: Tensor) -> Tensor:
        """``[..., n]``, extended by half a window where it ends -> log10 mel power ``[..., mels, T]``."""
        window = self.window.to(samples.device)
        spectrum = torch.stft(samples, self.n_fft, self.hop, window=window, center=False, return_complex=True)
        mel = self.filters.T.to(samples.device) @ spectrum.abs().square().contiguous()
        return mel.clamp(min=1e-10).log10()

    def extend(self, samples: Tensor, left: bool = True, right: bool = True) -> Tensor:
        """Mirror half a window at the true ends of ``[B, n]``."""
        half = self.n_fft // 2
        return F.pad(samples, (half if left else 0, half if right else 0), mode="reflect")

    @staticmethod
    def normalize(log_power: Tensor, peak: Tensor) -> Tensor:
        """Cut 80 dB below ``peak`` and scale to about [-1, 1]."""
        return (torch.maximum(log_power, peak - 8.0) + 4.0) / 4.0

    def __call__(self, samples: Tensor) -> Tensor:
        """``[B, n]`` (``n`` a multiple of the hop) -> normalised features ``[B, mels, n / hop]``."""
        # The last frame of a centred transform lies behind the signal: Whisper drops it.
        log_power = self.log_power(self.extend(samples))[..., :-1]
        return self.normalize(log_power, log_power.amax(dim=(-2, -1), keepdim=True))


class Glm4VoiceTokenizer:
    """``vita.speech.protocol.SpeechTokenizer`` over the published encoder."""

    sample_rate = SAMPLE_RATE

    def __init__(self, encoder: WhisperVQEncoder, features: WhisperLogMel | None = None) -> None:
        self.encoder = encoder.eval()
        self.features = features or WhisperLogMel(encoder.config.num_mel_bins)
        self.codebook_size = encoder.config.codebook_size
        self.samples_per_token = encoder.mel_frames_per_code * self.features.hop
        self.segment_samples = SEGMENT_SECONDS * SAMPLE_RATE

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> Glm4VoiceTokenizer:
        """Load ``config.json``, ``preprocessor_config.json`` and ``model.safetensors`` of a folder.

        Raises:
            CheckpointError: a file is missing or does not fit.
        """
        folder = Path(folder)
        config = WhisperVQConfig.from_dict(_read_json(folder / "config.json"), str(folder / "config.json"))
        features = cls._features(folder / "preprocessor_config.json", config)
        encoder = WhisperVQEncoder(config)
        path = folder / "model.safetensors"
        weights = {_plain_key(key): tensor for key, tensor in read_weights(path).items()}
        load_strictly(encoder, weights, path, unused=lambda key: _is_unused(key, config.num_layers))
        return cls(encoder.to(device=device, dtype=dtype), features)

    @staticmethod
    def _features(path: Path, config: WhisperVQConfig) -> WhisperLogMel:
        values = _read_json(path)
        mel_bins = values.get("feature_size", config.num_mel_bins)
        if mel_bins != config.num_mel_bins:
            raise CheckpointError(f"{path}: feature_size {mel_bins} contradicts num_mel_bins "
                                  f"{config.num_mel_bins} of config.json; download both files again.")
        if values.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise CheckpointError(f"{path}: sampling_rate {values['sampling_rate']} is not {SAMPLE_RATE} Hz.")
        return WhisperLogMel(mel_bins, values.get("n_fft", 400), values.get("hop_length", 160))

    def encode(self, samples: np.ndarray, sample_rate: int) -> list[int]:
        """Mono float samples ``[n]`` in [-1, 1] at any rate -> code indices, one per 80 ms begun.

        Of a recording with several channels VITA-Audio uses the first one, not the mean.
        """
        return self.encode_batch([samples], sample_rate)[0]

    @torch.inference_mode()
    def encode_batch(self, utterances: Sequence[np.ndarray], sample_rate: int) -> list[list[int]]:
        """Encode several utterances at once; padding to the longest touches only the others' last frames."""
        segments: list[Tensor] = []
        owners: list[int] = []
        for owner, utterance in enumerate(utterances):
            samples = self._prepare(utterance, sample_rate)
            for segment in samples.split(self.segment_samples):
                segments.append(segment)
                owners.append(owner)
        tokens: list[list[int]] = [[] for _ in utterances]
        for owner, codes in zip(owners, self._encode_segments(segments), strict=True):
            tokens[owner].extend(codes)
        return tokens

    def stream(self) -> Glm4VoiceTokenizerStream:
        """Encode one utterance while it arrives."""
        return Glm4VoiceTokenizerStream(self)

    def batch_features(self, segments: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Pad segments to the longest, in whole tokens: features ``[B, mels, T]``, valid ``[B, T]``."""
        longest = max(segment.shape[-1] for segment in segments)
        length = -(-longest // self.samples_per_token) * self.samples_per_token
        batch = torch.stack([F.pad(segment, (0, length - segment.shape[-1])) for segment in segments])
        first_sample = torch.arange(0, length, self.features.hop, device=batch.device)
        lengths = torch.tensor([segment.shape[-1] for segment in segments], device=batch.device)
        return self.features(batch), first_sample < lengths[:, None]

    def _encode_segments(self, segments: Sequence[Tensor]) -> list[list[int]]:
        features, valid = self.batch_features(segments)
        weight = self.encoder.conv1.weight
        codes = self.encoder(features.to(weight.device, weight.dtype), valid.to(weight.device)).cpu()
        counts = -(-valid.sum(1) // self.encoder.mel_frames_per_code)
        return [row[:count].tolist() for row, count in zip(codes, counts.tolist(), strict=True)]

    def _prepare(self, samples: np.ndarray, sample_rate: int) -> Tensor:
        tensor = torch.as_tensor(np.asarray(samples), dtype=torch.float32)
        if tensor.ndim != 1 or tensor.numel() == 0:
            raise AudioError(f"audio of shape {tuple(tensor.shape)} has no speech tokens; give mono samples.")
        return resample(tensor, sample_rate, SAMPLE_RATE)


class Glm4VoiceTokenizerStream:
    """One utterance being encoded while it is spoken.

    Audio is taken in blocks of 4 s: a block's codes are returned once it is complete and are never revised.
    They equal those of :meth:`Glm4VoiceTokenizer.encode` as long as the loudest sound of a 30 s segment lies
    at most 80 dB above the quietest *and* was already heard: Whisper cuts features 80 dB below the loudest
    of the segment, and a stream only knows the loudest so far.
    """

    def __init__(self, tokenizer: Glm4VoiceTokenizer) -> None:
        self.tokenizer = tokenizer
        self._block = tokenizer.encoder.mel_frames_per_block
        self._first_segment = True
        self._begin_segment(torch.zeros(0))

    def _begin_segment(self, samples: Tensor) -> None:
        self._samples = samples
        self._state = BlockState()
        self._frames = 0
        self._peak = torch.tensor(-10.0)

    @torch.inference_mode()
    def push(self, samples: np.ndarray) -> list[int]:
        """Take the next mono samples ``[n]`` at 16 kHz; return the codes that became final."""
        self._samples = torch.cat([self._samples, torch.as_tensor(np.asarray(samples), dtype=torch.float32)])
        codes: list[int] = []
        limit = self.tokenizer.segment_samples
        while self._samples.shape[0] > limit:
            rest = self._samples[limit:]
            self._samples = self._samples[:limit]
            codes += self._finish_segment()
            self._first_segment = False
            self._begin_segment(rest)
        while self._block and self._samples.shape[0] >= self._needed(self._frames + self._block):
            codes += self._encode_block(self._frames + self._block, at_end=False)
        return codes

    @torch.inference_mode()
    def finish(self) -> list[int]:
        """The codes of what is left; the stream starts afresh afterwards."""
        codes = self._finish_segment()
        self._first_segment = True
        self._begin_segment(torch.zeros(0))
        return codes

    @property
    def _half(self) -> int:
        """Samples of half a window."""
        return self.tokenizer.features.n_fft // 2

    def _needed(self, frames: int) -> int:
        """Samples after which ``frames`` mel frames are known for certain."""
        return (frames - 1) * self.tokenizer.features.hop + self._half

    def _finish_segment(self) -> list[int]:
        codes: list[int] = []
        hop, per_code = self.tokenizer.features.hop, self.tokenizer.encoder.mel_frames_per_code
        count = self._samples.shape[0]
        if count == 0:
            return codes
        valid = -(-count // hop)
        total = -(-valid // per_code) * per_code
        # Encoded at once, a short last segment is followed by silence up to the length of the full ones before it.
        silence = 0 if self._first_segment or count == self.tokenizer.segment_samples else self._half
        self._samples = F.pad(self._samples, (0, total * hop - count + silence))
        while self._frames < total:
            end = min(self._frames + self._block, total) if self._block else total
            codes += self._encode_block(end, at_end=end == total, valid=valid)
        return codes

    def _encode_block(self, end: int, at_end: bool, valid: int | None = None) -> list[int]:
        features, start = self.tokenizer.features, self._frames
        first = max(start * features.hop - self._half, 0)
        last = self._samples.shape[0] if at_end else self._needed(end)
        mirrored = at_end and last == end * features.hop
        window = features.extend(self._samples[None, first:last], left=start == 0, right=mirrored)
        log_power = features.log_power(window)[..., : end - start]
        self._peak = torch.maximum(self._peak, log_power.max())
        mel = features.normalize(log_power, self._peak)
        encoder = self.tokenizer.encoder
        weight = encoder.conv1.weight
        real = None if valid is None else valid - start
        hidden = encoder.hidden_block(mel.to(weight.device, weight.dtype), self._state, real)
        codes = encoder.quantize(hidden)[0].tolist()
        self._frames = end
        return codes if real is None else codes[: -(-min(real, end - start) // encoder.mel_frames_per_code)]


def _plain_key(key: str) -> str:
    # Whole Whisper checkpoints keep the encoder under "model.encoder."; the published file has bare keys.
    return key.removeprefix("model.encoder.")


def _is_unused(key: str, layers: int) -> bool:
    if key in _TRAINING_ONLY or key.startswith(("model.", "proj_out.", "layer_norm.")):
        return True
    parts = key.split(".")
    return parts[0] == "layers" and int(parts[1]) >= layers


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; download the tokenizer again.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again.") from error
