"""What a data set has for a policy to learn: how much better its best episodes are, and how its steps go."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data.transitions import Transitions
from awr_exp.math.likeness import Likeness
from awr_exp.networks.actions import ActionInputs
from awr_exp.seeding import some
from awr_exp.types import RewardUnit, Spec

EPISODES = 1_000
"""Episodes that are looked at, of evenly spaced places."""
FEWEST = 10
"""Episodes of which it makes sense to speak of the best tenth, and the neighbours of a start."""
STEPS = 4_096
"""Steps that are looked at."""
MANY = 500
"""Steps that a model of how observations change is learnt from at the least."""
SHIFTS = {"own": 0, "before": -1, "after": 1}
"""The steps whose actions may explain a change, by their distance in time."""
COLUMNS = ("reward", "terminated")
PIECE = 2**20
"""Steps that are looked at in one piece."""
WIDEST = 500
"""Numbers of an observation beyond which changes of it are not learnt, as those of images."""


def coverage(data: Transitions) -> dict[str, float]:
    """How much better the best tenth of the episodes is than the mean, as far as its starts do not explain it.

    `coverage` is its lead, and `reach` the score that this lead adds up to with the mean's. Their unit is the way from
    the data's random to its expert reference; without these, there is no reach, and the unit of coverage is the mean
    size of a return. Empty where there are too few episodes to say so, all returns are 0, or copies of them have other
    goals.
    """
    info = data.info
    chosen = np.linspace(0, info.episodes - 1, min(EPISODES, info.episodes)).astype(np.int64)
    if len(chosen) < FEWEST or info.hindsight:
        return {}
    returns = info.episode_returns[chosen]
    # What episodes from near starts return, too, is no merit of the actions; but neighbours may also be bad by chance.
    lead = min(_lead(returns), _lead(returns - _of_neighbours(_starts(data, chosen), returns)))
    low, high = (info.normalized_score(end) for end in (0.0, 1.0))
    if low is None or high is None:
        size = float(np.abs(returns).mean())
        return {"coverage": lead / size} if size else {}
    lead *= high - low
    return {"coverage": lead, "reach": low + (high - low) * info.return_mean + lead}


def _lead(values: NDArray[np.float64]) -> float:
    """By how much the mean of the best tenth is better than that of all."""
    return float(np.sort(values)[-len(values) // FEWEST :].mean() - values.mean())


def _starts(data: Transitions, chosen: NDArray[np.int64]) -> Tensor:
    """The normalised first observations of episodes."""
    mean, std = data.obs_statistics()
    rows = data.lie.begins[data.whole[torch.as_tensor(chosen)].to(data.lie.begins.device)]
    return (data.seen(rows).to(mean) - mean) / std


def _of_neighbours(places: Tensor, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean value of the nearest other places."""
    nearest = torch.cdist(places, places).fill_diagonal_(torch.inf).topk(FEWEST - 1, largest=False).indices
    means: NDArray[np.float64] = values[nearest.cpu().numpy()].mean(1)
    return means


def about_rewards(parts: Iterable[Sequence[Tensor]], unit: RewardUnit, online: bool) -> str | None:
    """A sentence on rewards [n], in this unit, that are all alike, which come in parts with their `terminated` [n].

    They are no fault where episodes terminate: how soon is then what there is to learn.
    """
    low, high, ended = math.inf, -math.inf, False
    for reward, terminated in parts:
        if reward.numel():
            low, high = min(low, float(reward.min())), max(high, float(reward.max()))
            ended = ended or bool(terminated.any())
        # What follows need not be read.
        if low < high or (ended and low != 0):
            return None
    if low > high:
        return None
    every = f"all rewards{' so far' if online else ''} are {float(unit.own(torch.tensor(low))) + 0.0:g}"
    outcome = "nothing is learnt until one differs" if online else "nothing is to be gained over behaviour cloning"
    return f"{every}, so that no action is better than another and {outcome}: check where they come from"


def of_data(data: Transitions) -> str | None:
    """What `about_rewards` says of a data set."""
    columns = ([data.column(name, begin, begin + PIECE) for name in COLUMNS] for begin in range(0, len(data), PIECE))
    return about_rewards(columns, data.info.reward_unit, online=False)


class Steps:
    """Some steps of a data set, on the host, for what policies do to be compared with them."""

    def __init__(self, data: Transitions) -> None:
        self.spec: Spec = data.spec
        count = min(STEPS, len(data))
        rows = some(len(data), count, 0, "facts").to(data.device)
        self.batch = data.sample(rows.unsqueeze(0))
        self.mean, self.std = (each.cpu().double() for each in data.obs_statistics())
        self.as_inputs = ActionInputs(data.spec)

    def distances(self, actions: Tensor) -> list[float]:
        """How far each member's actions [K, N, ...] in these states are from the data's, in spreads of the latter.

        nan or inf where these are all alike.
        """
        own, theirs = (self._inputs(action) for action in (actions, self.batch.action))
        spread = theirs.var(1, correction=0).sum(-1)
        spread = torch.where(spread > 1e-12, spread, 0)
        distances: list[float] = ((own - theirs).square().sum(-1).mean(1) / spread).sqrt().tolist()
        return distances

    def likeness(self) -> Likeness | None:
        """What these steps say of how observations change; None where an observation is too wide for that."""
        if self.spec.obs_dim > WIDEST:
            return None
        batch = self.batch
        return Likeness.fit(*self.change(batch.obs[0], batch.action[0], batch.next_obs[0]))

    def change(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        """What `Likeness` takes of steps [N, ...]: its inputs, and the change."""
        before, after = ((each.cpu().double() - self.mean) / self.std for each in (obs, next_obs))
        # Far from the data a product of two tells nothing.
        return torch.cat([before.clamp(-10, 10), self._inputs(action)], -1), after - before

    def _inputs(self, action: Tensor) -> Tensor:
        return self.as_inputs(self.as_inputs.inside(action.cpu()), self.mean)


def explained(data: Transitions) -> dict[str, float]:
    """How much of the changes of observations each step's actions explain, beside what the observations do.

    `own` is the share that the actions of the very step explain, `before` and `after` those of its neighbours in time.
    Where a neighbour explains more, actions were written into another row than that of what they did. Empty where
    there are too few steps inside of episodes, or observations are too wide.
    """
    if data.spec.obs_dim > WIDEST:
        return {}
    rows, ends = some(len(data), len(data), 0, "explained"), data.lie.ends.cpu()
    episodes = torch.searchsorted(ends, rows, right=True)
    inside = (rows < ends[episodes] - 1) & (rows > ends[episodes] - data.lengths[episodes])
    rows = rows[inside][:STEPS]
    if len(rows) < MANY:
        return {}
    steps = Steps(data)
    of = {name: data.sample((rows + shift).to(data.device).unsqueeze(0)) for name, shift in SHIFTS.items()}
    obs, next_obs = of["own"].obs[0], of["own"].next_obs[0]
    inputs = {name: steps.change(obs, batch.action[0], next_obs) for name, batch in of.items()}
    (own, change), width = inputs["own"], data.spec.obs_dim
    moves = change.std(0) > 1e-6
    if not bool(moves.any()):
        return {}
    left = {name: Likeness.fit(x, change).scale for name, (x, _) in inputs.items()}
    without = Likeness.fit(torch.cat([own[:, :width], torch.zeros_like(own[:, width:])], 1), change).scale
    unit = change.var(0)[moves]
    return {name: float(((without - error)[moves] / unit).mean()) for name, error in left.items()}
