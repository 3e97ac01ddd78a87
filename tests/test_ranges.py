"""Ranges stand beside the arguments that they are of, and one sentence says what is wrong, whoever gives the value."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import Tensor

from awr_exp import arguments, command, config, ranges, settings, signatures, vocabulary
from awr_exp.agents.awr import AWR
from awr_exp.agents.bc import BC
from awr_exp.building.build import check_targets
from awr_exp.building.stacking import group_key
from awr_exp.errors import UserError
from awr_exp.math.members import Hyper
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP
from awr_exp.ranges import PerMember, Range, Unit
from tests.conftest import CONTINUOUS, NETWORK, composed, make_awr, refused

HERE = __name__
KINDS = vocabulary.kinds(config.CONF)
PLACES = sorted(KINDS, key=lambda place: -place.count("."))
TARGETS = {target: place for place in PLACES for target in KINDS[place].targets}
RANGED = [(target, name) for target in sorted(TARGETS) for name, hint in signatures.parameters(target).items() if hint]
"""Every setting of a part of ours."""
WRONG: dict[str, Any] = {
    "a positive": -1,
    "a finite number": "much",
    "a number of at least 0": -0.5,
    "a number of at least 0 and below 1": 1,
    "a finite number of at least 1": 0.5,
    "a number from 0 to 1": 1.5,
    "a number above 0 and below 1": 0,
    "a number above 0 and up to 100": 100.5,
    "a whole number of at least 1": 1.5,
    "a whole number of at least 0": -1,
    "true or false": 1,
    "a text": "",
    "a list of texts": "mine",
    "a list of wrappers": "mine",
    "a list of widths": [],
    "a list of steps": [-1],
    "a mapping": 3,
    "one of": "small",
}
"""A value that is wrong, by how it is said what it must be."""


def wrong(hint: Any) -> Any:
    wanted = str(ranges.of(hint))
    return WRONG[max((start for start in WRONG if wanted.startswith(start)), key=len)]


@pytest.mark.parametrize(("target", "name"), RANGED)
def test_a_wrong_value_is_refused_with_one_sentence_in_a_yaml_and_in_the_library(target: str, name: str) -> None:
    place, hint = TARGETS[target], signatures.parameters(target)[name]
    value = wrong(hint)
    said = f"{place}.{name} is {ranges.shown(value)}; it must be {ranges.of(hint)}"
    node = {"_target_": target, name: value}
    assert (
        refused(settings.check_ranges, {"logger": {"wandb": node}} if place == "logger.wandb" else {place: node})
        == said
    )
    # Before anything that it lacks is asked for. What the built-in data sets take is handed on to `load`.
    if not target.startswith("awr_exp.data.builtin"):
        assert refused(partial(get_object(target), **{name: value})) == said


def test_signatures_are_those_of_the_parts_themselves() -> None:
    for target in TARGETS:
        part, read = get_object(target), signatures.parameters(target)
        for name, hint in ranges.arguments(part).items():
            if ranges.of(hint) and name in read:
                assert str(ranges.of(read[name])) == str(ranges.of(hint))
                assert ranges.per_member(read[name]) == ranges.per_member(hint)
    assert "data" in signatures.parameters("awr_exp.training.offline.Offline")
    assert "data" not in signatures.parameters("awr_exp.training.online.Online")
    assert "total" not in signatures.parameters("awr_exp.training.online.Online")
    assert signatures.parameters("awr_exp.agents.bc.BC").keys() < signatures.parameters("awr_exp.agents.awr.AWR").keys()
    for nothing in ("awr_exp.math.weights.exp_clop", "os.system", "awr_exp./etc.x", "", None, ["awr_exp.main.run"]):
        assert signatures.parameters(nothing) == {}


def test_numbers_of_all_libraries_and_lists_of_one_a_member_are_looked_into() -> None:
    agent = make_awr(seeds=(0, 1), beta=torch.tensor([0.1, 0.2]), gamma=np.float32(0.5), max_grad_norm=[None, 1.0])
    assert agent.beta.flatten().tolist() == pytest.approx([0.1, 0.2])
    for several in ([0.1, -1], (0.1, -1), np.array([0.1, -1.0]), torch.tensor([0.1, -1])):
        with pytest.raises(
            UserError, match=r"^agent\.beta is -1(\.0)?; it must be a positive, finite number: it divides"
        ):
            make_awr(seeds=(0, 1), beta=several)
    with pytest.raises(UserError, match=r"^network\.hidden is \[8, 0\]; it must be a list of widths such as"):
        MLP(3, 2, (8, 0))
    with pytest.raises(UserError, match=r"^agent\.actor_lr is 0; it must be a positive"):
        BC(CONTINUOUS, NETWORK, heads.auto, [0], 0)
    with pytest.raises(UserError, match=r"^agent\.value_iters is \[1, 2\]; it must be a whole number of at least 1"):
        make_awr(seeds=(0, 1), value_iters=[1, 2])
    with pytest.raises(UserError, match=r"^agent\.beta is \[0\.1, 0\.2\]; it must be a positive"):
        composed("agent.beta=[0.1,0.2]")


class Mine(AWR):
    """greed: of a member; others: nobody says what they may be."""

    def __init__(self, *args: Any, greed: PerMember[Unit] = 0.5, others: float = 1.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.greed = self.hyper(greed)


Even = Annotated[int, Range(lambda v: v % 2 == 0, "an even number")]


def power(
    advantage: Tensor,
    beta: Tensor,
    max_weight: Tensor,
    exponent: "Even",
    base: "Nothing" = 2,  # type: ignore[name-defined]  # noqa: F821
    powers: Sequence[int] | None = None,
    scale: Hyper = 1.0,
) -> Tensor:
    return advantage.pow(exponent)


def test_own_parts_have_ranges_by_annotating_their_arguments() -> None:
    own = composed()
    own["agent"] |= {"_target_": f"{HERE}.Mine", "greed": 0.5, "others": -3}
    own["weighting"] = own["agent"]["weighting"] = {
        "_target_": f"{HERE}.power",
        "_partial_": True,
        "exponent": 2,
        "base": 1,
        "powers": [-1],
        "scale": -1,
    }
    settings.check_ranges(own)
    check_targets(own)
    for place, name, value, wanted in (
        ("agent", "greed", 2, "a number from 0 to 1"),
        ("agent", "beta", 0, "a positive, finite number: it divides the advantage"),
        ("weighting", "exponent", 3, "an even number"),
        ("weighting", "exponent", [], "an even number"),
    ):
        before, own[place][name] = own[place][name], value
        with pytest.raises(UserError, match=re.escape(f"{place}.{name} is {value}; it must be {wanted}")):
            check_targets(own)
        own[place][name] = before
    with pytest.raises(UserError, match=r"^agent\.greed is -1; it must be a number from 0 to 1"):
        make_awr(kind=Mine, greed=-1)
    with pytest.raises(UserError, match=r"^agent\.beta is -1; it must be a positive"):
        make_awr(kind=Mine, beta=-1)
    other = own | {"agent": own["agent"] | {"greed": 0.1}}
    assert group_key(own) == group_key(other)
    assert group_key(own) != group_key(own | {"agent": own["agent"] | {"others": 4}})


UNUSED = {
    "agent=bc weighting=indicator": "the agent that is chosen has no weighting: leave it out, or choose another agent",
    "agent=bc +weighting.rate=1": "the agent that is chosen has no weighting",
    "agent=iql advantage=gae": "the agent that is chosen has no advantage",
    "agent=iql advantage.lam=0.5": "the agent that is chosen has no advantage",
    "trainer=offline schedule=phased": "the trainer that is chosen has no schedule",
}


@pytest.mark.parametrize("typed", UNUSED)
def test_a_group_that_nothing_uses_is_refused_where_it_was_typed(typed: str) -> None:
    with pytest.raises(UserError, match=f"has no effect, since {UNUSED[typed]}") as error:
        composed(*typed.split())
    assert str(error.value).startswith(typed.split()[1].lstrip("+"))
    assert "\n" not in str(error.value)


def test_a_group_that_nothing_uses_is_left_out_where_nobody_asked_for_it() -> None:
    groups = ("advantage", "weighting", "schedule", "network", "head", "optimizer")
    used = {
        agent: [name for name in groups if composed(f"agent={agent}")[name]] for agent in ("awr", "rwr", "iql", "bc")
    }
    assert used["awr"] == used["rwr"] == ["advantage", "weighting", "network", "head", "optimizer"]
    assert used["iql"] == ["weighting", "network", "head", "optimizer"]
    assert used["bc"] == ["network", "head", "optimizer"]
    assert composed("experiment=nexus_offline", "dataset.id=a/b-v0", "agent=bc")["advantage"] is None


def test_a_run_goes_on_with_the_groups_that_it_does_not_use(tmp_path: Path) -> None:
    def resumed(*typed: str) -> Any:
        overrides = arguments.to_resume([f"resume={tmp_path}", *typed])
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            return compose("config", overrides, return_hydra_config=True)

    (tmp_path / ".hydra").mkdir()
    composed()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        OmegaConf.save(compose("config", ["agent=bc"]), tmp_path / ".hydra" / "config.yaml")
    choices = {"agent": "bc", "weighting": "exp_clip", "advantage": "td_lambda_short"}
    OmegaConf.save({"hydra": {"runtime": {"choices": choices}}}, tmp_path / ".hydra" / "hydra.yaml")
    command.Check().on_run_start(resumed("agent.actor_lr=0.1"))
    with pytest.raises(
        SystemExit, match="weighting=indicator has no effect, since the agent that is chosen has no weig"
    ):
        command.Check().on_run_start(resumed("weighting=indicator"))
