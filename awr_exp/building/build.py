"""The one place where a configuration becomes an object."""

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import hydra
from hydra.errors import InstantiationException

from awr_exp.building import contracts
from awr_exp.errors import UserError, first_line, named
from awr_exp.ranges import arguments, check_all
from awr_exp.surroundings import kept
from awr_exp.vocabulary import near


@kept()
def build(node: dict[str, Any], **parts: Any) -> Any:
    """Calls the `_target_` of a configuration with its values and `parts`."""
    make = maker(node)
    try:
        return make(**parts)
    except TypeError as error:
        # A key that the constructor does not know, added with + or from an own yaml.
        if "argument" in str(error):
            raise UserError(f"{node['_target_']}: {error}") from error
        raise


def maker(node: dict[str, Any]) -> Any:
    """What `build` calls, with the parts within it built."""
    check_targets(node)
    try:
        return hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    except InstantiationException as error:
        # Of a part within this one, the cause says more than that it failed.
        reason = " ".join(str(error.__cause__ or first_line(error)).split())
        part = re.search(r"full_key: (\w+)$", str(error))
        if part and part[1] in contracts.CONTRACTS and isinstance(error.__cause__, TypeError):
            raise contracts.broken(part[1], node[part[1]], reason) from error
        raise UserError(f"{node['_target_']} cannot be built: {reason}") from error


def check_targets(node: Any, place: str = "") -> None:
    """Look for all parts before anything is built or loaded; place: the dotted name of the node, "" for the whole.

    Raises UserError for one that cannot be found, or whose values are not in the ranges that it has for them.
    """
    # The shallow first: agent.weighting is only a reference to weighting, where the user set the value.
    ahead = [(place, node)]
    for place, node in ahead:
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        ahead += [(f"{place}.{key}".lstrip("."), value) for key, value in inner]
        name = node.get("_target_") if isinstance(node, dict) else None
        if isinstance(name, str) and name:
            check_all(place, arguments(locate(name)), node)


@cache
def locate(name: str) -> Any:
    """What a dotted name means, its modules imported. Raises UserError where it cannot be found."""
    path, *parts = name.split(".")
    try:
        found: Any = import_module(path)
        for part in parts:
            path = f"{path}.{part}"
            if not hasattr(found, part) and hasattr(found, "__path__") and find_spec(path):
                import_module(path)
            if not hasattr(found, part):
                raise UserError(f"'{name}' cannot be found: {found.__name__} has no {part}{near(part, dir(found))}")
            found = getattr(found, part)
        return found
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"'{name}' cannot be found: {named(error)}") from None
