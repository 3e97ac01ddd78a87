"""Aggregates over runs of a setting, with intervals (Agarwal et al. 2021, arXiv 2108.13264); the worth of tuning."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 2_000
EDGES = (0.025, 0.975)
"""Of intervals, which have the middle 95 % of all samples."""
ENOUGH = 5
"""Runs from which the bootstrap says something: of fewer, its intervals miss the truth far more often than they say."""
PULLS, POOLS, TRIALS, EXPLORATION = 60, 100, 40, 2.0
"""Of the worth of tuning: evaluation episodes at most, draws of policies, bandits of each draw, and their curiosity."""


def iqm(values: Array) -> Array:
    """Interquartile mean along the last axis: a quarter of the values is cut off at each end."""
    cut = int(0.25 * values.shape[-1])
    return np.sort(values, -1)[..., cut : values.shape[-1] - cut].mean(-1)


def spearman(x: Array, y: Array) -> float:
    """The rank correlation of values [runs] each: 1 if they have one order, nan if one of them has none."""
    # The rank of a value among equal ones is the mean of theirs.
    ranks = [(values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2 for values in (x, y)]
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(ranks)[0, 1])


def interval(samples: Array) -> Interval:
    """The interval of bootstrap samples."""
    low, high = np.quantile(samples, EDGES)
    return float(low), float(high)


def resampled(scores: Array, seed: int = 0) -> Array:
    """[RESAMPLES, runs]: the runs [runs], drawn with replacement."""
    rng = np.random.default_rng(seed)
    return scores[rng.integers(len(scores), size=(RESAMPLES, len(scores)))]


def bootstrap(scores: Array, statistic: Callable[[Array], Array] = iqm) -> Interval:
    """The interval of a statistic of runs, which reduces the last axis."""
    return interval(statistic(resampled(scores)))


def _improves(x: Array, y: Array) -> Array:
    higher, equal = x[..., :, None] > y[..., None, :], x[..., :, None] == y[..., None, :]
    return (higher + 0.5 * equal).mean((-1, -2))


def probability_of_improvement(x: Array, y: Array) -> float:
    """The share of all pairs of runs in which that of x is better; of a tie, half."""
    return float(_improves(x, y))


def improvement_interval(x: Array, y: Array) -> Interval:
    """A confidence interval of `probability_of_improvement`."""
    return interval(_improves(resampled(x, 0), resampled(y, 1)))


def profile(scores: Array, thresholds: Array) -> tuple[Array, Array, Array]:
    """Share of runs above each threshold, and its interval point by point."""
    drawn = resampled(scores)
    samples = np.stack([(drawn > threshold).mean(-1) for threshold in thresholds], -1)
    low, high = np.quantile(samples, EDGES, axis=0)
    return (scores[:, None] > thresholds).mean(0), low, high


def tuning_budget(returns: Sequence[Array], pulls: int = PULLS) -> tuple[Array, Array, Array]:
    """What the policy is worth that one would choose after 1, 2, ... `pulls` evaluation episodes (Jackson et al. 2025).

    returns: of the episodes of each trained policy, whose mean counts as its true value. Yields the mean over TRIALS
    with these policies, and the interval that comes from which ones happened to be trained: POOLS times, as many are
    drawn with replacement.
    """
    rng = np.random.default_rng(0)
    arms = len(returns)
    # First the policies as they are, as often again, then the resampled ones.
    as_they_are = np.tile(np.arange(arms), (POOLS, 1))
    pools = np.concatenate([as_they_are, rng.integers(arms, size=(POOLS, arms))])
    chosen = _played(returns, np.repeat(pools, TRIALS, 0), pulls, rng).reshape(pulls, 2 * POOLS, TRIALS).mean(2)
    low, high = np.quantile(chosen[:, POOLS:], EDGES, axis=1)
    mean = chosen[:, :POOLS].mean(1)
    # No resampled pool has a better best policy than the real one, so the band ends where the mean does.
    return mean, np.minimum(low, mean), np.maximum(high, mean)


def _played(returns: Sequence[Array], pools: NDArray[np.int64], pulls: int, rng: np.random.Generator) -> Array:
    """The values [pulls, N] of the policies that upper-confidence-bound bandits think the best; pools: [N, arms].

    Each decides which policy of its pool plays the next episode, which is drawn from that one's returns. These are
    scaled to [0, 1], and the exploration is that of Jackson et al.
    """
    value = np.array([policy.mean() for policy in returns])
    counts = np.array([len(policy) for policy in returns])
    # Policies may have been evaluated on different numbers of episodes.
    episodes = np.stack([np.resize(policy, counts.max()) for policy in returns])
    episodes = (episodes - episodes.min()) / (np.ptp(episodes) or 1.0)
    played, mean = np.zeros(pools.shape), np.zeros(pools.shape)
    everyone = np.arange(len(pools))
    chosen = np.empty((pulls, len(pools)))
    for pull in range(pulls):
        bonus = np.sqrt(EXPLORATION * np.log(pull + 1) / np.maximum(played, 1))
        # Who has not played yet comes first; the noise breaks ties.
        index = np.where(played == 0, np.inf, mean + bonus)
        noise = rng.random(pools.shape)
        arm = np.where(index == index.max(1, keepdims=True), noise, -1).argmax(1)
        policy = pools[everyone, arm]
        drawn = episodes[policy, (rng.random(len(pools)) * counts[policy]).astype(int)]
        played[everyone, arm] += 1
        mean[everyone, arm] += (drawn - mean[everyone, arm]) / played[everyone, arm]
        best = np.where(played > 0, mean, -np.inf).argmax(1)
        chosen[pull] = value[pools[everyone, best]]
    return chosen
