"""Sorts the tokens of one answer, as they are decoded, into whole-character text and groups of audio tokens.

Looks at token kinds only: positions in a decoding schedule mean nothing here, so any interleaving of text
and audio, also a malformed one, is understood.
"""

from __future__ import annotations

from dataclasses import dataclass

from vita.events import TextDelta, TokenTrace
from vita.vocabulary import IncrementalText, Vocabulary

AUDIO_GROUP = 8
"""Audio tokens between ``<|begin_of_audio|>`` and ``<|end_of_audio|>``: 0.64 s at 12.5 Hz (paper, section 3)."""


@dataclass(frozen=True, slots=True)
class AudioGroup:
    """Audio tokens that are to become sound together."""

    indices: list[int]
    tokens: list[TokenTrace]


class AnswerParser:
    """State of one answer. Feed every token, then finish."""

    def __init__(self, vocabulary: Vocabulary, group: int = AUDIO_GROUP) -> None:
        self._vocabulary = vocabulary
        self._group = group
        self._text = IncrementalText(vocabulary)
        self._text_tokens: list[TokenTrace] = []
        self._audio = AudioGroup([], [])

    def feed(self, token: TokenTrace) -> list[TextDelta | AudioGroup]:
        """What is complete with this token.

        A group of audio is complete with its eighth token: waiting for ``<|end_of_audio|>`` would cost
        another forward. A shorter one is complete when anything but audio follows.
        """
        if token.kind == "audio":
            self._audio.indices.append(token.id - self._vocabulary.first_audio_id)
            self._audio.tokens.append(token)
            return self._take_audio() if len(self._audio.indices) == self._group else []
        done: list[TextDelta | AudioGroup] = self._take_audio()
        if token.kind == "text":
            self._text_tokens.append(token)
            done += self._take_text(self._text.push(token.id))
        return done

    def finish(self) -> list[TextDelta | AudioGroup]:
        """What was still open when the answer ended."""
        return [*self._take_audio(), *self._take_text(self._text.flush())]

    def _take_audio(self) -> list[TextDelta | AudioGroup]:
        group, self._audio = self._audio, AudioGroup([], [])
        return [group] if group.indices else []

    def _take_text(self, text: str) -> list[TextDelta | AudioGroup]:
        if not text:
            return []
        tokens, self._text_tokens = self._text_tokens, []
        return [TextDelta(text, tokens)]
