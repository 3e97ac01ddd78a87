"""Data sets that do not fit the memory: what is mapped, chosen or taken in blocks is what is in memory and copied."""

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awr_exp.agents import bc_top, critic
from awr_exp.agents.bc_top import BCTop
from awr_exp.data import cache, content, hdf5, mapped, packing, room, statistics
from awr_exp.data.minari import load
from awr_exp.data.packing import laid_out
from awr_exp.data.selection import in_unit, select
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks.heads import Gaussian
from awr_exp.networks.mlp import MLP
from awr_exp.training import memory, native
from awr_exp.training.ahead import ahead
from awr_exp.training.learner import Learner
from awr_exp.training.schedules import FixedData
from awr_exp.types import DataInfo, RewardUnit
from tests.conftest import CONTINUOUS, NETWORK, make_awr
from tests.data.test_minari import ID, data_file, everything, make

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make((4, 1, 7, 5, 2, 9))
    return tmp_path / "minari"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without memory, which reads two episodes or so at once."""
    monkeypatch.setattr(room, "free_memory", lambda: 0)
    monkeypatch.setattr(hdf5, "NUMBERS", 80)


def random_data(lengths: list[int], history: int = 1) -> Transitions:
    g = torch.Generator().manual_seed(0)
    count, ends = torch.tensor(lengths), (torch.tensor(lengths) + 1).cumsum(0) - 1
    packed = torch.randn(int(ends[-1]) + 1, 3 + 2 + 3, generator=g)
    packed[:, -2:] = 0
    packed[ends - 1, -2] = (torch.arange(len(lengths)) % 2).float()
    packed[ends - 1, -1] = 1 - packed[ends - 1, -2]
    packed[ends, 3:] = 0
    returns = packing.episode_returns(packed, count.numpy(), CONTINUOUS)
    return Transitions(packed, count, CONTINUOUS, DataInfo("test/large-v0", returns, "test", history=history))


def same(one: Any, other: Any) -> None:
    for name, column in vars(one).items():
        assert column is None or torch.equal(column, getattr(other, name)), name


@given(LENGTHS, st.data())
def test_what_is_chosen_is_its_copy(lengths: list[int], drawn: st.DataObject) -> None:
    """Batches, values, statistics and observations, of episodes that are cut, in another unit, with a history."""
    history = drawn.draw(st.integers(1, 3))
    percent, cap = drawn.draw(st.sampled_from([None, 40.0])), drawn.draw(st.none() | st.integers(1, sum(lengths)))
    whole = random_data([*lengths, 4])
    cut = select(whole, percent, max_transitions=cap)
    chosen = select(whole, percent, 0.5, -1.0, cap, min(history, cut.longest + 1))
    copy = Transitions(laid_out(chosen), chosen.lengths, chosen.stored, chosen.info, chosen.origin)
    assert torch.equal(whole.packed, random_data([*lengths, 4]).packed)
    assert copy.lie.apart is False
    rows = torch.arange(len(copy)).flip(0).unsqueeze(0)
    same(chosen.sample(rows, next_action=False), copy.sample(rows, next_action=False))
    assert torch.equal(chosen.observations(), copy.observations())
    assert torch.equal(chosen.reward, copy.reward)
    assert torch.equal(chosen.terminated, copy.terminated)
    for one, other in zip(chosen.obs_statistics(), copy.obs_statistics(), strict=True):
        assert torch.equal(one, other)
    value = lambda obs: obs.sum(-1).unsqueeze(0)  # noqa: E731
    for one, other in zip(chosen.values(value, 3), copy.values(value, 1000), strict=True):
        assert torch.equal(one, other)
    np.testing.assert_allclose(
        chosen.info.episode_returns,
        packing.episode_returns(in_unit(copy, RewardUnit()).packed, copy.lengths.numpy(), CONTINUOUS),
        rtol=1e-5,
        atol=1e-5,
    )
    assert torch.equal(chosen.packed, copy.packed)
    assert torch.equal(chosen.rows, copy.rows)


@given(LENGTHS, st.integers(1, 20))
def test_blocks_are_all_episodes_in_order(lengths: list[int], most: int) -> None:
    data = random_data(lengths)
    for one in (data, data.chosen(data.info, torch.arange(0, len(lengths), 2))):
        blocks = list(one.blocks(most))
        assert torch.equal(torch.cat([block.lengths for block in blocks]), one.lengths)
        assert all(len(block) <= most or len(block.lengths) == 1 for block in blocks)
        assert torch.equal(torch.cat([everything(block).obs for block in blocks], 1), everything(one).obs)
        assert torch.equal(torch.cat([block.last for block in blocks]), one.last)


@settings(max_examples=20)
@given(LENGTHS, st.integers(1, 20), st.sampled_from([0.0, 0.9, 1.0]))
def test_targets_in_blocks_are_those_of_all_at_once(lengths: list[int], most: int, lam: float) -> None:
    data = random_data(lengths)
    options: Any = {"seeds": [0, 1], "dtype": torch.float64}
    imitates = BCTop(CONTINUOUS, NETWORK, Gaussian, top_percent=[50, 20], **options)
    for agent in (make_awr(advantage=LambdaReturn(lam), **options), imitates):
        whole = agent.targets(data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(critic, "BLOCK", most)
            patch.setattr(bc_top, "BLOCK", most)
            parts = agent.targets(data)
        assert whole is not None
        assert parts is not None
        for name, column in whole.items():
            torch.testing.assert_close(parts[name], column, rtol=1e-12, atol=1e-12)


def test_the_mapped_form_is_what_would_be_in_memory(
    root: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(ID)
    assert sorted(os.listdir(root / ID / "data" / ".awr_exp_cache")) == ["flat.json", "flat.npy"]
    again = load(ID)
    monkeypatch.setattr(room, "free_memory", lambda: 10**12)
    shutil.rmtree(root / ID / "data" / ".awr_exp_cache")
    fresh = load(ID)
    for one in (first, again):
        assert torch.equal(one.packed, fresh.packed)
        assert torch.equal(one.lengths, fresh.lengths)
        np.testing.assert_array_equal(one.info.episode_returns, fresh.info.episode_returns)
        assert one.info.fingerprint == fresh.info.fingerprint


def learnt(agent: Any, data: Transitions, updates: int, compiled: bool) -> dict[str, torch.Tensor]:
    """What an agent has learnt from data after so many updates."""
    agent.fit_normalizer(*data.obs_statistics())
    schedule = FixedData(refresh_interval=10)
    learner = Learner(agent, data, schedule, schedule.functions(updates, compiled, agent.device), 16)
    learner.train(updates)
    return {name: tensor.clone() for name, tensor in agent.state_dict().items()}


@pytest.mark.parametrize(("lam", "compiled"), [(0.0, True), (0.9, False)])
def test_training_on_mapped_rows_is_training_on_rows_in_memory(
    lam: float, compiled: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, on the same rows with the same seeds, of chosen episodes with other rewards."""
    states = []
    for free in (10**12, 0):
        monkeypatch.setattr(room, "free_memory", lambda free=free: free)
        data = load(ID, top_percent=70, reward_scale=0.3, reward_shift=-1)
        estimator, network = LambdaReturn(lam), partial(MLP, hidden=(16, 16))
        agent = make_awr(data.spec, seeds=(0, 1), advantage=estimator, network=network, dtype=torch.float32)
        assert native.fits(agent)
        states.append(learnt(agent, data, 30, compiled))
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def nothing_left(root: Path) -> bool:
    return not (root / ID / "data" / ".awr_exp_cache").exists() and data_file(root).is_file()


