"""What a program's cost is worth, beside that of the one it is to replace. Pure; costs are in any unit."""

from __future__ import annotations

import torch
from torch import Tensor


def steady(cost: Tensor, *, spread: float = 0.2) -> Tensor:
    """The median of repeated measurements [N, R] -> [N]; raises ValueError where they are further apart than `spread` of it."""
    middle = cost.median(1).values
    apart = cost.amax(1) - cost.amin(1)
    wild = (apart > spread * middle.abs()).nonzero()
    if len(wild):
        row = int(wild[0])
        raise ValueError(
            f"the cost of program {row} was measured between {float(cost[row].min()):g} and {float(cost[row].max()):g}, further "
            f"apart than {spread:.0%}: count something exact, or measure longer and on a quiet machine"
        )
    return middle


def gain(cost: Tensor, before: Tensor) -> Tensor:
    """(before - cost) / before: the share of the cost that is saved, whatever its unit. [N], [N] -> [N]"""
    free = (~(before > 0)).nonzero()
    if len(free):
        row = int(free[0])
        raise ValueError(f"what program {row} replaces costs {float(before[row]):g}: only what costs something can be made cheaper")
    return (before - cost) / before


def efficiency(
    form: Tensor, right: Tensor, cost: Tensor, before: Tensor, *, weights: tuple[float, float, float] = (0.2, 0.3, 0.5)
) -> Tensor:
    """w1 form + w2 right + w3 tanh(gain), the last for right programs alone. [N]; cost [N, R], several measurements of each.
    Afterburner, arXiv:2505.23387

    form, right  1 where an answer is a program, and where that is right; what is wrong has no cost, whatever stands there
    weights      of the three parts
    """
    known = torch.where(right[:, None] > 0, cost, 1.0)
    return weights[0] * form + weights[1] * right + weights[2] * right * gain(steady(known), before).tanh()
