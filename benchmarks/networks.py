"""Updates of AWR with each kind of network against the script that people copy: `python benchmarks/networks.py`.

One process a thread count, rounds alternating between the contenders, medians of the rounds. All arithmetic is float32,
and so are the layers of both sides: what differs is how they are driven.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from side_by_side import each_thread_count, ratio, wait
from torch import Tensor, nn

from awr_exp.agents.awr import AWR
from awr_exp.data.schema import STORED, Schema
from awr_exp.data.transitions import Transitions
from awr_exp.layout import Entry
from awr_exp.math import weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks import heads
from awr_exp.networks.convolutions import CNN, Impala
from awr_exp.networks.images import Images
from awr_exp.networks.mlp import MLP
from awr_exp.training.accelerate import accelerate
from awr_exp.types import DataInfo, Spec

ACTIONS, ROWS, EPISODE = 4, 5_000, 500


@dataclass(frozen=True)
class Kind:
    """A kind of network: ours, the plain layers of the same, the observation that it is measured on, and the batch."""

    ours: Callable[..., Any]
    plain: Callable[[int, int], nn.Module]
    shape: tuple[int, ...]
    batch: int

    @property
    def spec(self) -> Spec:
        size = int(np.prod(self.shape))
        parts = (Entry((), self.shape, dtype="uint8"),) if len(self.shape) > 1 else ()
        return Spec(size, num_actions=ACTIONS, observation=parts)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.two(torch.relu(self.one(torch.relu(x))))
        return found


def plain_cnn(filters: Sequence[int], kernels: Sequence[int], strides: Sequence[int], flat: int, wide: int) -> Any:
    def make(channels: int, outputs: int) -> nn.Module:
        sizes = zip([channels, *filters], filters, kernels, strides, strict=False)
        layers = [layer for size in sizes for layer in (nn.Conv2d(*size), nn.ReLU())]
        return nn.Sequential(*layers, nn.Flatten(), *tail(flat, wide, outputs))

    return make


def plain_impala(widths: Sequence[int], flat: int, wide: int) -> Any:
    def make(channels: int, outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for before, width in zip([channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(width), Residual(width)]
        return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), *tail(flat, wide, outputs))

    return make


def tail(flat: int, wide: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(flat, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, outputs)]


def plain_mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs))


def images(encoder: Any, wide: int) -> Any:
    return partial(Images, encoder=encoder, trunk=partial(MLP, hidden=(wide,)), features=wide)


SMALL: dict[str, Any] = {"filters": (16, 32, 32), "kernels": (4, 3, 3), "strides": (2, 2, 1)}
CLASSIC: dict[str, Any] = {"filters": (32, 64, 64), "kernels": (8, 4, 3), "strides": (4, 2, 1)}
KINDS = {
    "mlp": Kind(partial(MLP, hidden=(256, 256)), plain_mlp, (17,), 256),
    "cnn_small": Kind(
        images(partial(CNN, **SMALL), 128), plain_cnn(**SMALL, flat=800, wide=128), (3, 32, 32), 128
    ),
    "cnn": Kind(images(partial(CNN, **CLASSIC), 256), plain_cnn(**CLASSIC, flat=3136, wide=256), (4, 84, 84), 32),
    "impala": Kind(images(Impala, 256), plain_impala((16, 32, 32), flat=32 * 64, wide=256), (3, 64, 64), 32),
}  # fmt: skip


def arrays(kind: Kind) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    bytes_ = len(kind.shape) > 1
    obs = rng.integers(0, 256, (ROWS, *kind.shape), np.uint8) if bytes_ else rng.standard_normal((ROWS, *kind.shape))
    return {
        "obs": obs if bytes_ else obs.astype(np.float32),
        "action": rng.integers(ACTIONS, size=ROWS),
        "reward": rng.standard_normal(ROWS).astype(np.float32),
        "terminated": (np.arange(ROWS) % EPISODE == EPISODE - 1).astype(np.float32),
    }


def plain_script(kind: Kind, device: torch.device) -> Callable[[], None]:
    """The way single files have it."""
    data, rng = arrays(kind), np.random.default_rng(1)
    critic, actor = (kind.plain(kind.shape[0], outputs).to(device) for outputs in (1, ACTIONS))
    critic_optim = torch.optim.Adam(critic.parameters(), lr=3e-4)
    actor_optim = torch.optim.Adam(actor.parameters(), lr=3e-4)

    def seen(rows: Any) -> Tensor:
        obs = torch.as_tensor(data["obs"][rows]).to(device)
        return obs.float() / 255 if len(kind.shape) > 1 else obs

    def update() -> None:
        rows = rng.integers(ROWS - 1, size=kind.batch)
        obs, next_obs = seen(rows), seen(rows + 1)
        action, reward, over = (torch.as_tensor(data[n][rows]).to(device) for n in ("action", "reward", "terminated"))
        with torch.no_grad():
            target = reward + 0.99 * (1 - over) * critic(next_obs).squeeze(-1)
        value_loss = (critic(obs).squeeze(-1) - target).pow(2).mean()
        critic_optim.zero_grad()
        value_loss.backward()
        critic_optim.step()
        with torch.no_grad():
            target = reward + 0.99 * (1 - over) * critic(next_obs).squeeze(-1)
            weight = ((target - critic(obs).squeeze(-1)) / 0.3).exp().clamp(max=20.0)
        log_prob = torch.distributions.Categorical(logits=actor(obs)).log_prob(action)
        actor_loss = -(weight * log_prob).mean()
        actor_optim.zero_grad()
        actor_loss.backward()
        actor_optim.step()
        value_loss.item(), actor_loss.item()

    return update


def ours(kind: Kind, device: torch.device, compile: bool) -> Callable[[], None]:
    data, schema = arrays(kind), Schema(kind.spec, STORED)
    columns = {name: torch.as_tensor(column) for name, column in data.items()}
    columns["obs"] = columns["obs"].flatten(1)
    columns["truncated"] = torch.zeros(ROWS)
    rows = schema.write(torch.zeros(ROWS, schema.width), columns).unflatten(0, (-1, EPISODE))
    packed = torch.cat([rows, rows[:, -1:]], 1).flatten(0, 1)
    lengths = torch.full((ROWS // EPISODE,), EPISODE)
    info = DataInfo("benchmark/random-v0", np.zeros(len(lengths)), "")
    known = Transitions(packed, lengths, kind.spec, info).to(device)
    agent = AWR(
        kind.spec, kind.ours, heads.auto, [0],
        advantage=LambdaReturn(0.0), weighting=weights.exp_clip, value_iters=1, device=device,
    )  # fmt: skip
    step = accelerate(AWR.update, compile, 0, device)(agent)
    generator = torch.Generator(device).manual_seed(0)

    def update() -> None:
        step(known.sample(torch.randint(ROWS, (1, kind.batch), generator=generator, device=device)))

    return update


def measure(name: str, device: torch.device, rounds: int, seconds: float) -> None:
    kind = KINDS[name]
    contenders = {
        "plain script": plain_script(kind, device),
        "ours, eager": ours(kind, device, False),
        "ours, compiled": ours(kind, device, True),
    }
    rates: dict[str, list[float]] = {contender: [] for contender in contenders}
    for update in contenders.values():
        update(), update()
    for _ in range(rounds):
        for contender, update in contenders.items():
            begun, count = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                update()
                wait(device)
                count += 1
            rates[contender].append(count / (time.perf_counter() - begun))
    where = f"{device.type}, {torch.get_num_threads()} threads"
    print(f"network={name}, observations of {list(kind.shape)}, batches of {kind.batch}, {where}")
    for contender, found in rates.items():
        speed = ratio(found, rates["plain script"])
        print(f"  {contender:15} {statistics.median(found):8.1f} updates/s  {speed:5.2f} x plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contender in each round")
    parser.add_argument("--device", default="cpu")

    def measure_all(options: argparse.Namespace) -> None:
        for name in options.networks:
            measure(name, torch.device(options.device), options.rounds, options.seconds)

    each_thread_count(parser, measure_all)


if __name__ == "__main__":
    main()
