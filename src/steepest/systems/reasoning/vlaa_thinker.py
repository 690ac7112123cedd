"""VLAA-Thinker: GRPO at once, instead of an expert's traces to imitate first, and a rule of reward for each kind of question.

Paper.  Chen et al., SFT or RL? An Early Investigation into Training R1-Like Reasoning Large Vision-Language Models, 2025.
        arXiv 2504.11468.
Claim.  Imitation of an expert's reasoning first ties the policy to its manner, and GRPO after it ends lower than GRPO alone.
Idea.   `imitate` steps of SFT on the problem's demonstrations, then GRPO; the paper's advice: imitate = 0
State.  as grpo; with imitation a second Adam (`imitation`)
Note.   The mixed reward is the problem's: `problems.rewards.one_of` scores each question by the rule of its kind (a number, a
        letter, a box by intersection over union, open text by a judge), and a rule in `Inside` gives nothing where the form is
        broken. Pictures are not read: there is no vision model here. The repository (UCSC-VLAA/VLAA-Thinking) holds data and
        inference only, so GRPO's settings are those of grpo. The KL penalty is taken to the policy after imitation.
"""

from __future__ import annotations

from typing import Any

from ...collectors.demonstrations import demonstrations
from ...core import System, extends
from ...engines.imitation import after_imitation
from .grpo import grpo


@extends(grpo)
def vlaa_thinker(
    *, imitate: int = 0, imitate_lr: float = 1e-5, traces: int = 64, max_grad_norm: float = 1.0, **options: Any
) -> System:
    """Group relative policy optimization, if asked after supervised fine-tuning.

    imitate        steps of supervised fine-tuning on what the problem demonstrates, before (paper's advice: 0)
    imitate_lr     learning rate of Adam there (usual: 1e-5)
    traces         demonstrations a step there (usual: 64)
    max_grad_norm  the gradient is scaled down to this norm
    """
    system = grpo(max_grad_norm=max_grad_norm, **options)
    first = demonstrations(prompts=traces)
    return after_imitation(system, first, steps=imitate, lr=imitate_lr, max_grad_norm=max_grad_norm)  # <- the idea
