"""Conformance: what every system, loss and problem must satisfy, whatever its paper says."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import multiprocessing
import pickle
import random
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .problem import Control, Language, flat_size, is_bytes
from .save import load, restore, save
from .state import State
from .stream import Stream
from .system import System, begin, train

# An attribute of a module in State that may change without being saved: a live environment's Python
# object, which is rebuilt from buffers whenever it does not agree with them.
CACHES = frozenset({"_live_cache"})
OPAQUE = ("torch", "transformers", "tokenizers", "gymnasium", "mujoco", "numpy", "openai", "httpx", "scipy", "minari", "builtins")


class Failed(AssertionError):
    """A law does not hold. The message says which, the likely cause and the way out."""


# ------------------------------------------------------------------------------------------ systems


def check_system(make: Callable[[], System], problem: Callable[[], Any], *, half: int = 2, fresh: bool = True) -> list[str]:
    """Run `make()` on `problem()` and raise Failed at the first law that does not hold; else name the laws that do.

    make     builds the system; importable (a function of a module, or a `functools.partial` of one)
    problem  builds the problem, importable too
    half     steps before and after the checkpoint
    fresh    go on from the checkpoint in a new process (seconds more); False: in this one

    Laws: nothing draws from a global generator; two runs with one seed are equal; nothing outside State
    changes; a checkpoint holds all of it: saved, rebuilt, loaded and gone on is bitwise the run that was
    never interrupted.
    """
    if fresh:
        try:
            pickle.dumps((make, problem))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"check_system goes on in a new process, so `make` and `problem` must be importable, not {make!r}: "
                f"use functools.partial of a module's function, or pass fresh=False ({error})"
            ) from error
    before = global_generators()
    whole, metrics = watched_run(make(), problem(), 2 * half)
    changed = [name for name, state in global_generators().items() if not same(state, before[name])]
    if changed:
        raise Failed(
            f"the run drew from the global generator of {', '.join(changed)}: every random number must come from the rng that "
            "init, collect and learn are given (rng.torch(), rng.numpy(), or `with rng.fork():` around module constructors)"
        )
    again, metrics_again = watched_run(make(), problem(), 2 * half)
    refuse_difference(whole, again, "two runs with one seed differ", "something random is not drawn from the Stream")
    if not same(metrics, metrics_again):
        raise Failed("two runs with one seed report different metrics: a metric reads a clock, a set's order or hidden memory")
    laws = ["no global generator", "two runs equal", "nothing outside State changes"]
    if not make().resumes:
        return [*laws, "resume not claimed (resumes=False)"]
    with tempfile.TemporaryDirectory() as folder:
        system, target = make(), problem()
        state = run(system, target, half, begin(system, target))
        save(Path(folder, "half"), state, {})
        if fresh:
            # neither way inherits anything of this process; where torch may be forked, a server that has imported it is faster
            start = "forkserver" if sys.platform == "linux" else "spawn"
            # an executor's process, unlike that of a Pool, may have workers of its own
            with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as pool:
                pool.submit(go_on, make, problem, 2 * half, folder).result()
        else:
            go_on(make, problem, 2 * half, folder)
        resumed = load(Path(folder, "end"))[0]
    refuse_difference(whole, resumed, "a resumed run differs from an uninterrupted one", "a part keeps memory outside State")
    return [*laws, "resume is bitwise" + (" in a fresh process" if fresh else "")]


def run(system: System, problem: Any, steps: int, state: State) -> State:
    for _ in train(system, problem, steps=steps, state=state):
        pass
    return state


def go_on(make: Callable[[], System], problem: Callable[[], Any], steps: int, folder: str) -> None:
    """What the fresh process does: rebuild, load, train on, save."""
    torch.set_num_threads(1)
    system, target = make(), problem()
    state = begin(system, target)
    restore(state, Path(folder, "half"))
    save(Path(folder, "end"), run(system, target, steps, state), {})


def watched_run(system: System, problem: Any, steps: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The final state_dict and all metrics; raises Failed if anything but State changed after the first step."""
    state, metrics, seen = begin(system, problem), [], {}
    for record in train(system, problem, steps=steps, state=state):
        metrics.append({name: x for name, x in record.metrics.items() if not name.endswith("_seconds")})  # these say that they time
        if record.step == 1:  # caches have been filled by now
            seen = hidden(system, problem, state)
    now = hidden(system, problem, state)
    changed = sorted(name for name in seen.keys() | now.keys() if seen.get(name) != now.get(name))
    if changed:
        raise Failed(
            f"{changed[0]} changed during training and is not part of State ({len(changed)} such in all): a checkpoint will miss "
            "it. Keep it in a buffer of a memory (steepest.memory) or as a parameter, or derive it from state.step"
        )
    return {name: clone(value) for name, value in state.state_dict().items()}, metrics


