"""Collecting answers: whom to ask, and batches put together."""

import pytest
import torch

from steepest.collectors.generate import answers, generate, joined, remembered, repeat
from steepest.core import Stream
from steepest.models.build import answer_state
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff

TASK = AddCliff(width=3, least=1, hints=True, warm=5)


@pytest.fixture(scope="module")
def state():
    return answer_state(TASK, Stream(0), lr=1e-3)


def test_who_is_asked_can_be_chosen(state):
    pool = Fixed(TASK, count=9)
    chosen = generate(prompts=2, group=3, ask=lambda state, problem, count, rng: problem.pick(torch.tensor([7, 2])))
    assert chosen(state, pool, Stream(1)).key.tolist() == [7] * 3 + [2] * 3
    for sizes in ({"prompts": 0}, {"group": 0}):
        with pytest.raises(ValueError, match="must be at least 1, not 0"):
            generate(**sizes)


def test_batches_join_without_a_change_to_any_row(state):
    """Prompts of unequal width, answers of unequal length: log-probabilities are those that each batch had alone."""
    wide = answers(state, TASK, repeat(TASK.prompts(2, Stream(2).torch()), 2), Stream(3))
    narrow = wide.rows(slice(0, 3)).having(obs={name: x[:3, 4:] for name, x in wide.obs.items()})  # a shorter prompt, another one
    short = narrow.having(**{name: getattr(narrow, name)[:, :2] for name in ("action", "reward", "mask")})
    short = short.having(extra={"hint": short.mask}, info={"truncated": 0.5, "mine": 1.0})
    both = joined(wide.having(extra={"hint": wide.mask, "other": wide.mask}), short)
    assert both.check() is both
    assert len(both) == 7
    assert both.logp is None
    together = state.policy.logp(both.obs, both.action, both.mask)
    torch.testing.assert_close(together[:4], state.policy.logp(wide.obs, wide.action, wide.mask), atol=1e-5, rtol=0)
    torch.testing.assert_close(together[4:, :2], state.policy.logp(short.obs, short.action, short.mask), atol=1e-5, rtol=0)
    assert not together[4:, 2:].any()
    assert both.score.tolist() == [*wide.score.tolist(), *short.score.tolist()]
    assert both.extra.keys() == {"hint"}
    assert torch.equal(both.extra["hint"], both.mask)
    assert both.info == {"truncated": pytest.approx((4 * wide.info["truncated"] + 3 * 0.5) / 7)}


def test_what_one_knows_and_another_does_not_cannot_be_joined(state):
    batch = answers(state, TASK, TASK.prompts(2, Stream(2).torch()), Stream(3))
    known = remembered(state, batch)
    assert joined(known, known).logp.shape == (4, batch.mask.shape[1])
    with pytest.raises(ValueError, match="some of the batches know their log-probabilities"):
        joined(batch, known)
