import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from steepest.core import Stream
from steepest.models.chat import BadEndpoint, BudgetExceeded, ChatClient, MalformedReply, Meter, Question, ask
from steepest.problems.scripted import MODEL, Brain, InductionBrain, ScriptedServer, scripted, tokens_of


@dataclass(frozen=True)
class Echo(Brain):
    """Says the last line back; remembers every request (the test's spy, not the library's)."""

    heard: list = field(default_factory=list, compare=False)

    def reply(self, messages, options, rng):
        self.heard.append((messages, options))
        return messages[-1]["content"].split("\n")[-1] + f" {rng.integers(10**6)}\nmore"


@contextmanager
def canned(*answers):
    """A server that gives these (status, type, bytes) in turn, the last one for ever, and counts requests."""
    count = []

    class Canned(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status, kind, data = answers[min(len(count), len(answers) - 1)]
            count.append(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Canned)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", count
    server.shutdown()
    server.server_close()


GOOD = (200, "application/json", json.dumps({"choices": [{"index": 0, "text": "yes"}]}).encode())


def complete(url, prompt="a b", **options):
    return ChatClient(url, MODEL, **options).complete([prompt], meter=Meter(), max_tokens=8)


def test_an_answer_is_a_function_of_the_request():
    with ScriptedServer(Echo()) as one, ScriptedServer(Echo()) as two, ScriptedServer(Echo(), seed=1) as other:

        def texts(server, seed):
            client = ChatClient(server.url, MODEL)
            return client.complete(["x", "y"], meter=Meter(), max_tokens=8, seed=seed, stop="\n").texts

        first = texts(one, 3)
        texts(one, 4)
        assert first == texts(one, 3) == texts(two, 3)
        assert first != texts(one, 4)
        assert first != texts(other, 3)
        assert [text[0] for text in first] == ["x", "y"]
        assert all("more" not in text for text in first)


def test_chat_gives_n_answers_and_the_brain_sees_only_the_request():
    brain = Echo()
    with ScriptedServer(brain) as server:
        talk = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
        reply = ChatClient(server.url, MODEL).chat(talk, meter=Meter(), n=3, max_tokens=2, seed=1)
    assert len(set(reply.texts)) == 3
    assert all(text.startswith("hello ") for text in reply.texts)
    assert brain.heard[0][0] == talk


def test_calls_and_tokens_are_counted_and_survive_a_checkpoint():
    with ScriptedServer(InductionBrain()) as server:
        meter = Meter()
        client = ChatClient(server.url, MODEL, max_calls=3)
        client.complete(["one two\none", "three"], meter=meter, max_tokens=4)
        copy = Meter()
        copy.load_state_dict(meter.state_dict())
        assert copy.read() == meter.read()
        assert (copy.read()["calls"], copy.read()["prompt_tokens"]) == (2, 4)
        with pytest.raises(BudgetExceeded, match=r"2 of 3 calls are spent and this request needs 2 more"):
            client.complete(["a", "b"], meter=copy, max_tokens=4)
        assert copy.read()["calls"] == 2
        client.complete(["a"], meter=copy, max_tokens=4)


def test_echo_with_logprobs_scores_a_given_text():
    with ScriptedServer(InductionBrain()) as server:
        text = "a b c a b c a b c a b c"
        reply = ChatClient(server.url, MODEL).complete([text], meter=Meter(), max_tokens=0, echo=True, logprobs=True)
    assert reply.texts == [text]
    assert "".join(reply.tokens[0]) == text
    (scores,) = reply.logprobs
    assert scores[0] is None
    assert len(scores) == len(tokens_of(text))
    assert all(score < 0 for score in scores[1:])
    assert scores[-1] > scores[1]


def test_logprobs_are_a_distribution():
    brain, history = InductionBrain(0.1), tokens_of("a b c a b a b")
    alphabet = sorted(set(history))
    total = sum(np.exp(brain.logprobs([*history, token])[-1]) for token in alphabet)
    assert total == pytest.approx(1)


def test_a_server_error_is_retried_and_a_refusal_is_not():
    bad = (500, "text/plain", b"oops")
    with canned(bad, bad, GOOD) as (url, count):
        assert complete(url).texts == ["yes"]
        assert len(count) == 3
    with canned(bad) as (url, count):
        with pytest.raises(BadEndpoint, match="failed 2 times"):
            complete(url, retries=1)
        assert len(count) == 2
    for status in (400, 401, 404, 409, 429):
        with canned((status, "application/json", b'{"error": "no"}'), GOOD) as (url, count):
            with pytest.raises(BadEndpoint, match=str(status)):
                complete(url)
            assert len(count) == 1


def test_nobody_listens():
    with pytest.raises(BadEndpoint, match=r"http://127.0.0.1:1/v1/completions.*no server listens.*vllm serve scripted"):
        complete("http://127.0.0.1:1/v1", retries=0)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"{broken", "{broken"),
        (b"", "broke off"),
        (b"[1]", "[1]"),
        (b"null", "null"),
        (b'{"choices": []}', '{"choices": []}'),
        (b'{"choices": 3}', '{"choices": 3}'),
        (b'{"choices": [{"index": 0}]}', '{"index": 0}'),
    ],
)
def test_a_malformed_reply_is_shown(data, shown):
    with canned((200, "application/json", data)) as (url, _), pytest.raises(MalformedReply) as failed:
        complete(url)
    assert shown in str(failed.value)


