"""`wer[whisper-en]`: jiwer over Whisper's English text normaliser, the usual protocol for English ASR."""

from __future__ import annotations

from functools import cache

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

from eval.metrics.base import ErrorRate, Reference, UndefinedSample, as_text


@cache
def _normaliser() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """Lower case, American spelling, digits for number words, no fillers, no punctuation."""
    return _normaliser()(text)


class WhisperWer(ErrorRate):
    """Corpus word error rate after normalising both sides."""

    name = "wer[whisper-en]"

    def sample(self, reference: Reference, hypothesis: str) -> dict[str, float]:
        expected = normalise(as_text(reference))
        if not expected.strip():
            raise UndefinedSample("the reference is empty once it is normalised")
        measured = jiwer.process_words(expected, normalise(hypothesis))
        return {
            "S": measured.substitutions, "D": measured.deletions, "I": measured.insertions,
            "N": measured.hits + measured.substitutions + measured.deletions, "C": measured.hits,
        }
