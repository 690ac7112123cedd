"""Causal language models of Transformers as policies and as critics."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ..core.problem import Language
from ..core.stream import Stream
from . import adapters, decoder
from .decoding import Obs, parameters, positions
from .generation import write
from .precision import Head, lower, mixed, recompute
from .warmup import cached
from .weights import Weights


class LanguageModel(nn.Module):
    """A causal language model as a policy: one decision is one token.

    obs is a dict of `ids` [N, L] long, left-padded, and `mask` [N, L]; answers are tokens [N, T] with a mask
    that is 1 up to and including the end token. Log-probabilities are those of the distribution that is
    sampled from: logits divided by `temperature`. Dropout is always off.

    model        any Transformers causal language model; it stays one: see `export`
    eos, pad     ids of the end token and of the padding
    max_new      the longest answer, in tokens
    temperature  of sampling and of log-probabilities alike
    tokenizer    saved along by `export`

    Models of the Llama, Mistral, Qwen2 and Qwen3 families take a faster path (`models.decoder`), which is
    compared with the plain one here, once.
    """

    markov = False
    lowered = False  # whether it computes in bfloat16, see `precision`

    def __init__(
        self, model: nn.Module, *, eos: int, pad: int, max_new: int, temperature: float = 1.0, tokenizer: Any | None = None
    ):
        super().__init__()
        if not temperature > 0:
            raise ValueError(
                f"temperature must be positive, not {temperature}; for the likeliest answer use sample(..., greedy=True)"
            )
        if max_new < 1:
            raise ValueError(f"max_new must be at least 1, not {max_new}: an answer has at least one token")
        self.model: Any = model
        self.eos, self.pad, self.max_new, self.temperature, self.tokenizer = eos, pad, max_new, temperature, tokenizer
        self.eval()
        self.split = splits(model)
        self.fast = decoder.fits(model) and agrees(self)

    def train(self, mode: bool = True) -> LanguageModel:
        """Gradients need no training mode; dropout would make the sampler and the trained policy differ."""
        return super().train(False)

    @mixed
    def sample(
        self, obs: Obs, generator: torch.Generator, greedy: bool = False, warm: Callable[[Tensor], Tensor] | None = None,
        limit: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Answers: tokens [N, T], mask [N, T] and their log-probabilities [N, T]; T is the longest that was made. See `write`."""
        return write(self, obs, generator, greedy, warm=warm, limit=limit)

    def act(self, obs: Obs, generator: torch.Generator, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Answers: tokens [N, T] and mask [N, T]."""
        return self.sample(obs, generator, greedy)[:2]

    def logp(self, obs: Obs, action: Tensor, mask: Tensor) -> Tensor:
        """Log-probability of each token [N, T]; exactly 0 where the mask is."""
        return self.evaluate(obs, action, mask, entropy=False)[0]

    def logp_entropy(self, obs: Obs, action: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each token and the entropy of its distribution, both [N, T] and 0 where the mask is."""
        return self.evaluate(obs, action, mask, entropy=True)

    @mixed
    def evaluate(self, obs: Obs, action: Tensor, mask: Tensor, *, entropy: bool) -> tuple[Tensor, Any]:
        self.check_room(obs, action.shape[1])
        made = mask > 0
        if self.fast:
            x = decoder.hidden(self.model.model, obs, action, mask)
            logp, spread = decoder.token_logp(self.model.lm_head, x, action[made], self.temperature, entropy=entropy)
            return scatter(logp, made), scatter(spread, made) if spread is not None else None
        if self.split:
            x, head = states(self.model.base_model, obs, action)[made], self.model.get_output_embeddings()
            logp, spread = decoder.token_logp(head, x, action[made], self.temperature, entropy=entropy)
        else:  # its logits are all there is
            logp, spread = decoder.plain_logp(self.logits(obs, action)[made], action[made], 1.0)
        return scatter(logp, made), scatter(spread, made) if entropy and spread is not None else None

    @mixed
    def logits(self, obs: Obs, action: Tensor) -> Tensor:
        """Logits of every decision, over the temperature [N, T, V], float32: for losses that need the whole distribution."""
        inputs = whole(obs, action, self.model)
        keep = action.shape[1] + 1
        if "logits_to_keep" in parameters(self.model):
            inputs["logits_to_keep"] = keep
        logits = self.model(**inputs, use_cache=False).logits[:, -keep:-1]
        return logits.float() / self.temperature

    def log_partition(self, obs: Obs) -> Tensor:
        """Logarithm of the sum of the exponentiated logits of an answer's first token [N]: their soft maximum."""
        first = torch.full_like(obs["ids"][:, :1], self.pad)
        if self.fast:
            x = decoder.hidden(self.model.model, obs, first, torch.ones_like(first, dtype=torch.float32))
            return (self.model.lm_head(x).float() / self.temperature).logsumexp(-1)
        return self.logits(obs, first).squeeze(1).logsumexp(-1)

    def states(self, obs: Obs, action: Tensor, mask: Tensor) -> Tensor:
        """What the head reads at each decision that was made, in the order of ``mask.nonzero()``: [D, hidden]."""
        if self.fast:
            return decoder.hidden(self.model.model, obs, action, mask)
        return states(self.model.base_model, obs, action)[mask > 0]

    def check_room(self, obs: Obs, new: int) -> None:
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room is not None and obs["ids"].shape[1] + new > room:
            longest = int(obs["mask"].sum(1).max())
            if longest + new > room:
                raise ValueError(
                    f"a prompt of {longest} tokens and {new} of answer exceed the model's context of {room}: "
                    "shorten the prompts, lower max_new or take a model with a longer context"
                )

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The model's parameters by their names in Transformers: what a generator apart from the policy is given."""
        for name, p in self.model.named_parameters():
            yield name, p.detach()

    def export(self, folder: str | Path) -> None:
        """Write the model so that ``AutoModelForCausalLM.from_pretrained(folder)`` reads it (safetensors), and the tokenizer; of a
        model with adapters these alone (`adapters.merged` gives it whole)."""
        with quiet():
            if hasattr(self, "adapters"):
                adapters.export(self, folder)
            else:
                self.model.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Transformers' own progress bars, which would tear the caller's."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class TokenValue(nn.Module):
    """A critic of token sequences: the value of the text before each token, from a trunk of its own.

    The trunk starts as a copy of the policy's, the head as zero, so the first estimate is 0 everywhere.
    """

    def __init__(self, policy: LanguageModel, rng: Stream):
        super().__init__()
        self.trunk: Any = copy.deepcopy(policy.model.base_model)
        dtype = next(self.trunk.parameters()).dtype
        with rng.fork():  # its weights are drawn, though zeroed at once
            self.head = Head(policy.model.config.hidden_size, 1, dtype=dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.fast, self.lowered = policy.fast, policy.lowered
        self.eval()

    def train(self, mode: bool = True) -> TokenValue:
        return super().train(False)

    @mixed
    def value(self, obs: Obs, action: Tensor, mask: Tensor) -> Tensor:
        """What is still to come when each token is chosen [N, T]; 0 where the mask is."""
        made = mask > 0
        if self.fast:
            return scatter(self.head(decoder.hidden(self.trunk, obs, action, mask)).squeeze(1).float(), made)
        return self.head(states(self.trunk, obs, action)).squeeze(2).float().where(made, 0.0)

    @mixed
    def after(self, obs: Obs, action: Tensor, mask: Tensor) -> Tensor:
        """What is still to come once each token is read [N, T]; 0 where the mask is."""
        made = mask > 0
        if self.fast:
            said, read = pad(action, (0, 1)), pad(mask, (1, 0))  # what predicts the next token has read this one
            return scatter(self.head(decoder.hidden(self.trunk, obs, said, read)).squeeze(1).float(), made)
        found = self.trunk(**whole(obs, action, self.trunk), use_cache=False).last_hidden_state[:, -action.shape[1] :]
        return self.head(found).squeeze(2).float().where(made, 0.0)


class SoftValue(nn.Module):
    """The policy as its own critic: with logits for soft action values, their soft maximum is the value of where they are said.

    It is that of the first token, less what the frozen reference says of the same prompt, so that it starts at 0; it learns with
    the policy, whose parameters it shares.
    """

    def __init__(self, policy: LanguageModel, reference: LanguageModel):
        super().__init__()
        self.policy, self.reference = policy, reference

    def value(self, obs: Obs, action: Tensor, mask: Tensor) -> Tensor:
        """The same at all decisions of an answer [N, T]."""
        with torch.no_grad():
            start = self.reference.log_partition(obs)
        return (self.policy.log_partition(obs) - start)[:, None].expand_as(mask)


def language_policy(
    problem: Language, rng: Stream, *, model: str | Weights | None = None, temperature: float = 1.0
) -> LanguageModel:
    """The policy for a language problem.

    model        None: the small model the problem was sized for, warmed up as the problem says; a folder with
                 weights or an id of the Hugging Face hub: those weights (safetensors; no code is run); a path to
                 a .json: a configuration, initialised at random; or `hf` of such a path, and how it is trained
    temperature  of sampling and of log-probabilities alike
    """
    weights = model if isinstance(model, Weights) else Weights(model)
    model, tokenizer = weights.path, problem.tokenizer
    name = type(problem).__name__
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{name}.tokenizer has no end token, so no answer could ever end: set tokenizer.eos_token")
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if model is None or model.endswith(".json"):
        config = problem.config() if model is None else AutoConfig.for_model(**read_config(Path(model)))
        with rng.fork():
            network = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    else:
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
        own = own_tokenizer(model)
        if own is not None and own.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"{model} has a tokenizer of its own, of {len(own)} tokens, and {name}.tokenizer is another, of {len(tokenizer)}: "
                f"the model would read noise. Where the problem has the option tokenizer_name, give it {model!r}; a problem of "
                "fixed symbols takes only models that were trained on it, or a configuration"
            )
    vocabulary = network.get_input_embeddings().num_embeddings
    if vocabulary < len(tokenizer):
        raise ValueError(
            f"the model knows {vocabulary} tokens, {name}.tokenizer makes {len(tokenizer)}: they do not belong together; "
            f"use the model's own tokenizer or a configuration with vocab_size >= {len(tokenizer)}"
        )
    room = getattr(network.config, "max_position_embeddings", None)
    if room is not None:
        problem.check_room(room)
    policy = LanguageModel(
        network, eos=tokenizer.eos_token_id, pad=pad, max_new=problem.max_new, temperature=temperature, tokenizer=tokenizer
    )
    if model is None and problem.warmup is not None:
        cached(policy, problem.warmup, f"{problem.lesson} {config.to_json_string()} {temperature}", rng / "warmup")
    if weights.lora:
        adapters.adapt(policy, weights, rng / "adapters", agrees)
    if weights.bf16:
        lower(policy)
    if weights.checkpointing:
        recompute(policy)
    return policy


def own_tokenizer(model: str) -> Any | None:
    """The tokenizer that lies beside a model's weights, or None."""
    try:
        words = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError):
        return None
    return words if len(words) > len(words.all_special_ids) else None  # Transformers makes one of no words where there is no file


