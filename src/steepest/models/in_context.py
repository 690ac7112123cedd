"""A language model as a world and as a policy: prompts made of past transitions, futures imagined from them."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..core.stream import Stream
from .chat import Question


@dataclass(frozen=True)
class Reading:
    """How the past is read.

    recent       successful trajectories that the rollout policy reads
    threshold    a trajectory, or a piece of one, succeeds if its discounted return is above it
    prompt_size  examples in a prompt
    max_steps    longest imagined future (steps)
    """

    recent: int
    threshold: float
    prompt_size: int
    max_steps: int

    def __post_init__(self) -> None:
        for name in ("recent", "prompt_size", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


class Told(NamedTuple):
    """One past step as text, and what it is filed under."""

    state: str
    action: str
    reward: str
    end: str
    after: str
    choice: int
    gain: float
    ended: bool


class Past:
    """What was lived, as text, for one decision: the prompts, and the futures that a model imagines from them.

    codec    writes and reads the lines of a transition (a `problems.textmdp.TextMDP`)
    columns  trajectories oldest first: obs, next_obs [n, T, d], action, reward, mask, terminated [n, T]
    model    questions, rng -> answers (see `models.chat.ask`)
    """

    def __init__(
        self, codec: Any, columns: dict[str, Tensor], reading: Reading, model: Callable[[list[Question], Stream], list[Any]]
    ):
        self.codec, self.reading, self.ask = codec, reading, model
        self.lines = {
            "end": codec.read_end,
            "reward": codec.read_reward,
            "after": lambda text: text if codec.read_state(text) else None,
        }
        episodes = self.tell(columns)
        good = [self.value(episode) > reading.threshold for episode in episodes]
        recent = [episode for episode, well in zip(episodes, good, strict=True) if well][-reading.recent :]
        segments = [e[i:j] for e in recent for j in range(len(e) + 1) for i in range(j)]
        self.successes = len(recent)
        self.segments = [
            "".join(f"{t.state}\n{t.action}\n{t.reward}\n" for t in s) for s in segments if self.value(s) > reading.threshold
        ]
        # examples of each kind of line, by action, then by what a prompt must balance
        self.told: dict[str, dict[int, dict[Any, list[str]]]] = {
            line: defaultdict(lambda: defaultdict(list)) for line in self.lines
        }
        for episode, well in zip(episodes, good, strict=True):
            for t in episode:
                query = f"{t.state}\n{t.action}\n"
                self.told["end"][t.choice][t.ended].append(f"{query}{t.end}\n\n")
                self.told["reward"][t.choice][t.gain].append(f"{query}{t.reward}\n\n")
                if not t.ended:
                    self.told["after"][t.choice][well].append(f"{query}{t.after}\n\n")
        tried, goes_on = self.told["end"], self.told["after"]
        self.ready = len(tried) == len(self.codec.actions) and bool(goes_on) and bool(self.segments)

    def tell(self, columns: dict[str, Tensor]) -> list[list[Told]]:
        codec, names = self.codec, ("obs", "next_obs", "action", "reward", "mask", "terminated")
        obs, after, action, reward, mask, ended = (columns[name].tolist() for name in names)
        state = functools.cache(lambda row: codec.write_state(tuple(map(int, row))))

        def told(n: int, t: int) -> Told:
            here, there, a, r, e = state(tuple(obs[n][t])), state(tuple(after[n][t])), action[n][t], reward[n][t], ended[n][t]
            return Told(here, codec.write_action(a), codec.write_reward(r), codec.write_end(e), there, a, r, e)

        return [[told(n, t) for t, made in enumerate(row) if made] for n, row in enumerate(mask)]

    def value(self, steps: Sequence[Told]) -> float:
        return sum(self.codec.gamma**t * step.gain for t, step in enumerate(steps))

    def mixed(self, groups: dict[Any, list[str]], draw: np.random.Generator) -> str:
        """At most `prompt_size` examples, shuffled, each group as often as any other (its examples repeat if they must)."""
        each = min(max(map(len, groups.values())), -(-self.reading.prompt_size // len(groups)))
        chosen = [group[k] for group in groups.values() for k in np.resize(draw.permutation(len(group)), each)]
        return "".join(chosen[k] for k in draw.permutation(len(chosen)))

    def question(self, line: str, state: str, choice: int) -> Question:
        groups, query = self.told[line][choice], f"{state}\n{self.codec.write_action(choice)}\n"
        return Question(lambda draw: self.mixed(groups, draw) + query, self.lines[line])

    def choice_in(self, state: str) -> Question:
        return Question(lambda draw: self.imitation(draw) + f"start\n{state}\n", self.codec.read_action)

    def imitation(self, draw: np.random.Generator) -> str:
        order = draw.permutation(len(self.segments))[: self.reading.prompt_size]
        return "".join(f"start\n{self.segments[k]}\n" for k in order)

    def choices(self, states: list[str], rng: Stream) -> list[int]:
        """The rollout policy's action in each state; a random one where the model names none."""
        draw = (rng / "lost").numpy()
        answers = self.ask([self.choice_in(state) for state in states], rng / "action")
        return [int(draw.integers(len(self.codec.actions))) if a is None else a for a in answers]

    def values(self, states: list[str], rng: Stream) -> np.ndarray:
        """The return of one imagined future of each action in each of B states [B, A]."""
        many = len(self.codec.actions)
        value, at = np.zeros(len(states) * many), [state for state in states for _ in range(many)]
        choice, live = [*range(many)] * len(states), list(range(len(at)))
        for t in range(self.reading.max_steps):
            known = [(i, line) for i in live for line in self.lines if choice[i] in self.told[line]]
            answers = self.ask([self.question(line, at[i], choice[i]) for i, line in known], rng / t / "world")
            said, going = dict(zip(known, answers, strict=True)), []
            for i in live:
                end, reward, after = (said.get((i, line)) for line in self.lines)
                if end is None or reward is None:
                    continue
                value[i] += self.codec.gamma**t * reward
                if not end and after is not None:
                    going.append(i)
                    at[i] = after
            live = going
            if not live or t + 1 == self.reading.max_steps:
                break
            for i, a in zip(live, self.choices([at[i] for i in live], rng / t), strict=True):
                choice[i] = a
        return value.reshape(len(states), many)
