"""The state of one stream: its tokens, and what every level has already computed for them.

Knows how levels feed each other, not when they run (`modes`) nor which token is chosen (`sampling`). Every level
is a pure function of the token sequence: there are no draft states, caches only save work. A level that runs after
a pause catches up on all rows it has missed, as one causal chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vita.decoding.cached_layer import CachedLayer
from vita.model.causal_lm import VitaAudioForCausalLM


class Stream:
    """One token sequence being decoded by one model; many streams may share the model.

    Level 0 is the main model, level k the k-th MCTP module. ``unread[level]`` holds the rows that wait for that
    level: embeddings for the main model, hidden states of the level below for an MCTP module.
    """

    def __init__(self, model: VitaAudioForCausalLM, capacity: int = 512) -> None:
        self.model = model
        self.tokens: list[int] = []
        self._capacity = capacity
        layers = [CachedLayer(layer, capacity) for layer in model.model.layers]
        self._layers = [layers[: model.num_main_layers], *([layer] for layer in layers[model.num_main_layers :])]
        self._norm, self._eps = model.model.norm.weight, model.model.norm.variance_epsilon
        self._queries_per_key = layers[0].num_heads // layers[0].num_kv_heads
        self._embeds = self._norm.new_empty(capacity, model.config.hidden_size)
        self._masks: dict[int, Tensor] = {}
        self._rope = self._rope_tables(capacity)
        self.unread: list[list[Tensor]] = [[] for _ in self._layers]
        self._read = [self._embeds[:0]] * len(self._layers)

    @torch.inference_mode()
    def extend(self, tokens: Sequence[int], audio_rows: Sequence[tuple[int, Tensor]] = ()) -> None:
        """Append tokens. Each (start, rows [n, d]) replaces the embeddings of n of them, for the main model only.

        ``start`` counts from the first of these tokens. MCTP modules see the placeholders' own embeddings.
        """
        ids = torch.tensor(tokens, dtype=torch.long, device=self._embeds.device)[None]
        start, end = len(self.tokens), len(self.tokens) + len(tokens)
        if end > self._capacity:
            self._grow(end)
        embeds = self.model.embed_tokens(ids)[0]
        self._embeds[start:end] = embeds
        if audio_rows:
            embeds = self.model.embed_prompt(ids, audio_rows)[0]
        self.unread[0].append(embeds)
        self.tokens.extend(tokens)

    def length(self, level: int) -> int:
        """Rows that ``level`` has computed so far."""
        return self._layers[level][0].length

    @torch.inference_mode()
    def advance(self, level: int) -> Tensor:
        """Run ``level`` over every row that waits for it: hidden states [rows, d] after the final norm.

        The last row predicts the next token. Raises ValueError when nothing waits, or when the level below has
        run without a token appended since: a mode's order of levels never does either.
        """
        waiting = self.unread[level]
        if not waiting:
            raise ValueError(f"level {level} has nothing to read; run level {level - 1} or extend the stream first")
        rows = waiting[0] if len(waiting) == 1 else torch.cat(waiting)
        past = self.length(level)
        if past + level + len(rows) > len(self.tokens):
            raise ValueError(f"level {level} reads a token ahead that is not known yet; extend the stream first")
        waiting.clear()
        self._read[level] = rows
        if level > 0:
            ahead = self._embeds[past + level : past + level + len(rows)]
            rows = self._mctp_input(level - 1, ahead, rows)
        hidden = self._run(self._layers[level], rows, past, past + level)
        hidden = F.rms_norm(hidden, self._norm.shape, self._norm, self._eps)
        if level + 1 < len(self.unread):
            self.unread[level + 1].append(hidden)
        return hidden

    @torch.inference_mode()
    def rewind(self, length: int) -> None:
        """Forget the tokens behind the first ``length`` and all that was computed with them.

        Reaches back as far as the last run of every level. Raises ValueError beyond that.
        """
        valid = length  # rows of a level's input that stay: tokens, then what the level below keeps
        for level, layers in enumerate(self._layers):
            done, read = layers[0].length, self._read[level]
            kept, first = min(done, max(length - level, 0)), done - len(read)
            if kept < first:
                raise ValueError(f"cannot rewind to {length} tokens: level {level} has run more than once since")
            rows = torch.cat([read, *self.unread[level]])
            self._read[level] = rows[: kept - first]
            self.unread[level] = [rows[kept - first : valid - first]] if valid > kept else []
            for layer in layers:
                layer.length = kept
            valid = kept
        del self.tokens[length:]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of hidden states [..., d] of any level."""
        return F.linear(hidden, self.model.lm_head.weight)

    def _mctp_input(self, k: int, ahead: Tensor, below: Tensor) -> Tensor:
        """Input rows of MCTP module ``k``: the embedding half comes first, then the hidden state."""
        embed_norm, hidden_norm = self.model.mtp_embed_norms[k].weight, self.model.mtp_hidden_norms[k].weight
        ahead = F.rms_norm(ahead, embed_norm.shape, embed_norm, self._eps)
        below = F.rms_norm(below, hidden_norm.shape, hidden_norm, self._eps)
        return F.linear(torch.cat((ahead, below), -1), self.model.mtp_projs[k].weight)

    def _run(self, layers: list[CachedLayer], hidden: Tensor, past: int, position: int) -> Tensor:
        rows = len(hidden)
        cos, sin = (table[position : position + rows] for table in self._rope)
        mask = self._mask(rows, past)
        for layer in layers:
            if hidden.device != layer.device:  # the layers of one model may be spread over several GPUs
                hidden, cos, sin = (tensor.to(layer.device) for tensor in (hidden, cos, sin))
                mask = mask if mask is None else mask.to(layer.device)
            hidden = layer(hidden, cos, sin, mask)
        return hidden.to(self._norm.device)

    def _mask(self, rows: int, past: int) -> Tensor | None:
        """Additive causal mask, bottom-right aligned; see `CachedLayer.__call__` for its shape and for None.

        A window into one table per number of rows, whose last ``rows`` columns are the triangle.
        """
        if rows == 1 or past == 0:
            return None
        table = self._masks.get(rows)
        if table is None:
            size = self._capacity
            table = self._norm.new_full((rows, size + rows), float("-inf")).triu(size + 1)
            table = self._masks[rows] = table.repeat(self._queries_per_key, 1)
        window = table[:, table.shape[1] - rows - past :]
        # CUDA's attention kernels want an aligned mask; on a CPU the window itself will do.
        return window.contiguous() if window.is_cuda else window

    def _rope_tables(self, size: int) -> tuple[Tensor, Tensor]:
        cos, sin = self.model.model.rotary_emb(self._embeds, torch.arange(size, device=self._embeds.device)[None])
        half = sin.shape[-1] // 2
        return cos[0, :, None], torch.cat((-sin[..., :half], sin[..., half:]), -1)[0, :, None]

    def _grow(self, needed: int) -> None:
        while self._capacity < needed:
            self._capacity *= 2
        grown = self._embeds.new_empty(self._capacity, self._embeds.shape[1])
        grown[: len(self.tokens)] = self._embeds[: len(self.tokens)]
        self._embeds = grown
        self._rope = self._rope_tables(self._capacity)
        self._masks.clear()
