"""The engine against a recomputation without caches, and what a stream promises its owner."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from itertools import islice

import pytest
import torch
from torch import Tensor

from vita.decoding.engine import ForwardPass, decode
from vita.decoding.modes import resolve_mode
from vita.decoding.sampling import Sampling
from vita.decoding.stream import Stream
from vita.errors import ModeError, TextInputError
from vita.model.causal_lm import VitaAudioForCausalLM
from vita.model.config import VitaAudioConfig

VOCAB = 97
PROMPT = [5, 17, 3, 60, 42, 8, 8]


def make_model(num_mctp: int = 3, context: int = 200) -> VitaAudioForCausalLM:
    """Random weights large enough that levels, positions and tokens all matter for the next token."""
    torch.manual_seed(num_mctp)
    config = VitaAudioConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2 + num_mctp,
        num_nextn_predict_layers=num_mctp,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.2,
    )
    return VitaAudioForCausalLM(config).eval()


@torch.inference_mode()
def logits_without_cache(
    model: VitaAudioForCausalLM, tokens: Sequence[int], level: int, audio_rows: Sequence[tuple[int, Tensor]] = ()
) -> Tensor:
    """What ``level`` predicts behind ``tokens``, computed from scratch by the definition of the levels."""
    ids = torch.tensor([tokens])
    positions = torch.arange(len(tokens))
    embeds = model.embed_tokens(ids)
    hidden = model.forward_main(model.embed_prompt(ids, audio_rows), positions)
    for k in range(level):
        hidden = model.forward_mctp(k, embeds[:, k + 1 :], hidden[:, :-1], positions[k + 1 :])
    return model.lm_head(hidden[0, -1])


@pytest.mark.parametrize("num_mctp", [0, 1, 3])
@pytest.mark.parametrize("mode", ["vanilla", "balance", "boost", "turbo", [2, 1, 1, 2], [1, 0, 2, 3]])
@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[:1]], ids=["prompt7", "prompt1"])
def test_every_step_equals_a_recomputation_from_scratch(num_mctp: int, mode: object, prompt: list[int]) -> None:
    model = make_model(num_mctp)
    passes: list[ForwardPass] = []
    tokens = list(prompt)
    levels = resolve_mode(mode).levels(num_mctp)
    for token in decode(model, prompt, mode, max_new_tokens=24, on_pass=passes.append):
        assert token.level == next(levels)
        expected = logits_without_cache(model, tokens, token.level)
        torch.testing.assert_close(passes[-1].logits, expected, atol=1e-4, rtol=1e-4)
        assert token.id == int(passes[-1].logits.argmax())
        tokens.append(token.id)
    assert len(tokens) == len(prompt) + 24


def test_module_first_used_late_starts_from_the_first_row() -> None:
    passes: list[ForwardPass] = []
    list(decode(make_model(), PROMPT, [1, 1, 2, 3], max_new_tokens=8, on_pass=passes.append))
    first_use = {}
    for done in passes:
        first_use.setdefault(done.level, (done.past, done.rows))
    # 7 prompt tokens; module 2 starts when 12 tokens are known and then sees 12 - 2 rows.
    assert first_use == {0: (0, 7), 1: (0, 7), 2: (0, 10), 3: (0, 10)}


def test_audio_rows_reach_the_main_model_only() -> None:
    model = make_model()
    rows = torch.randn(3, 32)
    passes: list[ForwardPass] = []
    tokens = list(PROMPT)
    for token in decode(
        model, PROMPT, "turbo", audio_rows=[(2, rows)], max_new_tokens=12, on_pass=passes.append
    ):
        expected = logits_without_cache(model, tokens, token.level, [(2, rows)])
        torch.testing.assert_close(passes[-1].logits, expected, atol=1e-4, rtol=1e-4)
        tokens.append(token.id)
    plain = [token.id for token in decode(model, PROMPT, "turbo", max_new_tokens=12)]
    assert tokens[len(PROMPT) :] != plain


def test_a_prompt_may_arrive_in_pieces() -> None:
    """Audio can be prefilled while it is still being spoken: later rows catch up, the result is the same."""
    model, rows = make_model(), torch.randn(2, 32)
    whole, pieces = Stream(model), Stream(model)
    whole.extend(PROMPT, [(3, rows)])
    pieces.extend(PROMPT[:3])
    pieces.advance(0)
    pieces.extend(PROMPT[3:], [(0, rows)])
    for level in range(4):
        expected, found = whole.advance(level)[-1], pieces.advance(level)[-1]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        token = int(whole.logits(expected).argmax())
        whole.extend([token])
        pieces.extend([token])


def test_interleaved_streams_do_not_disturb_each_other() -> None:
    model = make_model()
    prompts = PROMPT, [1, 2, 3]
    alone = [[t.id for t in decode(model, prompt, "boost", max_new_tokens=30)] for prompt in prompts]
    streams = [decode(model, prompt, "boost", max_new_tokens=30) for prompt in prompts]
    together: list[list[int]] = [[], []]
    for tokens in zip(*streams):
        for found, token in zip(together, tokens):
            found.append(token.id)
    assert together == alone


def test_stops_behind_the_end_token_of_any_level() -> None:
    model = make_model()
    free = list(decode(model, PROMPT, "turbo", max_new_tokens=40))
    first_seen = {token.id: index for index, token in reversed(list(enumerate(free)))}
    ends = {free[index].level: index for index in sorted(first_seen.values()) if index}
    assert any(level > 0 for level in ends), "no end token inside a run of MCTP tokens was tried"
    for index in ends.values():
        for eos in (free[index].id, [free[index].id, VOCAB + 5]):
            stopped = list(decode(model, PROMPT, "turbo", eos_ids=eos, max_new_tokens=40))
            assert stopped == free[: index + 1]


def test_passes_are_counted_by_kind() -> None:
    last = list(decode(make_model(), PROMPT, "turbo", max_new_tokens=10))[-1]
    assert (last.main_passes, last.mctp_passes) == (3, 7)


def test_caches_grow_beyond_what_was_reserved() -> None:
    model = make_model(context=2000)
    reserved, small = Stream(model, capacity=64), Stream(model, capacity=2)
    for stream in (reserved, small):
        stream.extend(PROMPT)
    for level in islice(resolve_mode("boost").levels(3), 60):
        hidden = [stream.advance(level) for stream in (reserved, small)]
        torch.testing.assert_close(hidden[1], hidden[0], atol=1e-5, rtol=1e-4)
        token = int(reserved.logits(hidden[0][-1]).argmax())
        reserved.extend([token])
        small.extend([token])


def test_decoding_ends_where_the_context_ends() -> None:
    model = make_model(context=16)
    assert len(list(decode(model, PROMPT, "boost", max_new_tokens=100))) == 9
    with pytest.raises(TextInputError, match="16 tokens, the model takes 1 to 15"):
        decode(model, [1] * 16, "boost", max_new_tokens=1)
    with pytest.raises(TextInputError, match="0 tokens"):
        decode(model, [], "boost", max_new_tokens=1)


def test_a_wrong_mode_is_refused_before_any_work() -> None:
    with pytest.raises(ModeError):
        decode(make_model(), PROMPT, "warp", max_new_tokens=1)


def test_closing_frees_the_stream_and_leaves_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[weakref.ref] = []

    class Watched(Stream):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            created.append(weakref.ref(self))

    monkeypatch.setattr("vita.decoding.engine.Stream", Watched)
    tokens = decode(make_model(), PROMPT, "boost", max_new_tokens=50)
    next(tokens)
    assert created[0]() is not None
    assert not torch.is_inference_mode_enabled()
    tokens.close()
    gc.collect()
    assert created[0]() is None


def test_levels_out_of_order_are_refused() -> None:
    stream = Stream(make_model())
    stream.extend(PROMPT)
    with pytest.raises(ValueError, match="level 1 has nothing to read"):
        stream.advance(1)
    stream.advance(0)
    with pytest.raises(ValueError, match="level 1 reads a token ahead"):
        stream.advance(1)
    stream.extend([4])
    assert stream.advance(1).shape == (7, 32)


def test_sampled_tokens_repeat_with_the_seed_on_all_levels() -> None:
    model = make_model()

    def run(seed: int) -> list[int]:
        sampling = Sampling(do_sample=True, temperature=1.5, seed=seed)
        return [token.id for token in decode(model, PROMPT, "turbo", sampling=sampling, max_new_tokens=40)]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_weights_changed_by_training_are_used_by_the_next_stream() -> None:
    model = make_model()
    before = next(decode(model, PROMPT, "vanilla", max_new_tokens=1)).id
    with torch.no_grad():
        model.lm_head.weight[before] = 0.0
        model.model.layers[0].self_attn.q_proj.weight.neg_()
    after = next(decode(model, PROMPT, "vanilla", max_new_tokens=1)).id
    assert after == int(logits_without_cache(model, PROMPT, 0).argmax()) != before
