"""Spoken sentences in memory, and batches of their features; every batch is a function of its step."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vita.errors import VitaError
from vita.model.nano_audio_encoder import CTC_ALPHABET, SILENCE
from vita.speech.features import log_mel
from vita.training.augment import augment, mask_features
from vita.training.corpus import Utterance, read_shard


class SpokenCorpus:
    """All utterances of one corpus set. ``by_role`` lists indices per role."""

    def __init__(self, folder: Path) -> None:
        shards = sorted(folder.glob("*.npz"))
        if not shards:
            raise VitaError(f"no corpus shards in {folder}; build them with: python -m vita.training.corpus")
        self.utterances: list[Utterance] = []
        self.samples: list[np.ndarray] = []
        for shard in shards:
            for utterance, samples in read_shard(shard):
                self.utterances.append(utterance)
                self.samples.append(samples)
        self.by_role: dict[str, list[int]] = {}
        for i, utterance in enumerate(self.utterances):
            self.by_role.setdefault(utterance.role, []).append(i)

    def features(self, index: int, rng: np.random.Generator | None) -> Tensor:
        """Log-mel ``[T, 80]``; augmented when a generator is given."""
        if rng is None:
            return log_mel(torch.from_numpy(self.samples[index].astype(np.float32) / 32768))
        mel = log_mel(torch.from_numpy(augment(self.samples[index], rng)))
        return torch.from_numpy(mask_features(mel.numpy(), rng))


def characters(text: str) -> str:
    """Text as the CTC head spells it: lower case letters, apostrophes and single spaces."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def pad_features(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """``[T_i, 80]`` each -> (``[B, max T, 80]`` padded with silence on the right, lengths ``[B]``)."""
    lengths = torch.tensor([len(f) for f in features])
    batch = torch.full((len(features), int(lengths.max()), features[0].shape[1]), SILENCE)
    for row, f in zip(batch, features, strict=True):
        row[: len(f)] = f
    return batch, lengths


def ctc_targets(texts: list[str]) -> tuple[Tensor, Tensor]:
    """(concatenated character classes, lengths ``[B]``) for ``torch.nn.functional.ctc_loss``."""
    spelled = [[CTC_ALPHABET.index(c) for c in characters(t)] for t in texts]
    return torch.tensor([c for s in spelled for c in s]), torch.tensor([len(s) for s in spelled])


def step_rngs(seed: int, step: int) -> tuple[random.Random, np.random.Generator]:
    """The two generators all choices of a step come from."""
    return random.Random(f"{seed} {step}"), np.random.default_rng([seed, step])


def draw_batch(corpus: SpokenCorpus, size: int, rng: random.Random, pool: int = 4) -> list[int]:
    """Indices of similar length (a slice of a sorted, ``pool`` times larger draw), so that little is padding."""
    drawn = sorted(rng.choices(range(len(corpus.utterances)), k=size * pool), key=lambda i: len(corpus.samples[i]))
    start = rng.randrange(pool) * size
    return drawn[start : start + size]
