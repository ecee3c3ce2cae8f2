"""The encoder of the GLM-4-Voice speech tokenizer: a Whisper encoder cut at its quantiser.

log-mel [B, 128, T] -> causal convolutions -> block-causal layers -> average pooling -> nearest code.
Knows tensors only: cutting, padding and caching of waveforms is the tokenizer's affair. Key names are
those of the published ``glm-4-voice-tokenizer`` file. All sizes come from its ``config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from vita.errors import CheckpointError

LAYER_NORM_EPS = 1e-5
"""torch's default, which Whisper keeps."""


@dataclass(frozen=True)
class WhisperVQConfig:
    """Shape of the encoder; the defaults are the published ``config.json``."""

    d_model: int = 1280
    encoder_attention_heads: int = 20
    encoder_ffn_dim: int = 5120
    num_layers: int = 16
    """Layers before the quantiser (``quantize_position``); the file has no others."""
    num_mel_bins: int = 128
    max_source_positions: int = 1500
    codebook_size: int = 16384
    pooling_kernel_size: int = 4
    pooling_type: str = "avg"
    block_size: int | None = 200
    """Encoder frames (20 ms) that see one another; ``None`` means every frame sees every other."""
    activation_function: str = "gelu"

    @classmethod
    def from_dict(cls, values: Mapping[str, object], source: str = "config.json") -> WhisperVQConfig:
        """Read a published ``config.json``.

        Raises:
            CheckpointError: a setting this encoder has no code for, or two settings that contradict.
        """
        known = {
            name: values[name]
            for name in (
                "d_model", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins",
                "max_source_positions", "pooling_kernel_size", "pooling_type", "activation_function",
            )
            if name in values
        }
        known["pooling_kernel_size"] = known.get("pooling_kernel_size", cls.pooling_kernel_size) or 1
        position = values.get("quantize_position", cls.num_layers)
        checks = {
            "pooling_position": (values.get("pooling_position", position), position),
            "encoder_causal_convolution": (values.get("encoder_causal_convolution", True), True),
            "encoder_causal_attention": (values.get("encoder_causal_attention", False), False),
            "quantize_causal_encoder": (values.get("quantize_causal_encoder", False), False),
            "scale_embedding": (values.get("scale_embedding", False), False),
        }
        for name, (found, needed) in checks.items():
            if found != needed:
                raise CheckpointError(f"{source}: {name} is {found!r}, but only {needed!r} is supported; "
                                      "use the files of zai-org/glm-4-voice-tokenizer.")
        config = cls(
            num_layers=position,
            codebook_size=values.get("quantize_vocab_size", cls.codebook_size),
            block_size=values.get("quantize_causal_block_size", cls.block_size),
            **known,
        )
        if config.d_model % config.encoder_attention_heads:
            raise CheckpointError(f"{source}: d_model {config.d_model} is not a multiple of "
                                  f"encoder_attention_heads {config.encoder_attention_heads}.")
        if config.pooling_type not in ("avg", "max"):
            raise CheckpointError(f"{source}: pooling_type {config.pooling_type!r} is not avg or max.")
        return config


@dataclass
class BlockState:
    """What finished blocks leave behind for the next one."""

    frames: int = 0
    """Encoder frames (20 ms) already encoded."""
    mel_tail: Tensor | None = None
    conv_tail: Tensor | None = None
    keys_values: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class CausalConv1d(nn.Conv1d):
    """A convolution that sees its own input frame and those before it."""

    @property
    def left_context(self) -> int:
        """Input frames needed before the first one."""
        return self.dilation[0] * (self.kernel_size[0] - 1)

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """``x`` [B, C, T]; ``before`` [B, C, left_context], silence when absent."""
        if before is None:
            return super().forward(F.pad(x, (self.left_context, 0)))
        return super().forward(torch.cat([before, x], dim=-1))


