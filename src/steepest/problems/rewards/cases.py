"""Tests of a program as data. What a program gives is compared with what is wanted outside of its process, which is not told."""

from __future__ import annotations

import ast
import builtins
import json
import math
from dataclasses import dataclass
from typing import Any

# names that a test may use without meaning something of the program
KNOWN = frozenset(dir(builtins)) | {"math", "cmath", "collections", "Counter", "itertools", "isclose", "statistics"}
DEEPEST = 100  # lists in lists
IMPORTS = "import cmath, collections, itertools, math, statistics\nfrom collections import Counter\nfrom math import isclose\n"


@dataclass(frozen=True)
class Told:
    """What is read from stdin, and what must then stand on stdout."""

    stdin: str
    stdout: str


@dataclass(frozen=True)
class Claim:
    """An assertion, taken apart: expressions to be evaluated beside the program, and what must be true of their values.

    asked   the largest expressions that mean something of the program, such as a call of its function
    rest    the assertion with v0, v1, ... in their places
    wanted  what v0 must equal, where the assertion is ``asked == literal``; `plain` says so
    """

    asked: tuple[str, ...]
    rest: str
    plain: bool = False
    wanted: Any = None


def cases_of(answer: str) -> list[Told | Claim]:
    """The tests that an answer of the data holds, in JSON. Raises ValueError with what is wrong.

    A list, each entry an assertion (a text such as "assert f(2) == 4") or {"stdin": ..., "stdout": ...}; or one object
    {"inputs": [...], "outputs": [...]} of texts for stdin and stdout.
    """
    try:
        told = json.loads(answer)
    except ValueError as error:
        raise ValueError(f"tests are a list in JSON, as [\"assert f(2) == 4\"], not {answer[:80]!r} ({error})") from error
    if isinstance(told, dict) and isinstance(told.get("inputs"), list) and isinstance(told.get("outputs"), list):
        if len(told["inputs"]) != len(told["outputs"]):
            raise ValueError(f"tests hold {len(told['inputs'])} inputs but {len(told['outputs'])} outputs")
        told = [{"stdin": x, "stdout": y} for x, y in zip(told["inputs"], told["outputs"], strict=True)]
    if not isinstance(told, list) or not told:
        raise ValueError(f"tests are a list with at least one entry, not {answer[:80]!r}")
    return [case_of(entry, index) for index, entry in enumerate(told)]


def case_of(entry: Any, index: int) -> Told | Claim:
    if isinstance(entry, str):
        return claim_of(entry, index)
    if isinstance(entry, dict) and isinstance(entry.get("stdin", ""), str) and isinstance(entry.get("stdout"), str):
        return Told(entry.get("stdin", ""), entry["stdout"])
    raise ValueError(f"test {index} is neither an assertion nor an object with texts stdin and stdout: {json.dumps(entry)[:80]}")


