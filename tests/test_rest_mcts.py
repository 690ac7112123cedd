"""Process rewards from a tree, and self-training on what it found: ReST-MCTS*."""

import math
from functools import partial

import pytest
import torch

from steepest.collectors.tree import Ending, Node, Tree, answered, labelled, mean_worth, ucb
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.reasoning.rest_mcts import claim as rest_mcts_claim
from steepest.problems.language import ChainSum, ModeLottery
from steepest.systems.reasoning.rest_mcts import judged, near, rest_mcts, rolled, valued

CHAINS = partial(ChainSum, width=3, warm=120, tests=8)
SMALL = {"prompts": 4, "breadth": 2, "rounds": 3, "lr": 1e-3}


def below(parent, *, score=None, further=0, value=0.0, ahead=()):
    """A child, seen in an answer of that score if one is given."""
    step = (len(parent.children) + 3,)
    node = Node(0, parent.tokens + step, parent, value=value, worth=value, ahead=ahead, done=score is not None and not further)
    if score is not None:
        node.endings.append(Ending(node.tokens + (9,) * further, score, further))
    parent.children.append(node)
    return node


def chain(length):
    """A path whose last node is a right answer."""
    root = node = Node(0)
    for k in range(length):
        node = below(node, score=1.0 if k == length - 1 else None)
    return root


@pytest.mark.parametrize("length", [1, 2, 5])
def test_on_a_right_path_the_value_grows_by_equal_parts_to_1(length):
    found = [value for _, value in valued(chain(length), 1.0)]
    assert found == pytest.approx([(k + 1) / length for k in range(length)])


def test_a_wrong_step_takes_value_away_and_never_below_0():
    root = chain(3)
    first = root.children[0]
    wrong_start, wrong_later = below(root, score=0.0), below(first, score=0.0)
    worse = below(wrong_later, score=0.0)
    value = {id(node): x for node, x in valued(root, 1.0)}
    assert value[id(first)] == pytest.approx(1 / 3)
    assert value[id(wrong_start)] == 0.0
    # from the first step the right answer is two steps away: 1/3 - (2/3) / 3
    assert value[id(wrong_later)] == pytest.approx(1 / 3 - 2 / 9)
    assert value[id(worse)] == 0.0  # 1/9 - (8/9) / 3


def test_right_answers_that_were_only_rolled_out_count():
    root = Node(0)
    far = below(root, score=1.0, further=3)
    assert near(far, 1.0) == 3
    assert near(root, 1.0) == 4
    assert near(root, 2.0) == math.inf
    assert valued(root, 2.0) == []  # nothing is known of a tree without a right answer
    ((_, value),) = valued(root, 1.0)
    assert value == pytest.approx(1 / 4)
    below(far, score=1.0)
    assert [x for _, x in valued(root, 1.0)] == pytest.approx([1 / 2, 1.0])  # two steps in all now


def test_a_rollout_mixes_the_best_value_ahead_and_is_a_visit():
    for share, expected in ((0.5, 0.6), (0.0, 0.4), (1.0, 0.8)):
        root = Node(0)
        low, high = below(root, value=0.1), below(root, value=0.4, ahead=(0.2, 0.8, 1.0))
        rolled(root, choose=ucb, share=share, ahead=2)
        assert high.worth == pytest.approx(expected)
        assert (low.visits, high.visits) == (0, 1)
        assert mean_worth(root) == pytest.approx(expected)  # by visits


def searched(prompts=6, rounds=6):
    problem = CHAINS()
    state = begin(rest_mcts(**SMALL), problem)
    asked = problem.prompts(prompts, Stream(1).torch())
    tree = Tree(state, problem, asked, breadth=3, judge=judged, choose=ucb, backup=mean_worth)
    arrive = partial(rolled, choose=ucb, share=0.5, ahead=3)
    tree.search(tree.roots, Stream(2), rounds=rounds, depth=8, arrive=arrive)
    return tree


def nodes(tree):
    found = list(tree.roots)
    for node in found:
        found += node.children
    return found


