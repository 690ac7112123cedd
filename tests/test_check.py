"""check_system has teeth: each way of cheating that we know is planted here and caught."""

import dataclasses

import pytest
import torch
from torch import nn

from steepest.core import Prompts, State, Stream, System, train
from steepest.core.check import Failed, check_problem, check_system
from steepest.core.save import load, restore, save
from steepest.problems.control import CartPole, Pendulum, Sides
from steepest.problems.language import AddCliff

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


def test_a_counter_on_the_class():
    class Counting(nn.Module):
        seen = 0

    def make():
        counter = Counting()

        def after(state, batch):
            Counting.seen += 1
            assert counter

        return toy(after=after)

    caught(make, r"__class__\['seen'\] changed")


def test_a_mutable_default_argument():
    def after(state, batch, seen=[]):  # noqa: B006
        seen.append(len(batch))

    caught(lambda: toy(after=after), "after.__defaults__")


def test_a_slot_of_an_object():
    class Box:
        __slots__ = ("seen",)

    def make():
        box = Box()
        box.seen = 0

        def after(state, batch):
            box.seen += 1

        return toy(after=after)

    caught(make, "box.seen changed")


def test_a_metric_that_reads_a_clock():
    def learn(state, batch, rng):
        return {**system.learn(state, batch, rng), "now": __import__("time").perf_counter()}

    system = toy()
    caught(lambda: dataclasses.replace(system, learn=learn), "report different metrics")


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
    with pytest.raises(ValueError, match=r"functools\.partial"):
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


# ------------------------------------------------------------------------------------ problems


class Adding(AddCliff):
    """AddCliff with a slot for a bug; a module's class, so that it can be pickled."""

    bug = staticmethod(lambda self, what, value, *given: value)

    def prompts(self, count, generator):
        return self.bug("prompts", super().prompts(count, generator))

    def score(self, prompts, tokens, mask):
        return self.bug("score", super().score(prompts, tokens, mask), prompts, tokens, mask)


def broken(monkeypatch, **bugs):
    def bug(self, what, value, *given):
        return bugs[what](value, *given) if what in bugs else value

    monkeypatch.setattr(Adding, "bug", bug)
    return Adding()


def test_sound_problems_pass(monkeypatch):
    for problem in (broken(monkeypatch), CartPole(limit=40), Pendulum(limit=40)):
        assert len(check_problem(problem)) == 3


def from_elsewhere(prompts):
    return dataclasses.replace(prompts, key=prompts.key + torch.randint(2**40, (1,)))


def on_the_right(prompts):
    return Prompts(prompts.ids.flip(1), torch.cat([prompts.mask[:, 1:], torch.zeros(len(prompts.ids), 1)], 1), prompts.key)


def rank(value, prompts, tokens, mask):
    return tokens[:, 0].argsort().float()


def noisy(value, *given):
    return value + torch.rand(len(value))


def padded(value, prompts, tokens, mask):
    return tokens.sum(1).float()


@pytest.mark.parametrize(
    ("bugs", "said"),
    [
        ({"prompts": from_elsewhere}, "prompts differs for equal generators"),
        ({"prompts": on_the_right}, "must be padded on the left"),
        ({"prompts": lambda p: dataclasses.replace(p, key=p.key[:3])}, r"key \[3\] do not fit"),
        ({"score": noisy}, "score differs for equal answers"),
        ({"score": rank}, "depends on the other answers of the batch"),
        ({"score": padded}, "depends on tokens behind its end"),
        ({"score": lambda x, *given: x[:, None]}, r"must give 16 finite floats, not \[16, 1\]"),
        ({"score": lambda x, *given: x / 0}, "must give 16 finite floats"),
        ({"score": lambda x, *given: x.long()}, "torch.int64"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_bug_in_a_language_problem(monkeypatch, bugs, said):
    with pytest.raises(Failed, match=said):
        check_problem(broken(monkeypatch, **bugs))


class Poles(CartPole):
    """CartPole whose vector of environments is another class."""

    sides = Sides

    def make(self, count):
        return self.sides(self, count)


class Unseeded(Sides):
    def begin(self, index):
        super().begin(index)
        self.state[index] += 1e-3 * torch.rand(1).item()


class Forgets(Sides):
    """Its clock is not part of its state."""

    def set_state(self, state):
        super().set_state(state)
        self.clock[:] = 0


class ShowsTheNext(Sides):
    """`next_obs` is what the next episode shows: the autoreset that enters advantages."""

    def step(self, action):
        got = super().step(action)
        return dataclasses.replace(got, next_obs=got.obs + 1)


class EndsTwice(Sides):
    def step(self, action):
        got = super().step(action)
        over = got.terminated | got.truncated
        return dataclasses.replace(got, terminated=over, truncated=over)


class PaysNaN(Sides):
    def step(self, action):
        got = super().step(action)
        return dataclasses.replace(got, reward=got.reward.where(~got.terminated, float("nan")))


class Drifts(Sides):
    """Changes the state that it was asked for."""

    drift = 0.0

    def step(self, action):
        self.drift += 1e-6
        self.state[:, 0] += self.drift
        return super().step(action)


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (Unseeded, "two resets from one address differ"), (Forgets, r"after set_state\(get_state\(\)\) at step .*not complete"),
        (ShowsTheNext, "obs and next_obs differ at step 0"), (EndsTwice, "is terminated and truncated"),
        (PaysNaN, "reward of environment . at step .* is not finite"), (Drifts, "`obs` differs after set_state"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)  # fmt: skip
def test_a_bug_in_a_control_problem(monkeypatch, sides, said):
    monkeypatch.setattr(Poles, "sides", sides)
    with pytest.raises(Failed, match=said):
        check_problem(Poles(limit=15))


def test_a_problem_that_cannot_travel_is_refused():
    class Local(CartPole): ...

    with pytest.raises(Failed, match=r"Local cannot be pickled .*: build it from plain options"):
        check_problem(Local())
    with pytest.raises(TypeError, match="knows Language and Control problems, not Arms"):
        check_problem(Arms())
