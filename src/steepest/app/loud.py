"""What a run says of itself before it begins and while it goes on: its size in numbers, probes of the model, warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

PROMPTS, GROUP = 4, 4  # of the probe
UNLIKELY = math.log(1e-6)
PATIENCE = 10  # steps in a row after which a fault is no accident
HALF, WIDE, LOW = 0.5, 0.5, 0.05


class Unsound(ValueError):
    """A probe failed: what would be trained is not what is sampled."""


# ------------------------------------------------------------------------------------ sizes


def sizes(options: Mapping[str, Any], problem: Any, state: Any) -> list[tuple[str, str]]:
    """Rows of the announcement: what a step does, and memory. Only of options that the system has."""
    found: list[tuple[str, str]] = []
    prompts, group = options.get("prompts"), options.get("group", 1)
    if prompts and hasattr(problem, "max_new"):
        rows = prompts * group
        text = f"{prompts} prompts x {group} answers = {rows:,}, at most {rows * problem.max_new:,} tokens"
        cuts, epochs, micro = options.get("minibatches") or 1, options.get("epochs") or 1, options.get("micro")
        each = -(-rows // cuts)
        text += f"; {counted(cuts * epochs, 'update')} of {counted(each, 'answer')}"
        if micro and micro < each:
            text += f" in {counted(-(-each // micro), 'micro-batch', 'es')}"
        found.append(("a step", text))
    trained = {p for o in state.optimizers.values() for g in o.param_groups for p in g["params"]}
    held = sum(x.numel() * x.element_size() for x in [*state.parameters(), *state.buffers()])
    more = sum(3 * p.numel() * p.element_size() for p in trained)  # a gradient and Adam's two moments
    sizes = f"{held / 2**20:,.1f} MiB for weights and memories, {more / 2**20:,.1f} MiB to train them"
    return [*found, ("memory", f"{sizes}; activations beside")]


def counted(number: int, name: str, ending: str = "s") -> str:
    return f"{number:,} {name}{ending * (number != 1)}"


# ------------------------------------------------------------------------------------ probes


def probe(problem: Any, state: Any, seed: int, console: Console) -> None:
    """Sample from a language policy and look whether it is what will be trained; show an answer and its reward.

    Raises Unsound where sampler and trainer disagree, a group says one thing though it could not by chance, or a prompt does not
    survive its tokenizer. Other policies are left alone.
    """
    import torch

    from ..core.problem import Language, Prompts
    from ..core.stream import Stream

    policy: Any = getattr(state, "policy", None)
    if not isinstance(problem, Language) or not hasattr(policy, "sample"):
        return
    rng, device = Stream(seed, "probe"), state.device
    asked = problem.prompts(PROMPTS, (rng / "prompts").torch())
    survives(problem.tokenizer, asked)
    asked = Prompts(*(x.repeat_interleave(GROUP, 0) for x in (asked.ids, asked.mask, asked.key)))
    obs = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
    with torch.no_grad():
        tokens, mask, said = policy.sample(obs, (rng / "tokens").torch(device))
        logp = policy.logp(obs, tokens, mask)
        half = {name: x[: len(mask) // 2] for name, x in obs.items()}
        part = policy.logp(half, tokens[: len(mask) // 2], mask[: len(mask) // 2])
    rough = bool(getattr(policy, "lowered", False)) or next(policy.parameters()).element_size() < 4
    agree(said, logp, mask, rough, "the sampler gave and the trainer computes", "The two paths of the model differ")
    agree(
        part, logp[: len(part)], mask[: len(part)], rough, "half a batch and the whole one give", "Something mixes rows of a batch"
    )
    differ(tokens, mask, said)
    first = Prompts(asked.ids[:1], asked.mask[:1], asked.key[:1])
    score, _ = problem.grade(first, tokens[:1].cpu(), mask[:1].cpu())
    ids, answer = asked.ids[0][asked.mask[0] > 0], tokens[0][mask[0] > 0]
    words = problem.tokenizer
    for name, text in (("prompt", words.decode(ids)), ("answer", words.decode(answer)), ("reward", f"{float(score[0]):.4g}")):
        shown = "".join(c if c.isprintable() else "\ufffd" if c != "\n" else "\u23ce" for c in text)
        console.print(f"[bold]{name:<10}[/]  {escape(shown[-400:])}", highlight=False, soft_wrap=True)


def agree(one: Any, two: Any, mask: Any, rough: bool, what: str, cause: str) -> None:
    """Raises Unsound where log-probabilities [N, T] differ by more than rounding: the ratio would not be 1 before any update."""
    gap = float(((one - two).abs() * mask).max())
    mean = float(((one - two).abs() * mask).sum() / mask.sum())
    if not (mean < 0.05 if rough else gap < 1e-2):
        raise Unsound(
            f"log-probabilities that {what} differ by {mean:.2g} on average and {gap:.2g} at most, so that the ratio is not 1 "
            f"before any update. {cause}; try another precision, and please report the model"
        )


def differ(tokens: Any, mask: Any, logp: Any) -> None:
    """Raises Unsound where all answers to every prompt are one, though their probability says that they would differ."""
    same = all(bool((rows == rows[0]).all()) for rows in tokens.split(GROUP))
    chance = float((logp * mask).sum(1).view(-1, GROUP)[:, 1:].sum())
    if same and chance < UNLIKELY:
        raise Unsound(
            f"the {GROUP} answers to each of {PROMPTS} prompts are the same, which has a chance of e^{chance:.0f}: the sampler "
            "does not use its random numbers, and a group would teach nothing"
        )


def survives(words: Any, asked: Any) -> None:
    """Raises Unsound where the text of a prompt is another one after it went through the tokenizer."""
    for ids, mask in zip(asked.ids, asked.mask, strict=True):
        text = words.decode(ids[mask > 0])
        again = words.decode(words(text, add_special_tokens=False)["input_ids"])
        if text.strip() != again.strip():
            raise Unsound(
                f"the tokenizer reads back {again[:60]!r} where the prompt is {text[:60]!r}: rewards would be given for other "
                "texts than the model wrote; give the tokenizer a decoder, or take the model's own"
            )


# ------------------------------------------------------------------------------------ warnings


class Alarms:
    """Looks at the metrics of each step and warns, once for each fault, with its cause and a way out."""

    def __init__(self) -> None:
        self.runs: dict[str, int] = {}  # steps in a row
        self.first: float | None = None
        self.told: set[str] = set()

    def look(self, row: Mapping[str, float]) -> list[str]:
        """New warnings."""
        entropy = row.get("entropy")
        self.first = entropy if self.first is None else self.first
        faults = {
            "signal": (
                row.get("skipped", 0.0) > 0,
                f"no learning signal: for {PATIENCE} steps all answers to a prompt had the same reward (score "
                f"{row.get('score', math.nan):.4g}), and nothing was learned. Try easier prompts, a larger group, a higher "
                "temperature, or a reward that also tells near misses apart",
            ),
            "truncated": (
                row.get("truncated", 0.0) > HALF,
                f"{row.get('truncated', 0.0):.0%} of the answers are cut off at the longest that is allowed, so that most rewards "
                "are those of unfinished answers. Raise max_new, or ask for shorter answers (instruction, a length reward)",
            ),
            "entropy": (
                entropy is not None and self.first is not None and entropy < LOW * self.first,
                f"the entropy has collapsed, from {self.first or 0.0:.3g} to {entropy or 0.0:.3g} nats: answers hardly differ any "
                "more. Try a lower learning rate, a KL or an entropy term, or a wider upper clip",
            ),
            "ratio": (
                row.get("kl", 0.0) > WIDE or row.get("clipped", 0.0) > HALF,
                f"the policy moves far from the one that acted: KL {row.get('kl', 0.0):.3g} nats a decision, "
                f"{row.get('clipped', 0.0):.0%} clipped. Try a lower learning rate, fewer epochs or minibatches, or fresher data",
            ),
            "failures": (
                row.get("reward_failures", 0.0) > 0,
                f"{row.get('reward_failures', 0.0):.0f} calls of the reward failed in a step, step after step: their answers count "
                "as `failing` says. The first is told above; test the function on a few answers, or give it more seconds",
            ),
        }
        new = []
        for name, (wrong, text) in faults.items():
            self.runs[name] = self.runs.get(name, 0) + 1 if wrong else 0
            if self.runs[name] == PATIENCE and name not in self.told:
                self.told.add(name)
                new.append(text)
        return new
