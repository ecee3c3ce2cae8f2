"""GLM-4-Voice flow decoder: speech tokens -> mel spectrogram by conditional flow matching.

tokens -> conformer -> length regulator = mu; then Euler steps along the estimator's velocity from noise to
mel, with classifier-free guidance. Everything random is an argument: the caller brings the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from vita.errors import CheckpointError
from vita.speech.flow_encoder import BlockConformerEncoder, LengthRegulator
from vita.speech.flow_estimator import FlowEstimator


@dataclass(frozen=True)
class FlowConfig:
    """Shape of the decoder; the defaults are the published ``config.yaml``."""

    vocab_size: int = 16384
    input_size: int = 512
    mel_bins: int = 80
    speaker_size: int = 192
    token_rate: float = 12.5
    """Speech tokens per second."""
    encoder_width: int = 512
    encoder_heads: int = 8
    encoder_hidden: int = 2048
    encoder_blocks: int = 6
    encoder_block_size: int = 10
    regulator_layers: int = 4
    estimator_channels: tuple[int, ...] = (256, 256)
    estimator_blocks: int = 4
    estimator_mid_blocks: int = 12
    estimator_heads: int = 8
    estimator_head_dim: int = 64
    time_schedule: str = "cosine"
    guidance: float = 0.7
    """Weight of classifier-free guidance (``inference_cfg_rate``)."""

    @classmethod
    def from_dict(cls, flow: Mapping, source: str = "config") -> FlowConfig:
        """Read the ``flow`` section of a decoder configuration (constructor arguments, nested as published).

        Raises:
            CheckpointError: a setting this decoder has no code for, or two that contradict.
        """
        encoder, decoder = flow.get("encoder", {}), flow.get("decoder", {})
        estimator, matching = decoder.get("estimator", {}), decoder.get("cfm_params", {})
        matching = matching.get("content", matching)  # omegaconf.DictConfig in the published YAML
        found = {
            "vocab_size": flow.get("vocab_size"),
            "input_size": flow.get("input_size"),
            "mel_bins": flow.get("output_size"),
            "speaker_size": flow.get("spk_embed_dim"),
            "token_rate": flow.get("input_frame_rate"),
            "encoder_width": encoder.get("output_size"),
            "encoder_heads": encoder.get("attention_heads"),
            "encoder_hidden": encoder.get("linear_units"),
            "encoder_blocks": encoder.get("num_blocks"),
            "encoder_block_size": encoder.get("block_size"),
            "regulator_layers": _length(flow.get("length_regulator", {}).get("sampling_ratios")),
            "estimator_channels": _tuple(estimator.get("channels")),
            "estimator_blocks": estimator.get("n_blocks"),
            "estimator_mid_blocks": estimator.get("num_mid_blocks"),
            "estimator_heads": estimator.get("num_heads"),
            "estimator_head_dim": estimator.get("attention_head_dim"),
            "time_schedule": matching.get("t_scheduler"),
            "guidance": matching.get("inference_cfg_rate"),
        }
        config = cls(**{name: value for name, value in found.items() if value is not None})
        needed = {
            "encoder.pos_enc_layer_type": (encoder.get("pos_enc_layer_type"), "rel_pos_espnet"),
            "encoder.input_layer": (encoder.get("input_layer"), "linear"),
            "encoder.normalize_before": (encoder.get("normalize_before"), True),
            "encoder.use_cnn_module": (encoder.get("use_cnn_module"), False),
            "encoder.macaron_style": (encoder.get("macaron_style"), False),
            "encoder.input_size": (encoder.get("input_size"), config.input_size),
            "decoder.estimator.act_fn": (estimator.get("act_fn"), "gelu"),
            "decoder.estimator.in_channels": (estimator.get("in_channels"), 4 * config.mel_bins),
            "decoder.estimator.out_channels": (estimator.get("out_channels"), config.mel_bins),
            "decoder.cfm_params.solver": (matching.get("solver"), "euler"),
        }
        for name, (value, expected) in needed.items():
            if value is not None and value != expected:
                raise CheckpointError(f"{source}: flow.{name} is {value!r}, but {expected!r} is needed; "
                                      "use the files of zai-org/glm-4-voice-decoder.")
        return config


def _tuple(value: object) -> tuple | None:
    return None if value is None else tuple(value)


def _length(value: object) -> int | None:
    return None if value is None else len(value)


class GuidedFlow(nn.Module):
    """The estimator under classifier-free guidance, integrated by Euler's method."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.guidance, self.schedule = config.guidance, config.time_schedule
        self.estimator = FlowEstimator(
            4 * config.mel_bins, config.mel_bins, config.estimator_channels, config.estimator_blocks,
            config.estimator_mid_blocks, config.estimator_heads, config.estimator_head_dim,
        )

    def times(self, steps: int, device: torch.device | str = "cpu") -> Tensor:
        """The ``steps + 1`` points of [0, 1] between which Euler's method steps."""
        times = torch.linspace(0, 1, steps + 1, device=device)
        return 1 - torch.cos(times * 0.5 * torch.pi) if self.schedule == "cosine" else times

    def forward(self, noise: Tensor, mu: Tensor, speaker: Tensor, condition: Tensor, steps: int) -> Tensor:
        """All ``[1, mel bins, T]`` but ``speaker`` ``[1, mel bins]``; returns the mel ``[1, mel bins, T]``."""
        wanted = torch.cat([mu, speaker[..., None].expand_as(mu), condition], dim=1)
        # The unconditional branch knows neither tokens, nor speaker, nor prompt; both run as one batch.
        context = torch.cat([wanted, torch.zeros_like(wanted)])
        times = self.times(steps, noise.device)
        x = noise
        for now, after in pairwise(times):
            velocity = self.estimator(torch.cat([x.expand(2, -1, -1), context], dim=1), now.expand(2))
            guided = (1 + self.guidance) * velocity[:1] - self.guidance * velocity[1:]
            x = x + (after - now) * guided
        return x


