"""`awr-exp evaluate`: the numbers of training to the last bit, of several runs together, and films of them."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
import torch
import yaml

import awr_exp
from awr_exp import config, results
from awr_exp.building.build import build
from awr_exp.envs import rendering
from awr_exp.errors import UserError
from awr_exp.evaluate import __main__ as command
from awr_exp.evaluate import entries, play
from awr_exp.evaluate.together import Together
from awr_exp.metadata import policy_metadata
from awr_exp.training import checkpoint, mp4
from awr_exp.training.evaluate import FIRST_SEED
from tests.conftest import CONTINUOUS, DISCRETE, Cli, composed, train

EPISODES = 3
TINY = [
    *("network.hidden=[16]", "trainer.updates=20", "trainer.eval_interval=10", f"trainer.eval_episodes={EPISODES}"),
    *("logger=jsonl", "trainer.refresh_interval=10", "trainer.compile=false"),
]


class Drawn(gymnasium.Wrapper):
    """A short Pendulum with a small picture, which fails in a certain step of each episode, if in any."""

    def __init__(self, fails: int | None = None, blind: bool = False, render_mode: str | None = None) -> None:
        env = gymnasium.make("Pendulum-v1", render_mode=render_mode).unwrapped
        super().__init__(gymnasium.wrappers.TimeLimit(env, 20))
        self.fails, self.blind, self.steps = fails, blind, 0

    def reset(self, **options: Any) -> Any:
        self.steps = 0
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == self.fails:
            raise RuntimeError("the simulator\ncrashed")
        return self.env.step(action)

    def render(self) -> Any:
        if self.blind and self.steps:
            raise RuntimeError("the display is gone")
        return np.full((10, 11, 3), self.steps, np.uint8)


gymnasium.register("Drawn-v0", "tests.test_evaluate:Drawn")
DRAWN = ["env=gym", "env.id=tests.test_evaluate:Drawn-v0"]


def trained(folders: list[Path], cfgs: list[dict[str, Any]]) -> None:
    """Train runs as the members of one model, each with the configuration that a command leaves."""
    for folder, cfg in zip(folders, cfgs, strict=True):
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(cfg))
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([f"seed={cfg['seed']}"]))
    assert [outcome.error for outcome in train(cfgs, folders)] == [None] * len(cfgs)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, datasets: Path) -> Path:
    """A sweep of two seeds, and a run that acts by the best of several samples and has a baseline."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        trained([folder / "sweep" / name for name in "01"], [composed(*TINY, f"seed={seed}") for seed in range(2)])
        trained([folder / "best"], [composed(*TINY, "agent=iql", "policy.best_of=4", "baseline=bc")])
    return folder


