"""Encoder warm-up: the audio encoder learns to spell what it hears (CTC), before any language model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vita.model.nano_audio_encoder import LETTERS_PER_FRAME, NanoAudioEncoder, ctc_text
from vita.training.feed import SpokenCorpus, characters, ctc_targets, draw_batch, pad_features, step_rngs
from vita.training.loop import StageConfig, train_stage


def ctc_loss(log_probs: Tensor, valid: Tensor, texts: list[str]) -> Tensor:
    """Mean CTC loss per character; ``log_probs [B, 2 F, C]``, ``valid [B]`` encoder frames."""
    targets, lengths = ctc_targets(texts)
    return F.ctc_loss(
        log_probs.transpose(0, 1), targets, LETTERS_PER_FRAME * valid, lengths, reduction="mean", zero_infinity=True
    )


def train_encoder(encoder: NanoAudioEncoder, corpus: SpokenCorpus, config: StageConfig, folder: Path) -> None:
    """Run or resume the stage; ``config.options["batch"]`` utterances per step."""

    def losses(step: int) -> dict[str, Tensor]:
        rng, noise = step_rngs(config.seed, step)
        indices = draw_batch(corpus, config.options["batch"], rng)
        features, lengths = pad_features([corpus.features(i, noise) for i in indices])
        _, log_probs, valid = encoder(features, lengths)
        return {"loss": ctc_loss(log_probs, valid, [corpus.utterances[i].text for i in indices])}

    train_stage(encoder, losses, config, folder)


@torch.inference_mode()
def character_error_rate(encoder: NanoAudioEncoder, corpus: SpokenCorpus, limit: int = 200) -> float:
    """Edit distance over reference characters of the greedy CTC reading, on clean audio."""
    import jiwer

    encoder.eval()
    references, hypotheses = [], []
    for i in range(min(limit, len(corpus.utterances))):
        features = corpus.features(i, None)
        _, log_probs, _ = encoder(features[None], torch.tensor([len(features)]))
        references.append(characters(corpus.utterances[i].text))
        hypotheses.append(ctc_text(log_probs[0]))
    return jiwer.cer(references, hypotheses)
