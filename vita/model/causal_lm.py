"""VITA-Audio's language model: Qwen2 main layers, N MCTP modules, and optionally an audio encoder with adapter.

Holds the layers and says how they are wired; knows neither schedules nor sampling nor what a token means.
MCTP (Multiple Cross-modal Token Prediction, arXiv 2505.03739) module k turns hidden states of level k and the
embeddings of the tokens k+1 places ahead into hidden states of level k+1:

    x[i]       = mtp_projs[k](concat(mtp_embed_norms[k](E[token i+k+1]), mtp_hidden_norms[k](h_k[i])))
    h_{k+1}[i] = norm(layers[L+k](x)[i]),      h_0 = hidden states of the main model after the final norm

Embedding, final norm and lm_head serve all levels. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding

from vita.errors import AudioError, CheckpointError
from vita.model.audio_input import build_audio_input
from vita.model.checkpoint import check_fit, load_weights, weight_files
from vita.model.config import VitaAudioConfig, VitaAudioSenseVoiceConfig
from vita.model.placement import DeviceMap, Placement


class VitaAudioBackbone(nn.Module):
    """What checkpoints store under ``model.``: embedding, all decoder layers, final norm, audio input."""

    def __init__(self, config: VitaAudioConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(Qwen2DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen2RotaryEmbedding(config)
        self.audio_model = self.audio_projection = None
        if config.audio_encoder is not None:
            self.audio_model, self.audio_projection = build_audio_input(config.audio_encoder, config.hidden_size)


class VitaAudioForCausalLM(PreTrainedModel):
    """A VITA-Audio model: main model, MCTP modules and the head they share.

    Training and decoding are written with `embed_tokens`, `forward_main`, `forward_mctp`, `lm_head` and
    `encode_audio`. The model holds weights only; what belongs to one stream lives in the cache handed in.
    """

    config_class = VitaAudioConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _tied_weights_keys: ClassVar = {"lm_head.weight": "model.embed_tokens.weight"}
    unused_keys: ClassVar[tuple[str, ...]] = ()
    """Patterns of stored keys that published files may have although nothing here uses them."""

    def __init__(self, config: VitaAudioConfig) -> None:
        # The masks below follow SDPA's conventions; other attention functions read bool and None differently.
        config._attn_implementation = "sdpa"
        super().__init__(config)
        d, modules = config.hidden_size, range(config.num_nextn_predict_layers)
        self.model = VitaAudioBackbone(config)
        self.lm_head = nn.Linear(d, config.vocab_size, bias=False)
        self.mtp_projs = nn.ModuleList(nn.Linear(2 * d, d, bias=False) for _ in modules)
        self.mtp_embed_norms = nn.ModuleList(Qwen2RMSNorm(d, eps=config.rms_norm_eps) for _ in modules)
        self.mtp_hidden_norms = nn.ModuleList(Qwen2RMSNorm(d, eps=config.rms_norm_eps) for _ in modules)
        if config.audio_encoder is not None:
            for part in (self.model.audio_model, self.model.audio_projection):
                for module in part.modules():  # audio modules have chosen their own initialisation
                    module._is_hf_initialized = True
        self.post_init()

    @property
    def num_main_layers(self) -> int:
        return self.config.num_main_layers

    @property
    def num_mctp(self) -> int:
        """Number N of MCTP modules."""
        return self.config.num_nextn_predict_layers

    @property
    def embed_tokens(self) -> nn.Embedding:
        return self.model.embed_tokens

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        audio_rows: Sequence[tuple[int, Tensor]] = (),
    ) -> Tensor:
        """Logits [B, T, vocab] of the main model for token ids [B, T]; see `embed_prompt`, `forward_main`."""
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        embeds = self.embed_prompt(input_ids, audio_rows)
        return self.lm_head(self.forward_main(embeds, position_ids, attention_mask=attention_mask))

    def embed_prompt(self, input_ids: Tensor, audio_rows: Sequence[tuple[int, Tensor]] = ()) -> Tensor:
        """Embeddings [B, T, d]; each (start, rows [n, d]) of ``audio_rows`` overwrites n rows of batch row 0.

        Raises AudioError when rows do not fit into the prompt.
        """
        embeds = self.embed_tokens(input_ids)
        if audio_rows:
            embeds = embeds.clone()
        for start, rows in audio_rows:
            if start < 0 or start + len(rows) > embeds.shape[1]:
                raise AudioError(
                    f"{len(rows)} audio rows at position {start} do not fit a prompt of {embeds.shape[1]} tokens; "
                    "give the prompt one placeholder for each row."
                )
            embeds[0, start : start + len(rows)] = rows.to(embeds)
        return embeds

    def forward_main(
        self,
        embeds: Tensor,
        positions: Tensor,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Main model: embeddings [B, T, d] -> hidden states [B, T, d] after the final norm.

        positions: [T] or [B, T], absolute, for RoPE. cache: keys and values of what came before; extended by
        these rows. attention_mask: bool [B, 1, T, past + T], True = attend; None = causal behind the cache.
        """
        layers = self.model.layers[: self.num_main_layers]
        return self._run_layers(layers, embeds, positions, cache, attention_mask)

    def forward_mctp(
        self,
        k: int,
        token_embeds: Tensor,
        hidden: Tensor,
        positions: Tensor,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """MCTP module ``k`` (0-based): hidden states of level k [B, T, d] -> level k+1, after the final norm.

        token_embeds: [B, T, d], row i the embedding of token i+k+1. positions: those of that token. Cache and
        mask as in `forward_main`.
        """
        joined = torch.cat((self.mtp_embed_norms[k](token_embeds), self.mtp_hidden_norms[k](hidden)), dim=-1)
        layers = self.model.layers[self.num_main_layers + k : self.num_main_layers + k + 1]
        return self._run_layers(layers, self.mtp_projs[k](joined), positions, cache, attention_mask)

    def encode_audio(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """Audio features [B, T, F] of valid lengths [B] -> rows [n, d] of each audio.

        They overwrite the embeddings of that audio's ``<|context_of_audio|>`` placeholders. Raises AudioError
        for a model without audio encoder.
        """
        if self.model.audio_model is None:
            raise AudioError(
                "this model hears audio as tokens, not as features; turn the audio into audio tokens with its "
                "speech tokenizer."
            )
        rows, row_lengths = self.model.audio_projection(*self.model.audio_model(features, lengths))
        return [rows[i, :n] for i, n in enumerate(row_lengths.tolist())]

    def _run_layers(
        self,
        layers: Sequence[Qwen2DecoderLayer],
        hidden: Tensor,
        positions: Tensor,
        cache: Cache | None,
        mask: Tensor | None,
    ) -> Tensor:
        if mask is None and cache is not None:
            past = cache.get_seq_length(layers[0].self_attn.layer_idx)
            mask = causal_mask(hidden.shape[1], past, hidden.device)
        rotary = self.model.rotary_emb(hidden, positions if positions.dim() == 2 else positions[None])
        for layer in layers:
            device = layer.input_layernorm.weight.device
            if hidden.device != device:  # the layers of one model may be spread over several GPUs
                hidden, rotary = hidden.to(device), tuple(table.to(device) for table in rotary)
                mask = mask if mask is None else mask.to(device)
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache)
        return self.model.norm(hidden.to(self.model.norm.weight.device))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: VitaAudioConfig | None = None,
        dtype: torch.dtype | None = None,
        device_map: DeviceMap = None,
        **_: Any,
    ) -> VitaAudioForCausalLM:
        """Load a checkpoint folder strictly, in evaluation mode.

        config: read from the folder when None. dtype: None (or "auto") means float32 on a CPU, whatever is
        stored, and bfloat16 on a GPU. device_map: a device ("cpu", "cuda:0"), "auto" for the main layers spread
        over all GPUs, or a dict of parameter-name prefixes to devices. Further arguments, which transformers'
        Auto classes pass on, have no effect.

        Raises CheckpointError naming the file, the key and the remedy.
        """
        folder = Path(pretrained_model_name_or_path)
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{folder} is no checkpoint folder: config.json is missing; download the checkpoint first "
                "or give its folder."
            )
        config = config or cls.config_class.from_pretrained(folder)
        files = weight_files(folder)
        with torch.device("meta"):
            model = cls(config)
        check_fit(model._stored_tensors(), files, cls.__name__, model._is_unused)

        placement = Placement.of(device_map, config.num_main_layers)
        if dtype is None or dtype == "auto":
            dtype = torch.float32 if placement.on_cpu else torch.bfloat16
        model._build_computed_parts(placement)
        load_weights(model, files, dtype, placement.device_of, model._is_unused)
        if config.tie_word_embeddings:
            model.lm_head.weight = model.embed_tokens.weight
        config.dtype = dtype
        return model.eval()

    def _stored_tensors(self) -> dict[str, Tensor]:
        tensors = self.state_dict()
        if self.config.tie_word_embeddings:
            del tensors["lm_head.weight"]
        return tensors

    def _is_unused(self, key: str) -> bool:
        return any(re.match(pattern, key) for pattern in self.unused_keys)

    def _build_computed_parts(self, placement: Placement) -> None:
        """Build for real, not on the meta device, what holds computed buffers: no file stores those."""
        self.model.rotary_emb = Qwen2RotaryEmbedding(self.config).to(placement.device_of("model.rotary_emb"))
        if self.config.audio_encoder is not None:
            encoder, adapter = build_audio_input(self.config.audio_encoder, self.config.hidden_size)
            self.model.audio_model = encoder.to(placement.device_of("model.audio_model"))
            self.model.audio_projection = adapter.to(placement.device_of("model.audio_projection"))


class VitaAudioSenseVoiceForCausalLM(VitaAudioForCausalLM):
    """The published Plus models (config type qwen2_mtp_sensevoice)."""

    config_class = VitaAudioSenseVoiceConfig


def causal_mask(rows: int, past: int, device: torch.device) -> Tensor | None:
    """Causal mask for ``rows`` that follow ``past`` cached ones, bottom-right aligned: bool [1, 1, rows, past+rows].

    None where SDPA needs none: one row sees everything, and without a past SDPA's own causal flag is right. With
    a past that flag would align the triangle at the top left and hide the newest keys.
    """
    if rows == 1 or past == 0:
        return None
    return torch.ones(rows, past + rows, dtype=torch.bool, device=device).tril(past)[None, None]


AutoModelForCausalLM.register(VitaAudioConfig, VitaAudioForCausalLM)
AutoModelForCausalLM.register(VitaAudioSenseVoiceConfig, VitaAudioSenseVoiceForCausalLM)
