"""Every yaml composes, builds and takes three updates; every value in it has a range that is checked."""

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.types import RunMode
from omegaconf import OmegaConf

from awr_exp import command, config, help, ranges, settings, vocabulary
from awr_exp.agents.agent import Agent
from awr_exp.building.build import build
from awr_exp.data.transitions import Transitions
from awr_exp.envs.build import task
from awr_exp.errors import UserError
from awr_exp.sweep import launcher, sweeper, tuner
from awr_exp.training.callbacks import Callback
from awr_exp.training.loggers import Jsonl
from awr_exp.training.run import Run
from tests.conftest import CONTINUOUS, DISCRETE, IMAGES, batch_for, composed, refused

OPTIONS = sorted((path.parent.name, path.stem) for path in config.CONF.glob("*/*.yaml"))
IN_CONTRACT = ("agent", "advantage", "augmentation", "head", "network", "optimizer", "weighting")
"""Groups whose options are tried with all that they can be combined with, in test_contract."""
NEEDS = {
    "minari": "dataset.id=awr_exp/pendulum-mixed-v0", "gym": "env.id=Pendulum-v1", "online_paper": "env.id=Pendulum-v1",
}  # fmt: skip
ENVS = {
    "cartpole": "dataset=cartpole_mixed", "two_ways": "dataset=two_ways", "pixel_grid": "dataset=pixel_grid",
    "dark_passages": "dataset=dark_passages", "point_maze": "dataset=point_maze",
}  # fmt: skip
EXTRAS = {
    "halfcheetah": "mujoco", "hopper": "mujoco", "walker2d": "mujoco", "ant": "mujoco", "humanoid": "mujoco",
    "lunarlander": "Box2D", "lunarlander_continuous": "Box2D",
}  # fmt: skip


def overrides(group: str, option: str) -> list[str]:
    chosen = [f"{group}={option}"]
    if option in NEEDS and group != "collect":
        chosen.append(NEEDS[option])
    if option == "nexus_offline" or option.startswith(("mujoco_", "antmaze_")):
        chosen.append(NEEDS["minari"])
    if group == "schedule" or (group, option) == ("dataset", "none"):
        chosen += ["trainer=online", "env=pendulum"]
    if option == "online":
        chosen.append("env=pendulum")
    if group == "env" and option in ENVS:
        chosen.append(ENVS[option])
    return chosen


COLLECTED = ("pixel_grid", "dark_passages", "point_maze")
"""Tasks whose data no other test has collected."""


