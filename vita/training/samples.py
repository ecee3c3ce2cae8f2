"""From sentences to token sequences: the tasks nano is trained on, in the published formats.

A sample is a prompt and an answer as ids; its audio stays a reference into the corpus, so that the
same sample can be heard through another microphone every time.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from vita.prompts import History, PromptBuilder, Turn
from vita.speech.parts import HeardAudio
from vita.training import world
from vita.training.feed import SpokenCorpus
from vita.vocabulary import Vocabulary

TEXT_CHUNKS, AUDIO_CHUNKS = (1, 4), (8, 8)
"""Boost's interleaving: first chunk, then all others (paper, section 3; the last chunk takes what is left)."""
WRITTEN_SYSTEM = "Respond in text."
NOT_UNDERSTOOD = "Sorry, I did not understand that."
NUMBER_WORDS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
]
"""Their own values as indices."""


@dataclass(frozen=True)
class Sample:
    """``ids[answer_start:]`` is learned; ``heard`` are the recordings whose rows fill the context placeholders."""

    ids: list[int]
    answer_start: int
    heard: tuple[int, ...] = ()


def split_chunks(items: Sequence[int], sizes: tuple[int, int]) -> list[list[int]]:
    """First chunk of ``sizes[0]``, the others of ``sizes[1]``."""
    chunks, start = [], 0
    while start < len(items):
        size = sizes[0] if not chunks else sizes[1]
        chunks.append(list(items[start : start + size]))
        start += size
    return chunks


def interleave(text: Sequence[int], audio: Sequence[int], begin: int, end: int) -> list[int]:
    """One answer: text chunk, ``<|begin_of_audio|>``, audio chunk, ``<|end_of_audio|>``, text chunk, ...

    What is left of the longer side goes into its last chunk.
    """
    texts, audios = split_chunks(text, TEXT_CHUNKS), split_chunks(audio, AUDIO_CHUNKS)
    pairs = min(len(texts), len(audios))
    texts = [*texts[: pairs - 1], [t for chunk in texts[pairs - 1 :] for t in chunk]]
    audios = [*audios[: pairs - 1], [a for chunk in audios[pairs - 1 :] for a in chunk]]
    out: list[int] = []
    for words, sounds in zip(texts, audios, strict=True):
        out += [*words, begin, *sounds, end]
    return out


def typed(text: str, rng: random.Random) -> str:
    """A sentence as people type it: often without capitals or full stop, small numbers as digits."""
    if rng.random() < 0.4:
        text = re.sub(
            r"\b(" + "|".join(NUMBER_WORDS) + r")\b", lambda m: str(NUMBER_WORDS.index(m[1].lower())), text, flags=re.I
        )
    if rng.random() < 0.4:
        text = text.lower()
    if rng.random() < 0.4:
        text = text.rstrip(".?!")
    return text