class Apart(ast.NodeTransformer):
    """Takes the largest expressions that begin with a name of the program out of an assertion."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, (ast.Call, ast.Attribute, ast.Subscript, ast.Name)):
            root: ast.AST = node
            while not isinstance(root, ast.Name):
                inner = getattr(root, "func", None) or getattr(root, "value", None)
                if not isinstance(inner, ast.AST):
                    break
                root = inner
            if isinstance(root, ast.Name) and root.id not in KNOWN:
                self.asked.append(ast.unparse(node))
                return ast.Name(f"v{len(self.asked) - 1}", ast.Load())
        return self.generic_visit(node)


def claim_of(text: str, index: int) -> Claim:
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"test {index} is no Python: {text[:80]!r} ({error})") from error
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise ValueError(f"test {index} must be one assertion, as assert f(2) == 4, not {text[:80]!r}")
    test = body[0].test
    if any(isinstance(node, (ast.Lambda, ast.comprehension, ast.NamedExpr)) for node in ast.walk(test)):
        raise ValueError(f"test {index} has names of its own (a lambda, a comprehension), so it cannot be split: {text[:80]!r}")
    apart = Apart()
    rest = ast.unparse(apart.visit(test))
    if not apart.asked:
        raise ValueError(f"test {index} calls nothing of the program: {text[:80]!r}")
    asked = tuple(apart.asked)
    if rest.startswith("v0 == ") and len(asked) == 1:
        try:
            return Claim(asked, rest, True, ast.literal_eval(rest[len("v0 == ") :]))
        except ValueError:
            pass
    return Claim(asked, rest)


# ------------------------------------------------------------------------------------ values that cross over

# Runs beside the program, in its process. Whatever the program does to it, it can only send other values.
BESIDE = (
    "import json, os\nsent = os.dup(1)\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)\n"
    + IMPORTS
    + '''
def told(x):
    if x is None or isinstance(x, (bool, str)):
        return x if x is None or x is True or x is False else str.__str__(x)
    if isinstance(x, int):
        return int.__int__(x)
    if isinstance(x, float):
        x = float.__float__(x)
        return x if x - x == 0 else {"float": repr(x)}
    if isinstance(x, complex):
        return {"complex": [told(x.real), told(x.imag)]}
    if isinstance(x, (bytes, bytearray)):
        return {"bytes": bytes(x).hex()}
    if isinstance(x, list):
        return [told(y) for y in list.__iter__(x)]
    if isinstance(x, tuple):
        return {"tuple": [told(y) for y in tuple.__iter__(x)]}
    if isinstance(x, (set, frozenset)):
        return {"set": [told(y) for y in type(x).__iter__(x)]}
    if isinstance(x, dict):
        return {"dict": [[told(k), told(y)] for k, y in dict.items(x)]}
    raise TypeError("a " + type(x).__name__ + " cannot be sent")

space = dict(globals(), __name__="program")
exec(compile(TEXT, "program.py", "exec"), space)
values = []
for asked in ASKED:
    try:
        values.append([told(eval(asked, space))])
    except Exception as error:
        values.append(None)
with open(sent, "w") as out:
    json.dump(values, out)
os._exit(0)
'''
)


def beside(program: str, asked: list[str]) -> str:
    """A program that runs `program` and sends the values of expressions, as `received` reads them."""
    return f"TEXT = {program!r}\nASKED = {asked!r}\n{BESIDE}"


def received(text: str, count: int) -> list[tuple[Any] | None]:
    """`count` values as they were sent, each in a tuple; None where there is none."""
    try:
        rows = json.loads(text)
        if not isinstance(rows, list) or len(rows) != count:
            return [None] * count
        return [(value(row[0]),) if isinstance(row, list) and len(row) == 1 else None for row in rows]
    except (ValueError, TypeError, RecursionError):
        return [None] * count


def value(sent: Any, depth: int = 0) -> Any:
    """A value from its JSON; raises ValueError or TypeError where it is none."""
    if depth > DEEPEST:
        raise ValueError(f"a value in more than {DEEPEST} others")
    if not isinstance(sent, (list, dict)):
        return sent
    kind: str
    inner: Any
    ((kind, inner),) = sent.items() if isinstance(sent, dict) else (("list", sent),)
    if kind == "float":
        return float(inner)
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "dict":
        return {value(k, depth + 1): value(x, depth + 1) for k, x in inner}
    parts = [value(x, depth + 1) for x in inner]
    if kind == "complex":
        return complex(*parts)
    for made in (list, tuple, set):
        if kind == made.__name__:
            return made(parts)
    raise ValueError(f"no value is sent as {kind!r}")


def spelt(x: Any) -> str:
    """A received value as Python that gives it again."""
    if isinstance(x, float) and not math.isfinite(x):
        return f"float({repr(x)!r})"
    if isinstance(x, complex):
        return f"complex({spelt(x.real)}, {spelt(x.imag)})"
    if isinstance(x, list):
        return f"[{', '.join(map(spelt, x))}]"
    if isinstance(x, tuple):
        return f"({''.join(f'{spelt(y)}, ' for y in x)})"
    if isinstance(x, set):
        return f"set([{', '.join(map(spelt, x))}])"
    if isinstance(x, dict):
        return f"{{{', '.join(f'{spelt(k)}: {spelt(y)}' for k, y in x.items())}}}"
    return repr(x)


def judge(claims: list[tuple[str, list[Any]]]) -> str:
    """A program, without the one under test, that says in JSON which assertions are true of the values put in."""
    lines = [f"{IMPORTS}import json\nfound = []"]
    for rest, values in claims:
        names = "\n".join(f"    v{n} = {spelt(x)}" for n, x in enumerate(values))
        lines.append(f"try:\n{names}\n    found.append(bool({rest}))\nexcept Exception:\n    found.append(False)")
    return "\n".join([*lines, "print(json.dumps(found))"])
