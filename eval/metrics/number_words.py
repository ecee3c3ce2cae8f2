"""English number words to a number, with the grammar of the package word2number 1.1.

`acc[vita-contain]` depends on that package's exact answers, odd ones included ("one two three" is 5,
"nineteen eighty four" is 1524, "one million nine thousand" is 1010009), so they are reproduced here
rather than improved.
"""

from __future__ import annotations

UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SCALES = {"billion": 1_000_000_000, "million": 1_000_000, "thousand": 1_000}
VALUES = {
    **{word: value for value, word in enumerate(UNITS)},
    **{word: 10 * value for value, word in enumerate(TENS, start=2)},
    "hundred": 100, **SCALES,
}


def _below_thousand(words: list[str]) -> int:
    """Value of up to four number words; more words than that count as their first."""
    values = [VALUES[word] for word in words]
    if len(values) == 4:
        return values[0] * values[1] + values[2] + values[3]
    if len(values) == 3:
        return values[0] * values[1] + values[2]
    if len(values) == 2:
        return values[0] * values[1] if 100 in values else values[0] + values[1]
    return values[0]


def _decimals(words: list[str]) -> float:
    if any(word not in UNITS[:10] for word in words):
        return 0
    return float("0." + "".join(str(VALUES[word]) for word in words))


def parse_number(text: str) -> int | float:
    """The number that the number words of ``text`` spell; other words are ignored.

    Raises:
        ValueError: no number word at all, or an impossible order of scales.
    """
    text = text.replace("-", " ").lower()
    if text.isdigit():
        return int(text)
    words = [word for word in text.split() if word in VALUES or word == "point"]
    if not words:
        raise ValueError("no number word")
    if any(words.count(word) > 1 for word in (*SCALES, "point")):
        raise ValueError("a scale appears twice")
    after_point: list[str] = []
    if "point" in words:
        cut = words.index("point")
        words, after_point = words[:cut], words[cut + 1:]

    places = [words.index(scale) for scale in SCALES if scale in words]
    if places != sorted(places):
        raise ValueError("scales out of order")

    total: int | float = 0
    if len(words) == 1:
        total = VALUES[words[0]]
    elif words:
        begin = 0
        for scale, factor in SCALES.items():
            if scale in words:
                end = words.index(scale)
                if begin == end:
                    raise ValueError(f"nothing before {scale}")
                total += _below_thousand(words[begin:end]) * factor
                begin = end + 1
        # The package adds what follows the smallest scale that is not the last word, so a number that
        # ends in "thousand" counts its thousands twice.
        present = [scale for scale in reversed(SCALES) if scale in words]
        tails = [words[words.index(scale) + 1:] for scale in present if words[-1] != scale]
        if tails or not present:
            total += _below_thousand(tails[0] if tails else words)
    return total + (_decimals(after_point) if after_point else 0)
