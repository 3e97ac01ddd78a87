"""What our parts take, read from their source: to import them would import torch, which takes a second."""

import ast
import builtins
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from awr_exp import ranges

PACKAGE = Path(__file__).parent
LIGHT = ("typing", "collections.abc", ranges.__name__)
"""Modules that annotations may be made of."""


def parameters(target: Any) -> dict[str, Any]:
    """The arguments of a part of ours by name, each with its annotation, or None where that is of no plain value.

    Inherited ones are among them, and those that are handed on as `**options`. {} for what is no part of ours.
    """
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    return _parameters(module, name)


@cache
def _parameters(module: str, name: str) -> dict[str, Any]:
    node = _definitions(module).get(name)
    if isinstance(node, ast.ImportFrom):
        return _parameters(str(node.module), _original(node, name))
    if isinstance(node, ast.FunctionDef):
        return _of_function(module, node)
    if not isinstance(node, ast.ClassDef):
        return {}
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            return _of_function(module, one, node)
    fields = {one.target.id: _hint(module, one.annotation) for one in node.body
              if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}  # fmt: skip
    return _inherited(module, node) | fields


def _inherited(module: str, node: ast.ClassDef | None) -> dict[str, Any]:
    bases = node.bases if node else []
    return {key: hint for base in bases if isinstance(base, ast.Name)
            for key, hint in _parameters(module, base.id).items()}  # fmt: skip


def _of_function(module: str, function: ast.FunctionDef, owner: ast.ClassDef | None = None) -> dict[str, Any]:
    own = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    found = {one.arg: _hint(module, one.annotation) for one in (own[1:] if owner else own)}
    options = function.args.kwarg.arg if function.args.kwarg else None
    for call in ast.walk(function) if options else ():
        if not isinstance(call, ast.Call):
            continue
        named = {one.arg for one in call.keywords}
        if None not in named or not any(
            isinstance(one.value, ast.Name) and one.value.id == options for one in call.keywords
        ):
            continue
        there = _parameters(module, call.func.id) if isinstance(call.func, ast.Name) else _inherited(module, owner)
        placed = sum(not isinstance(one, ast.Starred) for one in call.args)
        found = {key: there[key] for key in list(there)[placed:] if key not in named} | found
    return found


def _hint(module: str, annotation: ast.expr | None) -> Any:
    try:
        return _evaluated(module, annotation) if annotation else None
    except (NameError, TypeError):
        return None


def _evaluated(module: str, node: ast.expr) -> Any:
    return eval(compile(ast.Expression(node), module, "eval"), {"__builtins__": {}}, _Names(module))


class _Names(dict[str, Any]):
    """What names mean in a module: aliases of ours, builtins, and what comes from LIGHT."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module

    def __missing__(self, name: str) -> Any:
        node = _definitions(self.module).get(name)
        if isinstance(node, ast.ImportFrom):
            original = _original(node, name)
            if node.module in LIGHT:
                return getattr(import_module(node.module), original)
            return _Names(str(node.module))[original]
        if isinstance(node, ast.expr):
            return _evaluated(self.module, node)
        if node is None and hasattr(builtins, name):
            return getattr(builtins, name)
        raise NameError(name)


def _original(node: ast.ImportFrom, name: str) -> str:
    return next(one.name for one in node.names if name == (one.asname or one.name))


@cache
def _definitions(module: str) -> dict[str, ast.AST]:
    """What a module of ours has at its top level, by name: functions, classes, imports and the values of aliases."""
    package, *names = module.split(".")
    file = PACKAGE.joinpath(*names).with_suffix(".py")
    if package != PACKAGE.name or not all(map(str.isidentifier, names)) or not file.is_file():
        return {}
    found: dict[str, ast.AST] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                found[node.name] = node
            case ast.ImportFrom():
                found |= {one.asname or one.name: node for one in node.names}
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
    return found
