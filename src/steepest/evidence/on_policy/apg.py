"""APG against DDPG fine-tuning of the same policy, on a cart that is to stand elsewhere."""

from functools import partial

from ...core.stream import Stream
from ...core.system import begin
from ...problems.cart import CartTasks
from ...systems.on_policy.apg import apg
from ...systems.on_policy.ddpg_finetune import ddpg_finetune
from ..claim import Claim, Run

ours = partial(apg, price=1.0, tau=0.2)


def gained(run: Run) -> float:
    """Minus the added cost of a greedy step: by the last policy if it keeps 95 % of the taught one's return, else by that one."""
    taught = begin(ours(), run.problem, seed=run.seed).policy
    before, after = (run.problem.evaluate(policy, Stream(run.seed, "evaluate")) for policy in (taught, run.state.policy))
    return after["added"] if after["return"] >= 0.95 * before["return"] else before["added"]


claim = Claim(
    says=(
        "With 2,000 steps a policy that balances a pole learns to stand nearer to another place by APG than by DDPG fine-tuning "
        "from the same actor and critic; one that keeps less than 95 % of the first task's return counts as not changed."
    ),
    problem=partial(CartTasks, limit=200),
    ours=ours,
    baseline=partial(ddpg_finetune, weight=0.1, lr=1e-5, tau=0.05),
    measure=gained,
    unit="minus the added cost of a step, in [-1, 0]",
    steps=10,
    seeds=5,
    figure="cost",
    tried=(
        "The measure, the steps and the seeds were fixed before the first run. Each arm was tuned on seeds 100 and 101 over 24 "
        "settings. APG: price 1, 3, 10, 30, learning rate 3e-4, 1e-3, tau 0.01, 0.05, 0.2. DDPG: first weight 0.3, 1, 3, 10 and "
        "the actor's learning rate 1e-4, 1e-3 at tau 0.01, where 15 of 16 runs lost more than 5 % of the return; then weight 0.1, "
        "0.3, 1, 3, learning rate 1e-5, 3e-5, tau 0.05, 0.2. Means of the measure: not changed -0.087; APG's defaults -0.083, its "
        "best, which is the one here, -0.032; DDPG's best, which is the one here, -0.060, its next -0.065. Both lie at an edge of "
        "their grids. In 19 more runs DDPG lost more than 5 % of the return too: with both learning rates 3e-4, with 1e-5 or "
        "without weight at tau 0.01, with 1e-4 and 1e-3 at tau 0.05."
    ),
    why=(
        "Written after the run: at the settings that two seeds chose, APG lost the first task on seeds 1, 2, 3 (returns 165, 117, "
        "26 of 200, which count as not changed) and on seed 4 the added task, with three times the cost; only on seed 0 did it "
        "gain. DDPG kept the return on all five and gained on 0, 3 and 4: both pairs that APG wins, it wins by being put back. "
        "Two seeds were too few to choose a price by."
    ),
)
