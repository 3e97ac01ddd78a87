"""Which jobs may train as one, and as what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awr_exp.agents.awr import AWR
from awr_exp.building.build import build
from awr_exp.building.stacking import group_key, stack
from awr_exp.math.advantages import LambdaReturn
from awr_exp.training.team import CACHE, parts_by_cache
from tests.conftest import CONTINUOUS, composed


@pytest.mark.parametrize(
    "change",
    [
        "agent.beta=1.0", "agent.max_weight=5.0", "agent.gamma=0.5", "agent.actor_lr=0.1", "agent.critic_lr=0.1",
        "agent.max_grad_norm=1.0", "agent.standardize_advantages=true", "agent.normalize_observations=false",
        "advantage.lam=0.5", "seed=7", "logger=jsonl", "logger.wandb.tags=[mine]", "objective=eval/return_max",
    ],
)  # fmt: skip
def test_what_stacks(change: str) -> None:
    base = "advantage=td_lambda"
    assert group_key(composed(base)) == group_key(composed(base, change))


@pytest.mark.parametrize(
    "change",
    [
        "agent=bc", "agent.value_iters=2", "network=mlp_paper", "network.hidden=[8]", "head=tanh_gaussian",
        "dataset=cartpole_mixed", "dataset.reward_scale=1.0", "env=none", "trainer.updates=7", "trainer.batch_size=8",
        "weighting=indicator", "advantage=n_step", "callback=video", "baseline=bc", "device=cpu", "threads=1",
        # Off altogether, which the one-step estimator makes use of.
        "advantage.lam=0.0",
    ],
)  # fmt: skip
def test_what_does_not_stack(change: str) -> None:
    base = ["advantage=td_lambda"]
    assert group_key(composed(*base)) != group_key(composed(*(base if change != "agent=bc" else []), change))


def test_strangers_train_alone() -> None:
    cfg = composed()
    cfg["trainer"]["_target_"] = "somebody.elses.Trainer"
    other = composed()
    other["trainer"]["_target_"] = "somebody.elses.Trainer"
    assert group_key(cfg) != group_key(other)


def test_a_stack_has_lists_only_where_members_differ() -> None:
    cfgs = [
        composed("advantage=td_lambda", f"agent.beta={beta}", f"advantage.lam={lam}", f"agent.max_grad_norm={norm}")
        for beta, lam, norm in [(0.1, 0.9, "null"), (0.5, 0.7, 2.0)]
    ]
    node = stack([cfg["agent"] for cfg in cfgs])
    assert node["beta"] == [0.1, 0.5]
    assert node["advantage"]["lam"] == [0.9, 0.7]
    assert node["max_grad_norm"] == [None, 2.0]
    assert node["max_weight"] == cfgs[0]["agent"]["max_weight"]
    agent = build(node, spec=CONTINUOUS, seeds=[3, 4])
    assert isinstance(agent, AWR)
    assert agent.beta.flatten().tolist() == pytest.approx([0.1, 0.5])
    assert agent.max_grad_norm.tolist() == [[float("inf")], [2.0]]
    second = agent.shard(slice(1, 2))
    assert second.estimator == LambdaReturn([0.7])
    assert second.seeds == [4]
    # In the same memory.
    second.actor.theta.fill_(7)
    assert (agent.actor.theta[1] == 7).all()
    assert not (agent.actor.theta[0] == 7).any()


@given(members=st.integers(1, 200), kilobytes=st.integers(1, 5000), workers=st.integers(1, 64))
def test_blocks_fit_the_cache_and_keep_every_worker_busy(members: int, kilobytes: int, workers: int) -> None:
    parts = parts_by_cache(members, 1000 * kilobytes, workers)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    found = [part.stop - part.start for part in parts]
    assert sum(found) == members
    assert len(found) >= min(members, workers)
    assert max(found) == 1 or max(found) * 1000 * kilobytes <= CACHE
    assert max(found) - min(found) <= 1
