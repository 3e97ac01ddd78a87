"""Actions of every space that has one sensible meaning are learnt from, offline and online; others are refused."""

import dataclasses
import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical as Reference
from torch.testing import assert_close

import awr_exp
from awr_exp.building.build import build
from awr_exp.data import export
from awr_exp.data.arrays import from_arrays
from awr_exp.data.description import describe
from awr_exp.data.episodes import from_episodes
from awr_exp.data.minari import load
from awr_exp.envs.build import task
from awr_exp.envs.episode import at_random, play
from awr_exp.envs.fleet import InProcess
from awr_exp.envs.make import gym
from awr_exp.envs.rollout import Driver
from awr_exp.envs.spaces import canonical, spec_of
from awr_exp.errors import UserError
from awr_exp.exporting.export import export as export_policy
from awr_exp.layout import Entry, structured
from awr_exp.networks.actions import ActionInputs
from awr_exp.networks.heads import Categorical
from awr_exp.networks.mlp import MLP
from awr_exp.networks.numpy_policy import Uniform
from awr_exp.trained import TrainedPolicy
from awr_exp.types import DataInfo, Spec
from tests.conftest import composed, make_awr, refused, train

OBSERVATION = spaces.Box(-1, 1, (1,), np.float32)
SPACES: dict[str, spaces.Space] = {
    "several": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "table": spaces.MultiDiscrete([[2, 3], [2, 2]]),
    "switches": spaces.MultiBinary(3),
    "panel": spaces.MultiBinary([2, 2]),
    "whole": spaces.Box(-1, 1, (2,), np.int64),
    "matrix": spaces.Box(-1, 1, (2, 2), np.float32),
    "number": spaces.Box(-1, 1, (), np.float64),
    "pair": spaces.Tuple((spaces.Discrete(3, start=4), spaces.MultiBinary(2))),
    "nested": spaces.Dict(
        wheel=spaces.Discrete(2), arm=spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.Dict(on=spaces.Discrete(2))))
    ),
    "boxes": spaces.Dict(push=spaces.Box(-1, 1, (2,)), aim=spaces.Box(-1, 1, (1, 2), np.float64)),
}


def leaves(space: Any, action: Any) -> list[tuple[Any, Any]]:
    """The parts of a space without parts, each with its own of the action."""
    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.spaces.items() for leaf in leaves(part, action[key])]
    if isinstance(space, spaces.Tuple):
        return [leaf for part, own in zip(space.spaces, action, strict=True) for leaf in leaves(part, own)]
    return [(space, action)]


def badness(space: Any, action: Any, high: bool) -> float:
    """How far an action is from the best: the last choices or a half where `high`, else the first or its minus."""
    far = []
    for part, own in leaves(space, action):
        match part:
            case spaces.Discrete():
                best: Any = part.start + high * (part.n - 1)
            case spaces.MultiDiscrete():
                best = part.start + high * (part.nvec - 1)
            case spaces.MultiBinary():
                best = float(high)
            case _:
                best = (part.high if high else part.low) * (1.0 if part.dtype.kind == "i" else 0.5)
        wrong = np.asarray(own, float) - best
        far.append(np.minimum(np.abs(wrong), 1).ravel() if getattr(part.dtype, "kind", "i") == "i" else wrong.ravel())
    return float(np.square(np.concatenate(far)).mean())


