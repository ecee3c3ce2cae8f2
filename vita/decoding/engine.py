"""Decoding: a prompt and a mode in, one token after the other out.

Puts the pieces together: the mode says which level is next, the stream computes that level's prediction, the
sampler picks the token. Nothing is kept on the model, so any number of decodings may be interleaved on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

from torch import Tensor

from vita.decoding.modes import DecodingMode, resolve_mode
from vita.decoding.sampling import Sampler, Sampling
from vita.decoding.stream import Stream
from vita.errors import TextInputError
from vita.model.causal_lm import VitaAudioForCausalLM

_RESERVED = 512
"""Tokens to allocate for beyond the prompt; longer answers grow by doubling."""


@dataclass(frozen=True, slots=True)
class DecodedToken:
    """One new token. level: 0 = main model, k = k-th MCTP module; passes: forward passes so far, this one included."""

    id: int
    level: int
    main_passes: int
    mctp_passes: int


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """What one forward pass did, for those who measure.

    rows: rows it computed, after ``past`` cached ones; the first main pass is the prefill. hidden: [rows, d] after
    the final norm. logits: [vocab] of the last row, from which ``token`` was picked. seconds: wall time of the
    pass with the choice of the token.
    """

    level: int
    rows: int
    past: int
    hidden: Tensor
    logits: Tensor
    token: int
    seconds: float


def decode(
    model: VitaAudioForCausalLM,
    prompt_ids: Sequence[int],
    mode: DecodingMode | str | Sequence[int],
    *,
    audio_rows: Sequence[tuple[int, Tensor]] = (),
    sampling: Sampling | None = None,
    eos_ids: int | Iterable[int] | None = (),
    max_new_tokens: int,
    on_pass: Callable[[ForwardPass], None] | None = None,
) -> Iterator[DecodedToken]:
    """Yield new tokens until one of ``eos_ids`` (yielded too) or ``max_new_tokens``.

    audio_rows: (start, rows [n, d]) overwrite the embeddings of n prompt tokens, from `encode_audio`.
    on_pass: called after every forward pass. Closing the iterator frees the stream.

    Raises ModeError for an unknown mode, TextInputError for an empty prompt or one beyond the model's context;
    both before the first token is asked for. Decoding stops where the model's context ends.
    """
    mode = resolve_mode(mode)
    eos = frozenset([eos_ids] if isinstance(eos_ids, int) else eos_ids or ())
    limit = min(max_new_tokens, context_left(model, prompt_ids))
    return _decode(model, prompt_ids, mode, audio_rows, sampling or Sampling(), eos, limit, on_pass)


def context_left(model: VitaAudioForCausalLM, prompt_ids: Sequence[int]) -> int:
    """How many tokens the model's context holds behind the prompt, at least 1; TextInputError otherwise."""
    context = model.config.max_position_embeddings
    if not 0 < len(prompt_ids) < context:
        raise TextInputError(
            f"the prompt has {len(prompt_ids)} tokens, the model takes 1 to {context - 1}; "
            "shorten the question or start a new conversation."
        )
    return context - len(prompt_ids)


def _decode(
    model: VitaAudioForCausalLM,
    prompt_ids: Sequence[int],
    mode: DecodingMode,
    audio_rows: Sequence[tuple[int, Tensor]],
    sampling: Sampling,
    eos_ids: frozenset[int],
    max_new_tokens: int,
    on_pass: Callable[[ForwardPass], None] | None,
) -> Iterator[DecodedToken]:
    stream = Stream(model, capacity=len(prompt_ids) + min(max_new_tokens, _RESERVED))
    stream.extend(prompt_ids, audio_rows)
    sampler = Sampler(sampling, model.config.vocab_size, model.lm_head.weight.device)
    sampler.saw(prompt_ids)
    passes = [0, 0]
    for level, _ in zip(mode.levels(model.num_mctp), range(max_new_tokens)):
        started = perf_counter()
        hidden = stream.advance(level)
        logits = stream.logits(hidden[-1])
        token = sampler.pick(logits)
        passes[level > 0] += 1
        if on_pass is not None:
            rows, seconds = len(hidden), perf_counter() - started
            past = stream.length(level) - rows
            on_pass(ForwardPass(level, rows, past, hidden, logits, token, seconds))
        yield DecodedToken(token, level, *passes)
        if token in eos_ids:
            return
        stream.extend([token])
