"""The trainer: members in separate folders, warnings, the compiled update, and faults that must not cost a run."""

import logging
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from awr_exp.agents.agent import Agent
from awr_exp.agents.awr import AWR
from awr_exp.agents.bc import BC
from awr_exp.data import facts
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.math import losses, weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks import heads
from awr_exp.networks.policy import MakeHead
from awr_exp.training import checkpoint
from awr_exp.training.accelerate import FLOAT32_ERROR, Graphed, accelerate, fast_float32_products
from awr_exp.training.loggers import Jsonl
from awr_exp.training.offline import Offline
from awr_exp.training.rows import read
from awr_exp.training.run import Run
from awr_exp.types import DataInfo, RewardUnit
from tests.conftest import CONTINUOUS, DISCRETE, NETWORK, make_awr, random_batch

LENGTHS = (30, 5, 65)
SCHEDULE: dict[str, Any] = {
    "updates": 90, "batch_size": 16, "refresh_interval": 20, "report_interval": 30, "eval_interval": 30,
    "eval_episodes": 1, "checkpoint_interval": 30, "compile": False,
}  # fmt: skip

HEADS: list[MakeHead] = [
    partial(heads.Gaussian, std="state_dependent"),
    partial(heads.Gaussian, std=0.3, bound_penalty=1.0),
    heads.AnnealedGaussian,
    heads.TanhGaussian,
    heads.Categorical,
]


def random_data(reward: float | None = None, terminates: bool = False) -> Transitions:
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor(LENGTHS)
    packed = torch.randn(int(lengths.sum()) + len(lengths), 3 + 2 + 3, generator=g)
    packed[:, 3:5].clamp_(-1, 1)
    packed[:, -2:] = 0
    packed[LENGTHS[0] - 1, -2] = terminates
    packed[:, -3] = packed[:, -3] if reward is None else reward
    info = DataInfo("test/random-v0", np.zeros(len(LENGTHS)), "test")
    return Transitions(packed, lengths, CONTINUOUS, info)


def trainer(folders: list[Path], agent: Agent, **schedule: Any) -> Offline:
    return Offline(
        agent,
        make_env=None,
        runs=[Run(folder, logger=Jsonl(folder)) for folder in folders],
        **({"data": random_data()} | SCHEDULE | schedule),
    )


@pytest.mark.parametrize(
    ("own", "shift", "said"),
    [(0.0, 0.0, "all rewards are 0, "), (0.0, -1.0, None), (1.0, 0.0, None), (1.0, -1.0, "all rewards are 1, ")],
)
def test_rewards_that_are_alike_are_a_fault_unless_they_tell_how_soon_an_episode_ends(
    own: float, shift: float, said: str | None
) -> None:
    unit = RewardUnit(1.0, shift)
    sentence = facts.about_rewards([(unit.learnt(torch.full((4,), own)), torch.arange(4) == 3)], unit, online=False)
    assert (sentence or "").startswith(said or "")
    assert (sentence is None) == (said is None)


def test_a_batch_has_several_actions_where_they_are_compared(tmp_path: Path) -> None:
    for compared in ({"standardize_advantages": [True, False]}, {"weighting": weights.normalized}):
        with pytest.raises(UserError, match=r"trainer\.batch_size=1: the actions of a batch are weighed against"):
            trainer([tmp_path], make_awr(seeds=(0, 1), **compared), batch_size=1)
    trainer([tmp_path], make_awr(), batch_size=1)


def test_a_member_leaves_what_a_run_of_its_own_leaves(tmp_path: Path) -> None:
    betas, seeds = [0.1, 2.0, 0.5], [4, 0, 7]
    together = [tmp_path / f"member{k}" for k in range(3)]
    trainer(together, make_awr(seeds=seeds, beta=betas, advantage=LambdaReturn(0.9), dtype=torch.float32)).run()
    for k in range(3):
        alone = tmp_path / f"alone{k}"
        agent = make_awr(seeds=[seeds[k]], beta=betas[k], advantage=LambdaReturn(0.9), dtype=torch.float32)
        trainer([alone], agent).run()
        rows = zip(read(together[k]), read(alone), strict=True)
        for mine, its in rows:
            assert mine["name"] == its["name"]
            if mine["name"] != "train/updates_per_second" and mine["update"] == 30:
                assert mine["value"] == pytest.approx(its["value"], rel=1e-3, abs=1e-4), mine["name"]
        mine, its = (checkpoint.latest(folder) for folder in (together[k], alone))
        assert mine is not None
        assert its is not None
        assert {name: t.shape for name, t in mine[0].items()} == {name: t.shape for name, t in its[0].items()}