class Dials(gymnasium.Env):
    """Shows one number after another, whose sign says which action is best in that step."""

    observation_space = OBSERVATION

    def __init__(self, space: str) -> None:
        self.action_space = SPACES[space]

    def _show(self) -> Any:
        self.shown = self.np_random.choice([-1, 1], 1) * self.np_random.uniform(0.5, 1, 1)
        return self.shown.astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self._show(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        gained = -badness(self.action_space, action, bool(self.shown[0] > 0))
        self.count += 1
        return self._show(), gained, False, self.count == 20, {}


gymnasium.register("Dials-v0", f"{__name__}:Dials")


def stacked(space: Any, actions: list[Any]) -> Any:
    """Actions as an episode of Minari has them."""
    if isinstance(space, spaces.Dict):
        return {key: stacked(part, [one[key] for one in actions]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [one[key] for one in actions]) for key, part in enumerate(space.spaces))
    return np.array(actions)


def record(id: str, space: str, episodes: int = 12, change: Any = lambda actions: actions) -> None:
    """A data set of random actions by Minari's own writer."""
    import minari
    from minari.data_collector import EpisodeBuffer

    env = gymnasium.make("Dials-v0", space=space)
    env.action_space.seed(0)
    buffers = []
    for seed in range(episodes):
        seen, actions, rewards = [env.reset(seed=seed)[0]], [], []
        for _ in range(20):
            actions.append(env.action_space.sample())
            obs, reward, *_ = env.step(actions[-1])
            seen.append(obs), rewards.append(reward)
        ends = [False] * 19 + [True]
        own = change(stacked(env.action_space, actions))
        buffers.append(EpisodeBuffer(None, None, None, np.array(seen), own, rewards, [False] * 20, ends, {}))
    minari.create_dataset_from_buffers(id, buffers, env=env)


def learnt(data: Any) -> TrainedPolicy:
    """The policy of a small agent after some updates on a data set whose steps are by themselves."""
    agent = make_awr(
        data.spec, dtype=torch.float32, network=partial(MLP, hidden=(32,)), gamma=0.0, beta=0.05, value_iters=1,
        actor_lr=0.03, critic_lr=0.03,
    )  # fmt: skip
    for update in range(80):
        rows = torch.randint(len(data), (1, 64), generator=torch.Generator().manual_seed(update))
        agent.update(data.sample(rows))
    return TrainedPolicy(data.spec, agent.policy, agent.state_dict(), 0)


def mistakes(policy: TrainedPolicy, space: str) -> float:
    """How bad a policy is in the environment itself, which gets its actions as they are."""
    env, bad = Dials(space), []
    for seed in range(3):
        obs, done = env.reset(seed=seed)[0], False
        while not done:
            obs, reward, _, done, _ = env.step(policy(obs))
            bad.append(-reward)
    return float(np.mean(bad))


@pytest.mark.parametrize(
    "space", [pytest.param(space, marks=pytest.mark.long if place % 2 else ()) for place, space in enumerate(SPACES)]
)
def test_every_space_is_learnt_from_offline(space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record("test/dials-v0", space)
    data = load("test/dials-v0")
    make_env = gym(None, None, "Dials-v0", {"space": space})
    assert data.spec == task(make_env)
    policy = learnt(data)
    assert mistakes(policy, space) < 0.12
    batch = policy(np.full((3, 1), 0.8, np.float32))
    for _, part in leaves(SPACES[space], batch):
        assert len(part) == 3


def test_every_space_is_collected_from_and_written_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for space, own in SPACES.items():
        make_env = gym(None, None, "Dials-v0", {"space": space})
        spec = task(make_env)
        assert Spec.from_json(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
        played = play(InProcess(make_env, 1), at_random(spec), 0, np.random.default_rng(0))
        assert export.create(f"test/{space}-v0", [played], spec, make_env(), None)
        data = load(f"test/{space}-v0")
        assert data.spec == spec
        np.testing.assert_array_equal(data.actions(20).numpy(), played["action"])
        kept = minari.load_dataset(f"test/{space}-v0")
        assert kept.action_space == canonical(own)
        episode = next(iter(kept.iterate_episodes()))
        given = [part for _, part in leaves(own, structured(spec.action, played["action"] + spec.starts))]
        for mine, (_, theirs) in zip(given, leaves(own, episode.actions), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def copies(num_envs: int, space: str) -> gymnasium.vector.VectorEnv:
    return gymnasium.vector.SyncVectorEnv([partial(Dials, space)] * num_envs)


gymnasium.register("ManyDials-v0", f"{__name__}:Dials", vector_entry_point=f"{__name__}:copies")


@pytest.mark.parametrize("space", ["nested", "table", "boxes"])
def test_an_environments_own_vectorised_form_gets_the_same(space: str) -> None:
    make = [gym(None, None, "ManyDials-v0", {"space": space}, vectorized=own) for own in (False, True)]
    spec = task(make[0])
    for one in make:
        rollout = Driver(one, 1, [0], [0, 1]).play(Uniform(spec), 5, 0)
        columns = (one[:, 0].reshape(10, -1) for one in (rollout.obs, rollout.action, rollout.reward))
        for obs, action, reward in zip(*columns, strict=True):
            given = structured(spec.action, action + spec.starts)
            assert reward[0] == pytest.approx(-badness(SPACES[space], given, bool(obs[0] > 0)))


def test_choices_are_learnt_online(tmp_path: Path) -> None:
    online = ["trainer=online", "env=gym", "env.id=Dials-v0", "+env.kwargs.space=nested", "agent=iql"]
    small = [
        "agent.gamma=0", "network.hidden=[32]", "trainer.batch_size=64", "trainer.compile=false", "logger=jsonl",
        "trainer.eval_episodes=1", "agent.critic_lr=0.01", "agent.actor_lr=0.01", "agent.beta=0.02",
        "trainer.env_steps=400", "trainer.envs=2", "trainer.workers=0", "trainer.eval_interval=400",
        "schedule=interleaved", "schedule.learning_starts=100",
    ]  # fmt: skip
    train([composed(*online, *small)], [tmp_path / "run"])
    policy = awr_exp.load(tmp_path / "run")
    assert mistakes(policy, "nested") < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sample", [False, True])
def test_choices_of_different_numbers_are_exported(sample: bool, tmp_path: Path) -> None:
    agent = make_awr(RAGGED, dtype=torch.float32)
    policy = TrainedPolicy(RAGGED, agent.policy, agent.state_dict(), 0)
    for kind in ("npz", "pt2", "onnx"):
        # It is kept only if it acts as the policy.
        export_policy(policy, tmp_path / f"policy.{kind}", sample)
    about = json.loads(str(np.load(tmp_path / "policy.npz")["about"]))
    assert about["action"] == f"int64 [B, 3] of a [2, 5], b [3], {'a sample' if sample else 'the mode'}"


SEVERAL = spec_of("", OBSERVATION, SPACES["several"])
RAGGED = Spec(1, 3, action=(Entry(("a",), (2,), (2, 5), (1, 0)), Entry(("b",), (), (3,), (0,))))


def test_the_head_is_independent_categoricals() -> None:
    head, outputs = Categorical(RAGGED), torch.randn(2, 7, 10, dtype=torch.float64)
    action = torch.stack([torch.randint(count, (2, 7)) for count in RAGGED.counts], -1)
    parts = [Reference(logits=own) for own in outputs.split(RAGGED.counts, -1)]
    assert_close(head.log_prob(outputs, {}, action), sum(one.log_prob(action[..., i]) for i, one in enumerate(parts)))
    assert_close(head.entropy(outputs, {}), sum(one.entropy() for one in parts))
    assert_close(head.act(outputs, {}, None), torch.stack([one.probs.argmax(-1) for one in parts], -1))
    # What is of other choices has no gradient.
    outputs.requires_grad_()
    (grad,) = torch.autograd.grad(head.log_prob(outputs, {}, action).sum(), outputs)
    assert_close(grad.split(RAGGED.counts, -1)[1].sum(-1), torch.zeros(2, 7, dtype=torch.float64))
    # One choice is the usual head.
    one = Categorical(Spec(1, num_actions=4))
    logits, chosen = outputs[..., :4], action[..., 0]
    assert_close(one.log_prob(logits, {}, chosen), Reference(logits=logits).log_prob(chosen))


def test_actions_are_drawn_by_their_probabilities_also_in_numpy() -> None:
    head = Categorical(RAGGED)
    outputs, noise = torch.randn(1, 1, 10).expand(1, 20_000, -1), torch.randn(1, 20_000, head.noise)
    action = head.act(outputs, {}, noise)
    quick = head.numpy({})
    np.testing.assert_array_equal(quick(outputs.numpy(), noise.numpy()), action.numpy())
    np.testing.assert_array_equal(quick(outputs.numpy()[:, :5], None), head.act(outputs[:, :5], {}, None).numpy())
    joint = Counter(map(tuple, action[0, :, 1:].tolist()))
    second, third = (own.softmax(-1) for own in outputs[0, 0].split(RAGGED.counts)[1:])
    for (a, b), count in joint.items():
        assert count / 20_000 == pytest.approx(float(second[a] * third[b]), abs=0.015)
    drawn = Uniform(RAGGED)(np.zeros((20_000, 1)), np.random.default_rng(0).standard_normal((20_000, 6)))
    for number, count in enumerate(RAGGED.counts):
        np.testing.assert_allclose(np.bincount(drawn[:, number]) / 20_000, np.full(count, 1 / count), atol=0.015)


def test_a_network_sees_each_choice_in_its_own_place() -> None:
    inputs = ActionInputs(RAGGED)
    action = torch.tensor([[[1, 4, 0]]])
    assert inputs(action, torch.zeros(1)).tolist() == [[[0, 1, 0, 0, 0, 0, 1, 1, 0, 0]]]
    every = inputs.every()
    assert every.shape == (30, 3)
    assert len(set(map(tuple, every.tolist()))) == 30


@pytest.mark.parametrize("agent", ["cql", "awac"])
def test_agents_that_ask_for_the_policys_actions_learn_from_choices(agent: str) -> None:
    rng, episodes = np.random.default_rng(0), []
    for _ in range(300):
        action = [rng.integers(3), rng.integers(2)]
        gained = float(action == [2, 1]) + 0.2 * float(action[0] == 0)
        step = {"observations": rng.normal(size=(2, 1)), "actions": [action], "rewards": [gained]}
        episodes.append(step | {"terminated": True})
    data, cfg = from_episodes("arms", SEVERAL, episodes), composed(f"agent={agent}")["agent"]
    small = {"beta": 0.1, "actor_lr": 1e-2, "critic_lr": 1e-2, "alpha": 1.0, "samples": 4}
    cfg |= {name: value for name, value in small.items() if name in cfg}
    cfg["network"] |= {"hidden": [16]}
    learner = build(cfg, spec=SEVERAL, seeds=[0])
    for update in range(80):
        drawn = torch.Generator().manual_seed(update)
        batch = data.sample(torch.randint(len(data), (1, 32), generator=drawn))
        learner.update(replace(batch, noise=torch.randn(1, 32, learner.noise_size, generator=drawn)))
    assert (learner.act(torch.linspace(-1, 1, 5).view(1, 5, 1)) == torch.tensor([2, 1])).all()


def test_more_combinations_than_can_be_weighed_are_refused() -> None:
    many = spec_of("", OBSERVATION, spaces.MultiBinary(11))
    said = refused(lambda: build(composed("agent=cql")["agent"], spec=many, seeds=[0]))
    assert said is not None
    assert "CQL weighs all actions in each state, and 11 choices of [2, 2" in said
    assert "more than 1,000: choose another agent, such as agent=iql" in said


REFUSED = {
    "its actions are a Text, for which there is no policy: wrap it": spaces.Text(3),
    "its actions are a Graph": spaces.Graph(spaces.Discrete(2), None),
    "its actions are a Sequence": spaces.Sequence(spaces.Discrete(2)),
    "its actions are a OneOf": spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
    "hand/1 of its actions is a Text": spaces.Dict(hand=spaces.Tuple((spaces.Discrete(2), spaces.Text(2)))),
    r"mix choices \(gear\) with numbers \(wheel\), for which there is no policy": spaces.Dict(
        wheel=spaces.Box(-1, 1, (1,)), gear=spaces.Discrete(3)
    ),
    "entry 1 of its actions is a whole number from 0 to 2000, which is no choice of at most 1,000: wrap it": spaces.Box(
        np.array([0, 0]), np.array([3, 2000]), dtype=np.int64
    ),
    "its actions have keys that are no text": spaces.Dict({1: spaces.Discrete(2)}),
    "its actions are .* which holds nothing": spaces.Tuple(()),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_one_meaning_is_refused_by_name(message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        spec_of("environment 'Odd-v0'", OBSERVATION, REFUSED[message])
    assert "\n" not in str(raised.value)


def beyond(actions: Any) -> Any:
    actions["arm"][0][7, 1] = 3
    return actions


def test_a_choice_that_is_not_there_is_named_with_episode_and_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record("test/dials-v0", "nested", 2, beyond)
    said = refused(load, "test/dials-v0")
    assert said == (
        "data set 'test/dials-v0', episode_0: actions holds 3 at step 7; entry arm/0[1] of its space has the whole "
        "numbers from 0 to 2"
    )


UNLIKE = [
    ("several", "table", r"the data have actions of \[3, 2\], the environment of \[2, 3, 2, 2\]"),
    ("pair", "nested", r"actions of 0 \[3\], 1 \[2, 2\], the environment of arm/0 \[2, 3\], arm/1/on \[2\], wheel"),
    ("several", "matrix", "the data have discrete actions, the environment continuous ones"),
    ("matrix", "boxes", r"actions of \[2, 2\], the environment of aim \[1, 2\], push"),
]


@pytest.mark.parametrize(("data", "env", "message"), UNLIKE)
def test_an_environment_with_other_actions_is_refused_in_one_line(data: str, env: str, message: str) -> None:
    spec = spec_of("", OBSERVATION, SPACES[data])
    info = DataInfo("test/dials-v0", np.zeros(1), "")
    with pytest.raises(UserError, match=message):
        gym(info, spec, "Dials-v0", {"space": env})
    moved = dataclasses.replace(SEVERAL, action=(dataclasses.replace(SEVERAL.action[0], starts=(0, 0)),))
    with pytest.raises(UserError, match="actions that begin at 0, 0, the environment ones that begin at 1, -1"):
        gym(info, moved, "Dials-v0", {"space": "several"})


def test_columns_of_whole_numbers_are_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    actions = np.stack([rng.integers(3, size=40), rng.integers(-1, 1, size=40)], 1)
    seen, gained = rng.normal(size=(40, 2)), rng.normal(size=40)
    data = from_arrays("test/own-v0", seen, actions, gained, episode_ends=[20, 40])
    assert data.spec.counts == (3, 2)
    assert data.spec.starts.tolist() == [0, -1]
    np.testing.assert_array_equal(data.actions(19), actions[:19] - [0, -1])
    shares = describe(data).choices
    assert list(shares) == ["0=0", "0=1", "0=2", "1=-1", "1=0"]
    assert shares["1=-1"] == pytest.approx((np.delete(actions[:, 1], [19, 39]) == -1).mean())


def test_a_number_alone_is_an_array_of_no_axes() -> None:
    space = spaces.Dict(gas=spaces.Box(-1, 1, ()), gears=spaces.Tuple([spaces.Box(0, 1, (2,), np.float64)]))
    task = spec_of("a test", spaces.Box(0, 1, (1,)), space)
    action = structured(task.action, np.array([0.5, 0.25, 1.0]))
    assert isinstance(action["gas"], np.ndarray)
    assert space.contains(action)
