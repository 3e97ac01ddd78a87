"""What README and docs/ say: every command composes, what takes seconds is run, and all that is linked to is there."""

import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

import awr_exp
from awr_exp import arguments as command_line
from awr_exp import command, compare, config, dashboard, listing, settings
from awr_exp.building import dataset
from awr_exp.data import minari
from awr_exp.evaluate import __main__ as evaluation
from awr_exp.evaluate.__main__ import in_our_grammar
from awr_exp.exporting import __main__ as exporting
from awr_exp.help import SUBCOMMANDS
from awr_exp.importing import arguments as importing
from awr_exp.report.__main__ import main as report
from awr_exp.training import rows
from tests.conftest import SMALL, Cli, composed, train

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PRIMARY = {"main": "config", "collect": "collection", "evaluate": "evaluation"}
RUN, SWEEP = "outputs/runs/<date>/<time>", "outputs/sweeps/<date>/<time>"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[str]:
    """The command lines of awr_exp in a page: of blocks of code, and of code within sentences."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for language, block in FENCED.findall(text) if language == "bash" for line in block.splitlines()]
    rest = FENCED.sub("", text)
    lines += re.findall(r"^    (\S.*)$", rest, re.MULTILINE) + re.findall(r"`([^`\n]+)`", rest)
    for line in lines:
        for part in line.split(" && "):
            if re.match(r"(python -m awr_exp\.|awr-exp )", part):
                yield shlex.join(shlex.split(part, comments=True))


COMMANDS = list(dict.fromkeys(line for page in PAGES for line in commands(page)))


def parts(line: str, run: Path) -> tuple[str, list[str]]:
    """The module that a command line calls, and its arguments; what stands for a run's folder is this one."""
    words = shlex.split(line.replace(RUN, str(run)).replace(SWEEP, str(run)))
    module, arguments = ("main", words[1:]) if words[0] == "awr-exp" else (words[2].partition(".")[2], words[3:])
    if module == "main" and arguments and arguments[0] in SUBCOMMANDS:
        module = arguments.pop(0)
    return module, arguments


def ends(overrides: Sequence[str]) -> list[list[str]]:
    """The first and the last job of a multirun; a space to search stays out."""

    def values(override: Override) -> list[str]:
        if not override.is_sweep_override():
            return [str(override.input_line)]
        if not (override.is_choice_sweep() or override.is_range_sweep()):
            return [""]
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]

    found = [values(override) for override in OverridesParser.create().parse_overrides(list(overrides))]
    return [[job for choice in found if (job := choice[end])] for end in (0, -1)]


def jobs(arguments: list[str]) -> list[list[str]]:
    """The overrides of the jobs that a command of main starts: its own, or those of its first and last job."""
    given = [argument for argument in arguments if not argument.startswith("-")]
    if sweeps := [argument for argument in given if argument.startswith("+sweep=")]:
        (name,) = (sweep.partition("=")[2] for sweep in sweeps)
        params: Any = OmegaConf.load(config.SWEEPS / "sweep" / f"{name}.yaml")
        given += [f"{key}={value}" for key, value in params.hydra.sweeper.params.items()]
    return ends(given) if sweeps or "-m" in arguments else [given]


