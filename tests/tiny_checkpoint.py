"""A checkpoint folder like nano's, tiny and with random weights: real tokenizer, model, codec and file layout.

Its answers mean nothing; tests that need a certain answer choose the tokens (:func:`scripted`) while
all forward passes really run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vita.decoding.sampling import Sampler
from vita.decoding.stream import Stream
from vita.model.causal_lm import VitaAudioForCausalLM
from vita.model.config import VitaAudioConfig
from vita.speech.nano_vocoder import FrameDecoder, NanoVocoder
from vita.vocabulary import Vocabulary

AUDIO_TOKENS = 64
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_audio|>", "<|end_of_audio|>", "<|context_of_audio|>",
    "<|audio|>",
)  # fmt: skip
SENTENCES = (
    "The capital of Germany is Berlin.", "Seven plus eight is fifteen.", "user\nassistant\nsystem\n",
    "Convert the speech to text.\n", "Convert the text to speech.\n", "Respond in a text-audio interleaved manner.",
)  # fmt: skip


def make_tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint: 2 main layers, 10 MCTP modules, hidden size 64, 64 speech codes."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _write_tokenizer(folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = VitaAudioConfig(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=12,
        num_nextn_predict_layers=10,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        eos_token_id=end,
        bos_token_id=None,
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        audio_encoder={"type": "nano", "hidden_size": 32, "num_layers": 1, "num_heads": 2, "ffn_size": 48},
    )
    model = VitaAudioForCausalLM(config).eval()
    model.half().save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end, "do_sample": False}))
    decoder = FrameDecoder(AUDIO_TOKENS)
    torch.nn.init.normal_(decoder.codebook)
    NanoVocoder(decoder).save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(SENTENCES * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in SPECIAL if token not in ("<|im_end|>", "<|endoftext|>")],
    )
    tokenizer.add_tokens([f"<|audio_{i}|>" for i in range(AUDIO_TOKENS)])
    tokenizer.save_pretrained(folder)
    return tokenizer


def spoken_answer(vocabulary: Vocabulary, text: str, audio: int, eos: bool = True) -> list[int]:
    """The published interleaving: text 1, audio 8, text 4, audio 8 ..., what is left of either in the last chunk."""
    words, sound = vocabulary.encode(text), [vocabulary.audio_id(i % AUDIO_TOKENS) for i in range(audio)]
    ids = words[:1]
    words = words[1:]
    while words or sound:
        take = len(sound) if not words else 8
        if sound[:take]:
            ids += [vocabulary.begin_of_audio, *sound[:take], vocabulary.end_of_audio]
        sound = sound[take:]
        take = 4 if sound else len(words)
        ids += words[:take]
        words = words[take:]
    return [*ids, vocabulary.im_end] if eos else ids


class Forwards:
    """What really ran: forward passes by level, the prompts of the streams, and the streams while they live."""

    def __init__(self) -> None:
        self.levels: list[int] = []
        self.prompts: list[list[int]] = []
        self.streams: WeakSet[Stream] = WeakSet()

    @property
    def main(self) -> int:
        return self.levels.count(0)

    @property
    def mctp(self) -> int:
        return len(self.levels) - self.main


@contextmanager
def scripted(ids: list[int]) -> Iterator[Forwards]:
    """Every stream picks these tokens, whatever the logits say; the forwards behind them run and are counted."""
    forwards = Forwards()
    advance, saw = Stream.advance, Sampler.saw

    def counted(self: Stream, level: int) -> torch.Tensor:
        forwards.levels.append(level)
        forwards.streams.add(self)
        return advance(self, level)

    def start(self: Sampler, tokens: list[int]) -> None:
        forwards.prompts.append(list(tokens))
        self.script = iter(ids)
        saw(self, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "advance", counted)
        patch.setattr(Sampler, "saw", start)
        patch.setattr(Sampler, "pick", lambda self, logits: next(self.script))
        yield forwards
