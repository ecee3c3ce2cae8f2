"""`acc[has-answer]`: some accepted answer occurs in the response as whole words."""

from __future__ import annotations

import unicodedata

from eval.metrics.base import Accuracy, Reference, UndefinedSample, as_list


def words(text: str) -> list[str]:
    """Lower-case words without accents; everything but letters and digits separates."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c)).replace("'", "").replace("’", "")
    return "".join(c if c.isalnum() else " " for c in plain).split()


def contains_words(sentence: list[str], part: list[str]) -> bool:
    return any(sentence[at:at + len(part)] == part for at in range(len(sentence) - len(part) + 1))


class HasAnswer(Accuracy):
    """ "10" is not found in "1910", "art" not in "party"."""

    name = "acc[has-answer]"

    def sample(self, reference: Reference, hypothesis: str) -> dict[str, float]:
        accepted = [answer for answer in map(words, as_list(reference)) if answer]
        if not accepted:
            raise UndefinedSample("no accepted answer has a letter or digit")
        response = words(hypothesis)
        return {"correct": int(any(contains_words(response, answer) for answer in accepted)), "N": 1}
