"""What an import is going to do, as far as the first file says it; nothing heavy is needed to know that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from awr_exp.errors import UserError
from awr_exp.importing import formats
from awr_exp.importing.arguments import Arguments
from awr_exp.importing.roles import FILE, SEVERAL, Roles, assign, entries
from awr_exp.importing.table import Table


@dataclass(frozen=True)
class Plan:
    """paths: of the files; names: what the entries of each column of a draft are called; unused: other columns."""

    arguments: Arguments
    paths: Sequence[Path]
    roles: Roles
    names: Mapping[str, Sequence[str]]
    unused: Sequence[str]


def plan(arguments: Arguments) -> Plan:
    """The plan of an import. Raises UserError where files or columns are missing."""
    paths = formats.files(arguments.files)
    with formats.opened(paths[0]) as table:
        roles = assign(paths[0], table.shapes, arguments.roles)
        _check_ends(arguments, paths, table, roles)
        names = {f"{role}s": entries(roles, table.shapes, role) for role in (*SEVERAL, "reward")}
        names["episode"] = list(roles.columns.get("episode", ["episode"]))
        return Plan(arguments, paths, roles, names, [name for name in table.shapes if name not in roles.names])


def _check_ends(arguments: Arguments, paths: Sequence[Path], table: Table, roles: Roles) -> None:
    """Raises UserError where nothing says where episodes end."""
    if not (roles.ends or table.apart or len(paths) > 1 or arguments.roles.get("episode") == FILE):
        raise UserError(
            f"{paths[0]}: nothing says where episodes end: give terminated=..., truncated=..., episode=... or "
            "step=..., or episode=file if the whole file is one"
        )
