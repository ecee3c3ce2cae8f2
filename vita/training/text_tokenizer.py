"""nano's tokenizer: byte-level BPE over the words of its world, then the special and the audio tokens.

Same construction, template and special-token names as the published checkpoints (Qwen2.5), in miniature.
"""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vita.training import world
from vita.training.corpus import SEED, open_sentence

TEXT_VOCABULARY = 2048
AUDIO_TOKENS = 4096
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_audio|>",
    "<|end_of_audio|>",
    "<|context_of_audio|>",
    "<|audio|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML as in Qwen2.5, without its default system message (VITA-Audio's data has none)."""


def _texts() -> list[str]:
    rng = random.Random(SEED + 2)
    texts = [open_sentence(rng) for _ in range(20_000)]
    for fact in world.load_facts():
        texts += [world.answer_sentence(fact)] * 40
        texts += [q.text for split in ("train", "follow_up") for q in world.questions(fact, split)]
    prompts = [
        "Convert the speech to text.\n",
        "Convert the text to speech.\n",
        "system\n",
        "user\n",
        "assistant\n",
        "Your Name: Nano\nYour Gender: female\n\nRespond in a text-audio interleaved manner.",
    ]
    return texts + [*prompts, "Sorry, I did not understand that."] * 200


def build_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Train the BPE (deterministic) and write ``tokenizer.json`` and ``tokenizer_config.json``."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        _texts(),
        trainers.BpeTrainer(
            vocab_size=TEXT_VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[s for s in SPECIAL if s not in ("<|im_end|>", "<|endoftext|>")],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([f"<|audio_{i}|>" for i in range(AUDIO_TOKENS)])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer
