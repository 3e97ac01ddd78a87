"""A ring of transitions is what was put into it last, in order of time, and episodes stay whole."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from awr_exp.data.following import row_bytes
from awr_exp.data.replay import Replay
from awr_exp.data.stacks import together
from awr_exp.errors import UserError
from awr_exp.layout import Entry
from awr_exp.math.advantages import LambdaReturn
from awr_exp.types import Batch, Spec
from tests.conftest import CONTINUOUS, DISCRETE, make_awr

K, E = 2, 3
PARTS = (Entry(("a",), (2,)), Entry(("b",), (3, 2), dtype="uint8"), Entry(("c",), (), (4,), (1,), dtype="int64"))
IMAGE = Spec(84 * 84, num_actions=4, observation=(Entry((), (84, 84), dtype="uint8"),))
TASKS = [CONTINUOUS, DISCRETE, replace(IMAGE, obs_dim=5, observation=(Entry((), (5,), dtype="uint8"),))]
TASKS += [Spec(12, 1, None, (-1.0,), (1.0,), observation=PARTS)]
NAMES = ("obs", "next_obs", "action", "reward", "terminated", "truncated")


class Lanes:
    """Random episodes of K members' E environments, as they are played and as a plain list of steps has them.

    A step has the numbers of its episode's observations up to its own, and of the next one.
    """

    def __init__(self, single: Spec, history: int, members: int, envs: int, seed: int, mean: float) -> None:
        self.single, self.spec, self.shape = single, single.stacked(history), (members, envs)
        self.rng, self.mean = np.random.default_rng(seed), mean
        self.frames = torch.zeros(0, single.obs_dim)
        self.open = [[self._frame()] for _ in range(members * envs)]
        self.lanes: list[list[dict[str, Any]]] = [[] for _ in self.open]

    def _frame(self) -> int:
        """A new observation; now and then the same as one before."""
        if len(self.frames) > 2 and self.rng.random() < 0.1:
            return int(self.rng.integers(len(self.frames)))
        frame = torch.as_tensor(self.rng.integers(256, size=self.single.obs_dim)).float()
        self.frames = torch.cat([self.frames, frame.unsqueeze(0)])
        return len(self.frames) - 1

    def shown(self, past: list[int]) -> Tensor:
        """What is seen of an episode's observations so far."""
        history = self.spec.history
        padded = [past[0]] * history + past
        return together(self.frames[padded[-history:]].unsqueeze(0), self.single)[0]

    def play(self, count: int) -> Batch:
        """The next steps of all, [K, count, E, ...]."""
        for lane, steps in enumerate(self.lanes):
            for _ in range(count):
                past, after = self.open[lane], self._frame()
                end = self.rng.random() < 1 / self.mean
                terminated = bool(end and self.rng.random() < 0.5)
                n = self.single.num_actions
                action = self.rng.integers(n) if n else self.rng.uniform(-1, 1, self.single.action_dim)
                one = {"past": past, "after": after, "action": torch.as_tensor(action), "reward": self.rng.normal()}
                steps.append(one | {"terminated": terminated, "truncated": end and not terminated})
                self.open[lane] = [self._frame()] if end else [*past, after]
        return self.batch([steps[len(steps) - count :] for steps in self.lanes], 0)

    def cut(self) -> Tensor:
        """Some environments fail: [K, E], whose episodes end where they are."""
        cut = torch.as_tensor(self.rng.random(self.shape) < 0.3)
        for lane in cut.flatten().nonzero().flatten().tolist():
            self.open[lane] = [self._frame()]
            if self.lanes[lane]:
                self.lanes[lane][-1]["truncated"] = not self.lanes[lane][-1]["terminated"]
        return cut

    def last(self, count: int) -> Batch:
        """What a replay should have of the last `count` steps of each, [K, E * count, ...]: the oldest has no past."""
        batch = self.batch([steps[len(steps) - count :] for steps in self.lanes], count)
        by_env = {name: getattr(batch, name).transpose(1, 2).flatten(1, 2) for name in NAMES}
        return Batch(**by_env)

    def batch(self, lanes: list[list[dict[str, Any]]], left: int) -> Batch:
        """[K, S, E, ...] of the steps of each lane; left: the number of steps that are left of the past, 0: all."""
        for steps in lanes:
            for age, step in enumerate(steps):
                past = step["past"][-age - 1 :] if left else step["past"]
                step["obs"], step["next_obs"] = self.shown(past), self.shown([*past, step["after"]])
        columns = {
            name: torch.stack([torch.stack([torch.as_tensor(step[name]) for step in steps]) for steps in lanes])
            .unflatten(0, self.shape)
            .transpose(1, 2)
            for name in NAMES
        }
        floats = {name: own.float() for name, own in columns.items() if own.dtype == torch.float64}
        return Batch(**columns | floats)