def test_no_room_on_the_disk(root: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**25))
    with pytest.raises(UserError, match=r"takes 0\.0 GB, 8 numbers a step: 0\.0 GB of memory are free, and its mapped"):
        load(ID)
    assert nothing_left(root)


def test_a_disk_that_fills_meanwhile(root: Path, small: None) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(UserError, match=r"flat\.draft cannot be written: ") as error:
            load(ID)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value)
    assert nothing_left(root)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_interrupts_leaves_nothing(
    number: int, root: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = room.Room.add

    def stopped(self: room.Room, rows: torch.Tensor) -> None:
        add(self, rows)
        assert list((root / ID / "data" / ".awr_exp_cache").iterdir())
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(room.Room, "add", stopped)
    # Whoever starts the tests in the background has them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as stop:
        load(ID)
    signal.signal(signal.SIGINT, before)
    assert stop.value.code == 128 + number
    assert nothing_left(root)


KILLED = """
import os, signal
from awr_exp.data import hdf5, room
from awr_exp.data.minari import load
room.free_memory, hdf5.NUMBERS, add = lambda: 0, 80, room.Room.add
def dying(self, rows):
    add(self, rows)
    self.file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
room.Room.add = dying
load("test/ragged-v0")
"""


def test_what_a_killed_process_left_is_made_anew(root: Path, small: None) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED]).returncode == -signal.SIGKILL
    place = root / ID / "data" / ".awr_exp_cache"
    assert [path.name for path in place.iterdir()] == ["flat.draft"]
    assert len(load(ID)) == 28
    assert sorted(path.name for path in place.iterdir()) == ["flat.json", "flat.npy"]


