"""What cannot be in the memory is said before anything is made."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from awr_exp.building import task
from awr_exp.errors import UserError
from awr_exp.layout import Entry
from awr_exp.training import memory
from awr_exp.training.progress import Bar, compiling
from tests.conftest import SMALL, composed, train

ONLINE = ["trainer=online", "env=cartpole", "network.hidden=[16]", "logger=jsonl", "trainer.compile=false"]
FINETUNE = ["trainer=finetune", "dataset=cartpole_mixed", "network.hidden=[16]", "logger=jsonl"]
TOO_MUCH = {
    ("network.hidden=[10000000,10000000]",): (SMALL, r"3\.2 PB"),
    ("network.hidden=[100000000]",): (SMALL, "323 GB"),
    ("agent=bc", "network.hidden=[1000000,1000000]"): (SMALL, "16 TB"),
    ("trainer.batch_size=100000000",): (SMALL, "GB"),
    ("trainer.batch_size=1000000000000000000",): (SMALL, "EB"),
    ("trainer.eval_episodes=1000000000",): (SMALL, "TB"),
    ("baseline=bc", "trainer.batch_size=100000000"): (SMALL, "GB"),
    ("trainer.envs=100000000",): (ONLINE, "GB"),
    ("trainer.workers=100000",): (ONLINE, "2 TB"),
    ("trainer.replay_size=100000000000",): (ONLINE, "TB"),
    ("trainer.batch_size=100000000000",): (ONLINE, "TB"),
    ("schedule.actor_steps=100000000000",): (ONLINE, "TB"),
    ("trainer.env_steps=1000000000000", "schedule.samples_per_iteration=100000000000"): (ONLINE, "TB"),
    ("trainer.pretrain.batch_size=100000000",): (FINETUNE, "GB"),
}


@pytest.mark.parametrize("wrong", TOO_MUCH)
def test_what_cannot_be_there_is_named_at_once(
    wrong: tuple[str, ...], tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    monkeypatch.setattr(memory, "available", lambda device: 8 * 10**9)
    base, size = TOO_MUCH[wrong]
    setting = re.escape(wrong[-1].partition("=")[0])
    message = rf"{setting}=.* takes at least [\d.e+]*{size}|{setting}=.* takes at least .* {size} of memory"
    with pytest.raises(UserError, match=message) as error:
        train([composed(*base, *wrong)], [tmp_path])
    assert str(error.value).endswith("and 8 GB are free on cpu: give a smaller one")
    assert not list(tmp_path.glob("*"))
    with pytest.raises(UserError, match=message):
        task.parts([composed(*base, *wrong)] * 2)


def test_on_a_gpu_its_own_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, spec = composed(*ONLINE, "trainer.replay_size=100000000"), memory.Spec(obs_dim=4, num_actions=2)
    free = {"cuda": 10**9, "cpu": 10**12}
    monkeypatch.setattr(memory, "available", lambda device: free[device.type])
    memory.check(cfg, spec, 1000, 0, torch.device("cpu"))
    with pytest.raises(UserError, match=r"trainer\.replay_size=100000000 takes .* and 1 GB are free on cuda"):
        memory.check(cfg, spec, 1000, 0, torch.device("cuda"))
    free["cpu"] = 1000
    with pytest.raises(UserError, match=r"schedule\.samples_per_iteration=2048 takes .* free on cpu"):
        memory.check(composed(*ONLINE, "trainer.eval_episodes=1"), spec, 1000, 0, torch.device("cuda"))


def test_a_replay_of_stacked_images_is_known_to_take_the_room_of_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    image = memory.Spec(84 * 84, num_actions=4, observation=(Entry((), (84, 84), dtype="uint8"),))
    for spec in (image, image.stacked(4)):
        for free, fits in ((7.4, True), (7.2, False)):
            monkeypatch.setattr(memory, "available", lambda device, free=free: int(free * 1e9))
            with nullcontext() if fits else pytest.raises(UserError, match=r"replay_size takes 7\.3 GB .* 7\.2 GB are"):
                memory.check_replay(spec, 1, 10**6, torch.device("cpu"))


@pytest.mark.parametrize(
    "ask", [lambda: torch.empty(2**62 // 16, dtype=torch.float32), lambda: [0] * 2**60, lambda: bytes(2**62)]
)
def test_no_memory_left_is_one_line(ask: Callable[[], object]) -> None:
    with pytest.raises(UserError, match="no memory is left"), memory.exhausted():
        ask()
    with pytest.raises(RuntimeError, match="another"), memory.exhausted():
        raise RuntimeError("another")


def test_the_bar_says_when_the_compiler_is_at_work() -> None:
    from awr_exp.training.accelerate import _Guarded

    said = []
    with Bar("training", 10) as bar:
        guarded = _Guarded(lambda: {}, lambda: said.append(bar.progress.tasks[0].description) or {})
        guarded(), guarded()
        assert said == ["compiling, about 20 s, once", "training"]
        with compiling("a few seconds"):
            assert bar.progress.tasks[0].description == "compiling, a few seconds, once"
    with compiling("a few seconds"):
        assert bar.progress.tasks[0].description == "training"