def assert_same(found: Batch, expected: Batch) -> None:
    for name in NAMES:
        own, theirs = getattr(found, name), getattr(expected, name)
        assert torch.equal(own.to(theirs.dtype), theirs), name


@settings(max_examples=30)
@given(
    st.sampled_from(TASKS),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 40),
    st.lists(st.integers(1, 7), min_size=1, max_size=8),
    st.sampled_from([1.0, 3.0, 20.0]),
    st.integers(0, 10**6),
)
def test_every_slot_has_the_transition_that_a_list_has(
    task: Spec, history: int, members: int, envs: int, capacity: int, pieces: list[int], mean: float, seed: int
) -> None:
    """Whatever ends where, however often it goes around, and after it was restored."""
    lanes = Lanes(task, history, members, envs, seed, mean)
    replay = Replay(lanes.spec, members, envs, capacity)
    for number, count in enumerate(pieces):
        if number == len(pieces) // 2:
            again = Replay(lanes.spec, members, envs, capacity)
            states = [replay.state(member) for member in range(members)]
            again.load({name: torch.cat([state[name] for state in states]) for name in states[0]}, replay.added)
            replay = again
        replay.cut(lanes.cut())
        replay.extend(lanes.play(count))
        steps = min(replay.added, replay.turning)
        expected = lanes.last(steps)
        rows = torch.arange(len(replay)).unsqueeze(0)
        assert replay.steps == steps >= min(replay.added, capacity // envs)
        assert_same(replay.sample(rows), expected)
        value = replay.values(lambda obs: obs.float().square().sum(-1), 7)
        for own, name in zip(value, ("obs", "next_obs"), strict=True):
            torch.testing.assert_close(own, getattr(expected, name).square().sum(-1))
        batch = replay.sample(rows, next_action=True)
        assert batch.next_action is not None
        assert torch.equal(batch.truncated | batch.terminated, replay.last)
        known = ~replay.last
        assert torch.equal(batch.next_action[known], expected.action.roll(-1, 1).to(batch.action.dtype)[known])


def size(replay: Replay) -> int:
    return sum(own.nbytes for own in (replay.table, replay.following.at, replay.past.ages))


def test_images_that_are_seen_in_fours_take_the_room_of_one() -> None:
    """A frame more is kept only where an episode ends."""
    replay = Replay(IMAGE.stacked(4), 1, 4, 10_000)
    assert 84 * 84 < size(replay) / 10_000 < 1.05 * 84 * 84
    spec = replace(IMAGE, obs_dim=24 * 24, observation=(Entry((), (24, 24), dtype="uint8"),)).stacked(4)
    for mean, most in ((200, 1.001), (4, 1.5)):
        lanes, replay = Lanes(replace(CONTINUOUS, obs_dim=1), 1, 1, 4, 0, mean), Replay(spec, 1, 4, 2_000)
        assert size(replay) / 2_000 == pytest.approx(row_bytes(spec), rel=0.01)
        for _ in range(3):
            steps = lanes.play(250)
            wide = (*steps.reward.shape, spec.obs_dim)
            obs, next_obs = steps.obs.expand(wide), steps.next_obs.expand(wide)
            replay.extend(replace(steps, obs=obs, next_obs=next_obs, action=steps.reward.long()))
        assert size(replay) / 2_000 < most * row_bytes(spec)


def filled(steps: int, capacity: int, discrete: bool = False) -> tuple[Replay, dict[str, torch.Tensor]]:
    """A replay after `steps` random steps, and all that was put in, [K, steps, E, ...]."""
    spec = DISCRETE if discrete else CONTINUOUS
    g = torch.Generator().manual_seed(steps)
    obs = torch.randn(K, steps + 1, E, spec.obs_dim, generator=g)
    shape = (K, steps, E)
    ends = torch.rand(shape, generator=g)
    content = {
        "obs": obs[:, :-1],
        "next_obs": obs[:, 1:],
        "action": torch.randint(4, shape, generator=g) if discrete else torch.rand(*shape, 2, generator=g),
        "reward": torch.randn(shape, generator=g),
        "terminated": ends < 0.1,
        "truncated": ends > 0.9,
    }
    replay = Replay(spec, K, E, capacity)
    # In pieces of different lengths, one of which may be more than it keeps.
    for piece in torch.arange(steps).tensor_split([1, 3, 4]):
        if len(piece):
            replay.extend(Batch(**{name: tensor[:, piece] for name, tensor in content.items()}))
    return replay, content


@given(st.integers(1, 40), st.integers(E, 60), st.booleans())
def test_rows_are_the_last_ones_by_environment_and_time(steps: int, capacity: int, discrete: bool) -> None:
    replay, content = filled(steps, capacity, discrete)
    kept = min(steps, capacity // E)
    assert len(replay) == kept * E
    rows = torch.arange(len(replay)).expand(K, -1)
    batch = replay.take(replay.slots_of(rows), target=replay.spread(rows.float()))
    for name, tensor in content.items():
        by_env = tensor[:, steps - kept :].transpose(1, 2).flatten(1, 2)
        assert torch.equal(getattr(batch, name), by_env), name
    assert torch.equal(batch.target, rows.float())


@given(st.integers(1, 40), st.integers(E, 60))
def test_slots_are_those_of_environments_and_steps(steps: int, capacity: int) -> None:
    replay, content = filled(steps, capacity)
    kept = min(steps, capacity // E)
    by_age = torch.arange(len(replay)).expand(K, -1)
    batch = replay.take(replay.slots(by_age % E, by_age // E))
    assert torch.equal(batch.reward, content["reward"][:, steps - kept :].flatten(1))


def test_targets_are_those_of_each_episode_alone() -> None:
    """TD(lambda) over the ring equals a backward loop over each environment's steps."""
    replay, content = filled(50, 20 * E)
    agent = make_awr(seeds=[0, 1], advantage=LambdaReturn(0.7), gamma=[0.9, 0.5])
    target, value = agent.targets(replay).values()
    kept = {name: tensor[:, -20:].double() for name, tensor in content.items()}
    for member, gamma in enumerate((0.9, 0.5)):

        def v(obs: torch.Tensor, member: int = member) -> np.ndarray:
            both = obs.reshape(1, -1, 3).expand(K, -1, -1)
            return agent.value(agent.normalize(both))[member].numpy().reshape(obs.shape[:-1])

        values, next_values = v(kept["obs"][member]), v(kept["next_obs"][member])
        for env in range(E):
            following = next_values[-1, env]
            for step in reversed(range(20)):
                done = bool(kept["terminated"][member, step, env])
                if done or kept["truncated"][member, step, env]:
                    following = next_values[step, env]
                mixed = 0.3 * next_values[step, env] + 0.7 * following
                following = float(kept["reward"][member, step, env]) + gamma * (not done) * mixed
                assert float(target[member, env * 20 + step]) == pytest.approx(following)
                assert float(value[member, env * 20 + step]) == pytest.approx(values[step, env])


@pytest.mark.parametrize("before", ["rows with next observations", "no ends"])
def test_a_replay_of_another_form_is_refused(before: str) -> None:
    replay, _ = filled(9, 20 * E)
    state = replay.state(0)
    if before == "no ends":
        del state["replay.apart"]
    else:
        state["replay"] = torch.cat([state["replay"], state["replay"][..., :3]], -1)
    with pytest.raises(UserError, match="keeps observations in another form than this version: begin it anew"):
        Replay(CONTINUOUS, 1, E, 20 * E).load(state, 9)