def test_members_resume_from_their_own_folders(tmp_path: Path) -> None:
    def agent() -> AWR:
        return make_awr(seeds=[0, 1], advantage=LambdaReturn(0.9))

    whole = trainer([tmp_path / "a", tmp_path / "b"], agent())
    whole.run()
    folders = [tmp_path / "c", tmp_path / "d"]
    trainer(folders, agent(), updates=50).run()
    second = trainer(folders, agent())
    second.resume()
    assert second.update == 50
    second.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(second.agent.state_dict()[name], tensor), name


def test_adding_reports_and_checkpoints_never_changes_training(tmp_path: Path) -> None:
    agents = [make_awr(), make_awr()]
    trainer([tmp_path / "a"], agents[0]).run()
    trainer([tmp_path / "b"], agents[1], report_interval=7, checkpoint_interval=11).run()
    assert torch.equal(agents[0].actor.theta, agents[1].actor.theta)


def test_a_policy_stands_still_once_its_learning_rate_has_fallen(tmp_path: Path) -> None:
    def trained(updates: int) -> Agent:
        agent = make_awr(seeds=[0, 1], anneal_actor_lr=[True, False], actor_iters=2, dtype=torch.float32)
        folders = [tmp_path / f"{updates}_{seed}" for seed in agent.seeds]
        trainer(folders, agent, updates=updates, anneal_updates=30).run()
        return agent

    before, after = trained(30).actor.theta, trained(60).actor.theta
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("head", [pytest.param(head, marks=pytest.mark.slow) for head in HEADS[:3]] + HEADS[3:])
@pytest.mark.long
def test_an_update_can_be_traced_with_every_head(head: MakeHead) -> None:
    spec = DISCRETE if head is heads.Categorical else CONTINUOUS
    plain, traced = make_awr(spec, head=head, value_iters=1), make_awr(spec, head=head, value_iters=1)
    torch.compiler.reset()
    update = torch.compile(AWR.update, dynamic=False, fullgraph=True, backend="aot_eager")
    batch = random_batch(spec, 1, 8)
    assert_close(update(traced, batch), plain.update(batch))


def test_nothing_is_compiled_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        replays = 0

        def replay(self) -> None:
            self.replays += 1

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: torch.compiler.set_stance("fail_on_recompile"))
    torch.compiler.reset()
    compiled = torch.compile(AWR.update, dynamic=False, backend="aot_eager")
    update = Graphed(partial(compiled, make_awr(value_iters=1, dtype=torch.float32)))
    data = random_data()
    # Columns of packed rows: their copies, which a graph reads, have other strides.
    for _ in range(3):
        update(data.sample(torch.randint(len(data), (1, 8))))
    assert isinstance(update.graph, Graph)
    assert update.graph.replays == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("head", HEADS)
def test_the_captured_graph_is_the_same_up_to_rounding(head: MakeHead, caplog: pytest.LogCaptureFixture) -> None:
    spec = DISCRETE if head is heads.Categorical else CONTINUOUS
    plain, graphed = (make_awr(spec, seeds=[0, 1], head=head, device="cuda") for _ in range(2))
    faster = accelerate(AWR.update, True, 0, torch.device("cuda"))(graphed)
    for seed in range(5):
        batch = random_batch(spec, 2, 16, seed)
        on_device = type(batch)(**{k: v.cuda() for k, v in vars(batch).items() if v is not None})
        for (name, value), again in zip(plain.update(on_device).items(), faster(on_device).values(), strict=True):
            assert_close(again, value, msg=name)
    assert "going on without" not in caplog.text


def test_what_cannot_be_compiled_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        def call(agent: AWR, batch: Any) -> Any:
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    agent, other = make_awr(), make_awr()
    faster = accelerate(AWR.update, True, 0, torch.device("cpu"))(agent)
    for seed in range(2):
        batch = random_batch(CONTINUOUS, 1, 8, seed)
        assert torch.equal(faster(batch)["actor_loss"], other.update(batch)["actor_loss"])
    assert "going on without: no compiler" in caplog.text


