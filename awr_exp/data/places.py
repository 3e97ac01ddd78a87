"""Where the transitions of episodes lie among rows, without a number for each of them."""

from collections.abc import Iterator

import torch
from torch import Tensor


class Places:
    """Where E episodes lie: of N transitions in all, and of M = N + E packed rows, end to end with final observations.

    lengths: [E], of transitions. begins: [E], in rising order, the row of a table in which each begins, from which on
    it lies in one piece; None: the table is the packed rows themselves.
    """

    def __init__(self, lengths: Tensor, begins: Tensor | None = None) -> None:
        self.lengths, self.apart = lengths, begins is not None
        self.ends = lengths.cumsum(0)
        """[E], the transitions up to the end of each episode."""
        end_to_end = self.ends - lengths + torch.arange(len(lengths))
        self.begins = end_to_end if begins is None else begins
        self.gaps = self.begins.cpu() - end_to_end
        """[E], the rows of the table that lie between an episode and those before it."""
        self.count, self.rows = int(self.ends[-1]), int(self.ends[-1]) + len(lengths)

    def to(self, device: torch.device) -> None:
        """Have what is looked up on a device, which should be that of the table."""
        self.begins, self.ends, self.gaps = (each.to(device) for each in (self.begins, self.ends, self.gaps))

    def of(self, transitions: Tensor) -> Tensor:
        """The row of the table of each transition [...]."""
        at = transitions.to(self.ends.device).contiguous()
        episodes = torch.searchsorted(self.ends, at, right=True)
        return at + episodes + self.gaps[episodes]

    def between(self, begin: int, end: int) -> Tensor:
        """The rows of the table that are the packed rows from `begin` on and before `end`."""
        rows = torch.arange(begin, end, device=self.begins.device)
        return rows + self.gaps[torch.searchsorted(self.begins - self.gaps, rows, right=True) - 1]

    def first(self, rows: Tensor) -> Tensor:
        """The row of the table in which the episode of each row [n] begins."""
        return self.begins[torch.searchsorted(self.begins, rows, right=True) - 1]

    def packed(self) -> Tensor:
        """[N], the packed row of each transition."""
        return torch.arange(self.count) + torch.arange(len(self.lengths)).repeat_interleave(self.lengths)

    def last(self) -> Tensor:
        """[N] bool, the last transition of each episode."""
        last = torch.zeros(self.count, dtype=torch.bool, device=self.ends.device)
        last[self.ends - 1] = True
        return last

    def parts(self, most: int) -> Iterator[tuple[int, int]]:
        """All episodes in order, from one on and before another, with at most so many transitions, or a single one."""
        first, ends = 0, self.ends.cpu()
        while first < len(ends):
            before = int(ends[first - 1]) if first else 0
            end = max(first + 1, int(torch.searchsorted(ends, before + most, right=True)))
            yield first, end
            first = end
