"""Normalised observations, of PyTorch and NumPy alike."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    # Workers that only step environments do without torch.
    from torch import Tensor

LIMIT = 30.0
"""Standard deviations at which a normalised entry is cut off. What hardly ever differed from 0 while the normaliser was
learnt, such as a contact force, would be thousands once it does, and a critic that meets that diverges."""

Array = TypeVar("Array", "Tensor", NDArray[np.float32])


def normalize(obs: Array, mean: Array, std: Array, limit: Array) -> Array:
    """Observations [..., obs_dim] in units of std from mean, no farther than limit; all broadcast."""
    return ((obs - mean) / std).clip(-limit, limit)
