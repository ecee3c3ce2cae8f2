"""SenseVoice-small as audio input of the Plus models: encoder with four query frames, and the adapter behind it.

The network is transformers' ``FunAsrNanoEncoder``; checkpoints store it under FunASR's names
(``model.encoder.encoders0.0.self_attn.linear_q_k_v.weight`` ...), which ``state_dict`` speaks and
``load_state_dict`` understands. Knows features and rows; knows neither waveforms nor tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers.models.fun_asr_nano.configuration_fun_asr_nano import FunAsrNanoEncoderConfig
from transformers.models.fun_asr_nano.modeling_fun_asr_nano import FunAsrNanoEncoder

from vita.errors import AudioError

QUERIES = (0, 1, 2, 15)
"""Rows of ``embed`` put before the features: language auto, event, emotion, without inverse text normalisation
(SenseVoice ``inference``; VITA-Audio keeps all four output rows)."""
_QUERY_ROWS = 16

_LAYER_PARTS = {
    "self_attn.linear_out": "self_attn.o_proj",
    "self_attn.fsmn_block": "self_attn.fsmn.conv",
    "feed_forward.w_1": "mlp.fc1",
    "feed_forward.w_2": "mlp.fc2",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}
"""FunASR's name of a part of a layer -> transformers' name."""
_FUSED = "self_attn.linear_q_k_v"
_SPLIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


class SenseVoiceEncoder(nn.Module):
    """LFR features -> hidden states. The arguments are SenseVoice's ``encoder_conf``; its defaults are published.

    Args:
        input_size: width of a feature frame, 80 mel bins x 7 stacked frames.
        vocab_size: size of the CTC head, which files store and nothing here uses.
        max_frames: longest input, query frames included; 2048 are 123 s.
        legacy_bf16_positions: compute the sinusoidal positions in bfloat16, as VITA-Audio did when the Plus
            models were trained. bfloat16 has no odd integers above 256, so from there on neighbouring frames
            share a position (largest difference 2.0). Off: exact positions, as SenseVoice itself was trained.
    """

    def __init__(
        self,
        output_size: int = 512,
        attention_heads: int = 4,
        linear_units: int = 2048,
        num_blocks: int = 50,
        tp_blocks: int = 20,
        kernel_size: int = 11,
        input_size: int = 560,
        vocab_size: int = 25055,
        max_frames: int = 2048,
        legacy_bf16_positions: bool = False,
    ) -> None:
        super().__init__()
        self.config = FunAsrNanoEncoderConfig(
            num_mel_bins=input_size,
            num_stacked_frames=1,
            hidden_size=output_size,
            num_attention_heads=attention_heads,
            intermediate_size=linear_units,
            num_hidden_layers=num_blocks + tp_blocks,
            num_timestamp_prediction_layers=tp_blocks,
            fsmn_kernel_size=kernel_size,
            max_position_embeddings=max_frames + 1,  # positions count from one
            hidden_dropout=0.0,  # frozen in every training stage
            attention_dropout=0.0,
        )
        self.num_blocks, self.max_frames = num_blocks, max_frames
        self.embed = nn.Embedding(_QUERY_ROWS, input_size)
        self.encoder = FunAsrNanoEncoder(self.config)
        # A stack without timestamp layers still ends in their norm.
        self.tp_norm = nn.Identity() if tp_blocks else nn.LayerNorm(output_size)
        self.ctc = nn.Linear(output_size, vocab_size)
        if legacy_bf16_positions:
            self.encoder.position_embeddings.positional_embedding = bf16_positions(max_frames + 1, input_size)
        self._to_stored, self._to_own = _names(num_blocks, tp_blocks)
        self.register_state_dict_post_hook(_write_stored_names)
        self.register_load_state_dict_pre_hook(_read_stored_names)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``features`` [B, T, input size] with ``lengths`` [B] valid frames -> hidden [B, T + 4, d], lengths + 4.

        Raises:
            AudioError: more frames than there are positions.
        """
        queries = self.embed(torch.tensor(QUERIES, device=features.device)).expand(features.shape[0], -1, -1)
        x = torch.cat([queries, features.to(queries.dtype)], dim=1)
        if x.shape[1] > self.max_frames:
            raise AudioError(
                f"the recording has {x.shape[1]} feature frames (60 ms each), at most {self.max_frames} are "
                "understood: cut it into shorter pieces"
            )
        lengths = lengths.to(x.device) + len(QUERIES)
        valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        hidden = self.encoder(input_features=x, input_features_mask=valid).last_hidden_state
        return self.tp_norm(hidden), lengths

    def stored_to_own(self, key: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The parameters that one stored tensor fills: one, or three where query, key and value are fused."""
        if key in self._to_own:
            yield self._to_own[key], tensor
        elif f".{_FUSED}." in key:
            for part, piece in zip(_SPLIT, tensor.chunk(3, dim=0), strict=True):
                yield self._to_own[key.replace(_FUSED, part)], piece
        else:
            yield key, tensor  # unknown: left for the strict check to name


class SenseVoiceAdapter(nn.Module):
    """Hidden states of the encoder -> rows of the backbone's embedding space, one each."""

    def __init__(self, encoder_size: int, hidden_size: int) -> None:
        super().__init__()
        self.pre_proj_layernorm = nn.LayerNorm(encoder_size)
        self.mlp = nn.Sequential(
            nn.Linear(encoder_size, hidden_size, bias=False),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size, bias=False),
        )

    def forward(self, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, n, encoder size]`` -> ``[B, n, hidden size]``; lengths pass through."""
        return self.mlp(self.pre_proj_layernorm(hidden)), lengths


def bf16_positions(length: int, channels: int) -> Tensor:
    """Sinusoids ``[length, channels]`` with every step of the computation rounded to bfloat16, in float32."""
    kind = torch.bfloat16
    step = torch.tensor(10000.0).to(kind).log() / (channels / 2 - 1)
    rates = torch.exp(torch.arange(channels // 2).to(kind) * -step)
    angles = torch.arange(length).to(kind)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _names(num_blocks: int, tp_blocks: int) -> tuple[dict[str, str], dict[str, str]]:
    """Own name -> stored name and back, for all tensors; fused ones under the names of their three parts."""
    to_own: dict[str, str] = {}

    def add(stored: str, own: str, *kinds: str) -> None:
        for kind in kinds:
            to_own[f"model.{stored}.{kind}"] = f"{own}.{kind}"

    add("embed", "embed", "weight")
    add("ctc.ctc_lo", "ctc", "weight", "bias")
    last = num_blocks + tp_blocks - 1
    add("encoder.after_norm", f"encoder.layers.{num_blocks - 1}.final_layernorm", "weight", "bias")
    tp_norm = f"encoder.layers.{last}.final_layernorm" if tp_blocks else "tp_norm"
    add("encoder.tp_norm", tp_norm, "weight", "bias")
    for index in range(last + 1):
        if index == 0:
            stored = "encoder.encoders0.0"
        elif index < num_blocks:
            stored = f"encoder.encoders.{index - 1}"
        else:
            stored = f"encoder.tp_encoders.{index - num_blocks}"
        own = f"encoder.layers.{index}"
        for theirs, ours in _LAYER_PARTS.items():
            kinds = ("weight",) if theirs.endswith("fsmn_block") else ("weight", "bias")
            add(f"{stored}.{theirs}", f"{own}.{ours}", *kinds)
        for part in _SPLIT:
            add(f"{stored}.{part}", f"{own}.{part}", "weight", "bias")
    return {own: stored for stored, own in to_own.items()}, to_own


def _write_stored_names(module: SenseVoiceEncoder, state: dict[str, Tensor], prefix: str, _: dict) -> None:
    own = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
    for key, tensor in own.items():
        stored = module._to_stored[key.removeprefix(prefix)]
        if any(part in stored for part in _SPLIT[1:]):
            continue
        if _SPLIT[0] in stored:
            parts = [own[key.replace(_SPLIT[0], part)] for part in _SPLIT]
            stored, tensor = stored.replace(_SPLIT[0], _FUSED), torch.cat(parts)
        state[prefix + stored] = tensor


def _read_stored_names(
    module: SenseVoiceEncoder, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    stored = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
    for key, tensor in stored.items():
        for own, piece in module.stored_to_own(key.removeprefix(prefix), tensor):
            state[prefix + own] = piece
