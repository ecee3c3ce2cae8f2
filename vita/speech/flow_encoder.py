"""Token side of the flow decoder: a block-causal conformer and the length regulator behind it.

Structure and key names are those of CosyVoice's ``BlockConformerEncoder`` and ``InterpolateRegulator`` as
the published GLM-4-Voice decoder uses them: no convolution module, no macaron half-steps, espnet's
relative positions. Knows nothing about mel frames per token or diffusion.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RelativeAttention(nn.Module):
    """Attention with relative positions (Transformer-XL, section 3.3), biases u and v per head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, self.head_dim))

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """``x`` [B, n, d]; ``positions`` [2n - 1, d], from n - 1 down to 1 - n; ``mask`` [n, n], true = attend."""
        query = self.linear_q(x).unflatten(-1, (self.heads, -1))
        key = self.linear_k(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        value = self.linear_v(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        offsets = self.linear_pos(positions).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        content = (query + self.pos_bias_u).transpose(1, 2) @ key.transpose(-2, -1)
        place = _shift((query + self.pos_bias_v).transpose(1, 2) @ offsets.transpose(-2, -1))
        scores = (content + place) / math.sqrt(self.head_dim)
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
        return self.linear_out((weights @ value).transpose(1, 2).flatten(2))


def _shift(scores: Tensor) -> Tensor:
    """Row ``i`` of ``[..., n, 2n - 1]`` starts at its own distance: entry (i, j) becomes that of offset i - j."""
    n = scores.shape[-2]
    steps = torch.arange(n, device=scores.device)
    index = (n - 1) - steps[:, None] + steps[None, :]
    return scores.gather(-1, index.expand(*scores.shape[:-1], n))


class FeedForward(nn.Module):
    """Two linear layers around SiLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(F.silu(self.w_1(x)))


class ConformerLayer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(width, heads)
        self.feed_forward = FeedForward(width, hidden)
        self.norm_ff = nn.LayerNorm(width)
        self.norm_mha = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.norm_mha(x), positions, mask)
        return x + self.feed_forward(self.norm_ff(x))


class InputProjection(nn.Module):
    """Linear and LayerNorm in front of the layers."""

    def __init__(self, input_size: int, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(input_size, width), nn.LayerNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)


class BlockConformerEncoder(nn.Module):
    """Conformer in which a token sees its own block of ``block_size`` tokens and all blocks before.

    The output of a complete block therefore never changes when tokens are appended.
    """

    def __init__(
        self, input_size: int, width: int, heads: int, hidden: int, num_blocks: int, block_size: int
    ) -> None:
        super().__init__()
        self.width, self.block_size = width, block_size
        self.embed = InputProjection(input_size, width)
        self.encoders = nn.ModuleList(ConformerLayer(width, heads, hidden) for _ in range(num_blocks))
        self.after_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, n, input size]`` -> ``[B, n, width]``."""
        n = x.shape[1]
        x = self.embed(x) * math.sqrt(self.width)
        positions = relative_positions(n, self.width, x.device).to(x.dtype)
        block = torch.arange(n, device=x.device) // self.block_size
        mask = block[:, None] >= block[None, :]
        for layer in self.encoders:
            x = layer(x, positions, mask)
        return self.after_norm(x)


def relative_positions(n: int, width: int, device: torch.device) -> Tensor:
    """Interleaved sines and cosines ``[2n - 1, width]`` of the offsets n - 1, ..., 1 - n."""
    offsets = torch.arange(n - 1, -n, -1, dtype=torch.float32, device=device)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32, device=device) * -(math.log(10000.0) / width))
    return torch.stack([torch.sin(offsets * rates), torch.cos(offsets * rates)], dim=-1).flatten(1)


class LengthRegulator(nn.Module):
    """Stretch token vectors to mel frames: nearest neighbour, then convolutions normalised over the utterance."""

    def __init__(self, channels: int, layers: int, out_channels: int | None = None, groups: int = 1) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for _ in range(layers):
            blocks += [nn.Conv1d(channels, channels, 3, padding=1), nn.GroupNorm(groups, channels), nn.Mish()]
        self.model = nn.Sequential(*blocks, nn.Conv1d(channels, out_channels or channels, 1))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """``[B, n, channels]`` -> ``[B, frames, out channels]``."""
        stretched = F.interpolate(x.transpose(1, 2), size=frames, mode="nearest")
        return self.model(stretched).transpose(1, 2)
