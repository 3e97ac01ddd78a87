"""Online runs: what is collected is true, members are as if alone, resumed is as uninterrupted, and it learns."""

import logging
import os
import signal
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from awr_exp.agents.awr import AWR
from awr_exp.data.minari import load
from awr_exp.data.replay import Replay
from awr_exp.data.schema import TRANSITION
from awr_exp.envs import worker
from awr_exp.envs.build import task
from awr_exp.envs.make import gym
from awr_exp.errors import UserError
from awr_exp.math import weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP
from awr_exp.seeding import child_seed
from awr_exp.training import checkpoint, collect, evaluate
from awr_exp.training.callbacks import Evaluate
from awr_exp.training.collect import Collector
from awr_exp.training.evaluate import Evaluator
from awr_exp.training.learner import Learner, Schedule
from awr_exp.training.loggers import Jsonl
from awr_exp.training.online import Online
from awr_exp.training.progress import Logs
from awr_exp.training.recorder import Recorder
from awr_exp.training.rows import read
from awr_exp.training.run import Run
from awr_exp.training.schedules import Interleaved, Phased
from awr_exp.training.signals import signals
from awr_exp.training.team import by_thread
from awr_exp.types import Spec
from tests.conftest import Crashing, make_awr, random_batch

CARTPOLE = Spec(4, num_actions=2)
PENDULUM = Spec(3, 1, None, (-2.0,), (2.0,))
MAKE = {CARTPOLE: partial(gymnasium.make, "CartPole-v1"), PENDULUM: partial(gymnasium.make, "Pendulum-v1")}
PHASED = Phased(samples_per_iteration=60, critic_steps=5, actor_steps=7, normalizer_samples=280)
INTERLEAVED = Interleaved(learning_starts=50, update_interval=3)
REFRESHED = Interleaved(learning_starts=50, update_interval=3, refresh_interval=30)
"""With an estimator that walks whole episodes."""
OPTIONS: dict[str, Any] = {
    "env_steps": 300, "envs": 3, "workers": 0, "replay_size": 240, "batch_size": 16, "report_interval": 100,
    "eval_interval": 150, "eval_episodes": 1, "checkpoint_interval": 100, "compile": False,
}  # fmt: skip


def trainer(
    folders: list[Path],
    agent: AWR,
    schedule: Any,
    make_env: Any = None,
    recorder: Recorder | None = None,
    **options: Any,
) -> Online:
    return Online(
        agent,
        make_env or MAKE[agent.spec],
        schedule,
        runs=[Run(folder, logger=Jsonl(folder), recorder=recorder) for folder in folders],
        **(OPTIONS | options),
    )


def evaluate_of(run: Online) -> Evaluate:
    (found,) = [callback for callback in run.callbacks if isinstance(callback, Evaluate)]
    return found


def agent(spec: Spec, schedule: Schedule, seeds: list[int], **options: Any) -> AWR:
    lam = 0.0 if schedule is INTERLEAVED else 0.9
    return make_awr(spec, seeds, advantage=LambdaReturn(lam), **({"value_iters": 2} | options))


@pytest.mark.parametrize("spec", MAKE)
def test_what_is_collected_happened(spec: Spec) -> None:
    """Every transition follows from the one before, across episodes, and each episode can be played again."""
    members = agent(spec, PHASED, [3, 8])
    replay = Replay(spec, 2, 2, 1_000)
    collector = Collector(MAKE[spec], members, replay)
    collector.collect(40, random=True)
    collector.collect(210)
    kept = replay.newest(250)
    done = kept.terminated | kept.truncated
    follows = (kept.obs[:, :, 1:] == kept.next_obs[:, :, :-1]).all(-1)
    assert torch.equal(follows, ~done[:, :, :-1])
    assert bool(done.any())
    assert not torch.equal(kept.obs[0], kept.obs[1])
    returns = [[] for _ in range(2)]
    for member in range(2):
        for env in range(2):
            ends = [-1, *done[member, env].nonzero().flatten().tolist()]
            for begin, end in pairwise(ends):
                returns[member].append(float(kept.reward[member, env, begin + 1 : end + 1].sum()))
    found = collector.read()
    for member in range(2):
        assert found[member]["collect/return_mean"] == pytest.approx(np.mean(returns[member]), rel=1e-5)
    mean, std = collector.obs_statistics()
    seen = kept.obs.double().flatten(1, 2)
    assert torch.allclose(mean, seen.mean(1), atol=1e-9)
    assert torch.allclose(std, seen.std(1, correction=0), atol=1e-9)
    if spec == PENDULUM:
        assert torch.equal(done, kept.truncated)
        assert done[0, 0].nonzero().flatten().tolist() == [199]


EACH = [
    pytest.param(spec, schedule, marks=() if row == column % len(MAKE) else pytest.mark.long)
    for row, spec in enumerate(MAKE)
    for column, schedule in enumerate([PHASED, INTERLEAVED, REFRESHED])
]
"""Every schedule, and a task by turns; the rest is long."""


@pytest.mark.parametrize(("spec", "schedule"), EACH)
def test_a_member_collects_and_learns_as_it_would_alone(tmp_path: Path, spec: Spec, schedule: Schedule) -> None:
    betas, seeds = [0.5, 2.0], [4, 9]
    together = trainer([tmp_path / "a", tmp_path / "b"], agent(spec, schedule, seeds, beta=betas), schedule)
    together.run()
    for member in range(2):
        own = agent(spec, schedule, [seeds[member]], beta=betas[member])
        alone = trainer([tmp_path / f"alone{member}"], own, schedule)
        alone.run()
        for name, tensor in own.state_dict().items():
            assert torch.allclose(together.agent.state_dict()[name][member], tensor[0], atol=1e-6), name
        mine, its = read(tmp_path / "ab"[member]), read(tmp_path / f"alone{member}")
        assert [(row["env_steps"], row["name"]) for row in mine] == [(row["env_steps"], row["name"]) for row in its]


