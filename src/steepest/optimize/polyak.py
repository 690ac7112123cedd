"""Steps as long as the distance to the best value asks. Pure."""

from __future__ import annotations

import math
import sys

from torch import Tensor


def polyak_step(best: float, value: float, slope: Tensor, *, c: float = 1.0, bound: float = math.inf) -> float:
    """min((best - value) / (c |slope|^2), bound); 0 where there is no gap, or no slope whose square a float
    can tell from 0. Polyak, 1969; arXiv:2404.07525"""
    steepness = c * float(slope.double() @ slope.double())
    return min(max(best - value, 0.0) / steepness, bound) if steepness > sys.float_info.min else 0.0
