"""Trees of answers and what is learned from them: MCTS-DPO."""

import math
from functools import partial

import pytest
import torch
from torch.nn.functional import softplus

from steepest.collectors.tree import Node, Tree, gain, mean_worth, outcome, padded, preferred, puct, step_pairs, ucb
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.reasoning.mcts_dpo import claim as mcts_dpo_claim
from steepest.losses.preference import PairTerms, logistic
from steepest.problems.language import ChainSum, ModeLottery
from steepest.problems.symbolic import END
from steepest.systems.preferences.dpo import answer_logp
from steepest.systems.reasoning.mcts_dpo import best_and_worst, mcts_dpo, next_root

CHAINS = partial(ChainSum, width=3, warm=120, tests=8)
SMALL = {"prompts": 4, "breadth": 3, "rounds": 2, "first": 2}


def oracle(state, batch):
    """1 while all steps are right, and of a finished answer the verdict."""
    fits = (batch.extra["right"] >= batch.extra["step"]).float().cumprod(1)
    end = torch.zeros_like(fits).scatter_(1, batch.length.long()[:, None] - 1, 1.0)
    return fits.where(end == 0, batch.score[:, None])


def searched(judge=outcome, choose=puct, backup=gain, breadth=4, rounds=7, depth=5, prompts=6):
    problem = CHAINS()
    state = begin(mcts_dpo(**SMALL), problem)
    asked = problem.prompts(prompts, Stream(1).torch())
    tree = Tree(state, problem, asked, breadth=breadth, judge=judge, choose=choose, backup=backup)
    tree.search(tree.roots, Stream(2), rounds=rounds, depth=depth)
    return tree


def nodes(tree):
    below = list(tree.roots)
    for node in below:
        below += node.children
    return below


def test_a_child_is_its_parent_and_one_step_and_all_children_differ():
    tree = searched()
    inner = [node for node in nodes(tree) if node.children]
    assert max(node.depth for node in inner) > 1
    merged = 0
    for node in inner:
        assert len({child.tokens for child in node.children}) == len(node.children)
        assert sum(len(child.endings) for child in node.children) == 4
        for child in node.children:
            assert child.tokens == node.tokens + child.step
            merged += len(child.endings) > 1
            assert child.done == (child.tokens[-1] == END)
            assert not (child.done and child.children)
            for ending in child.endings:
                assert ending.tokens[: len(child.tokens)] == child.tokens
                assert (ending.further == 0) == child.done
            assert child.value == pytest.approx(sum(e.score for e in child.endings) / len(child.endings))
            asked = tree.asked.key[child.prompt : child.prompt + 1]
            tokens, mask = padded([child.tokens])
            step, _ = tree.problem.steps(type(tree.asked)(tree.asked.ids[:1], tree.asked.mask[:1], asked), tokens, mask)
            assert float(step.sum()) == child.depth - child.done * (float(step[0, -1]) == 0)
    assert merged


def test_a_step_has_the_log_probability_that_the_policy_gives_it():
    tree = searched(rounds=3)
    policy = tree.state.policy
    for node in nodes(tree)[6:30]:
        tokens, mask = padded([node.tokens])
        n = node.prompt
        logp = policy.logp({"ids": tree.asked.ids[n : n + 1], "mask": tree.asked.mask[n : n + 1]}, tokens, mask)
        assert node.logp == pytest.approx(float(logp[0, -len(node.step) :].sum().detach()), abs=1e-4)


def test_visits_of_children_are_the_parents_less_the_iteration_that_grew_it():
    for choose, backup in ((puct, gain), (ucb, mean_worth)):
        tree = searched(choose=choose, backup=backup)
        assert all(root.visits == 7 for root in tree.roots)
        for node in nodes(tree):
            if node.children:
                assert sum(child.visits for child in node.children) == node.visits - 1


def test_the_worth_behind_a_step_is_a_convex_combination_of_its_childrens():
    for node in nodes(searched()):
        if node.children and node.parent is not None:
            future = node.worth - (node.value - node.parent.value)
            worths = [child.worth for child in node.children]
            assert min(worths) - 1e-9 <= future <= max(worths) + 1e-9
    for node in nodes(searched(choose=ucb, backup=mean_worth)):
        if node.visits > 1 and node.children:
            worths = [child.worth for child in node.children if child.visits]
            assert min(worths) - 1e-9 <= node.worth <= max(worths) + 1e-9


def test_under_an_oracle_a_right_answer_gains_what_its_parent_lacked():
    tree = searched(judge=oracle, rounds=12)
    right = [node for node in nodes(tree) if node.done and node.endings[0].score == 1]
    assert right
    for node in right:
        assert node.worth == pytest.approx(1 - node.parent.value)
    assert any(node.parent.value == 0 for node in right)  # said at once


def test_an_oracles_search_finds_what_sampling_misses():
    """The walk that follows the search is right far more often than an answer of the policy."""
    tree = searched(judge=oracle, rounds=16, prompts=24)
    found = 0
    for root in tree.roots:
        node = root
        while node.children:
            node = max(node.children, key=lambda child: (child.value + child.worth, child.visits))
        found += node.value
    assert found / 24 > tree.right / tree.answers + 0.15


def child(parent, worth, visits, step=(3,), logp=-1.0):
    made = Node(0, parent.tokens + step, parent, logp, worth=worth, visits=visits)
    parent.children.append(made)
    return made