@pytest.fixture(scope="module", autouse=True)
def hydra_knows_our_parts() -> None:
    composed()


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=pytest.mark.long if n % 4 else ()) for n, line in enumerate(COMMANDS)]
)
def test_every_command_composes(line: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, arguments = parts(line, finished)
    if {"--help", "--config-dir", "-sc"} & set(arguments):
        return
    if module == "report":
        return report([*arguments, str(finished), "--out", str(tmp_path)])
    if module in ("import", "importing"):
        # Alone, it is named and not given.
        assert not arguments or importing.parse(arguments).files
        return None
    if module == "describe":
        given = [word for word in arguments if "=" in word]
        # Alone, it is named and not given.
        assert not given or dataset.chosen(given)
        return None
    if module in ("list", "listing"):
        return listing.main([str(finished), *(one for one in arguments if one.startswith("--"))])
    if module == "compare":
        return compare.main([str(finished), str(finished)])
    if module == "dashboard":
        pytest.importorskip("wandb_workspaces")
        return dashboard.main([*arguments, "--out", str(tmp_path / "dashboard.json")])
    if module in ("export", "exporting"):
        # That a policy is written as a file is tested where that is.
        assert not arguments or exporting.chosen(Path(arguments[1]))
        exporting.read(arguments[2:])
        return None
    if module == "evaluate":
        arguments = in_our_grammar(arguments)
    overrides = [word for word in arguments if word not in ("--cfg", "job")]
    for plugin in re.findall(r"hydra/launcher=([a-z]+)", line):
        if plugin in command_line.PLUGINS:
            pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    overrides = command_line.understood(overrides)
    for job in jobs(command_line.to_resume(overrides)) if module == "main" else [overrides]:
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            cfg = compose(PRIMARY[module], job, return_hydra_config=True)
        task: Any = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        if module == "collect":
            # Alone, it is named and not given.
            assert not job or settings.values(task, settings.COLLECTION)["dataset_id"]
        elif module == "evaluate":
            known = settings.values(task, settings.EVALUATION)
            evaluation.check(known | {"runs": known["runs"] or ["any"]})
        elif any(word.startswith("resume=") for word in job):
            command.Check().on_run_start(cfg)
        else:
            settings.check(task)


ELSEWHERE = re.compile(
    r" -m | -|\+sweep=|<|dataset=minari|my_module|wrappers|nexus|lunarlander|halfcheetah|online_paper|logger"
)
"""Sweeps, runs to resume, tasks that need a download or an extra, and choices of loggers."""
QUICK = [line for line in COMMANDS if re.match(r"python -m awr_exp.main\b(?!.*(" + ELSEWHERE.pattern + "))", line)]
SHORT = {
    "updates": 4, "env_steps": 64, "envs": 2, "report_interval": 2, "eval_interval": 64,
    "samples_per_iteration": 32, "critic_steps": 2, "actor_steps": 2, "learning_starts": 32,
}  # fmt: skip


LENGTHY = re.compile("pixel_grid|point_maze|fqe|video")
"""Data sets to collect, and what is done at the end."""


def by_turns(lines: Sequence[str]) -> list[Any]:
    """Half of the commands for every run of the tests, if they take no longer; the others for the slow ones."""

    def mark(place: int, line: str) -> Any:
        return pytest.mark.slow if place % 2 else pytest.mark.long if LENGTHY.search(line) else ()

    return [pytest.param(line, marks=mark(place, line)) for place, line in enumerate(lines)]


@pytest.mark.parametrize("line", by_turns(QUICK))
def test_what_takes_seconds_runs(line: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, given = parts(line, tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(_root(datasets, tmp_path)))
    layers = "network.trunk.hidden" if "pixel" in line else "network.hidden"
    small = [f"{layers}=[8]", "logger=jsonl", "trainer.eval_episodes=1", "trainer.compile=false"]
    cfg = composed(*given, *small)
    trainer = cfg["trainer"]
    for node in (trainer, trainer.get("pretrain") or {}, trainer.get("schedule") or {}):
        node |= {name: number for name, number in SHORT.items() if name in node}
    (outcome,) = train([cfg], [tmp_path / "run"])
    assert outcome.error is None
    judged = {"evaluate=fqe": "fqe/return_mean", "holdout=none": "train/ess", "env=none": "heldout/nll"}
    assert next((judged[word] for word in judged if word in given), "eval/return_mean") in outcome.metrics
    assert (tmp_path / "run" / "result.json").exists()


def _root(datasets: Path, tmp_path: Path) -> Path:
    """A root of Minari's of the test's own, with the built-in data sets."""
    root = tmp_path / "minari"
    root.mkdir()
    (root / "awr_exp").symlink_to(datasets / "awr_exp")
    return root


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(
    page: Path, datasets: Path, smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(_root(datasets, tmp_path)))
    names: dict[str, Any] = {"obs": np.zeros(3)}
    for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(block.replace(RUN, str(smoke_run)), str(page), "exec"), names)
    if page.name == "quickstart.md":
        assert names["action"].shape == (1,)
    elif page.name == "data.md":
        assert minari.load("mine/pendulum-v0").info.episodes == 3


def test_the_own_part_of_the_guide_runs_as_it_says(cli: Cli, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for _, block in FENCED.findall(page):
        if path := re.match(r"# (\S+\.(py|yaml))\n", block):
            (tmp_path / path[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path[1]).write_text(block)
    (line,) = (line for line in commands(ROOT / "docs" / "extending.md") if "--config-dir my_conf" in line)
    done = cli(*parts(line, tmp_path)[1], *SMALL)
    assert done.returncode == 0, done.stdout
    (run,) = tmp_path.glob("outputs/runs/*/*")
    saved = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    assert saved["weighting"] == {"_target_": "my_power.power", "_partial_": True, "exponent": 3.0}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_option_is_in_the_table_of_groups() -> None:
    text = (ROOT / "docs" / "groups.md").read_text(encoding="utf-8")
    for group in sorted(config.GROUPS - {"hydra"}):
        (row,) = re.findall(rf"^\| `{group}` \|.*$", text, re.MULTILINE)
        for option in config.options(group):
            assert f"`{option}`" in row or option.startswith(("online_", "mujoco_", "antmaze_")), f"{group}={option}"


def test_every_metric_that_is_logged_is_in_the_table_of_metrics(smoke_run: Path) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert {row["name"] for row in rows.read(smoke_run) if f"`{row['name']}`" not in text} <= {"env_steps"}


def test_the_readme_is_short_and_the_version_is_the_same_everywhere() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == awr_exp.__version__
    assert project["license"] == citation["license"] == "MIT"
