"""What a mistyped name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """"; nearest: a, b", or nothing where nothing is near."""
    plain: dict[str, str] = {}
    for other in known:
        plain.setdefault(other.lower().replace("-", "_"), other)
    close = difflib.get_close_matches(name.lower().replace("-", "_"), plain, 3, 0.55)
    return f"; nearest: {', '.join(plain[found] for found in close)}" if close else ""