def test_the_two_choices_are_their_formulas():
    root = Node(0, visits=9)
    one = child(root, 0.5, 3, step=(4, 5), logp=-2.0)
    assert puct(one) == pytest.approx(0.5 + math.exp(-2.0 / 2**1.25) * 3 / 4)
    assert puct(one, weight=0.0) == 0.5
    assert ucb(one) == pytest.approx(0.5 + 0.7 * math.sqrt(2 * math.log(9) / 3))
    two, three = child(root, 0.1, 0), child(root, 0.2, 0)
    assert preferred(root, ucb) is three  # where nobody was, by worth
    three.visits = two.visits = 1
    assert preferred(root, partial(ucb, weight=0.0)) is one


def test_worst_and_best_are_a_pair_unless_they_are_equal():
    root = Node(0, visits=4)
    a, b, c = child(root, 0.2, 1), child(root, 0.9, 1, step=(4,)), child(root, -0.4, 2, step=(5,))
    assert best_and_worst(root) == (b, c)
    a.worth = b.worth = c.worth = 0.2
    assert best_and_worst(root) is None
    assert next_root(root) is c  # visited most
    b.visits = 2
    child(b, 1.0, 1)
    child(b, 0.0, 1, step=(9,))
    assert next_root(root) is b  # its children differ


def test_a_pair_turned_round_smooths_its_label():
    tree = searched()
    pairs = [(pair, root) for root in tree.roots if (pair := best_and_worst(root)) is not None]
    deeper = [node for node in nodes(tree) if node.depth == 1 and node.children and best_and_worst(node) is not None]
    pairs += [(best_and_worst(node), node) for node in deeper]
    assert deeper
    better, worse = zip(*(pair for pair, _ in pairs), strict=True)
    doubt = torch.linspace(0, 0.4, len(pairs))
    found = step_pairs(tree.asked, better, worse, doubt)
    assert float(found.weight.sum()) == pytest.approx(1.0)
    for n, (pair, above) in enumerate(pairs):
        text = found.obs["ids"][n][found.obs["mask"][n] > 0].tolist()
        asked = tree.asked.ids[above.prompt][tree.asked.mask[above.prompt] > 0].tolist()
        assert text == asked + list(above.tokens)
        assert tuple(found.chosen[n][found.chosen_mask[n] > 0].tolist()) == pair[0].step
        assert tuple(found.rejected[n][found.rejected_mask[n] > 0].tolist()) == pair[1].step
    half = len(pairs)
    g = Stream(5).torch()
    terms = PairTerms(*(torch.randn(half, generator=g).repeat(2) for _ in range(4)))
    turned = PairTerms(*(torch.cat([a[:half], b[half:]]) for a, b in (
        (terms.chosen, terms.rejected), (terms.rejected, terms.chosen), (terms.ref_chosen, terms.ref_rejected),
        (terms.ref_rejected, terms.ref_chosen),
    )))  # fmt: skip
    ours = (found.weight * logistic(beta=0.5)(turned).loss).sum()
    z = 0.5 * terms.margin[:half]
    assert float(ours) == pytest.approx(float(((1 - doubt) * softplus(-z) + doubt * softplus(z)).mean()), abs=1e-6)
    logps = answer_logp(tree.state.policy, found)
    torch.testing.assert_close(logps[0][:half], logps[1][half:])


def test_only_the_last_step_of_a_search_is_reported_and_a_search_beats_a_sample():
    (record,) = train(mcts_dpo(prompts=24, breadth=4, rounds=4, lr=1e-5), CHAINS(), steps=1)
    assert record.metrics["searched"] > record.metrics["score"]
    assert record.metrics["pairs"] > 0


def test_where_all_answers_are_wrong_nothing_is_learned():
    problem = ChainSum(width=8, least=8, warm=2)
    system = mcts_dpo(prompts=1, breadth=2, rounds=1, first=1)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    assert batch.pairs is None
    assert system.learn(state, batch, Stream(1))["skipped"] == 1


def test_mcts_dpo_conforms_in_a_fresh_process():
    assert check_system(partial(mcts_dpo, lr=1e-4, **SMALL), partial(ChainSum, width=2, warm=30, tests=2), half=1)


def test_the_claim_of_mcts_dpo_runs_at_a_smaller_size():
    problem = mcts_dpo_claim.problem(width=2, warm=30, tests=4)
    for arm in (mcts_dpo_claim.ours(**SMALL), mcts_dpo_claim.baseline(count=6)):
        rows = list(train(arm, problem, steps=2))
        assert 0 <= mcts_dpo_claim.measure(Run(0, [r.metrics for r in rows], rows[-1].state, problem)) <= 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(mcts_dpo, breadth=0), "breadth must be at least 1, not 0"),
        (partial(mcts_dpo, depth=0), "depth must be at least 1, not 0"),
        (partial(mcts_dpo, rounds=0), "rounds must be at least 1, not 0"),
        (partial(mcts_dpo, explore=-1.0), "explore must not be negative, not -1.0"),
    ],
)
def test_a_search_without_room_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_problem_without_steps_is_refused():
    with pytest.raises(TypeError, match="it needs `steps`, which ModeLottery"):
        next(train(mcts_dpo(**SMALL), ModeLottery(warm=2), steps=1))