def test_faster_products_are_taken_only_where_they_stay_float32() -> None:
    allowed = fast_float32_products()
    a, b = torch.randn(1, 300, 200), torch.randn(1, 200, 100)
    exact = a.double() @ b.double()
    error = float((torch.bmm(a, b) - exact).norm() / exact.norm())
    torch.set_float32_matmul_precision("highest")
    assert error <= FLOAT32_ERROR, allowed


def test_a_run_whose_only_member_diverges_ends_with_what_to_try(tmp_path: Path) -> None:
    run = trainer([tmp_path], make_awr(actor_lr=1e200, critic_lr=1e200))
    run.run()
    assert run.update == 30
    assert re.search(r"diverged before update 30: .*max_grad_norm=1", str(run.runs[0].error))


def test_a_member_that_diverges_fails_alone(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    run = trainer(folders, make_awr(seeds=[0, 1, 2], actor_lr=[1e-3, 1e200, 1e-3]))
    run.run()
    assert run.going_on == [True, False, True]
    assert [max(row["update"] for row in read(folder)) for folder in folders] == [90, 30, 90]
    alone = trainer([tmp_path / "alone"], make_awr(seeds=[2], actor_lr=1e-3))
    alone.run()
    # In float64 the other members leave no trace beyond rounding.
    assert_close(run.agent.actor.theta[2], alone.agent.actor.theta[0], rtol=1e-6, atol=1e-9)


def test_a_logger_that_breaks_costs_its_member_alone(tmp_path: Path) -> None:
    run = trainer([tmp_path / "a", tmp_path / "b"], make_awr(seeds=[0, 1]))

    def broken(*_: object) -> None:
        raise OSError("no room")

    run.runs[1].logger.log = broken  # type: ignore[method-assign, union-attr]
    run.run()
    assert [str(one.error) for one in run.runs] == ["None", "no room"]
    assert run.update == 90


def test_a_checkpoint_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "checkpoint").write_text("a file where the folder should be")
    run = trainer([tmp_path], make_awr())
    run.run()
    assert "could not be written" in caplog.text
    assert "the newest checkpoint could not be written: make room, then resume" in str(run.runs[0].lost)


def test_one_batch_of_equal_targets_does_not_decide_the_explained_variance() -> None:
    value = torch.randn(2, 50, dtype=torch.float64)
    target = torch.stack([torch.zeros(50, dtype=torch.float64), value[1]])
    assert losses.explained_variance(value, target).tolist() == [-1, 1]


HEALTHY = {"ess": 0.4, "std_advantage": 1.0, "mean_weight": 1.0, "max_weight": 20.0, "clipped": 0.1, "zero_weight": 0.1}
SWITCH = {"ess": 0.5, "clipped": 0.5, "zero_weight": 0.4}
SATURATED = {"ess": 0.98, "clipped": 0.95, "zero_weight": 0.0, "mean_advantage": 7.0}