@pytest.mark.parametrize(("spec", "schedule"), EACH)
def test_resumed_is_as_uninterrupted(tmp_path: Path, spec: Spec, schedule: Schedule) -> None:
    """The replay is full by then, and episodes are open."""
    whole = trainer([tmp_path / "a", tmp_path / "b"], agent(spec, schedule, [0, 1]), schedule)
    whole.run()
    folders = [tmp_path / "c", tmp_path / "d"]
    trainer(folders, agent(spec, schedule, [0, 1]), schedule, env_steps=240).run()
    second = trainer(folders, agent(spec, schedule, [0, 1]), schedule)
    second.resume()
    assert second.step == 240
    second.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(second.agent.state_dict()[name], tensor), name
    kept = [run.learners[0].collector.replay.newest(1_000) for run in (second, whole)]
    assert all(torch.equal(getattr(kept[0], name), getattr(kept[1], name)) for name in TRANSITION)


def test_exploration_falls_with_the_steps_and_so_it_does_resumed(tmp_path: Path) -> None:
    head = partial(heads.AnnealedGaussian, std=0.5, std_end=0.1)
    whole, first, second = (
        trainer([tmp_path / name], agent(PENDULUM, PHASED, [0], head=head), PHASED) for name in ("a", "b", "b")
    )
    whole.run()
    # The last turn began at 240 of 300 steps.
    assert whole.agent.actor.theta[0, -1].exp().item() == pytest.approx(0.5 - 0.4 * 240 / 300)
    first.total = 180
    first.run()
    assert first.agent.actor.theta[0, -1].exp().item() == pytest.approx(0.5 - 0.4 * 120 / 300)
    second.resume()
    second.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(second.agent.state_dict()[name], tensor), name


def play(collector: Collector, turns: int) -> Any:
    for _ in range(turns):
        collector.collect(30)
    return collector.replay.newest(30 * turns)


@pytest.mark.parametrize("spec", MAKE)
def test_workers_collect_as_this_process_does_and_one_that_is_killed_is_replaced(
    spec: Spec, caplog: pytest.LogCaptureFixture
) -> None:
    members = agent(spec, PHASED, [3, 8])
    here = Collector(MAKE[spec], members, Replay(spec, 2, 3, 1_000))
    there = Collector(MAKE[spec], members, Replay(spec, 2, 3, 1_000), workers=2)
    play(here, 3), play(there, 2)
    there.driver.hosts[1].process.kill()  # type: ignore[attr-defined]
    play(there, 1)
    assert "a worker process died: another one takes its environments" in caplog.text
    for mine, theirs in zip(vars(here.replay.newest(90)).values(), vars(there.replay.newest(90)).values(), strict=True):
        assert (mine is None and theirs is None) or torch.allclose(mine.float(), theirs.float(), atol=1e-4)
    found = [[pytest.approx(own, abs=1e-3) for own in collected.values()] for collected in here.read()]
    assert [list(collected.values()) for collected in there.read()] == found
    here.close(), there.close()


def test_its_own_vectorised_form_collects_what_happened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No fake transition after an episode's end, none lost, and a resumed run begins new episodes."""
    make_env = gym(None, None, "CartPole-v1", vectorized=True)
    members = agent(CARTPOLE, PHASED, [3, 8])
    collector = Collector(make_env, members, Replay(CARTPOLE, 2, 5, 10_000))
    for steps in (1, 40, 7, 300, 2):
        collector.collect(steps)
    kept = collector.replay.newest(350)
    done = kept.terminated | kept.truncated
    assert bool(done.any())
    follows = (kept.obs[:, :, 1:] == kept.next_obs[:, :, :-1]).all(-1)
    assert torch.equal(follows, ~done[:, :, :-1])
    # An episode ends because the pole fell or the cart left, by the state that it really led to.
    angle, position = kept.next_obs[..., 2].abs(), kept.next_obs[..., 0].abs()
    assert torch.equal(kept.terminated, (angle > np.deg2rad(12)) | (position > 2.4))
    assert bool((kept.reward == 1).all())
    assert bool((kept.obs[:, :, 1:][done[:, :, :-1]].abs() <= 0.05).all())
    assert not torch.equal(kept.obs[0], kept.obs[1])
    run = trainer([tmp_path], agent(CARTPOLE, PHASED, [0]), PHASED, make_env, env_steps=180)
    run.run()
    second = trainer([tmp_path], agent(CARTPOLE, PHASED, [0]), PHASED, make_env, workers=1)
    second.resume()
    assert "environments could not be brought back" in caplog.text
    second.run()
    assert second.step == 300
    with pytest.raises(UserError, match="'Pendulum-v1' has no vectorised form of its own"):
        gym(None, None, "Pendulum-v1", vectorized=True)


