"""Actions for several steps at once: the same data, learnt from in longer steps, and played step by step."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from awr_exp.agents.awr import AWR
from awr_exp.building import dataset, stacking
from awr_exp.building.build import build
from awr_exp.data import packing
from awr_exp.data.chunks import chunks
from awr_exp.data.episodes import from_episodes
from awr_exp.data.holdout import split
from awr_exp.data.selection import select
from awr_exp.data.transitions import Transitions
from awr_exp.envs import fit
from awr_exp.envs.spaces import spec_of
from awr_exp.errors import UserError
from awr_exp.layout import structured
from awr_exp.math.advantages import lambda_return
from awr_exp.networks.mlp import MLP
from awr_exp.training.evaluate import FIRST_SEED, Evaluator
from awr_exp.training.fitted_q import FittedQ, first_rows
from awr_exp.training.fqe import FQE
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, composed, make_awr, refused

BOX = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 4], np.float32))
ACTIONS = {
    "continuous": BOX,
    "matrix": spaces.Box(-1, 1, (2, 3), np.float32),
    "discrete": spaces.Discrete(4, start=1),
    "several": spaces.MultiDiscrete([2, 3], start=[0, 5]),
    "binary": spaces.MultiBinary(2),
    "whole": spaces.Box(-1, 2, (2,), np.int64),
    "tuple": spaces.Tuple((BOX, spaces.Box(0, 1, (), np.float32))),
    "dict": spaces.Dict(b=spaces.Discrete(3), a=spaces.MultiDiscrete([2, 5])),
}
SEEN = spaces.Box(-1, 1, (3,), np.float32)


def recorded(spec: Spec, lengths: list[int], terminated: list[bool], seed: int = 0) -> Transitions:
    """Episodes of noise."""
    rng = np.random.default_rng(seed)
    episodes = []
    for length, ends in zip(lengths, terminated, strict=True):
        actions: Any = rng.uniform(0, 1, (length, spec.action_dim)).astype(np.float32)
        if spec.discrete:
            actions = rng.integers(spec.counts, size=(length, spec.action_dim)).reshape(length, *spec.action_shape)
        seen, rewards = rng.normal(size=(length + 1, spec.obs_dim)).astype(np.float32), rng.normal(size=length)
        episodes.append({"observations": seen, "actions": actions, "rewards": rewards, "terminated": ends})
    return from_episodes("noise", spec, episodes)


def every(data: Transitions) -> dict[str, np.ndarray]:
    batch = data.sample(torch.arange(len(data)).unsqueeze(0))
    names = ("obs", "action", "reward", "next_obs", "terminated", "truncated")
    return {name: getattr(batch, name)[0].numpy() for name in names}


def spec_and_back(space: Any) -> Spec:
    return spec_of("a test", SEEN, space)


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
def test_a_chunk_is_what_gymnasium_makes_of_several_actions(space: Any) -> None:
    """Its space, and what its steps are, by gymnasium's own functions for a batch of spaces."""
    one = spec_of("a test", SEEN, space)
    chunk = one.chunked(4)
    assert replace(chunk, chunk=1) == spec_of("a test", SEEN, batch_space(space, 4))
    assert chunk.unchunked == one
    assert Spec.from_json(json.loads(json.dumps(asdict(chunk)))) == chunk
    assert (one.chunked(1), one.unchunked) == (one, one)
    rng = np.random.default_rng(0)
    flat: Any = rng.uniform(0, 1, chunk.action_dim).astype(np.float32)
    if chunk.discrete:
        flat = rng.integers(chunk.counts) + chunk.starts
    # As a loaded policy answers, beside what the evaluation plays.
    whole, steps = structured(chunk.action, flat), chunk.steps(flat)
    assert steps.shape == (4, *one.action_shape)
    expected = iterate(batch_space(space, 4), whole)
    for step, own in zip(steps, expected, strict=True):
        assert _lists(structured(one.action, step)) == _lists(own)
    batch = chunk.steps(np.stack([flat, flat])[None])
    assert batch.shape == (4, 1, 2, *one.action_shape)
    np.testing.assert_array_equal(batch[:, 0, 1], steps)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(part) for key, part in value.items()}
    return tuple(map(_lists, value)) if isinstance(value, tuple) else np.asarray(value).tolist()


