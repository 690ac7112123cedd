"""Answers in windows: every step writes a few tokens more of each, and does not wait for the longest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.batch import Batch
from ..core.problem import Language, Prompts
from ..core.state import State
from ..core.stream import Stream
from ..core.system import System, holding
from ..memory.latest import Latest
from .experience import Collect, positive
from .generate import Ask, drawn, repeat, scored
from .prefixes import leftmost, trimmed


def windows(*, window: int, prompts: int = 16, group: int = 8, ask: Ask = drawn) -> Collect:
    """`window` tokens more of each of prompts x group answers; those that ended before make place for new prompts.

    window   tokens that a step writes of an answer, at most
    prompts  new prompts of the first step; later as many as there are places for
    group    answers to each
    ask      (state, problem, count, rng) -> which prompts

    An answer goes on with the policy of the step, from what earlier ones wrote of it. The batch's `mask` is what was written now;
    ``info["answered"]`` [N, T] is the whole answer so far, which `action` holds from its first token on, and ``info["finished"]``
    [N] bool says whether it has ended. The reward stands on an ended answer's last token. Reported are the share of answers that
    `ended`, and of these the mean `answer_score` and `answer_length`. The State needs the memory of `kept`.
    """
    positive(window=window, prompts=prompts, group=group)
    places = torch.arange(prompts * group)

    @torch.no_grad()
    def collect(state: State, problem: Language, rng: Stream) -> Batch:
        memory, device = state.unfinished, state.device
        held = {name: x.cpu() for name, x in memory.read(places).items()}
        free = (held["mask"][:, 0] == 0).nonzero().squeeze(1)
        if len(free):
            new = repeat(ask(state, problem, -(-len(free) // group), rng / "prompts"), group)
            for name, x in (("ids", new.ids), ("asked", new.mask)):
                held[name][free] = aligned(x[: len(free)], held[name])
            held["prompt"][free] = new.key[: len(free)]
        asked = trimmed(held["ids"], held["asked"])
        told = trimmed(*leftmost(torch.cat([held["ids"], held["action"]], 1), torch.cat([held["asked"], held["mask"]], 1)))
        before = held["mask"].sum(1).long()
        limit = (problem.max_new - before).clamp(max=window)
        obs = {"ids": told[0].to(device), "mask": told[1].to(device)}
        said, now, _ = state.policy.sample(obs, (rng / "tokens").torch(device), limit=limit.to(device))
        said, now = said.cpu(), now.cpu()
        wide = pad(held["action"], (0, window)), pad(held["mask"], (0, window))
        column = before[:, None] + torch.arange(said.shape[1])
        fresh = torch.zeros_like(wide[1]).scatter_(1, column, now)
        action = wide[0].scatter_(1, column, said.masked_fill(now == 0, 0))
        length = before + now.sum(1).long()
        answered = (torch.arange(fresh.shape[1]) < length[:, None]).float()
        ended = said.gather(1, now.sum(1, keepdim=True).long() - 1).squeeze(1) == problem.tokenizer.eos_token_id
        finished = ended | (length == problem.max_new)
        longest = int(length.max())
        action, fresh, answered = (x[:, :longest] for x in (action, fresh, answered))
        score, told_of = graded(problem, Prompts(*asked, held["prompt"]), action, answered, finished)
        going = ~finished[:, None]
        held |= {"action": action * going, "mask": answered * going}  # an ended answer leaves nothing behind
        memory.write(places.to(device), **{name: x.to(device) for name, x in held.items()})
        last = torch.zeros_like(fresh).scatter_(1, length[:, None] - 1, score[:, None])
        info = {"answered": answered.to(device), "finished": finished.to(device), "ended": float(finished.float().mean())}
        if bool(finished.any()):
            mean = {"answer_score": score[finished].mean(), "answer_length": length[finished].float().mean()}
            info |= told_of | {name: float(x) for name, x in mean.items()}
        return Batch(
            obs={"ids": asked[0].to(device), "mask": asked[1].to(device)}, action=action.to(device), logp=None,
            reward=last.to(device), mask=fresh.to(device), key=held["prompt"].to(device), info=info,
        )  # fmt: skip

    return collect


def kept(system: System, *, rows: int, room: int = 512) -> System:
    """The system with the memory of `windows` in its State: what is written of answers that have not ended.

    rows  answers that are written at once
    room  the longest prompt, tokens
    """

    def unfinished(state: State, problem: Language, rng: Stream) -> Latest:
        wide, asked = torch.zeros(problem.max_new), torch.zeros(room)
        return Latest(rows, ids=asked.long(), asked=asked, action=wide.long(), mask=wide, prompt=torch.zeros((), dtype=torch.long))

    return holding(system, unfinished=unfinished)


def graded(
    problem: Language, prompts: Prompts, action: Tensor, answered: Tensor, finished: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """The score of answers that have ended, 0 for the others [N], and what the problem reports."""
    score = torch.zeros(len(finished))
    if not bool(finished.any()):
        return score, {}
    ready = Prompts(*(x[finished] for x in (prompts.ids, prompts.mask, prompts.key)))
    score[finished], said = scored(problem, ready, action[finished], answered[finished])
    return score, said


def aligned(x: Tensor, like: Tensor) -> Tensor:
    """Columns of prompts, as wide as memory's: padded on the left."""
    short = like.shape[1] - x.shape[1]
    if short < 0:
        raise ValueError(
            f"a prompt of {x.shape[1]} tokens does not fit the memory, which has room for {like.shape[1]}: raise `room`"
        )
    return pad(x, (short, 0)).to(like)