class SelfAttention(nn.Module):
    """Whisper's attention: no bias on the keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, x: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2)), (key, value)


class EncoderLayer(nn.Module):
    """A pre-norm Whisper encoder layer that can look back at the keys of earlier blocks."""

    def __init__(self, config: WhisperVQConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = SelfAttention(width, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.activation = ACT2FN[config.activation_function]

    def forward(
        self, x: Tensor, mask: Tensor | None = None, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        attended, keys_values = self.self_attn(self.self_attn_layer_norm(x), mask, past)
        x = x + attended
        return x + self.fc2(self.activation(self.fc1(self.final_layer_norm(x)))), keys_values


class WhisperVQEncoder(nn.Module):
    """Log-mel features to speech token indices, 80 ms each."""

    def __init__(self, config: WhisperVQConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.conv1 = CausalConv1d(config.num_mel_bins, width, 3)
        self.conv2 = CausalConv1d(width, width, 3, stride=2)
        self.embed_positions = nn.Embedding(config.max_source_positions, width)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.codebook = nn.Embedding(config.codebook_size, width)
        self.embed_positions2 = nn.Embedding(
            config.max_source_positions // config.pooling_kernel_size, width
        )

    @property
    def mel_frames_per_code(self) -> int:
        """Mel frames (10 ms) that one code stands for."""
        return self.conv1.stride[0] * self.conv2.stride[0] * self.config.pooling_kernel_size

    @property
    def mel_frames_per_block(self) -> int | None:
        """Mel frames after which the codes so far are final; ``None`` if only the end of a segment is."""
        block = self.config.block_size
        if not block or block % self.config.pooling_kernel_size:
            return None
        return block * self.conv1.stride[0] * self.conv2.stride[0]

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Codes of a padded batch.

        Args:
            features: ``[B, mel bins, T]`` normalised log-mel, ``T`` a multiple of ``mel_frames_per_code``.
            valid: ``[B, T]``, true for real frames.
        Returns:
            ``[B, T / mel_frames_per_code]`` code indices; those of padding are meaningless.
        """
        return self.quantize(self.hidden(features, valid))

    def hidden(self, features: Tensor, valid: Tensor) -> Tensor:
        """The pooled residual stream ``[B, n, d]`` that is quantised."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(features)))).transpose(1, 2)
        x = self.add_positions(x, 0)
        keys = valid[:, :: self.conv1.stride[0] * self.conv2.stride[0]].bool()
        block = torch.arange(x.shape[1], device=x.device) // (self.config.block_size or x.shape[1])
        mask = (block[:, None] >= block[None, :]) & keys[:, None, :]
        for layer in self.layers:
            x, _ = layer(x, mask[:, None])
        return self.pool(x)

    def hidden_block(self, features: Tensor, state: BlockState, valid: int | None = None) -> Tensor:
        """As :meth:`hidden`, one block of one utterance at a time.

        Args:
            features: ``[1, mel bins, T]``; every block but the last has ``mel_frames_per_block`` frames.
            state: of the blocks before; moved on to the end of this one.
            valid: real frames of ``features`` where it ends in padding.
        """
        convolved = F.gelu(self.conv1(features, state.mel_tail))
        x = F.gelu(self.conv2(convolved, state.conv_tail)).transpose(1, 2)
        x = self.add_positions(x, state.frames)
        mask = None
        if valid is not None and valid < features.shape[-1]:
            frame = torch.arange(x.shape[1], device=x.device) * self.conv2.stride[0]
            keys = torch.cat([frame.new_ones(state.frames, dtype=torch.bool), frame < valid])
            mask = keys[None, None, None]
        past = state.keys_values or [None] * len(self.layers)
        keys_values = []
        for layer, before in zip(self.layers, past, strict=True):
            x, now = layer(x, mask, before)
            keys_values.append(now)
        state.frames += x.shape[1]
        state.mel_tail = features[..., -self.conv1.left_context :]
        state.conv_tail = convolved[..., -self.conv2.left_context :]
        state.keys_values = keys_values
        return self.pool(x)

    def add_positions(self, x: Tensor, start: int) -> Tensor:
        """Learned positions for frames ``start ...`` of ``x`` [B, frames, d]."""
        end = start + x.shape[1]
        if end > self.config.max_source_positions:
            raise CheckpointError(f"audio of {end} frames does not fit max_source_positions "
                                  f"{self.config.max_source_positions} of config.json; shorten it.")
        return x + self.embed_positions.weight[start:end]

    def pool(self, x: Tensor) -> Tensor:
        """``[B, frames, d]`` -> ``[B, ceil(frames / kernel), d]``; zeros fill a short last window."""
        kernel = self.config.pooling_kernel_size
        x = F.pad(x.transpose(1, 2), (0, -x.shape[1] % kernel))
        pooled = F.avg_pool1d(x, kernel) if self.config.pooling_type == "avg" else F.max_pool1d(x, kernel)
        return pooled.transpose(1, 2)

    def quantize(self, hidden: Tensor) -> Tensor:
        """Nearest code by Euclidean distance, ``[B, n, d]`` -> ``[B, n]``."""
        codes = self.codebook.weight
        distance = codes.square().sum(-1) - 2 * hidden @ codes.T  # |x|^2 is the same for every code
        return distance.argmin(-1)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """What follows quantisation in training: code vectors plus second positions, ``[B, n, d]``."""
        return self.codebook(codes) + self.embed_positions2.weight[: codes.shape[-1]]
