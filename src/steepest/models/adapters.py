"""Low-rank adapters (LoRA) by PEFT, in place: the model stays what it is, only the adapters are trained.

The frozen reference of a policy with adapters is the same model with the adapters off. A checkpoint holds the adapters and not
the frozen weights, whose fingerprint it compares.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core.stream import Stream
from .weights import Weights


def adapt(policy: Any, weights: Weights, rng: Stream, agrees: Callable[[Any], bool]) -> None:
    """Add adapters to a `LanguageModel` and freeze the rest; their product begins at 0.

    agrees  whether the fast path gives what the plain one does: asked while the adapters do something
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError(
            f"lora={weights.lora} needs the package peft, which cannot be imported ({error}): pip install 'steepest[peft]'"
        ) from error
    model = policy.model
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=weights.lora, lora_alpha=2 * weights.lora if weights.alpha is None else weights.alpha,
        target_modules=list(weights.targets) or "all-linear", lora_dropout=0.0, init_lora_weights=False,
        base_model_name_or_path=None if (weights.path or "").endswith(".json") else weights.path,
    )  # fmt: skip
    mark = fingerprint(model)
    with rng.fork():
        try:
            peft.inject_adapter_in_model(config, model)
        except ValueError as error:
            where = ", ".join(weights.targets) or "linear layers"
            raise ValueError(f"no adapters on {where}: {str(error).splitlines()[0]}") from error
    if policy.fast:
        policy.fast = agrees(policy)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(p)
    policy.adapters = Adapters(model, config, mark)
    policy.eval()


class Adapters(nn.Module):
    """What a checkpoint holds of the frozen weights: a fingerprint, compared when it is loaded. Those themselves stay out of every
    ``state_dict()`` from here on, also of copies."""

    fingerprint: Tensor

    def __init__(self, model: nn.Module, config: Any, mark: Tensor):
        super().__init__()
        self.config = config
        self.register_buffer("fingerprint", mark)
        self.register_load_state_dict_pre_hook(compare)
        for module in model.modules():
            if any(not p.requires_grad for p in module.parameters(recurse=False)):
                module.register_state_dict_post_hook(leave_out)
                module.register_load_state_dict_pre_hook(keep)


def leave_out(module: nn.Module, tree: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name, p in module.named_parameters(recurse=False):
        if not p.requires_grad:
            del tree[prefix + name]


def keep(module: nn.Module, tree: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name, p in module.named_parameters(recurse=False):
        if not p.requires_grad:
            tree.setdefault(prefix + name, p.detach())


def compare(module: Any, tree: dict[str, Any], prefix: str, *rest: Any) -> None:
    theirs = tree.get(f"{prefix}fingerprint")
    if theirs is not None and not torch.equal(theirs.cpu(), module.fingerprint.cpu()):
        raise ValueError(
            "the checkpoint's adapters were trained on other frozen weights than those that the model was read from: give the "
            "model as it was then, or merge the adapters and begin anew"
        )


def fingerprint(model: nn.Module) -> Tensor:
    """16 bytes that tell the weights of a model from any others."""
    found = hashlib.blake2b(digest_size=16)
    for name, p in model.named_parameters():
        found.update(name.encode())
        found.update(p.detach().cpu().contiguous().view(torch.uint8).numpy())  # type: ignore[arg-type]
    return torch.tensor(list(found.digest()), dtype=torch.uint8)


# ------------------------------------------------------------------------------------ the reference


class Base(nn.Module):
    """A policy with its adapters off, as its frozen reference. It has no weights of its own."""

    def __init__(self, policy: Any):
        super().__init__()
        self.held = (policy,)  # in a tuple, so that it is no part of this module

    @contextmanager
    def off(self) -> Iterator[Any]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        policy = self.held[0]
        layers = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield policy
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    @torch.no_grad()
    def logp(self, obs: Any, action: Tensor, mask: Tensor) -> Tensor:
        with self.off() as policy:
            return policy.logp(obs, action, mask)

    @torch.no_grad()
    def logp_entropy(self, obs: Any, action: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        with self.off() as policy:
            return policy.logp_entropy(obs, action, mask)

    @torch.no_grad()
    def logits(self, obs: Any, action: Tensor) -> Tensor:
        with self.off() as policy:
            return policy.logits(obs, action)

    def sample(self, obs: Any, generator: torch.Generator, greedy: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        with self.off() as policy:
            return policy.sample(obs, generator, greedy)

    def act(self, obs: Any, generator: torch.Generator, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return self.sample(obs, generator, greedy)[:2]


def frozen(policy: Any) -> nn.Module:
    """What a policy is now, for ever: a copy, or with adapters, which begin at 0, the model without them."""
    return Base(policy) if hasattr(policy, "adapters") else copy.deepcopy(policy).requires_grad_(False).eval()


# ------------------------------------------------------------------------------------ files


def export(policy: Any, folder: str | Path) -> None:
    """Write the adapters as PEFT does: ``PeftModel.from_pretrained(base, folder)`` and ``AutoModelForCausalLM`` read them."""
    from peft import get_peft_model_state_dict

    Path(folder).mkdir(parents=True, exist_ok=True)
    own = get_peft_model_state_dict(policy.model, adapter_name="default")
    save_file({f"base_model.model.{name}": x.contiguous() for name, x in own.items()}, Path(folder) / "adapter_model.safetensors")
    policy.adapters.config.save_pretrained(str(folder))


def merged(policy: Any) -> Any:
    """A copy of the policy's model in which the adapters are added to the weights: a plain model of Transformers again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = copy.deepcopy(policy.model)
    for name, layer in [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]:
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    return model.requires_grad_(True)
