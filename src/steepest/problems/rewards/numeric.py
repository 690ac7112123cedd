"""Answers that are numbers, verified without a library."""

from __future__ import annotations

import re

CURRENCY = r"(?:\\?\$|[€£¥₹])"
NUMBER = re.compile(
    rf"""\s* {CURRENCY}? \s* (?P<sign>[-+−]?) \s* {CURRENCY}? \s*
    (?P<whole>[0-9]{{1,3}}(?:,[0-9]{{3}})+ | [0-9]*) (?:\.(?P<part>[0-9]*))?
    (?P<unit>[^0-9]*)""",
    re.VERBOSE | re.DOTALL,
)
BOX = r"\boxed{"


def numeric(prompt: str, completion: str, answer: str) -> float:
    """1 if the final answer of a completion is the number `answer`, however it is spelt; else 0."""
    said = number(final_answer(completion))
    return float(said is not None and said == number(answer))


def final_answer(text: str) -> str:
    r"""What stands behind the last ``####``, to the end of its line, or in the last ``\boxed{}``, whichever comes later.

    Nothing where there is neither.

    >>> final_answer("5 + 13 = 18\n#### $18.00\nDone."), final_answer(r"so \boxed{\frac{1}{2}}."), final_answer("18")
    ('$18.00', '\\frac{1}{2}', '')
    """
    mark, box = text.rfind("####"), text.rfind(BOX)
    if mark < 0 and box < 0:
        return ""
    if mark > box:
        return text[mark + 4 :].strip().partition("\n")[0].strip()
    depth, inside = 1, text[box + len(BOX) :]
    for place, letter in enumerate(inside):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return inside[:place].strip()
    return ""  # it was never closed


def number(text: str) -> str | None:
    r"""The number that a text is, in its shortest decimal form, so that equal numbers are equal strings; None if it is none.

    A currency sign before it, commas between thousands, zeros at the ends, and a unit behind it (whatever holds no
    numeral: percent, words) do not matter; nor do ``**bold**``, ``$math$`` and LaTeX's ``\text{}``, ``\$``, ``{,}``.

    >>> number("$1,234.50"), number("-007 apples"), number(r"18\%"), number("3 or 4"), number("1,5")
    ('1234.5', '-7', '18', None, None)
    """
    for old, new in (("{,}", ","), ("\\!", ""), ("\\,", " "), ("\\(", ""), ("**", "")):
        text = text.replace(old, new)
    found = NUMBER.fullmatch(text)
    if found is None or not (found["whole"] or found["part"]) or any(c.isnumeric() for c in found["unit"]):
        return None  # the last: 3½, 5², 18万
    whole = found["whole"].replace(",", "").lstrip("0") or "0"
    part = (found["part"] or "").rstrip("0")
    sign = "-" if found["sign"] in ("-", "−") and (whole != "0" or part) else ""
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"
