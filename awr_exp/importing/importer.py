"""From files to a data set: read to a draft, which is written as a whole."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from awr_exp import results, shell
from awr_exp.config import CONF
from awr_exp.data import export
from awr_exp.data.arrays import Extras, Stored, store
from awr_exp.data.minari import load, root
from awr_exp.errors import UserError
from awr_exp.importing import formats
from awr_exp.importing.draft import Draft
from awr_exp.importing.plan import Plan
from awr_exp.importing.roles import SEVERAL, UNCLEAR, Roles, assign
from awr_exp.importing.rows import Rows
from awr_exp.training.progress import Bar
from awr_exp.vocabulary import near, options

MB = 2**20
FEW = 2**24
"""Numbers of a data set that is read once more at its end, for what training would say of it."""
UNCLEAR_SAID = (
    "{0} counts as terminated, after which nothing has a value: where a limit of time ended the episodes instead, give "
    "truncated={0} terminated=none"
)


def run(plan: Plan) -> list[str]:
    """Import files as planned; what there is to say of it, in lines.

    What is read lies in a folder beside the data set until that is written: an import that was stopped goes on there.
    Raises UserError where something is wrong, and then nothing is left.
    """
    arguments, paths = plan.arguments, plan.paths
    export.check_new(arguments.id, "id")
    make = _environment(arguments.env) if arguments.env else None
    folder = export.make_place(arguments.id).parent / f".importing-{Path(arguments.id).name}"
    try:
        with results.file_lock(folder):
            draft = Draft(folder, [arguments.roles, [[str(path), *_state(path)] for path in paths]])
            try:
                return _imported(plan, draft, make)
            except Exception:
                draft.delete()
                raise
    except OSError as error:
        raise export.unwritable(error) from None


def _imported(plan: Plan, draft: Draft, make: Any) -> list[str]:
    arguments, paths, names = plan.arguments, plan.paths, plan.names
    texts: dict[str, Any] = {
        "algorithm_name": "imported",
        "description": f"Imported from {paths[0].name}" + (f" and {len(paths) - 1} other files." if paths[1:] else "."),
        "observation_columns": names["observations"],
        "action_columns": names["actions"],
    }
    extras = Extras(env=make, texts=texts, **arguments.numbers)
    with draft:
        _fill(plan, draft)
    steps = draft.steps(paths, names)
    with Bar(f"writing {arguments.id}", len(steps.rewards)) as bar:
        stored = store(arguments.id, steps, extras, bar.advance, draft.folder)
    draft.delete()
    if len(steps.rewards) * (stored.spec.obs_dim + len(names["actions"])) < FEW:
        # What there is to doubt is said while the files are at hand.
        load(arguments.id)
    return _summary(plan, stored)


def _fill(plan: Plan, draft: Draft) -> None:
    """Read what the draft lacks."""
    arguments, paths, roles = plan.arguments, plan.paths, plan.roles
    sizes = np.array([size for size, _ in map(_state, paths)])
    before = np.cumsum(sizes) - sizes
    with Bar(f"importing {arguments.id} (MB)", int(sizes.sum() / MB)) as bar:
        for number in range(draft.state["file"], len(paths)):
            with formats.opened(paths[number]) as table:
                own = roles if number == 0 else assign(paths[number], table.shapes, arguments.roles)
                _check_same(paths[0], roles, paths[number], own)
                given = (draft.state["position"], draft.state["row"])
                for columns, position in formats.chunks(table, roles.names, *given):
                    rows = Rows(table, roles, columns, draft.state["row"])
                    draft.add(rows.steps(table.apart), paths[number], position)
                    bar.advance(int((before[number] + sizes[number] * min(1, position / table.size)) / MB))
            if not draft.state["row"]:
                raise UserError(f"{paths[number]} has no rows: leave it out")
            draft.next_file()


def _state(path: Path) -> list[int]:
    """What changes when a file does."""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return [state.st_size, state.st_mtime_ns]


def _check_same(first: Path, roles: Roles, path: Path, own: Roles) -> None:
    for role in roles.columns.keys() | own.columns.keys():
        one, other = (sorted(each.columns.get(role, ())) for each in (roles, own))
        if one != other:
            told = " and ".join(f"{', '.join(names) or 'nothing'} in {where}" for names, where in (
                (other, path), (one, first)))  # fmt: skip
            raise UserError(f"{role} is {told}: all files must have the same columns")


def _environment(name: str) -> Callable[[], gymnasium.Env]:
    """What makes the environment that an option, or a registered name, means."""
    from awr_exp.building.build import build

    known = {one.name: one.content for one in options(CONF) if one.group == "env" and one.content.get("id")}
    own = {option: content for option, content in known.items() if content["id"] != "???"}
    node = own.get(name, {"_target_": "awr_exp.envs.make.gym", "id": name, "kwargs": None})
    try:
        made: Callable[[], gymnasium.Env] = build(node, data=None, spec=None)
    except UserError as error:
        raise UserError(f"there is no env={name}{close}" if (close := near(name, own)) else str(error)) from None
    return made


def _summary(plan: Plan, stored: Stored) -> list[str]:
    arguments, names = plan.arguments, plan.names
    spec, count = stored.spec, len(stored.returns)
    cut = count - stored.terminated
    if spec.discrete:
        each = zip(names["actions"], spec.counts, np.ravel(spec.starts), strict=True)
        of = [f"a choice of {count}, from {start} on" for _, count, start in each]
        several = ", ".join(f"{name} is {one}" for name, one in zip(names["actions"], of, strict=True))
        actions = of[0] if spec.action_shape == () else several
    else:
        bounds = zip(names["actions"], spec.action_low, spec.action_high, strict=True)
        actions = ", ".join(f"{name} from {low:g} to {high:g}" for name, low, high in bounds)
        by = "as given" if arguments.numbers.keys() & {"action_low", "action_high"} else "of the data, rounded outward"
        actions += f" (bounds {'of the environment' if arguments.env else by})"
    others = [f"{role}={','.join(own)}" for role, own in plan.roles.columns.items() if role not in SEVERAL]
    ended = [name for name in plan.roles.columns.get("terminated", ()) if name in UNCLEAR]
    lines = [
        f"observations: {_counted(names['observations'])}",
        f"actions: {actions if spec.discrete or len(names['actions']) < 9 else _counted(names['actions'])}",
        f"columns: {' '.join(others)}",
        *([f"not used: {_shortened(plan.unused)}"] if plan.unused else []),
        f"ends: {stored.terminated:,} of {count:,} episodes terminated, {cut:,} {'was' if cut == 1 else 'were'} cut",
        *stored.said,
        *([UNCLEAR_SAID.format(*ended)] if ended and "terminated" not in arguments.roles else []),
        f"{arguments.id}: {count:,} episode{'s' if count > 1 else ''}, {int(stored.lengths.sum()):,} steps, return "
        f"{np.mean(stored.returns):.1f} ± {np.std(stored.returns):.1f}, in {root() / arguments.id}",
    ]
    judge = [] if arguments.env else ["env=none"]
    train = shell.command("dataset=minari", shell.override("dataset.id", arguments.id), *judge)
    return [*lines, f"train on it: {train}"]


def _counted(names: Sequence[str]) -> str:
    return (f"{len(names)} numbers: " if len(names) > 1 else "") + _shortened(names)


def _shortened(names: Sequence[str]) -> str:
    """The names of entries, of which those of one column are told together."""
    parts = [list(own) for _, own in groupby(names, lambda name: name.rpartition("[")[0] or name)]
    told = [own[0] + (f" to {own[-1]}" if len(own) > 1 else "") for own in parts]
    return ", ".join(told[:12]) + (f" and {len(told) - 12:,} more" if len(told) > 12 else "")
