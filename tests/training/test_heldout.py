"""Episodes that are held out: nothing is trained on them, and what is said of policies there is what it should be."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from awr_exp import experiment
from awr_exp.agents.bc import BC
from awr_exp.building.build import build
from awr_exp.data.episodes import from_episodes
from awr_exp.data.holdout import of_episodes, split
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.networks import heads
from awr_exp.training import checkpoint, closing, rows
from awr_exp.training.closing import _judged
from awr_exp.training.heldout import ROWS, HeldOut, judge
from awr_exp.training.run import Run
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, DISCRETE, NETWORK, composed, make_awr, train
from tests.data.test_description import episodes

KEPT = 18
"""Episodes of 20 that are learnt from."""


def mine(device: Any = "cpu", spec: Spec = CONTINUOUS, count: int = 20, without: bool = False) -> Transitions:
    """A data set of one's own; without: the episodes that are held out, which are as if they had never been there."""
    data = from_episodes("mine/held-v0", spec, episodes(count, spec=spec))
    if without:
        held = split(data, 0.1, 0)[1].info.episode_returns
        data = of_episodes(data, ~np.isin(data.info.episode_returns, held), "by hand")
    return data.to(device)


@settings(max_examples=15)
@given(st.integers(2, 40), st.floats(0.01, 0.9), st.integers(0, 5))
def test_the_two_parts_are_the_whole_and_have_nothing_in_common(count: int, share: float, seed: int) -> None:
    made = [
        {"observations": np.full((steps + 1, 3), n), "actions": np.zeros((steps, 2)), "rewards": np.full(steps, n)}
        for n, steps in enumerate(np.random.default_rng(count).integers(1, 6, count))
    ]
    data = from_episodes("mine/parts-v0", CONTINUOUS, made)
    learnt, held = split(data, share, seed)
    marks = [part.observations()[:, 0].unique().tolist() for part in (learnt, held)]
    assert sorted([*marks[0], *marks[1]]) == list(range(count))
    assert held.info.episodes == min(count - 1, max(1, round(share * count)))
    for part, mark in zip((learnt, held), marks, strict=True):
        assert part.lengths.tolist() == [len(made[int(n)]["rewards"]) for n in mark]
        assert part.info.episode_returns.tolist() == [n * len(made[int(n)]["rewards"]) for n in mark]
        assert_close(part.sample(torch.arange(len(part)).unsqueeze(0)).reward, part.reward.unsqueeze(0))
    assert len({data.info.fingerprint, learnt.info.fingerprint, held.info.fingerprint}) == 3


def test_of_a_single_episode_none_is_held_out() -> None:
    with pytest.raises(UserError, match="choose holdout=none"):
        split(mine(count=1), 0.1, 0)


def test_the_likelihoods_are_those_of_the_policy() -> None:
    data = mine(count=50)
    assert len(data) > ROWS
    agent = make_awr(seeds=[0, 1], dtype=torch.float32)
    agent.fit_normalizer(*data.obs_statistics())
    found, whole = judge(agent, data, 0), agent.normalized(data.sample(torch.arange(len(data)).expand(2, -1)))
    nll = agent.policy.loss(agent.actor.theta, whole.obs, whole.action, agent.noise(whole, "actor"))[0]
    weight = agent.weights(agent.advantage(whole))
    assert_close(found["nll"], nll.mean(1))
    assert_close(found["weighted_nll"], (weight * nll).sum(1) / weight.sum(1))
    clone = BC(CONTINUOUS, NETWORK, heads.auto, seeds=[0])
    assert_close(*(judge(clone, data, 0)[name] for name in ("nll", "weighted_nll")))
    assert "value_error" not in judge(clone, data, 0)


def test_the_error_of_a_critic_is_in_variances_of_its_target() -> None:
    data, agent = mine(), make_awr(dtype=torch.float32, gamma=0.0)
    batch = agent.normalized(data.sample(torch.arange(len(data)).unsqueeze(0)))
    error = (batch.reward - agent.value(batch.obs)).var(1) / batch.reward.var(1)
    assert_close(judge(agent, data, 0)["value_error"], error)
    # It then knows no more than a mean.
    agent.critic.theta.zero_()
    assert_close(judge(agent, data, 0)["value_error"], torch.ones(1))


