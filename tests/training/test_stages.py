"""The language stages on a tiny model and a made-up corpus: what learns, what stays, what starts from what."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vita.model.causal_lm import VitaAudioForCausalLM
from vita.model.config import VitaAudioConfig
from vita.training import world
from vita.training.corpus import Utterance
from vita.training.feed import SpokenCorpus
from vita.training.nano import ALIGNMENT_MIX, SYSTEM, language_stages
from vita.training.samples import NOT_UNDERSTOOD, SampleMaker
from vita.training.stage_language import collate, start_first_mctp, start_other_mctp, train_language
from vita.training.synthesis import CANONICAL
from vita.training.text_tokenizer import build_tokenizer
from vita.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    words = pytest.MonkeyPatch()
    # The real tokenizer is trained on word lists that only training installs; letters do here.
    words.setattr("vita.training.text_tokenizer.open_sentence", lambda rng: "a word or two")
    build_tokenizer(folder)
    words.undo()
    return Vocabulary.from_folder(folder)


@pytest.fixture(scope="module")
def maker(vocabulary):
    corpus = SpokenCorpus.__new__(SpokenCorpus)
    noise = np.random.default_rng(0)
    facts = world.load_facts()[::40]
    corpus.utterances = [Utterance("question", world.questions(f, "train")[0].text, f.key, CANONICAL) for f in facts]
    corpus.utterances += [
        Utterance("follow_up", world.questions(f, "follow_up")[0].text, f.key, CANONICAL)
        for f in facts
        if world.questions(f, "follow_up")
    ]
    corpus.utterances.append(Utterance("open", "Nothing in particular?", "", CANONICAL))
    corpus.samples = [(noise.normal(size=24000) * 3000).astype(np.int16) for _ in corpus.utterances]
    corpus.by_role = {}
    for i, utterance in enumerate(corpus.utterances):
        corpus.by_role.setdefault(utterance.role, []).append(i)
    sentences = [world.answer_sentence(f) for f in world.load_facts()] + [NOT_UNDERSTOOD]
    return SampleMaker(vocabulary, SYSTEM, corpus, {s: list(range(3 + len(s) // 2)) for s in sentences})


def tiny_model(vocabulary):
    torch.manual_seed(0)
    encoder = {"type": "nano", "hidden_size": 32, "num_layers": 1, "num_heads": 2, "ffn_size": 32}
    return VitaAudioForCausalLM(
        VitaAudioConfig(
            vocab_size=-(-len(vocabulary) // 8) * 8, hidden_size=32, intermediate_size=48, num_hidden_layers=12,
            num_nextn_predict_layers=10, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False,
            pad_token_id=0, audio_encoder=encoder,
        )
    )


def changed(before, model):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_four_stages_train_what_they_should(vocabulary, maker, tmp_path):
    model = tiny_model(vocabulary)
    stages = [
        replace(stage, steps=2, save_every=2, log_every=1, options=stage.options | {"batch": 3})
        for stage in language_stages(model)
    ]
    before = snapshot(model)
    train_language(model, maker, stages[0], tmp_path / "1")
    moved = changed(before, model)
    assert "lm_head.weight" in moved
    assert any(name.startswith("model.audio_model") for name in moved)
    assert not any(name.startswith("mtp_") or name.startswith("model.layers.2.") for name in moved)

    start_first_mctp(model)
    last, first = model.model.layers[1].state_dict(), model.model.layers[2].state_dict()
    assert all(torch.equal(last[name], first[name]) for name in last)
    before = snapshot(model)
    train_language(model, maker, stages[1], tmp_path / "2")
    assert {name.rsplit(".", 1)[0].split(".")[0] for name in changed(before, model)} >= {"mtp_projs"}
    assert all(".0." in name or name.startswith("model.layers.2.") for name in changed(before, model))

    start_other_mctp(model)
    assert torch.equal(model.mtp_projs[9].weight, model.mtp_projs[0].weight)
    before = snapshot(model)
    train_language(model, maker, stages[2], tmp_path / "3")
    moved = changed(before, model)
    assert all(f"mtp_projs.{k}.weight" in moved for k in range(10))
    assert "lm_head.weight" not in moved
    assert "model.layers.1.mlp.up_proj.weight" not in moved

    before = snapshot(model)
    train_language(model, maker, stages[3], tmp_path / "4")
    moved = changed(before, model)
    assert {"lm_head.weight", "mtp_projs.9.weight", "model.layers.0.mlp.up_proj.weight"} <= moved


@pytest.mark.parametrize("task", list(ALIGNMENT_MIX))
def test_every_task_makes_a_well_formed_sample(vocabulary, maker, task):
    import random

    sample = getattr(maker, task)(random.Random(3))
    batch = collate([sample], maker, np.random.default_rng(0))
    context = int((batch.ids == vocabulary.context_of_audio).sum())
    assert context == sum(-(-int(n) // 8) for n in ([] if batch.lengths is None else batch.lengths))
    answer = batch.labels[0][batch.labels[0] >= 0].tolist()
    assert answer[-1] == vocabulary.im_end
    assert answer == batch.ids[0, -len(answer) :].tolist()
    assert (vocabulary.begin_of_audio in answer) == (task not in ("asr", "ask_written", "type_written"))
    assert vocabulary.context_of_audio not in answer
