"""VITA-Audio's language model: Qwen2 main layers, N MCTP modules, and optionally an audio encoder with adapter.

This file holds the layers and says how they are wired; it knows neither schedules nor sampling nor tokens' meaning.
MCTP (Multiple Cross-modal Token Prediction, arXiv 2505.03739, section 3) module k turns the hidden state of level k
and the embedding of the token k+1 places ahead into the hidden state of level k+1:

    x[i]         = mtp_projs[k](concat(mtp_embed_norms[k](E[token i+k+1]), mtp_hidden_norms[k](h_k[i])))
    h_{k+1}[i]   = norm(layers[L+k](x)[i]),    h_0 = main hidden state after the final norm

Embedding, final norm and lm_head are shared by all levels. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding

from vita.errors import CheckpointError
from vita.model.audio_input import build_audio_input
from vita.model.checkpoint import check_fit, load_weights, stored_shapes, weight_files
from vita.model.config import VitaAudioConfig, VitaAudioSenseVoiceConfig
from vita.model.placement import Placement


class VitaAudioBackbone(nn.Module):
    """What the published checkpoints store under ``model.``: embedding, all decoder layers, final norm, audio input."""

    def __init__(self, config: VitaAudioConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(Qwen2DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen2RotaryEmbedding(config)
        self.audio_model: nn.Module | None = None
        self.audio_projection: nn.Module | None = None
        if config.audio_encoder is not None:
            self.audio_model, self.audio_projection = build_audio_input(config.audio_encoder, config.hidden_size)


class VitaAudioForCausalLM(PreTrainedModel):
    """A VITA-Audio model: main model, MCTP modules and shared head.

    Training and decoding are written with `embed_tokens`, `forward_main`, `forward_mctp`, `lm_head` and
    `encode_audio`. The model holds weights only: whatever belongs to one stream lives in the cache handed in.
    """

    config_class = VitaAudioConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: VitaAudioConfig):
        # The causal masks below follow SDPA's conventions; other attention functions read None and bool differently.
        config._attn_implementation = "sdpa"
        super().__init__(config)
        d, modules = config.hidden_size, range(config.num_nextn_predict_layers)
        self.model = VitaAudioBackbone(config)
        self.lm_head = nn.Linear(d, config.vocab_size, bias=False)
        self.mtp_projs = nn.ModuleList(nn.Linear(2 * d, d, bias=False) for _ in modules)
        self.mtp_embed_norms = nn.ModuleList(Qwen2RMSNorm(d, eps=config.rms_norm_eps) for _ in modules)
        self.mtp_hidden_norms = nn.ModuleList(Qwen2RMSNorm(d, eps=config.rms_norm_eps) for _ in modules)
        for part in self._audio_parts():  # audio modules choose their own initialisation
            for module in part.modules():
                module._is_hf_initialized = True
        self.post_init()

    # -- shape -------------------------------------------------------------------------------------------------

    @property
    def num_main_layers(self) -> int:
        return self.config.num_main_layers

    @property
    def num_mctp(self) -> int:
        return self.config.num_nextn_predict_layers

    @property
    def embed_tokens(self) -> nn.Embedding:
        return self.model.embed_tokens

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def _audio_parts(self) -> list[nn.Module]:
        return [part for part in (self.model.audio_model, self.model.audio_projection) if part is not None]

    # -- forward -----------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        audio_rows: Sequence[tuple[int, Tensor]] = (),
    ) -> Tensor:
        """Main-model logits [B, T, vocab] of token ids [B, T]; see `forward_main` for mask and positions."""
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.lm_head(self.forward_main(self.embed_prompt(input_ids, audio_rows), position_ids, None, attention_mask))

    def embed_prompt(self, input_ids: Tensor, audio_rows: Sequence[tuple[int, Tensor]] = ()) -> Tensor:
        """Embeddings [B, T, d] in which each (start, rows [n, d]) of ``audio_rows`` overwrites n rows of batch row 0."""
        embeds = self.embed_tokens(input_ids)
        if audio_rows:
            embeds = embeds.clone()
        for start, rows in audio_rows:
            if start < 0 or start + len(rows) > embeds.shape[1]:
                raise ValueError(f"{len(rows)} audio rows at {start} do not fit a prompt of {embeds.shape[1]} tokens")
            embeds[0, start : start + len(rows)] = rows.to(embeds)
        return embeds

    def forward_main(
        self, embeds: Tensor, positions: Tensor, cache: Cache | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Main model: embeddings [B, T, d] -> hidden states [B, T, d] after the final norm.

        positions: [T] or [B, T] absolute positions for RoPE. cache: keys and values of what came before, extended
        by these rows. attention_mask: bool [B, 1, T, past + T], True = attend; None = causal after all of the cache.
        """
        return self._run_layers(self.model.layers[: self.num_main_layers], embeds, positions, cache, attention_mask)

    def forward_mctp(
        self,
        k: int,
        token_embeds: Tensor,
        hidden: Tensor,
        positions: Tensor,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """MCTP module ``k`` (0-based): hidden states of level k [B, T, d] -> those of level k+1, after the final norm.

        token_embeds: [B, T, d], row i the embedding of token i+k+1, and positions that token's position. Cache and
        mask as in `forward_main`.
        """
        joined = torch.cat((self.mtp_embed_norms[k](token_embeds), self.mtp_hidden_norms[k](hidden)), dim=-1)
        layer = self.model.layers[self.num_main_layers + k]
        return self._run_layers([layer], self.mtp_projs[k](joined), positions, cache, attention_mask)

    def encode_audio(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """Audio features [B, T, F] with valid lengths [B] -> one [n_i, d] tensor per audio.

        The rows overwrite the embeddings of that audio's ``<|context_of_audio|>`` placeholders.
        """
        if self.model.audio_model is None:
            raise CheckpointError(
                "this model takes audio as tokens, not as features; use a Plus-style checkpoint or its speech tokenizer"
            )
        rows, row_lengths = self.model.audio_projection(*self.model.audio_model(features, lengths))
        return [rows[i, :n] for i, n in enumerate(row_lengths.tolist())]

    def _run_layers(self, layers, hidden: Tensor, positions: Tensor, cache, attention_mask: Tensor | None) -> Tensor:
        if positions.dim() == 1:
            positions = positions.unsqueeze(0)
        if attention_mask is None and cache is not None:
            attention_mask = causal_mask(hidden.shape[1], cache.get_seq_length(layers[0].self_attn.layer_idx), hidden.device)
        rotary = self.model.rotary_emb(hidden, positions)
        for layer in layers:
            device = layer.input_layernorm.weight.device
            if hidden.device != device:  # layers of one model may be spread over several GPUs
                hidden, rotary = hidden.to(device), tuple(table.to(device) for table in rotary)
                attention_mask = attention_mask.to(device) if attention_mask is not None else None
            hidden = layer(hidden, attention_mask=attention_mask, position_embeddings=rotary, past_key_values=cache)
        return self.model.norm(hidden.to(self.model.norm.weight.device))

    # -- loading -----------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: VitaAudioConfig | None = None,
        dtype: torch.dtype | None = None,
        device_map: Placement | dict[str, str] | str | None = None,
        **kwargs,
    ) -> VitaAudioForCausalLM:
        """Load a checkpoint folder strictly, in evaluation mode.

        dtype: None means float32 on a CPU, whatever is stored, and bfloat16 on a GPU. device_map: a device
        ("cpu", "cuda:0"), "auto" (layers spread over all visible GPUs) or a dict of name prefixes to devices.
        Raises CheckpointError naming the file and the keys that are missing, unexpected or of another shape.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            raise CheckpointError(f"no checkpoint folder at {folder}; give a folder with config.json and weights")
        config = config or cls.config_class.from_pretrained(folder)
        files = weight_files(folder)
        with torch.device("meta"):
            model = cls(config)
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        if config.tie_word_embeddings:
            expected.pop("lm_head.weight")
        check_fit(expected, stored_shapes(files), files[0] if len(files) == 1 else folder)

        placement = Placement.of(device_map, config)
        if dtype is None or dtype == "auto":
            dtype = torch.float32 if placement.on_cpu else torch.bfloat16
        model._build_computed_parts(placement)
        load_weights(model, files, dtype, placement.device_of)
        if config.tie_word_embeddings:
            model.lm_head.weight = model.embed_tokens.weight
        config.dtype = dtype
        return model.eval()

    def _build_computed_parts(self, placement: Placement) -> None:
        """Build for real what holds computed buffers (RoPE frequencies, position tables): no file stores those."""
        self.model.rotary_emb = Qwen2RotaryEmbedding(self.config).to(placement.device_of("model.rotary_emb"))
        if self.config.audio_encoder is not None:
            encoder, adapter = build_audio_input(self.config.audio_encoder, self.config.hidden_size)
            self.model.audio_model = encoder.to(placement.device_of("model.audio_model"))
            self.model.audio_projection = adapter.to(placement.device_of("model.audio_projection"))


class VitaAudioSenseVoiceForCausalLM(VitaAudioForCausalLM):
    """The published Plus models (config type qwen2_mtp_sensevoice)."""

    config_class = VitaAudioSenseVoiceConfig


def causal_mask(rows: int, past: int, device: torch.device) -> Tensor | None:
    """Bottom-right aligned causal mask, bool [1, 1, rows, past + rows], for rows that follow ``past`` cached ones.

    None where SDPA needs no mask: a single row sees everything, and without a past SDPA's own causal flag is right.
    With a past that flag would align the triangle top-left, which hides the newest keys.
    """
    if rows == 1 or past == 0:
        return None
    return torch.ones(rows, past + rows, dtype=torch.bool, device=device).tril(past)[None, None]


AutoModelForCausalLM.register(VitaAudioConfig, VitaAudioForCausalLM)
AutoModelForCausalLM.register(VitaAudioSenseVoiceConfig, VitaAudioSenseVoiceForCausalLM)
