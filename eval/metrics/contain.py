"""`acc[vita-contain]`: the spoken-QA rule of VITA-Audio's compute-acc-of-contain.py.

An answer is right when every space-separated piece of a reference occurs anywhere in it, also inside
words and in any order. It is kept exactly because the published numbers use it; `acc[has-answer]` is
the stricter rule.
"""

from __future__ import annotations

import string

from eval.metrics.base import Accuracy, Reference, as_list
from eval.metrics.number_words import parse_number

# The script builds a regular-expression class from string.punctuation without "'"; inside it the
# backslash escapes the bracket behind it, so backslashes survive.
TO_SPACE = str.maketrans(dict.fromkeys(set(string.punctuation) - set("'\\"), " "))


def _contains(text: str, candidates: list[str]) -> bool:
    return any(all(piece in text for piece in candidate.split(" ")) for candidate in candidates)


class VitaContain(Accuracy):
    """Containment; if that fails, once more with all references read as number words."""

    name = "acc[vita-contain]"

    def sample(self, reference: Reference, hypothesis: str) -> dict[str, float]:
        answer = hypothesis.lower()
        references = [text.translate(TO_SPACE).lower().strip() for text in as_list(reference)]
        try:
            numbers = [str(parse_number(text)) for text in references]
        except (ValueError, IndexError):
            numbers = references  # one reference that is no number stops the conversion of all
        return {"correct": int(_contains(answer, references) or _contains(answer, numbers)), "N": 1}