@pytest.mark.parametrize(
    ("group", "option"),
    [
        pytest.param(*one, marks=pytest.mark.long if one[1] in COLLECTED else ())
        for one in OPTIONS
        if one[0] not in IN_CONTRACT
    ],
)
def test_every_option_builds_and_takes_three_updates(
    group: str, option: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    cfg = composed(*overrides(group, option))
    if not cfg["dataset"] or group == "schedule":
        return three_turns(cfg, tmp_path)
    data: Transitions = build(cfg["dataset"])
    if group == "env":
        if option in EXTRAS:
            pytest.importorskip(EXTRAS[option])
            # The data are of another task, and that is what must be said.
            with pytest.raises(UserError, match="does not fit data set"):
                build(cfg["env"], data=data.info, spec=data.spec)
        else:
            made = build(cfg["env"], data=data.info, spec=data.spec)
            assert (made is None) == (option == "none")
    for node in cfg["logger"].values() if group == "logger" else ():
        build(node, folder=tmp_path, config={}, update=0, run_id=None).finish({}, {})
    for node in (cfg.get("callback") or {}).values():
        assert isinstance(build(node), Callback)
    for node in (cfg["agent"], cfg["baseline"]):
        if node:
            agent = build(node, spec=data.spec, seeds=[0])
            agent.fit_normalizer(*data.obs_statistics())
            target = (agent.targets(data) or {}).get("target") if agent.whole_episodes else None
            for update in range(3):
                rows = torch.arange(32).reshape(1, 32) + update
                noise = torch.randn(1, 32, agent.noise_size)
                metrics = agent.update(replace(data.sample(rows, True, target=target), noise=noise))
            assert all(value.isfinite().all() for value in metrics.values())


RECIPES, AGENTS = ([option for group, option in OPTIONS if group == one] for one in ("experiment", "agent"))
WITH_AGENTS = [
    pytest.param(recipe, agent, marks=() if (row + column) % 12 == 0 else mark)
    for row, recipe in enumerate(RECIPES)
    for column, agent in enumerate(AGENTS)
    for mark in [pytest.mark.long if agent == "awr" else pytest.mark.slow]
]


@pytest.mark.parametrize(("recipe", "agent"), WITH_AGENTS)
def test_a_recipe_builds_with_every_agent_or_says_why_not(recipe: str, agent: str) -> None:
    chosen = [*overrides("experiment", recipe), f"agent={agent}"]
    spec = DISCRETE if "lunarlander" in recipe or "cartpole" in recipe else CONTINUOUS
    spec = IMAGES if "pixel" in recipe else spec
    refusals = r"^trainer=(online|finetune) needs an agent that learns values: choose agent=awr$"
    if agent in ("td3_bc", "rebrac", "td3_awr"):
        refusals += "|climbs Q along|needs continuous actions|agent.ema_decay is 0"
    if agent in ("cql", "cal_ql"):
        refusals += "|lacks a density"
    made: list[Agent] = []
    said = refused(lambda: made.append(build(composed(*chosen)["agent"], spec=spec, seeds=[0])))
    assert said is None or re.search(refusals, said)
    for built in made:
        built.update(batch_for(built, 8))


def test_what_a_recipe_has_for_another_option_is_left_out_but_nothing_that_was_asked_for() -> None:
    recipe = ["experiment=nexus_offline", "dataset.id=a/b-v0"]
    assert "beta" not in composed(*recipe, "agent=bc")["agent"]
    assert composed(*recipe, "agent=rwr")["agent"]["beta"] == 0.3
    with pytest.raises(UserError, match=r"agent\.beta is not a setting of the agent that is chosen"):
        composed(*recipe, "agent=bc", "agent.beta=0.3")
    cfg = composed("experiment=online_ant", "head=tanh_gaussian", "schedule=interleaved")
    assert cfg["agent"]["head"].keys() == {"_target_", "_partial_", "std"}
    assert "normalizer_samples" not in cfg["schedule"]
    assert build(cfg["schedule"]).learning_starts == 1000


def test_help_has_a_line_for_every_option_and_every_setting() -> None:
    lines = [line.split()[0] for line in help.text().splitlines() if line.strip()]
    for group, option in OPTIONS:
        assert f"{group}={option}" in lines
    found = {line.partition("=")[0] for line in lines}
    for cfg in (composed(), composed("trainer=online", "env=gym", "env.id=Pendulum-v1", "schedule=interleaved")):
        for name, _, _ in settings._settings(cfg, vocabulary.kinds(config.CONF)[""]):
            # What the agent has by reference is the group's.
            if not config.GROUPS & set(name.split(".")[1:]):
                assert name in found or name.rpartition(".")[2] in vocabulary.MARKERS, name
    for name in (*help.SUBCOMMANDS, "hydra.launcher.via", "sweep=beta"):
        assert any(name in line for line in help.text().splitlines()), name
    assert not [line for line in help.text().splitlines() if line.endswith(("=", "None"))]


def test_help_passes_by_an_own_yaml_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weighting").mkdir()
    for name, text in (("broken", "a: ["), ("list", "- 1"), ("empty", ""), ("mine", "# Mine.\nrate: 1  # of it")):
        (tmp_path / "weighting" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["awr-exp", "--config-dir", str(tmp_path)])
    lines = " ".join(help.text().split())
    assert "weighting=broken" in lines
    assert "weighting=mine Mine." in lines


def three_turns(cfg: dict[str, Any], folder: Path) -> None:
    """Of an online run, as short as may be."""
    found = next((extra for name, extra in EXTRAS.items() if name == cfg["env"]["id"].partition("-")[0].lower()), None)
    if found:
        pytest.importorskip(found)
    make_env = build(cfg["env"], data=None, spec=None)
    agent = build(cfg["agent"], spec=task(make_env), seeds=[0])
    schedule = build(cfg["schedule"])
    short = {"samples_per_iteration": 16, "critic_steps": 1, "actor_steps": 1, "learning_starts": 16}
    small = {name: value for name, value in short.items() if hasattr(schedule, name)}
    node = cfg["trainer"] | {"env_steps": 48, "envs": 4, "workers": 0, "eval_episodes": 1, "compile": False}
    node = {name: value for name, value in node.items() if name != "schedule"}
    parts = {"runs": [Run(folder, logger=Jsonl(folder))], "schedule": replace(schedule, **small)}
    trainer = build(node, agent=agent, make_env=make_env, **parts)
    trainer.run()
    assert trainer.update >= 3
    assert trainer.step == 48


HYDRA = {"fused": launcher.Fused, "grid": sweeper.Grid, "optuna": tuner.Tuner}
PRIMARY = {"collection": settings.COLLECTION, "evaluation": settings.EVALUATION}
KINDS = vocabulary.kinds(config.CONF)


@pytest.mark.parametrize("option", vocabulary.options(config.CONF), ids=lambda one: f"{one.group}={one.name}")
def test_every_value_of_a_yaml_has_a_range_and_is_in_it(option: vocabulary.Option) -> None:
    for name, written in option.settings.items():
        place, _, leaf = name.rpartition(".")
        if option.group.startswith("hydra/"):
            known = ranges.arguments(HYDRA[option.name])
        elif option.name in PRIMARY:
            known = PRIMARY[option.name].own
        elif place == "trainer.pretrain":
            known = KINDS["trainer"].settings()
        elif place not in KINDS:
            assert place == "env.kwargs"
            continue
        else:
            node: Any = option.content
            for part in place.removeprefix(option.place).strip(".").split(".") if place != option.place else ():
                node = node[part]
            known = KINDS[place].settings(node.get("_target_") if option.group != "experiment" else None)
        assert ranges.of(known[leaf]), name
        if (value := yaml.safe_load(written.value)) != "???":
            ranges.check(name, value, known[leaf])


def test_the_offline_recipe_has_its_published_values() -> None:
    cfg = composed("experiment=nexus_offline", "dataset.id=a/b-v0")
    agent = cfg["agent"]
    assert (agent["beta"], agent["max_weight"], agent["value_iters"], agent["actor_iters"]) == (
        0.3,
        20.0,
        5,
        1,
    )
    assert cfg["network"]["hidden"] == [256, 256]


# From the authors' code and logs: step size of the actor, standard deviation and samples of the normaliser.
PUBLISHED = {
    "ant": (2.2e-5, 0.2, 300_000),
    "halfcheetah": (5e-5, 0.4, 300_000),
    "hopper": (5e-5, 0.4, 300_000),
    "humanoid": (5e-5, 0.2, 300_000),
    "lunarlander": (5e-4, None, 100_000),
    "walker2d": (2.5e-5, 0.4, 300_000),
}


@pytest.mark.parametrize("task", PUBLISHED)
def test_the_online_recipes_have_their_published_values(task: str) -> None:
    cfg = composed(f"experiment=online_{task}")
    agent, head, schedule = cfg["agent"], cfg["head"], cfg["schedule"]
    assert (agent["actor_lr"], head.get("std"), schedule["normalizer_samples"]) == PUBLISHED[task]
    # Their loss of the critic is half of the squared error.
    assert (agent["critic_lr"], cfg["optimizer"]["_target_"]) == (0.01 / 2, "awr_exp.math.optimizers.momentum")
    assert (agent["beta"], agent["max_weight"], agent["gamma"], agent["advantage"]["lam"]) == (1, 20, 0.99, 0.95)
    assert agent["standardize_advantages"]
    assert agent["normalize_values"]
    iteration = tuple(schedule[name] for name in ("samples_per_iteration", "critic_steps", "actor_steps"))
    assert iteration == (2048, 200, 1000)
    assert (cfg["trainer"]["replay_size"], cfg["trainer"]["batch_size"]) == (50_000, 256)
    assert (cfg["network"]["hidden"], cfg["network"]["init"]) == ([128, 64], "xavier")
    network = cfg["network"]
    start = (network["input_scale"], network["output_init"], network["output_scale"], agent["critic_output_scale"])
    if task == "ant":
        # Its first layer begins as one of 111 inputs, of which 84 are always 0; pi's last like numbers up to 0.01.
        assert start == (
            pytest.approx(math.sqrt((27 + 128) / (111 + 128)), rel=0.01),
            "xavier",
            pytest.approx(0.01 / math.sqrt(6 / (64 + 8)), rel=0.01),
            1,
        )
    else:
        # V's last begins with the norm of 64 numbers drawn evenly up to sqrt(6 / (64 + 1)).
        assert start == (1, "orthogonal", 0.01, pytest.approx(math.sqrt(64 * 2 / 65), rel=0.01))
    # Ant's log-likelihoods had a standard deviation of 0.3: the same penalty beside gradients of (2 / 3)^2.
    penalty = 22.5 if task == "ant" else 10
    assert head.get("bound_penalty", penalty) == penalty


def test_a_command_to_go_on_with_trusts_what_the_run_was_made_of(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    go_on = f"python -m awr_exp.main resume={tmp_path}"
    assert config.to_resume(tmp_path) == go_on
    OmegaConf.save(OmegaConf.create(composed()), tmp_path / ".hydra" / "config.yaml")
    assert config.to_resume(tmp_path) == go_on
    own = composed("env=gym", "env.id=my_module:MyEnv-v0") | {"head": {"_target_": "mine.Head"}}
    own["env"]["kwargs"] = {"xml_file": "/my/ant.xml"}
    own["logger"]["wandb"]["entity"] = "my-team"
    OmegaConf.save(OmegaConf.create(own), tmp_path / ".hydra" / "config.yaml")
    assert config.to_resume(tmp_path) == f"{go_on} 'trust=[/my/ant.xml,mine.Head,my-team,my_module]'"
    assert config.saved_config(tmp_path, ["/my/ant.xml", "mine.Head", "my-team", "my_module"])


def test_the_command_to_go_on_with_a_resumed_run_has_its_changes(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {agent: awr, env: pendulum}}}")
    given = [f"resume={tmp_path}", "trainer.updates=300", "+dataset.max_transitions=9", "agent=awr", "env=cartpole"]
    OmegaConf.save(OmegaConf.create(composed()), tmp_path / ".hydra" / "config.yaml")
    cfg = OmegaConf.create({"resume": str(tmp_path), "trust": []})
    hydra = {"hydra": {"overrides": {"task": given}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command.HydraConfig, "get", lambda: OmegaConf.create(hydra).hydra)
        said = command.to_go_on(tmp_path, cfg)
        first = command.to_go_on(tmp_path, OmegaConf.create({"resume": None}))
    go_on = f"python -m awr_exp.main resume={tmp_path}"
    assert said == f"{go_on} trainer.updates=300 +dataset.max_transitions=9 env=cartpole"
    assert first == go_on


def test_jobs_of_a_sweep_share_wandb_s_group_but_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cfg = OmegaConf.create(composed("logger=wandb"))
    job = {"mode": RunMode.MULTIRUN, "sweep": {"dir": f"{tmp_path}/day/time"}, "job": {"override_dirname": "seed=1"}}
    job["overrides"] = {"task": []}
    monkeypatch.setattr(command.HydraConfig, "get", lambda: OmegaConf.create(job))
    for name in ("WANDB_RUN_GROUP", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    node = command.content(cfg)["logger"]["wandb"]
    assert (node["group"], node["name"], "WANDB_RUN_ID" in os.environ) == ("day/time", "seed=1", False)
    monkeypatch.setenv("WANDB_RUN_GROUP", "night")
    monkeypatch.setenv("WANDB_NAME", "mine")
    node = command.content(cfg)["logger"]["wandb"]
    assert (node["group"], node["name"]) == ("night", "mine seed=1")
    cfg.logger.wandb.group = cfg.logger.wandb.name = "typed"
    node = command.content(cfg)["logger"]["wandb"]
    assert (node["group"], node["name"]) == ("typed", "typed")


def test_sweep_files_compose() -> None:
    for path in (config.SWEEPS / "sweep").glob("*.yaml"):
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            cfg = compose("config", [f"+sweep={path.stem}"], return_hydra_config=True)
        assert cfg.hydra.sweeper.params, path
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        changed = compose("config", ["+sweep=lambda", "experiment=online_cartpole", "trainer.env_steps=1"])
    assert (changed.env.id, changed.trainer.env_steps) == ("CartPole-v1", 1)


def test_what_an_option_leaves_open_is_in_the_configuration_of_the_run_to_resume(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {env: gym}}}")
    OmegaConf.save(OmegaConf.create(composed("env=gym", "env.id=Pendulum-v1")), tmp_path / ".hydra" / "config.yaml")
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", ["env=gym", f"resume={tmp_path}"], return_hydra_config=True)
    command.Check().on_run_start(cfg)
