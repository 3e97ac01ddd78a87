"""The parts that a configuration names, looked for before anything is built or loaded."""

from functools import cache
from importlib import import_module
from typing import Any

from awr_exp.errors import UserError, named
from awr_exp.ranges import arguments, check_all
from awr_exp.vocabulary import near


def check(node: Any, place: str = "") -> None:
    """Raises UserError for a part that cannot be found, or whose values are not in the ranges that it has for them.

    place: the dotted name of the node, if it is not the whole.
    """
    # The shallow first: agent.weighting is only a reference to weighting, where the user set the value.
    ahead = [(place, node)]
    for place, node in ahead:
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        ahead += [(f"{place}.{key}".lstrip("."), value) for key, value in inner]
        name = node.get("_target_") if isinstance(node, dict) else None
        if isinstance(name, str) and name:
            check_all(place, arguments(_locate(name)), node)


@cache
def _locate(name: str) -> Any:
    modules = name.split(".")
    try:
        found: Any = import_module(modules[0])
        for count, part in enumerate(modules[1:], 2):
            if not hasattr(found, part):
                _import(".".join(modules[:count]))
            if not hasattr(found, part):
                raise UserError(f"'{name}' cannot be found: {found.__name__} has no {part}{near(part, dir(found))}")
            found = getattr(found, part)
        return found
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"'{name}' cannot be found: {named(error)}") from None


def _import(module: str) -> None:
    """Unless there is none of this name; what it imports itself must be there."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