def test_only_the_beginning_of_a_long_malformed_reply_is_shown():
    with canned((200, "text/html", b"<html>" + b"x" * 10_000)) as (url, _), pytest.raises(MalformedReply, match="<html>") as failed:
        complete(url)
    assert len(str(failed.value)) < 500


def test_the_key_stays_out_of_sight():
    assert "secret" not in repr(ChatClient("http://localhost/v1", "m", api_key="secret"))


@pytest.mark.parametrize("options", [{"base_url": "localhost:80"}, {"timeout": 0}, {"retries": -1}, {"max_calls": -1}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        ChatClient(**{"base_url": "http://localhost/v1", "model": "m", **options})


def test_the_server_refuses_what_it_does_not_know():
    with ScriptedServer(Echo()) as server:
        with pytest.raises(BadEndpoint, match="one model"):
            ChatClient(server.url, "gpt").complete(["a"], meter=Meter(), max_tokens=3)
        with pytest.raises(BadEndpoint, match="no log-probabilities"):
            ChatClient(server.url, MODEL).complete(["a"], meter=Meter(), max_tokens=3, logprobs=True)
        with pytest.raises(BadEndpoint, match="end in /v1"):
            ChatClient(server.url + "/more", MODEL).complete(["a"], meter=Meter(), max_tokens=3)


def test_one_server_for_one_brain():
    assert scripted(InductionBrain(0.25)) == scripted(InductionBrain(0.25)) != scripted(InductionBrain(0.5))


def test_ask_draws_new_prompts_only_for_invalid_answers():
    def question(name, valid_from):
        drawn = []

        def prompt(draw):
            drawn.append(int(draw.integers(1000)))
            return f"{name} {len(drawn)}"

        def read(text):
            asked, attempt, _ = text.split()
            assert asked == name
            return asked if int(attempt) >= valid_from else None

        return drawn, Question(prompt, read)

    (a, easy), (b, hard), (c, never) = question("a", 1), question("b", 3), question("c", 9)
    with ScriptedServer(Echo()) as server:
        meter = Meter()
        answers = ask(
            ChatClient(server.url, MODEL),
            meter,
            [easy, hard, never],
            Stream(0),
            attempts=3,
            stop="\n",
            max_tokens=9,
            temperature=0.0,
        )
    assert answers == ["a", "b", None]
    assert (len(a), len(b), len(c)) == (1, 3, 3)
    assert meter.read()["calls"] == 7


def continues(text, noise=0.0, seed=0, temperature=0.0):
    return InductionBrain(noise).reply(
        [{"role": "user", "content": text}], {"temperature": temperature}, np.random.default_rng(seed)
    )


def test_induction_finds_the_same_place_then_the_most_similar_one():
    past = "x 1\ngo\nred\n\nx 2\ngo\nblue\n\n"
    assert continues(past + "x 2\ngo\n") == "blue"
    assert continues(past + "x 1\ngo\n") == "red"
    assert continues(past + "x 1\ngo\nre") == "d"
    assert continues("x 1 a\ngo\nred\n\ny 2 b\ngo\nblue\n\nx 3 a\ngo\n") == "red"
    assert continues("") == ""


def test_induction_follows_the_counts_and_the_temperature():
    past = "q\nyes\n\n" * 3 + "q\nno\n\n" + "q\n"
    assert continues(past) == "yes"
    drawn = [continues(past, seed=seed, temperature=1.0) for seed in range(400)]
    assert np.mean([text == "yes" for text in drawn]) == pytest.approx(0.75, abs=0.08)


def test_noise_is_the_share_of_guesses():
    past = "q\nyes\n\n" * 5 + "q\n"
    drawn = [continues(past, noise=0.4, seed=seed) for seed in range(600)]
    assert np.mean([text == "yes" for text in drawn]) == pytest.approx(0.6 + 0.4 * 5 / 11, abs=0.06)
    with pytest.raises(ValueError, match="probability"):
        InductionBrain(1.5)


def test_importing_the_client_does_not_import_openai():
    import subprocess
    import sys

    code = "import sys, steepest.systems.agents.icpi; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_meter_moves_with_its_state():
    assert Meter().to(torch.device("cpu")).spent.dtype == torch.long