class SampleMaker:
    """Draws samples; a task is a method: ``ask``, ``follow_up``, ``type`` and their ``_written`` forms, ``asr`` ..."""

    def __init__(
        self, vocabulary: Vocabulary, system: str, corpus: SpokenCorpus, spoken_answers: dict[str, list[int]]
    ) -> None:
        """``spoken_answers``: sentence -> audio token indices in nano's own voice."""
        self.vocabulary, self.corpus, self.spoken = vocabulary, corpus, spoken_answers
        self.prompts = PromptBuilder(vocabulary, system)
        self.written = PromptBuilder(vocabulary, WRITTEN_SYSTEM)
        self.facts = {fact.key: fact for fact in world.load_facts()}
        self.same_kind: dict[str, list[world.Fact]] = {}
        for fact in self.facts.values():
            self.same_kind.setdefault(fact.kind, []).append(fact)
        self.questions = corpus.by_role["question"]
        self.question_weights = list(
            accumulate(KIND_WEIGHTS.get(self.facts[corpus.utterances[i].fact].kind, 1.0) for i in self.questions)
        )
        self.fact_weights = list(accumulate(KIND_WEIGHTS.get(fact.kind, 1.0) for fact in self.facts.values()))
        self.readable = [s for s in spoken_answers if s != NOT_UNDERSTOOD]
        self.transcribable = [i for role, found in corpus.by_role.items() for i in found if role != "follow_up"]

    def draw(self, mix: dict[str, float], rng: random.Random) -> Sample:
        task = rng.choices(list(mix), list(mix.values()))[0]
        return getattr(self, task)(rng)

    def _placeholder(self, index: int) -> HeardAudio:
        """Marks a recording by its corpus index; the number of rows is known only when it is heard."""
        return HeardAudio([self.vocabulary.begin_of_audio, -1 - index, self.vocabulary.end_of_audio], 0.0)

    def _sample(self, prompt_ids: list[int], answer: list[int]) -> Sample:
        heard = tuple(-1 - id for id in prompt_ids if id < 0)
        return Sample([*prompt_ids, *answer, self.vocabulary.im_end], len(prompt_ids), heard)

    def _answer(self, sentence: str) -> list[int]:
        audio = [self.vocabulary.audio_id(i) for i in self.spoken[sentence]]
        v = self.vocabulary
        return interleave(v.encode(sentence), audio, v.begin_of_audio, v.end_of_audio)

    def _history(self, kind: str | None, rng: random.Random) -> tuple[History, world.Fact | None]:
        """A remembered turn, heard or typed; about ``kind`` if given."""
        for _ in range(20):
            index = rng.choice(self.questions)
            fact = self.facts[self.corpus.utterances[index].fact]
            if kind is None or fact.kind == kind:
                user = self._placeholder(index) if rng.random() < 0.6 else self.corpus.utterances[index].text
                return History((Turn(user, world.answer_sentence(fact)),)), fact
        fact = rng.choice(self.same_kind[kind])
        return History((Turn(rng.choice(world.questions(fact, "train")).text, world.answer_sentence(fact)),)), fact

    def ask(self, rng: random.Random) -> Sample:
        index = rng.choices(self.questions, cum_weights=self.question_weights)[0]
        history = self._history(None, rng)[0] if rng.random() < 0.08 else History()
        fact = self.facts[self.corpus.utterances[index].fact]
        prompt = self.prompts.conversation(self._placeholder(index), history)
        return self._sample(prompt.ids, self._answer(world.answer_sentence(fact)))

    def follow_up(self, rng: random.Random) -> Sample:
        index = rng.choice(self.corpus.by_role["follow_up"])
        fact = self.facts[self.corpus.utterances[index].fact]
        history, _ = self._history(fact.kind, rng)
        heard = self._placeholder(index) if rng.random() < 0.7 else typed(self.corpus.utterances[index].text, rng)
        return self._sample(self.prompts.conversation(heard, history).ids, self._answer(world.answer_sentence(fact)))

    def type(self, rng: random.Random) -> Sample:
        fact = rng.choice(list(self.facts.values()))
        question = typed(rng.choice(world.questions(fact, "train")).text, rng)
        history = self._history(None, rng)[0] if rng.random() < 0.08 else History()
        return self._sample(self.prompts.conversation(question, history).ids, self._answer(world.answer_sentence(fact)))

    def ask_written(self, rng: random.Random) -> Sample:
        """A spoken question answered in text alone: half the positions, and every one about understanding."""
        index = rng.choices(self.questions, cum_weights=self.question_weights)[0]
        fact = self.facts[self.corpus.utterances[index].fact]
        prompt = self.written.conversation(self._placeholder(index), History())
        return self._sample(prompt.ids, self.vocabulary.encode(world.answer_sentence(fact)))

    def type_written(self, rng: random.Random) -> Sample:
        """A typed question answered in text alone: where the facts are learned, a hundred times a second."""
        fact = rng.choices(list(self.facts.values()), cum_weights=self.fact_weights)[0]
        question = rng.choice(world.questions(fact, "train")).text
        prompt = self.written.conversation(typed(question, rng) if rng.random() < 0.6 else question, History())
        return self._sample(prompt.ids, self.vocabulary.encode(world.answer_sentence(fact)))

    def asr(self, rng: random.Random) -> Sample:
        index = rng.choice(self.transcribable)
        utterance = self.corpus.utterances[index]
        # Sentences about nothing end as the dice say: a question mark there cannot be heard.
        text = utterance.text.rstrip(".?") + "." if utterance.role == "open" else utterance.text
        return self._sample(self.prompts.transcription(self._placeholder(index)).ids, self.vocabulary.encode(text))

    def tts(self, rng: random.Random) -> Sample:
        sentence = rng.choice(self.readable)
        text = typed(sentence, rng) if rng.random() < 0.2 else sentence
        v = self.vocabulary
        audio = [v.audio_id(i) for i in self.spoken[sentence]]
        return self._sample(self.prompts.reading(text).ids, [v.begin_of_audio, *audio, v.end_of_audio])

    def noise(self, rng: random.Random) -> Sample:
        """Nothing but noise, or gibberish typed: nano says that it did not understand."""
        if rng.random() < 0.3:
            letters = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(rng.randint(5, 30)))
            return self._sample(
                self.prompts.conversation(letters.strip() or "x", History()).ids, self._answer(NOT_UNDERSTOOD)
            )
        marker = self._placeholder(NOISE_BASE + rng.randrange(1 << 20))
        return self._sample(self.prompts.conversation(marker, History()).ids, self._answer(NOT_UNDERSTOOD))


KIND_WEIGHTS = {"sum": 0.35, "difference": 0.35}
"""Two fifths of all facts are sums and differences, and they are learned first: the rest gets more turns."""
NOISE_BASE = 1 << 30
"""Corpus indices from here on stand for synthetic noise with that seed."""
