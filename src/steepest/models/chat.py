"""A language model behind an OpenAI-compatible endpoint: the only way in which an agent without gradients reaches one."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor, nn

from ..core.problem import Unavailable
from ..core.stream import Stream


class BadEndpoint(Unavailable):
    """The endpoint did not answer, or refused the request."""


class MalformedReply(ValueError):
    """The endpoint answered with something that is not the reply that was asked for."""


class BudgetExceeded(RuntimeError):
    """The calls that were allowed have been made."""


class Meter(nn.Module):
    """What has been asked of a model so far, as a buffer, so that a budget outlives a checkpoint."""

    spent: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spent", torch.zeros(3, dtype=torch.long))

    def read(self) -> dict[str, int]:
        """`calls` (completions asked for), `prompt_tokens` and `completion_tokens`."""
        return dict(zip(("calls", "prompt_tokens", "completion_tokens"), self.spent.tolist(), strict=True))

    def write(self, calls: int, prompt_tokens: int, completion_tokens: int) -> None:
        self.spent += torch.tensor([calls, prompt_tokens, completion_tokens], device=self.spent.device)


@dataclass(frozen=True)
class Reply:
    """One text for each completion, in the order asked; with `logprobs`, its tokens and their log-probabilities.

    The first token of an echoed prompt has no log-probability: None.
    """

    texts: list[str]
    tokens: list[list[str]] | None = None
    logprobs: list[list[float | None]] | None = None


@dataclass(frozen=True)
class ChatClient:
    """Requests to one model. Holds options only: connections are kept per process, counts in the caller's `Meter`.

    base_url   the endpoint up to and including /v1
    model      the name under which the endpoint serves it
    api_key    None: the environment's OPENAI_API_KEY, and where there is none a placeholder (local servers need no key)
    timeout    seconds until an unanswered request counts as failed
    retries    how often a request is repeated after no answer or a server error (5xx), with growing pauses;
               a refused request (4xx) is never repeated
    max_calls  completions allowed over the life of the Meter; None: any number
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: int = 2
    max_calls: int | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url must look like http://localhost:8000/v1, not {self.base_url!r}")
        if self.timeout <= 0 or self.retries < 0 or (self.max_calls is not None and self.max_calls < 0):
            raise ValueError(
                f"timeout must be positive, retries and max_calls not negative: {self.timeout}, {self.retries}, {self.max_calls}"
            )

    def complete(
        self, prompts: Sequence[str], *, meter: Meter, max_tokens: int, temperature: float = 0.0, seed: int | None = None,
        stop: str | None = None, echo: bool = False, logprobs: bool = False,
    ) -> Reply:  # fmt: skip
        """One continuation of each of P prompts, in one request.

        stop      generation ends before this mark
        echo      the texts begin with their prompts (with `logprobs` and max_tokens=0: how likely is a given text?)
        Raises BadEndpoint, MalformedReply, BudgetExceeded.
        """
        body = {"prompt": list(prompts), "echo": echo or None, "logprobs": 0 if logprobs else None}
        choices = self.post("/completions", body, len(prompts), meter, max_tokens, temperature, seed, stop)
        texts = [self.pick(choice, "text") for choice in choices]
        if not logprobs:
            return Reply(texts)
        scored = [self.pick(choice, "logprobs") for choice in choices]
        return Reply(texts, [self.pick(s, "tokens") for s in scored], [self.pick(s, "token_logprobs") for s in scored])

    def chat(
        self, messages: Sequence[dict[str, str]], *, meter: Meter, max_tokens: int, n: int = 1, temperature: float = 0.0,
        seed: int | None = None, stop: str | None = None,
    ) -> Reply:  # fmt: skip
        """`n` answers to one conversation: messages of {"role": ..., "content": ...}."""
        body = {"messages": list(messages), "n": n}
        choices = self.post("/chat/completions", body, n, meter, max_tokens, temperature, seed, stop)
        return Reply([self.pick(self.pick(choice, "message"), "content") for choice in choices])

    def post(
        self, route: str, body: dict[str, Any], calls: int, meter: Meter,
        max_tokens: int, temperature: float, seed: int | None, stop: str | None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The `calls` choices of one request, sorted by index, paid for."""
        spent = meter.read()["calls"]
        if self.max_calls is not None and spent + calls > self.max_calls:
            raise BudgetExceeded(
                f"{spent} of {self.max_calls} calls are spent and this request needs {calls} more: raise max_calls, or take "
                "fewer steps. The State is intact and can be saved"
            )
        body |= {"model": self.model, "max_tokens": max_tokens, "temperature": temperature, "seed": seed, "stop": stop}
        reply = self.send(route, {name: value for name, value in body.items() if value is not None})
        choices = self.pick(reply, "choices")
        if not isinstance(choices, list) or len(choices) != calls:
            raise MalformedReply(
                f"{calls} completions were asked of {self.base_url}{route}; it answered: {json.dumps(reply)[:200]}"
            )
        usage = reply.get("usage") or {}
        meter.write(calls, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
        return sorted(choices, key=lambda choice: choice.get("index", 0))

    def send(self, route: str, body: dict[str, Any]) -> Any:
        """The answer to a request, repeated while the fault may pass."""
        import openai

        api = connect(self.base_url, self.api_key, self.timeout, os.getpid())
        for pause in (*(0.25 * 2**k for k in range(self.retries)), None):
            try:
                return api.post(route, body=body, cast_to=object)
            except json.JSONDecodeError as error:
                raise MalformedReply(
                    f"{self.base_url}{route} broke off its JSON ({error}); it begins: {error.doc[:200]!r}"
                ) from error
            except (openai.APIConnectionError, openai.InternalServerError) as error:  # timeouts are connection errors
                if pause is None:
                    raise BadEndpoint(self.diagnosis(route, error)) from error
                time.sleep(pause)
            except openai.APIStatusError as error:
                raise BadEndpoint(self.diagnosis(route, error)) from error
        raise AssertionError("unreachable")

    def diagnosis(self, route: str, error: Any) -> str:
        status = getattr(error, "status_code", None)
        said = "" if status is None else f" with status {status}: {error.response.text[:200]!r}"
        if status is None:
            cause = (
                f"no server listens there, or it is slower than {self.timeout:g} s. Start one, e.g. `vllm serve {self.model} "
                "--port 8000` for http://localhost:8000/v1, or leave the endpoint out to use the scripted model"
            )
        elif status in (401, 403):
            cause = "the key is missing or not allowed; set the environment's OPENAI_API_KEY or pass api_key"
        elif status == 404:
            cause = (
                f"the address should end in /v1, and {self.model!r} should be among the models that {self.base_url}/models lists"
            )
        elif status < 500:
            cause = "the server refuses this request as it stands; see its reason (too long a prompt? an option it lacks?)"
        else:
            cause = f"the server failed {self.retries + 1} times; its own log says why"
        return f"{self.base_url}{route} did not serve the request ({type(error).__name__}{said}). Likely {cause}"

    def pick(self, reply: Any, name: str) -> Any:
        if not isinstance(reply, dict) or reply.get(name) is None:
            raise MalformedReply(f"the reply of {self.base_url} has no {name!r}; it begins: {json.dumps(reply)[:200]}")
        return reply[name]


@functools.lru_cache(maxsize=16)
def connect(base_url: str, api_key: str | None, timeout: float, process: int) -> Any:
    """The connection pool to an endpoint. It decides nothing, so it may outlive a step; a forked process makes its own."""
    import openai

    host = urlsplit(base_url).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return openai.OpenAI(
        base_url=base_url,
        api_key=api_key or os.environ.get("OPENAI_API_KEY") or "none",
        timeout=timeout,
        max_retries=0,  # ours know which faults may pass
        http_client=openai.DefaultHttpxClient(trust_env=not local),  # a proxy cannot reach this machine's loopback
    )


@dataclass(frozen=True)
class Question:
    """A prompt that can be drawn anew, and how to read its answer (None: invalid)."""

    prompt: Callable[[np.random.Generator], str]
    read: Callable[[str], Any]


def ask(
    client: ChatClient, meter: Meter, questions: Sequence[Question], rng: Stream, *, attempts: int, **options: Any
) -> list[Any]:
    """The answer to each question, or None where `attempts` prompts in turn brought no valid one.

    All open questions travel in one request; `options` are those of `ChatClient.complete`.
    """
    answers: list[Any] = [None] * len(questions)
    for attempt in range(attempts):
        waiting = [i for i, answer in enumerate(answers) if answer is None]
        if not waiting:
            break
        draw = (rng / attempt / "prompt").numpy()
        prompts = [questions[i].prompt(draw) for i in waiting]
        seed = (rng / attempt / "request").seed & 0x7FFFFFFF  # servers take 31 bits
        reply = client.complete(prompts, meter=meter, seed=seed, **options)
        for i, text in zip(waiting, reply.texts, strict=True):
            answers[i] = questions[i].read(text.strip())
    return answers
