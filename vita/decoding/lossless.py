"""Lossless decoding: the tokens of Vanilla mode, exactly, with fewer main passes. An extra; not in the paper.

The MCTP modules draft, the main model checks. When it next runs it feeds all drafts as catch-up rows anyway, and
each row's logits say which token it would have chosen there. The prefix on which both agree stands, the main
model's own choice follows, and the stream forgets the rest. How much this gains depends on how often the modules
agree with the main model; the published modes, which never look back, are faster and not exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from vita.decoding.engine import DecodedToken, context_left
from vita.decoding.sampling import Sampler, Sampling
from vita.decoding.stream import Stream
from vita.model.causal_lm import VitaAudioForCausalLM


def decode_lossless(
    model: VitaAudioForCausalLM,
    prompt_ids: Sequence[int],
    *,
    audio_rows: Sequence[tuple[int, Tensor]] = (),
    sampling: Sampling | None = None,
    eos_ids: Iterable[int] = (),
    max_new_tokens: int,
    drafts: int | None = None,
) -> Iterator[DecodedToken]:
    """Yield what ``decode(..., mode="vanilla")`` yields for the same arguments, sampling with a seed included.

    drafts: tokens drafted per main pass; None = one per MCTP module. ``level`` of a token is that of the module
    whose draft was right, 0 where the main model chose alone. Raises TextInputError as `decode` does.
    """
    eos = frozenset(eos_ids)
    max_new_tokens = min(max_new_tokens, context_left(model, prompt_ids))
    drafts = model.num_mctp if drafts is None else min(drafts, model.num_mctp)
    stream = Stream(model)
    stream.extend(prompt_ids, audio_rows)
    sampler = Sampler(sampling or Sampling(), model.config.vocab_size, model.lm_head.weight.device)
    sampler.saw(prompt_ids)
    drafted: list[int] = []
    main_passes = mctp_passes = emitted = 0
    while True:
        rows = stream.advance(0)[-1 - len(drafted) :]
        main_passes += 1
        known = len(stream.tokens) - len(drafted)
        for level, (logits, draft) in enumerate(zip(stream.logits(rows), [*drafted, None]), start=1):
            token = sampler.pick(logits)
            yield DecodedToken(token, level if token == draft else 0, main_passes, mctp_passes)
            emitted += 1
            if token in eos or emitted == max_new_tokens:
                return
            if token != draft:
                break
        stream.rewind(known + level - 1)
        drafted = []
        for k in range(1, drafts + 1):
            stream.extend([token])
            token = int(stream.logits(stream.advance(k)[-1]).argmax())
            drafted.append(token)
            mctp_passes += 1
        stream.extend([token])
