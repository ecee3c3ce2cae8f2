"""`wer[wenet]` and `cer[wenet]`: the scores of WeNet's compute-wer.py / compute-cer.py.

VITA-Audio's ASR tables are made with these scripts, called with ``--char=1 --v=1``. Reproduced from
their behaviour: what counts as a token, which characters vanish, and how ties in the alignment fall
(they decide how many errors are substitutions).
"""

from __future__ import annotations

import unicodedata

from eval.metrics.base import ErrorRate, Reference, as_text

DROPPED = frozenset("!,?、。！，；？：「」︰『』《》")
"""The scripts' punctuation list. The full stop, quotes and hyphen are not in it."""

LINE_SPACES = frozenset(" \t\r\n")


def split_characters(text: str) -> list[str]:
    """Tokens of ``--char=1``: letters without case (CJK, kana, ...) alone, everything else in runs.

    A run goes on until a space or a non-ASCII character; a run that opens with ``<`` ends with ``>``.
    Punctuation is dropped only where a token could begin ("hello, world" keeps "hello,").
    """
    tokens = []
    at = 0
    while at < len(text):
        first = text[at]
        category = unicodedata.category(first)
        if first in DROPPED or category in ("Zs", "Cn") or first in LINE_SPACES:
            at += 1
            continue
        end = at + 1
        if category != "Lo":
            closing = ">" if first == "<" else " "
            while end < len(text) and ord(text[end]) < 128 and text[end] not in LINE_SPACES \
                    and text[end] != closing:
                end += 1
            if end < len(text) and text[end] == ">":
                end += 1
        tokens.append(text[at:end])
        at = end
    return tokens


def strip_tags(token: str) -> str:
    """The token without ``<...>``; an unclosed ``<`` swallows the rest."""
    kept = []
    inside = False
    for character in token:
        if character == "<":
            inside = True
        elif inside:
            inside = character != ">"
        else:
            kept.append(character)
    return "".join(kept)


def count_edits(reference: list[str], hypothesis: list[str]) -> dict[str, int]:
    """S, D, I, N, C of the minimal alignment; ties prefer a deletion, then an insertion, then the diagonal."""
    columns = len(hypothesis) + 1
    distance = list(range(columns))
    steps = [bytearray(b"i" * columns)]
    for row, expected in enumerate(reference, start=1):
        previous, distance = distance, [row] + [0] * (columns - 1)
        step = bytearray(b"d" * columns)
        for column, heard in enumerate(hypothesis, start=1):
            best, choice = previous[column] + 1, b"d"
            if distance[column - 1] + 1 < best:
                best, choice = distance[column - 1] + 1, b"i"
            same = expected == heard
            if previous[column - 1] + (not same) < best:
                best, choice = previous[column - 1] + (not same), b"c" if same else b"s"
            distance[column] = best
            step[column] = choice[0]
        steps.append(step)

    counts = dict.fromkeys("cdis", 0)
    row, column = len(reference), len(hypothesis)
    while row or column:
        choice = chr(steps[row][column])
        counts[choice] += 1
        row -= choice != "i"
        column -= choice != "d"
    return {"S": counts["s"], "D": counts["d"], "I": counts["i"], "N": len(reference), "C": counts["c"]}


class WenetWer(ErrorRate):
    """compute-wer.py.

    Args:
        name: metric name.
        characters: ``--char``: split as `split_characters` does, else at white space.
        case_sensitive: ``--cs``.
    """

    def __init__(self, name: str, characters: bool = True, case_sensitive: bool = False) -> None:
        self.name = name
        self.characters = characters
        self.case_sensitive = case_sensitive

    def tokens(self, text: str) -> list[str]:
        raw = split_characters(text) if self.characters else text.split()
        cased = raw if self.case_sensitive else [token.upper() for token in raw]
        return [token for token in map(strip_tags, cased) if token]

    def sample(self, reference: Reference, hypothesis: str) -> dict[str, float]:
        return count_edits(self.tokens(as_text(reference)), self.tokens(hypothesis))

    def printed(self, value: float) -> float:
        return float(f"{value:.2f}")


class WenetCer(WenetWer):
    """compute-cer.py: as compute-wer.py, then purely alphanumeric tokens are split into characters.

    A token with anything else in it ("DON'T", "SUNRISE.") stays one unit, as in the script.
    """

    def tokens(self, text: str) -> list[str]:
        units: list[str] = []
        for token in super().tokens(text):
            units.extend(token if token.isalnum() else [token])
        return units
