"""What is computed of whole episodes, block by block, for those that are too many to take at once."""

from collections.abc import Callable, Iterable

from torch import Tensor

from awr_exp.types import Columns, Episodes

BLOCK = 2**20
"""Transitions, of all members together, that are taken at once."""


def in_blocks(episodes: Episodes, of: Callable[[Episodes], Columns], rows: int) -> Columns:
    """Columns [..., N] of all transitions, from those that `of` makes of each block of whole episodes, in order.

    rows: transitions of a block, which has more only where it is a single episode.
    """
    whole: Columns = {}
    begin, count = 0, len(episodes)
    for block in episodes.blocks(rows):
        end = begin + len(block)
        found = of(block)
        if len(block) == count:
            return found
        for name, column in found.items():
            if name not in whole:
                whole[name] = column.new_empty(*column.shape[:-1], count)
            whole[name][..., begin:end] = column
        begin = end
    return whole


def side_by_side(parts: Iterable[Tensor], width: int) -> Tensor:
    """Parts [K, n, ...] as one tensor [K, width, ...], each put into its place before the next one is computed.

    If all were kept until the last one is here, each would lie amid memory that its computation has given back, and
    the next computation would take new memory: a hundred times what the parts are.
    """
    whole, begin = None, 0
    for part in parts:
        if whole is None:
            whole = part.new_empty(part.shape[0], width, *part.shape[2:])
        whole[:, begin : begin + part.shape[1]] = part
        begin += part.shape[1]
    assert whole is not None
    return whole
