"""nano's ears: log-mel frames -> 25 Hz hidden states, letters at 50 Hz (CTC) -> 12.5 Hz rows for the backbone.

The encoder is block-causal: a frame attends to its own block and a bounded number of earlier ones,
and every convolution looks only back. Finished blocks therefore never change while a user goes on
speaking, and what a frame becomes does not depend on how long the utterance is. The memory
branch (a depthwise convolution over the values) follows SANM (arXiv 2006.01713), as in SenseVoice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CTC_ALPHABET = "_ abcdefghijklmnopqrstuvwxyz'"
"""Character classes of the CTC head; index 0 is the blank."""
SUBSAMPLING = 4
"""Mel frames (10 ms) per encoder frame (40 ms)."""
LETTERS_PER_FRAME = 2
"""CTC steps per encoder frame: fast speech has 24 letters a second, which 25 steps could hardly hold."""
SILENCE = (-11.512925464970229 + 4.0) / 4.0
"""A feature frame of digital silence: log(1e-5) after the fixed normalisation of ``log_mel``."""


@dataclass(frozen=True)
class NanoAudioEncoderConfig:
    """Shape of the encoder. ``block_frames`` and ``left_blocks`` bound what a frame may see."""

    mel_bins: int = 80
    hidden_size: int = 192
    num_layers: int = 4
    num_heads: int = 4
    ffn_size: int = 768
    memory_kernel: int = 11
    block_frames: int = 16
    left_blocks: int = 4
    dropout: float = 0.1

    def to_dict(self) -> dict:
        return {"type": "nano", **asdict(self)}


class CausalConv(nn.Module):
    """Strided convolution over time that sees only the past: output ``t`` ends at input ``(t + 1) * stride - 1``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)
        self.left = kernel - stride

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, inputs]`` -> ``[B, T / stride, outputs]``; T is a multiple of the stride."""
        padded = F.pad(x.transpose(1, 2), (self.left, 0))
        return self.conv(padded).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Pre-norm attention with a causal memory branch, then a feed-forward network."""

    def __init__(self, config: NanoAudioEncoderConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.heads = config.num_heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.memory = nn.Conv1d(d, d, config.memory_kernel, groups=d)
        self.fc1, self.fc2 = nn.Linear(d, config.ffn_size), nn.Linear(config.ffn_size, d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """``x [B, T, d]``, ``mask [B, 1, T, T]`` (True = may see), rotary tables ``[T, d / heads]``."""
        batch, frames, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        remembered = self.memory(F.pad(v.transpose(1, 2), (self.memory.kernel_size[0] - 1, 0))).transpose(1, 2)
        q, k, v = (t.view(batch, frames, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended = attended.transpose(1, 2).reshape(batch, frames, d)
        x = x + self.dropout(self.out(attended) + remembered)
        return x + self.dropout(self.fc2(F.gelu(self.fc1(self.norm2(x)))))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


class NanoAudioEncoder(nn.Module):
    """Log-mel ``[B, T, 80]`` at 100 Hz -> hidden states at 25 Hz and character log-probabilities at 50 Hz."""

    def __init__(self, **shape) -> None:
        super().__init__()
        shape.pop("type", None)
        self.config = config = NanoAudioEncoderConfig(**shape)
        d = config.hidden_size
        self.conv1 = CausalConv(config.mel_bins, d, 6, 2)
        self.conv2 = CausalConv(d, d, 6, 2)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(d)
        self.ctc = nn.Linear(d, LETTERS_PER_FRAME * len(CTC_ALPHABET))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode a batch padded on the right.

        Args:
            features: ``[B, T, 80]`` from :func:`vita.speech.features.log_mel`.
            lengths: ``[B]`` valid mel frames of each.
        Returns:
            hidden ``[B, F, d]``, character log-probabilities ``[B, 2 F, 29]``, valid frames ``[B]``;
            ``F`` is even (two frames make one row of the backbone).
        """
        frames = 2 * SUBSAMPLING  # one 80 ms row
        padded = -features.shape[1] % frames
        x = F.pad(features, (0, 0, 0, padded), value=SILENCE)
        steps = torch.arange(x.shape[1], device=x.device)
        x = torch.where((steps[None, :] < lengths[:, None])[..., None], x, x.new_tensor(SILENCE))
        x = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        rows = torch.div(lengths + frames - 1, frames, rounding_mode="floor")
        valid = 2 * rows
        mask = self._mask(x.shape[1], valid)
        cos, sin = self._rotary(x.shape[1], x)
        for layer in self.layers:
            x = layer(x, mask, cos, sin)
        x = self.norm(x)
        letters = self.ctc(x).float().unflatten(-1, (LETTERS_PER_FRAME, len(CTC_ALPHABET))).flatten(1, 2)
        return x, F.log_softmax(letters, dim=-1), valid

    def _mask(self, frames: int, valid: Tensor) -> Tensor:
        block = torch.arange(frames, device=valid.device) // self.config.block_frames
        behind = block[:, None] - block[None, :]
        seen = (behind >= 0) & (behind <= self.config.left_blocks)
        inside = torch.arange(frames, device=valid.device)[None, :] < valid[:, None]
        # A padded frame sees itself, so that no softmax row is empty.
        return ((seen[None] & inside[:, None, :]) | torch.eye(frames, dtype=torch.bool, device=valid.device))[:, None]

    def _rotary(self, frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        size = self.config.hidden_size // self.config.num_heads
        inverse = 10_000.0 ** (-torch.arange(0, size, 2, device=like.device, dtype=torch.float32) / size)
        angles = torch.outer(torch.arange(frames, device=like.device, dtype=torch.float32), inverse)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


class NanoAudioAdapter(nn.Module):
    """Pairs of encoder frames, with what the CTC head heard in them, become backbone rows at 12.5 Hz."""

    def __init__(self, encoder_size: int, model_size: int) -> None:
        super().__init__()
        width = 2 * (encoder_size + LETTERS_PER_FRAME * len(CTC_ALPHABET))
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, model_size), nn.Linear(model_size, model_size)

    def forward(self, hidden: Tensor, log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """hidden ``[B, F, d]``, log_probs ``[B, 2 F, 29]``, lengths ``[B]`` ->
        rows ``[B, F/2, D]``, row lengths ``[B]``."""
        heard = log_probs.exp().to(hidden.dtype) * 4.0  # about the scale of the normalised hidden states
        x = torch.cat((hidden, heard.unflatten(1, (-1, LETTERS_PER_FRAME)).flatten(2)), dim=-1)
        x = x.reshape(x.shape[0], x.shape[1] // 2, -1)
        return self.fc2(F.gelu(self.fc1(self.norm(x)))), lengths // 2


def ctc_text(log_probs: Tensor) -> str:
    """Greedy reading of character log-probabilities ``[n, 29]``: repeats merged, blanks dropped."""
    best = torch.unique_consecutive(log_probs.argmax(dim=-1)).tolist()
    return "".join(CTC_ALPHABET[i] for i in best if i).strip()
