"""Aggregates over runs of a setting, with intervals (Agarwal et al. 2021, arXiv 2108.13264); the worth of tuning."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 2_000
LEVEL = 0.95
ENOUGH = 5
"""Runs from which the bootstrap says something: of fewer, its intervals miss the truth far more often than they say."""


def iqm(values: Array) -> Array:
    """Interquartile mean along the last axis: a quarter of the values is cut off at each end."""
    cut = int(0.25 * values.shape[-1])
    return np.sort(values, -1)[..., cut : values.shape[-1] - cut].mean(-1)


def interval(samples: Array) -> Interval:
    """The middle LEVEL of bootstrap samples."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
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
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return (scores[:, None] > thresholds).mean(0), low, high


def tuning_budget(
    returns: Sequence[Array], pulls: int, pools: int = 100, trials: int = 40, exploration: float = 2.0, seed: int = 0
) -> tuple[Array, Array, Array]:
    """What the policy is worth that one would choose after 1, 2, ... `pulls` evaluation episodes (Jackson et al. 2025).

    returns: of the episodes of each trained policy, whose mean counts as its true value. An upper-confidence-bound
    bandit (exploration as in their evaluation, returns scaled to [0, 1]) decides which policy plays the next episode,
    drawn from its returns; the choice is the best mean so far. Yields the mean over trials with these policies, and
    the interval that comes from which ones happened to be trained: `pools` times, as many are drawn with replacement.
    """
    rng = np.random.default_rng(seed)
    arms = len(returns)
    value = np.array([policy.mean() for policy in returns])
    low, high = min(map(np.min, returns)), max(map(np.max, returns))
    scale = (high - low) or 1.0
    # Policies may have been evaluated on different numbers of episodes.
    longest = max(map(len, returns))
    episodes = np.stack([np.resize(policy, longest) for policy in returns])
    counts = np.array(list(map(len, returns)))

    # First the policies as they are, as often again, then the resampled ones.
    as_they_are = np.tile(np.arange(arms), (pools, 1))
    pool = np.repeat(np.concatenate([as_they_are, rng.integers(arms, size=(pools, arms))]), trials, 0)
    repeats = len(pool)
    played, total = np.zeros((repeats, arms)), np.zeros((repeats, arms))
    everyone = np.arange(repeats)
    chosen = np.empty((pulls, repeats))
    for pull in range(pulls):
        mean = total / np.maximum(played, 1)
        bonus = np.sqrt(exploration * np.log(pull + 1) / np.maximum(played, 1))
        # Who has not played yet comes first; the noise breaks ties.
        index = np.where(played == 0, np.inf, mean + bonus)
        noise = rng.random((repeats, arms))
        tied = index == index.max(1, keepdims=True)
        arm = np.where(tied, noise, -1).argmax(1)
        policy = pool[everyone, arm]
        drawn = episodes[policy, (rng.random(repeats) * counts[policy]).astype(int)]
        total[everyone, arm] += (drawn - low) / scale
        played[everyone, arm] += 1
        best = np.where(played > 0, total / np.maximum(played, 1), -np.inf).argmax(1)
        chosen[pull] = value[pool[everyone, best]]
    by_pool = chosen.reshape(pulls, 2 * pools, trials).mean(2)
    edges = np.quantile(by_pool[:, pools:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    mean = by_pool[:, :pools].mean(1)
    # No resampled pool has a better best policy than the real one, so the band ends where the mean does.
    return mean, np.minimum(edges[0], mean), np.maximum(edges[1], mean)
