"""Losses: Terms -> [N, T], and the reductions that average them."""

from .divergence import entropy, k3, kl_new_old, kl_old_new, penalized
from .drift import Drift, clip_drift, discovered_drift, mirror_drift
from .heterogeneous import hapo
from .likelihood import nft
from .perception import double_entropy, perception
from .policy import bapo, cispo, clip, cpgd, gspo, m2po, rapid, reinforce, surrogate, topr
from .reduce import Reduce, constant_norm, sequence_mean, sequence_sum, token_mean
from .square import from_reference, regress, regress_pairs, regress_value
from .terms import Loss, Missing, Terms, Value, loss, masked_mean
from .value import cross_entropy, squared, squared_clip

__all__ = [
    "Drift", "Loss", "Missing", "Reduce", "Terms", "Value", "bapo", "cispo", "clip", "clip_drift", "constant_norm", "cpgd",
    "cross_entropy", "discovered_drift", "double_entropy", "entropy", "from_reference", "gspo", "hapo", "k3", "kl_new_old",
    "kl_old_new", "loss", "m2po", "masked_mean", "mirror_drift", "nft", "penalized", "perception", "rapid", "regress",
    "regress_pairs", "regress_value", "reinforce", "sequence_mean", "sequence_sum", "squared", "squared_clip", "surrogate",
    "token_mean", "topr",
]  # fmt: skip
