"""The prompts of each task as token ids, and the conversation they remember.

ChatML as in Qwen2.5, without a default system message (VITA-Audio, arXiv 2505.03739; prompts of its
published inference code). Knows no model: audio arrives as ``HeardAudio``, already encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vita.errors import TextInputError
from vita.speech.parts import HeardAudio
from vita.vocabulary import IM_END, IM_START, Vocabulary

ASR_INSTRUCTION = "Convert the speech to text.\n"
TTS_INSTRUCTION = "Convert the text to speech.\n"
VOICE_INSTRUCTION = "Your Voice: "
MAX_TEXT_CHARACTERS = 2000
"""About two minutes of speech; more is refused before any work."""


def persona(name: str, gender: str) -> str:
    """System message of a spoken conversation."""
    return f"Your Name: {name}\nYour Gender: {gender}\n\nRespond in a text-audio interleaved manner."


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said or typed, and what was answered, as text."""

    user: str | HeardAudio
    answer: str


@dataclass(frozen=True, slots=True)
class History:
    """A conversation so far. Opaque to callers: take it from ``Finished.history``, give it to ``respond``."""

    turns: tuple[Turn, ...] = ()
    owner: int = 0
    """Identity of the assistant that encoded the audio in it."""

    def with_turn(self, turn: Turn, keep: int) -> History:
        """This conversation and one more turn, of which the last ``keep`` are remembered."""
        return History((*self.turns, turn)[-keep:] if keep else (), self.owner)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids to prefill, and ``(start, rows)`` for every stretch of embeddings that audio overwrites."""

    ids: list[int]
    audio_rows: list[tuple[int, Tensor]] = field(default_factory=list)


Segment = str | HeardAudio
Message = tuple[str, Sequence[Segment]]
"""Role and content."""


class PromptBuilder:
    """Writes the prompts of one checkpoint."""

    def __init__(self, vocabulary: Vocabulary, system: str) -> None:
        self._vocabulary = vocabulary
        self._system = system

    def conversation(self, user: Segment, history: History, voice: HeardAudio | None = None) -> Prompt:
        """A spoken conversation: remembered turns, then what the user says now; in the voice of a recording."""
        messages: list[Message] = _voice_message(voice) if voice else [("system", [self._system])]
        for turn in history.turns:
            messages += [("user", [turn.user]), ("assistant", [turn.answer])]
        return self._chat([*messages, ("user", [user])])

    def transcription(self, heard: HeardAudio) -> Prompt:
        """Speech recognition."""
        return self._chat([("user", [ASR_INSTRUCTION, heard])])

    def reading(self, text: str, voice: HeardAudio | None = None) -> Prompt:
        """Speech synthesis of ``text``, in the voice of a recording."""
        return self._chat([*(_voice_message(voice) if voice else []), ("user", [TTS_INSTRUCTION + text])])

    def _chat(self, messages: Sequence[Message]) -> Prompt:
        segments: list[Segment] = []
        for role, content in messages:
            segments += [f"{IM_START}{role}\n", *content, f"{IM_END}\n"]
        segments.append(f"{IM_START}assistant\n")
        prompt = Prompt([])
        text = ""  # neighbouring text is encoded together, as the tokenizer would see it in one string
        for segment in segments:
            if isinstance(segment, str):
                text += segment
                continue
            prompt.ids.extend(self._vocabulary.encode(text))
            text = ""
            if segment.rows is not None:
                prompt.audio_rows.append((len(prompt.ids) + segment.rows_start, segment.rows))
            prompt.ids.extend(segment.ids)
        prompt.ids.extend(self._vocabulary.encode(text))
        return prompt


def _voice_message(voice: HeardAudio) -> list[Message]:
    """The published demo's system message for a voice prompt; it takes the place of the persona."""
    return [("system", [VOICE_INSTRUCTION, voice, "\n"])]


def check_text(text: str, max_characters: int = MAX_TEXT_CHARACTERS) -> str:
    """The text of a person, fit for a prompt: stripped, and unable to spell control tokens.

    Raises:
        TextInputError: not text, empty, too long, or broken characters.
    """
    if not isinstance(text, str):
        raise TextInputError(f"the text is a {type(text).__name__}: give a string")
    text = text.strip()
    if not text:
        raise TextInputError("the text is empty: type something first")
    if len(text) > max_characters:
        raise TextInputError(f"the text has {len(text)} characters, at most {max_characters} are taken: shorten it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextInputError("the text holds broken characters: save or paste it as UTF-8") from error
    return text.replace("<|", "< |")
