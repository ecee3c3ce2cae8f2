"""The language stages: backbone and MCTP modules on spoken and written tasks.

One batch is a function of its step. Loss: main cross-entropy over the answers, CTC of the encoder,
and the mean cross-entropy of the MCTP levels; which of them counts is the stage's choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vita.model.causal_lm import VitaAudioForCausalLM
from vita.speech.features import SAMPLE_RATE, log_mel
from vita.training.augment import noise
from vita.training.feed import pad_features, step_rngs
from vita.training.loop import StageConfig, train_stage
from vita.training.losses import IGNORED, training_losses
from vita.training.samples import NOISE_BASE, Sample, SampleMaker
from vita.training.stage_encoder import ctc_loss
from vita.vocabulary import Vocabulary

ROW_SHARPNESS = 16.0
"""Scale of the cosines in `row_loss`: 16 leaves a softmax over 2,000 words room for a confident choice."""


@dataclass
class Batch:
    """Samples padded on the right (a causal model never looks there).

    ids, labels: ``[B, T]`` (labels -100 outside answers); features ``[R, M, 80]`` with lengths ``[R]``
    of all recordings in order; transcripts: their texts, empty for noise.
    """

    ids: Tensor
    labels: Tensor
    features: Tensor | None
    lengths: Tensor | None
    transcripts: list[str]


def hear(maker: SampleMaker, index: int, generator: np.random.Generator) -> tuple[Tensor, str]:
    """Features of a recording (augmented) or of synthetic noise, and what is said in it."""
    if index < NOISE_BASE:
        return maker.corpus.features(index, generator), maker.corpus.utterances[index].text
    own = np.random.default_rng(index)
    length = int(own.uniform(0.3, 3.0) * SAMPLE_RATE)
    x = noise(length, own) * 10 ** own.uniform(-4, -0.8)
    if own.random() < 0.4:  # hum, whistle or chord
        t = np.arange(length) / SAMPLE_RATE
        x = x * 0.2 + sum(
            np.sin(2 * np.pi * own.uniform(50, 2000) * t) for _ in range(own.integers(1, 4))
        ) * 10 ** own.uniform(-2, -0.8)
    return log_mel(torch.from_numpy(np.clip(x, -1, 1).astype(np.float32))), ""


def collate(
    samples: list[Sample], maker: SampleMaker, generator: np.random.Generator, audio_share: float = 1.0
) -> Batch:
    """Hear every recording and put as many placeholders as it has rows.

    ``audio_share`` of the audio tokens are learned: the fewer, the more the words count in the mean loss.
    """
    heard = [hear(maker, index, generator) for sample in samples for index in sample.heard]
    rows = iter([-(-len(features) // 8) for features, _ in heard])
    context = maker.vocabulary.context_of_audio
    ids, starts = [], []
    for sample in samples:
        expanded: list[int] = []
        for id in sample.ids[: sample.answer_start]:
            expanded += [context] * next(rows) if id < 0 else [id]
        starts.append(len(expanded))
        ids.append(expanded + sample.ids[sample.answer_start :])
    width = max(map(len, ids))
    padded = torch.zeros(len(ids), width, dtype=torch.long)
    labels = torch.full((len(ids), width), IGNORED)
    for i, (row, start) in enumerate(zip(ids, starts, strict=True)):
        padded[i, : len(row)] = torch.tensor(row)
        labels[i, start : len(row)] = padded[i, start : len(row)]
    if audio_share < 1:
        audio = (labels >= maker.vocabulary.first_audio_id) & (
            labels < maker.vocabulary.first_audio_id + maker.vocabulary.audio_count
        )
        labels[audio & torch.from_numpy(generator.random(labels.shape) >= audio_share)] = IGNORED
    features, lengths = pad_features([f for f, _ in heard]) if heard else (None, None)
    return Batch(padded, labels, features, lengths, [text for _, text in heard])


def embed(model: VitaAudioForCausalLM, batch: Batch, vocabulary: Vocabulary) -> tuple[Tensor, dict[str, Tensor]]:
    """Input embeddings ``[B, T, d]`` with audio rows in place, and the losses of hearing: ``ctc`` and ``rows``."""
    context = vocabulary.context_of_audio
    embeds = model.embed_tokens(batch.ids)
    if batch.features is None:
        return embeds, {}
    hidden, log_probs, valid = model.model.audio_model(batch.features, batch.lengths)
    rows, row_lengths = model.model.audio_projection(hidden, log_probs, valid)
    inside = torch.arange(rows.shape[1])[None, :] < row_lengths[:, None]
    embeds = embeds.masked_scatter((batch.ids == context)[..., None], rows[inside])
    spoken = [i for i, text in enumerate(batch.transcripts) if text]
    if not spoken or not torch.is_grad_enabled() or not log_probs.requires_grad:
        return embeds, {}
    texts = [batch.transcripts[i] for i in spoken]
    return embeds, {
        "ctc": ctc_loss(log_probs[spoken], valid[spoken], texts),
        "rows": row_loss(model, rows[spoken], row_lengths[spoken], texts, vocabulary),
    }


def row_loss(
    model: VitaAudioForCausalLM, rows: Tensor, lengths: Tensor, texts: list[str], vocabulary: Vocabulary
) -> Tensor:
    """CTC of audio rows against the backbone's own text embeddings: a row should look like the word heard in it.

    The backbone learns facts from text within minutes; rows in the same directions let it use them for speech.
    ``rows [R, n, d]``, ``lengths [R]``. The placeholder's embedding is the blank.
    """
    embedding = model.embed_tokens.weight
    classes = torch.cat((embedding[vocabulary.context_of_audio][None], embedding[: vocabulary.first_audio_id]))
    scores = ROW_SHARPNESS * F.normalize(rows, dim=-1) @ F.normalize(classes, dim=-1).T
    targets = [[1 + id for id in vocabulary.encode(text.rstrip(".?!"))] for text in texts]
    return F.ctc_loss(
        F.log_softmax(scores, dim=-1).transpose(0, 1),
        torch.tensor([id for target in targets for id in target]),
        lengths,
        torch.tensor([len(target) for target in targets]),
        zero_infinity=True,
    )


def train_language(model: VitaAudioForCausalLM, maker: SampleMaker, config: StageConfig, folder: Path) -> None:
    """Run or resume a stage.

    ``config.options``: ``batch`` samples per step, ``mix`` of tasks, ``ctc`` weight of the losses of hearing beside
    the language losses, ``audio_share`` of audio tokens learned, ``levels`` of MCTP trained, ``share`` of rows
    scored per level. The main loss counts where the learning rates leave the head free.
    """
    options = config.options

    def losses(step: int) -> dict[str, Tensor]:
        rng, generator = step_rngs(config.seed, step)
        pool = sorted(
            (maker.draw(options["mix"], rng) for _ in range(options["batch"] * 4)), key=lambda s: _length(s, maker)
        )
        start = rng.randrange(4) * options["batch"]
        batch = collate(pool[start : start + options["batch"]], maker, generator, options["audio_share"])
        positions = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
        embeds, hearing = embed(model, batch, maker.vocabulary)
        found = training_losses(
            model,
            batch.ids,
            batch.labels,
            positions,
            main_embeds=embeds,
            levels=options["levels"],
            scored_share=options["share"],
        )
        total, named = found.total, {f"mctp{k + 1}": loss for k, loss in enumerate(found.mctp_ce)}
        named["main"] = found.main_ce
        if options["ctc"]:
            for name, loss in hearing.items():
                named[name] = loss
                total = total + options["ctc"] * loss
        return {"loss": total, **named}

    train_stage(model, losses, config, folder)


def _length(sample: Sample, maker: SampleMaker) -> int:
    """Expected positions: ids plus 12.5 rows per second of every recording."""
    seconds = sum(len(maker.corpus.samples[i]) / SAMPLE_RATE if i < NOISE_BASE else 1.5 for i in sample.heard)
    return len(sample.ids) + round(12.5 * seconds)


def mctp_prefixes(model: VitaAudioForCausalLM, modules: range) -> list[str]:
    """Parameter-name prefixes of MCTP modules."""
    return [
        p
        for k in modules
        for p in (
            f"mtp_projs.{k}.",
            f"mtp_embed_norms.{k}.",
            f"mtp_hidden_norms.{k}.",
            f"model.layers.{model.num_main_layers + k}.",
        )
    ]


@torch.no_grad()
def start_first_mctp(model: VitaAudioForCausalLM) -> None:
    """MCTP module 1 starts as the last main layer (paper, stage 2)."""
    last = model.num_main_layers - 1
    model.model.layers[last + 1].load_state_dict(model.model.layers[last].state_dict())


@torch.no_grad()
def start_other_mctp(model: VitaAudioForCausalLM) -> None:
    """All other MCTP modules start as module 1 (paper, stage 3)."""
    first = model.num_main_layers
    for k in range(1, model.num_mctp):
        model.model.layers[first + k].load_state_dict(model.model.layers[first].state_dict())
        for parts in (model.mtp_projs, model.mtp_embed_norms, model.mtp_hidden_norms):
            parts[k].load_state_dict(parts[0].state_dict())
