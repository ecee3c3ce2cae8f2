"""GLM-4-Voice vocoder: speech tokens -> 22.05 kHz waveform, whole or as a stream.

Offline, all tokens pass through the flow decoder and HiFT once. As a stream, each push decodes the new
tokens with the mel already spoken as prompt. Everything random is a function of the seed and the absolute
mel frame, so a stream and an offline run start from the same noise. A stream

- keeps the gain: no chunk is scaled,
- hands out every mel frame once: the last frames of a push are held back, decoded again with the next
  tokens, and the two versions are cross-faded,
- continues the harmonic source of the vocoder in phase and cross-fades the waveform where pushes meet,
- costs the same per push however long the utterance: prompt and context are bounded.

What a stream cannot do is equal the offline result to the bit: offline, the flow decoder sees later tokens
too. From the mel on, both are the same (``tests/test_glm4voice_stream.py`` states the tolerances).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vita.errors import AudioError
from vita.speech.decoder_config import read_decoder_config
from vita.speech.flow_decoder import FlowConfig, FlowDecoder
from vita.speech.hift import HiFT, HiFTConfig, SourceNoise, fuse_weight_norm
from vita.weights import load_strictly, read_weights

OFFLINE_STEPS = 10
"""Euler steps of ``AudioDecoder.token2wav`` in GLM-4-Voice."""
_NOISE_BLOCK = 64
"""Mel frames whose noise is drawn together."""


@dataclass(frozen=True)
class StepPolicy:
    """Euler steps per audible push: few at first for an early sound, more when there is time.

    The defaults are VITA-Audio's web demo: 1, 3, 5, 7, 9, 10, 10, ...
    """

    first: int = 1
    growth: int = 2
    limit: int = OFFLINE_STEPS

    def steps(self, push: int) -> int:
        """Steps of the ``push``-th push, counted from 0."""
        return min(self.first + self.growth * push, max(self.limit, self.first))


CONSTANT_STEPS = StepPolicy(first=OFFLINE_STEPS, growth=0)


@dataclass(frozen=True)
class StreamSettings:
    """How a stream trades delay, cost and likeness to the offline result."""

    policy: StepPolicy = field(default_factory=StepPolicy)
    look_ahead_tokens: int = 2
    """Tokens whose mel is held back until more is known; never more than half of what is new."""
    prompt_tokens: int = 50
    """Tokens of mel already spoken that a push is conditioned on, 4 s."""
    fade_frames: int = 2
    """Mel frames (11.6 ms each) over which the waveforms of two pushes are cross-faded."""


class FrameNoise:
    """Noise as a function of the seed and the absolute mel frame."""

    def __init__(self, seed: int, mel_bins: int, harmonics: int, hop: int) -> None:
        self.seed, self.mel_bins, self.harmonics, self.hop = seed, mel_bins, harmonics, hop
        generator = torch.Generator().manual_seed(seed)
        self.phase = (torch.rand(harmonics, generator=generator) * 2 - 1) * torch.pi
        self.phase[0] = 0.0
        self._blocks: dict[int, tuple[Tensor, Tensor]] = {}

    def mel(self, start: int, end: int) -> Tensor:
        """Standard normal ``[mel bins, end - start]`` for these frames."""
        return torch.cat([self._block(i)[0][a:b] for i, a, b in _pieces(start, end)]).T.contiguous()

    def source(self, start: int, end: int) -> SourceNoise:
        """Noise of the harmonic source for these frames."""
        pieces = [self._block(i)[1][a:b] for i, a, b in _pieces(start, end)]
        return SourceNoise(self.phase, torch.cat(pieces).transpose(0, 1).flatten(1))

    def forget_before(self, frame: int) -> None:
        """Free what lies before ``frame``; it would be drawn anew if asked for."""
        self._blocks = {i: block for i, block in self._blocks.items() if (i + 1) * _NOISE_BLOCK > frame}

    def _block(self, index: int) -> tuple[Tensor, Tensor]:
        if index not in self._blocks:
            generator = torch.Generator().manual_seed((self.seed << 32) + index + 1)
            self._blocks[index] = (
                torch.randn(_NOISE_BLOCK, self.mel_bins, generator=generator),
                torch.randn(_NOISE_BLOCK, self.harmonics, self.hop, generator=generator),
            )
        return self._blocks[index]


def _pieces(start: int, end: int) -> list[tuple[int, int, int]]:
    blocks = range(start // _NOISE_BLOCK, -(-end // _NOISE_BLOCK))
    return [(i, max(start - i * _NOISE_BLOCK, 0), min(end - i * _NOISE_BLOCK, _NOISE_BLOCK)) for i in blocks]


class Glm4VoiceVocoder:
    """``vita.speech.protocol.Vocoder`` over the published decoder."""

    def __init__(
        self, flow: FlowDecoder, hift: HiFT, settings: StreamSettings | None = None, seed: int = 0
    ) -> None:
        self.flow, self.hift = flow.eval(), hift.eval()
        self.settings = settings or StreamSettings()
        self.seed = seed
        self.sample_rate = hift.config.sampling_rate
        self.samples_per_token = round(self.sample_rate / flow.config.token_rate)
        self.look_ahead_tokens = self.settings.look_ahead_tokens
        self.codebook_size = flow.config.vocab_size

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        settings: StreamSettings | None = None,
    ) -> Glm4VoiceVocoder:
        """Load ``config.yaml``, ``flow.pt`` and ``hift.pt`` of a folder.

        Raises:
            CheckpointError: a file is missing, damaged, carries code or does not fit.
        """
        folder = Path(folder)
        config, source = read_decoder_config(folder), str(folder / "config.yaml")
        hift_config = HiFTConfig.from_dict(config["hift"], source)
        flow_config = FlowConfig.from_dict(config["flow"], source)
        flow = FlowDecoder(flow_config, hift_config.sampling_rate, hift_config.hop)
        hift = HiFT(hift_config)
        load_strictly(flow, read_weights(folder / "flow.pt"), folder / "flow.pt")
        load_strictly(hift, fuse_weight_norm(read_weights(folder / "hift.pt")), folder / "hift.pt")
        return cls(flow.to(device=device, dtype=dtype), hift.to(device=device, dtype=dtype), settings)

    def noise(self) -> FrameNoise:
        """The noise of a new utterance: the same for every utterance of a seed."""
        config = self.hift.config
        return FrameNoise(self.seed, config.in_channels, config.nb_harmonics + 1, config.hop)

    def stream(self, settings: StreamSettings | None = None) -> Glm4VoiceStream:
        """Start a new utterance."""
        return Glm4VoiceStream(self, settings or self.settings)

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], steps: int = OFFLINE_STEPS) -> np.ndarray:
        """A whole utterance at once: float32 samples ``[frames(n) * 256]``, about 1764 per token."""
        mel = self.decode_mel(tokens, steps)
        if mel.shape[1] == 0:
            return np.zeros(0, dtype=np.float32)
        f0 = self.hift.f0_predictor(mel[None])[0]
        source = self.hift.m_source(f0, self._on_device(self.noise().source(0, mel.shape[1])))
        return self.hift(mel, source).float().cpu().numpy()

    @torch.inference_mode()
    def decode_mel(self, tokens: Sequence[int], steps: int = OFFLINE_STEPS) -> Tensor:
        """A whole utterance at once, up to its mel spectrogram ``[mel bins, frames(n)]``."""
        ids = self.token_tensor(tokens)
        frames = self.flow.frames(len(tokens))
        if frames == 0:
            return self.flow.encoder_proj.weight.new_zeros(self.flow.config.mel_bins, 0)
        return self.flow(ids, self.noise().mel(0, frames).to(self.flow.encoder_proj.weight), steps)

    def token_tensor(self, tokens: Sequence[int]) -> Tensor:
        """Token indices as a tensor on the decoder's device.

        Raises:
            AudioError: an index lies outside the codebook.
        """
        wrong = [token for token in tokens if not 0 <= token < self.codebook_size]
        if wrong:
            raise AudioError(f"audio token {wrong[0]} is outside the codebook of {self.codebook_size}; "
                             "subtract the id of <|audio_0|> and drop control tokens.")
        return torch.tensor(list(tokens), dtype=torch.long, device=self.flow.encoder_proj.weight.device)

    def _on_device(self, noise: SourceNoise) -> SourceNoise:
        weight = self.hift.conv_pre.weight
        return SourceNoise(noise.phase.to(weight), noise.noise.to(weight))


class Glm4VoiceStream:
    """One utterance becoming sound, push by push. Frames are absolute: frame 0 starts the utterance."""

    def __init__(self, vocoder: Glm4VoiceVocoder, settings: StreamSettings) -> None:
        self.vocoder, self.settings = vocoder, settings
        flow, hift = vocoder.flow, vocoder.hift
        weight = hift.conv_pre.weight
        self._noise = vocoder.noise()
        self._tokens: list[int] = []
        self._dropped_tokens = 0
        self._push = 0
        self._closed = False
        self._spoken = 0
        """Frames handed out; all tensors below end or begin here."""
        self._mel = weight.new_zeros(hift.config.in_channels, 0)
        """The last frames handed out."""
        self._held = self._mel
        """Mel of the frames held back."""
        self._source = weight.new_zeros(0)
        """Source of the last frames handed out."""
        self._cycles: Tensor | None = None
        self._next_wave = weight.new_zeros(0)
        """The waveform as the last push would have gone on."""
        self._look_ahead = flow.frames(settings.look_ahead_tokens)
        self._prompt = flow.frames(settings.prompt_tokens)
        # The U-Net halves its frame rate; a window must start on the same grid as a whole utterance.
        self._grid = 2 ** (len(flow.config.estimator_channels) - 1)
        # Tokens after which both the encoder's blocks and whole mel frames start anew.
        per_token = Fraction(flow.sample_rate) / (Fraction(flow.config.token_rate) * flow.hop)
        self._token_period = math.lcm(flow.config.encoder_block_size, per_token.denominator)

    @torch.inference_mode()
    def push(self, tokens: Sequence[int], final: bool = False) -> np.ndarray:
        """Take the next audio token indices; return the float32 samples [n] that are now certain.

        ``final=True`` hands out everything; the stream must not be used afterwards.
        """
        if self._closed:
            raise AudioError("this stream was closed by final=True; start another with Glm4VoiceVocoder.stream().")
        self.vocoder.token_tensor(tokens)
        self._tokens += tokens
        self._closed = final
        if len(tokens):
            mel = self._decode()
        else:
            mel = self._held if final else self._held[:, :0]
        if mel.shape[1] == 0:
            return np.zeros(0, dtype=np.float32)
        hold = 0 if final else min(self._look_ahead, mel.shape[1] // 2)
        return self._speak(mel, mel.shape[1] - hold)

    def _decode(self) -> Tensor:
        """Mel of all frames not yet handed out, ``[mel bins, n]``."""
        flow = self.vocoder.flow
        self._drop_old_tokens()
        offset = flow.frames(self._dropped_tokens)
        end = offset + flow.frames(len(self._tokens))
        if end == self._spoken:
            return self._held
        start = max(self._spoken - self._prompt, 0)
        start -= start % self._grid
        prompt = self._mel[:, start - self._spoken :] if self._spoken > start else self._mel[:, :0]
        mu = flow.mu(flow.encode(self.vocoder.token_tensor(self._tokens)))[start - offset :]
        noise = self._noise.mel(start, end).to(mu)
        steps = self.settings.policy.steps(self._push)
        self._push += 1
        mel = flow.solve(mu, noise, prompt, steps)[:, self._spoken - start :]
        return _cross_fade(self._held, mel)

    def _drop_old_tokens(self) -> None:
        """Forget whole periods of tokens, keeping at least one period and the prompt in sight of the encoder."""
        keep = self._token_period + self.settings.prompt_tokens
        surplus = (len(self._tokens) - keep) // self._token_period * self._token_period
        oldest_needed = self._spoken - self._prompt - self._grid
        while surplus > 0 and self.vocoder.flow.frames(self._dropped_tokens + surplus) > oldest_needed:
            surplus -= self._token_period
        if surplus > 0:
            del self._tokens[:surplus]
            self._dropped_tokens += surplus

    def _speak(self, mel: Tensor, count: int) -> np.ndarray:
        """Waveform of the first ``count`` frames of ``mel``; the rest is their right context and held back."""
        hift, hop = self.vocoder.hift, self.vocoder.hift.config.hop
        known = min(hift.context_frames, self._mel.shape[1])
        window = torch.cat([self._mel[:, self._mel.shape[1] - known :], mel], dim=1)
        f0 = hift.f0_predictor(window[None])[0, known:]
        noise = self._noise.source(self._spoken, self._spoken + mel.shape[1])
        new_source = hift.m_source(f0, self.vocoder._on_device(noise), self._cycles)
        source = torch.cat([self._source[self._source.shape[0] - known * hop :], new_source])
        wave = _cross_fade(self._next_wave, hift(window, source)[known * hop :])

        self._cycles = hift.m_source.advance(f0[:count], self._cycles)
        self._next_wave = wave[count * hop :][: self.settings.fade_frames * hop]
        self._source = torch.cat([self._source, new_source[: count * hop]])[-hift.context_frames * hop :]
        keep = max(self._prompt + self._grid, hift.context_frames)
        self._mel = torch.cat([self._mel, mel[:, :count]], dim=1)[:, -keep:]
        self._held = mel[:, count:]
        self._spoken += count
        self._noise.forget_before(self._spoken - keep)
        return wave[: count * hop].float().cpu().numpy()


def _cross_fade(old: Tensor, new: Tensor) -> Tensor:
    """``new`` with its beginning faded in over ``old``, along the last axis.

    The weights add up to one everywhere: where both agree nothing changes, so the gain is constant.
    """
    n = min(old.shape[-1], new.shape[-1])
    if n == 0:
        return new
    phase = (torch.arange(n, device=new.device, dtype=new.dtype) + 0.5) / n
    rising = (1 - torch.cos(torch.pi * phase)) / 2
    return torch.cat([old[..., :n] * (1 - rising) + new[..., :n] * rising, new[..., n:]], dim=-1)
