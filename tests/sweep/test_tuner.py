"""The search: its spaces, a real study, what pruning saves, and how it goes on after kill -9."""

import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.training.rows import read
from tests.conftest import SMALL, Cli, start, trainer_of

optuna = pytest.importorskip("optuna")
from awr_exp.sweep.space import distribution  # noqa: E402
from awr_exp.sweep.study import check_space, open_study, propose  # noqa: E402
from awr_exp.sweep.tuner import Tuner, _unmeasured, promising  # noqa: E402

SEARCH = [
    *SMALL, "hydra/sweeper=optuna", "agent.beta=tag(log,interval(0.03,3.0))", "seed=0",
    "hydra.sweeper.n_trials=5", "hydra.sweeper.batch_size=4", "hydra.sweeper.rungs=2", "trainer.updates=100",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(0.1,2.0)", optuna.distributions.FloatDistribution(0.1, 2.0)),
        ("a=tag(log,interval(1e-5,1e-2))", optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)),
        ("a=int(interval(1,5))", optuna.distributions.IntDistribution(1, 5)),
        ("a=x,y", optuna.distributions.CategoricalDistribution(["x", "y"])),
        ("a=choice(1,2)", optuna.distributions.CategoricalDistribution(["1", "2"])),
        ("a=range(0,6,2)", optuna.distributions.IntDistribution(0, 4, step=2)),
    ],
)
def test_spaces_are_hydras(text: str, expected: Any) -> None:
    assert distribution(OverridesParser.create().parse_override(text)) == expected


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20, unique=True))
def test_the_better_half_goes_on(values: list[float]) -> None:
    kept = [value for value in values if promising(value, values)]
    assert sorted(kept) == sorted(values)[len(values) // 2 :]


@pytest.mark.slow
def test_hopeless_trials_stop_early_and_leave_their_places(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", *SEARCH, f"hydra.sweep.dir={tmp_path}/sweep")
    assert done.returncode == 0, done.stdout
    runs = results.runs(tmp_path / "sweep")
    assert len(runs) == 5
    reached = {run.folder.name: run.update for run in runs}
    assert set(reached.values()) == {50, 100}
    # Of the first batch of four the better half went on.
    assert sorted(reached[name] for name in "0123") == [50, 50, 100, 100]
    pruned = re.findall(r"pruned +(\d+)", done.stdout)
    assert sorted(pruned) == sorted(name for name, update in reached.items() if update == 50)
    # What went on was not trained twice: its rows are those of one run.
    whole = next(run for run in runs if run.update == 100)
    updates = [row["update"] for row in read(whole.folder) if row["name"] == "train/value_loss"]
    assert updates == [50, 100]
    # The best of those that went all the way, as a command.
    finished = {run.folder.name: run.metrics["eval/return_mean"] for run in runs if run.update == 100}
    best = max(finished, key=lambda name: finished[name])
    beta = results.overrides(tmp_path / "sweep" / best)["agent.beta"]
    assert re.search(rf"best, -\S+: python -m awr_exp.main .*agent.beta={re.escape(beta)}", done.stdout), done.stdout
    study = optuna.load_study(
        study_name=f"{tmp_path.name}/sweep",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "sweep" / "optuna.journal"))
        ),
    )
    assert study.best_value == pytest.approx(finished[best])
    # The report recommends the same, by the same number, and compares none that was judged earlier.
    score = re.escape(f"{study.best_value:.4g}")
    short = re.escape(f"{float(beta):.4g}")
    assert re.search(rf"Use beta={short} \(return {score} of 1 run\)", done.stdout), done.stdout
    assert f"best, {study.best_value:.4g}: " in done.stdout
    assert f"{len(pruned)} runs have been judged elsewhere than at 100 updates" in done.stdout
    assert {run.folder.name for run in runs if run.status == "pruned"} == set(pruned)
    # In the table they come last, whatever they returned.
    jobs = re.findall(r"^agent.beta=\S+ .* (finished|pruned) ", done.stdout, re.MULTILINE)
    assert jobs == sorted(jobs)


