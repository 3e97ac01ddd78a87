"""Which run a folder is of, what a command line means before Hydra reads it, and what is left of a mistake."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from awr_exp import arguments, command, config, results, run_folder, settings
from awr_exp.data import minari
from awr_exp.errors import UserError
from awr_exp.sweep.sweeper import Grid
from awr_exp.sweep.tuner import Tuner
from tests.conftest import SMALL, Cli, composed, train
from tests.test_cli import refused


def whole(*overrides: str) -> Any:
    """A configuration as Hydra hands it to a callback, its own part included."""
    composed()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = "outputs"
    return cfg


def leave_a_run(folder: Path, *overrides: str, configuration: bool = True) -> None:
    """What is left of a run that came some way."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoint").mkdir()
    if configuration:
        cfg = whole(*overrides)
        task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        OmegaConf.save(task, folder / ".hydra" / "config.yaml")
        OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
        OmegaConf.save(OmegaConf.masked_copy(cfg, ["hydra"]), folder / ".hydra" / "hydra.yaml")


def check(*overrides: str) -> Any:
    """Its configuration, if a run may start with these overrides."""
    cfg = whole(*overrides)
    command.Check().on_run_start(cfg)
    return cfg


@pytest.fixture(autouse=True)
def no_hydra() -> Any:
    yield
    HydraConfig.instance().cfg = None


def test_a_run_keeps_its_configuration_and_its_paths_whatever_is_said_of_hydra_s_folders(tmp_path: Path) -> None:
    place = f"hydra.run.dir={tmp_path}/new"
    for told in ("hydra.output_subdir=null", "hydra.output_subdir=elsewhere", "hydra.job.chdir=true"):
        cfg = check(place, told)
        assert (cfg.hydra.output_subdir, cfg.hydra.job.chdir) == (".hydra", False)
    run = tmp_path / "run"
    leave_a_run(run, "agent.beta=0.5")
    # One that goes on is where it is, and its configuration is not written anew.
    cfg = check(f"resume={run}", "hydra.output_subdir=.hydra")
    assert (cfg.hydra.output_subdir, cfg.hydra.run.dir) == (None, str(run))
    with pytest.raises(SystemExit, match=r"goes on in its own folder: leave out hydra\.run\.dir"):
        check(f"resume={run}", place)


def test_no_run_passes_for_another(tmp_path: Path) -> None:
    for name, given in {"known": True, "lost": False}.items():
        leave_a_run(tmp_path / name, "agent.beta=0.5", "seed=1", configuration=given)
    known = f"hydra.run.dir={tmp_path}/known"
    check(known, "agent.beta=0.5", "seed=1")
    # The same said in another way is the same.
    check(known, "seed=1", "agent.beta=0.50")
    check(known, "seed=1", "agent.beta=0.5", "weighting=exp_clip")
    with pytest.raises(SystemExit, match=r"known was started as agent.beta=0.5 seed=1: give the same command"):
        check(known, "agent.beta=0.5")
    with pytest.raises(SystemExit, match="holds a run whose configuration is not there: choose another folder"):
        check(f"hydra.run.dir={tmp_path}/lost", "agent.beta=0.5", "seed=1")
    # Under the same name, something else may be meant by now.
    saved = tmp_path / "known" / ".hydra" / "config.yaml"
    saved.write_text(saved.read_text().replace("gamma: 0.99", "gamma: 0.9"))
    with pytest.raises(SystemExit, match=r"was started with agent\.gamma=0\.9, not 0\.99: "):
        check(known, "agent.beta=0.5", "seed=1")


def test_what_is_left_of_a_mistake_keeps_nobody_out(tmp_path: Path) -> None:
    leave_a_run(tmp_path / "run", "agent.beta=0.5")
    (tmp_path / "run" / "checkpoint").rmdir()
    check(f"hydra.run.dir={tmp_path}/run", "agent.beta=0.7")


def test_who_begins_in_the_same_folder_at_the_same_time_is_not_taken_for_the_first(tmp_path: Path) -> None:
    """Both found it empty; the second has kept its configuration there, and the first ends without touching it."""
    folder = tmp_path / "run"
    first = check(f"hydra.run.dir={folder}", "agent.beta=0.5")
    leave_a_run(folder, "agent.beta=0.7")
    (folder / "checkpoint").rmdir()
    task = OmegaConf.masked_copy(first, [str(key) for key in first if key != "hydra"])
    with pytest.raises(UserError, match=r"was started as agent\.beta=0\.7: give the same command"):
        run_folder.check_kept(folder, ["agent.beta=0.5"], task)
    run_folder.forget(folder)
    assert (folder / ".hydra" / "config.yaml").exists()