def hidden(system: System, problem: Any, state: State) -> dict[str, str]:
    """Fingerprints by path of all that can change and is not saved: attributes, closures, globals of the system's functions."""
    found: dict[str, str] = {}
    memo: dict[int, Any] = {id(t): t for t in state.buffers()} | {id(t): t for t in state.parameters()}
    for name, module in state.named_modules():
        memo[id(module)] = module
        if type(module).__module__.startswith(OPAQUE):
            continue
        for key, value in vars(module).items():
            saved = module is state and key in ("step", "optimizers")
            if key.startswith(("_parameters", "_buffers", "_modules")) or key in CACHES or saved or key.endswith("_hooks"):
                continue
            visit(value, f"state.{name}.{key}".replace("..", "."), found, memo)
        visit(shared(type(module)), f"state.{name}.__class__".replace("..", "."), found, memo)
    visit(system, "system", found, memo)
    visit(problem, "problem", found, memo)
    return found


def visit(value: Any, path: str, found: dict[str, str], memo: dict[int, Any], depth: int = 0) -> None:
    """Walk everything reachable from `value`; leaves write their fingerprint to `found`."""
    if isinstance(value, (int, float, complex, str, bytes, bool, type(None))):
        found[path] = repr(value)
        return
    if id(value) in memo or depth > 20:
        return
    memo[id(value)] = value  # holding it keeps the id unique
    for name, part in parts(value):
        visit(part, f"{path}{name}", found, memo, depth + 1)
    if isinstance(value, Tensor):
        found[path] = digest(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    elif isinstance(value, np.ndarray):
        found[path] = digest(value.tobytes())
    elif isinstance(value, torch.Generator):
        found[path] = digest(value.get_state().numpy().tobytes())
    elif isinstance(value, (np.random.Generator, np.random.RandomState)):
        found[path] = digest(pickle.dumps(value))
    elif isinstance(value, random.Random):
        found[path] = digest(repr(value.getstate()).encode())
    elif isinstance(value, (set, frozenset)):
        found[path] = digest(repr(sorted(map(repr, value))).encode())


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What `value` refers to, by a name that continues a path."""
    if isinstance(value, dict):
        yield "#", len(value)
        for key, part in value.items():
            yield f"[{key!r}]", part
    elif isinstance(value, (list, tuple)):
        yield "#", len(value)
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        yield ".args", value.args
        yield ".keywords", value.keywords
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, types.FunctionType):
        if (value.__module__ or "").startswith(OPAQUE):
            return
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f".{name}", cell.cell_contents
            except ValueError:  # a cell that is not filled yet
                continue
        yield ".__defaults__", value.__defaults__
        yield ".__kwdefaults__", value.__kwdefaults__
        yield ".__dict__", {k: v for k, v in vars(value).items() if k not in ("__wrapped__", "__signature__", "parent")}
        for name in value.__code__.co_names:
            part = value.__globals__.get(name)
            if isinstance(part, (dict, list, set, Tensor, np.ndarray, types.FunctionType)):
                yield f"::{name}", part
    elif isinstance(value, nn.Module):
        if not type(value).__module__.startswith(OPAQUE):
            yield ".__dict__", {k: v for k, v in vars(value).items() if k not in CACHES and not k.startswith("_")}
            yield ".__class__", shared(type(value))
        yield ".parameters", dict(value.named_parameters())
        yield ".buffers", dict(value.named_buffers())
    elif isinstance(value, (type, types.ModuleType)) or type(value).__module__.startswith(OPAQUE):
        return
    else:
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()) if hasattr(value, name)]
        for key, part in {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}.items():
            yield f".{key}", part
        yield ".__class__", shared(type(value))


def shared(kind: type) -> dict[str, Any]:
    """Data that all instances of a class share."""
    data = (int, float, str, dict, list, set, Tensor, np.ndarray)
    own = [cls for cls in kind.__mro__[::-1] if not cls.__module__.startswith(OPAQUE)]
    return {k: v for cls in own for k, v in vars(cls).items() if isinstance(v, data) and not k.startswith("__")}


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def global_generators() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "random": random.getstate()}  # noqa: NPY002


def clone(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {name: clone(part) for name, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(clone, tree))
    return tree


def same(a: Any, b: Any) -> bool:
    """Bitwise equality of two trees."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        return torch.equal(a, b) or (a.is_floating_point() and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (a != a and b != b)


def refuse_difference(one: dict[str, Any], two: dict[str, Any], what: str, cause: str) -> None:
    wrong = sorted(name for name in one.keys() | two.keys() if not same(one.get(name), two.get(name)))
    if wrong:
        shown = ", ".join(wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        raise Failed(f"{what} in {len(wrong)} of {len(one)} entries of State ({shown}): {cause}")


# ------------------------------------------------------------------------------------------ problems


def check_problem(problem: Any) -> list[str]:
    """Raise Failed at the first law that a Language or Control problem breaks; else name the laws that hold."""
    try:
        pickle.dumps(problem)
    except Exception as error:
        name = type(problem).__name__
        raise Failed(f"{name} cannot be pickled ({error}): build it from plain options, load data lazily") from error
    if isinstance(problem, Language):
        return check_language(problem)
    if isinstance(problem, Control):
        return check_control(problem)
    raise TypeError(f"check_problem knows Language and Control problems, not {type(problem).__name__}")


def check_language(problem: Language) -> list[str]:
    rng, name = Stream(0, "check"), type(problem).__name__
    if problem.tokenizer.eos_token_id is None or problem.tokenizer.pad_token_id is None:
        raise Failed(f"{name}.tokenizer has no end token or no pad token: answers could never end")
    a, b = (problem.prompts(16, rng.torch()) for _ in range(2))
    if not all(same(getattr(a, f), getattr(b, f)) for f in ("ids", "mask", "key")):
        raise Failed(f"{name}.prompts differs for equal generators: it draws from somewhere else")
    if a.ids.shape != a.mask.shape or a.key.shape != a.ids.shape[:1] or len(a.ids) != 16:
        raise Failed(f"{name}.prompts(16): ids {list(a.ids.shape)}, mask {list(a.mask.shape)}, key {list(a.key.shape)} do not fit")
    if not bool((a.mask.diff(dim=1) >= 0).all()) or not bool(a.mask[:, -1].all()):
        raise Failed(f"{name}.prompts must be padded on the left: mask rows are 0...0 1...1")
    tokens = torch.randint(len(problem.tokenizer), (16, problem.max_new), generator=rng.torch())
    mask = torch.ones(tokens.shape)
    one, two = problem.score(a, tokens, mask), problem.score(a, tokens, mask)
    if one.shape != (16,) or not one.is_floating_point() or not bool(torch.isfinite(one).all()):
        raise Failed(f"{name}.score must give 16 finite floats, not {list(one.shape)} of {one.dtype}")
    if not same(one, two):
        raise Failed(f"{name}.score differs for equal answers")
    order = torch.randperm(16, generator=rng.torch())
    shuffled = dataclasses.replace(a, ids=a.ids[order], mask=a.mask[order], key=a.key[order])
    if not same(problem.score(shuffled, tokens[order], mask), one[order]):
        raise Failed(f"{name}.score of an answer depends on the other answers of the batch")
    mask = (torch.arange(problem.max_new) < torch.randint(1, problem.max_new + 1, (16, 1), generator=rng.torch())).float()
    other = torch.where(mask > 0, tokens, tokens.flip(0))
    if not same(problem.score(a, tokens, mask), problem.score(a, other, mask)):
        raise Failed(f"{name}.score of an answer depends on tokens behind its end: read only where mask is 1")
    return ["prompts are drawn from the generator", "prompts are left-padded", "score is a function of prompt and answer"]


def check_control(problem: Control, *, count: int = 3, steps: int = 300) -> list[str]:
    rng, name = Stream(0, "check"), type(problem).__name__
    space, policy = problem.action_space, np.random.default_rng(0)

    def actions() -> Tensor:
        if hasattr(space, "nvec"):
            return torch.as_tensor(policy.integers(space.nvec, size=(count, *space.shape)))
        if hasattr(space, "n"):
            return torch.as_tensor(policy.integers(2 if space.shape else space.n, size=(count, *space.shape)))
        low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
        return torch.as_tensor(policy.uniform(low, high, size=(count, *space.shape)), dtype=torch.float32)

    env, twin = problem.make(count), problem.make(count)
    obs, twin_obs = env.reset(rng), twin.reset(rng)
    row = (count, flat_size(problem.observation_space)), torch.uint8 if is_bytes(problem.observation_space) else torch.float32
    if (tuple(obs.shape), obs.dtype) != row:
        raise Failed(f"{name}: observations are {list(obs.shape)} of {obs.dtype}, and not one flat row each, {row}: see Control")
    if not same(obs, twin_obs):
        raise Failed(f"{name}: two resets from one address differ: it draws from somewhere else")
    for t in range(steps):
        if t == steps // 2 and env.resumes:
            twin = problem.make(count)
            twin.reset(rng / "another life")
            twin.set_state({k: v.clone() for k, v in env.get_state().items()})
        action = actions()
        got, other = env.step(action), twin.step(action)
        for part in dataclasses.fields(got):
            if not same(getattr(got, part.name), getattr(other, part.name)):
                when = "after set_state(get_state())" if t >= steps // 2 else "for equal actions"
                raise Failed(f"{name}: `{part.name}` differs {when} at step {t}: the state is not complete")
        done = got.terminated | got.truncated
        if not bool(torch.isfinite(got.reward).all()):
            which = int((~torch.isfinite(got.reward)).nonzero()[0])
            raise Failed(f"{name}: reward of environment {which} at step {t} is not finite")
        if not same(got.obs[~done], got.next_obs[~done]):
            raise Failed(f"{name}: obs and next_obs differ at step {t} though no episode ended: next_obs is the true successor")
        if bool((got.terminated & got.truncated).any()):
            raise Failed(f"{name}: an episode is terminated and truncated at step {t}; a terminal state has no value to bootstrap")
    laws = ["reset is a function of its address", "obs is next_obs inside an episode"]
    return [*laws, "state can be taken and given back bitwise"] if env.resumes else laws
