"""What is computed of whole episodes, block by block, for those that are too many to take at once."""

from collections.abc import Callable

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
