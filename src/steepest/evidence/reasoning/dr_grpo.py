"""Dr. GRPO against GRPO: how long wrong answers become."""

from functools import partial

from ...problems.language import ChainSum
from ...systems.reasoning.dr_grpo import dr_grpo
from ...systems.reasoning.grpo import grpo
from ..claim import Claim, Run


def brevity(run: Run) -> float:
    """Minus the mean length of the answers of the last fifth of the steps."""
    last = run.steps[-max(1, len(run.steps) // 5) :]
    return -sum(step["length"] for step in last) / len(last)


claim = Claim(
    says="On sums that may be answered at once or by a chain of any length, Dr. GRPO ends with shorter answers than GRPO.",
    problem=partial(ChainSum, width=4, warm=300),
    ours=partial(dr_grpo, lr=3e-4, prompts=16, group=8, longest=24.0),
    baseline=partial(grpo, kl=0.0, lr=3e-4, prompts=16, group=8),
    measure=brevity,
    unit="minus the length of an answer, tokens",
    steps=40,
    seeds=5,
    figure="length",
    tried="Nothing is tuned: both arms have the learning rate and the batch of GRPO's own claim. Fixed before the first run.",
    why=(
        "Written after the run: on these sums a chain is what makes an answer right, so both arms learn to write longer answers "
        "for the sake of the reward, and the seeds differ by more than the two averages do. That a token's pull does not depend "
        "on its answer's length holds exactly (tests/test_reasoning_losses.py)."
    ),
)
