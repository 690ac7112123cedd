"""Claims small enough to run in a test. Importable by name, so that workers can find them."""

import os
from functools import partial

from steepest.evidence import Claim, tail
from steepest.evidence.analysis import Analysis, Fit, Treatment

from .toy import Arms, toy


def accuracy(run):
    return run.problem.evaluate(run.state.policy, None)["accuracy"]


def likelihood(run):
    return likelihood_of(run.state)


def likelihood_of(state):
    return float(state.policy.logits.detach().softmax(-1).diagonal().mean())


def both(run):
    p = likelihood(run)
    return {"likelihood": p, "twice": 2 * p}


def unmeasured(run):
    return {}


def hopeless(*, passes=1):
    raise RuntimeError("no such luck")


def steady(*, lr=0.1, passes=2):
    """The toy with options that can be told by name."""
    return toy(lr=lr, passes=passes)


COUNTS = {"steps": 0}


def count(state, batch):
    COUNTS["steps"] += 1


def forgetful():
    """Keeps a counter outside State."""
    return toy(after=count)


def deadly():
    os._exit(7)


claim = Claim(
    says="learning beats a learning rate of almost nothing",
    problem=partial(Arms, questions=3),
    ours=partial(toy, lr=0.3),
    baseline=partial(toy, lr=1e-6),
    measure=likelihood,
    unit="probability of the right arm",
    steps=8,
    seeds=3,
)
equal = Claim(
    says="a system beats itself",
    problem=partial(Arms),
    ours=partial(toy, lr=0.3),
    baseline=partial(toy, lr=0.3),
    measure=tail("score", 0.5),
    unit="mean score",
    steps=4,
    seeds=2,
    vary="questions",
    why="it is the same system",
)
study = analysis = Analysis(
    asks="does a learning rate help?",
    problem=partial(Arms, questions=3),
    treatments=(
        Treatment("none", partial(toy, lr=0.3), 0),
        Treatment("slow", partial(toy, lr=0.1), 8),
        Treatment("fast", partial(toy, lr=0.3), 8),
    ),
    measure=both,
    seeds=2,
    fit=Fit("likelihood", "twice", 1),
)
