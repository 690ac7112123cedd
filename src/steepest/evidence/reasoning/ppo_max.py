"""PPO-max against PPO under a judge with a flaw."""

from functools import partial

from ...problems.flawed import FlawedJudge
from ...systems.on_policy.ppo import ppo
from ...systems.reasoning.ppo_max import ppo_max
from ..claim import Claim, final

claim = Claim(
    says="Under a judge who pays for nines PPO-max answers more sums rightly after 60 steps than PPO without its set.",
    problem=partial(FlawedJudge, least=3, most=4, nines=3.0),
    ours=partial(ppo_max, kl=0.2, critic_steps=10, lr=3e-4, critic_lr=3e-4, prompts=64, minibatches=1, temperature=1.0),
    baseline=partial(
        ppo, lr=3e-4, epochs=1, minibatches=1, discount=1.0, decay=0.95, value_weight=1.0, max_grad_norm=1.0, prompts=64, group=1
    ),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 and 4 digits, which the judge's flaw does not count in",
    steps=60,
    seeds=5,
    tried=(
        "On seed 100, one run each, accuracy after 60 steps. Nines paid 1: PPO .77, PPO-max .73 with kl 0.05 and .79 with 0.2 "
        "(used); paid 3 (used): PPO .67, PPO-max .73. Learning rates and batch are the same in both arms; nothing else was tried."
    ),
)