@pytest.mark.parametrize("wrong", [{"chunk": 3}, {"chunk": 0}, {"chunk": "4"}])
def test_a_chunk_of_other_steps_than_its_parts_is_no_task(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"its task has|it describes no task"):
        Spec.from_json(json.loads(json.dumps(asdict(CONTINUOUS.chunked(4)))) | wrong)


def test_chunks_of_one_step_are_the_data_set_itself() -> None:
    data = recorded(CONTINUOUS, [5, 2], [True, False])
    assert chunks(data, 1, 0.9) is data


def plain(data: Transitions, steps: int, gamma: float) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The transitions of each part of each episode, as a plain loop makes them."""
    step, begin = every(data), 0
    for number, length in enumerate(data.lengths.tolist()):
        ends = bool(step["terminated"][begin + length - 1])
        for phase in range(steps):
            found = []
            for t in range(phase, length, steps):
                if t + steps > length and not ends:
                    break
                rows = [begin + min(t + i, length - 1) for i in range(steps)]
                gained = sum(gamma**i * float(step["reward"][begin + t + i]) for i in range(min(steps, length - t)))
                last = rows[min(steps, length - t) - 1]
                found.append(
                    {
                        "obs": step["obs"][begin + t],
                        "steps": step["action"][rows],
                        "reward": gained,
                        "next_obs": step["next_obs"][last],
                        "terminated": ends and t + steps >= length,
                    }
                )
            if found:
                yield number, found
        begin += length


@given(
    episodes=st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=6),
    steps=st.integers(2, 6),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
    kind=st.sampled_from(["continuous", "discrete", "tuple", "dict"]),
)
def test_every_transition_is_that_of_a_plain_loop(
    episodes: list[tuple[int, bool]], steps: int, gamma: float, kind: str
) -> None:
    lengths, terminated = map(list, zip(*episodes, strict=True))
    data = recorded(spec_of("a test", SEEN, ACTIONS[kind]), lengths, terminated)
    if all(length < steps for length in lengths) or all(length < steps and not ends for length, ends in episodes):
        with pytest.raises(UserError, match=f"dataset.action_chunk={steps} is longer than any episode of data set"):
            chunks(data, steps, gamma)
        return
    made = chunks(data, steps, gamma)
    expected = list(plain(data, steps, gamma))
    assert made.lengths.tolist() == [len(part) for _, part in expected]
    kept = sorted({number for number, _ in expected})
    assert made.origin.tolist() == [kept.index(number) for number, _ in expected]
    np.testing.assert_array_equal(made.info.episode_returns, data.info.episode_returns[kept])
    found, rows = every(made), [row for _, part in expected for row in part]
    for name in ("obs", "next_obs", "terminated"):
        np.testing.assert_array_equal(found[name], [row[name] for row in rows])
    np.testing.assert_allclose(found["reward"], [row["reward"] for row in rows], rtol=1e-6, atol=1e-6)
    played = np.moveaxis(made.spec.steps(found["action"]), 0, 1)
    np.testing.assert_array_equal(played, np.stack([row["steps"] for row in rows]))
    np.testing.assert_array_equal(found["truncated"], made.last.numpy() & ~found["terminated"])
    # Each observation is kept about once.
    assert len(made.packed) == len(made) + len(made.lengths)


def test_images_stay_bytes_and_what_is_scaled_is_scaled_before() -> None:
    spec = spec_of("a test", spaces.Dict(x=spaces.Box(0, 255, (2, 3), np.uint8), y=SEEN), spaces.Discrete(2))
    rng = np.random.default_rng(0)
    seen = np.concatenate([rng.integers(256, size=(7, 6)), rng.normal(size=(7, 3))], 1).astype(np.float32)
    data = from_episodes(
        "images", spec, [{"observations": seen, "actions": np.zeros(6, int), "rewards": np.arange(6.0)}]
    )
    made = chunks(select(data, reward_scale=2.0, reward_shift=1.0), 3, 0.5)
    assert made.schema.width == data.schema.width + 2
    np.testing.assert_array_equal(every(made)["obs"][0], every(data)["obs"][0])
    own = every(data)["reward"][:3] * 2 + 1
    assert every(made)["reward"][0] == pytest.approx(own[0] + own[1] / 2 + own[2] / 4)


def test_returns_of_chunks_are_those_of_steps() -> None:
    """TD(1), which is Monte Carlo, at the steps that chunks begin at."""
    gamma, steps = 0.9, 4
    data = recorded(CONTINUOUS, [9, 4, 1], [True, True, True])

    def returns(own: Transitions, discount: float) -> Tensor:
        zero = torch.zeros(1, len(own), dtype=torch.float64)
        each = discount * ~own.terminated.unsqueeze(0)
        return lambda_return(own.reward.double().unsqueeze(0), each, zero, own.last, 1.0, own.longest)[0]

    made = chunks(data, steps, gamma)
    begins = {tuple(obs.tolist()): row for row, obs in enumerate(every(data)["obs"])}
    at = [begins[tuple(obs.tolist())] for obs in every(made)["obs"]]
    assert sorted(at) == list(range(len(data)))
    assert_close(returns(made, gamma**steps), returns(data, gamma)[at], rtol=1e-6, atol=1e-6)


def test_an_update_on_chunks_is_an_n_step_update() -> None:
    """The targets, and the critic after a step toward them, written out from single steps."""
    gamma, steps = 0.8, 3
    data = recorded(CONTINUOUS, [7, 5], [True, False])
    made = chunks(data, steps, gamma)
    agents = [make_awr(made.spec, gamma=gamma, critic_lr=1e-2, advantage=_one_step()) for _ in range(2)]
    batch = agents[0].normalized(made.sample(torch.arange(len(made)).unsqueeze(0)))
    values = agents[0].value(torch.from_numpy(every(data)["next_obs"]).double()[None])[0].detach()
    target = []
    for number, part in plain(data, steps, gamma):
        first = 0 if number == 0 else 7
        for row in part:
            at = first + int(np.flatnonzero((every(data)["next_obs"][first:] == row["next_obs"]).all(1))[0])
            target.append(row["reward"] + (0 if row["terminated"] else gamma**steps * float(values[at])))
    written = torch.tensor([target], dtype=torch.float64)
    assert_close(agents[0].target(batch).double(), written, rtol=1e-5, atol=1e-5)
    agents[0].critic_update(batch)
    agents[1].value_update(batch, written.to(batch.reward))
    assert_close(agents[0].critic.theta, agents[1].critic.theta, rtol=1e-5, atol=1e-6)


def _one_step() -> Any:
    return build(composed("advantage=td")["advantage"])


def test_parts_of_an_episode_are_held_out_together_and_estimates_begin_where_episodes_do() -> None:
    data = recorded(CONTINUOUS, [8, 3, 6, 9], [False, False, True, True])
    made = chunks(data, 4, 0.9)
    assert made.info.episodes == 3
    learnt, held = split(made, 0.4, 0)
    assert {*map(tuple, every(learnt)["obs"].tolist())}.isdisjoint(map(tuple, every(held)["obs"].tolist()))
    assert learnt.info.episodes + held.info.episodes == 3
    begins = every(made)["obs"][first_rows(made)]
    np.testing.assert_array_equal(begins, every(data)["obs"][[0, 11, 17]])
    fitted = FittedQ(made.spec, make_awr().make_network, [0], 0.9)
    assert float(fitted.gamma) == pytest.approx(0.9**4)


class Counts(gymnasium.Env):
    """Shows how many steps were taken; the reward is the action by that, and an episode ends as its seed says."""

    observation_space, action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32), BOX

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.step_number, self.limit = 0, 1 + (seed or 0) % 7
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.step_number += 1
        seen = np.array([self.step_number], np.float32)
        return seen, float(action.sum()) * self.step_number, self.step_number == self.limit, False, {}


@dataclass
class Fixed:
    """Acts by a function of observations."""

    spec: Spec
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    dtype: torch.dtype = torch.float32

    def act(self, obs: Tensor) -> Tensor:
        return torch.sin(obs + torch.arange(self.spec.action_dim))


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_an_evaluation_plays_each_step_and_counts_it(steps: int) -> None:
    policy = Fixed(spec_of("a test", Counts.observation_space, BOX).chunked(steps))
    with closing(Evaluator(Counts, 1, 7)) as evaluator:
        played = evaluator.play(policy)
    for episode in range(7):
        env = Counts()
        obs, _ = env.reset(seed=FIRST_SEED + episode)
        gained, over = 0.0, False
        while not over:
            flat = policy.act(torch.from_numpy(obs)).numpy()
            for action in flat.reshape(steps, 2) if not over else ():
                obs, reward, over, _, _ = env.step(np.clip(action, BOX.low, BOX.high))
                gained += reward
                if over:
                    break
        assert played.lengths[0, episode] == env.step_number == env.limit
        assert played.returns[0, episode] == pytest.approx(gained)


def test_an_environment_of_single_steps_fits_data_of_chunks() -> None:
    env: Any = Counts()
    env.spec = None
    spec = spec_of("a test", env.observation_space, BOX)
    fit.check_policy(env, "a run", spec.chunked(3))
    with pytest.raises(UserError, match="the policy of a run, which has 1 action entries, the environment 2"):
        fit.check_policy(env, "a run", Spec(1, 1, None, (-1.0,), (1.0,)).chunked(2))


def test_runs_of_other_discounts_train_together_where_their_data_are_the_same() -> None:
    cfgs = [
        composed(f"agent.gamma={gamma}", *more) for more in ([], ["dataset.action_chunk=3"]) for gamma in (0.9, 0.8)
    ]
    keys = [stacking.group_key(cfg) for cfg in cfgs]
    assert keys[0] == keys[1]
    assert keys[2] != keys[3]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: chunks(select(recorded(CONTINUOUS, [9], [True]), history=2), 2, 0.9), "leave one of them out"),
        (lambda: chunks(recorded(CONTINUOUS, [2, 3], [True, True]), 4, 0.9), "longer than any .* longest has 3 steps"),
        (lambda: composed("trainer=finetune", "dataset.action_chunk=2"), "finetune collects single steps, and dataset"),
        (lambda: make_top(CONTINUOUS.chunked(2)), "choose agent=bc with dataset.top_percent"),
        (
            lambda: dataset.chosen(["id=pendulum_mixed", "dataset.action_chunk=2"]),
            "and not what is in it: leave it out",
        ),
    ],
)
def test_what_chunks_have_no_form_for_is_refused(act: Callable[[], Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        act()


@pytest.mark.parametrize(
    ("gamma", "shift", "said"),
    [
        (0.5, 0.0, "another discount than the agent's"),
        (None, 1.0, "cannot take dataset.reward_shift out"),
        (0.9, 0.0, ""),
    ],
)
def test_an_estimate_of_other_rewards_than_were_summed_is_refused(gamma: float | None, shift: float, said: str) -> None:
    data = chunks(select(recorded(CONTINUOUS, [9], [True]), reward_shift=shift), 2, 0.9)
    runs = [SimpleNamespace(config={"agent": {"gamma": 0.9}})]
    trainer: Any = SimpleNamespace(
        data=data, runs=runs, agent=SimpleNamespace(spec=data.spec, members=1, device=torch.device("cpu"))
    )
    found = refused(FQE(MLP, gamma=gamma).begin, trainer)
    assert found is None if not said else said in str(found)


def make_top(spec: Spec) -> Any:
    return build(composed("agent=bc_top")["agent"], spec=spec, seeds=[0])


def test_agents_discount_from_chunk_to_chunk() -> None:
    for agent in ("awr", "iql"):
        cfg = composed(f"agent={agent}", "agent.gamma=0.9")
        made = build(cfg["agent"], spec=CONTINUOUS.chunked(3), seeds=[0])
        assert float(made.gamma) == pytest.approx(0.9**3)
    assert isinstance(make_awr(CONTINUOUS, gamma=0.9).gamma, Tensor)
    assert float(make_awr(CONTINUOUS, gamma=0.9, kind=AWR).gamma) == 0.9


def test_chunks_that_the_memory_does_not_take_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = recorded(spec_of("test", SEEN, BOX), [9, 4], [True, False])
    monkeypatch.setattr(packing, "free_memory", lambda: 100)
    said = r"GB of memory with dataset\.action_chunk=3, and 0\.0 GB are free: give a smaller one"
    with pytest.raises(UserError, match=said):
        chunks(data, 3, 0.9)
    assert chunks(data, 1, 0.9) is data
