"""Comparing one recorded decoding run with the engine; used for text prompts and for prompts with audio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.parity.golden import assert_close
from vita.decoding.engine import ForwardPass, decode
from vita.decoding.modes import resolve_mode
from vita.decoding.sampling import Sampling
from vita.decoding.stream import Stream
from vita.model.causal_lm import VitaAudioForCausalLM

AudioRows = Sequence[tuple[int, Tensor]]


def level_name(level: int) -> str:
    """The recordings call the main model "main" and the MCTP modules "mtp0", "mtp1", ..."""
    return "main" if level == 0 else f"mtp{level - 1}"


def recorded_call(done: ForwardPass) -> list:
    """[module, rows, rows cached before, first position, last position] as the recordings note a forward pass."""
    first = done.past + done.level
    return [level_name(done.level), done.rows, done.past, first, first + done.rows - 1]


def check_run(
    model: VitaAudioForCausalLM,
    run: dict[str, Any],
    prompt_ids: Sequence[int],
    tensors: dict[str, Tensor],
    atol: float,
    audio_rows: AudioRows = (),
) -> None:
    """Tokens, emitting modules, forward passes and the five best logits of every step, as far as recorded."""
    passes: list[ForwardPass] = []
    decoded = list(
        decode(
            model,
            prompt_ids,
            run["mtp_inference_mode"],
            audio_rows=audio_rows,
            sampling=Sampling(repetition_penalty=run.get("repetition_penalty") or 1.0),
            eos_ids=run.get("eos_token_id"),
            max_new_tokens=run["max_new_tokens"],
            on_pass=passes.append,
        )
    )
    assert [token.id for token in decoded] == run["tokens"]
    if "modules" in run:
        assert [level_name(token.level) for token in decoded] == run["modules"]
    if "calls" in run:
        assert [recorded_call(done) for done in passes] == run["calls"]
    best = f"{run['prompt']}.{run['mode_name']}.top5_ids"
    if best in tensors:
        logits = torch.stack([done.logits for done in passes])
        ids = tensors[best].long()
        assert_close(logits.gather(1, ids), tensors[best.replace("ids", "logits")], atol)


def forced_logits(
    model: VitaAudioForCausalLM,
    mode: Sequence[int],
    prompt_ids: Sequence[int],
    forced_tokens: Sequence[int],
    steps: int,
    audio_rows: AudioRows = (),
) -> Tensor:
    """Logits [steps, vocab] of every step when the given tokens, not the predicted ones, are appended."""
    stream = Stream(model)
    stream.extend(prompt_ids, audio_rows)
    found = []
    for step, level in zip(range(steps), resolve_mode(mode).levels(model.num_mctp)):
        found.append(stream.logits(stream.advance(level)[-1]))
        if step < len(forced_tokens):
            stream.extend([forced_tokens[step]])
    return torch.stack(found)
