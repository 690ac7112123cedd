"""A pass over a batch in one native call: networks, loss, gradients, clip and Adam. The loss is the program that torch's own run of
it left (`core.program`), so no derivative is written down a second time."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core import native
from ..core.batch import Batch
from ..core.program import Program, Table, traced
from ..core.state import State
from ..losses import Loss, Terms

INPUTS = ("new", "old", "advantage", "mask", "entropy", "value", "old_value", "target", "weight")  # in the order of csrc/steepest.c
LEAVES = ("new", "entropy", "value")


def judge(given: Table, loss: Loss) -> Table:
    """The loss of each row [B, 1], its metrics, and the gradients by the leaves, rows weighing `weight`."""
    leaves = {name: given[name].requires_grad_() for name in LEAVES if name == "new" or name in loss.needs}
    rest = {name: given[name] for name in ("old", "advantage", "mask", "old_value", "target")}
    terms = Terms(**leaves, **rest)  # type: ignore[arg-type]
    value, metrics = loss(terms)
    slopes = torch.autograd.grad(value, list(leaves.values()), given["weight"], allow_unused=True)
    with torch.no_grad():
        told = {"kl": terms.ratio - 1 - terms.log_ratio, **metrics}
        told = {"loss": value, **{name: x.detach().to(value.dtype) for name, x in told.items()}}
    return told | {f"by {name}": g for name, g in zip(leaves, slopes, strict=True) if g is not None}


def trace(loss: Loss) -> Program | None:
    program = traced(functools.partial(judge, loss=loss), INPUTS, {"mask": 1.0})
    return program if program is not None and faithful(program) else None


remembered = functools.lru_cache(maxsize=64)(trace)  # a saving: the program follows from the loss, and is checked before use


def program_of(loss: Loss) -> Program | None:
    """What the loss computes at every decision; None where only torch can say. A loss that reads something else than its terms,
    which changed since, is traced anew."""
    found = remembered(loss)
    return trace(loss) if found is not None and not found.holds(functools.partial(judge, loss=loss)) else found


def faithful(program: Program) -> bool:
    """Whether the kernel computes what torch did."""
    given, made = program.example
    rows = len(given["new"])
    inputs = torch.stack([given[name][:, 0] for name in INPUTS])
    registers = torch.empty(len(INPUTS) + len(program.code) + len(program.constants), rows)
    native.library.run(addresses(program), rows, inputs.data_ptr(), registers.data_ptr())
    return all(torch.allclose(registers[program.outputs[name]], x[:, 0], rtol=1e-5, atol=1e-6) for name, x in made.items())


def addresses(program: Program) -> tuple[int, int, int, int]:
    code, constants = program.code, program.constants
    return code.data_ptr(), len(code), constants.data_ptr(), len(constants)


@dataclass(frozen=True)
class Compiled:
    """An update of `policy` and `critic` on a batch [B, 1] whose decisions all count the same."""

    program: Program
    policy: native.Known
    critic: native.Known | None
    obs: Tensor
    action: Tensor
    columns: tuple[Tensor | None, ...]

    @property
    def slots(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The policy's theta and log_std and the critic's theta, where the loss pulls at them."""
        outputs, policy = self.program.outputs.keys(), self.policy
        acts = bool({"by new", "by entropy"} & outputs)
        critic = self.critic if "by value" in outputs else None
        return policy.theta if acts else None, policy.log_std if acts else None, critic.theta if critic else None

    @property
    def moved(self) -> list[Tensor]:
        """The parameters that get a gradient; `learn` expects one to be there."""
        return [p for p in self.slots if p is not None]

    def learn(self, order: Tensor, size: int, rule: tuple[Any, ...], max_norm: float) -> tuple[dict[str, float], int]:
        """One pass in the `order` given, in minibatches of `size` -> sums of metrics over them, and how many. rule: see
        `optimize.epochs.rule`. Where torch has two threads, the second does the critic's part; results are the same to the bit."""
        policy, critic, outputs = self.policy, self.critic, self.program.outputs
        reports = [name for name in outputs if not name.startswith("by ")]
        told = torch.zeros(len(reports) + 1, dtype=torch.float64)
        steps = native.library.learn(
            policy.net, policy.spread, None if critic is None else critic.net, self.obs.data_ptr(), self.action.data_ptr(),
            self.action[0].numel() * self.action.element_size(), tuple(0 if x is None else x.data_ptr() for x in self.columns),
            addresses(self.program), tuple(outputs.get(f"by {name}", -1) for name in LEAVES),
            tuple(outputs[name] for name in reports),
            tuple(0 if p is None or p.grad is None else p.grad.data_ptr() for p in self.slots),
            max_norm, rule, len(order), size, order.data_ptr(), told.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return dict(zip((*reports, "grad_norm"), told.tolist(), strict=True)), steps


def compiled(loss: Loss, state: State, batch: Batch) -> Compiled | None:
    """None where a network, a distribution, the loss or the batch is not what the kernels know."""
    sides = [state.policy, *([state.critic] if "value" in loss.needs else [])]
    if native.library is None or not loss.needs <= set(INPUTS) or not all(hasattr(side, "known") for side in sides):
        return None
    if batch.mask.shape[1] != 1 or not bool(batch.mask.all()):
        return None
    obs, action = batch.obs.contiguous(), batch.action.contiguous()
    known = [side.known(obs, action) for side in sides]
    needed = ("old", "advantage", *(name for name in ("old_value", "target") if name in loss.needs))
    written = {"old": batch.logp, "advantage": batch.advantage, "old_value": batch.value, "target": batch.target}
    columns = {name: x.contiguous() for name, x in written.items() if x is not None}
    absent = set(needed) - columns.keys() - {"old"}
    if None in known or absent or not native.fits(*columns.values()):
        return None
    program = program_of(loss)
    if program is None:
        return None
    table = tuple(columns.get(name) for name in INPUTS)
    return Compiled(program, known[0], known[1] if len(known) > 1 else None, obs, action, table)
