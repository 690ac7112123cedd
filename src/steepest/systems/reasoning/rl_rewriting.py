"""RL rewriting: a text is made appropriate, and stays what it was, by two judges that were there before.

Paper.  Ziegenbein et al., LLM-based Rewriting of Inappropriate Argumentation using Reinforcement Learning from Machine Feedback,
        2024. arXiv 2406.03363.
Claim.  Without any rewritten text to learn from, the weighted judges make texts more appropriate at little loss of content.
Idea.   r(x, y) = w appropriate(y) + (1 - w) alike(x, y), and PPO on it with a price on the divergence from the first policy
State.  as ppo_max; the reward is not normalised, values are not clipped and the critic does not learn alone
Note.   The authors' judges are classifiers of arguments and BERTScore; here the first is the problem's score, the second one minus
        the edits between both texts over the length of the longer. The arithmetic mean, the weights that were tried (.4 to .6 and
        1) and PPO's constants are as told of their code (timonziegenbein/inappropriateness-mitigation), which was not read anew.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...collectors.experience import Collect
from ...collectors.generate import Gather, asked_of, generate
from ...core import Batch, State, Stream, System, extends
from ...core.batch import at_end
from ...credit import cer
from .ppo_max import ppo_max


def alike(tokens: Tensor, mask: Tensor, source: Tensor, there: Tensor) -> Tensor:
    """1 - edits / symbols of the longer text, of answers without their end token [N, T] and of sources [N, M]. -> [N] in [0, 1]"""
    size, said = there.sum(1), mask.sum(1)
    return 1 - cer(tokens, mask, source, there) * size / size.maximum(said)


def weighed(weight: float, gather: Gather = generate) -> Gather:
    """The same answers, whose reward is the weighted mean of the problem's score and of how much they say what the source says."""

    def kept(*, prompts: int, group: int) -> Collect:
        collect = gather(prompts=prompts, group=group)

        def judged(state: State, problem: Any, rng: Stream) -> Batch:
            batch = collect(state, problem, rng)
            score = batch.score
            if not bool(((score >= 0) & (score <= 1)).all()):
                raise ValueError(
                    f"scores lie between {float(score.min()):g} and {float(score.max()):g}: a weighted mean needs judges in [0, 1]"
                )
            source, there = (x.to(batch.mask.device) for x in problem.source(asked_of(batch)))
            said = batch.mask * (batch.action != problem.tokenizer.eos_token_id)
            same = alike(batch.action, said, source, there)
            worth = weight * score + (1 - weight) * same  # <- the idea
            told = {"appropriate": float(score.mean()), "alike": float(same.mean())}
            return batch.having(reward=at_end(worth, batch.mask), info=batch.info | told)

        return judged

    return kept


@extends(ppo_max, without=("collect", "reward_clip", "value_clip", "critic_steps"))
def rl_rewriting(
    *, weight: float = 0.5, kl: float = 0.001857, lr: float = 5e-6, critic_lr: float = 5e-6, epochs: int = 4,
    value_weight: float = 0.2, **options: Any,
) -> System:  # fmt: skip
    """PPO on two judges of a rewritten text; for a problem that tells the ``source(prompts)`` beside its score.

    weight        w: of being appropriate; 1 - w is that of the content (authors: 0.4 to 0.6, and 1)
    kl            what a nat of KL(pi || reference) costs (authors' code: 0.001857)
    lr            learning rate of the policy (authors' code: 5e-6)
    critic_lr     learning rate of the critic (authors' code: 5e-6)
    epochs        passes over a step's answers (authors' code: 4)
    value_weight  of the critic's squared error / 2 (authors' code: 0.2)
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], not {weight}: what one judge gets is taken from the other")
    return ppo_max(
        collect=weighed(weight), reward_clip=None, value_clip=None, critic_steps=0, kl=kl, lr=lr, critic_lr=critic_lr,
        epochs=epochs, value_weight=value_weight, **options,
    )  # fmt: skip
