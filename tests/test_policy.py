"""A trained policy takes what its environment gives, answers in its numbers, and goes wherever Python's objects go."""

import copy
import inspect
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import awr_exp
from awr_exp import policy as module
from awr_exp.data.replay import Replay
from awr_exp.data.transitions import Transitions
from awr_exp.envs.spaces import spec_of
from awr_exp.errors import UserError
from awr_exp.math.observations import normalize
from awr_exp.metadata import difference, policy_metadata
from awr_exp.networks import heads
from awr_exp.networks.policy import Policy
from awr_exp.policy import TrainedPolicy
from awr_exp.training import checkpoint
from awr_exp.types import DataInfo, Spec
from tests.conftest import NETWORK, composed, make_awr, train

BOX = Spec(3, 2, None, (-1.0, 0.1), (1.0, 0.1))
DOORS = Spec(3, num_actions=3, action_start=4)
DICT = spaces.Dict([("goal", spaces.Discrete(2, start=1)), ("agent", spaces.Box(-1, 1, (2,), np.float32))])
PARTS = spec_of("", DICT, spaces.Discrete(3, start=-1))


def trained(spec: Spec) -> TrainedPolicy:
    agent = make_awr(spec, dtype=torch.float32)
    agent.actor.theta.normal_(generator=torch.Generator().manual_seed(3))
    return TrainedPolicy(spec, Policy(spec, NETWORK, heads.auto), agent.state_dict(), 0, "outputs/runs/mine, update 7")


@pytest.mark.parametrize("kind", [list, tuple, np.float64, np.float32, "int", torch.tensor, "gradient"])
def test_vectors_of_any_kind_are_taken(kind: Any) -> None:
    policy, obs = trained(BOX), [1.0, 0.0, -2.0]
    kinds: dict[Any, Any] = {
        np.float64: np.array(obs),
        np.float32: np.array(obs, np.float32),
        "int": np.array(obs).astype(int),
        torch.tensor: torch.tensor(obs),
        "gradient": torch.tensor(obs, requires_grad=True).detach(),
    }
    given = kinds[kind] if kind in kinds else kind(obs)
    assert policy(given).shape == (2,)
    np.testing.assert_array_equal(policy(given), policy(np.array(obs, np.float32)))


def test_what_is_loaded_is_the_average_where_there_is_one() -> None:
    agent = make_awr(BOX, dtype=torch.float32, ema_decay=0.99)
    assert agent.actor.average is not None
    agent.actor.average.normal_(generator=torch.Generator().manual_seed(3))
    averaged = TrainedPolicy(BOX, Policy(BOX, NETWORK, heads.auto), agent.state_dict(), 0)
    obs = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_array_equal(averaged(obs), trained(BOX)(obs))


@pytest.mark.parametrize("spec", [BOX, DOORS])
def test_batches_are_answered_row_by_row(spec: Spec) -> None:
    policy = trained(spec)
    obs = np.random.default_rng(0).normal(size=(2, 5, 3))
    action = policy(obs)
    assert action.shape == ((2, 5) if spec.discrete else (2, 5, 2))
    for place in np.ndindex(2, 5):
        np.testing.assert_allclose(action[place], policy(obs[place]), rtol=1e-5)
    assert policy(np.zeros((0, 3))).shape[0] == 0


def test_actions_are_the_environments_own() -> None:
    policy, rng = trained(DOORS), np.random.default_rng(0)
    assert set(policy(10 * rng.normal(size=(300, 3))).tolist()) == {4, 5, 6}
    assert set(policy(rng.normal(size=(300, 3)), deterministic=False).tolist()) == {4, 5, 6}
    assert spaces.Discrete(3, start=4).contains(policy([0.0, 0.0, 0.0]))
    # A bound of float64 that float32 does not have is not passed.
    box = spaces.Box(np.array([-1, 0.1]), np.array([1, 0.1 + 1e-9]), dtype=np.float64)
    continuous = trained(spec_of("", spaces.Box(-1, 1, (3,)), box))
    for deterministic in (True, False):
        assert (continuous(20 * rng.normal(size=(99, 3)), deterministic) <= box.high).all()


