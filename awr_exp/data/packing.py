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
    if data.held.device.type == "cpu":
        what = "would have to be copied, which takes {}"
        change = "leave out dataset.top_percent, max_transitions, reward_scale, reward_shift and what is held out"
        check_memory(data.info.id, data.lie.rows, schema.width, what, f"{change}, or write it anew with them")
    packed = data.between(0, data.lie.rows).clone()
    reward, truncated, terminated = (schema.view(packed, name) for name in ("reward", "truncated", "terminated"))
    reward[rows] = data.rewards.learnt(reward[rows])
    final = (data.lengths + 1).cumsum(0).to(packed.device) - 1
    truncated[final - 1] = 1 - terminated[final - 1]
    for name in STORED[1:]:
        schema.view(packed, name)[final] = 0
    return packed


def check_memory(id: str, rows: int, width: int, what: str, change: str) -> None:
    """Raises UserError where so many packed rows more are not free; what: this data set does with {} of memory."""
    needed, free = 4 * rows * width, free_memory()
    if needed > free:
        what = what.format(f"{needed / 1e9:.1f} GB of memory")
        raise UserError(f"data set '{id}' {what}, and {free / 1e9:.1f} GB are free: {change}")


def episode_returns(packed: Tensor, lengths: NDArray[np.int64], spec: Spec) -> NDArray[np.float64]:
    """The sum of rewards of each episode of packed rows."""
    # The extra row of each episode holds reward 0, so it may be summed along.
    starts = (lengths + 1).cumsum() - (lengths + 1)
    return np.add.reduceat(Schema(spec, STORED).read(packed, "reward").double().numpy(), starts)
