"""HiFT vocoder (neural source filter + inverse STFT, arXiv 2309.09493): mel spectrogram -> waveform.

Key names are those of the published ``hift.pt`` once its weight norm is fused, which :func:`fuse_weight_norm`
does for both spellings torch has had. Everything random is an argument or a generator of the caller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vita.errors import CheckpointError

_FINAL_SLOPE = 0.01
"""torch's default, used before the last convolution only."""
_MAX_MAGNITUDE = 1e2
_SNAKE_EPS = 1e-9


@dataclass(frozen=True)
class HiFTConfig:
    """Shape of the vocoder; the defaults are the published ``config.yaml``."""

    in_channels: int = 80
    base_channels: int = 512
    nb_harmonics: int = 8
    sampling_rate: int = 22050
    nsf_alpha: float = 0.1
    nsf_sigma: float = 0.003
    nsf_voiced_threshold: float = 10.0
    upsample_rates: tuple[int, ...] = (8, 8)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16)
    n_fft: int = 16
    hop_len: int = 4
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: tuple[int, ...] = (7, 11)
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5))
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    f0_channels: int = 512

    @classmethod
    def from_dict(cls, values: Mapping, source: str = "config") -> HiFTConfig:
        """Read the ``hift`` section of a decoder configuration (constructor arguments, nested as published).

        Raises:
            CheckpointError: two settings contradict.
        """
        known = {
            name: _frozen(values[name]) for name in cls.__dataclass_fields__ if values.get(name) is not None
        }
        istft, f0 = values.get("istft_params", {}), values.get("f0_predictor", {})
        for name, value in {
            "n_fft": istft.get("n_fft"), "hop_len": istft.get("hop_len"), "f0_channels": f0.get("cond_channels"),
        }.items():
            if value is not None:
                known[name] = value
        config = cls(**known)
        if f0.get("in_channels", config.in_channels) != config.in_channels or f0.get("num_class", 1) != 1:
            raise CheckpointError(f"{source}: hift.f0_predictor must map {config.in_channels} channels to 1 class.")
        stages = len(config.upsample_rates)
        if not stages == len(config.upsample_kernel_sizes) == len(config.source_resblock_kernel_sizes):
            raise CheckpointError(f"{source}: hift has {stages} upsample_rates but other numbers of kernels.")
        return config

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.upsample_rates) * self.hop_len


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


class Snake(nn.Module):
    """x + sin^2(alpha x) / alpha, one learned alpha per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        return x + torch.sin(x * alpha).square() / (alpha + _SNAKE_EPS)


class ResBlock(nn.Module):
    """Dilated convolutions with Snake activations, each pair with a residual."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations
        )
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for first, second, act1, act2 in zip(
            self.convs1, self.convs2, self.activations1, self.activations2, strict=True
        ):
            x = x + second(act2(first(act1(x))))
        return x