@pytest.mark.parametrize(
    ("metrics", "beta", "standardized", "name", "advice"),
    [
        ({}, 0.3, False, "", ""),
        (
            SWITCH | {"std_advantage": 2.1},
            0.05,
            False,
            "a switch",
            "compare with agent.beta=2 or agent.standardize_adv",
        ),
        (SWITCH | {"std_advantage": 100.0}, 0.05, True, "a switch", "spread by 1: .*; compare with agent.beta=1$"),
        ({"ess": 0.995, "clipped": 0.0, "zero_weight": 0.0}, 30.0, False, "nearly equal", "compare with agent.beta=1$"),
        # It is not for beta, which is small beside a spread that a few make.
        (
            {"ess": 0.995, "std_advantage": 9.0},
            0.3,
            False,
            "nearly equal",
            "^all .*; try a smaller agent.beta$",
        ),
        ({"std_advantage": 100.0}, 1.0, True, "", ""),
        ({"ess": 0.01}, 0.3, False, "collapsed", "1.0% of a batch .*; try a smaller agent.max_weight, agent.beta=1 or"),
        (SATURATED, 0.3, False, "saturated", "95% .* 0.98 is no sign of health; try agent.beta=7 or agent.standardize"),
        (SATURATED, 0.3, True, "saturated", "; try a larger agent.max_weight$"),
        # Weights beyond max_weight are of a weighting that does not heed it.
        (SATURATED | {"max_weight": 90.0}, 0.3, False, "", ""),
        (
            {"mean_weight": 0.0, "ess": 0.0, "clipped": 0.0},
            0.3,
            False,
            "all zero",
            "far below 0 beside beta 0.3; try agent.beta=1 or",
        ),
        ({"std_advantage": 0.0, "ess": 1.0}, 0.3, False, "all equal", "check where the rewards come from"),
        # Of weights that do not depend on beta.
        ({"mean_weight": 0.0, "ess": 0.0}, None, False, "all zero", "check the critic"),
        ({"std_advantage": 100.0, "ess": 0.01}, None, False, "", ""),
        (SATURATED, None, False, "", ""),
    ],
)
def test_each_ill_has_one_sentence(
    metrics: dict[str, float], beta: float | None, standardized: bool, name: str, advice: str
) -> None:
    weighting = weights.indicator if beta is None else weights.exp_clip
    agent = make_awr(beta=beta or 0.3, max_weight=20.0, weighting=weighting, standardize_advantages=standardized)
    found = dict(agent.warnings(0, HEALTHY | metrics))
    assert list(found) == [name] * bool(name)
    assert all(re.search(advice, sentence) and "\n" not in sentence for sentence in found.values())


def top_tenth(advantage: torch.Tensor, beta: torch.Tensor, max_weight: torch.Tensor) -> torch.Tensor:
    """Somebody's own, which wants sixteen rows."""
    return (advantage >= advantage.view(1, 16).topk(2).values[:, -1:]).to(advantage)


@pytest.mark.parametrize(
    ("weighting", "warns"), [(weights.exp_clip, True), (weights.indicator, False), (top_tenth, True)]
)
def test_a_beta_that_does_nothing_is_not_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, weighting: Any, warns: bool
) -> None:
    trainer([tmp_path], make_awr(beta=1e-3, weighting=weighting)).run()
    assert ("is very small" in caplog.text) == warns


def test_a_run_resumed_with_another_estimator_has_its_targets(tmp_path: Path) -> None:
    """Whole-episode targets at once, and none of them with one that needs none."""
    for name, before, after in (("more", 0.0, 0.9), ("less", 0.9, 0.0)):
        first = trainer([tmp_path / name], make_awr(advantage=LambdaReturn(before)), updates=30)
        first.run()
        second = trainer([tmp_path / name], make_awr(advantage=LambdaReturn(after)), refresh_interval=1_000)
        second.resume()
        second.run()
        assert second.runs[0].error is None
        assert (second.learners[0].target is None) == (after == 0)


def test_a_warning_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trainer([tmp_path], make_awr(beta=1e-3, value_iters=1)).run()
    assert caplog.text.count("is very small") == 1
    assert caplog.text.count("value_iters=1") == 1


@pytest.mark.parametrize(
    ("reward", "terminates", "said"), [(0, False, True), (0, True, True), (-1, False, True), (-1, True, False)]
)
def test_rewards_that_are_all_alike_are_said_to_be_that_instead_of_advice_on_beta(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reward: float, terminates: bool, said: bool
) -> None:
    caplog.set_level(logging.INFO)
    folders = [tmp_path / "a", tmp_path / "b"]
    own = trainer(folders, make_awr(seeds=[0, 1], beta=100.0), data=random_data(reward, terminates))
    own.run()
    about = [record for record in caplog.records if "all rewards are" in record.message]
    # Of both members in their logs, and once on the terminal.
    assert [record.levelname for record in about] == ["WARNING", "INFO"] * said
    assert all(f"all rewards are {reward}, so that no action is better" in record.message for record in about)
    assert ("agent.beta" in caplog.text) != said


def test_rewards_do_not_matter_to_behaviour_cloning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer([tmp_path], BC(CONTINUOUS, NETWORK, heads.auto, [0], 1e-3), data=random_data(0)).run()
    assert "all rewards" not in caplog.text