def test_observations_in_parts_are_taken_as_they_come() -> None:
    policy = trained(PARTS)
    assert [entry.name for entry in PARTS.observation] == ["agent", "goal"]
    one = {"goal": 2, "agent": np.array([0.5, -0.5], np.float32)}
    action = policy(one)
    assert int(action) in (-1, 0, 1)
    assert policy({"agent": [0.5, -0.5], "goal": np.array(2)}) == action
    assert policy([0.5, -0.5, 0, 1]) == action
    assert policy(np.array([[0.5, -0.5, 0, 1]])).tolist() == policy([one]).tolist() == [action]
    batch = {"goal": np.array([2, 1, 2]), "agent": np.array([[0.5, -0.5], [0.1, 0.9], [-0.3, 0.2]])}
    rows = [{name: part[row] for name, part in batch.items()} for row in range(3)]
    assert policy(batch).tolist() == [int(policy(row)) for row in rows] == policy(rows).tolist()


@pytest.mark.parametrize(
    ("space", "obs", "flat"),
    [
        (spaces.Discrete(4, start=2), 5, [0, 0, 0, 1]),
        (spaces.Discrete(4, start=2), np.array([2, 5]), [[1, 0, 0, 0], [0, 0, 0, 1]]),
        (spaces.Box(0, 9, (2, 2)), [[1, 2], [3, 4]], [1, 2, 3, 4]),
        (spaces.Box(0, 9, (2, 2)), np.arange(8).reshape(2, 2, 2), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (spaces.Tuple((spaces.Box(0, 9, (2,)), spaces.Discrete(2))), (np.array([1, 2]), 1), [1, 2, 0, 1]),
        (spaces.Tuple((spaces.Box(0, 9, (2,)), spaces.Discrete(2))), [1, 2, 0, 1], [1, 2, 0, 1]),
        (spaces.Tuple((spaces.Box(0, 9, (2,)), spaces.Discrete(2))), [[1, 2], 1], [1, 2, 0, 1]),
        # Two observations, not one of two batches.
        (spaces.Tuple([spaces.Box(0, 9, (1,))] * 2), [([1], [3]), ([5], [7])], [[1, 3], [5, 7]]),
    ],
)
def test_other_structures_are_flattened(space: Any, obs: Any, flat: Any) -> None:
    policy = trained(spec_of("", space, spaces.Discrete(3)))
    np.testing.assert_array_equal(policy._flat(obs), flat)


@pytest.mark.parametrize(
    ("spec", "obs", "message"),
    [
        (BOX, {"agent": np.zeros(2)}, r"not 'dict'; the policy takes \(\.\.\., 3\) numbers$"),
        (BOX, 3, r"it has the shape \(\), its space \(3,\)"),
        (BOX, np.zeros((3, 4)), r"it has the shape \(3, 4\), its space \(3,\)"),
        (BOX, None, "the policy takes"),
        (BOX, "up", "the policy takes"),
        (BOX, [[1, 2, 3], [4]], "the policy takes"),
        (BOX, [0, np.nan, 0], "it holds a number that is not finite"),
        (BOX, [0, 1e300, 0], "it holds a number that is not finite"),
        (
            PARTS,
            {"agent": np.zeros(2)},
            r"it has no goal; the policy takes \(\.\.\., 4\) numbers, or agent \[2\], goal",
        ),
        (PARTS, {"agent": np.zeros(3), "goal": 1}, r"agent has the shape \(3,\), its space \(2,\)"),
        (PARTS, {"agent": np.zeros(2), "goal": 0}, "goal is none of its 2 choices that begin at 1"),
        (PARTS, np.zeros(3), "it has no agent"),
    ],
)
def test_anything_else_is_refused_in_one_line(spec: Spec, obs: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trained(spec)(obs)
    assert "\n" not in str(caught.value)


OBS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


def of_obs(policy: TrainedPolicy) -> Any:
    return policy(OBS)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_a_copy_acts_and_draws_as_the_original(copied: Any) -> None:
    policy = trained(BOX)
    policy(OBS, deterministic=False)
    twin = copied(policy)
    np.testing.assert_array_equal(twin(OBS), policy(OBS))
    if copied is not copy.copy:
        # It has a generator of its own, which goes on from there.
        np.testing.assert_array_equal(twin(OBS, deterministic=False), policy(OBS, deterministic=False))
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(of_obs, [policy, twin] * 4):
            np.testing.assert_array_equal(got, policy(OBS))


@pytest.mark.slow
def test_a_spawned_process_uses_it() -> None:
    policy = trained(BOX)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_allclose(pool.map(of_obs, [policy])[0], policy(OBS), rtol=1e-5)


@pytest.mark.parametrize("own", ["null", "true"])
def test_a_policy_of_a_run_acts_by_the_best_of_its_samples(own: str, tmp_path: Path) -> None:
    small = ["network.hidden=[16]", "trainer.updates=20", "trainer.eval_interval=20", "trainer.eval_episodes=1"]
    run = composed("agent=iql", f"agent.critic_layer_norm={own}", "policy.best_of=16", "logger=jsonl", *small)
    train([run], [tmp_path / "run"])
    best, single = awr_exp.load(tmp_path / "run"), awr_exp.load(tmp_path / "run", best_of=1)
    judge = best.judge
    assert judge is not None
    assert single.judge is None
    assert any("norm" in name for name in judge.q.shapes) == (own == "true")
    assert not any("norm" in name for name in best.policy.shapes)
    obs = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0))
    seen = normalize(obs, *(each.unsqueeze(1) for each in best.normalizer))

    def q(action: Any) -> float:
        return float(judge.q(judge.theta, seen, torch.as_tensor(action).unsqueeze(0)).amin(1).mean())

    others = [q(single(obs[0])), *(q(single(obs[0], deterministic=False)) for _ in range(20))]
    assert q(best(obs[0])) > max(others)


