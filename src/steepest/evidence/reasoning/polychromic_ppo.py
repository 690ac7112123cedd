"""Polychromic PPO against GRPO: how many ways of succeeding stay alive."""

from functools import partial

from ...problems.language import ModeLottery
from ...systems.reasoning.grpo import grpo
from ...systems.reasoning.polychromic_ppo import polychromic_ppo
from ..claim import Claim, final

claim = Claim(
    says="Trained on what sets of answers earn, the policy succeeds more often at least once in 16 attempts than with GRPO.",
    problem=partial(ModeLottery),
    ours=partial(polychromic_ppo, lr=2e-4, prompts=16, group=8),
    baseline=partial(grpo, kl=0.0, lr=2e-4, prompts=16, group=8),
    measure=final("pass@16"),
    unit="share of fresh prompts answered rightly at least once in 16 attempts",
    steps=150,
    seeds=5,
    tried=(
        "Nothing was tuned: the learning rate is the one that the specification measured GRPO's collapse with. Steps were fixed "
        "before the first run."
    ),
)