class CrashingForm(gymnasium.vector.VectorWrapper):
    """Crashes in its step `left`, if that ever comes."""

    left = -1

    def step(self, actions: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("the simulator crashed")
        return self.env.step(actions)


@dataclass
class Vectorised:
    """CartPole with a form of its own, of which the first one that is made crashes in its step `left`."""

    left: int
    vectorized: bool = True
    clip_actions: bool = True

    def __call__(self) -> gymnasium.Env:
        return MAKE[CARTPOLE]()

    def vector(self, count: int) -> gymnasium.vector.VectorEnv:
        form = CrashingForm(gymnasium.vector.SyncVectorEnv([MAKE[CARTPOLE]] * count))
        form.left, self.left = self.left, -1
        return form


def test_its_own_vectorised_form_is_made_anew_where_it_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its episodes are cut there, and the run goes on."""
    run = trainer([tmp_path], agent(CARTPOLE, PHASED, [0]), PHASED, Vectorised(70))
    run.run()
    assert run.runs[0].error is None
    assert "an environment failed and was made anew: RuntimeError: the simulator crashed" in caplog.text
    assert run.learners[0].collector.failures.tolist() == [1]
    kept = run.learners[0].collector.replay.newest(80)
    follows = (kept.obs[:, :, 1:] == kept.next_obs[:, :, :-1]).all(-1)
    assert torch.equal(follows, ~(kept.truncated | kept.terminated)[:, :, :-1])
    assert kept.truncated.sum((0, 2)).max() == 1


def test_failures_of_a_vectorised_form_are_its_members_own() -> None:
    """Nor does what the other played decide how a member goes on: as a resumed run, this one begins new episodes."""
    both = []
    for left in (-1, 30):
        collector = Collector(Vectorised(left), agent(CARTPOLE, PHASED, [0, 9]), Replay(CARTPOLE, 2, 3, 1_000))
        play(collector, 3)
        states = [collector.state(member) for member in (0, 1)]
        collector.load({name: torch.cat([state[name] for state in states]) for name in states[0]})
        play(collector, 1)
        both.append(collector)
    whole, unlucky = (collector.replay.newest(120).obs for collector in both)
    assert both[1].failures.tolist() == [1, 0]
    assert torch.equal(whole[1], unlucky[1])
    assert not torch.equal(whole[0], unlucky[0])


@pytest.mark.parametrize(
    ("members", "threads", "sizes"),
    [(1, 2, [1]), (4, 2, [2, 2]), (3, 2, [1, 1, 1]), (2, 4, [1, 1]), (17, 2, [8, 9]), (6, 4, [1] * 6)],
)
def test_no_thread_has_much_more_to_learn_than_another(members: int, threads: int, sizes: list[int]) -> None:
    parts = by_thread(agent(PENDULUM, PHASED, list(range(members))), threads)
    assert [part.stop - part.start for part in parts] == sizes
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]


def test_members_on_threads_are_as_on_one(tmp_path: Path) -> None:
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            folders = [tmp_path / f"{threads}{member}" for member in range(3)]
            run = trainer(folders, agent(CARTPOLE, PHASED, [0, 1, 2], beta=[0.5, 1.0, 2.0]), PHASED, workers=1)
            assert len(run.learners) == {1: 1, 2: 3}[threads]
            run.run()
            runs.append(run.agent.state_dict())
        finally:
            torch.set_num_threads(1)
    for name, tensor in runs[0].items():
        assert torch.allclose(tensor, runs[1][name], atol=1e-6), name
    second = trainer(
        folders, agent(CARTPOLE, PHASED, [0, 1, 2], beta=[0.5, 1.0, 2.0]), PHASED, workers=1, env_steps=360
    )
    second.resume()
    second.run()
    assert second.step == 360


class GivesUp(Phased):
    """On environments of which those of member 1 fail for good at its second turn, whoever else plays in it."""

    def turn(self, run: Learner) -> int:
        if 1 in run.agent.seeds and run.step:
            run.collector.begin(20)
            for host in run.collector.driver.hosts:
                host.answer()
            raise UserError("no more")
        return super().turn(run)


@pytest.mark.parametrize(("workers", "threads"), [(0, 1), pytest.param(1, 1, marks=pytest.mark.long), (1, 2)])
def test_a_member_that_is_given_up_keeps_its_place_and_the_others_go_on(
    tmp_path: Path, threads: int, workers: int
) -> None:
    folders, seeds = [tmp_path / name for name in "012"], [0, 1, 2]
    schedule = GivesUp(60, 5, 7, 280)
    torch.set_num_threads(threads)
    try:
        run = trainer(folders, agent(CARTPOLE, schedule, seeds), schedule, workers=workers)
        run.run()
    finally:
        torch.set_num_threads(1)
    assert [str(one.error) for one in run.runs] == ["None", "no more", "None"]
    found = [checkpoint.latest(folder) for folder in folders]
    assert [(metadata["update"], metadata["step"]) for _, metadata in filter(None, found)] == [
        (60, 300),
        (12, 60),
        (60, 300),
    ]
    assert [run.counts(k) for k in range(3)] == [(60, 300), (12, 60), (60, 300)]
    second = trainer(folders[1:2], agent(CARTPOLE, PHASED, [1]), PHASED)
    second.resume()
    second.run()
    for seed in seeds:
        alone = trainer([tmp_path / f"alone{seed}"], agent(CARTPOLE, PHASED, [seed]), PHASED)
        alone.run()
        own = second.agent if seed == 1 else run.agent.shard(slice(seed, seed + 1))
        for name, tensor in alone.agent.state_dict().items():
            assert torch.allclose(own.state_dict()[name], tensor, atol=1e-6), name
        mine, its = read(folders[seed]), read(tmp_path / f"alone{seed}")
        if seed != 1:
            assert [(row["env_steps"], row["name"]) for row in mine] == [(row["env_steps"], row["name"]) for row in its]


def test_collecting_may_overlap_with_learning(tmp_path: Path) -> None:
    """As many steps; beside the first there is nothing to learn from, so there is an iteration of learning less."""
    schedule = Phased(60, 5, 7, 280, overlap=True)
    run = trainer([tmp_path], agent(CARTPOLE, schedule, [0]), schedule, workers=1)
    run.run()
    assert run.step == run.learners[0].collector.replay.added * 3 == 300
    assert run.update == 4 * 12
    (speed,) = {row["name"] for row in read(tmp_path) if row["name"].startswith("collect/env_steps")}
    assert speed == "collect/env_steps_per_second"
    with pytest.raises(UserError, match=r"overlap=true collects in other processes: give trainer\.workers=1"):
        trainer([tmp_path], agent(CARTPOLE, schedule, [0]), schedule, workers=0)


def test_targets_of_another_estimator_are_left_behind(tmp_path: Path) -> None:
    trainer([tmp_path], agent(PENDULUM, REFRESHED, [0]), REFRESHED, env_steps=150).run()
    resumed = trainer([tmp_path], agent(PENDULUM, INTERLEAVED, [0]), INTERLEAVED, env_steps=600)
    learnt = []
    one = resumed.learners[0].functions["batch"]
    resumed.learners[0].functions["batch"] = lambda means, slots, noise, *targets: (
        learnt.append(targets) or one(means, slots, noise, *targets)
    )  # type: ignore[func-returns-value]
    resumed.resume()
    resumed.run()
    assert resumed.step == 600
    assert set(learnt) == {()}


@pytest.mark.parametrize(("anneal_steps", "expected"), [(None, 0.24), (600, 0.32)])
def test_the_standard_deviation_falls_over_the_steps_that_are_given(
    anneal_steps: int | None, expected: float, tmp_path: Path
) -> None:
    annealed = agent(PENDULUM, PHASED, [0], head=partial(heads.AnnealedGaussian, std=0.4, std_end=0.2))
    trainer([tmp_path], annealed, PHASED, anneal_steps=anneal_steps).run()
    # It is that of the beginning of the last turn, of 60 of 300 steps.
    assert annealed.actor.theta[0, -1].exp().item() == pytest.approx(expected)


def test_a_turn_that_fails_while_it_learns_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Phased(60, 5, 7, 280, overlap=True)
    whole = trainer([tmp_path / "whole"], agent(CARTPOLE, schedule, [0]), schedule, workers=1)
    whole.run()
    first = trainer([tmp_path / "run"], agent(CARTPOLE, schedule, [0]), schedule, workers=1, checkpoint_interval=300)
    finish, calls = Collector.finish, iter(range(99))

    def failing(self: Collector) -> None:
        if next(calls) == 3:
            raise UserError("no more")
        finish(self)

    with monkeypatch.context() as patch:
        patch.setattr(Collector, "finish", failing)
        first.run()
    assert "no more" in str(first.runs[0].error)
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None
    # The fourth turn had learnt when it failed.
    assert (found[1]["step"], found[1]["update"]) == (180, 24)
    second = trainer([tmp_path / "run"], agent(CARTPOLE, schedule, [0]), schedule, workers=1)
    second.resume()
    second.run()
    assert (second.step, second.update) == (whole.step, whole.update)
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(tensor, second.agent.state_dict()[name]), name
    kept, expected = (
        [row for row in read(tmp_path / name) if not row["name"].endswith("per_second")] for name in ("run", "whole")
    )
    assert kept == expected[-len(kept) :]


@pytest.mark.slow
def test_with_overlap_the_others_learn_no_turn_twice_where_one_gives_up(tmp_path: Path) -> None:
    schedule, folders = Phased(60, 5, 7, 280, overlap=True), [tmp_path / "unlucky", tmp_path / "other"]
    later = {child_seed(0, "episode", env, number) >> 32 for env in range(3) for number in range(4, 99)}
    run = trainer(
        folders, agent(CARTPOLE, schedule, [0, 9]), schedule, lambda: Crashing(MAKE[CARTPOLE](), later, 0), workers=1
    )
    run.callbacks = [each for each in run.callbacks if not isinstance(each, Evaluate)]
    run.run()
    assert "RuntimeError: the simulator crashed" in str(run.runs[0].error)
    assert 0 < run.counts(0)[0] < run.counts(1)[0]
    alone = trainer([tmp_path / "alone"], agent(CARTPOLE, schedule, [9]), schedule, workers=1)
    alone.run()
    assert (run.runs[1].error, run.counts(1)[0]) == (None, alone.update)
    for name, tensor in alone.agent.state_dict().items():
        assert torch.allclose(run.agent.state_dict()[name][1], tensor[0], atol=1e-6), name


def test_a_run_that_diverged_goes_on_from_before_with_other_settings(tmp_path: Path) -> None:
    first = trainer(
        [tmp_path], agent(PENDULUM, PHASED, [0], critic_lr=1e300), PHASED, checkpoint_interval=60, report_interval=120
    )
    first.run()
    assert "training diverged" in str(first.runs[0].error)
    second = trainer([tmp_path], agent(PENDULUM, PHASED, [0]), PHASED)
    second.resume()
    assert second.step < first.step
    second.run()
    assert second.runs[0].error is None
    assert second.step == 300


def test_updates_may_be_rarer_than_the_replay_turns(tmp_path: Path) -> None:
    schedule = Interleaved(learning_starts=50, update_interval=100, refresh_interval=30)
    run = trainer([tmp_path], agent(PENDULUM, REFRESHED, [0]), schedule, replay_size=60)
    run.run()
    assert run.runs[0].error is None
    assert run.update == 3


class Breaking(gymnasium.Wrapper):
    """Raises at every 50th step, or always."""

    count = 0
    every = 50

    def step(self, action: Any) -> Any:
        Breaking.count += 1
        if Breaking.count % Breaking.every == 0:
            raise RuntimeError("the simulator crashed")
        return self.env.step(action)


def test_failures_of_environments_are_counted_and_many_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaking, "every", 50)
    make_env = lambda: Breaking(gymnasium.make("Pendulum-v1"))  # noqa: E731
    run = trainer([tmp_path], agent(PENDULUM, PHASED, [0]), PHASED, make_env, eval_interval=1_000)
    run.callbacks = [each for each in run.callbacks if not isinstance(each, Evaluate)]
    run.run()
    assert run.runs[0].error is None
    rows = [row["value"] for row in read(tmp_path) if row["name"] == "collect/env_failures"]
    assert rows[-1] == 300 // 50
    assert "an environment failed and was made anew: RuntimeError: the simulator crashed" in caplog.text
    kept = run.learners[0].collector.replay.newest(80)
    follows = (kept.obs[:, :, 1:] == kept.next_obs[:, :, :-1]).all(-1)
    assert torch.equal(follows, ~(kept.truncated | kept.terminated)[:, :, :-1])
    # From a checkpoint on, when it has become hopeless.
    monkeypatch.setattr(Breaking, "every", 1)
    second = trainer([tmp_path], agent(PENDULUM, PHASED, [0]), PHASED, make_env, env_steps=600)
    monkeypatch.setattr(Breaking, "every", 10_000)
    second.resume()
    monkeypatch.setattr(Breaking, "every", 1)
    second.run()
    assert "no more can be collected: the environment failed 10 times in a row" in str(second.runs[0].error)
    monkeypatch.setattr(Breaking, "every", 10_000)
    third = trainer([tmp_path], agent(PENDULUM, PHASED, [0]), PHASED, make_env, env_steps=600)
    third.resume()
    assert third.step == 300
    third.run()
    assert third.step == 600


def test_a_second_signal_is_no_failure_of_the_environment_that_it_hits() -> None:
    class Interrupted(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return self.env.step(action)

    collector = Collector(
        lambda: Interrupted(MAKE[CARTPOLE]()), agent(CARTPOLE, PHASED, [0]), Replay(CARTPOLE, 1, 1, 9)
    )
    with pytest.raises(SystemExit) as stop, signals() as received:
        collector.collect(2)
    assert (stop.value.code, received) == (130, [signal.SIGINT])


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_is_a_signal_to_stop_unless_it_is_to_be_ignored(ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with signals() as received:
            signal.raise_signal(signal.SIGHUP)
        assert received == ([] if ignored else [signal.SIGHUP])
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


class Hanging(gymnasium.Wrapper):
    """Hangs in a certain step, in which its worker asks this process to stop."""

    def __init__(self, env: gymnasium.Env, step: int) -> None:
        super().__init__(env)
        self.left = step

    def step(self, action: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(600)
        return self.env.step(action)


@pytest.mark.parametrize(
    ("where", "overlap"),
    [
        pytest.param("collect", False, marks=pytest.mark.slow),
        pytest.param("collect", True, marks=pytest.mark.slow),
        pytest.param("evaluate", False, marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_worker_hangs_is_stopped_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, overlap: bool
) -> None:
    schedule = replace(PHASED, overlap=overlap)
    monkeypatch.setattr(worker, "PATIENCE", 0.3)
    monkeypatch.setattr(evaluate, "WORTHWHILE", -1.0)
    options: dict[str, Any] = {"workers": 1, "eval_interval": 60}

    def begun(folder: str, make_env: Any = MAKE[PENDULUM]) -> Online:
        made = {"collect": make_env, "evaluate": MAKE[PENDULUM]}[where]
        run = trainer([tmp_path / folder], agent(PENDULUM, PHASED, [0]), schedule, made, **options)
        made = {"collect": MAKE[PENDULUM], "evaluate": make_env}[where]
        evaluate_of(run).evaluator = Evaluator(made, 1, 2, 2, run.stopped)
        return run

    whole = begun("whole")
    whole.run()
    here = os.getpid()
    step = {"collect": 50, "evaluate": 250}[where]

    def make_env() -> gymnasium.Env:
        env = MAKE[PENDULUM]()
        return env if os.getpid() == here else Hanging(env, step)

    first = begun("run", make_env)
    with pytest.raises(SystemExit) as stop:
        first.run()
    assert stop.value.code == 143
    (_, metadata) = checkpoint.latest(tmp_path / "run") or ({}, {})
    assert (metadata["step"], metadata["owed"]) == {"collect": (120, False), "evaluate": (180, True)}[where]
    second = begun("run")
    second.resume()
    second.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(second.agent.state_dict()[name], tensor), name
    kept, expected = (
        [row for row in read(tmp_path / name) if not row["name"].endswith("per_second")] for name in ("run", "whole")
    )
    assert kept == expected[-len(kept) :]


def test_failures_are_forgiven_once_a_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaking, "every", 50)
    monkeypatch.setattr(Breaking, "count", 0)
    monkeypatch.setattr(collect, "MOST_FAILURES", 7)
    make_env = lambda: Breaking(gymnasium.make("Pendulum-v1"))  # noqa: E731

    def begun(folder: str, env_steps: int) -> Online:
        run = trainer([tmp_path / folder], agent(PENDULUM, PHASED, [0]), PHASED, make_env, env_steps=env_steps)
        run.callbacks = [each for each in run.callbacks if not isinstance(each, Evaluate)]
        return run

    whole = begun("whole", 600)
    whole.run()
    assert "environments failed 8 times, the last time so: RuntimeError: the simulator crashed" in str(
        whole.runs[0].error
    )
    begun("run", 300).run()
    second = begun("run", 600)
    second.resume()
    second.run()
    assert second.runs[0].error is None
    assert second.learners[0].collector.failures.tolist() == [12]


UNLUCKY = {child_seed(0, "episode", env, number) >> 32 for env in range(3) for number in range(1, 99)}
"""What the episodes of the member with seed 0 begin with, from the second one of each environment on."""


def test_failures_of_a_member_are_its_own(tmp_path: Path) -> None:
    """What another one collects and counts, and its log, is the same as where nothing fails."""
    both, runs = [], [Run(tmp_path / name, name) for name in ("unlucky", "other")]
    logs = Logs({run.folder: logging.FileHandler(tmp_path / f"{run.name}.log") for run in runs})
    logging.getLogger().addHandler(logs)
    for make_env in (MAKE[CARTPOLE], lambda: Crashing(MAKE[CARTPOLE](), UNLUCKY, 5)):
        collector = Collector(make_env, agent(CARTPOLE, PHASED, [0, 9]), Replay(CARTPOLE, 2, 3, 1_000), runs=runs)
        play(collector, 3)
        both.append(collector)
    logging.getLogger().removeHandler(logs)
    logs.close()
    assert (tmp_path / "other.log").read_text() == ""
    assert "RuntimeError: the simulator crashed" in (tmp_path / "unlucky.log").read_text()
    whole, unlucky = both
    assert unlucky.failures[0] > 3
    assert unlucky.failures[1] == 0
    own = unlucky.state(1) | unlucky.replay.state(1)
    for name, tensor in (whole.state(1) | whole.replay.state(1)).items():
        assert torch.equal(own[name], tensor), name
    assert whole.read()[1] == unlucky.read()[1]
    # No more than what the longest open episode needs.
    assert sum(map(len, unlucky.actions)) - len(unlucky.actions[0]) < unlucky.length.max() <= unlucky.remembered


@pytest.mark.slow
def test_a_member_that_gives_up_leaves_the_others_and_their_counts_alone(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        folders = [tmp_path / "unlucky", tmp_path / "other"]
        run = trainer(
            folders, agent(CARTPOLE, PHASED, [0, 9]), PHASED, lambda: Crashing(MAKE[CARTPOLE](), UNLUCKY, 0), workers=1,
            checkpoint_interval=60,
        )  # fmt: skip
        run.callbacks = [each for each in run.callbacks if not isinstance(each, Evaluate)]
        run.run()
    finally:
        torch.set_num_threads(1)
    assert "RuntimeError: the simulator crashed" in str(run.runs[0].error)
    assert run.runs[1].error is None
    (_, unlucky), (_, other) = (checkpoint.latest(folder) or ({}, {}) for folder in folders)
    alone = trainer([tmp_path / "alone"], agent(CARTPOLE, PHASED, [9]), PHASED)
    alone.run()
    assert (other["step"], other["update"]) == (alone.step, alone.update) == (300, 5 * 12)
    for name, tensor in alone.agent.state_dict().items():
        assert torch.allclose(run.agent.state_dict()[name][1], tensor[0], atol=1e-6), name
    steps = run.learners[0].step
    assert unlucky["step"] == steps < 300
    assert unlucky["update"] == run.learners[0].update < other["update"]


def test_a_run_that_cannot_be_evaluated_ends_with_a_checkpoint_and_goes_on_to_the_bit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    whole = trainer([tmp_path / "whole"], agent(PENDULUM, PHASED, [0]), PHASED)
    whole.run()
    fails = True

    class Failing(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            if fails:
                raise RuntimeError("no licence")
            return self.env.step(action)

    def begun(**options: Any) -> Online:
        run = trainer([tmp_path / "run"], agent(PENDULUM, PHASED, [0]), PHASED, checkpoint_interval=1_000, **options)
        evaluate_of(run).evaluator = Evaluator(lambda: Failing(gymnasium.make("Pendulum-v1")), 1, 1)
        return run

    run = begun()
    run.run()
    failed = "evaluating failed: the environment failed 30 times in one episode, the last time so: RuntimeError: no lic"
    assert failed in str(run.runs[0].error)
    run = begun()
    run.resume()
    run.run()
    assert "the evaluation at environment step 180 was not done: trying it again" in caplog.text
    assert failed in str(run.runs[0].error)
    fails = False
    run = begun()
    run.resume()
    assert run.step == 180
    run.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(run.agent.state_dict()[name], tensor), name
    rows, expected = (
        [(row["env_steps"], row["value"]) for row in read(tmp_path / name) if row["name"] == "eval/return_mean"]
        for name in ("run", "whole")
    )
    assert rows == expected


def test_a_member_that_cannot_be_evaluated_ends_alone_and_goes_on_resumed(tmp_path: Path) -> None:
    folders, made = [tmp_path / "other", tmp_path / "failing"], iter(range(99))

    class Failing(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            raise RuntimeError("no licence")

    def make_env() -> gymnasium.Env:
        """The first is the other's, and all that follow are of the one whose environments fail."""
        return Failing(MAKE[CARTPOLE]()) if next(made) else MAKE[CARTPOLE]()

    run = trainer(folders, agent(CARTPOLE, PHASED, [0, 1]), PHASED)
    evaluate_of(run).evaluator = Evaluator(make_env, 2, 1)
    run.run()
    assert run.runs[0].error is None
    assert "the last time so: RuntimeError: no licence" in str(run.runs[1].error)
    (_, other), (_, failing) = (checkpoint.latest(folder) or ({}, {}) for folder in folders)
    assert (other["step"], other["owed"], failing["step"], failing["owed"]) == (300, False, 180, True)
    second = trainer(folders[1:], agent(CARTPOLE, PHASED, [1]), PHASED)
    second.resume()
    second.run()
    assert second.runs[0].error is None
    for seed, own in enumerate((run.agent.shard(slice(0, 1)), second.agent)):
        alone = trainer([tmp_path / f"alone{seed}"], agent(CARTPOLE, PHASED, [seed]), PHASED)
        alone.run()
        for name, tensor in alone.agent.state_dict().items():
            assert torch.allclose(own.state_dict()[name], tensor, atol=1e-6), name
        rows, expected = (
            [(row["env_steps"], row["value"]) for row in read(folder) if row["name"] == "eval/return_mean"]
            for folder in (folders[seed], alone.runs[0].folder)
        )
        assert rows == expected


def test_a_run_whose_environment_fails_now_and_then_finishes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures in evaluations are counted with the others, and do not end it."""
    monkeypatch.setattr(Breaking, "every", 90)
    monkeypatch.setattr(Breaking, "count", 0)
    monkeypatch.setattr(collect, "MOST_FAILURES", 4)
    make_env = lambda: Breaking(gymnasium.make("Pendulum-v1", max_episode_steps=60))  # noqa: E731
    options: dict[str, Any] = {"eval_interval": 60, "eval_episodes": 2, "report_interval": 60}
    run = trainer([tmp_path], agent(PENDULUM, PHASED, [0]), PHASED, make_env, **options)
    run.run()
    assert run.runs[0].error is None
    assert len([row for row in read(tmp_path) if row["name"] == "eval/return_mean"]) == 5
    assert "times in this evaluation, the last time so: RuntimeError: the simulator crashed" in caplog.text
    # Each failure is one of 90 steps, those of the last evaluation included.
    assert run.learners[0].collector.failures.tolist() == [Breaking.count // 90]
    assert Breaking.count // 90 > 8


def test_a_run_that_fails_goes_on_recording_once_it_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    left = 1_000_000

    class Mortal(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise RuntimeError("no licence")
            return self.env.step(action)

    def begun(name: str) -> Online:
        recorder = Recorder(f"test/{name}-v0", None, None, 1, tmp_path / name, CARTPOLE, 3)
        make_env = lambda: Mortal(MAKE[CARTPOLE]())  # noqa: E731
        run = trainer([tmp_path / name], agent(CARTPOLE, PHASED, [0]), PHASED, make_env, recorder=recorder)
        run.callbacks = [each for each in run.callbacks if not isinstance(each, Evaluate)]
        return run

    begun("whole").run()
    left = 150
    broken = begun("broken")
    broken.run()
    assert "10 times in a row: RuntimeError: no licence" in str(broken.runs[0].error)
    assert not (tmp_path / "test" / "broken-v0").exists()
    left = 1_000_000
    again = begun("broken")
    again.resume()
    again.run()
    packed = [load(f"test/{name}-v0").packed.numpy() for name in ("whole", "broken")]
    np.testing.assert_array_equal(*packed)


def test_a_signal_waits_for_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    finish = Recorder.finish

    def interrupted(self: Recorder, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return finish(self, *arguments)

    monkeypatch.setattr(Recorder, "finish", interrupted)
    recorder = Recorder("test/mine-v0", None, None, 1, tmp_path, CARTPOLE, 3)
    run = trainer([tmp_path], agent(CARTPOLE, PHASED, [0]), PHASED, recorder=recorder)
    with pytest.raises(SystemExit) as stop:
        run.run()
    assert (stop.value.code, run.runs[0].lost) == (130, None)
    assert load("test/mine-v0").info.episodes > 5


def test_a_data_set_that_is_not_written_is_said_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    recorder = Recorder("test/mine-v0", None, [299], 1, tmp_path, CARTPOLE, 3)
    run = trainer([tmp_path], agent(CARTPOLE, PHASED, [0]), PHASED, recorder=recorder)
    run.run()
    assert "error: data set test/mine-v0 was not written: no episode to keep has ended" in caplog.text
    assert run.runs[0].lost is not None


def test_resuming_with_other_environments_costs_no_recorded_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(Recorder, "finish", lambda *_: None)

    def begun(envs: int) -> Online:
        recorder = Recorder("test/mine-v0", None, None, 1, tmp_path, CARTPOLE, envs)
        return trainer([tmp_path], agent(CARTPOLE, PHASED, [0]), PHASED, recorder=recorder, envs=envs)

    begun(3).run()
    steps = tmp_path / "recording" / "steps.bin"
    before = steps.read_bytes()
    with pytest.raises(UserError, match=r"another replay: give its trainer\.envs and trainer\.replay_size"):
        begun(2).resume()
    assert steps.read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_an_environment_that_never_begins_ends_in_one_line(tmp_path: Path, workers: int) -> None:
    class Mute(gymnasium.Wrapper):
        def reset(self, **options: Any) -> Any:
            raise RuntimeError("no licence")

    own, replay = agent(PENDULUM, PHASED, [0]), Replay(PENDULUM, 1, 2, 9)
    with pytest.raises(UserError, match=r"no more can be collected: .*RuntimeError: no licence"):
        Collector(lambda: Mute(gymnasium.make("Pendulum-v1")), own, replay, workers).collect(1)


def test_an_environment_that_cannot_be_brought_back_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Drifting(gymnasium.Wrapper):
        count = 0

        def step(self, action: Any) -> tuple:
            obs, *others = self.env.step(action)
            Drifting.count += 1
            return obs + Drifting.count / 1000, *others

    make_env = lambda: Drifting(gymnasium.make("Pendulum-v1"))  # noqa: E731
    first = trainer([tmp_path], agent(PENDULUM, PHASED, [0]), PHASED, make_env, env_steps=60)
    first.run()
    second = trainer([tmp_path], agent(PENDULUM, PHASED, [0]), PHASED, make_env)
    second.resume()
    assert "3 environments could not be brought back to where they were" in caplog.text
    assert bool(second.learners[0].collector.replay.newest(1).truncated.all())
    second.run()


def test_phases_are_the_steps_of_an_update() -> None:
    """An update of the agent is: critic steps toward the target, weights, actor steps."""
    whole, phases = make_awr(seeds=[0, 1], value_iters=3), make_awr(seeds=[0, 1])
    batch = random_batch(whole.spec, 2, 32)
    whole.update(batch)

    def target() -> torch.Tensor:
        return phases.target(batch)

    batch = phases.normalized(batch)
    for _ in range(3):
        phases.critic_update(replace(batch, target=target()))
    phases.actor_update(batch, phases.weights(target() - phases.value(batch.obs)))
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(phases.state_dict()[name], tensor, rtol=1e-12), name


@pytest.mark.parametrize("replay_size", [240, 60, 9])
def test_batches_leave_out_what_has_no_target_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replay_size: int
) -> None:
    """Not even where the ring turns faster than targets are refreshed."""
    taken: list[Any] = []

    def update(self: AWR, batch: Any) -> Any:
        taken.append(batch)
        return {}

    monkeypatch.setattr(AWR, "update", update)
    run = trainer([tmp_path], agent(PENDULUM, REFRESHED, [0, 1]), REFRESHED, replay_size=replay_size, env_steps=400)
    (learner,) = run.learners
    known: dict[tuple[float, ...], float] = {}
    refresh = Interleaved.refresh

    def remembered(self: Interleaved, run: Learner) -> None:
        before = run.target
        refresh(self, run)
        if run.target is not before:
            known.clear()
            batch = run.collector.replay.take(torch.arange(len(run.collector.replay)).expand(2, -1), target=run.target)
            known.update(zip(map(tuple, batch.obs[0].tolist()), batch.target[0].tolist(), strict=True))

    monkeypatch.setattr(Interleaved, "refresh", remembered)
    updates = 0
    while learner.step < 400:
        learner.step += REFRESHED.turn(learner)
        for batch in taken[updates:]:
            assert [known[tuple(obs)] for obs in batch.obs[0].tolist()] == batch.target[0].tolist()
        updates = len(taken)
    assert updates > 100


@pytest.mark.parametrize("schedule", [Phased(1024, 100, 300), Interleaved(500, 5)])
def test_cartpole_is_learnt(tmp_path: Path, schedule: Schedule) -> None:
    """500 is the most there is; a random policy gets 20."""
    learner = agent(
        CARTPOLE, schedule, [0], dtype=torch.float32, network=partial(MLP, hidden=(64, 64)), beta=1.0,
        standardize_advantages=True, actor_lr=1e-3, critic_lr=1e-3, weighting=weights.exp_clip, value_iters=5,
    )  # fmt: skip
    options = {"env_steps": 10_240, "envs": 8, "replay_size": 20_000, "batch_size": 128, "eval_episodes": 5}
    intervals = {"report_interval": 2048, "eval_interval": 2048, "checkpoint_interval": 10_240}
    run = trainer([tmp_path], learner, schedule, **options, **intervals)
    evaluate = evaluate_of(run).call

    def until_learnt(trainer: Any) -> None:
        evaluate(trainer)
        if run.runs[0].latest["eval/return_mean"] > 150:
            run.total = run.step

    evaluate_of(run).call = until_learnt  # type: ignore[method-assign]
    run.run()
    assert max(row["value"] for row in read(tmp_path) if row["name"] == "eval/return_mean") > 150


def test_what_cannot_be_trained_online(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"in trainer\.env_steps=300, since schedule\.learning_starts=300: lower it"):
        trainer([tmp_path], agent(CARTPOLE, INTERLEAVED, [0]), Interleaved(learning_starts=300))
    trainer([tmp_path], agent(CARTPOLE, INTERLEAVED, [0]), Interleaved(50, update_interval=301))
    assert "nothing is learnt in trainer.env_steps=300, since schedule.update_interval=301: lower it" in caplog.text
    with pytest.raises(UserError, match=r"with schedule\.learning_starts=0 there is nothing to learn the normaliser"):
        trainer([tmp_path], agent(CARTPOLE, INTERLEAVED, [0]), Interleaved(learning_starts=0))
    # Of three environments each.
    with pytest.raises(UserError, match="the first 300 steps are only collected"):
        trainer([tmp_path], agent(CARTPOLE, PHASED, [0]), Phased(298, overlap=True), workers=1)
    with pytest.raises(UserError, match=r"schedule\.learning_starts=298: lower it"):
        trainer([tmp_path], agent(CARTPOLE, INTERLEAVED, [0]), Interleaved(learning_starts=298))
    with pytest.raises(UserError, match=r"trainer\.replay_size takes 410000\.0 GB with observations of 4 numbers"):
        trainer([tmp_path], agent(CARTPOLE, PHASED, [0]), PHASED, replay_size=10**13)
    with pytest.raises(UserError, match="choose one, such as env=cartpole"):
        Online(agent(CARTPOLE, PHASED, [0]), None, PHASED, [], 1, 1, 0, 1, 1, False)
    gelu = agent(CARTPOLE, PHASED, [0], network=partial(MLP, hidden=(8,), activation="gelu"))
    with pytest.raises(UserError, match=r"no NumPy form, in which workers act: choose trainer\.workers=0"):
        trainer([tmp_path], gelu, PHASED, workers=1)


class Unrewarded(gymnasium.RewardWrapper):
    """No reward before a certain step of all."""

    steps = 0

    def reward(self, reward: Any) -> float:
        Unrewarded.steps += 1
        return float(Unrewarded.steps > self.until) * reward

    until = 10**9


@pytest.mark.parametrize("until", [10**9, 130])
def test_rewards_that_are_alike_so_far_are_said_to_be_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, until: int
) -> None:
    monkeypatch.setattr(Unrewarded, "until", until)
    monkeypatch.setattr(Unrewarded, "steps", 0)
    own = agent(PENDULUM, PHASED, [0], beta=1e9)
    trainer([tmp_path], own, PHASED, lambda: Unrewarded(MAKE[PENDULUM]())).run()
    assert caplog.text.count("all rewards so far are 0, so that no action is better than another and nothing is") == 1
    # Once there are some, beta may be advised on.
    assert ("is very large" in caplog.text) == (until == 130)


class Mixed(gymnasium.Env):
    """A clock, and an action with an entry of each kind of bounds, which it is always within."""

    observation_space = gymnasium.spaces.Dict(
        time=gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64), x=gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    )
    most = float(np.finfo(np.float32).max)
    action_space = gymnasium.spaces.Box(
        np.array([-most, -1, 0, 0.5, -most], np.float32), np.array([most, 1, most, 0.5, 2], np.float32)
    )

    def see(self) -> Any:
        return {"time": np.array([1.7e9 + self.count]), "x": self.np_random.uniform(-1, 1, 2).astype(np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.see(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.count += 1
        return self.see(), float(np.abs(action).sum()), False, self.count == 1_000, {}


@pytest.mark.parametrize("head", [partial(heads.Gaussian, bound_penalty=1.0), heads.AnnealedGaussian])
def test_bounds_of_every_kind_and_a_clock(tmp_path: Path, caplog: pytest.LogCaptureFixture, head: Any) -> None:
    spec = task(Mixed)
    assert spec.action_low == (-np.inf, -1, 0, 0.5, -np.inf)
    assert spec.action_high == (np.inf, 1, np.inf, 0.5, 2)
    own = agent(spec, PHASED, [0], head=head, dtype=torch.float32)
    online = trainer([tmp_path], own, PHASED, Mixed)
    online.run()
    assert online.runs[0].error is None
    assert bool(own.alive.all())
    assert bool(torch.isfinite(own.actor.theta).all())
    rows = [row for row in read(tmp_path) if row["name"] in ("train/actor_loss", "train/entropy", "eval/return_mean")]
    assert len(rows) >= 6
    assert all(np.isfinite(row["value"]) and abs(row["value"]) < 1e6 for row in rows)
    assert caplog.text.count("time varies little around a large mean, and float32 can hardly tell the values") == 1
