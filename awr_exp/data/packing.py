"""Packed rows: what they add up to, and copies of those of chosen episodes, for whoever needs them in one piece."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data.schema import STORED, Schema
from awr_exp.errors import UserError
from awr_exp.machine import free_memory
from awr_exp.types import Spec

if TYPE_CHECKING:
    from awr_exp.data.transitions import Transitions


def laid_out(data: "Transitions") -> Tensor:
    """A copy of the rows of these episodes alone, end to end, as training sees them: see `Transitions.packed`."""
    schema, rows = data.schema, data.lie.packed().to(data.held.device)
    needed, free = 4 * data.lie.rows * schema.width, free_memory()
    if data.held.device.type == "cpu" and needed > free:
        raise UserError(
            f"data set '{data.info.id}' would have to be copied, which takes {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free: leave out dataset.top_percent, max_transitions, reward_scale, reward_shift "
            "and what is held out, or write it anew with them"
        )
    packed = data.between(0, data.lie.rows).clone()
    reward, truncated, terminated = (schema.view(packed, name) for name in ("reward", "truncated", "terminated"))
    reward[rows] = data.rewards.learnt(reward[rows])
    final = (data.lengths + 1).cumsum(0).to(packed.device) - 1
    truncated[final - 1] = 1 - terminated[final - 1]
    for name in STORED[1:]:
        schema.view(packed, name)[final] = 0
    return packed


def episode_returns(packed: Tensor, lengths: NDArray[np.int64], spec: Spec) -> NDArray[np.float64]:
    """The sum of rewards of each episode of packed rows."""
    # The extra row of each episode holds reward 0, so it may be summed along.
    starts = (lengths + 1).cumsum() - (lengths + 1)
    return np.add.reduceat(Schema(spec, STORED).read(packed, "reward").double().numpy(), starts)
