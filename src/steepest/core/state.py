"""Everything that changes during training."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn


class State(nn.Module):
    """What outlives a step: policies, critics, memories, optimizers and the step counter.

    ``state_dict()`` is the checkpoint. What is not here is not saved, and a system that keeps it
    elsewhere fails `check_system`.

    parts       modules by name; conventional names are `policy`, `critic`, `reference`, `target`, `live`, `penalty`
    optimizers  torch optimizers by name, `optimizers["policy"]` being the one that updates use
    """

    policy: Any
    critic: Any
    reference: Any
    penalty: Any

    def __init__(self, **parts: nn.Module):
        super().__init__()
        self.step = 0
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, part in parts.items():
            setattr(self, name, part)

    if TYPE_CHECKING:  # what a system adds is its own to know

        def __getattr__(self, name: str) -> Any: ...

    @property
    def device(self) -> torch.device:
        held = itertools.chain[torch.Tensor](self.parameters(), self.buffers())
        return next((tensor.device for tensor in held), torch.device("cpu"))

    def get_extra_state(self) -> dict[str, Any]:
        return {"step": self.step, "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()}}

    def set_extra_state(self, saved: dict[str, Any]) -> None:
        if saved["optimizers"].keys() != self.optimizers.keys():
            raise ValueError(
                f"the checkpoint holds optimizers {sorted(saved['optimizers'])}, this system has {sorted(self.optimizers)}: "
                "it was written by another system or with other options"
            )
        self.step = saved["step"]
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
