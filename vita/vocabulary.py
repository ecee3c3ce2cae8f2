"""What the ids of a checkpoint mean: text, audio tokens, control tokens. Ids are always asked of the tokenizer.

Uses the tokenizer's backend directly: its calls change no shared state, so that any number of streams
may encode and decode at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from vita.errors import CheckpointError

TokenKind = Literal["text", "audio", "control"]

TOKENIZER_FILE = "tokenizer.json"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
BEGIN_OF_AUDIO, END_OF_AUDIO = "<|begin_of_audio|>", "<|end_of_audio|>"
CONTEXT_OF_AUDIO = "<|context_of_audio|>"
"""Placeholder whose embedding is overwritten by a row of encoded audio (Plus-style models only)."""
UNFINISHED = "\ufffd"
"""How a decoder spells bytes that are no whole character."""


class Vocabulary:
    """The tokenizer of one checkpoint with the roles of its ids.

    Args:
        tokenizer: a tokenizer with ``<|audio_0|>``, ``<|audio_1|>`` ... as consecutive added tokens.
        source: where it came from, for messages.
    Raises:
        CheckpointError: the audio or control tokens are missing, or audio ids are not consecutive.
    """

    def __init__(self, tokenizer: Tokenizer, source: str | Path = "the tokenizer") -> None:
        self._tokenizer = tokenizer
        self._source = source
        added = {str(token): id for id, token in tokenizer.get_added_tokens_decoder().items()}
        self._added_ids = frozenset(added.values())
        audio = {name: id for name, id in added.items() if name.startswith("<|audio_")}
        self.audio_count = len(audio)
        """Size of the speech codebook."""
        self.first_audio_id = audio.get("<|audio_0|>", -1)
        expected = {f"<|audio_{i}|>": self.first_audio_id + i for i in range(self.audio_count)}
        if not audio or audio != expected:
            raise CheckpointError(
                f"{source} has no complete run of audio tokens <|audio_0|>, <|audio_1|> ...: "
                "use the tokenizer that belongs to this checkpoint"
            )
        self.begin_of_audio = self._id(BEGIN_OF_AUDIO)
        self.end_of_audio = self._id(END_OF_AUDIO)
        self.im_end = self._id(IM_END)
        self._id(IM_START)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Vocabulary:
        """Read ``tokenizer.json`` of a checkpoint folder; CheckpointError when it is missing or damaged."""
        path = Path(folder) / TOKENIZER_FILE
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: download the checkpoint again or give another folder")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception on a damaged file
            raise CheckpointError(f"{path} is damaged ({error}): download it again") from error
        return cls(tokenizer, path)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def _id(self, token: str) -> int:
        id = self._tokenizer.token_to_id(token)
        if id is None:
            raise CheckpointError(
                f"{self._source} has no token {token}: use the tokenizer that belongs to this checkpoint"
            )
        return id

    @property
    def context_of_audio(self) -> int:
        """Id of the placeholder for encoded audio; CheckpointError where the checkpoint has none."""
        return self._id(CONTEXT_OF_AUDIO)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; spelled-out control tokens become their ids."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``, control tokens spelled out, broken characters as U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def kind(self, id: int) -> TokenKind:
        """The role of an id; ids beyond the tokenizer (padding rows of the embedding) are control."""
        if self.audio_index(id) is not None:
            return "audio"
        return "control" if id in self._added_ids or id >= len(self) else "text"

    def audio_index(self, id: int) -> int | None:
        """Index in the speech codebook, None for other ids."""
        index = id - self.first_audio_id
        return index if 0 <= index < self.audio_count else None

    def audio_id(self, index: int) -> int:
        """Id of entry ``index`` of the speech codebook."""
        if not 0 <= index < self.audio_count:
            raise ValueError(f"audio index {index} is outside the codebook of {self.audio_count}")
        return self.first_audio_id + index


class IncrementalText:
    """Turns text ids into text as they come, never showing part of a character."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._pending: list[int] = []

    def push(self, id: int) -> str:
        """Text that is certain now; empty while a multi-byte character is incomplete."""
        self._pending.append(id)
        text = self._vocabulary.decode(self._pending)
        if text.endswith(UNFINISHED):
            return ""
        self._pending.clear()
        return text

    def flush(self) -> str:
        """What is left when nothing more comes: whole characters, without the broken rest."""
        text = self._vocabulary.decode(self._pending) if self._pending else ""
        self._pending.clear()
        return text.rstrip(UNFINISHED)