@pytest.mark.slow
def test_trials_that_count_environment_steps_are_judged_at_those(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "-m", *SMALL[1:], *SEARCH[len(SMALL) : -1], "hydra.sweeper.n_trials=3", f"hydra.sweep.dir={tmp_path}/sweep",
        "trainer=online", "env=cartpole", "schedule=interleaved", "schedule.learning_starts=16",
        "trainer.env_steps=128", "trainer.compile=false", "objective=train/mean_weight",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    runs = results.runs(tmp_path / "sweep")
    # Of three two go on, each as one run.
    assert sorted(run.env_steps for run in runs) == [64, 128, 128]
    whole = next(run for run in runs if run.env_steps == 128)
    assert [row["env_steps"] for row in read(whole.folder) if row["name"] == "train/mean_weight"] == [64, 128]


def asked(folder: Path, space: dict[str, Any], count: int) -> list[tuple[Any, ...]]:
    """What a search of two processes proposes, the second of which goes on with `count` more trials."""
    for _ in range(2):
        study = open_study(folder, None, ["agent.gamma=0.9"])
        for _ in range(count):
            trial = propose(study, space, seed=0)
            if trial is not None:
                study.tell(trial, -float(trial.number))
    return [tuple(trial.params.values()) for trial in study.get_trials()]


SPACES = {
    "numbers": {"agent.beta": optuna.distributions.FloatDistribution(0.03, 3.0, log=True)},
    "few": {"agent": optuna.distributions.CategoricalDistribution(["awr", "bc"]),
            "seed": optuna.distributions.IntDistribution(0, 2)},
    "steps": {"agent.beta": optuna.distributions.FloatDistribution(0.1, 0.5, step=0.1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", SPACES)
def test_a_search_that_goes_on_proposes_nothing_twice(kind: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    found = asked(tmp_path / "one", SPACES[kind], 6)
    assert len(found) == {"numbers": 12, "few": 6, "steps": 5}[kind]
    assert len(set(found)) == len(found)
    # Nor does it matter where it was interrupted.
    (tmp_path / "two").mkdir()
    assert found[:6] == asked(tmp_path / "two", SPACES[kind], 3)[:6]


def test_a_study_of_another_space_is_refused_before_anything_is_asked() -> None:
    few, beta = SPACES["few"], SPACES["numbers"]
    study = optuna.create_study()
    for _ in range(2):
        study.ask(few)
    for other in (few | {"agent": optuna.distributions.CategoricalDistribution(["awr", "rwr"])}, few | beta, beta):
        with pytest.raises(UserError, match="the study was started with another space"):
            check_space(study, other)
    # One that was killed before it had all its parameters would train with the defaults of the others.
    study.ask({"agent": few["agent"]})
    for _ in range(2):
        check_space(study, few)
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "RUNNING", "FAIL"]


@pytest.mark.parametrize("params", [{"weighting._target_": "os.system"}, {"agent.beta": "{_target_: os.system}"}])
def test_what_a_study_holds_is_no_override_of_its_own(params: dict[str, Any]) -> None:
    study = optuna.create_study()
    study.add_trial(
        optuna.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=params,
            distributions={name: optuna.distributions.CategoricalDistribution([v]) for name, v in params.items()},
        )
    )
    with pytest.raises(UserError, match="was started with another space"):
        check_space(study, SPACES["numbers"])
    study = optuna.create_study()
    study.enqueue_trial(params)
    with pytest.raises(UserError, match="was started with another space"):
        check_space(study, SPACES["numbers"])


def test_a_study_that_was_moved_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    first = asked(tmp_path / "here", SPACES["numbers"], 1)
    (tmp_path / "here").rename(tmp_path / "there")
    assert asked(tmp_path / "there", SPACES["numbers"], 1)[:2] == first
    # Also one that was begun before it had a file with its name.
    (tmp_path / "there" / "optuna.study").unlink()
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    assert len(asked(tmp_path / "elsewhere", {}, 0)) == 4


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"updates": 100}, ["trainer.updates=25"]),
        ({"env_steps": 100}, ["trainer.env_steps=25"]),
        # What changes over all steps changes over all those of the whole trial.
        ({"env_steps": 100, "anneal_steps": None}, ["trainer.anneal_steps=100", "trainer.env_steps=25"]),
        ({"env_steps": 100, "anneal_steps": 50}, ["trainer.env_steps=25"]),
        ({"updates": 100, "anneal_updates": None}, ["trainer.anneal_updates=100", "trainer.updates=25"]),
    ],
)
def test_a_rung_is_a_share_of_what_the_trainer_counts(trainer: dict[str, Any], expected: list[str]) -> None:
    # Not a whole one: Hydra's plugins are made by Hydra.
    tuner: Any = SimpleNamespace(rungs=3, compose=lambda *_: OmegaConf.create({"trainer": trainer}))
    overrides = [f"trainer.{next(iter(trainer))}=100", "agent.beta=1"]
    assert Tuner.shortened(tuner, overrides, 0, 0) == ["agent.beta=1", *expected]


