"""Fitted Q evaluation against exact solutions of small Markov chains, and as a part of runs."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from awr_exp.agents.fitted_q import Estimate, FittedQ, first_rows
from awr_exp.data.episodes import from_episodes
from awr_exp.data.transitions import Transitions
from awr_exp.networks.mlp import MLP
from awr_exp.training.fqe import FQE, bootstrap
from awr_exp.types import Spec

STATES, ACTIONS = 5, 2
CHAIN = Spec(obs_dim=STATES, num_actions=ACTIONS)
NETWORK = partial(MLP, hidden=(32,), output_scale=0.01)
POLICIES = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]])


@dataclass
class Table:
    """Acts by a table [K, STATES] of actions."""

    actions: Tensor

    def act(self, obs: Tensor) -> Tensor:
        return self.actions.gather(1, obs.argmax(-1))


def chain(terminates: bool, seed: int = 0, episodes: int = 150) -> Transitions:
    """Episodes of a random chain under uniform actions; its last state is an end, or goes on as others do."""
    rng = np.random.default_rng(seed)
    after = rng.dirichlet(np.full(STATES, 0.5), (STATES, ACTIONS))
    reward = rng.normal(-3, 2, (STATES, ACTIONS))
    found = []
    for _ in range(episodes):
        seen, actions, rewards, ended = [int(rng.integers(STATES - 1))], [], [], False
        while len(actions) < 15 and not ended:
            actions.append(int(rng.integers(ACTIONS)))
            rewards.append(reward[seen[-1], actions[-1]])
            seen.append(int(rng.choice(STATES, p=after[seen[-1], actions[-1]])))
            ended = terminates and seen[-1] == STATES - 1
        obs = np.eye(STATES, dtype=np.float32)[seen]
        found.append({"observations": obs, "actions": actions, "rewards": rewards, "terminated": ended})
    return from_episodes("chain", CHAIN, found)


def exact(data: Transitions, policy: Tensor, gamma: float) -> Tensor:
    """Q [STATES, ACTIONS] of the chain that the data are samples of as often as they say, by linear algebra."""
    batch = data.sample(torch.arange(len(data)).unsqueeze(0))
    row = batch.obs[0].argmax(-1) * ACTIONS + batch.action[0]
    after = batch.next_obs[0].argmax(-1)
    count = torch.zeros(STATES * ACTIONS).index_add(0, row, torch.ones(len(data))).double().clamp(min=1)
    step = torch.zeros(STATES * ACTIONS, STATES * ACTIONS, dtype=torch.float64)
    step.index_put_((row, after * ACTIONS + policy[after]), (~batch.terminated[0]).double(), accumulate=True)
    reward = torch.zeros(STATES * ACTIONS, dtype=torch.float64).index_add(0, row, batch.reward[0].double())
    matrix = torch.eye(len(count), dtype=torch.float64) - gamma * step / count.unsqueeze(1)
    return torch.linalg.solve(matrix, reward / count).view(STATES, ACTIONS)


def fitted(data: Transitions, policies: Tensor, gamma: Any, updates: int, seeds: Any = (0, 1), **options: Any) -> FittedQ:
    q = FittedQ(CHAIN, NETWORK, seeds, gamma, **({"lr": 3e-3, "dtype": torch.float64} | options))
    q.begin(data, Table(policies))
    learn(q, data, updates)
    return q


def learn(q: FittedQ, data: Transitions, updates: int) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in q.seeds]
    member = torch.arange(q.members).unsqueeze(1)
    for _ in range(updates):
        rows = torch.stack([torch.randint(len(data), (128,), generator=own) for own in generators])
        q.update(data.sample(rows), q.next_action[member, rows])


def at_starts(data: Transitions, q: Tensor, policy: Tensor) -> Tensor:
    """Q(s, pi(s)) of the first state of each episode."""
    first = data.sample(first_rows(data).unsqueeze(0)).obs[0].argmax(-1)
    return q[first, policy[first]]


@pytest.mark.parametrize("terminates", [False, True])
def test_the_estimate_is_the_exact_solution_of_the_chain(terminates: bool) -> None:
    import time
    data = chain(terminates)
    t=time.time()
    found = fitted(data, POLICIES, gamma := 0.95, 1_000).estimate(data)
    print(time.time()-t)
    for member, policy in enumerate(POLICIES):
        truth = at_starts(data, exact(data, policy, gamma), policy)
        print(found.value[member].mean(), truth.mean(), exact(data, policy, gamma), (found.value[member]-truth).abs().max())
        assert_close(found.value[member].mean(), truth.mean(), rtol=0.02, atol=0)
