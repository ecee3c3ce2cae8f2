"""Lossless decoding: always Vanilla's tokens, with fewer main passes once the modules have learnt something."""

from __future__ import annotations

import pytest
import torch

from tests.test_engine import PROMPT, VOCAB, make_model
from vita.decoding.engine import decode
from vita.decoding.lossless import decode_lossless
from vita.decoding.sampling import Sampling
from vita.decoding.stream import Stream
from vita.model.causal_lm import VitaAudioForCausalLM
from vita.training.losses import training_losses


@pytest.fixture(scope="module")
def trained() -> VitaAudioForCausalLM:
    """A model that has learnt to count in steps of 3, on all levels."""
    model = make_model().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    positions = torch.arange(24).expand(8, -1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        ids = (torch.randint(0, VOCAB, (8, 1), generator=generator) + 3 * positions) % VOCAB
        optimiser.zero_grad()
        training_losses(model, ids, ids, positions).total.backward()
        optimiser.step()
    return model.eval()


@pytest.mark.parametrize("drafts", [None, 1, 0, 9])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(repetition_penalty=1.3), Sampling(do_sample=True, temperature=0.8, top_k=5, seed=4)],
    ids=["greedy", "penalty", "sampled"],
)
def test_tokens_are_those_of_vanilla(
    trained: VitaAudioForCausalLM, sampling: Sampling, drafts: int | None
) -> None:
    for model in (trained, make_model(3), make_model(0)):
        expected = [t.id for t in decode(model, PROMPT, "vanilla", sampling=sampling, max_new_tokens=40)]
        found = decode_lossless(model, PROMPT, sampling=sampling, max_new_tokens=40, drafts=drafts)
        assert [token.id for token in found] == expected


def test_right_drafts_save_main_passes(trained: VitaAudioForCausalLM) -> None:
    prompt = [(5 + 3 * i) % VOCAB for i in range(10)]
    found = list(decode_lossless(trained, prompt, max_new_tokens=13))
    assert [token.id for token in found] == [(5 + 3 * i) % VOCAB for i in range(10, 23)]
    assert found[-1].main_passes <= 5
    assert {token.level for token in found} == {0, 1, 2, 3}


def test_audio_rows_and_end_token(trained: VitaAudioForCausalLM) -> None:
    rows = [(1, torch.randn(3, 32))]
    free = [t.id for t in decode(trained, PROMPT, "vanilla", audio_rows=rows, max_new_tokens=30)]
    assert [t.id for t in decode_lossless(trained, PROMPT, audio_rows=rows, max_new_tokens=30)] == free
    stopped = decode_lossless(trained, PROMPT, audio_rows=rows, eos_ids=[free[7]], max_new_tokens=30)
    assert [token.id for token in stopped] == free[: free.index(free[7]) + 1]


def test_a_stream_rewinds_to_its_last_run_and_no_further() -> None:
    model = make_model()
    stream, fresh = Stream(model), Stream(model)
    stream.extend(PROMPT)
    for level in (0, 1, 2, 3):
        hidden = stream.advance(level)
        stream.extend([int(stream.logits(hidden[-1]).argmax())])
    stream.rewind(len(PROMPT) + 1)
    assert stream.tokens[: len(PROMPT)] == PROMPT
    fresh.extend(stream.tokens)
    for level, token in ((0, 11), (1, 12), (2, 13), (3, 14), (0, 15)):
        for other in (stream, fresh):
            other.extend([token])
        torch.testing.assert_close(stream.advance(level)[-1], fresh.advance(level)[-1], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="level 0 has run more than once"):
        stream.rewind(2)
