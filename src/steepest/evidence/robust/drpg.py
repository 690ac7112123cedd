"""DRPG against the same policy gradient without nature, in the worst model that nature may choose."""

from functools import partial

from ...problems.tabular import Garnet
from ...systems.robust.drpg import Nominal, drpg
from ..claim import Claim, final

claim = Claim(
    says="Where nature may change the transitions of a random process, DRPG's policy costs less in its worst case than PG's.",
    problem=partial(Garnet, states=20, actions=5, radius=0.8),
    ours=partial(drpg, lr=1.0),
    baseline=partial(drpg, lr=1.0, adversary=Nominal),
    measure=final("return"),
    unit="minus the worst-case discounted cost",
    steps=300,
    seeds=20,
    vary="seed",
    figure="gap",
    tried=(
        "Seeds 100-104: lr .1 and 1 for both arms, 150, 300 and 600 steps; lr 1 brings ours within .0005 of robust value iteration "
        "after 300 steps and is not worse for the baseline, whose worst-case costs exceed the optimum by .00 to .20. The size of "
        "the process and the radius were chosen on seeds 100-109 by exact solutions alone: with 6 states, 3 actions and radius .4 "
        "the policy that is optimal without nature is optimal with it in 9 of 10 processes, and nothing can be seen; with those "
        "used here in 3 of 10."
    ),
)