@pytest.mark.parametrize("kind", [Grid, Tuner])
def test_a_sweep_has_its_folder_for_itself(kind: type[Grid], tmp_path: Path) -> None:
    sweeper: Any = MagicMock(n_trials=1, batch_size=1, rungs=1, seed=0, storage=None)
    sweeper.space.return_value = ({"agent.beta": SimpleNamespace(choices=["1"])}, [])
    with results.file_lock(tmp_path), pytest.raises(UserError, match="another process is at work in"):
        kind.train(sweeper, [], tmp_path)
    sweeper.launcher.launch.assert_not_called()


def test_a_configuration_in_place_of_ours_is_answered_in_one_line() -> None:
    with pytest.raises(UserError, match=r"the configuration mine has no hydra\.callbacks\.check"):
        command.check_complete(OmegaConf.create({"callbacks": {}, "job": {"config_name": "mine"}}))
    command.check_complete(whole().hydra)


def test_the_saved_configuration_is_what_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own weighting has a parameter that no weighting of ours has, and its options are not here."""
    leave_a_run(tmp_path, "agent.beta=0.5")
    hidden = tmp_path / ".hydra"
    saved: Any = OmegaConf.load(hidden / "config.yaml")
    saved.weighting = {"_target_": "mine.softly", "_partial_": True, "scale": 2.0}
    OmegaConf.save(saved, hidden / "config.yaml")
    options: Any = OmegaConf.load(hidden / "hydra.yaml")
    options.hydra.runtime.choices.weighting = "mine"
    OmegaConf.save(options, hidden / "hydra.yaml")
    typed = [f"resume={tmp_path}", "trust=[mine.softly]", "weighting.scale=3.0", "agent.gamma=0.9"]
    given = arguments.to_resume(typed)
    assert [one for one in given if "weighting" in one] == ["++weighting.scale=3.0"]
    cfg = check(*given)
    cfg = command.resumed(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    assert (cfg.weighting.scale, cfg.weighting._target_) == (3.0, "mine.softly")
    assert (cfg.agent.beta, cfg.agent.gamma) == (0.5, 0.9)
    with pytest.raises(SystemExit, match=r"there is no weighting\.scal in the configuration of the run to resume"):
        arguments.to_resume([typed[0], "weighting.scal=3.0"])
    with pytest.raises(SystemExit, match=r"wants to call 'mine.softly'.*; if it is yours, 'trust=\[mine.softly\]'"):
        check(*arguments.to_resume(typed[:1]))


@pytest.mark.parametrize("name", ["plain", "a=1,b=2 (läuft)", "it's"])
@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_folder_in_quotes_is_the_same(name: str, quote: str, tmp_path: Path) -> None:
    leave_a_run(tmp_path / name, "trainer=online", "env=cartpole")
    text = str(tmp_path / name).replace(quote, "\\" + quote)
    given = arguments.to_resume([f"resume={quote}{text}{quote}", "trainer.env_steps=1"])
    assert {"trainer=online", "env=cartpole", "dataset=none"} <= set(given)
    assert check(*given).hydra.run.dir == str(tmp_path / name)


def test_an_option_named_again_changes_nothing(tmp_path: Path) -> None:
    leave_a_run(tmp_path, "agent.beta=0.5")
    cfg = check(f"resume={tmp_path}", "agent='awr'")
    assert command.resumed(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])).agent.beta == 0.5


@pytest.mark.parametrize("deleted", ["dataset", "baseline", "logger", "collect", "experiment", "trust"])
def test_what_is_deleted_is_none(deleted: str, tmp_path: Path) -> None:
    others = ["trainer=online", "env=cartpole"] if deleted == "dataset" else []
    cfg = check(*arguments.understood([f"~{deleted}", f"hydra.run.dir={tmp_path}/run", *others]))
    values = settings.values(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    assert not values.get({"collect": "recorder"}.get(deleted, deleted))


@pytest.mark.parametrize("deleted", ["seed", "device", "agent", "env", "trainer", "weighting"])
def test_what_every_run_needs_cannot_be_deleted(deleted: str) -> None:
    with pytest.raises(SystemExit, match=rf"^error: {deleted} is "):
        check(f"~{deleted}")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["threads=1", "-m", "agent.beta=1,2"], ["threads=1", "agent.beta=1,2", "-m"]),
        (["a=1", "--cfg", "job", "-p", "agent", "b=2"], ["a=1", "b=2", "--cfg", "job", "-p", "agent"]),
        (["a=1", "--config-dir=x", "b=2", "--info"], ["a=1", "b=2", "--config-dir=x", "--info"]),
        (["a=1", "--info", "all", "b=2"], ["a=1", "b=2", "--info", "all"]),
        (
            ["agent.max_grad_norm=None", "a=None,1", "b=[None, 2]"],
            ["agent.max_grad_norm=null", "a=null,1", "b=[null, 2]"],
        ),
        (["a='None'", "b=NoneSuch", "c=Some None", "~d"], ["a='None'", "b=NoneSuch", "c=Some null", "~d"]),
    ],
)
def test_a_command_line_is_understood(typed: list[str], meant: list[str]) -> None:
    assert arguments.understood(typed) == meant


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--agent.beta=0.3", r"without hyphens, as agent.beta=0.3; .*\$\{args_no_hyphens\}"),
        ("-agent.beta=0.3", r"without hyphens, as agent.beta=0.3; "),
        ("--seed", r"without hyphens, as seed; "),
        ("agent={'beta': 0.3, 'max_weight': 20}", r"give its values one by one, as agent.beta=0.3$"),
        ("agent={beta: 0.3}", r"one by one, as agent.beta=0.3$"),
    ],
)
def test_what_a_wandb_agent_writes_is_answered_in_one_line(typed: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message) as error:
        arguments.understood(["seed=1", typed])
    assert "\n" not in str(error.value)


def test_a_relative_config_path_is_one_of_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for typed in (["--config-path", "mine"], ["-cp=mine"]):
        assert get_args(arguments.understood(typed)).config_path == f"{tmp_path}/mine"


def test_a_part_that_is_missing_is_said_by_its_name(tmp_path: Path) -> None:
    for name, reason in {
        "exp_clip.soft": "No module named 'exp_clip'",
        "awr_exp.math.weights.exp_clop": r"awr_exp.math.weights has no exp_clop; did you mean exp_clip\?",
        "awr_exp.maths.weights": "awr_exp has no maths; did you mean math",
    }.items():
        with pytest.raises(UserError, match=f"^'{name}' cannot be found: .*{reason}") as error:
            train([composed(f"weighting._target_={name}")], [tmp_path / "run"])
        assert "\n" not in str(error.value)


def test_a_relative_place_of_data_sets_is_one_of_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "data")
    assert minari.root() == tmp_path / "data"


def test_jobs_of_a_sweep_have_folders_of_their_own(cli: Cli, tmp_path: Path) -> None:
    refused(
        cli("-m", "agent.beta=1,2", "hydra.sweep.subdir=one"), "is the folder of job 0, too: leave out hydra.sweep."
    )
    assert not (tmp_path / "outputs").exists()


def test_a_mistake_leaves_no_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    refused(cli(*SMALL, "head=categorical", "hydra.run.dir=mine/deep/run"), "needs discrete actions")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.slow
def test_own_parts_and_paths_of_where_the_command_was_typed(cli: Cli, tmp_path: Path, datasets: Path) -> None:
    """With Hydra's folder off, in a folder that moves, by the command that is printed."""
    (tmp_path / "conf" / "weighting").mkdir(parents=True)
    (tmp_path / "conf" / "weighting" / "mine.yaml").write_text("_target_: mine.softly\n_partial_: true\nscale: 2.0\n")
    (tmp_path / "mine.py").write_text(
        "from awr_exp.math import weights\n\n"
        "def softly(advantage, beta, max_weight, scale):\n"
        "    return weights.exp_clip(advantage / scale, beta, max_weight)\n"
    )
    (tmp_path / "data").symlink_to(datasets)
    root = {"MINARI_DATASETS_PATH": "data"}
    own = ["--config-dir", "conf", "weighting=mine", "hydra.output_subdir=null", "hydra.job.chdir=true"]
    done = cli(*SMALL, "trainer.updates=30", *own, "hydra.run.dir=run", **root)
    assert done.returncode == 0, done.stdout
    assert results.read(tmp_path / "run").status == "finished"
    assert results.overrides(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved (1)")
    resume = config.to_resume(tmp_path / "moved (1)")
    done = subprocess.run(
        ["bash", "-c", f"{resume} weighting.scale=3.0 trainer.updates=40"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | root,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert results.read(tmp_path / "moved (1)").update == 40


def test_the_command_finds_modules_of_the_current_folder_and_completes_own_options(tmp_path: Path) -> None:
    (tmp_path / "own" / "agent").mkdir(parents=True)
    (tmp_path / "own" / "agent" / "special.yaml").write_text("defaults: [awr]\n")
    program = Path(sys.executable).parent / "awr-exp"
    line = "awr-exp --config-dir own agent=s"
    env = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = subprocess.run([program, "-sc", "query=bash"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["agent=special"], done.stderr