def evaluated(*words: str | Path, output: Path) -> list[dict[str, Any]]:
    """What a command writes as JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", *map(str, words), "--json", str(output)])
        command.main()
    return json.loads(output.read_text())


@pytest.fixture(autouse=True)
def root(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))


AS_IN_TRAINING = ["which=latest", f"episodes={EPISODES}", f"seed={FIRST_SEED}"]


def test_numbers_are_those_of_training_to_the_last_bit(place: Path, tmp_path: Path) -> None:
    """Alone and together, by the mode and by the best of samples, of runs and of a baseline."""
    runs = [place / "sweep" / "0", place / "sweep" / "1", place / "best"]
    rows = evaluated(place / "sweep", place / "best", *AS_IN_TRAINING, output=tmp_path / "all.json")
    assert [row["run"] for row in rows] == list(map(str, runs))
    for run, row in zip(runs, rows, strict=True):
        before = results.read(run)
        assert row["returns"] == before.returns
        for name in ("return_mean", "return_std", "return_min", "return_max", "length_mean", "normalized_score"):
            assert row[name] == before.metrics[f"eval/{name}"], name
        assert (row["update"], row["env"], row["return_low"]) == (20, "Pendulum-v1", None)
    alone = evaluated(runs[1], runs[2] / "baseline", *AS_IN_TRAINING, output=tmp_path / "alone.json")
    assert alone[0] == rows[1]
    assert alone[1]["returns"] == results.read(runs[2] / "baseline").returns
    # Without judging them, the same policy acts otherwise.
    modes = evaluated(runs[2], *AS_IN_TRAINING, "best_of=1", output=tmp_path / "modes.json")
    assert modes[0]["returns"] != rows[2]["returns"]


def test_the_same_command_plays_the_same_and_other_seeds_others(place: Path, tmp_path: Path) -> None:
    long, file = [place / "sweep", *DRAWN, "episodes=25"], tmp_path / "numbers.json"
    rows = evaluated(*long, "sample=true", output=file)
    assert evaluated(*long, "sample=true", output=file) == rows
    assert len(rows[0]["returns"]) == 25
    assert rows[0]["return_low"] < rows[0]["return_mean"] < rows[0]["return_high"]
    modes = evaluated(*long, output=file)
    assert modes[0]["returns"] != rows[0]["returns"]
    # The second twenty begin where the first ones end.
    later = evaluated(place / "sweep", *DRAWN, "episodes=5", "seed=2000020", output=file)
    np.testing.assert_allclose(modes[0]["returns"][20:], later[0]["returns"], rtol=1e-4)
    scored = evaluated(place / "sweep" / "0", "episodes=5", output=file)
    assert scored[0]["normalized_low"] < scored[0]["normalized_score"] < scored[0]["normalized_high"]


def test_a_checkpoint_file_plays_where_its_run_did_or_where_it_is_told(place: Path, tmp_path: Path) -> None:
    file, output = place / "sweep" / "0" / "checkpoint" / "update_0000000020.safetensors", tmp_path / "numbers.json"
    assert evaluated(file, *AS_IN_TRAINING, output=output)[0]["returns"] == results.read(place / "sweep" / "0").returns
    moved = Path(shutil.copy(file, tmp_path / "mine.safetensors"))
    (row,) = evaluated(moved, "env=pendulum", "+env.kwargs.max_episode_steps=7", "episodes=2", output=output)
    assert (row["lengths"], row["normalized_score"]) == ([7, 7], None)
    with pytest.raises(SystemExit, match=r"^error: .*mine.safetensors does not say where it was evaluated: choose"):
        evaluated(moved, output=output)


HEADS = [name for name in config.options("head") if name != "deterministic"]
KINDS = [
    *((DISCRETE, name, []) for name in ("auto", "categorical")),
    *((CONTINUOUS, name, []) for name in HEADS if name != "categorical"),
    *((CONTINUOUS, None, [other]) for other in ("agent=td3_bc", "network=mlp_deep", "weighting=conditioned")),
]


@pytest.mark.parametrize(("spec", "head", "choices"), KINDS, ids=str)
def test_policies_of_every_kind_act_together_as_one_agent_does(
    spec: Any, head: str | None, choices: list[str], tmp_path: Path
) -> None:
    cfg = composed(*choices)
    if head:
        cfg["agent"]["head"] = yaml.safe_load((config.CONF / "head" / f"{head}.yaml").read_text())
    agent = build(cfg["agent"], spec=spec, seeds=[0, 1, 2])
    for member in range(3):
        rows = {name: tensor[member : member + 1] for name, tensor in agent.state_dict().items()}
        metadata = policy_metadata(spec, cfg["agent"]) | agent.facts
        assert checkpoint.save(tmp_path / str(member), 3, rows, metadata)
    policies = [awr_exp.load(tmp_path / str(member)) for member in range(3)]
    obs = torch.randn(3, 12, spec.obs_dim, generator=torch.Generator().manual_seed(0))
    drawn = [torch.Generator().manual_seed(seed) for seed in range(3)]
    assert torch.equal(Together(policies, drawn, False).act(obs), agent.averaged().act(obs))
    sampled = Together(policies, drawn, True).act(obs)
    assert sampled.shape == agent.act(obs).shape
    assert torch.equal(sampled, agent.averaged().act(obs)) == (not agent.policy.head.noise)


def test_what_differs_does_not_play_together(place: Path) -> None:
    def keys(*words: str) -> list[int]:
        content = {"which": "best", "trust": [], "sample": False, "best_of": None, "episodes": 100, "env": None}
        content |= {"env": {"_target_": "awr_exp.envs.make.gym", "id": "Pendulum-v1"}} if words else {}
        made = [entries.entry(path, content) for path in command.found([str(place)])]
        return sorted(map(len, play.groups(made)))

    assert [path.name for path in command.found([str(place), str(place / "sweep")])] == ["best", "0", "1"]
    assert keys() == keys("elsewhere") == [1, 2]


def test_a_film_shows_the_first_episode_of_the_table(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(place / "best", tmp_path / "run")
    (row,) = evaluated(run, *DRAWN, "episodes=2", "--video", output=tmp_path / "numbers.json")
    path = run / "video" / f"evaluation_{row['update']:010d}.mp4"
    assert list(path.parent.iterdir()) == [path]
    assert f"film: {path} (return {row['returns'][0]:.1f})" in capsys.readouterr().err
    # The first observation, and one after each step; a strip with the return is below; sides are even.
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 21
    assert next(imageio_ffmpeg.read_frames(str(path)))["size"] == (12, 30)
    (again,) = evaluated(run, *DRAWN, "episodes=2", output=tmp_path / "numbers.json")
    assert again["returns"] == row["returns"]


FAULTS: dict[str, Any] = {
    "{runs}/nowhere": "nowhere is not there: name the folder of a run or a sweep, or a checkpoint file",
    "{empty}": "there is no run in ",
    "": "name what to evaluate: the folder of a run or a sweep, or a checkpoint file",
    "{runs}/best env=cartpole": "environment 'CartPole-v1' does not fit the policy of {runs}/best, which has 3 "
    "observation entries, the environment 4: choose another",
    "{runs}/best env=none": "env=none is nowhere to play",
    "{runs}/best env=from_dataset": "env=from_dataset needs a data set",
    "{runs}/best episodes=0": "episodes is 0; it must be a whole number of at least 1",
    "{runs}/best seed=-1": "seed is -1; it must be a whole number below 2147483648",
    "{runs}/best which=first": 'which is "first"; it must be one of best, latest',
    "{runs}/best sample=true best_of=3": "sample=true takes one sample, and best_of=3 the best",
    "{runs}/sweep best_of=3": "best_of=3 needs a Q to judge actions by, and its agent learns none",
    "{runs}/best --json {runs}/no/x.json": "no/x.json cannot be written: choose another file with --json",
    "{runs}/best --json": "argument --json: expected one argument",
    "{runs}/best episode=3": "there is no episode with the options that are chosen; did you mean episodes?",
    "{runs}/best --vidoe": "there is no option --vidoe; did you mean --video?",
    "{runs}/best env=gym env.id=tests.test_evaluate:Drawn-v0 +env.kwargs.fails=3 episodes=1": "{runs}/best: the "
    "environment failed 30 times in one episode, the last time so: RuntimeError: the simulator crashed",
    "{runs}/best env=two_ways --video": "does not fit the policy",
    "{runs}/best env=gym env.id=tests.test_evaluate:Drawn-v0 +env.kwargs.blind=true episodes=1 --video": ".mp4 "
    "cannot be filmed: the environment draws nothing (RuntimeError: the display is gone)",
}


@pytest.mark.parametrize("words", FAULTS)
def test_faults_end_in_one_line_and_leave_nothing(
    words: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"runs": place, "empty": tmp_path}
    before = sorted(place.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", *words.format(**there).split()])
    with pytest.raises(SystemExit) as stop:
        command.main()
    said = str(stop.value.code)
    assert said.startswith("error: ")
    assert FAULTS[words].format(**there) in said
    assert len(set(said.splitlines())) == (2 if "sweep" in words else 1), said
    assert sorted(place.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_runs_that_cannot_be_evaluated_do_not_cost_the_others(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = shutil.copytree(place / "sweep", tmp_path / "sweep")
    shutil.rmtree(sweep / "0" / "checkpoint")
    monkeypatch.setattr(sys, "argv", ["evaluate", str(sweep), "episodes=5", "--json", "-"])
    with pytest.raises(SystemExit, match=f"^error: {sweep}/0 has no checkpoint: nothing was trained there so far$"):
        command.main()
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == [f"{sweep}/1"]


def test_a_video_says_what_is_not_installed_before_anything_is_played(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(SystemExit, match=r"^error: a video needs imageio-ffmpeg: pip install 'awr-exp\[video\]'"):
        evaluated(place / "best", "--video", output=tmp_path / "numbers.json")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_leaves_the_numbers_and_no_film(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(place / "best", tmp_path / "run")
    full = tmp_path / "ffmpeg"
    full.write_text("#!/bin/sh\ncat > /dev/null\necho '[out#0] Error: No space left on device' >&2\nexit 228\n")
    full.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(full))
    with pytest.raises(SystemExit, match=r"^error: .*\.mp4 cannot be written \(No space left on device\)$"):
        evaluated(run, *DRAWN, "episodes=2", "--video", output=tmp_path / "numbers.json")
    assert len(json.loads((tmp_path / "numbers.json").read_text())) == 1
    assert not (run / "video").exists()
    assert "2 episodes of Drawn-v0 each, from seed 2000000 on" in capsys.readouterr().out


def test_the_table_has_what_sets_policies_apart(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluated(place / "sweep", *DRAWN, "episodes=5", output=tmp_path / "numbers.json")
    head, first, second, note = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "settings", "update", "return", "95", "%", "interval", "std", "length"]
    assert first.startswith(f"{place}/sweep/0  seed=0 ")
    assert second.startswith(f"{place}/sweep/1  seed=1 ")
    assert f"{rows[1]['return_mean']:.1f}  {rows[1]['return_low']:.1f} to {rows[1]['return_high']:.1f}" in second
    assert note == "5 episodes of Drawn-v0 each, from seed 2000000 on"


def test_the_command_answers_a_mistake_in_one_line(cli: Cli) -> None:
    done = cli("evaluate", "nowhere")
    said = "error: nowhere is not there: name the folder of a run or a sweep, or a checkpoint file\n"
    assert (done.returncode, done.stdout) == (1, said)


def test_mujoco_draws_with_what_is_there_and_says_in_one_line_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def draws(make: Any) -> None:
        tried.append(rendering.os.environ["MUJOCO_GL"])
        if tried[-1] not in works:
            raise rendering.WorkerError("ImportError: it is not there")

    monkeypatch.setattr(rendering, "_draw_elsewhere", draws)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    works = ["osmesa"]
    rendering._choose(lambda: gymnasium.make("Pendulum-v1"))
    assert tried == ["egl", "osmesa"] == [*rendering.HEADLESS]
    assert rendering.os.environ.pop("MUJOCO_GL") == "osmesa"
    works = []
    said = (
        "MuJoCo can draw nothing here .egl: ImportError: it is not there; osmesa: ImportError: it is not there.: inst"
    )
    with pytest.raises(UserError, match=said):
        rendering._choose(lambda: gymnasium.make("Pendulum-v1"))
    assert "MUJOCO_GL" not in rendering.os.environ


def test_an_mp4_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "there" / "film.mp4", tmp_path / "new" / "film.mp4"):
        film = mp4.Mp4(path, 10)
        film.add(np.zeros((16, 16, 3), np.uint8))
        assert not path.exists()
        with pytest.raises(UserError, match="one picture has the shape"):
            film.add(np.zeros((8, 16, 3), np.uint8))
        film.close()
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with pytest.raises(UserError, match="there are no pictures"):
        mp4.Mp4(tmp_path / "film.mp4", 10).finish()
