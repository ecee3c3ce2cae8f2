"""The velocity field of the flow decoder: a one-dimensional U-Net with transformer blocks.

Structure and key names are those of the Matcha-TTS ``ConditionalDecoder`` that CosyVoice and GLM-4-Voice
use; written for whole utterances of equal length, so it needs no masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GROUPS = 8
"""Groups of every GroupNorm in Matcha-TTS."""
_TIME_SCALE = 1000.0
"""Time in [0, 1] is stretched before its sinusoids are taken (Matcha-TTS ``SinusoidalPosEmb``)."""


class TimeEmbedding(nn.Module):
    """Time in [0, 1] -> vector."""

    def __init__(self, sinusoids: int, width: int) -> None:
        super().__init__()
        self.sinusoids = sinusoids
        self.linear_1 = nn.Linear(sinusoids, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """``[B]`` -> ``[B, width]``."""
        half = self.sinusoids // 2
        rates = torch.exp(torch.arange(half, device=time.device).float() * -(math.log(10000.0) / (half - 1)))
        angles = _TIME_SCALE * time[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))


class ConvBlock(nn.Module):
    """Convolution, group norm, Mish."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(channels, out_channels, 3, padding=1), nn.GroupNorm(_GROUPS, out_channels), nn.Mish()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ResnetBlock(nn.Module):
    """Two convolution blocks with the time added in between."""

    def __init__(self, channels: int, out_channels: int, time_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_width, out_channels))
        self.block1 = ConvBlock(channels, out_channels)
        self.block2 = ConvBlock(out_channels, out_channels)
        self.res_conv = nn.Conv1d(channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.block1(x) + self.mlp(time)[..., None]
        return self.block2(hidden) + self.res_conv(x)


class Attention(nn.Module):
    """Plain self-attention over all frames."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, channels)])

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.to_q, self.to_k, self.to_v)
        )
        out = F.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](out.transpose(1, 2).flatten(2))


class GeluProjection(nn.Module):
    """Linear, then GELU (a module of its own only because the published keys say ``net.0.proj``)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """Four times wider in the middle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The middle entry is a dropout at training time; it keeps the key of the last one at "net.2".
        self.net = nn.Sequential(
            GeluProjection(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward (the published keys have no ``norm2``: no cross-attention)."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads, head_dim)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        return x + self.ff(self.norm3(x))


class Downsample(nn.Module):
    """Halve the frame rate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Double the frame rate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FlowEstimator(nn.Module):
    """Velocity at one point of the flow, ``[B, in channels, T]`` -> ``[B, out channels, T]``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        n_blocks: int,
        num_mid_blocks: int,
        num_heads: int,
        attention_head_dim: int,
    ) -> None:
        super().__init__()
        time_width = channels[0] * 4
        self.time_mlp = TimeEmbedding(in_channels, time_width)

        def stage(inputs: int, outputs: int, *rescale: nn.Module) -> nn.ModuleList:
            transformers = (TransformerBlock(outputs, num_heads, attention_head_dim) for _ in range(n_blocks))
            return nn.ModuleList([
                ResnetBlock(inputs, outputs, time_width), nn.ModuleList(transformers), *rescale
            ])

        def same_rate(width: int) -> nn.Module:
            return nn.Conv1d(width, width, 3, padding=1)

        last = len(channels) - 1
        inputs = [in_channels, *channels]
        self.down_blocks = nn.ModuleList(
            stage(inputs[i], width, Downsample(width) if i < last else same_rate(width))
            for i, width in enumerate(channels)
        )
        self.mid_blocks = nn.ModuleList(stage(channels[-1], channels[-1]) for _ in range(num_mid_blocks))
        upward = [*reversed(channels), channels[0]]
        self.up_blocks = nn.ModuleList(
            # Twice the inputs: the skip connection is concatenated.
            stage(2 * upward[i], upward[i + 1],
                  Upsample(upward[i + 1]) if i < last else same_rate(upward[i + 1]))
            for i in range(len(channels))
        )
        self.final_block = ConvBlock(channels[0], channels[0])
        self.final_proj = nn.Conv1d(channels[0], out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``x`` [B, in channels, T] (noisy mel, mu, speaker, condition); ``time`` [B] in [0, 1]."""
        moment = self.time_mlp(time)
        skips: list[Tensor] = []
        for resnet, transformers, rescale in self.down_blocks:
            x = _attend(transformers, resnet(x, moment))
            skips.append(x)
            x = rescale(x)
        for resnet, transformers in self.mid_blocks:
            x = _attend(transformers, resnet(x, moment))
        for resnet, transformers, rescale in self.up_blocks:
            skip = skips.pop()
            # An odd number of frames grows by one on its way down and up.
            x = torch.cat([x[..., : skip.shape[-1]], skip], dim=1)
            x = rescale(_attend(transformers, resnet(x, moment)))
        return self.final_proj(self.final_block(x))


def _attend(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    x = x.transpose(1, 2)
    for block in blocks:
        x = block(x)
    return x.transpose(1, 2)