KINDS = {
    **{name: [f"agent={name}"] for name in (
        "awr", "rwr", "marwil", "iql", "awac", "crr", "td3_awr", "bc", "bc_top", "td3_bc", "rebrac", "cql", "cal_ql",
    )},
    **{name: [f"weighting={name}"] for name in ("adaptive_ess", "exp_running_scale", "normalized", "conditioned")},
    **{name: [f"head={name}"] for name in ("flow", "mixture", "categorical_bins", "tanh_gaussian")},
}  # fmt: skip
DENSE = {"flow": False, "td3_awr": False, "td3_bc": False, "rebrac": False}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_judged_stays_as_it_is_and_does_not_depend_on_its_neighbours(kind: str) -> None:
    cfg, data = composed(*KINDS[kind], "network.hidden=[8]"), mine()
    agent = build(cfg["agent"], spec=CONTINUOUS, seeds=[0, 1, 2])
    agent.fit_normalizer(*data.obs_statistics())
    before = copy.deepcopy(agent.state_dict())
    found = judge(agent.averaged(), data, 0)
    for name, tensor in agent.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    named = "nll" if DENSE.get(kind, True) else "loss"
    assert found.keys() == {named, f"weighted_{named}"} | ({"value_error"} if agent.value_iters else set())
    assert all(values.shape == (3,) and values.isfinite().all() for values in found.values())
    alone = judge(agent.shard(slice(1, 2)), data, 0)
    for name, values in found.items():
        assert_close(alone[name], values[1:2], rtol=1e-3, atol=1e-4)
    again = judge(agent, data, 0)
    assert all(torch.equal(values, again[name]) for name, values in found.items())


def test_discrete_policies_are_judged_too() -> None:
    data, agent = mine(spec=DISCRETE), make_awr(DISCRETE, dtype=torch.float32)
    # It begins almost even.
    assert float(judge(agent, data, 0)["nll"]) == pytest.approx(math.log(4), abs=0.5)


def configuration(*overrides: str, **dataset: Any) -> dict[str, Any]:
    cfg = composed("env=none", "network.hidden=[8]", "logger=jsonl", "trainer.compile=false", "trainer.batch_size=32",
                   "trainer.report_interval=2", "trainer.eval_interval=2", "trainer.checkpoint_interval=2",
                   "trainer.updates=6", "trainer.anneal_updates=6", *overrides)  # fmt: skip
    return cfg | {"dataset": {"_target_": f"{__name__}.mine", **dataset}}


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.latest(folder)
    assert found is not None
    return found[0]


def test_held_out_episodes_are_as_if_they_had_never_been_there(tmp_path: Path) -> None:
    one, other = configuration(), configuration("holdout=none", without=True)
    for cfg, name in ((one, "held"), (other, "none")):
        (outcome,) = train([cfg], [tmp_path / name])
        assert outcome.error is None
    held, none = parameters(tmp_path / "held"), parameters(tmp_path / "none")
    assert held.keys() == none.keys()
    for name, tensor in held.items():
        assert torch.equal(tensor, none[name]), name


def series(folder: Path, name: str) -> dict[int, float]:
    return {row["update"]: row["value"] for row in rows.read(folder) if row["name"] == name}


def test_a_run_that_is_resumed_judges_as_it_would_have_and_the_best_is_kept(tmp_path: Path) -> None:
    whole, half = configuration(), configuration("trainer.updates=4")
    train([whole], [tmp_path / "whole"])
    train([half], [tmp_path / "half"])
    train([whole], [tmp_path / "half"])
    for name in ("heldout/nll", "heldout/weighted_nll", "heldout/value_error"):
        assert series(tmp_path / "whole", name) == series(tmp_path / "half", name)
        assert list(series(tmp_path / "whole", name)) == [2, 4, 6]
    lowest = series(tmp_path / "whole", "heldout/weighted_nll")
    for folder in (tmp_path / "whole", tmp_path / "half"):
        found = checkpoint.best(folder)
        assert found is not None
        assert found[1]["update"] == min(lowest, key=lambda update: lowest[update])
        assert found[1]["heldout"] == min(lowest.values())


