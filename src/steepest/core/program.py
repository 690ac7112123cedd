"""A function of numbers per decision, as torch ran it once, for the kernels to run again: its gradient is autograd's own.

What is recorded are the operations that torch dispatches, forward and backward, on some rows of made-up numbers. A function
whose operations are not all elementwise and known here, or that looks at values or at how many rows there are, has no program
and stays in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Table = dict[str, Tensor]
Function = Callable[[Table], Table]

# what a kernel does with up to three registers of floats, in the order of csrc/steepest.c; truth is 1 and 0
OPERATIONS = (
    "copy", "add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
    "pow", "neg", "exp", "log", "sqrt", "abs", "tanh", "log1p", "expm1", "sign", "logical_not", "where",
)  # fmt: skip
SAME = frozenset({"detach", "alias", "view", "reshape", "_unsafe_view", "expand", "clone", "squeeze", "unsqueeze", "lift_fresh"})
FILLED = frozenset({"zeros_like", "ones_like", "full_like", "scalar_tensor", "full", "new_zeros", "new_ones", "zeros", "ones"})
KNOWN = frozenset({"alpha", "min", "max", "dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "implicit"})
KINDS = (torch.float32, torch.bool)


class Unknown(Exception):
    """No program: an operation that the kernels do not have."""


class Recorder(TorchDispatchMode):
    """Writes down what is dispatched. Tensors are known by where their numbers lie: all are kept alive meanwhile."""

    def __init__(self, given: Table, rows: int):
        super().__init__()
        self.rows, self.kept = rows, [*given.values()]
        self.code: list[tuple[int, int, int, int]] = []  # register i holds what line i computes
        self.constants: dict[float, int] = {}  # a number, and its register's place among those before the code
        self.place = {x.data_ptr(): i for i, x in enumerate(given.values())}
        self.first = len(given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        results = out if isinstance(out, tuple) else (out,)
        if not all(isinstance(x, Tensor) for x in results):
            raise Unknown(name)
        self.kept += [*results, *(x for x in args if isinstance(x, Tensor))]
        to = self.place[args[0].data_ptr()] if name in SAME else self.lower(name.rstrip("_"), results[0], args, kwargs or {})
        if results[0].numel() not in (1, self.rows) or results[0].dtype not in KINDS:
            raise Unknown(f"{name} of {results[0].numel()} numbers in {results[0].dtype}")
        self.place[results[0].data_ptr()] = to
        return out

    def number(self, x: float) -> int:
        return -1 - self.constants.setdefault(float(x), len(self.constants))

    def at(self, x: Any) -> int:
        if not isinstance(x, Tensor):
            return self.number(x)
        if x.data_ptr() not in self.place:
            raise Unknown("a tensor from elsewhere")
        return self.place[x.data_ptr()]

    def do(self, name: str, *operands: Any) -> int:
        a, b, c = [*(x if type(x) is int else self.at(x) for x in operands), 0, 0][:3]
        self.code.append((OPERATIONS.index(name), a, b, c))
        return self.first + len(self.code) - 1

    def lower(self, name: str, out: Tensor, args: tuple[Any, ...], options: dict[str, Any]) -> int:
        """-> the register of the result. Tensors, floats and registers (int) are operands."""
        if not options.keys() <= KNOWN:
            raise Unknown(f"{name} with {options}")
        do = self.do
        x = tuple(float(a) if type(a) in (int, bool) else a for a in args)
        if name in FILLED:
            with torch.utils._python_dispatch._disable_current_modes():
                return do("copy", self.number(float(out.flatten()[0])))
        if name in ("add", "sub") and options.get("alpha", 1) != 1:
            return do(name, x[0], do("mul", x[1], float(options["alpha"])))
        if name == "rsub":
            return do("sub", x[1], do("mul", x[0], float(options.get("alpha", 1))))
        if name in ("bitwise_and", "bitwise_or", "bitwise_not"):
            return do(name.replace("bitwise", "logical"), *x)
        if name == "_to_copy":
            return do("ne", x[0], 0.0) if out.dtype == torch.bool else do("copy", x[0])
        if name == "masked_fill":
            return do("where", x[1], x[2], x[0])
        if name == "sgn":
            return do("sign", x[0])
        if name == "relu":
            return do("maximum", x[0], 0.0)
        if name == "square":
            return do("mul", x[0], x[0])
        if name == "reciprocal":
            return do("div", 1.0, x[0])
        if name == "rsqrt":
            return do("div", 1.0, do("sqrt", x[0]))
        if name == "sigmoid":
            return self.sigmoid(x[0])
        if name == "pow" and isinstance(x[1], float) and x[1] in (1.0, 2.0):
            return do("mul", x[0], x[0] if x[1] == 2.0 else 1.0)
        if name in ("clamp", "hardtanh", "clamp_min", "clamp_max"):
            default = (-1.0, 1.0) if name == "hardtanh" else (None, None)
            low, high = (None, x[1]) if name == "clamp_max" else (*x[1:], *default[len(x) - 1 :])[:2]
            low, high = options.get("min", low), options.get("max", high)
            found = do("copy", x[0]) if low is None else do("maximum", x[0], low)
            return found if high is None else do("minimum", found, high)
        if name == "hardtanh_backward":
            return do("where", do("logical_or", do("le", x[1], x[2]), do("ge", x[1], x[3])), 0.0, x[0])
        if name == "threshold_backward":
            return do("where", do("le", x[1], x[2]), 0.0, x[0])
        if name == "sigmoid_backward":
            return do("mul", do("mul", x[0], x[1]), do("sub", 1.0, x[1]))
        if name == "tanh_backward":
            return do("mul", x[0], do("sub", 1.0, do("mul", x[1], x[1])))
        if name == "log_sigmoid_forward":
            return do("sub", do("minimum", x[0], 0.0), do("log1p", do("exp", do("neg", do("abs", x[0])))))
        if name == "log_sigmoid_backward":
            return do("mul", x[0], self.sigmoid(do("neg", x[1])))
        if name == "softplus" and len(x) == 1:
            return do("add", do("maximum", x[0], 0.0), do("log1p", do("exp", do("neg", do("abs", x[0])))))
        if name == "softplus_backward" and x[2:] == (1.0, 20.0):
            return do("mul", x[0], self.sigmoid(x[1]))
        if name == "mse_loss" and x[2:] == (0.0,):
            return do("mul", *[do("sub", x[0], x[1])] * 2)
        if name == "mse_loss_backward" and x[3] == 0:
            return do("mul", do("mul", x[0], 2.0), do("sub", x[1], x[2]))
        if name not in OPERATIONS:
            raise Unknown(name)
        return do(name, *x)

    def sigmoid(self, x: Any) -> int:
        return self.do("div", 1.0, self.do("add", 1.0, self.do("exp", self.do("neg", x))))


@dataclass(frozen=True)
class Program:
    """Registers: the inputs, what each line of `code` computes, then the constants.

    code       [K, 4] int32: operation, and its operands' registers
    constants  [C]
    inputs     names, in the order of their registers
    outputs    registers by name
    example    rows of made-up inputs, and what torch made of them
    """

    code: Tensor
    constants: Tensor
    inputs: tuple[str, ...]
    outputs: dict[str, int]
    example: tuple[Table, Table]

    def holds(self, function: Function) -> bool:
        """Whether the function still does what was recorded: one that reads what changes elsewhere may not."""
        given, made = self.example
        found = run(function, given)
        return found.keys() == made.keys() and all(torch.equal(x, made[name]) for name, x in found.items())


def example(inputs: tuple[str, ...], rows: int) -> Table:
    generator = torch.Generator().manual_seed(rows)
    return {name: torch.randn(rows, 1, generator=generator) for name in inputs}


def run(function: Function, given: Table) -> Table:
    return function({name: x.clone() for name, x in given.items()})


def record(function: Function, inputs: tuple[str, ...], rows: int, fixed: dict[str, float]) -> Program:
    given = {name: torch.full_like(x, fixed[name]) if name in fixed else x for name, x in example(inputs, rows).items()}
    rec = Recorder({name: x.clone() for name, x in given.items()}, rows)
    with rec:
        made = function(dict(zip(inputs, rec.kept, strict=False)))
    lines = len(inputs) + len(rec.code)
    code = [[op, *(x if x >= 0 else lines - 1 - x for x in operands)] for op, *operands in rec.code]
    outputs = {name: (x if (x := rec.at(y)) >= 0 else lines - 1 - x) for name, y in made.items()}
    table, constants = torch.tensor(code, dtype=torch.int32).reshape(-1, 4), torch.tensor([*rec.constants], dtype=torch.float32)
    return Program(table, constants, inputs, outputs, (given, {name: x.detach() for name, x in made.items()}))


def traced(function: Function, inputs: tuple[str, ...], fixed: dict[str, float]) -> Program | None:
    """The program of `function`, which takes tensors [B, 1] by name (a table that it may change) and returns such; else None.

    fixed  the inputs that are always one number
    """
    try:
        one, two = (record(function, inputs, rows, fixed) for rows in (31, 48))
    except (Unknown, KeyError, IndexError, RuntimeError):
        return None
    alike = torch.equal(one.code, two.code) and torch.equal(one.constants, two.constants) and one.outputs == two.outputs
    return two if alike else None  # or the number of rows decides something