def read_config(path: Path) -> dict[str, Any]:
    read = json.loads(path.read_text())
    if "model_type" not in read:
        raise ValueError(f"{path} names no model_type: it is not the config.json of a Transformers model")
    return read


@torch.no_grad()
def splits(model: Any) -> bool:
    """Whether the model's logits are its trunk's last states times a matrix, on a made-up text: then they need not all exist at
    once. Decided when the policy is built. Not so where logits are scaled or capped behind the matrix."""
    head, trunk = model.get_output_embeddings(), model.base_model
    if type(head) is not nn.Linear or trunk is model:
        return False
    length = min(8, getattr(model.config, "max_position_embeddings", None) or 8)
    ids = torch.arange(length, device=head.weight.device)[None] % head.weight.shape[0]
    obs, action = {"ids": ids[:, :1], "mask": torch.ones_like(ids[:, :1])}, ids[:, 1:]
    out = trunk(**whole(obs, action, trunk), use_cache=False)
    found = getattr(out, "last_hidden_state", None)
    if found is None or found.shape[-1] != head.weight.shape[1]:
        return False
    logits = model(**whole(obs, action, model), use_cache=False).logits
    return bool(torch.allclose(head(found), logits, rtol=1e-4, atol=1e-4 if model.dtype == torch.float32 else 0.1))


