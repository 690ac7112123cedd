"""ACIL against letting both controllers decide equally often, where two queues share a server."""

from functools import partial

from ...problems.queues import TwoQueues
from ...systems.on_policy.improper_ac import improper_ac
from ..claim import Claim, final

claim = Claim(
    says=(
        "Where customers come to two queues at rates .45 and .30, ACIL finds from samples a mixture of 'always serve the first' "
        "and 'always serve the second' with shorter queues than equal weights give (2.46), and so than either gives (5.62, 7.21)."
    ),
    problem=partial(TwoQueues, first=0.45, second=0.30),
    ours=partial(improper_ac, lr=0.1),
    baseline=partial(improper_ac, lr=0.0),
    measure=final("return"),
    unit="minus the discounted mean length of both queues, from empty, exact",
    steps=100,
    seeds=10,
    figure="largest",
    tried=(
        "Seeds 100 and 101 at lr .1, the only rate tried: 2.271 and 2.273 after 100 steps; the best mixture (weight .589) has "
        "2.2714. The baseline has nothing to tune: its weights stay equal. At the same rate without a critic "
        "(advantage=returns): 2.27 and 2.30 after 100 steps, 2.28 and 2.36 after 200."
    ),
)
