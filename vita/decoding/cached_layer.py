"""One decoder layer with the keys and values of one stream: the arithmetic of Qwen2, without its overhead.

Rows arrive in order and are never taken back. `vita.model.causal_lm` computes the same through transformers'
modules, for batches and training; here a step on a small model costs about half of that, because the weights are
bound once, nothing is dispatched by name and keys and values are written in place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer


class CachedLayer:
    """A `Qwen2DecoderLayer` bound to preallocated keys and values, which grow by doubling."""

    def __init__(self, layer: Qwen2DecoderLayer, capacity: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.q, self.k, self.v = (
            (projection.weight, projection.bias)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        self.o = attention.o_proj.weight.t()
        self.gate, self.up, self.down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight.t()
        self.norms = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self.eps = layer.input_layernorm.variance_epsilon
        self.head_size = attention.head_dim
        self.num_heads = attention.q_proj.out_features // self.head_size
        self.num_kv_heads = attention.k_proj.out_features // self.head_size
        self.device = self.gate.device
        self.capacity = capacity
        self.length = 0
        self._keys = self._values = None  # allocated when first used: a mode may never reach some MCTP modules

    def __call__(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states [rows, d] of the next rows -> the layer's output [rows, d].

        cos, sin [rows, 1, head size]: RoPE tables at the rows' positions, ``sin`` with its first half negated.
        mask: additive, [num_heads / num_kv_heads * rows, length + rows], or None for the first or a single row.
        """
        rows, size = hidden.shape[0], self.head_size
        x = F.rms_norm(hidden, self.norms[0].shape, self.norms[0], self.eps)
        qk = torch.cat((F.linear(x, *self.q), F.linear(x, *self.k)), -1).view(rows, -1, size)
        swapped = torch.cat((qk[..., size // 2 :], qk[..., : size // 2]), -1)
        qk = torch.addcmul(qk * cos, swapped, sin).transpose(0, 1)
        keys, values = self._append(qk[self.num_heads :], F.linear(x, *self.v).view(rows, -1, size).transpose(0, 1))
        x = self._attend(qk[: self.num_heads], keys, values, mask)
        hidden = torch.addmm(hidden, x, self.o)
        x = F.rms_norm(hidden, self.norms[1].shape, self.norms[1], self.eps)
        return torch.addmm(hidden, F.silu(F.linear(x, self.gate)).mul_(F.linear(x, self.up)), self.down)

    def _append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [kv heads, rows, head size]; return all so far, [1, kv heads, length, head size]."""
        end = self.length + keys.shape[1]
        if self._keys is None or end > self.capacity:
            self._grow(end, keys)
        self._keys[0, :, self.length : end] = keys
        self._values[0, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def _grow(self, needed: int, like: Tensor) -> None:
        while self.capacity < needed:
            self.capacity *= 2
        old = self._keys, self._values
        self._keys, self._values = (
            like.new_empty(1, self.num_kv_heads, self.capacity, self.head_size) for _ in range(2)
        )
        if old[0] is not None:
            self._keys[:, :, : self.length] = old[0][:, :, : self.length]
            self._values[:, :, : self.length] = old[1][:, :, : self.length]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        rows = queries.shape[1]
        if mask is None and rows > 1:  # the first rows of a stream: top-left and bottom-right alignment agree
            x = F.scaled_dot_product_attention(queries[None], keys, values, is_causal=True, enable_gqa=True)
        else:
            # The query heads that share a key head become rows of it: SDPA then needs no copies of the keys.
            packed = queries.reshape(1, self.num_kv_heads, -1, self.head_size)
            x = F.scaled_dot_product_attention(packed, keys, values, attn_mask=mask)
        return x.view(self.num_heads, rows, self.head_size).transpose(0, 1).reshape(rows, -1)