class FlowDecoder(nn.Module):
    """Speech tokens to mel frames. Key names as in the published ``flow.pt``."""

    def __init__(self, config: FlowConfig, sample_rate: int = 22050, hop: int = 256) -> None:
        super().__init__()
        self.config = config
        self.sample_rate, self.hop = sample_rate, hop
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_size, config.mel_bins)
        self.encoder = BlockConformerEncoder(
            config.input_size, config.encoder_width, config.encoder_heads, config.encoder_hidden,
            config.encoder_blocks, config.encoder_block_size,
        )
        self.encoder_proj = nn.Linear(config.encoder_width, config.mel_bins)
        self.length_regulator = LengthRegulator(config.mel_bins, config.regulator_layers)
        self.decoder = GuidedFlow(config)

    def frames(self, tokens: int) -> int:
        """Mel frames of so many tokens, rounded down (6.890625 per token as published)."""
        return int(tokens * self.sample_rate // (self.config.token_rate * self.hop))

    def encode(self, tokens: Tensor) -> Tensor:
        """``[n]`` -> ``[n, width]``; final for all tokens of complete blocks."""
        return self.encoder(self.input_embedding(tokens[None]))[0]

    def mu(self, encoded: Tensor) -> Tensor:
        """What the mel is expected to be: ``[n, width]`` -> ``[frames(n), mel bins]``."""
        return self.length_regulator(self.encoder_proj(encoded)[None], self.frames(encoded.shape[0]))[0]

    def speaker(self, embedding: Tensor | None = None) -> Tensor:
        """``[speaker size]`` -> ``[mel bins]``; GLM-4-Voice always uses the zero vector, its one voice."""
        if embedding is None:
            return self.spk_embed_affine_layer.bias
        return self.spk_embed_affine_layer(torch.nn.functional.normalize(embedding, dim=0))

    def solve(
        self, mu: Tensor, noise: Tensor, prompt: Tensor, steps: int, embedding: Tensor | None = None
    ) -> Tensor:
        """Flow from noise to mel.

        Args:
            mu: ``[T, mel bins]``.
            noise: ``[mel bins, T]`` standard normal.
            prompt: mel ``[mel bins, p]`` of the first ``p`` frames, already known; ``p`` may be 0.
            steps: Euler steps, 1 or more.
        Returns:
            ``[mel bins, T]``; its first ``p`` frames are the model's own version of the prompt.
        """
        condition = torch.zeros_like(noise)
        condition[:, : prompt.shape[1]] = prompt
        return self.decoder(noise[None], mu.T[None], self.speaker(embedding)[None], condition[None], steps)[0]

    def forward(
        self,
        tokens: Tensor,
        noise: Tensor,
        steps: int,
        prompt_tokens: Tensor | None = None,
        prompt: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """Mel ``[mel bins, T]`` of tokens ``[n]``, continuing a prompt given as tokens and mel ``[mel bins, p]``.

        ``noise`` is ``[mel bins, p + T]``: it covers the prompt too.
        """
        if prompt_tokens is not None:
            tokens = torch.cat([prompt_tokens, tokens])
        if prompt is None:
            prompt = noise.new_zeros(noise.shape[0], 0)
        mel = self.solve(self.mu(self.encode(tokens)), noise, prompt, steps, embedding)
        return mel[:, prompt.shape[1] :]