def test_one_of_two_waits_for_the_other(root: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes what it made."""
    place, read = root / ID / "data" / ".awr_exp_cache", hdf5.read
    place.mkdir()
    with (place / "flat.draft").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def finish() -> None:
            (place / "flat.draft").rename(place / "flat.npy")
            other.close()

        threading.Timer(0.3, finish).start()
        tried: list[float] = []
        monkeypatch.setattr(hdf5, "read", lambda *args: (tried.append(time.perf_counter()), read(*args))[1])
        assert len(load(ID)) == 28
    assert len(tried) == 2
    assert tried[1] - tried[0] > 0.2


def test_a_large_cache_is_known_by_its_state(root: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGE", 0)
    first, path = load(ID).packed.clone(), root / ID / "data" / ".awr_exp_cache" / "flat.npy"
    with monkeypatch.context() as patch:
        patch.setattr(hdf5, "read", None)
        assert torch.equal(load(ID).packed, first)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert torch.equal(load(ID).packed, first)
    with monkeypatch.context() as patch:
        patch.setattr(hdf5, "read", None)
        assert torch.equal(load(ID).packed, first)


def test_a_copy_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_data([3, 4])
    monkeypatch.setattr(packing, "free_memory", lambda: 0)
    assert data.packed is data.held
    with pytest.raises(UserError, match=r"would have to be copied, which takes .* leave out dataset\.top_percent"):
        select(data, top_percent=50).packed  # noqa: B018


def test_what_needs_a_number_a_transition_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match=r"which take 800 TB of memory, and .* or an agent that looks at single steps"):
        memory.check_targets(100, 10**12, cpu)
    with pytest.raises(UserError, match="evaluate=fqe keeps what the policies do in 1,000,000,000,000 states"):
        memory.check_actions(1, 10**12, 3, cpu)


def test_statistics_of_some_are_near_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_data([50] * 400)
    exact = data.obs_statistics()
    monkeypatch.setattr(statistics, "ALL", 20_000)
    monkeypatch.setattr(statistics, "PART", 60)
    read: list[int] = []
    between = Transitions.between
    monkeypatch.setattr(Transitions, "between", lambda *args: (read.append(args[2] - args[1]), between(*args))[1])
    for one, other in zip(data.obs_statistics(), exact, strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)
    # In three passes.
    assert sum(read) * 3 == pytest.approx(3 * 20_000, rel=0.05)


def test_doubts_are_of_some_episodes_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_data([1] * 30)
    first = data.schema.view(data.packed, "obs")[::2].clone()
    data.schema.view(data.packed, "obs")[1:-1:2] = first[1:]
    data.schema.view(data.packed, "terminated")[::2] = 1
    assert next(content.doubts(data, 1)).startswith("29 of its episodes end with")
    monkeypatch.setattr(content, "EPISODES", 10)
    joined, late = content.doubts(data, 1)
    assert joined.startswith("10 of 10 episodes that were looked at end with")
    assert late.startswith("10 of 10 episodes that were looked at terminate after 1 steps")


def test_batches_that_are_made_ahead_are_the_same_in_their_order() -> None:
    data = random_data([5, 6])
    rows = torch.arange(11).view(11, 1, 1)

    def batches(fails: bool) -> Iterator[tuple[Any]]:
        for own in rows:
            yield (data.sample(own),)
        if fails:
            raise UserError("the disk is gone")

    for (one,), own in zip(ahead(batches(False), data.device), rows, strict=True):
        same(one, data.sample(own))
    with pytest.raises(UserError, match="the disk is gone"):
        list(ahead(batches(True), data.device))
    # Whoever has enough may leave.
    assert next(ahead(batches(True), data.device)) is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_on_the_host_train_as_rows_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for share in (0.8, 0.0):
        monkeypatch.setattr(mapped, "DEVICE_SHARE", share)
        data = in_unit(random_data([20, 30, 7]), RewardUnit(0.5)).to("cuda")
        assert (data.held.device.type == "cuda") == (share > 0)
        agent = make_awr(seeds=(0, 1), device="cuda", dtype=torch.float32)
        states.append(learnt(agent, data, 100, compiled=False))
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_the_last_transition_of_a_choice_ends_its_episode() -> None:
    cut = select(random_data([5, 6]), max_transitions=7)
    assert everything(cut).truncated[0].tolist() == [False] * 4 + [True, False, True]
    part = replace(cut.info, episode_returns=cut.info.episode_returns[1:])
    assert everything(cut.chosen(part, torch.tensor([1]))).truncated[0].tolist() == [False, True]
