"""A stand-in for a language model: an OpenAI-compatible server on this machine whose answers follow a script.

With it an agent that talks to a model runs offline, reproducibly, and at any level of competence.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import threading
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from ..core.stream import Stream

MODEL = "scripted"
LONGEST = 64 * 2**20  # bytes of a request


class Brain(ABC):
    """What answers. It sees the request and nothing else, so that an agent cannot cheat through it."""

    @abstractmethod
    def reply(self, messages: list[dict[str, str]], options: dict[str, Any], rng: np.random.Generator) -> str:
        """A text, which the server cuts at the stop mark. A bare prompt comes as one user message."""

    def logprobs(self, tokens: list[str]) -> list[float]:
        """log P(token | the tokens before it) of all but the first token."""
        raise Refused(400, f"{type(self).__name__} gives no log-probabilities")


@dataclass(frozen=True)
class InductionBrain(Brain):
    """Continues a text as its most similar earlier place went on; it knows nothing else.

    A place is a line break; two places are as similar as the lines before them, first the last one, then the
    one before it. Among equally similar places a continuation is drawn in proportion to count ** (1 / temperature).

    noise  probability of answering with a random line of the prompt instead
    """

    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise is a probability, not {self.noise}")

    def reply(self, messages: list[dict[str, str]], options: dict[str, Any], rng: np.random.Generator) -> str:
        *lines, begun = "\n".join(message["content"] for message in messages).split("\n")
        lines = ["", "", *lines]
        said = [line for line in lines if line]
        if not said:
            return ""
        guess = said[rng.integers(len(said))]
        places = Counter(zip(lines, lines[1:], lines[2:], strict=False))
        places = Counter({p: n for p, n in places.items() if p[2] and p[2].startswith(begun)})
        if rng.random() < self.noise or not places:
            return guess
        likeness = {p: (alike(p[1], lines[-1]), alike(p[0], lines[-2])) for p in places}
        closest = max(likeness.values())
        if closest[0] == 0:
            return guess
        follows: Counter[str] = Counter()
        for place, count in places.items():
            if likeness[place] == closest:
                follows[place[2]] += count
        texts, counts = list(follows), np.array(list(follows.values()), dtype=float)
        temperature = options.get("temperature", 1.0)
        share = (counts / counts.max()) ** (1 / temperature) if temperature > 0 else (counts == counts.max()).astype(float)
        return texts[rng.choice(len(texts), p=share / share.sum())][len(begun) :]

    def logprobs(self, tokens: list[str]) -> list[float]:
        """Each token as often as it followed the same pair of tokens before; `noise` and unseen pairs are uniform."""
        follows: dict[tuple[str, str], Counter[str]] = {}
        pairs = list(zip(["", *tokens], tokens, strict=False))
        uniform, found = 1 / max(1, len(set(tokens))), []
        for pair, token in zip(pairs, tokens[1:], strict=False):
            seen = follows.setdefault(pair, Counter())
            trust = (1 - self.noise) * seen.total() / (seen.total() + 1)
            found.append(math.log(trust * seen[token] / max(1, seen.total()) + (1 - trust) * uniform))
            seen[token] += 1
        return found


@functools.lru_cache(maxsize=1 << 16)
def alike(one: str, two: str) -> float:
    """The share of words and signs that two lines have at the same place."""
    if one == two:
        return 1.0
    a, b = words(one), words(two)
    return sum(x == y for x, y in zip(a, b, strict=False)) / max(len(a), len(b), 1)


@functools.lru_cache(maxsize=1 << 14)
def words(line: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+|[^\w\s]", line))


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+", text)


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


class ScriptedServer:
    """Serves a brain on 127.0.0.1 under /v1: chat/completions, completions (echo, logprobs, a list of prompts), models.

    An answer is a pure function of (seed, request), so the server holds nothing that a checkpoint would miss.

    brain  what answers
    seed   of the brain's own choices
    url    the address to give to a client
    """

    def __init__(self, brain: Brain, *, seed: int = 0):
        self.brain, self.seed = brain, seed
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, self))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, name="scripted model", daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("model") != MODEL:
            raise Refused(404, f"this server has one model, {MODEL!r}, not {body.get('model')!r}")
        chat = {"/v1/chat/completions": True, "/v1/completions": False}.get(route)
        if chat is None:
            raise Refused(404, f"there is no {route} here")
        rng = Stream(self.seed, json.dumps(body, sort_keys=True))
        try:
            if chat:
                talks = [[{"role": str(m["role"]), "content": str(m["content"])} for m in body["messages"]]] * int(body.get("n", 1))
            else:
                prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
                talks = [[{"role": "user", "content": str(prompt)}] for prompt in prompts]
        except (KeyError, TypeError) as error:
            raise Refused(400, f"the request lacks {error}") from error
        choices, made, read = [], 0, 0
        for index, talk in enumerate(talks):
            text, ended = self.cut(self.brain.reply(talk, body, (rng / index).numpy()), body)
            made += len(text.split())
            read += sum(len(message["content"].split()) for message in talk)
            choices.append({"index": index, "finish_reason": "stop" if ended else "length", **self.wrap(chat, talk, text, body)})
        usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
        return {"object": "chat.completion" if chat else "text_completion", "model": MODEL, "choices": choices, "usage": usage}

    def cut(self, text: str, body: dict[str, Any]) -> tuple[str, bool]:
        """The text up to the first stop mark and at most max_tokens long, and whether it came to its own end."""
        marks = body.get("stop") or []
        for mark in [marks] if isinstance(marks, str) else marks:
            text = text.split(mark, 1)[0]
        tokens = tokens_of(text)
        limit = body.get("max_tokens", 16)
        return "".join(tokens[:limit]), len(tokens) <= limit

    def wrap(self, chat: bool, talk: list[dict[str, str]], text: str, body: dict[str, Any]) -> dict[str, Any]:
        if chat:
            return {"message": {"role": "assistant", "content": text}}
        prompt = talk[0]["content"]
        shown = prompt + text if body.get("echo") else text
        if body.get("logprobs") is None:
            return {"text": shown, "logprobs": None}
        before, tokens = tokens_of(prompt), tokens_of(text)
        likely = [None, *self.brain.logprobs([*before, *tokens])] if before or tokens else []
        first = 0 if body.get("echo") else len(before)
        scored = {"tokens": [*before, *tokens][first:], "token_logprobs": likely[first:]}
        return {"text": shown, "logprobs": scored}


class Handler(BaseHTTPRequestHandler):
    """HTTP around `ScriptedServer.answer`; connections stay open, answers leave at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement
    wbufsize = -1  # head and body leave in one piece

    def __init__(self, server: ScriptedServer, *args: Any):
        self.scripted = server
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self.send(404, {"error": {"message": f"there is no {self.path} here"}})

    def do_POST(self) -> None:
        try:
            size = self.headers.get("Content-Length", "")
            if not size.isdigit() or int(size) > LONGEST:
                self.close_connection = True  # the body stays unread
                raise Refused(413 if size.isdigit() else 411, f"a request says its length, at most {LONGEST} bytes")
            try:
                body = json.loads(self.rfile.read(int(size)))
            except ValueError as error:
                raise Refused(400, f"the request is not JSON: {error}") from error
            if not isinstance(body, dict):
                raise Refused(400, "the request is not a JSON object")
            self.send(200, self.scripted.answer(self.path, body))
        except Refused as why:
            self.send(why.status, {"error": {"message": str(why)}})
        except BrokenPipeError:  # the client gave up waiting
            self.close_connection = True
        except Exception as error:
            self.send(500, {"error": {"message": f"{type(error).__name__}: {error}"}})

    def send(self, status: int, reply: dict[str, Any]) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def scripted(brain: Brain, *, seed: int = 0) -> str:
    """The address of a server for `brain`: one per brain, seed and process, started when first asked for.

    It may live as long as the process because it is a pure function: which requests came before changes nothing.
    """
    return _served(brain, seed, os.getpid()).url


@functools.cache
def _served(brain: Brain, seed: int, process: int) -> ScriptedServer:
    return ScriptedServer(brain, seed=seed)
