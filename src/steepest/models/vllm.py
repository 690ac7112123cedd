"""vLLM as the generator: token ids in, token ids and log-probabilities out; weights as the policy has them, with a checksum.

Its kernels and precision are not the policy's, so the collector corrects for the difference (`collectors.generate`). Written
against vLLM's documented interface: ``LLM.generate`` with ``prompt_token_ids``, ``SamplingParams``, ``logprobs_mode`` of 0.10.2 and
later, ``worker_extension_cls`` and ``LLM.collective_rpc``.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core.generator import Answers
from .decoding import Obs


def start(model: str, **options: Any) -> Vllm:
    """An engine for the policy whose configuration and tokenizer lie in `model`, a folder or hub id.

    options  of ``vllm.LLM``, such as ``gpu_memory_utilization`` or ``tensor_parallel_size``

    Raises ImportError where vLLM is not installed.
    """
    try:
        from vllm import LLM, SamplingParams  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError("vLLM is not installed: pip install 'steepest[vllm]', on a machine that it supports") from error
    receiver = f"{Receiver.__module__}.{Receiver.__qualname__}"  # a name, as the class is looked up in vLLM's own processes
    # log-probabilities of what is sampled from, over the temperature; nothing but the request says how to sample
    fixed = {"logprobs_mode": "processed_logprobs", "generation_config": "vllm", "worker_extension_cls": receiver}
    return Vllm(LLM(model, **{"enable_prefix_caching": True, **options, **fixed}), SamplingParams)


@dataclass(frozen=True)
class Vllm:
    """Answers by a vLLM engine.

    engine    a ``vllm.LLM`` whose workers have `Receiver`, as `start` makes it
    sampling  ``vllm.SamplingParams``

    Every answer is a request with a seed of its own, drawn from the generator given; copies of a prompt share its cache.
    """

    engine: Any
    sampling: Callable[..., Any]

    @property
    def exact(self) -> bool:
        return False

    def __call__(self, policy: Any, obs: Obs, generator: torch.Generator, greedy: bool = False) -> Answers:
        policy.check_room(obs, policy.max_new)
        self.sync(policy.weights())
        n, device = len(obs["ids"]), obs["ids"].device
        seeds = torch.randint(2**31, (n,), generator=generator, device=generator.device).tolist()
        wanted = {
            "n": 1, "temperature": 0.0 if greedy else policy.temperature, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
            "max_tokens": policy.max_new, "logprobs": 0, "detokenize": False, "ignore_eos": True, "stop_token_ids": [policy.eos],
        }  # fmt: skip
        real = obs["mask"] > 0
        asked = [{"prompt_token_ids": ids[told].tolist()} for ids, told in zip(obs["ids"], real, strict=True)]
        found = self.engine.generate(asked, [self.sampling(seed=seed, **wanted) for seed in seeds], use_tqdm=False)
        if len(found) != n:
            raise RuntimeError(f"vLLM answered {len(found)} of {n} requests: look at its log for requests that it dropped")
        rows = [read(number, one.outputs[0], policy) for number, one in enumerate(found)]
        longest = max(len(ids) for ids, _ in rows)
        tokens = torch.full((n, longest), policy.pad, dtype=torch.long)
        mask, logp = torch.zeros(n, longest), torch.zeros(n, longest)
        for row, (ids, said) in enumerate(rows):
            tokens[row, : len(ids)], mask[row, : len(ids)], logp[row, : len(ids)] = torch.tensor(ids), 1.0, torch.tensor(said)
        return Answers(tokens.to(device), mask.to(device), logp.to(device))

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Give every worker these weights.

        They go through a file in memory where the machine has one (/dev/shm). Raises RuntimeError where a worker has other
        ones afterwards: a wrong policy that nobody noticed would look like staleness.
        """
        held = {name: x.detach().cpu().contiguous() for name, x in weights}
        mine = checksum(held)
        shared = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() and os.access(shared, os.W_OK) else None) as folder:
            path = Path(folder, "weights.safetensors")
            save_file(held, path)
            theirs = self.engine.collective_rpc("receive_weights", args=(str(path),))
        wrong = [worker for worker, found in enumerate(theirs) if found != mine]
        if wrong or not theirs:
            raise RuntimeError(
                f"after a sync {len(wrong)} of {len(theirs)} vLLM workers have other weights than the policy (checksum {mine:08x}, "
                f"theirs {', '.join(f'{theirs[worker]:08x}' for worker in wrong)}): start the engine anew"
            )
        self.engine.reset_prefix_cache()  # what it remembers of prompts is of the old weights


class Receiver:
    """What vLLM mixes into its workers."""

    model_runner: Any

    def receive_weights(self, path: str) -> int:
        """Load the weights of a file; -> the checksum of what arrived. Raises RuntimeError where one is missing."""
        held, model = load_file(path), self.model_runner.model
        loaded = model.load_weights(iter(held.items()))
        missing = {name for name, _ in model.named_parameters()} - set(loaded)
        if missing:
            raise RuntimeError(
                f"the policy has no weights for {len(missing)} of the engine's, such as {min(missing)}: adapters must be merged, "
                "and the engine started with the policy's own configuration"
            )
        return checksum(held)


def checksum(weights: dict[str, Tensor]) -> int:
    """CRC-32 of names, types, shapes and values, in the order of names."""
    found = 0
    for name in sorted(weights):
        x = weights[name].detach().cpu().contiguous()
        found = zlib.crc32(f"{name} {x.dtype} {list(x.shape)}".encode(), found)
        found = zlib.crc32(x.flatten().view(torch.uint8).numpy().data, found)
    return found


def read(number: int, output: Any, policy: Any) -> tuple[list[int], list[float]]:
    """Token ids and their log-probabilities of one ``CompletionOutput``; raises RuntimeError where they are not what was asked."""
    ids = list(output.token_ids)
    if not 1 <= len(ids) <= policy.max_new or output.logprobs is None or len(output.logprobs) != len(ids):
        said = None if output.logprobs is None else len(output.logprobs)
        raise RuntimeError(
            f"vLLM's answer {number} has {len(ids)} tokens and {said} log-probabilities, asked were 1 to {policy.max_new} of each: "
            "its version may have changed what it returns"
        )
    if policy.eos in ids[:-1]:
        raise RuntimeError(f"vLLM's answer {number} goes on after its end token {policy.eos}: its stop tokens are not the policy's")
    return ids, [float(at[token].logprob) for token, at in zip(ids, output.logprobs, strict=True)]
