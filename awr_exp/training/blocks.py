"""Members trained in blocks that fit the cache, several blocks side by side, none far ahead of another.

One block of all members would stream every parameter through the memory at each step. Compiled updates leave
Python's lock, so blocks run on threads of one process, one core each: a better use of the cores than several threads
inside one small matrix product.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.seeding import draw_rows
from awr_exp.training.accelerate import Update
from awr_exp.training.means import Means

CACHE = 1_500_000
"""Bytes of parameters, their gradient and their moments that a block may hold: what one core keeps close."""
COPIES = 4
"""theta, its gradient and two moments."""
ROW_BLOCK = 64
"""Updates whose rows are drawn at once. Block b of a member depends on its seed and b alone: nothing to save."""


class Teammate(Protocol):
    """Some members that learn together, in steps of whatever a run is made of."""

    step: int
    turn: int
    """Steps between which a thread may change to another block."""

    def train(self, goal: int) -> None:
        """Learn until `step` is at least `goal`, or give up."""


def sizes(members: int, member_bytes: int, workers: int) -> list[int]:
    """How many members each block gets: as many as fit the cache, but a block for every worker.

    Blocks of one size share the compiled update, so an even split is taken where there is one not much smaller.
    """
    most = max(1, min(CACHE // max(1, member_bytes), members // min(workers, members)))
    even = next((size for size in range(most, most // 2, -1) if members % size == 0), None)
    if even:
        return [even] * (members // even)
    count = -(-members // most)
    return [members // count + (block < members % count) for block in range(count)]


def split(agent: Agent, workers: int) -> list[slice]:
    """The blocks of an agent's members; all in one on a GPU, which has no use for small ones."""
    if agent.device.type != "cpu":
        return [slice(0, agent.members)]
    numbers = sum(network.theta[0].numel() * network.theta.element_size() for network in agent.networks.values())
    ends = torch.tensor([0, *sizes(agent.members, COPIES * numbers, workers)]).cumsum(0).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


class Block:
    """Some members of an agent, their batches, and the sums of their metrics since the last report; steps: updates."""

    turn = 16

    def __init__(
        self,
        agent: Agent,
        members: slice,
        data: Transitions,
        accelerated: Callable[[Agent], Update],
        batch_size: int,
        refresh_interval: int,
    ) -> None:
        self.members, self.agent, self.data = members, agent.some(members), data
        self.learn = accelerated(self.agent)
        self.batch_size, self.refresh_interval = batch_size, refresh_interval
        self.step = 0
        self.target: Tensor | None = None
        self.rows: Tensor | None = None
        self.means = Means()

    def train(self, goal: int) -> None:
        """Update until `goal` updates are done."""
        while self.step < goal:
            self.train_once()

    def train_once(self) -> None:
        # Resumed with another estimator than before, it may have none.
        if (self.target is None and self.agent.whole_episodes) or self.step % self.refresh_interval == 0:
            self.target = self.fresh_target()
        if self.rows is None or self.step % ROW_BLOCK == 0:
            shape, names = (ROW_BLOCK, self.batch_size), (self.step // ROW_BLOCK,)
            self.rows = draw_rows(self.agent.seeds, names, len(self.data), shape, self.agent.device)
        self.means.add(self.learn(self.data.sample(self.rows[self.step % ROW_BLOCK], target=self.target)))
        self.step += 1

    def fresh_target(self) -> Tensor | None:
        targets = self.agent.targets(self.data) if self.agent.whole_episodes else None
        return None if targets is None else targets["target"]

    def read(self) -> list[dict[str, float]]:
        """Each member's mean metrics since the last call."""
        return self.means.read(self.agent.members)

    @property
    def summed(self) -> int:
        """Updates since the last report: each has every metric."""
        return next(iter(self.means.counts.values()), 0)

    def state(self, member: int) -> dict[str, Tensor]:
        """What a checkpoint of the agent's member needs beside the agent's state."""
        row = member - self.members.start
        state = self.means.state(row)
        return state if self.target is None else state | {"target": self.target[row : row + 1]}

    def load(self, update: int, summed: int, state: dict[str, Tensor]) -> None:
        """Go on from the `state` of all of the agent's members. Raises ValueError where it does not fit the data."""
        mine = {name: tensor[self.members].to(self.agent.device) for name, tensor in state.items()}
        self.step, target = update, mine.pop("target", None)
        self.target = target if self.agent.whole_episodes else None
        if self.target is not None and self.target.shape != (self.agent.members, len(self.data)):
            raise ValueError("its value targets are not one number a transition")
        self.means.load(mine, summed)


class Team:
    """Threads that train blocks, a turn at a time."""

    def __init__(self, blocks: Sequence[Teammate], threads: int) -> None:
        self.blocks = blocks
        self.workers = min(len(blocks), threads)
        self.threads = threads // self.workers
        self.pool = (
            ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(self.threads,))
            if self.workers > 1
            else None
        )

    def __enter__(self) -> "Team":
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.before)
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def train(self, goal: int, stopped: Callable[[], object], progress: Callable[[int], None]) -> int:
        """Bring all blocks to the same step and return it: at least `goal`, or less once `stopped` is true.

        A block that gives up stays behind.
        """
        waiting, lock = deque(self.blocks), Lock()
        furthest = max(block.step for block in self.blocks)

        def take() -> tuple[Teammate, int] | None:
            nonlocal goal, furthest
            with lock:
                if stopped():
                    # Nobody begins anything new, but the others catch up with whoever is ahead.
                    goal = furthest
                while waiting:
                    block = waiting.popleft()
                    if block.step < goal:
                        turn = min(block.step + block.turn, goal)
                        furthest = max(furthest, turn)
                        return block, turn
                return None

        def work() -> None:
            while taken := take():
                block, turn = taken
                block.train(turn)
                if block.step >= turn:
                    waiting.append(block)
                progress(min(block.step for block in self.blocks))

        if self.pool is None:
            work()
        else:
            for done in [self.pool.submit(work) for _ in range(self.workers)]:
                done.result()
        return max(block.step for block in self.blocks)