@pytest.mark.parametrize("spec", [BOX, DOORS, PARTS])
def test_a_checkpoint_keeps_what_observations_and_actions_mean(spec: Spec, tmp_path: Path) -> None:
    nodes = {
        "network": {
            "_target_": "awr_exp.networks.mlp.MLP",
            "_partial_": True,
            "hidden": [16, 16],
            "activation": "tanh",
        },
        "head": {"_target_": "awr_exp.networks.heads.auto", "_partial_": True},
    }
    before, metadata = trained(spec), policy_metadata(spec, nodes)
    state = {"actor.theta": before.theta} | {
        f"normalizer.{name}": tensor for name, tensor in zip(("mean", "std", "limit"), before.normalizer, strict=True)
    }
    assert checkpoint.save(tmp_path / "run", 3, state, metadata)
    (tmp_path / "run").rename(tmp_path / "moved")
    policy = awr_exp.load(tmp_path / "moved")
    assert policy.spec == spec
    found = checkpoint.latest(tmp_path / "moved")
    assert found is not None
    assert difference(found[1], policy_metadata(spec, nodes)) is None
    obs = {"agent": [0.2, 0.4], "goal": 1} if spec is PARTS else OBS
    np.testing.assert_array_equal(policy(obs), before(obs))
    assert repr(policy).startswith(f"TrainedPolicy({tmp_path}/moved, update 3: MLP of ")
    assert repr(policy).endswith(f"; {spec})")


def test_objects_say_what_they_are() -> None:
    assert repr(BOX) == "Spec(observations: 3 numbers; actions: 2 numbers, -1 to 1, 0.1 to 0.1)"
    assert repr(PARTS) == "Spec(observations: 4 numbers of agent [2], goal [2]; actions: 3 discrete ones, -1 to 1)"
    said = "outputs/runs/mine, update 7: MLP of 387 parameters, Categorical"
    assert repr(trained(DOORS)) == f"TrainedPolicy({said}; {DOORS})"
    agent = make_awr(DOORS, seeds=range(7))
    assert repr(agent) == (
        f"AWR(seeds 0, 1, 2, 3, 4, ...; parameters: 387 of the actor + 353 of the critic; on cpu; {DOORS})"
    )
    info = DataInfo("a/b-v0", np.array([1.0, 3.0]), "")
    data = Transitions(torch.zeros(6, 7), torch.tensor([2, 2]), DOORS, info)
    assert repr(data) == f"Transitions(a/b-v0: 4 in 2 episodes, return 2.0 ± 1.0, on cpu; {DOORS})"
    replay = Replay(DOORS, 2, 4, 100)
    assert repr(replay) == f"Replay(2 members with 0 of at most 100 transitions, from 4 environments each; {DOORS})"


def test_the_front_door_is_typed() -> None:
    assert list(inspect.signature(awr_exp.load).parameters) == list(inspect.signature(module.load).parameters)
