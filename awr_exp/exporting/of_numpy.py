"""A policy as arrays and the steps of NumPy to take with them: a straight line, which ten lines of Python walk."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from awr_exp.errors import UserError
from awr_exp.exporting.formats import Acting

FEW = "argmax broadcast_to concatenate cumsum float32 int64 reshape sort standard_normal sum take take_along_axis where"
MAY = {k: v for k, v in (vars(np.random) | vars(np)).items() if isinstance(v, np.ufunc) or k in FEW.split()}
"""What of NumPy a step may be, by name: its universal functions and a few others, as in the example of a loader."""
SAME = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative", "pow": "power",
    "bmm": "matmul", "mm": "matmul", "tanh": "tanh", "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p",
    "sqrt": "sqrt", "abs": "absolute", "sign": "sign", "sin": "sin", "cos": "cos", "atan2": "arctan2",
    "remainder": "remainder", "maximum": "maximum", "minimum": "minimum", "where": "where", "eq": "equal",
    "ne": "not_equal", "gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal",
    "logical_and": "logical_and", "logical_or": "logical_or", "logical_not": "logical_not",
    "cat": "concatenate", "cumsum": "cumsum",
}  # fmt: skip
"""Operators of PyTorch that NumPy has by another name, with the same arguments in the same order."""
SHAPES = ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze")
COPIES = ("clone", "detach", "alias", "lift_fresh_copy", "contiguous")


class Steps:
    """The steps that do what a graph does: name, function of NumPy, arguments. arrays: the constants among these.

    An argument is the name of an array or of an earlier step, a number, None, or a list of such; obs are the
    observations, and rows is their number. Whatever does not depend on them is computed now.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.names: dict[Any, str] = {}
        self.steps: list[list[Any]] = []
        self.known: dict[Node, Any] = {}
        tensors = {**program.state_dict, **program.constants}
        targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
        *_, output = program.graph.nodes
        needed = _needed(output)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                target = targets[node.name]
                self.known[node] = "obs" if target is None else tensors[target]
            elif node.op == "call_function" and node in needed:
                self.known[node] = self._of(node)
            elif node.op == "output":
                outputs: Any = node.args[0]
                (action,) = outputs
                kind = str(action.meta["val"].dtype).removeprefix("torch.")
                self.steps.append(["action", kind, self._name(self.known[action])])

    def emit(self, function: str, *arguments: Any) -> str:
        """The name of a further step."""
        # Of these, some may be further steps.
        given = [self._name(one) for one in arguments]
        self.steps.append([f"x{len(self.steps)}", function, *given])
        return self.steps[-1][0]

    def shape(self, node: Node) -> list[Any]:
        """The shape of what a node makes, in which the number of observations, and its multiples, are steps."""
        return [self._size(size) for size in node.meta["val"].shape]

    def _size(self, size: Any) -> Any:
        if isinstance(size, int):
            return size
        factor, _ = size.node.expr.as_coeff_Mul()
        return "rows" if factor == 1 else self.emit("multiply", "rows", int(factor))

    def _name(self, value: Any) -> Any:
        """How an argument is written in a step."""
        if isinstance(value, list | tuple):
            return [self._name(one) for one in value]
        if isinstance(value, Tensor):
            array = value.detach().numpy()
            # A network that is called several times has its parameters once.
            name = self.names.setdefault((array.tobytes(), array.shape, array.dtype), f"c{len(self.arrays)}")
            self.arrays[name] = array
            return name
        return self._size(value) if isinstance(value, torch.SymInt) else value

    def _of(self, node: Node) -> Any:
        """What a call makes: a tensor where that is known now, else the name of a step, or several of them."""
        target: Any = node.target
        name = target.__name__.partition(".")[0]
        args: Any = torch.fx.map_arg(node.args, self.known.get)
        if isinstance(node.meta["val"], torch.SymInt):
            return node.meta["val"]
        if name == "getitem":
            return args[0][args[1]]
        if name != "randn" and not _depends([args, dict(node.kwargs)]):
            return target(*args, **torch.fx.map_arg(node.kwargs, self.known.get))
        if name in SAME and not node.kwargs:
            return self.emit(SAME[name], *args)
        if name in SHAPES:
            return self.emit("reshape", args[0], self.shape(node))
        if name in COPIES:
            return args[0]
        if name not in OTHER:
            raise UserError(f"NumPy has no {name}: choose .onnx or .pt2")
        return OTHER[name](self, node, *args)


def _needed(node: Node) -> set[Node]:
    """What the action is made of; other nodes check that numbers are what they must be."""
    found, left = {node}, [node]
    while left:
        new = set(left.pop().all_input_nodes) - found
        found |= new
        left += new
    return found


def _depends(value: Any) -> bool:
    """Whether a step or the number of observations is among arguments."""
    if isinstance(value, dict):
        return _depends(list(value.values()))
    if isinstance(value, list | tuple):
        return any(map(_depends, value))
    return isinstance(value, str | torch.SymInt)


