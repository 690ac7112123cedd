"""check_system has teeth: each way of cheating that we know is planted here and caught."""

import dataclasses

import pytest
import torch
from steepest.core import State, System, Stream, train
from steepest.core.check import Failed, check_system
from steepest.core.save import load, restore, save
from torch import nn

from .toy import Arms, against_others, toy, toy_collect, toy_state


def test_an_honest_system_passes_in_a_fresh_process():
    assert check_system(toy, Arms)[-1] == "resume is bitwise in a fresh process"


def caught(make, said):
    with pytest.raises(Failed, match=said):
        check_system(make, Arms, fresh=False)


def test_state_in_a_closure():
    def make():
        seen = {}

        def credit(state, batch):
            for key, score in zip(batch.key.tolist(), batch.score.tolist(), strict=True):
                seen[key] = 0.8 * seen.get(key, 0.5) + 0.2 * score
            return against_others(state, batch)

        return toy(credit=credit)

    caught(make, r"credit.seen\[0\] changed during training and is not part of State")


COUNTS: dict[str, int] = {}


def test_state_in_a_module_global():
    def after(state, batch):
        COUNTS["steps"] = COUNTS.get("steps", 0) + 1

    caught(lambda: toy(after=after), "::COUNTS")


def test_an_attribute_counter_with_a_long_period():
    def after(state, batch):
        state.count = getattr(state, "count", 0) + 1
        if state.count % 1000 == 0:
            for p in state.policy.parameters():
                p.data.mul_(0.9)

    caught(lambda: toy(after=after), "state.count changed")


def test_a_tensor_attribute_that_is_no_buffer():
    def after(state, batch):
        state.policy.trace = getattr(state.policy, "trace", torch.zeros(1)) + 1

    caught(lambda: toy(after=after), "state.policy.trace changed")


def test_a_module_kept_outside_state():
    def make():
        ghost = nn.Linear(1, 1)

        def after(state, batch):
            with torch.no_grad():
                ghost.weight.add_(1.0)

        return toy(after=after)

    caught(make, r"after.ghost.parameters\['weight'\]|two runs with one seed differ|global generator")


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), lambda: __import__("numpy").random.rand(), __import__("random").random])
def test_a_draw_from_a_global_generator(draw):
    def credit(state, batch):
        return against_others(state, batch) + 0 * float(draw())

    caught(lambda: toy(credit=credit), "drew from the global generator of")


def test_randomness_from_the_clock():
    import time

    def collect(state, problem, rng):
        return toy_collect(state, problem, rng / time.time_ns())

    caught(lambda: toy(collect=collect), "two runs with one seed differ")


class Forgetful(State):
    """Saves no optimizer, as so many do."""

    def get_extra_state(self):
        return {"step": self.step, "optimizers": {}}

    def set_extra_state(self, saved):
        self.step = saved["step"]


def forgetful():
    def init(problem, rng):
        state = toy_state(problem, rng)
        lost = Forgetful(policy=state.policy)
        lost.optimizers = state.optimizers
        return lost

    return toy(init=init)


def test_a_lost_optimizer():
    caught(forgetful, "a resumed run differs from an uninterrupted one")


def test_a_lost_optimizer_in_a_fresh_process():
    with pytest.raises(Failed, match="a resumed run differs"):
        check_system(forgetful, Arms)


def test_a_generator_kept_in_the_system():
    def make():
        generator = torch.Generator().manual_seed(0)

        def collect(state, problem, rng):
            torch.rand(1, generator=generator)
            return toy_collect(state, problem, rng)

        return toy(collect=collect)

    caught(make, "collect.generator changed")


def test_what_cannot_be_imported_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="functools.partial"):
        check_system(lambda: toy(), Arms)


def test_a_system_may_say_that_it_does_not_resume():
    def make():
        return dataclasses.replace(forgetful(), resumes=False)

    assert "resume not claimed" in check_system(make, Arms, fresh=False)[-1]


def test_the_loop_goes_on_from_a_checkpoint_of_another_run(tmp_path):
    system, problem = toy(), Arms()
    records = list(train(system, problem, steps=3, seed=5))
    save(tmp_path / "c", records[-1].state, {})
    other = system.init(problem, Stream(99, "init"))
    restore(other, tmp_path / "c")
    end = list(train(system, problem, steps=6, seed=5, state=other))[-1]
    whole = list(train(system, problem, steps=6, seed=5))[-1]
    assert end.step == 6
    assert torch.equal(end.state.policy.logits, whole.state.policy.logits)
    assert load(tmp_path / "c")[0].keys() == whole.state.state_dict().keys()


def test_making_a_system_allocates_nothing():
    def explode(*_):
        raise RuntimeError("built too early")

    assert isinstance(toy(init=explode, collect=explode), System)
