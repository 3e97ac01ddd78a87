"""Whatever somebody else sends is data: nothing of it runs, is written to, or goes to the network."""

import json
import math
import os
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import escape
from omegaconf import OmegaConf
from safetensors.torch import save_file

import awr_exp
from awr_exp import command, config, guard, machine, reading, results, vocabulary
from awr_exp.data import export, minari
from awr_exp.errors import UserError
from awr_exp.metadata import policy_metadata
from awr_exp.report import page
from awr_exp.sweep import engines
from awr_exp.training import accelerate, native_library
from awr_exp.types import Spec
from tests.conftest import Cli, composed, make_awr, refused
from tests.report.test_report import make_run

GYM, JSONL = "awr_exp.envs.make.gym", "awr_exp.training.loggers.Jsonl"
AUTO = "awr_exp.networks.heads.auto"
CALL = {"_target_": "planted.run"}
MLP = {"_target_": "awr_exp.networks.mlp.MLP", "_partial_": True}
NODES: dict[str, tuple[str, Any]] = {
    "a module by position": ("env", {"_target_": GYM, "_args_": [None, None, "planted:X-v0"]}),
    "a module by name": ("env", {"_target_": GYM, "id": "planted:X-v0"}),
    "a module with text for the shell": ("env", {"_target_": GYM, "id": "planted';touch ran;':X-v0"}),
    "a call among its options": ("env", {"_target_": GYM, "id": "CartPole-v1", "kwargs": {"x": CALL}}),
    "a call within its options": ("env", {"_target_": GYM, "id": "CartPole-v1", "kwargs": {"x": [{"y": [CALL]}]}}),
    "a module among its options": ("env", {"_target_": GYM, "id": "X-v0", "kwargs": {"env_id": "planted:X-v0"}}),
    "a file among its options": ("env", {"_target_": GYM, "id": "Ant-v5", "kwargs": {"xml_file": "/dev/stdin"}}),
    "a file of the user": ("env", {"_target_": GYM, "id": "Ant-v5", "kwargs": {"xml_files": ["~/ant.xml"]}}),
    "metrics for somebody else": ("logger", {"wandb": composed()["logger"]["wandb"] | {"entity": "them"}}),
    "the shell": ("optimizer", {"_target_": "os.system", "command": "touch ran"}),
    "the shell by position": ("network", {"_target_": "os.system", "_args_": ["touch ran"]}),
    "the interpreter": ("weighting", {"_target_": "builtins.exec", "_args_": ["open('ran', 'w')"]}),
    "a part of Hydra": ("head", {"_target_": "hydra.utils.get_object", "path": "planted"}),
    "a logger as a head": ("head", {"_target_": JSONL, "folder": "."}),
    "a logger as a head, later": ("head", {"_target_": JSONL, "_partial_": True, "folder": "."}),
    "W&B as a network": ("network", {"_target_": "awr_exp.training.loggers.Wandb", "folder": ".", "mode": "online"}),
    "a download as a network": ("network", {"_target_": "awr_exp.data.minari.load", "id": "a/b-v0", "download": True}),
    "an environment as a schedule": ("schedule", {"_target_": GYM, "id": "CartPole-v1"}),
    "a logger as a recorder": ("recorder", {"_target_": JSONL, "folder": "."}),
    "a function that is no part": ("head", {"_target_": "awr_exp.results.write", "folder": ".", "content": {}}),
    "an own logger of ours": ("logger", {"evil": {"_target_": JSONL, "_partial_": True}}),
    "another folder for a logger": ("logger", {"jsonl": {"_target_": JSONL, "_partial_": True, "folder": "."}}),
    "a call in a list": ("network", MLP | {"hidden": [CALL]}),
    "a call as a value": ("network", MLP | {"init": CALL}),
    "a call that is not known": ("network", MLP | {"extra": MLP}),
    "called at once": ("network", MLP | {"_partial_": False}),
    "called later": ("advantage", {"_target_": "awr_exp.math.advantages.LambdaReturn", "_partial_": True, "lam": 1.0}),
    "not looked into": ("network", MLP | {"_recursive_": False}),
    "converted": ("network", MLP | {"_convert_": "none"}),
    "of another mode": ("network", MLP | {"_mode_": "call"}),
    "a target that is a list": ("network", MLP | {"_target_": ["os.system"]}),
    "a target that is a mapping": ("network", MLP | {"_target_": {"a": 1}}),
    "no target": ("network", {"hidden": [8]}),
    "a list": ("network", [MLP]),
    "a text": ("head", "awr_exp.networks.heads.auto"),
    "a secret": ("network", MLP | {"init": "${oc.env:A_SECRET}"}),
    "a secret, later": ("network", MLP | {"init": "\\${oc.env:A_SECRET}"}),
    "a secret in a text": ("network", MLP | {"init": "x-${oc.env:A_SECRET}"}),
    "a call in a text": ("weighting", "${oc.create:{_target_: os.system}}"),
    "a value of Hydra's": ("network", MLP | {"init": "${hydra:runtime.cwd}"}),
    "a key that is no name": ("network", MLP | {"${oc.env:A_SECRET}": 1}),
    "settings of Hydra": ("hydra", {"callbacks": {"x": CALL}}),
    "text where a sweep is": ("sweep", {"resume": CALL}),
}
"""What somebody else may write into a place of a configuration, each of which must come to nothing."""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to be in, with a module that leaves a file there once it is imported. Nothing may be new there."""
    (tmp_path / "planted.py").write_text("open('ran', 'w')")
    (tmp_path / "metrics.jsonl").write_text("somebody's\n")
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("A_SECRET", "not-to-be-told")
    monkeypatch.setattr("socket.create_connection", None)
    yield tmp_path
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors") == [
        "metrics.jsonl", "planted.py", "run"
    ]  # fmt: skip
    assert (tmp_path / "metrics.jsonl").read_text() == "somebody's\n"
    assert "planted" not in sys.modules


def saved(folder: Path, content: Any) -> Path:
    (folder / "run" / ".hydra" / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(content))))
    return folder / "run"


@pytest.mark.parametrize("name", NODES)
def test_nothing_of_a_configuration_to_resume_runs(name: str, planted: Path) -> None:
    place, node = NODES[name]
    said = refused(config.saved_config, saved(planted, composed() | {place: node}), ())
    assert said is not None
    assert ".hydra/config.yaml" in said
    assert "\n" not in said
    assert "not-to-be-told" not in said
    assert "cannot be read" not in said
    # What the line advises can be pasted.
    assert "trust=" not in re.sub(r"; if it is yours, '?trust=\[[^]]+\]'?$", "", said)
    if place in ("network", "weighting"):
        own = composed()
        own["agent"][place] = node
        assert refused(config.saved_config, saved(planted, own), ())


@pytest.mark.parametrize("name", [name for name, (place, _) in NODES.items() if place in ("network", "head")])
def test_nothing_of_a_header_runs(name: str, planted: Path) -> None:
    place, node = NODES[name]
    written(planted, {place: node})
    said = refused(awr_exp.load, planted / "it.safetensors")
    assert said is not None
    assert "\n" not in said
    assert "not-to-be-told" not in said


@pytest.mark.parametrize("place", ["network", "head"])
def test_a_header_names_networks_and_heads_only(place: str, planted: Path) -> None:
    others = [name for name in vocabulary.kinds(config.CONF) if name not in ("", place)]
    for target in {target for name in others for target in vocabulary.kinds(config.CONF)[name].targets} - {None}:
        for partial in (True, False):
            written(planted, {place: {"_target_": target, "_partial_": partial}})
            assert refused(awr_exp.load, planted / "it.safetensors")


BOMBS = {
    "aliases": "a: &a [1]\n" + "".join(f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in pairwise("abcdefghijk")),
    "references": yaml.safe_dump({"a": "x" * 9} | {b: f"${{{a}}}" * 9 for a, b in pairwise("abcdefghijk")}),
    "references to mappings": yaml.safe_dump(
        {"a": {"x": 1}} | {b: {c: f"${{{a}}}" for c in "xyzuvw"} for a, b in pairwise("abcdefghijk")}
    ),
    "a reference to itself": "a: ${b}\nb: ${a}",
    "a reference into itself": "a: {b: '${a}'}",
    "depth": "a: " + "[" * 2_000 + "]" * 2_000,
    "size": "a: [" + "1," * 10_000_000 + "]",
    "an object": "a: !!python/object/apply:os.system ['touch ran']",
    "a pickle": pickle.dumps(print).decode("latin-1"),
    "a list": "[1, 2]",
    "nothing": "",
}


@pytest.mark.parametrize("name", BOMBS)
def test_nobody_waits_for_a_configuration_that_explodes(name: str, planted: Path) -> None:
    (planted / "run" / ".hydra" / "config.yaml").write_text(BOMBS[name])
    assert "\n" not in (refused(config.saved_config, planted / "run", ()) or "\n")


def test_whether_to_go_to_the_network_is_up_to_the_command(planted: Path) -> None:
    own = composed("dataset=minari", "dataset.id=a/b-v0", "dataset.download=true", "logger.wandb.mode=online")
    found = config.saved_config(saved(planted, own), ())
    assert found.dataset.download is False
    assert found.logger.wandb.mode == "auto"
    assert found.logger.wandb.log_curves is True


def test_ids_lead_nowhere_else(planted: Path) -> None:
    for id in ["../../x-v0", "/etc/x-v0", "a/../../x-v0", "~/x-v0", "a\n-v0", "$(touch ran)-v0", "a/b-v0\n"]:
        assert "is not a Minari id" in (refused(minari.load, id) or "")
        assert "is not a Minari id" in (refused(export.check_new, id, "recorder.dataset_id") or "")


@pytest.mark.parametrize("number", range(9))
def test_what_we_ship_may_stand_where_it_stands(number: int, tmp_path: Path) -> None:
    groups = [group for group in config.GROUPS if group not in ("experiment", "hydra", "schedule", "trainer", "logger")]
    chosen = [f"{group}={config.options(group)[number % len(config.options(group))]}" for group in groups]
    trainer = ["offline", "online", "finetune"][number % 3]
    chosen += [f"trainer={trainer}"] + (["schedule=interleaved"] if number == 4 else [])
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", chosen + ["env.id=CartPole-v1"] * ("env=gym" in chosen))
    OmegaConf.save(cfg, tmp_path / "it.yaml")
    config.check_trusted(guard.resolved(reading.read_yaml(tmp_path / "it.yaml"), tmp_path), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("experiment", config.options("experiment"))
def test_our_recipes_can_be_resumed(experiment: str, tmp_path: Path) -> None:
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", [f"experiment={experiment}"])
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(cfg, tmp_path / ".hydra" / "config.yaml")
    assert config.saved_config(tmp_path, ()).agent == cfg.agent


def test_own_parts_are_admitted_by_their_names(planted: Path) -> None:
    own = composed()
    own["weighting"] = own["agent"]["weighting"] = {"_target_": "mine.soft", "_partial_": True, "scale": 2.0}
    own["agent"] = {
        "_target_": "mine.Agent",
        "network": MLP,
        "critics": [MLP, {"_target_": "mine.Net", "of": {"a": MLP}}],
    }
    own["logger"]["mine"] = {"_target_": "mine.Logger", "_partial_": True, "where": "here"}
    own["env"] = {"_target_": GYM, "id": "mine.envs:X-v0"}
    names = ["mine.soft", "mine.Agent", "mine.Net", "mine.Logger", "mine.envs"]
    assert config.saved_config(saved(planted, own), names).weighting.scale == 2.0
    for name in names:
        others = [other for other in names if other != name]
        assert f"trust=[{name}]" in (refused(config.saved_config, planted / "run", others) or "")
    # Trusted is what it names, not what else is given to it.
    own["agent"]["extra"] = {"_target_": JSONL, "folder": "."}
    assert "none of ours for that" in (refused(config.saved_config, saved(planted, own), names) or "")


SPEC = Spec(3, 2, None, (-1.0, -2.0), (1.0, 4.0))
STATE = {name: tensor.float() for name, tensor in make_awr(SPEC).state_dict().items()}
METADATA = policy_metadata(
    SPEC,
    {"network": MLP | {"hidden": [16, 16], "activation": "tanh"}, "head": {"_target_": AUTO, "_partial_": True}},
)


def written(folder: Path, metadata: dict[str, Any], state: dict[str, torch.Tensor] | None = None) -> None:
    """A checkpoint file, but for these metadata and tensors."""
    known = {"facts": json.dumps({"update": 1} | METADATA | metadata)}
    save_file(STATE | (state or {}), folder / "it.safetensors", known)


HUGE = 10**400
WRONG: list[tuple[str, Any]] = [
    *[(name, value) for name in ("spec", "network", "head", "update") for value in (None, [], -3, "x", {}, HUGE)],
    ("spec", {"obs_dim": 3}),
    ("spec", {"obs_dim": 3, "action_dim": 2, "num_actions": None, "action_low": [-1], "action_high": [1, 1]}),
    ("spec", {"obs_dim": "3", "num_actions": 2}),
    ("spec", {"obs_dim": -3, "num_actions": 2}),
    ("spec", {"obs_dim": True, "num_actions": 2}),
    ("spec", {"obs_dim": 3, "num_actions": 10**18}),
    ("spec", {"obs_dim": 10**18, "num_actions": 2}),
    ("spec", {"obs_dim": 3, "num_actions": 2, "more": 1}),
    ("spec", {"obs_dim": 3, "action_dim": 2, "action_low": ["a", "b"], "action_high": [1, 1]}),
    ("network", MLP | {"hidden": [10**12, 10**12]}),
    ("network", MLP | {"hidden": [10**18] * 50}),
    ("network", MLP | {"hidden": []}),
    ("network", MLP | {"hidden": "16"}),
    ("network", MLP | {"hidden": [16.5]}),
    ("network", MLP | {"hidden": [16]}),
    ("network", MLP | {"activation": "exec"}),
    ("network", MLP | {"activation": ["relu"]}),
    ("head", {"_target_": "awr_exp.networks.heads.Categorical", "_partial_": True}),
    ("head", {"_target_": "awr_exp.networks.heads.Gaussian", "_partial_": True, "std": "wide"}),
    ("head", {"_target_": "awr_exp.networks.heads.Gaussian", "_partial_": True, "std": -1}),
    ("head", {"_target_": AUTO, "_partial_": True, "std": 0.4}),
    ("head", {"_target_": AUTO, "_partial_": True, "std": "???"}),
    ("best", "x"),
    ("latest", ["x"]),
    ("latest", {"eval/return_mean": "<b>"}),
    ("returns", "1, 2"),
    ("run_id", "../../x"),
    ("run_id", 3),
    ("owed", 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: repr(value)[:40])
def test_a_header_with_a_wrong_fact_ends_in_one_line(name: str, value: Any, tmp_path: Path) -> None:
    written(tmp_path, {name: value})
    said = refused(awr_exp.load, tmp_path / "it.safetensors")
    assert said is not None
    assert "\n" not in said


TENSORS: dict[str, dict[str, torch.Tensor]] = {
    "shape": {"actor.theta": torch.zeros(1, 3)},
    "axes": {"actor.theta": STATE["actor.theta"][0]},
    "members": {"actor.theta": STATE["actor.theta"].repeat(2, 1)},
    "whole numbers": {"actor.theta": STATE["actor.theta"].long()},
    "not a number": {"actor.theta": STATE["actor.theta"] * math.nan},
    "limit": {"normalizer.limit": torch.full((1, 1), math.nan)},
    "mean": {"normalizer.mean": torch.zeros(1, 4)},
    "std": {"normalizer.std": torch.zeros(3)},
    "average": {"actor.average": torch.zeros(1, 3)},
    "half": {"actor.theta": STATE["actor.theta"].bfloat16()},
    "complex": {"actor.theta": STATE["actor.theta"].to(torch.complex64)},
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_no_policy_end_in_one_line(name: str, tmp_path: Path) -> None:
    written(tmp_path, {}, TENSORS[name])
    assert f"'{next(iter(TENSORS[name]))}'" in (refused(awr_exp.load, tmp_path / "it.safetensors") or "")


def test_files_that_are_no_checkpoints_end_in_one_line(tmp_path: Path) -> None:
    written(tmp_path, {})
    path = tmp_path / "it.safetensors"
    awr_exp.load(path)
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    contents = [
        b"",
        b"x",
        whole[:4],
        whole[: size // 2],
        whole[:-8],
        whole + b"more",
        (2**63).to_bytes(8, "little") + whole[8:],
        (size + 64).to_bytes(8, "little") + whole[8:],
        (10**9).to_bytes(8, "little") + whole[8:],
        whole[:8] + b"[" * size + whole[8 + size :],
        whole[:8] + b"\xff" * size + whole[8 + size :],
        whole.replace(b"F32", b"X32"),
        whole.replace(b"__metadata__", b"__metadote__"),
        whole.replace(b'"facts"', b'"fects"'),
        pickle.dumps(print),
        json.dumps(METADATA).encode(),
    ]
    for content in contents:
        path.write_bytes(content)
        assert "\n" not in (refused(awr_exp.load, path) or "\n"), content[:20]
    for metadata in ("[1]", "{", "[" * 100_000, '{"update": NaN}', "1" * 10_000):
        save_file(STATE, path, {"facts": metadata})
        assert "\n" not in (refused(awr_exp.load, path) or "\n"), metadata[:20]
    save_file({"a": torch.zeros(1)}, path, {"facts": json.dumps({"update": 1} | METADATA)})
    assert "should be" in (refused(awr_exp.load, path) or "")
    path.unlink()
    os.mkfifo(path)
    assert "is neither" in (refused(awr_exp.load, path) or "")


NAMES = st.text(max_size=5) | st.sampled_from(["_target_", "_args_", "_partial_", "id", "hidden"])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([GYM, "${a}"])
JSON = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def mutated(content: Any, data: st.DataObject) -> Any:
    """With something else in a place that is drawn."""
    if isinstance(content, dict) and content and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(content)))
        return content | {key: mutated(content[key], data)}
    if isinstance(content, dict) and data.draw(st.booleans()):
        return content | {data.draw(st.sampled_from(["_target_", "_args_", "x", "kwargs"])): data.draw(JSON)}
    return data.draw(JSON)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_is_loaded_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    metadata = mutated({"update": 1} | METADATA, data)
    save_file(STATE, tmp_path / "it.safetensors", {"facts": json.dumps(metadata)})
    said = refused(awr_exp.load, tmp_path / "it.safetensors")
    assert said is None or "\n" not in said


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_a_configuration_is_of_our_parts_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "run" / ".hydra").mkdir(parents=True, exist_ok=True)
    content = mutated(composed(), data)
    try:
        found = config.saved_config(saved(tmp_path, content), ())
    except UserError as error:
        said = str(error)
        assert "\n" not in said
        return
    except yaml.representer.RepresenterError:
        return
    ours = {target for kind in vocabulary.kinds(config.CONF).values() for target in kind.targets}
    # Null calls nothing.
    assert set(targets(OmegaConf.to_container(found, resolve=True))) <= ours | {None}


def targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        assert not {"_args_", "_recursive_", "_convert_", "_mode_"} & set(node)
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from targets(inner)


@pytest.mark.parametrize("option", ["resume", "hydra.run.dir"])
def test_nothing_is_written_through_a_link_of_a_run(option: str, planted: Path) -> None:
    run = saved(planted, composed())
    (run / "train.log").symlink_to(planted / "metrics.jsonl")
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", [f"{option}={run}"], return_hydra_config=True)
    with pytest.raises(SystemExit, match=r"train\.log is a link that leads out of its run's folder"):
        command.Check().on_run_start(cfg)


def test_nothing_is_written_through_a_link_of_a_sweep(planted: Path, cli: Cli) -> None:
    (planted / "run" / "0").mkdir()
    (planted / "run" / "0" / ".result.json.tmp").symlink_to(planted / "metrics.jsonl")
    done = cli("-m", "seed=0", "hydra.sweep.dir=run")
    assert done.returncode == 1
    assert "tmp is a link that leads out of its run's folder" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_library_that_somebody_planted_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = machine.own_cache("native")
    assert place == tmp_path / "awr_exp" / "native"
    assert place.stat().st_mode & 0o777 == 0o700
    # Where others can write, nothing is looked for.
    for mode in (0o777, 0o770, 0o702):
        place.chmod(mode)
        assert machine.own_cache("native") is None
    place.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "theirs")
    assert machine.own_cache("native") is None
    place.unlink()
    place.mkdir(mode=0o700)

    def run(command: list[str], **options: Any) -> Any:
        if "-o" in command:
            Path(command[command.index("-o") + 1]).write_bytes(b"ours")
        return SimpleNamespace(stdout="")

    monkeypatch.setattr(native_library.subprocess, "run", run)
    monkeypatch.setattr(native_library.ctypes, "CDLL", lambda name: Path(name))
    made = native_library._loaded("c++", place)
    assert made.read_bytes() == b"ours"
    # Other content under its name, and its own content from a link or where others can write.
    made.write_bytes(b"theirs")
    assert native_library._loaded("c++", place).read_bytes() == b"ours"
    made.chmod(0o777)
    assert native_library._loaded("c++", place).stat().st_mode & 0o022 == 0
    (tmp_path / "theirs.so").write_bytes(b"ours")
    made.unlink()
    made.symlink_to(tmp_path / "theirs.so")
    assert not native_library._loaded("c++", place).is_symlink()


def test_compiled_code_is_not_taken_from_where_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def kept() -> Path:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        accelerate.keep_compiled_code()
        return Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])

    assert kept() == tmp_path / "cache" / "awr_exp" / "inductor"
    kept().chmod(0o777)
    temporary = kept()
    assert temporary == tmp_path / f"awr_exp_inductor_{os.getuid()}"
    temporary.chmod(0o777)
    assert kept() not in (temporary, tmp_path / "cache" / "awr_exp" / "inductor")
    assert kept().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    accelerate.keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"


def test_submitit_takes_no_pickle_that_lies_in_a_sweep(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def executor(folder: Path, cluster: str) -> None:
        places.append(folder.parent)
        raise RuntimeError("no cluster")

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=executor))
    for _ in range(2):
        with pytest.raises(UserError, match="no cluster"):
            engines.submitit("slurm", [], planted / "run", 1, {})
    assert len(set(places)) == 2


RESULTS: list[dict[str, Any]] = [
    *({"status": status} for status in (["finished"], None, "done", {})),
    *({"update": update} for update in ("1", None, [1], HUGE)),
    *({"metrics": metrics} for metrics in (None, [1], {"eval/return_mean": "x"}, {"eval/return_mean": [1]})),
    *({"returns": returns} for returns in ("1, 2", [[1], [2, 3]], ["x"], {"a": 1})),
    {"env_steps": "x"},
]


@pytest.mark.parametrize("change", RESULTS, ids=lambda change: repr(change)[:30])
def test_a_result_that_is_none_says_nothing(change: dict[str, Any], tmp_path: Path) -> None:
    good = {"status": "finished", "error": None, "update": 1, "metrics": {"a": 1.0}, "returns": [1.0], "env_steps": 2}
    (tmp_path / "result.json").write_text(json.dumps(good))
    assert results.read(tmp_path).status == "finished"
    for content in (good | change, [good], [], 3, "x", None, {}):
        (tmp_path / "result.json").write_text(json.dumps(content))
        assert results.read(tmp_path) == results.PastRun(tmp_path)


def test_a_terminal_obeys_nothing_of_a_run(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text('["+x=\\e]0;title\\a", "seed=1"]')
    error = "\x1b[2Jgone\x07"
    result = {"status": "failed", "error": error, "update": 1, "metrics": {}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    found = results.read(tmp_path)
    assert found.error is not None
    given = results.overrides(tmp_path)
    assert given is not None
    assert "\x1b" not in found.error + str(given)
    assert given["seed"] == "1"
    for content in ("3", "{a: 1", "null", "[[1], {a: b}]", "a: &a [*a]", "a" * 300_000):
        (tmp_path / ".hydra" / "overrides.yaml").write_text(content)
        results.overrides(tmp_path)


SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>"


def test_a_page_shows_what_a_run_is_called_and_runs_none_of_it(tmp_path: Path) -> None:
    (sweep := tmp_path / "<b>sweep").mkdir()
    for number in range(4):
        make_run(
            sweep / f"<i>{number}", 0.1 + number, number, 1.0 + number, data=f"{SCRIPT}/x-v0", head=SCRIPT + str(number)
        )
    for path in sweep.glob("*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "error": SCRIPT}))
    text = page.write([sweep], tmp_path / "out")[0].read_text()
    inside = text[text.index("<body>") : text.index("<script>")]
    assert "&lt;script&gt;" in inside
    assert not re.search(r"<(script|b>|i>|img src=x)|onerror=[^ ]*>", inside.replace(escape(SCRIPT), ""))


def test_the_options_of_a_run_to_resume_are_plain_names(planted: Path) -> None:
    chosen = {"agent": "../../planted", "env": "none hydra.run.dir=x", "head": ["auto"], "network": "mlp", "x": "mlp"}
    (planted / "run" / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": chosen}}}))
    assert config.choices(planted / "run") == {"network": "mlp"}
    for content in ("hydra: 3", "[1]", "hydra: {runtime: {choices: [1]}}", BOMBS["aliases"], BOMBS["an object"]):
        (planted / "run" / ".hydra" / "hydra.yaml").write_text(content)
        assert config.choices(planted / "run") == {}


@pytest.mark.parametrize("option", ["resume", "hydra.run.dir"])
@pytest.mark.parametrize("file", ["config.yaml", "overrides.yaml", "hydra.yaml"])
def test_what_lies_in_a_run_is_read_in_one_way_only(
    option: str, file: str, planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(planted, composed())
    (run / ".hydra" / file).write_text(BOMBS["aliases"])
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", [f"{option}={run}"], return_hydra_config=True)
    # It would be a minute's wait.
    monkeypatch.setattr(OmegaConf, "load", lambda file: pytest.fail(f"{file} is read without limits"))
    with suppress(SystemExit):
        command.Check().on_run_start(cfg)