def test_members_are_judged_each_by_itself(tmp_path: Path) -> None:
    several = [configuration(f"seed={seed}", "holdout.best=nll") for seed in range(2)]
    train(several, [tmp_path / "0", tmp_path / "1"], ["0", "1"])
    train([several[1]], [tmp_path / "alone"])
    assert series(tmp_path / "1", "heldout/nll") == pytest.approx(series(tmp_path / "alone", "heldout/nll"), rel=1e-4)
    assert series(tmp_path / "0", "heldout/nll") != series(tmp_path / "1", "heldout/nll")


@pytest.mark.parametrize(("option", "learnt"), [("auto", 20), ("none", 20), ("episodes", KEPT)])
def test_with_an_environment_nothing_is_held_out_unless_it_is_asked_for(
    option: str, learnt: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = mine()
    monkeypatch.setattr(experiment, "open_task", lambda config, device: (data, lambda: None, data.spec))
    made = experiment.Experiment([Run(tmp_path, config=configuration(f"holdout={option}"))])
    assert made.data.info.episodes == learnt
    assert (made.data is data) == (learnt == 20)


def test_what_decides_must_be_there_and_the_last_policy_counts_otherwise(tmp_path: Path) -> None:
    cfg = configuration("agent=bc", "holdout.best=value_error")
    (outcome,) = train([cfg], [tmp_path])
    assert "heldout/nll" in outcome.metrics
    assert not (tmp_path / "checkpoint" / "best.safetensors").exists()


def test_without_a_data_set_there_is_nothing_to_hold_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "open_task", lambda config, device: (None, lambda: None, CONTINUOUS))
    with pytest.raises(UserError, match="holdout=episodes needs a data set"):
        experiment.Experiment([Run(tmp_path, config=configuration("holdout=episodes"))])


def test_a_single_episode_is_learnt_from_unless_it_is_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = mine(count=1)
    monkeypatch.setattr(experiment, "open_task", lambda config, device: (data, None, data.spec))
    made = experiment.Experiment([Run(tmp_path, config=configuration("holdout=auto"))])
    assert made.data is data
    assert "there is a single episode: none is held out" in caplog.text


def test_no_search_maximises_what_should_be_small() -> None:
    with pytest.raises(UserError, match="is smaller where it is better, and a search maximises"):
        composed("objective=heldout/nll")


def test_a_share_is_between_0_and_1() -> None:
    with pytest.raises(UserError, match="it must be a number above 0 and below 1"):
        HeldOut(share=1)


def test_the_closing_table_says_what_is_known() -> None:
    known = {"heldout/value_error": 0.5, "heldout/weighted_nll": 1.0, "heldout/nll": 1.25}
    assert _judged(known) == "NLL 1.25, weighted 1, value error 0.5"
    assert _judged({"heldout/loss": 2.0, "heldout/weighted_loss": 3.0}) == "loss 2, weighted 3"
    assert _judged({"eval/return_mean": 1.0}) == ""


def test_the_closing_table_fits_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    config = {"agent": {"_target_": "AWR"}, "baseline": {"_target_": "BC"}}
    agent, baseline = (Run(tmp_path / name, config=config) for name in config)
    for run in (agent, baseline):
        run.latest |= {f"heldout/{name}": 0.12345 for name in ("nll", "weighted_nll", "value_error")}
        run.latest |= {f"fqe/return_{name}": -1234.5 for name in ("mean", "low", "high")}
        run.latest |= {"fqe/gamma": 0.99, "fqe/data_return": -1234.5}
    closing.show(mine().info, agent, baseline)
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    estimate, judged = "not evaluated -1234.5 (-1234.5 to -1234.5)", "NLL 0.1235, weighted 0.1235, value error 0.1235"
    assert said[1:5] == [
        "return of estimate, discounted by 0.99",
        "data set mine/held-v0 285.9 ± 172.4 -1234.5",
        f"baseline BC {estimate}",
        f"AWR {estimate}",
    ]
    assert said[6:8] == [f"held out (AWR): {judged}", f"held out (BC): {judged}"]