def test_every_iteration_visits_a_child_also_the_one_that_grew_it():
    for node in nodes(searched()):
        if node.children:
            alone = node.visits - sum(child.visits for child in node.children)
            assert alone == 0 if node.parent is None else alone in (0, 1)  # 1: a rollout came through before it grew


def test_labels_stand_behind_their_steps_and_each_once():
    tree = searched()
    labels = [label for root in tree.roots for label in valued(root, 1.0)]
    assert labels
    batch = labelled(tree, labels)
    assert batch.check() is batch
    assert int(batch.extra["step"].sum()) == len(labels)
    expected = {(int(tree.asked.key[node.prompt]), node.tokens): x for node, x in labels}
    for row, place in batch.extra["step"].nonzero().tolist():
        tokens = tuple(batch.action[row, : place + 1].tolist())
        assert float(batch.target[row, place]) == pytest.approx(expected.pop((int(batch.key[row]), tokens)))
    assert not expected
    assert bool(((batch.target >= 0) & (batch.target <= 1)).all())
    assert bool((batch.target[batch.extra["step"] == 0] == 0).all())


def test_what_is_imitated_is_right_different_and_capped():
    tree = searched(rounds=10)
    many, few = answered(tree, 1.0, 100), answered(tree, 1.0, 2)
    score = tree.problem.score(type(tree.asked)(many.obs["ids"], many.obs["mask"], many.key), many.action, many.mask)
    assert bool((score == 1).all())
    assert many.score.tolist() == [1.0] * len(many)
    said = [(int(k), tuple(row[m > 0].tolist())) for k, row, m in zip(many.key, many.action, many.mask, strict=True)]
    assert len(set(said)) == len(said)
    assert len(few) < len(many)
    assert int(few.key.unique(return_counts=True)[1].max()) == 2
    assert answered(tree, 2.0, 2) is None


def test_the_verifier_learns_the_values_and_the_policy_the_answers():
    rows = [r.metrics for r in train(rest_mcts(prompts=12, breadth=3, rounds=6, lr=1e-4, verifier_lr=3e-3), CHAINS(), steps=12)]
    first, last = (sum(row["verifier_loss"] for row in part) / 4 for part in (rows[:4], rows[-4:]))
    assert last < first
    assert all(row["solved"] >= row["score"] for row in rows)


def test_where_nothing_is_right_nothing_moves():
    problem = ChainSum(width=8, least=8, warm=2)
    system = rest_mcts(prompts=2, breadth=2, rounds=2)
    state = begin(system, problem)
    before = [p.clone() for p in state.parameters()]
    told = system.learn(state, system.collect(state, problem, Stream(0)), Stream(1))
    assert told["skipped"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, state.parameters(), strict=True))


def test_rest_mcts_conforms_in_a_fresh_process():
    assert check_system(partial(rest_mcts, **SMALL), partial(ChainSum, width=2, warm=30, tests=2), half=1)


def test_the_claim_of_rest_mcts_runs_at_a_smaller_size():
    problem = rest_mcts_claim.problem(width=2, warm=30, tests=4)
    for arm in (rest_mcts_claim.ours(prompts=2, rounds=2), rest_mcts_claim.baseline(prompts=2)):
        rows = list(train(arm, problem, steps=2))
        assert 0 <= rest_mcts_claim.measure(Run(0, [r.metrics for r in rows], rows[-1].state, problem)) <= 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(rest_mcts, rounds=0), "rounds must be at least 1, not 0"),
        (partial(rest_mcts, cap=0), "cap must be at least 1, not 0"),
        (partial(rest_mcts, share=1.5), "needs share in \\[0, 1\\], explore >= 0 and verifier_lr > 0, not 1.5, 0.7 and 0.0001"),
        (partial(rest_mcts, verifier_lr=0.0), "verifier_lr > 0, not 0.5, 0.7 and 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_problem_without_steps_is_refused():
    with pytest.raises(TypeError, match="it needs `steps`, which ModeLottery"):
        next(train(rest_mcts(**SMALL), ModeLottery(warm=2), steps=1))
