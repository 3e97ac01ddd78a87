"""What other people's code and terminals set for the whole process changes nothing of ours."""

import codecs
import io
import logging
import os
import subprocess
import sys
import warnings
from locale import LC_ALL, setlocale
from pathlib import Path

import numpy as np
import pytest
import torch

import awr_exp
from awr_exp import machine, results
from awr_exp.data import cache, minari
from awr_exp.errors import UserError
from awr_exp.surroundings import _in_ascii, _settings, begin, kept, usual
from awr_exp.training import progress
from awr_exp.training.rows import read
from tests.conftest import SMALL, composed, start, train

RUDE = """
import locale, logging, warnings
import gymnasium, numpy, torch
from gymnasium.envs.classic_control import CartPoleEnv


def rude():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    torch.set_printoptions(precision=1)
    numpy.seterr(all="raise")
    numpy.set_printoptions(precision=1)
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    locale.setlocale(locale.LC_ALL, "C")


class Rude(CartPoleEnv):
    def __init__(self, **options):
        rude()
        super().__init__(**options)

    def reset(self, **options):
        rude()
        return super().reset(**options)

    def step(self, action):
        rude()
        return super().step(action)


rude()
gymnasium.register("Rude-v0", Rude, max_episode_steps=50)
gymnasium.register("Tame-v0", CartPoleEnv, max_episode_steps=50)
"""
ONLINE = [
    "trainer=online", "env=gym", "network.hidden=[16]", "logger=jsonl", "trainer.eval_episodes=2", "trainer.envs=4",
    "schedule.samples_per_iteration=64", "schedule.critic_steps=5", "schedule.actor_steps=10", "trainer.compile=false",
    "trainer.report_interval=128", "trainer.eval_interval=128", "trainer.env_steps=256",
]  # fmt: skip


def settings() -> dict[str, object]:
    return {name: setting.get() for name, setting in _settings().items()}


def rude() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True)
    np.seterr(all="raise")
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    setlocale(LC_ALL, "C")


def test_what_is_set_inside_is_as_before_afterwards() -> None:
    before = settings()
    with kept():
        rude()
        assert settings() != before
        theirs = settings()
        with usual():
            # As torch and NumPy begin, and whoever is rude inside is not so for long.
            assert torch.zeros(1).dtype == torch.float32
            assert torch.zeros(1).device.type == "cpu"
            assert torch.is_grad_enabled()
            with kept():
                rude()
            warnings.warn("no error", stacklevel=1)
            assert np.exp(np.float32(-1e3)) == 0
        assert settings() == theirs
    assert settings() == before


def test_a_rude_module_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rude_module.py").write_text(RUDE)
    monkeypatch.syspath_prepend(tmp_path)
    rows = []
    for name in ("Tame", "Rude"):
        before = settings()
        cfg = composed(*ONLINE, f"env.id=rude_module:{name}-v0")
        (outcome,) = train([cfg], [tmp_path / name])
        assert outcome.error is None
        assert settings() == before
        rows.append([row for row in read(tmp_path / name) if not row["name"].endswith("per_second")])
    assert rows[0] == rows[1]
    assert {"eval/return_mean", "train/ess"} <= {row["name"] for row in rows[0]}


def test_a_policy_acts_the_same_in_a_program_with_other_defaults(finished: Path) -> None:
    obs = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 5.0]])
    plain = awr_exp.load(finished)
    with kept():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        np.seterr(all="raise")
        other = awr_exp.load(finished)
        assert np.array_equal(other(obs), plain(obs))
        assert other(obs).dtype == np.float32
        assert np.array_equal(other(obs, deterministic=False), plain(obs, deterministic=False))
        assert torch.get_default_dtype() == torch.float64


def test_what_a_terminal_does_not_know_is_written_otherwise() -> None:
    codecs.register_error("awr_exp_test", _in_ascii)
    for text, written in {"1 ± 2 – …": b"1 +- 2 - ...", "über": b"\\xfcber", "\udcfcber": b"\xfcber"}.items():
        assert text.encode("ascii", "awr_exp_test") == written


def test_what_a_command_begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of W&B's that a container leaves empty are not set; a folder that Hydra would misread is named."""
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    begin()
    assert "WANDB_MODE" not in os.environ
    assert os.environ["WANDB_PROJECT"] == "mine"
    (tmp_path / "${x}").mkdir()
    monkeypatch.chdir(tmp_path / "${x}")
    with pytest.raises(SystemExit, match="for a reference: change to a folder without it"):
        begin()


def test_errors_and_closing_lines_are_heard_however_logging_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    root, log = logging.getLogger(), logging.getLogger("awr_exp.heard")
    before = root.handlers[:], root.level
    try:
        root.handlers, log.disabled = [], True
        root.setLevel(logging.ERROR)
        progress.heard()
        progress.heard()
        log.info("chatter")
        log.log(progress.CLOSING, "go on with")
        log.error("error: wrong")
        assert capsys.readouterr().out == "go on with\nerror: wrong\n"
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])


def test_without_a_home_data_sets_need_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert machine.cache_home() is None
    assert len(list(cache._places(Path("somewhere")))) == 1
    with pytest.raises(UserError, match="this user has no home folder to keep data sets in: set MINARI_DATASETS_PATH"):
        minari.root()


@pytest.mark.slow
def test_ascii_only_and_no_logging(tmp_path: Path, datasets: Path) -> None:
    run = tmp_path / "\u00fcber" / "run"
    surroundings = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = start(
        tmp_path, datasets, *SMALL, "trainer.updates=60", f"hydra.run.dir='{run}'", "hydra/job_logging=disabled",
        "hydra/hydra_logging=disabled", **surroundings,
    )  # fmt: skip
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "+-" in output
    assert f"results: {tmp_path}/" in output
    assert output.isascii()
    assert results.read(run).status == "finished"
    assert not (run / "train.log").exists()


@pytest.mark.slow
def test_a_user_without_name_and_home(tmp_path: Path, datasets: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\n\ndef getpwuid(uid):\n    raise KeyError(uid)\n\npwd.getpwuid = getpwuid\n"
    )
    gone = {"HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}
    env = {name: value for name, value in os.environ.items() if name not in gone}
    env |= {"PYTHONPATH": str(tmp_path), "MINARI_DATASETS_PATH": str(datasets), "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "awr_exp.main", *SMALL, "logger=[jsonl,wandb]", "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert results.read(tmp_path / "run").status == "finished"
    assert "Traceback" not in done.stdout + done.stderr