@pytest.mark.slow
def test_a_killed_search_goes_on(cli: Cli, tmp_path: Path, datasets: Path) -> None:
    sweep = tmp_path / "sweep"
    options = [*SEARCH, "trainer.updates=600", "trainer.checkpoint_interval=50"]
    process = start(tmp_path, datasets, "-m", *options, f"hydra.sweep.dir={sweep}")
    deadline = time.monotonic() + 120
    while not list(sweep.glob("*/checkpoint/update_*[1-9]50.*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    first = {run.folder.name: (results.overrides(run.folder) or {})["agent.beta"] for run in results.runs(sweep)}
    changed = cli("-m", *options, "agent.gamma=0.5", f"sweep.resume={sweep}")
    assert changed.returncode == 1
    assert "was started with" in changed.stdout
    other = cli("-m", *(one for one in options if "beta" not in one), "agent.beta=1,2", f"sweep.resume={sweep}")
    assert "error: the study was started with another space" in other.stdout
    assert "Traceback" not in other.stdout
    done = cli("-m", *options, f"sweep.resume={sweep}")
    assert done.returncode == 0, done.stdout
    runs = {run.folder.name: run for run in results.runs(sweep)}
    assert len(runs) == 5
    assert {name: (results.overrides(sweep / name) or {})["agent.beta"] for name in first} == first
    assert {run.status for run in runs.values()} == {"finished", "pruned"}


@pytest.mark.slow
def test_a_trial_whose_process_was_lost_goes_on(cli: Cli, tmp_path: Path, datasets: Path) -> None:
    pytest.importorskip("joblib")
    sweep = tmp_path / "sweep"
    options = [
        *SEARCH, "hydra.sweeper.n_trials=2", "hydra.sweeper.rungs=1", "trainer.updates=1500",
        "hydra.launcher.via=joblib", "hydra.launcher.workers=2",
    ]  # fmt: skip
    process = start(tmp_path, datasets, "-m", *options, f"hydra.sweep.dir={sweep}")
    os.kill(trainer_of(process, sweep / "0"), signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert [run.status for run in results.runs(sweep)] == ["stopped", "finished"]
    done = cli("-m", *options, f"sweep.resume={sweep}")
    assert done.returncode == 0, done.stdout
    assert [run.status for run in results.runs(sweep)] == ["finished", "finished"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["agent.beta=1,2", "hydra.sweeper.n_trials=x"],
            '^error: hydra.sweeper.n_trials is "x"; it must be a whole number of at least 1',
        ),
        pytest.param(["seed=0"], "^error: there is nothing to tune", marks=pytest.mark.slow),
        (["agent.beta=interval(-1,1)"], r"^error: job 0 \(.*agent.beta=-1.0\): agent.beta is -1.0; it must be"),
        pytest.param(["agent.beta=tag(log,interval(0,1))"], "^error: agent.beta=.*low", marks=pytest.mark.slow),
        (["agent.beta=interval(0.1,1)", "hydra.sweeper.storage=nonsense"], "^error: the study cannot be stored"),
        pytest.param(
            ["agent.beta=1,2", "trainer=online", "env=cartpole", "recorder.dataset_id=mine/tuned-v0"],
            "^error: recorder.dataset_id records a whole run, but trials are judged on the way: leave it out",
            marks=pytest.mark.slow,
        ),
        (
            ["agent.beta=1,2", "trainer=online", "env=cartpole", "schedule=interleaved", "trainer.env_steps=3000"],
            "^error: of the first of 3 hydra.sweeper.rungs: .*trainer.env_steps=750, since schedule.learning_",
        ),
    ],
)
def test_a_wrong_search_is_refused(cli: Cli, arguments: list[str], message: str) -> None:
    done = cli("-m", "hydra/sweeper=optuna", *arguments)
    assert done.returncode == 1
    assert re.search(message, done.stdout, re.MULTILINE), done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_an_objective_that_nobody_measures(cli: Cli) -> None:
    done = cli("-m", *SEARCH, "env=none")
    assert done.returncode == 1
    assert "error: no trial measured eval/return_mean: choose an environment" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("env", "objective", "message"),
    [
        ("none", "eval/return_mean", "choose an environment (env=from_dataset), or an objective"),
        ("from_dataset", "eval/normalized_score", "has no reference scores, so choose objective=eval/return_mean"),
        ("from_dataset", "train/los", "train/los: choose an objective that every run logs"),
    ],
)
def test_advice_on_an_objective_is_what_has_not_been_done(env: str, objective: str, message: str) -> None:
    cfg = OmegaConf.create({"env": {"_target_": f"awr_exp.envs.make.{env}"}, "objective": objective})
    assert message in _unmeasured(cfg)


def test_a_grid_has_no_intervals(cli: Cli) -> None:
    done = cli("-m", "agent.beta=interval(0.1,1)")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*search with hydra/sweeper=optuna\n", done.stdout), done.stdout