def _clamp(steps: Steps, node: Any, x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else steps.emit("maximum", x, low)
    return x if high is None else steps.emit("minimum", x, high)


def _cast(steps: Steps, node: Any, x: Any, *_: Any) -> Any:
    return steps.emit(str(node.meta["val"].dtype).removeprefix("torch."), x)


def _full(steps: Steps, node: Any, *_: Any) -> Any:
    value = torch.full((), node.args[1], dtype=node.meta["val"].dtype)
    return steps.emit("broadcast_to", value, steps.shape(node))


def _sum(steps: Steps, node: Any, x: Any, axis: Any = None, keep: bool = False) -> Any:
    for one in sorted(axis, reverse=True):
        x = steps.emit("sum", x, one, None, None, True)
    return x if keep else steps.emit("reshape", x, steps.shape(node))


def _mean(steps: Steps, node: Any, x: Any, axis: Any = None, keep: bool = False) -> Any:
    count = np.prod([node.args[0].meta["val"].shape[one] for one in axis])
    return steps.emit("divide", _sum(steps, node, x, axis, keep), float(count))


def _argmax(steps: Steps, node: Any, x: Any, axis: int, keep: bool = False) -> Any:
    found = steps.emit("argmax", x, axis)
    return steps.emit("reshape", found, steps.shape(node)) if keep else found


def _least(steps: Steps, node: Any, x: Any, axis: Any, keep: bool = False) -> Any:
    first = steps.emit("take", steps.emit("sort", x, axis[0]), 0, axis[0])
    return steps.emit("reshape", first, steps.shape(node))


def _slice(steps: Steps, node: Any, x: Any, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    size = node.args[0].meta["val"].shape[axis]
    if not isinstance(size, int):
        return x
    return steps.emit("take", x, list(range(size))[start:end:step], axis)


def _split(steps: Steps, node: Any, x: Any, sizes: Any, axis: int = 0) -> list[Any]:
    ends = np.cumsum(sizes)
    return [steps.emit("take", x, list(range(end - size, end)), axis) for end, size in zip(ends, sizes, strict=True)]


def _repeat(steps: Steps, node: Any, x: Any, counts: Any) -> Any:
    shape = [1] * len(counts) + list(node.args[0].meta["val"].shape)
    pairs = list(zip(counts, shape[-len(counts) :], strict=True))
    apart = steps.emit("reshape", x, [one for _, size in pairs for one in (1, size)])
    return steps.emit("reshape", steps.emit("broadcast_to", apart, sum(pairs, ())), steps.shape(node))


def _sigmoid(steps: Steps, node: Any, x: Any) -> Any:
    half = steps.emit("tanh", steps.emit("multiply", x, 0.5))
    return steps.emit("add", steps.emit("multiply", half, 0.5), 0.5)


def _log_softmax(steps: Steps, node: Any, x: Any, axis: int, *_: Any) -> Any:
    largest = steps.emit("take", steps.emit("sort", x, axis), [-1], axis)
    x = steps.emit("subtract", x, largest)
    return steps.emit("subtract", x, steps.emit("log", steps.emit("sum", steps.emit("exp", x), axis, None, None, True)))


def _layer_norm(steps: Steps, node: Any, x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> list[Any]:
    def mean(y: Any) -> Any:
        return steps.emit("divide", steps.emit("sum", y, -1, None, None, True), float(shape[-1]))

    centred = steps.emit("subtract", x, mean(x))
    spread = steps.emit("sqrt", steps.emit("add", mean(steps.emit("square", centred)), eps))
    return [steps.emit("divide", centred, spread)]


def _elu(steps: Steps, node: Any, x: Any, alpha: float = 1.0) -> Any:
    below = steps.emit("multiply", steps.emit("expm1", steps.emit("minimum", x, 0.0)), alpha)
    return steps.emit("add", steps.emit("maximum", x, 0.0), below)


OTHER: dict[str, Callable[..., Any]] = {
    "clamp": _clamp, "_to_copy": _cast, "full": _full, "full_like": _full, "sum": _sum, "mean": _mean,
    "argmax": _argmax, "amin": _least, "slice": _slice, "split_with_sizes": _split, "sigmoid": _sigmoid,
    "_log_softmax": _log_softmax, "native_layer_norm": _layer_norm, "elu": _elu,
    "repeat": _repeat,
    "relu": lambda steps, node, x: steps.emit("maximum", x, 0.0),
    "argmin": lambda steps, node, x, *axis: _argmax(steps, node, steps.emit("negative", x), *axis),
    "expand": lambda steps, node, x, *_: steps.emit("broadcast_to", x, steps.shape(node)),
    "index_select": lambda steps, node, x, axis, index: steps.emit("take", x, index, axis),
    "select": lambda steps, node, x, axis, index: steps.emit("take", x, index, axis),
    "gather": lambda steps, node, x, axis, index: steps.emit("take_along_axis", x, index, axis),
    "sort": lambda steps, node, x, axis=-1, *_: [steps.emit("sort", x, axis)],
    "randn": lambda steps, node, *_: steps.emit("float32", steps.emit("standard_normal", steps.shape(node))),
}  # fmt: skip
"""Operators of PyTorch that are several steps, or whose arguments are others."""


def encoded(program: ExportedProgram, about: Mapping[str, str]) -> bytes:
    """The file: constants, and as JSON the steps in program and the texts in about. Raises UserError."""
    made, file = Steps(program.run_decompositions()), io.BytesIO()
    content: dict[str, Any] = {"program": json.dumps(made.steps), "about": json.dumps(about), **made.arrays}
    np.savez(file, **content)
    return file.getvalue()


def acting(content: bytes) -> Acting:
    """What acts by the file as `examples/export/with_numpy.py` does, and also tells the noise that is drawn in it."""
    file = dict(np.load(io.BytesIO(content)))
    steps = json.loads(str(file["program"]))
    drawn = [step[0] for step in steps if step[1] == "standard_normal"]

    def act(obs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        known = dict(file, obs=obs, rows=len(obs))
        for name, function, *given in steps:
            given = [[known.get(x, x) for x in one] if isinstance(one, list) else known.get(one, one) for one in given]
            known[name] = MAY[function](*given)
        return known["action"], known[drawn[0]].astype(np.float32) if drawn else None

    return act
