"""Gradient steps of `schedule=phased` with the published networks, side by side: `python benchmarks/step_speed.py`.

A step of the critic and one of the actor, by the script that people copy, by the agent as it is, compiled by
torch.compile, and in C++; and the matrix products of such a step alone, by the same library as PyTorch's. One process a
thread count, rounds alternating between the contenders, medians of the rounds. All arithmetic is float32.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from side_by_side import each_thread_count, ratio
from torch import nn

from awr_exp.agents.awr import AWR
from awr_exp.data.replay import Replay
from awr_exp.math import weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.math.optimizers import momentum
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP
from awr_exp.training import native
from awr_exp.training import steps as steps_of
from awr_exp.training.accelerate import Update, accelerate
from awr_exp.types import Spec

OBS, ACTIONS, BATCH, ROWS, STD = 17, 6, 256, 50_000, 0.4
STEPS = 64
"""In a call: a multiple of what is compiled as one."""
SPEC = Spec(OBS, ACTIONS, None, (-1.0,) * ACTIONS, (1.0,) * ACTIONS)
Call = Callable[[], object]


def plain_script(hidden: list[int]) -> dict[str, Call]:
    """The way single files have it."""
    obs, action, number = torch.randn(ROWS, OBS), torch.rand(ROWS, ACTIONS), torch.rand(ROWS)

    def steps(outputs: int, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Call:
        sizes = [OBS, *hidden]
        layers = [layer for pair in zip(sizes, hidden, strict=False) for layer in (nn.Linear(*pair), nn.ReLU())]
        network = nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))
        optimizer = torch.optim.SGD(network.parameters(), lr=5e-5, momentum=0.9)

        def call() -> None:
            for _ in range(STEPS):
                rows = torch.randint(ROWS, (BATCH,))
                optimizer.zero_grad()
                loss(network(obs[rows]), rows).backward()
                optimizer.step()

        return call

    def actor_loss(mean: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        log_prob = torch.distributions.Normal(mean, STD).log_prob(action[rows]).sum(-1)
        outside = mean - mean.clamp(-1, 1)
        return -(number[rows] * log_prob).mean() + 5 * outside.square().sum(-1).mean()

    return {
        "critic": steps(1, lambda value, rows: (value.squeeze(-1) - number[rows]).square().mean()),
        "actor": steps(ACTIONS, actor_loss),
    }


def ours(hidden: list[int], way: str) -> dict[str, Call]:
    head = partial(heads.Gaussian, std=STD, bound_penalty=10.0)
    agent = AWR(
        SPEC, partial(MLP, hidden=hidden), head, [0],
        advantage=LambdaReturn(0.95), weighting=weights.exp_clip, optimizer=momentum, actor_lr=5e-5, critic_lr=5e-3,
    )  # fmt: skip
    replay = Replay(SPEC, 1, 1, ROWS)
    replay.ring.normal_()
    replay.schema.view(replay.ring, "action").clamp_(-1, 1)
    replay.added = ROWS
    number = torch.rand(1, ROWS)

    def steps(name: str) -> Call:
        learn: Update
        if way == "in C++":
            learn = partial(getattr(native, f"{name}_steps"), agent, replay)
        else:
            learn = accelerate(getattr(steps_of, f"{name}_steps"), way == "compiled", 0, torch.device("cpu"))(
                agent, replay
            )
        size = STEPS if way == "in C++" else steps_of.AT_ONCE

        def call() -> None:
            for some in torch.randint(ROWS, (STEPS, 1, BATCH)).split(size):
                learn(some, torch.empty(*some.shape, 0), number)

        return call

    return {name: steps(name) for name in ("critic", "actor")}


def products(hidden: list[int]) -> dict[str, Call]:
    """Forward, of the gradients of weights, and of the gradients of all layers' inputs but the first's."""

    def steps(outputs: int) -> Call:
        sizes = [OBS, *hidden, outputs]
        x = [torch.randn(1, BATCH, size) for size in sizes]
        w = [torch.randn(1, *pair) for pair in pairwise(sizes)]

        def call() -> None:
            for _ in range(STEPS):
                for layer, weight in enumerate(w):
                    torch.bmm(x[layer], weight), torch.bmm(x[layer].mT, x[layer + 1])
                    if layer:
                        torch.bmm(x[layer + 1], weight.mT)

        return call

    return {"critic": steps(1), "actor": steps(ACTIONS)}


def measure(hidden: list[int], rounds: int) -> None:
    contenders = {
        "plain script": plain_script(hidden),
        **{f"ours, {way}": ours(hidden, way) for way in ("eager", "compiled", "in C++")},
        "bare products": products(hidden),
    }
    print(f"hidden {hidden}, {torch.get_num_threads()} threads: microseconds a step")
    for name in ("critic", "actor"):
        times: dict[str, list[float]] = {contender: [] for contender in contenders}
        for calls in contenders.values():
            calls[name]()
        for _ in range(rounds):
            for contender, calls in contenders.items():
                begun = time.perf_counter()
                for _ in range(5):
                    calls[name]()
                times[contender].append((time.perf_counter() - begun) / (5 * STEPS) * 1e6)
        for contender, own in times.items():
            speed = ratio(times["plain script"], own)
            print(f"  {name:6} {contender:15} {statistics.median(own):7.0f}  {speed:5.2f} x plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 64])
    each_thread_count(parser, lambda options: measure(options.hidden, options.rounds))


if __name__ == "__main__":
    main()
