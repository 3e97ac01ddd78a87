"""What is wrong with a part of one's own, said by its contract."""

import re
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from awr_exp import experiment
from awr_exp.building import task
from awr_exp.errors import UserError
from awr_exp.networks.mlp import MLP
from tests.conftest import CONTINUOUS, SMALL, composed, train

HERE = __name__


def two(advantage: Tensor, beta: Tensor) -> Tensor:
    return advantage


def mean(advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
    return advantage.mean()


def power(advantage: Tensor, beta: Tensor, max_weight: Tensor, exponent: float) -> Tensor:
    return (advantage / beta).clamp(min=0).pow(exponent).minimum(max_weight)


def picky(advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
    if advantage.shape[-1] < 100:
        raise ValueError("not enough")
    return torch.ones_like(advantage)


class Module(nn.Module):
    def __init__(self, inputs: int, outputs: int, **options: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)


class Shapeless:
    def __init__(self, inputs: int, outputs: int, **options: Any) -> None: ...

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        return x


class Headless:
    def __init__(self, spec: Any, **options: Any) -> None:
        self.outputs, self.shapes = 2, {}


class Estimator:
    def __init__(self, lam: float) -> None: ...

    def __call__(self, reward: Tensor, *others: Any, **options: Any) -> Tensor:
        return reward


BROKEN = {
    "network._partial_=false": "network=awr_exp.networks.mlp.MLP: ",
    "head._partial_=false": "head=awr_exp.networks.heads.auto: ",
    "weighting._partial_=false": "weighting=awr_exp.math.weights.exp_clip: ",
    "optimizer._partial_=false": "optimizer=awr_exp.math.optimizers.adam: ",
    f"weighting._target_={HERE}.two": "it cannot be called so (too many positional arguments)",
    f"weighting._target_={HERE}.power": "it cannot be called so (missing a required argument: 'exponent')",
    f"weighting._target_={HERE}.mean": "from rows of the shape (1, 8) it makes ()",
    f"network._target_={HERE}.Module": "it makes an nn.Module",
    f"network._target_={HERE}.Shapeless": "what it makes has no shapes, start",
    f"head._target_={HERE}.Headless": "what it makes has no noise, loss_noise, differentiable, known_density",
    f"advantage._target_={HERE}.Estimator": "it has no one_step",
    "+advantage._partial_=true": "it cannot be called so",
    f"optimizer._target_={HERE}.two": "it cannot be called so (too many positional arguments)",
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_a_part_that_breaks_its_contract_is_told_it(wrong: str) -> None:
    with pytest.raises(UserError, match=re.escape(BROKEN[wrong])) as error:
        task.parameters(composed(wrong)["agent"], CONTINUOUS)
    assert re.fullmatch(r"(\w+)=[\w.]+: .*; it must be a .*: see docs/extending\.md", str(error.value))
    assert (Path(experiment.__file__).parents[1] / "docs").is_dir()


def no_maker(data: Any, spec: Any) -> int:
    return 3


def another(data: Any, spec: Any) -> Any:
    return lambda: gymnasium.make("CartPole-v1")


def no_data(device: Any) -> dict[str, int]:
    return {}


class Quiet:
    def __init__(self, **options: Any) -> None: ...


MADE = {
    f"env._target_={HERE}.no_maker": f"env={HERE}.no_maker: what it makes is of the type int; it must be",
    f"env._target_={HERE}.another": f"environment '{HERE}.another' does not fit data set",
    f"dataset={{_target_:{HERE}.no_data}}": f"dataset={HERE}.no_data: what it makes is of the type dict; it must be",
    f"agent._target_={HERE}.Quiet": f"agent={HERE}.Quiet: what it makes is of the type Quiet; it must be",
    f"logger={{mine:{{_target_:{HERE}.Quiet,_partial_:true}}}}": "what it makes is of the type Quiet; it must be",
}


@pytest.mark.parametrize("wrong", MADE)
def test_what_a_part_makes_is_of_its_kind(
    wrong: str, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    cfg = OmegaConf.create(composed(*SMALL))
    name, _, value = wrong.partition("=")
    OmegaConf.update(cfg, name, OmegaConf.create(f"a: {value}".replace(":", ": ")).a, merge=False)
    content: Any = OmegaConf.to_container(cfg)
    with pytest.raises(UserError, match=re.escape(MADE[wrong])):
        train([content], [tmp_path])


@pytest.mark.parametrize("right", [f"weighting._target_={HERE}.picky", f"weighting._target_={HERE}.power"])
def test_a_part_that_keeps_its_contract_is_left_to_itself(right: str) -> None:
    own = [right] if "picky" in right else [right, "+weighting.exponent=2.0"]
    agent = composed(*own, "network.hidden=[8,4]")["agent"]
    network = MLP(CONTINUOUS.obs_dim, 1, (8, 4))
    numbers = task.parameters(agent, CONTINUOUS)
    built = experiment.build(agent, spec=CONTINUOUS, seeds=[0])
    assert numbers == sum(network.theta.numel() for network in built.networks.values())
    assert network.shapes == built.critic.module.shapes
