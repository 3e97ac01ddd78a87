"""What stands at the head of a report: how its runs were started, when, from which commits and with which versions."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from awr_exp import origin, shell
from awr_exp.errors import UserError, printable
from awr_exp.reading import read_yaml
from awr_exp.report.runs import Result
from awr_exp.report.settings import is_number
from awr_exp.training.redaction import redact

MOST, DEPTH = 3, 3
"""Different commands, commits or versions that are told; levels of folders between a sweep and a job of it."""
SWEEP, MODE = "multirun.yaml", "hydra.mode="
PLACES = ("hydra.run.dir", "hydra.sweep.dir")
"""Overrides that say where a run is, and not what it is."""
Facts = list[tuple[str, list[str]]]


def facts(folders: Sequence[Path], found: Sequence[Result]) -> Facts:
    """Names and lines of what is known of the runs in folders, and of where they come from."""
    origins = [origin.read(result.run.folder) for result in found]
    started = sorted({_time(one.started) for one in origins if one.started})
    episodes = sorted({n for result in found if is_number(n := result.config.get("trainer.eval_episodes"))})
    played = any(name.startswith("eval/") for result in found for name in result.series)
    told: Mapping[str, Iterable[str]] = {
        "folder": [str(shell.near(folder)) for folder in folders],
        "command": dict.fromkeys(filter(None, map(_command, _sources(found)))),
        "started": [" to ".join(dict.fromkeys((started[0], started[-1])))] if started else [],
        "commit": dict.fromkeys(f"{name} {hash[:12]}" for one in origins for name, hash in one.commits.items()),
        "versions": dict.fromkeys(_listed(one.versions) for one in origins if one.versions),
        "evaluation": [f"{' or '.join(f'{n:g}' for n in episodes)} episodes each time"] if episodes and played else [],
        "this report": [f"{datetime.now():%Y-%m-%d %H:%M}"],
    }
    return [(name, _few(list(lines))) for name, lines in told.items() if lines]


def _sources(found: Sequence[Result]) -> dict[Path, None]:
    """The files that say how runs were started, of those of a sweep the sweep's."""
    sources: dict[Path, None] = {}
    for folder in (result.run.folder.absolute() for result in found):
        sweeps = (parent / SWEEP for parent in folder.parents[:DEPTH])
        own = folder / ".hydra" / "hydra.yaml"
        sources[next((path for path in sweeps if path.is_file()), own)] = None
    return sources


def _command(source: Path) -> str:
    """The command line that a file of Hydra's tells of, without secrets, or nothing."""
    try:
        overrides: Any = read_yaml(source)["hydra"]["overrides"]
        words = [printable(str(one)) for one in [*overrides["hydra"], *overrides["task"]]]
    except (UserError, KeyError, TypeError):
        return ""
    many = ["-m"] if source.name == SWEEP else []
    kept = [word for word in words if not word.startswith(MODE) and shell.key(word) not in PLACES]
    return shell.words("python", "-m", "awr_exp.main", *many, *map(_without_secret, kept))


def _without_secret(override: str) -> str:
    key, equals, value = override.partition("=")
    return f"{key}{equals}{redact({key: value})[key]}"


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _time(text: str) -> str:
    return text[:16].replace("T", " ")


def _few(lines: list[str]) -> list[str]:
    more = len(lines) - MOST
    return lines if more <= 0 else [*lines[:MOST], f"and {more} more"]
