"""The training losses of VITA-Audio: cross-entropy of the main model and of every MCTP level, on packed samples.

Knows packed batches and targets; knows no data, optimiser or stage. Level k (MCTP module k, from 0) works on every
sample without its first k+1 tokens and last k+1 hidden states: row i reads the embedding of token i+k+1 and h_k[i]
and predicts token i+k+2. Samples of k+1 tokens or fewer have no row there. Attention stays within a sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vita.model.causal_lm import VitaAudioForCausalLM

IGNORED = -100
"""Label of tokens that are not learnt."""

Boundary = Literal["masked", "faithful"]


@dataclass
class TrainingLosses:
    """``total`` is minimised; the rest is for the log. mctp_rows and mctp_targets count rows and scored rows."""

    total: Tensor
    main_ce: Tensor
    mctp_ce: list[Tensor] = field(default_factory=list)
    mctp_kl: list[Tensor] = field(default_factory=list)
    mctp_rows: list[int] = field(default_factory=list)
    mctp_targets: list[int] = field(default_factory=list)


def training_losses(
    model: VitaAudioForCausalLM,
    input_ids: Tensor,
    labels: Tensor,
    position_ids: Tensor,
    *,
    main_embeds: Tensor | None = None,
    boundary: Boundary = "masked",
    num_targets: int | None = None,
    kl_weight: float = 0.0,
    levels: int | None = None,
    scored_share: float = 1.0,
) -> TrainingLosses:
    """Losses of one batch of packed samples.

    Args:
        input_ids, labels, position_ids: [B, T]; positions restart with every sample, `IGNORED` labels are not
            learnt. Labels are not shifted yet.
        main_embeds: [B, T, d] input of the main model where audio rows overwrite embeddings; MCTP modules always
            read the embeddings of ``input_ids``.
        boundary: the reference shifts labels over the concatenation of samples, which scores the last row of a
            sample against the next sample's label (k+1 at level k) unless that is ignored. "faithful" keeps this,
            "masked" scores no row against another sample.
        num_targets: divide each level's summed loss by this instead of its own number of targets (gradient
            accumulation).
        kl_weight: weight of the mean over levels of KL(main model || level) on the level's targets; 0 = off.
        levels: MCTP modules that take part, from the first; None = all.
        scored_share: part of each level's targets that is scored, drawn anew per call from torch's global
            generator. The vocabulary losses of ten levels are half of a small model's cost.
    Returns:
        losses; ``total`` = main + config.mtp_loss_weight * mean over levels of their cross-entropy [+ KL].
        With a frozen lm_head the main loss is left out and MCTP modules learn from detached inputs, which is also
        what models with an audio encoder always do.
    """
    starts = sample_starts(position_ids)
    frozen_head = not model.lm_head.weight.requires_grad
    tokens = model.embed_tokens(input_ids)
    hidden = model.forward_main(
        tokens if main_embeds is None else main_embeds, position_ids, attention_mask=packed_mask(starts)
    )
    main_hidden = hidden
    targets = torch.stack([_shifted(row, start, boundary) for row, start in zip(labels, starts)])
    main_ce = _cross_entropy(model, hidden, targets, num_targets)
    found = TrainingLosses(total=hidden.new_zeros(()) if frozen_head else main_ce, main_ce=main_ce)
    if frozen_head or model.config.detach_mctp_inputs:
        tokens, hidden = tokens.detach(), hidden.detach()

    for k in range(model.num_mctp if levels is None else levels):
        ahead = k + 1
        if ahead >= input_ids.shape[1]:
            break
        below, positions = hidden[:, : input_ids.shape[1] - ahead], position_ids[:, ahead:]
        rows = _rows_within_samples(starts, ahead)
        mask = packed_mask(starts[:, :-ahead])
        hidden = model.forward_mctp(k, tokens[:, ahead:], below, positions, attention_mask=mask)
        targets = _shifted(labels[:, ahead:][rows], starts[:, :-ahead][rows], boundary)
        if scored_share < 1:
            targets = targets.masked_fill(torch.rand(targets.shape, device=targets.device) >= scored_share, IGNORED)
        found.mctp_ce.append(_cross_entropy(model, hidden[rows], targets, num_targets))
        found.mctp_rows.append(int(rows.sum()))
        found.mctp_targets.append(int((targets != IGNORED).sum()))
        if kl_weight:
            teacher = main_hidden[:, ahead:][rows].detach()
            found.mctp_kl.append(_divergence(model, hidden[rows], teacher, targets != IGNORED))
    if found.mctp_ce:
        found.total = found.total + model.config.mtp_loss_weight * torch.stack(found.mctp_ce).mean()
    if found.mctp_kl:
        found.total = found.total + kl_weight * torch.stack(found.mctp_kl).mean()
    return found


def sample_starts(position_ids: Tensor) -> Tensor:
    """Where a sample begins in [B, T] position ids: bool [B, T]."""
    starts = torch.ones_like(position_ids, dtype=torch.bool)
    starts[:, 1:] = position_ids[:, 1:] != position_ids[:, :-1] + 1
    return starts


def packed_mask(starts: Tensor) -> Tensor | None:
    """Attention mask of packed samples, bool [B, 1, T, T], True = attend: causal, within a sample.

    None where every row of the batch is one sample.
    """
    if not starts[:, 1:].any():
        return None
    sample = starts.cumsum(-1)
    return (sample[:, None, :, None] == sample[:, None, None, :]).tril()


def _rows_within_samples(starts: Tensor, ahead: int) -> Tensor:
    """Rows i whose token i + ahead is of the same sample: bool [B, T - ahead]."""
    sample = starts.cumsum(-1)
    return sample[:, :-ahead] == sample[:, ahead:]


def _shifted(labels: Tensor, starts: Tensor, boundary: Boundary) -> Tensor:
    """Target of every row [n]: the label of the next row; the last one has none."""
    if boundary == "masked":
        labels = labels.masked_fill(starts, IGNORED)
    return F.pad(labels[1:], (0, 1), value=IGNORED)


def _cross_entropy(model: VitaAudioForCausalLM, hidden: Tensor, targets: Tensor, num_targets: int | None) -> Tensor:
    """Mean loss over rows with a target; 0 where there is none. The head runs on those rows only."""
    wanted = targets != IGNORED
    count = num_targets or max(int(wanted.sum()), 1)
    logits = model.lm_head(hidden[wanted]).float()
    return F.cross_entropy(logits, targets[wanted], reduction="sum") / count


def _divergence(model: VitaAudioForCausalLM, hidden: Tensor, teacher: Tensor, wanted: Tensor) -> Tensor:
    """Mean KL(main || level) over the wanted rows; the main model's rows predict the same tokens."""
    learner = F.log_softmax(model.lm_head(hidden[wanted]).float(), -1)
    with torch.no_grad():
        main = F.log_softmax(model.lm_head(teacher[wanted]).float(), -1)
    return F.kl_div(learner, main, reduction="sum", log_target=True) / max(int(wanted.sum()), 1)
