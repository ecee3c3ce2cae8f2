"""`wer[seedtts-en]` and `cer[seedtts-zh]`: the scores of Seed-TTS-eval's run_wer.py and average_wer.py.

The corpus value is the mean of the items' own rates, not errors over tokens.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import jiwer
import numpy as np

from eval.metrics.base import Metric, Reference, Statistics, UndefinedSample, as_text

# zhon.hanzi.punctuation (zhon 2.1.1): non-stops, then stops.
CHINESE_PUNCTUATION = (
    "＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､"
    "\u3000、〃〈〉《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏﹑﹔·"
    "．！？｡。"
)
REMOVED = str.maketrans("", "", (CHINESE_PUNCTUATION + string.punctuation).replace("'", ""))


class SeedTtsRate(Metric):
    """process_one + average_wer.

    Statistics: S, D, I counts, N reference tokens as jiwer counts them, ``listed`` reference tokens as
    the script's ``split(" ")`` counts them (also empty ones; it divides S, D and I by that).

    Args:
        name: metric name.
        characters: the script's ``zh``: put a space between all characters, keep the case;
            otherwise its ``en``: words, lower case.
    """

    higher_is_better = False

    def __init__(self, name: str, characters: bool) -> None:
        self.name = name
        self.characters = characters

    def normalise(self, text: str) -> str:
        # One pass of replacing two spaces by one, as the script does: four spaces leave two.
        text = text.translate(REMOVED).replace("  ", " ")
        return " ".join(text) if self.characters else text.lower()

    def sample(self, reference: Reference, hypothesis: str) -> dict[str, float]:
        truth, heard = self.normalise(as_text(reference)), self.normalise(hypothesis)
        if not truth.strip():
            raise UndefinedSample("the reference is empty once punctuation is removed")
        measured = jiwer.process_words(truth, heard)
        return {
            "S": measured.substitutions, "D": measured.deletions, "I": measured.insertions,
            "N": measured.hits + measured.substitutions + measured.deletions, "C": measured.hits,
            "listed": len(truth.split(" ")),
        }

    def item_value(self, statistics: Statistics) -> float:
        return 100.0 * (statistics["S"] + statistics["D"] + statistics["I"]) / statistics["N"]

    def reduce(self, samples: Sequence[Statistics]) -> float:
        return float(np.mean([(s["S"] + s["D"] + s["I"]) / s["N"] for s in samples])) * 100

    def printed(self, value: float) -> float:
        return float(np.round(value, 3))
