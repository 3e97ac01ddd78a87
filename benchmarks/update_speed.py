"""Our update against the script that people copy, side by side: `python benchmarks/update_speed.py`.

One process a thread count (threads cannot be changed cleanly inside one), rounds alternating between the
contenders, medians of the rounds. All arithmetic is float32.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from side_by_side import each_thread_count, ratio, wait
from torch import nn

from awr_exp.agents.awr import AWR
from awr_exp.data.schema import STORED, Schema
from awr_exp.data.transitions import Transitions
from awr_exp.math import weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP
from awr_exp.training.accelerate import accelerate
from awr_exp.training.learner import Learner
from awr_exp.training.schedules import FixedData
from awr_exp.types import DataInfo, Spec

OBS, ACTIONS, BATCH, ROWS, EPISODE = 17, 6, 256, 1_000_000, 1000
VALUE_ITERS, AT_ONCE = 5, 16
SPEC = Spec(OBS, ACTIONS, None, (-1.0,) * ACTIONS, (1.0,) * ACTIONS)


def plain_script(hidden: int, device: torch.device) -> Callable[[], None]:
    """Advantage-weighted regression the way single files have it."""
    rng = np.random.default_rng(0)
    data = {
        "obs": rng.standard_normal((ROWS, OBS), dtype=np.float32),
        "next_obs": rng.standard_normal((ROWS, OBS), dtype=np.float32),
        "action": rng.uniform(-1, 1, (ROWS, ACTIONS)).astype(np.float32),
        "reward": rng.standard_normal(ROWS, dtype=np.float32),
        "terminated": (rng.random(ROWS) < 1e-3).astype(np.float32),
    }

    def mlp(outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(OBS, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        ).to(device)

    critic, actor = mlp(1), mlp(ACTIONS)
    log_std = nn.Parameter(torch.zeros(ACTIONS, device=device))
    critic_optim = torch.optim.Adam(critic.parameters(), lr=3e-4)
    actor_optim = torch.optim.Adam([*actor.parameters(), log_std], lr=3e-4)

    def update() -> None:
        index = rng.integers(ROWS, size=BATCH)
        batch = {name: torch.as_tensor(array[index]).to(device) for name, array in data.items()}

        def target() -> torch.Tensor:
            with torch.no_grad():
                return batch["reward"] + 0.99 * (1 - batch["terminated"]) * critic(batch["next_obs"]).squeeze(-1)

        for _ in range(VALUE_ITERS):
            value_loss = (critic(batch["obs"]).squeeze(-1) - target()).pow(2).mean()
            critic_optim.zero_grad()
            value_loss.backward()
            critic_optim.step()
        with torch.no_grad():
            advantage = target() - critic(batch["obs"]).squeeze(-1)
            weight = (advantage / 0.3).exp().clamp(max=20.0)
        log_prob = torch.distributions.Normal(actor(batch["obs"]), log_std.exp()).log_prob(batch["action"]).sum(-1)
        actor_loss = -(weight * log_prob).mean()
        actor_optim.zero_grad()
        actor_loss.backward()
        actor_optim.step()
        for value in (value_loss, actor_loss, advantage.mean(), weight.mean()):
            value.item()

    return update


def random_data(device: torch.device) -> Transitions:
    lengths = torch.full((ROWS // EPISODE,), EPISODE)
    schema = Schema(SPEC, STORED)
    packed = torch.randn(ROWS + len(lengths), schema.width)
    schema.view(packed, "action").clamp_(-1, 1)
    for name in ("terminated", "truncated"):
        schema.view(packed, name).zero_()
    info = DataInfo("benchmark/random-v0", np.zeros(len(lengths)), "")
    return Transitions(packed, lengths, SPEC, info).to(device)


def ours(hidden: int, device: torch.device, compile: bool) -> Callable[[], None]:
    data = random_data(device)
    agent = AWR(
        SPEC, partial(MLP, hidden=(hidden, hidden)), heads.auto, [0],
        advantage=LambdaReturn(0.0), weighting=weights.exp_clip, value_iters=VALUE_ITERS, device=device,
    )  # fmt: skip
    step = accelerate(AWR.update, compile, 0, device)(agent)
    generator = torch.Generator(device).manual_seed(0)

    def update() -> None:
        step(data.sample(torch.randint(ROWS, (1, BATCH), generator=generator, device=device)))

    return update


def in_cpp(hidden: int, device: torch.device) -> Callable[[], None]:
    """AT_ONCE updates of a learner, as a trainer runs them."""
    data, schedule = random_data(device), FixedData(1000)
    agent = AWR(
        SPEC, partial(MLP, hidden=(hidden, hidden)), heads.auto, [0],
        advantage=LambdaReturn(0.0), weighting=weights.exp_clip, value_iters=VALUE_ITERS, device=device,
    )  # fmt: skip
    learner = Learner(agent, data, schedule, schedule.functions(0, True, device), BATCH)
    return lambda: learner.train(learner.step + AT_ONCE)


def products(hidden: int, device: torch.device) -> Callable[[], None]:
    """The bare matrix products of one update: what no implementation can undercut with these kernels."""
    x, h, grad = (torch.randn(BATCH, width, device=device) for width in (OBS, hidden, 1))
    first, second, last = (
        torch.randn(*shape, device=device) for shape in ((OBS, hidden), (hidden, hidden), (hidden, 1))
    )

    def forward() -> None:
        torch.mm(x, first), torch.mm(h, second), torch.mm(h, last)

    def backward() -> None:
        torch.mm(grad, last.T), torch.mm(h.T, grad), torch.mm(h, second.T), torch.mm(h.T, h), torch.mm(x.T, h)

    def update() -> None:
        for _ in range(2 * VALUE_ITERS + 2 + 1):
            forward()
        for _ in range(VALUE_ITERS + 1):
            backward()

    return update


def flop(hidden: int) -> int:
    """Of the matrix products of one update."""
    first, rest = 2 * BATCH * OBS * hidden, 2 * BATCH * (hidden * hidden + hidden)
    return (2 * VALUE_ITERS + 3) * (first + rest) + (VALUE_ITERS + 1) * (first + 2 * rest)


def measure(hidden: int, device: torch.device, rounds: int, seconds: float) -> None:
    contenders = {
        "plain script": (plain_script(hidden, device), 1),
        "ours, eager": (ours(hidden, device, False), 1),
        "ours, compiled": (ours(hidden, device, True), 1),
        "bare products": (products(hidden, device), 1),
    }
    if device.type == "cpu":
        contenders["ours, in C++"] = in_cpp(hidden, device), AT_ONCE
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for update, updates in contenders.values():
        for _ in range(AT_ONCE // updates):
            update()
    for _ in range(rounds):
        for name, (update, updates) in contenders.items():
            begun, count = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                for _ in range(AT_ONCE // updates):
                    update()
                count += AT_ONCE
                wait(device)
            rates[name].append(count / (time.perf_counter() - begun))
    where = (
        f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name()
    )
    print(f"hidden {hidden}, {where}, {flop(hidden) / 1e9:.2f} GFLOP an update")
    baseline = rates["plain script"]
    for name, found in rates.items():
        rate = statistics.median(found)
        speed = f"{ratio(found, baseline):5.2f} x plain"
        print(f"  {name:15} {rate:8.0f} updates/s  {speed}  {rate * flop(hidden) / 1e9:7.0f} GFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender in each round")
    each_thread_count(parser, measure_all)


def measure_all(options: argparse.Namespace) -> None:
    devices = ["cpu"] + ["cuda"] * (torch.cuda.is_available() and options.threads[0] == 1)
    for device in devices:
        for hidden in options.hidden:
            measure(hidden, torch.device(device), options.rounds, options.seconds)


if __name__ == "__main__":
    main()
