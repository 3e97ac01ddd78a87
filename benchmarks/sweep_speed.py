"""A sweep's price: `python benchmarks/sweep_speed.py` (the bare update against K), `--commands` (whole command lines).

Bare: member-updates a second of blocks of K members, beside the plain script that is usually run K times, and JAX (jit,
scan, vmap) where it is installed. Commands: fused launcher, basic launcher and joblib with a process a core, start-up
included. One process a contender and round, rounds alternating, medians.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from side_by_side import wait
from update_speed import ACTIONS, BATCH, OBS, ROWS, SPEC, VALUE_ITERS, plain_script, random_data

from awr_exp.agents.awr import AWR
from awr_exp.machine import cores
from awr_exp.math import weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP
from awr_exp.training import team
from awr_exp.training.accelerate import start
from awr_exp.training.learner import Learner
from awr_exp.training.schedules import FixedData

CORES = cores()
LAUNCHERS = {
    "fused": ["hydra/launcher=fused"],
    "basic": ["hydra/launcher=basic"],
    "joblib": ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={CORES}"],
}


def plain(hidden: int, members: int, device: torch.device) -> Callable[[float], float]:
    """The plain script, one run: K of them take K times as long."""
    update = plain_script(hidden, device)

    def run(seconds: float) -> float:
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            update()
            count += 1
        return count / (time.perf_counter() - begun)

    return run


def ours(hidden: int, members: int, device: torch.device) -> Callable[[float], float]:
    """Learners of a stacked, compiled agent, as the trainer runs them."""
    agent = AWR(
        SPEC, partial(MLP, hidden=(hidden, hidden)), heads.auto, list(range(members)),
        advantage=LambdaReturn(0.0), weighting=weights.exp_clip, value_iters=VALUE_ITERS, device=device,
    )  # fmt: skip
    data, schedule = random_data(device), FixedData(1000)
    functions = schedule.functions(0, True, device)
    parts = [Learner(agent.shard(rows), data, schedule, functions, BATCH) for rows in team.by_cache(agent, CORES)]
    threads = team.Team(parts, CORES)
    done = 0

    def run(seconds: float) -> float:
        nonlocal done
        begun, before = time.perf_counter(), done
        while time.perf_counter() - begun < seconds:
            done = threads.train(done + max(1, 64 // members) * schedule.pace, lambda: False, lambda _: None)
            wait(device)
        return (done - before) * members / (time.perf_counter() - begun)

    threads.__enter__()
    return run


def jax_script(hidden: int, members: int, device: torch.device) -> Callable[[float], float]:
    """The same update in JAX, K members by vmap, 50 updates a call by scan."""
    import jax
    import jax.numpy as jnp

    def network(params: list, x: "jax.Array") -> "jax.Array":
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = params[-1]
        return x @ weight + bias

    def start(key: "jax.Array", sizes: tuple[int, ...]) -> list:
        keys = jax.random.split(key, len(sizes))
        shapes = zip(keys, sizes, sizes[1:], strict=False)
        return [(jax.random.normal(k, (m, n)) / m**0.5, jnp.zeros(n)) for k, m, n in shapes]

    def adam(params: object, grads: object, state: tuple) -> tuple:
        mean, square, step = state
        step = step + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, grads)
        rate, correction = 3e-4 / (1 - 0.9**step), 1 / jnp.sqrt(1 - 0.999**step)
        new = jax.tree.map(lambda p, m, s: p - rate * m / (jnp.sqrt(s) * correction + 1e-8), params, mean, square)
        return new, (mean, square, step)

    def fresh(params: object) -> tuple:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros, jnp.zeros(())

    key = jax.random.PRNGKey(0)
    data = jax.random.normal(key, (ROWS, OBS + ACTIONS + 2))

    def update(carry: tuple, key: "jax.Array") -> tuple:
        critic, critic_state, actor, actor_state, beta = carry
        index = jax.random.randint(key, (BATCH,), 0, ROWS - 1)
        row, next_obs = data[index], data[index + 1, :OBS]
        obs, action, reward = row[:, :OBS], row[:, OBS : OBS + ACTIONS], row[:, -2]

        def value(params: list, x: "jax.Array") -> "jax.Array":
            return network(params, x)[:, 0]

        for _ in range(VALUE_ITERS):
            target = reward + 0.99 * value(critic, next_obs)
            grads = jax.grad(lambda p, t=target: ((value(p, obs) - t) ** 2).mean())(critic)
            critic, critic_state = adam(critic, grads, critic_state)
        advantage = reward + 0.99 * value(critic, next_obs) - value(critic, obs)
        weight = jnp.exp(jnp.minimum(advantage / beta, jnp.log(20.0)))

        def loss(params: tuple) -> "jax.Array":
            layers, log_std = params
            z = (action - network(layers, obs)) / jnp.exp(log_std)
            return (weight * (0.5 * z * z + log_std).sum(-1)).mean()

        actor, actor_state = adam(actor, jax.grad(loss)(actor), actor_state)
        return (critic, critic_state, actor, actor_state, beta), advantage.mean()

    def member(key: "jax.Array", beta: "jax.Array") -> tuple:
        critic = start(key, (OBS, hidden, hidden, 1))
        actor = (start(key, (OBS, hidden, hidden, ACTIONS)), jnp.zeros(ACTIONS))
        return critic, fresh(critic), actor, fresh(actor), beta

    carry = jax.vmap(member)(jax.random.split(key, members), jnp.linspace(0.1, 3, members))
    steps = jax.jit(jax.vmap(lambda carry, keys: jax.lax.scan(update, carry, keys)))
    calls = 0

    def run(seconds: float) -> float:
        nonlocal carry, calls
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            calls += 1
            keys = jax.random.split(jax.random.PRNGKey(calls), (members, 50))
            carry, _ = jax.block_until_ready(steps(carry, keys))
            count += 50 * members
        return count / (time.perf_counter() - begun)

    return run


CONTENDERS = {"plain": plain, "ours": ours, "jax": jax_script}


def one(contender: str, hidden: int, members: int, seconds: float, name: str) -> None:
    """Measure in this process and print member-updates a second and the peak memory in MB, the GPU's if on one."""
    device = start(name, CORES)
    run = CONTENDERS[contender](hidden, members, device)
    run(0.1)
    rate = run(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(rate, (torch.cuda.max_memory_allocated() if device.type == "cuda" else peak) / 2**20)


def bare(hiddens: list[int], counts: list[int], rounds: int, seconds: float, device: str) -> None:
    for hidden in hiddens:
        names = ["ours", "jax"] if device == "cpu" and find_spec("jax") else ["ours"]
        contenders = [("plain", 1)] + [(name, members) for members in counts for name in names]
        found: dict[tuple[str, int], list[tuple[float, float]]] = {contender: [] for contender in contenders}
        for _ in range(rounds):
            for name, members in contenders:
                command = [sys.executable, __file__, "--one", name, str(hidden), str(members), str(seconds), device]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                rate, memory = map(float, output.split()[-2:])
                found[name, members].append((rate, memory))
        plain_rates = [rate for rate, _ in found["plain", 1]]
        print(f"hidden {hidden}, {device}, {CORES} cores")
        for (name, members), values in found.items():
            ratio = statistics.median(rate / base for (rate, _), base in zip(values, plain_rates, strict=True))
            rate, memory = (statistics.median(column) for column in zip(*values, strict=True))
            figures = f"{rate:7.0f} member-updates/s  {ratio:5.2f} x plain  {memory:6.0f} MB"
            print(f"  {name:6} K={members:<3} {figures}", flush=True)


def command(launcher: list[str], hidden: int, members: int, updates: int, cold: bool) -> float:
    """Seconds that the command line of a sweep takes, with a compiler's cache that is warm, or empty."""
    with tempfile.TemporaryDirectory() as folder:
        line = [
            sys.executable, "-m", "awr_exp.main", "-m", f"seed=range({members})", "logger=jsonl",
            f"network.hidden=[{hidden},{hidden}]", f"trainer.updates={updates}", "trainer.compile=true",
            f"hydra.sweep.dir={folder}/sweep", *launcher,
        ]  # fmt: skip
        cache = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache"} if cold else {}
        begun = time.perf_counter()
        subprocess.run(line, capture_output=True, check=True, env=os.environ | cache)
        return time.perf_counter() - begun


def commands(hiddens: list[int], counts: list[int], rounds: int, updates: int, names: list[str], cold: bool) -> None:
    launchers = {name: LAUNCHERS[name] for name in names}
    for hidden in hiddens:
        for members in counts:
            found: dict[str, list[float]] = {name: [] for name in launchers}
            for number in range(rounds + (not cold)):
                for name, launcher in launchers.items():
                    # The first round only warms the cache.
                    warming = number == 0 and not cold
                    seconds = command(launcher, hidden, members, 1 if warming else updates, cold)
                    if not warming:
                        found[name].append(seconds)
            state = "cold" if cold else "warm"
            print(f"hidden {hidden}, K={members}, {updates} updates, {CORES} cores, compiler's cache {state}")
            for name, times in found.items():
                ratio = statistics.median(other / mine for mine, other in zip(found[names[0]], times, strict=True))
                print(f"  {name:7} {statistics.median(times):7.1f} s  {ratio:5.2f} x {names[0]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 3, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each contender in each round")
    parser.add_argument("--commands", action="store_true", help="time whole command lines instead of the update")
    parser.add_argument("--updates", type=int, default=6000, help="of each job of a command line")
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    parser.add_argument("--cold", action="store_true", help="with an empty compiler's cache for each command line")
    parser.add_argument("--device", default="cpu", help="of the update, cpu or cuda; JAX is left out on the latter")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, hidden, members, seconds, device = options.one
        one(name, int(hidden), int(members), float(seconds), device)
    elif options.commands:
        commands(options.hidden, options.members, options.rounds, options.updates, options.launchers, options.cold)
    else:
        bare(options.hidden, options.members, options.rounds, options.seconds, options.device)


if __name__ == "__main__":
    main()
