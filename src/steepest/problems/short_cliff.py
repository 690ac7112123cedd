"""A learning cliff that is reached with three digits, so that experiments with hints take seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .language import AddCliff


@dataclass(frozen=True)
class ShortCliff(AddCliff):
    """Sums of three digits as a policy meets them that was taught three quarters of their digits wrongly: of 256 answers one is
    right, and with three of the four digits told one of four. Shorter sums were taught as in AddCliff."""

    width: int = 3
    least: int = 3
    hints: bool = True
    warm: int = 600

    noise: ClassVar[tuple[float, ...]] = (0.02, 0.05, 0.75)