class F0Predictor(nn.Module):
    """Fundamental frequency in Hz per mel frame, ``[B, mel bins, T]`` -> ``[B, T]``."""

    LAYERS = 5

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(self.LAYERS):
            layers += [nn.Conv1d(in_channels if i == 0 else channels, channels, 3, padding=1), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        return self.classifier(self.condnet(mel).transpose(1, 2))[..., 0].abs()


class SourceNoise(NamedTuple):
    """What makes a harmonic source random."""

    phase: Tensor
    """``[harmonics + 1]`` radians; 0 for the fundamental."""
    noise: Tensor
    """``[harmonics + 1, samples]`` standard normal."""


class HarmonicSource(nn.Module):
    """Sum of sines at the fundamental and its overtones, noise where there is no voice."""

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        self.config = config
        self.l_linear = nn.Linear(config.nb_harmonics + 1, 1)

    def draw(self, samples: int, generator: torch.Generator) -> SourceNoise:
        """Random phase and noise, in the order in which CosyVoice draws them."""
        harmonics = self.config.nb_harmonics + 1
        device = generator.device
        phase = (torch.rand(harmonics, generator=generator, device=device) * 2 - 1) * torch.pi
        phase[0] = 0.0
        return SourceNoise(phase, torch.randn(harmonics, samples, generator=generator, device=device))

    def forward(self, f0: Tensor, noise: SourceNoise, start: Tensor | None = None) -> Tensor:
        """Source waveform.

        Args:
            f0: ``[T]`` Hz per mel frame.
            noise: for ``T * hop`` samples.
            start: cycles ``[harmonics + 1]`` each sine has already run, none when absent.
        Returns:
            ``[T * hop]``.
        """
        config = self.config
        pitch = f0.repeat_interleave(config.hop)
        sines = torch.sin(2 * torch.pi * self.cycles(f0, start) + noise.phase[:, None])
        voiced = (pitch > config.nsf_voiced_threshold).to(pitch.dtype)
        level = voiced * config.nsf_sigma + (1 - voiced) * config.nsf_alpha / 3
        waves = config.nsf_alpha * sines * voiced + level * noise.noise
        return torch.tanh(self.l_linear(waves.T))[:, 0]

    def cycles(self, f0: Tensor, start: Tensor | None = None) -> Tensor:
        """Cycles modulo 1 that each sine has run after each sample, ``[harmonics + 1, T * hop]``."""
        # In double precision: after a minute of speech single precision has lost the phase.
        per_sample = f0.double().repeat_interleave(self.config.hop) / self.config.sampling_rate
        run = self._order(f0.device)[:, None] * per_sample.cumsum(0)
        if start is not None:
            run = run + start[:, None]
        return (run % 1).to(f0.dtype)

    def advance(self, f0: Tensor, start: Tensor | None = None) -> Tensor:
        """Cycles modulo 1 after all of ``f0`` [T]: what ``start`` of the next call must be, double precision."""
        run = self._order(f0.device) * (f0.double().sum() * self.config.hop / self.config.sampling_rate)
        return (run if start is None else run + start) % 1

    def _order(self, device: torch.device) -> Tensor:
        return torch.arange(1, self.config.nb_harmonics + 2, device=device, dtype=torch.float64)


class HiFT(nn.Module):
    """Mel spectrogram to waveform, ``hop`` samples per frame."""

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        self.config = config
        base, bins = config.base_channels, config.n_fft + 2
        widths = [base // 2**i for i in range(len(config.upsample_rates) + 1)]
        self.m_source = HarmonicSource(config)
        self.conv_pre = nn.Conv1d(config.in_channels, base, 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(widths[i], widths[i + 1], kernel, rate, padding=(kernel - rate) // 2)
            for i, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes))
        )
        self.source_downs, self.source_resblocks = nn.ModuleList(), nn.ModuleList()
        for i, (kernel, dilations) in enumerate(
            zip(config.source_resblock_kernel_sizes, config.source_resblock_dilation_sizes)
        ):
            rate = math.prod(config.upsample_rates[i + 1 :])  # what is still to come: the source runs at the top rate
            down = (
                nn.Conv1d(bins, widths[i + 1], 1) if rate == 1
                else nn.Conv1d(bins, widths[i + 1], 2 * rate, rate, padding=rate // 2)
            )
            self.source_downs.append(down)
            self.source_resblocks.append(ResBlock(widths[i + 1], kernel, dilations))
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes)
        )
        self.conv_post = nn.Conv1d(widths[-1], bins, 7, padding=3)
        self.f0_predictor = F0Predictor(config.in_channels, config.f0_channels)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    @property
    def context_frames(self) -> int:
        """Mel frames on either side that a sample depends on, given the source."""
        config = self.config
        through_mel, through_source, rate = 3.0, 0.0, 1  # the first convolution; the source enters later
        for i, (up, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes)):
            rate *= up
            down = _reach(config.source_resblock_kernel_sizes[i], config.source_resblock_dilation_sizes[i])
            filters = max(map(_reach, config.resblock_kernel_sizes, config.resblock_dilation_sizes))
            through_source = max(through_source, (down + 1) / rate) + filters / rate
            through_mel += (kernel / 2 + filters) / rate
        return math.ceil(max(through_mel, through_source) + (3 + config.n_fft / config.hop_len) / rate)

    def source(self, f0: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a whole source ``[T * hop]`` for ``f0`` [T]."""
        noise = self.m_source.draw(f0.shape[0] * self.config.hop, generator)
        return self.m_source(f0, SourceNoise(noise.phase.to(f0), noise.noise.to(f0)))

    def forward(self, mel: Tensor, source: Tensor) -> Tensor:
        """``mel`` [mel bins, T] and ``source`` [T * hop] -> waveform ``[T * hop]`` in [-0.99, 0.99]."""
        config = self.config
        spectrum = torch.stft(
            source[None].float(), config.n_fft, config.hop_len, window=self.window.float(), return_complex=True
        )
        excitation = torch.cat([spectrum.real, spectrum.imag], dim=1).to(mel.dtype)
        x = self.conv_pre(mel[None])
        kernels = len(config.resblock_kernel_sizes)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, config.lrelu_slope))
            if i == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")  # the STFT of the source has one frame more
            x = x + self.source_resblocks[i](self.source_downs[i](excitation))
            x = sum(block(x) for block in self.resblocks[i * kernels : (i + 1) * kernels]) / kernels
        x = self.conv_post(F.leaky_relu(x, _FINAL_SLOPE))
        split = config.n_fft // 2 + 1
        magnitude = torch.exp(x[:, :split]).clamp(max=_MAX_MAGNITUDE)
        spectrum = torch.polar(magnitude.float(), torch.sin(x[:, split:]).float())
        wave = torch.istft(spectrum, config.n_fft, config.hop_len, window=self.window.float())[0]
        return wave.clamp(-config.audio_limit, config.audio_limit)


def _reach(kernel: int, dilations: Sequence[int]) -> int:
    return sum((kernel - 1) // 2 * (dilation + 1) for dilation in dilations)


def fuse_weight_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace weight norm by plain weights: w = g v / |v|, the norm over all dimensions but the first.

    Understands ``weight_g``/``weight_v`` and ``parametrizations.weight.original0``/``original1``; what is
    plain already passes through.
    """
    fused: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        gain_key, name = _weight_norm_pair(key)
        if gain_key is None:
            if not _is_gain(key):
                fused[key] = tensor
        elif gain_key not in weights:
            raise CheckpointError(f"{key} has no {gain_key} beside it; download the vocoder again.")
        else:
            direction = tensor.float()
            norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))
            fused[name] = weights[gain_key].float() * direction / norm
    return fused


def _weight_norm_pair(key: str) -> tuple[str | None, str]:
    for direction, gain in (("weight_v", "weight_g"), ("parametrizations.weight.original1",
                                                       "parametrizations.weight.original0")):
        if key.endswith("." + direction):
            stem = key.removesuffix(direction)
            return stem + gain, stem + "weight"
    return None, key


def _is_gain(key: str) -> bool:
    return key.endswith((".weight_g", ".parametrizations.weight.original0"))
