"""Learners trained side by side, a turn at a time, none far ahead of another, and how members are divided among them.

Compiled updates leave Python's lock, so that learners run on threads of one process, one core each: a better use of
the cores than several threads inside one small matrix product.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import torch

from awr_exp.agents.agent import Agent
from awr_exp.agents.members import Members
from awr_exp.training.learner import Learner

CACHE = 1_500_000
"""Bytes of parameters, their gradient and their moments that a learner may hold: what one core keeps close."""
COPIES = 4
"""What training holds of the size of the parameters: theta, its gradient and two moments."""
FEW = 8
"""Members a thread from which one more or less makes little difference."""


def parts_by_cache(members: int, member_bytes: int, workers: int) -> list[slice]:
    """Members in parts that fit the cache, and one for every worker at least.

    Learners of one size share the compiled update, so an even split is taken where there is one not much smaller.
    """
    most = max(1, min(CACHE // max(1, member_bytes), members // min(workers, members)))
    even = next((size for size in range(most, most // 2, -1) if members % size == 0), most)
    return _parts(members, -(-members // even))


def by_cache(agent: Members, workers: int) -> list[slice]:
    """Members in parts whose parameters stay in the cache; all in one on a GPU, which has no use for small ones.

    One part of all members would stream every parameter through the memory at each step.
    """
    if agent.device.type != "cpu":
        return [slice(0, agent.members)]
    numbers = sum(network.theta[0].numel() * network.theta.element_size() for network in agent.networks.values())
    return parts_by_cache(agent.members, COPIES * numbers, workers)


def by_thread(agent: Agent, threads: int) -> list[slice]:
    """Members in parts, one a thread, since each steps environments of its own; all in one on a GPU.

    A few members that do not divide evenly are a part each, which threads take in turns: none waits for another's two.
    """
    count = min(threads, agent.members) if agent.device.type == "cpu" else 1
    if agent.members % count and agent.members < FEW * count:
        count = agent.members
    return _parts(agent.members, count)


def _parts(members: int, count: int) -> list[slice]:
    """Members in so many parts of about the same size."""
    return [slice(part * members // count, (part + 1) * members // count) for part in range(count)]


class Team:
    """Threads that train learners, a turn at a time."""

    def __init__(self, learners: Sequence[Learner], threads: int) -> None:
        self.learners = learners
        self.workers = min(len(learners), threads)
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
        """Bring all learners to the same step and return it: at least `goal`, or less once `stopped` is true.

        A learner that gives up stays behind.
        """
        waiting, lock = deque(self.learners), Lock()
        furthest = max(learner.step for learner in self.learners)

        def take() -> tuple[Learner, int] | None:
            nonlocal goal, furthest
            with lock:
                if stopped():
                    # Nobody begins anything new, but the others catch up with whoever is ahead.
                    goal = furthest
                while waiting:
                    learner = waiting.popleft()
                    if learner.step < goal:
                        turn = min(learner.step + learner.schedule.pace, goal)
                        furthest = max(furthest, turn)
                        return learner, turn
                return None

        def work() -> None:
            while taken := take():
                learner, turn = taken
                learner.train(turn)
                if learner.step >= turn:
                    waiting.append(learner)
                progress(min(learner.step for learner in self.learners))

        if self.pool is None:
            work()
        else:
            for done in [self.pool.submit(work) for _ in range(self.workers)]:
                done.result()
        return max(learner.step for learner in self.learners)