def states(trunk: Any, obs: Obs, action: Tensor) -> Tensor:
    """The state from which each token is predicted [N, T, hidden], by the trunk's own forward pass."""
    found = trunk(**whole(obs, action, trunk), use_cache=False).last_hidden_state
    return found[:, -action.shape[1] - 1 : -1]


def agrees(policy: LanguageModel) -> bool:
    """Whether the fast path, with the kernels and without, gives the plain one's log-probabilities on made-up texts; warns if not.

    Decided when the policy is built, from its first weights, so that a resumed run takes the same path.
    """
    vocabulary = policy.model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    made_up = torch.randint(vocabulary, (5, 8), generator=generator)
    ids = made_up[[0, 0, 1, 2, 2], :4]
    asked = torch.ones(5, 4)
    asked[2, :2] = 0  # a shorter prompt
    said = torch.ones(5, 4)
    said[1, 2:] = 0
    device = next(policy.parameters()).device
    obs = {"ids": ids.to(device), "mask": asked.to(device)}
    action, mask = made_up[:, 4:].to(device), said.to(device)
    with torch.no_grad():
        policy.fast = False
        logp = policy.logp(obs, action, mask)[mask > 0]
        gap = 0.0
        for kernels in (False, True):
            x = decoder.hidden(policy.model.model, obs, action, mask, kernels=kernels)
            fast, _ = decoder.token_logp(policy.model.lm_head, x, action[mask > 0], policy.temperature)
            gap = max(gap, float((fast - logp).abs().max()))
    bound = 1e-4 if policy.model.dtype in (torch.float32, torch.float64) else 0.1
    if not gap < bound:
        warnings.warn(
            f"the fast path of {type(policy.model).__name__} differs from the plain one by {gap:.1e} in log-probability, "
            "so the plain one is used; this version of Transformers may have changed the model: please report it",
            stacklevel=3,
        )
    return gap < bound


def scatter(x: Tensor, made: Tensor) -> Tensor:
    """One number for each decision made, back in its place [N, T]; 0 elsewhere."""
    return x.new_zeros(made.shape).masked_scatter(made, x)


def whole(obs: Obs, action: Tensor, model: nn.Module) -> dict[str, Any]:
    """Inputs of a plain forward pass over prompts and answers. What pads an answer on the right is seen by nothing before it."""
    mask = torch.cat([obs["mask"].long(), torch.ones_like(action)], 1)
    inputs: dict[str, Any] = {"input_ids": torch.cat([obs["ids"], action], 1), "attention_mask": mask}
    if "position_ids" in parameters(model):
        inputs["position_ids"] = positions(mask)
    return inputs
