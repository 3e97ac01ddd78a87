"""What our parts take, read from their source: to import them would import torch, which takes a second."""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from awr_exp import ranges

PACKAGE = Path(__file__).parent


def parameters(target: Any) -> dict[str, Any]:
    """The settings of a part of ours by name, each with its annotation, and with None what else it cannot do without.

    Inherited ones are among them, and those that are handed on as `**options`. {} for what is no part of ours.
    """
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    return _parameters(module, name)


@cache
def _parameters(module: str, name: str) -> dict[str, Any]:
    node = _definitions(module).get(name)
    if isinstance(node, ast.ImportFrom):
        return _parameters(str(node.module), name)
    if isinstance(node, ast.FunctionDef):
        return _of_function(module, node, {})
    if not isinstance(node, ast.ClassDef):
        return {}
    bases = [_parameters(module, base.id) for base in node.bases if isinstance(base, ast.Name)]
    inherited = {key: hint for base in bases for key, hint in base.items()}
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            return _of_function(module, one, inherited)
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    return inherited | _taken((ast.unparse(one.target), one.annotation, one.value) for one in fields)


def _of_function(module: str, function: ast.FunctionDef, inherited: dict[str, Any]) -> dict[str, Any]:
    """The settings that a function takes; inherited: those that `super().__init__` does."""
    given = function.args
    defaults = [None] * (len(given.args) - len(given.defaults)) + [*given.defaults, *given.kw_defaults]
    arguments = zip([*given.args, *given.kwonlyargs], defaults, strict=True)
    own = _taken((one.arg, one.annotation, default) for one, default in arguments if one.arg != "self")
    handed_on: dict[str, Any] = {}
    for call in ast.walk(function):
        named = {one.arg: one.value for one in call.keywords} if isinstance(call, ast.Call) else {}
        if isinstance(call, ast.Call) and given.kwarg and None in named and ast.unparse(named[None]) == given.kwarg.arg:
            there = _parameters(module, call.func.id) if isinstance(call.func, ast.Name) else inherited
            placed = sum(not isinstance(one, ast.Starred) for one in call.args)
            handed_on |= {key: there[key] for key in list(there)[placed:] if key not in named}
    return own | {key: hint for key, hint in handed_on.items() if key not in own}


def _taken(arguments: Iterable[tuple[str, ast.expr | None, ast.expr | None]]) -> dict[str, Any]:
    """The settings among arguments that have these names, annotations and defaults, and what else has to be given."""
    found: dict[str, Any] = {}
    for name, annotation, default in arguments:
        try:
            hint = eval(ast.unparse(annotation), vars(ranges)) if annotation else None
        except (NameError, TypeError, SyntaxError, AttributeError):  # of more than `ranges` has
            hint = None
        if (is_setting := ranges.of(hint) is not None) or default is None:
            found[name] = hint if is_setting else None
    return found


@cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    """What a module of ours defines or imports at its top level, by name."""
    package, *names = module.split(".")
    file = PACKAGE.joinpath(*names).with_suffix(".py")
    if package != PACKAGE.name or not all(map(str.isidentifier, names)) or not file.is_file():
        return {}
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            found |= dict.fromkeys((one.name for one in node.names), node)
    return found
