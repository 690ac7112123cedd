"""Pretraining of a small language model by imitation of a noisy teacher, once for each problem and seed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ..core.problem import Warmup
from ..core.stream import Stream

VERSION = 1  # raise it when warm_up computes something else: stored weights are not reused then


def warm_up(policy: nn.Module, plan: Warmup, rng: Stream) -> None:
    """Train `policy` (it has ``logp(obs, tokens, mask)``) as planned: mean over tokens, gradient norm at most 1."""
    params = list(policy.parameters())
    device = params[0].device
    optimizer = torch.optim.AdamW(params, plan.lr, betas=plan.betas, fused=True)
    policy_logp: Any = policy.logp
    for step in range(plan.steps):
        prompts, tokens, mask = plan.teacher(plan.batch, (rng / step).torch())
        obs = {"ids": prompts.ids.to(device), "mask": prompts.mask.to(device)}
        tokens, mask = tokens.to(device), mask.to(device)
        loss = -(policy_logp(obs, tokens, mask) * mask).sum() / mask.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def cached(policy: nn.Module, plan: Warmup, key: str, rng: Stream) -> None:
    """As `warm_up`, or what it once gave: weights are kept in $STEEPEST_CACHE or ~/.cache/steepest/warmups.

    key  what the weights depend on besides the plan's numbers and the address of `rng`: problem and configuration.
         A key that names an object by its place in memory is of no use to another process: nothing is stored then.

    Two processes may do the same work at once; the later one replaces equal weights. A file that cannot be
    read, or does not fit, is made anew. A folder that cannot be written is no error.
    """
    if " at 0x" in key:
        return warm_up(policy, plan, rng)
    numbers = (plan.steps, plan.batch, plan.lr, plan.warm, plan.betas, plan.floor)
    prompts, *answers = plan.teacher(plan.batch, (rng / 0).torch())  # weights of a teacher who said something else are of no use
    taught = [x.cpu().numpy().tobytes() for x in (prompts.ids, prompts.mask, *answers)]
    address = hashlib.blake2b(repr((VERSION, key, numbers, rng.path, taught)).encode(), digest_size=16).hexdigest()
    root = os.environ.get("STEEPEST_CACHE")
    path = (Path(root) if root else Path.home() / ".cache" / "steepest" / "warmups") / f"{address}.safetensors"
    if not read(policy, path):
        warm_up(policy, plan, rng)
        write(policy, path)
    return None


@torch.no_grad()
def read(policy: nn.Module, path: Path) -> bool:
    """Whether the file's weights are now the policy's."""
    try:
        stored = load_file(path)
    except (OSError, SafetensorError):
        return False
    params = dict(policy.named_parameters())
    if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in params.items()}:
        return False
    for name, param in params.items():
        param.copy_(stored[name])
    return True


def write(policy: nn.Module, path: Path) -> None:
    data = save({name: p.detach().cpu().contiguous() for name, p in policy.named_parameters()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except OSError:
        return
