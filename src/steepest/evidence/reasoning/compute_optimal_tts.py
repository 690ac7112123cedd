"""Strategies of test-time compute at four budgets: each for all prompts, and the one that was best for prompts as hard."""

from functools import partial

from ...problems.language import ChainSum
from ...systems.reasoning.compute_optimal_tts import STRATEGIES, compute_optimal_tts
from ..analysis import Analysis, Treatment
from ..claim import Run, mean_of_last

FIT, JUDGED = 60, 16


def measured(run: Run) -> dict[str, float]:
    """Accuracies in the second half of the steps behind the fit, on prompts that no choice was made on, and tokens a prompt; then
    the accuracy of each strategy at each difficulty, on all prompts on which they were compared."""
    told = {name: mean_of_last(run, metric=name, share=0.5) for name in ("chosen", *STRATEGIES)}
    tokens = {f"{name}, tokens": mean_of_last(run, metric=f"{name} tokens", share=1.0) for name in STRATEGIES}
    right, asked = (x.view(3, 3) for x in (run.state.tally.right, run.state.tally.asked))
    rate = right / asked.clamp(min=1)
    table = {
        f"{name}, {difficulty}": float(rate[row, column])
        for row, difficulty in enumerate(("easy", "medium", "hard"))
        for column, name in enumerate(STRATEGIES)
    }
    return {**told, **tokens, **table}


analysis = Analysis(
    asks="Which way of searching for an answer is right most often, at which difficulty of the prompt and which budget?",
    problem=partial(ChainSum, width=6, warm=400, tests=128),
    treatments=tuple(
        Treatment(f"N = {n}", partial(compute_optimal_tts, budget=n, fit=FIT, temperature=1.0), FIT + JUDGED) for n in (1, 4, 16)
    ),
    measure=measured,
    seeds=3,
    tried=(
        "Four steps of N = 8 on seed 100 with a verifier that had learned nothing, to see that it runs and what it costs. The "
        "verifier's rate is that of the claim of easy_to_hard."
    ),
    finds=(
        "Three seeds. Best of 16 is right as often as the choice by difficulty (.61), DVTS .55, beam search .41: no more than one "
        "answer (.41). At N = 4 the choice has .50, each strategy .46. In no bin does beam search or DVTS gain more than .03 on "
        "best of n, and they write half as many tokens again."
    ),
)
