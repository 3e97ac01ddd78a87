"""One root seed feeds named child generators, so that what one part draws never changes another."""

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    # It would bring torch into workers that only step environments.
    import torch


MANY = 2**24
"""Rows from which an order of all of them is too much to make for the sake of some."""


def child_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on the root seed and the names alone."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    """A NumPy generator of its own for a named purpose, such as ("episode", 3)."""
    return np.random.default_rng(child_seed(seed, *names))


def normal(rng: np.random.Generator, steps: int, numbers: int) -> NDArray[np.float32]:
    """Standard normal numbers for so many steps, [steps, numbers]."""
    return rng.standard_normal((steps, numbers), np.float32)


def generator(seed: int, *names: object, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A generator of its own for a named purpose, such as ("rows", 3)."""
    import torch

    return torch.Generator(device).manual_seed(child_seed(seed, *names))


def some(rows: int, count: int, seed: int, *names: object) -> "torch.Tensor":
    """[count] of the numbers from 0 to rows - 1, or all, in any order; of MANY and more, a few may come twice."""
    import torch

    if rows < MANY:
        return torch.randperm(rows, generator=generator(seed, *names))[:count]
    return torch.randint(rows, (min(count, MANY),), generator=generator(seed, *names))


def draw_rows(
    seeds: Sequence[int], names: Sequence[object], rows: int, shape: tuple[int, int], device: "torch.device | str"
) -> "torch.Tensor":
    """[steps, K, B] of shape (steps, B) a member: numbers from 0 to rows - 1 with replacement, from its own seed."""
    import torch

    generators = [generator(seed, "rows", *names, device=device) for seed in seeds]
    return torch.stack([torch.randint(rows, shape, generator=g, device=device) for g in generators], 1)


def shuffle_rows(
    seeds: Sequence[int], names: Sequence[object], rows: int, shape: tuple[int, int], device: "torch.device | str"
) -> "torch.Tensor":
    """Numbers as `draw_rows` gives them, but in epochs: each comes once, newly shuffled, before any comes again."""
    import torch

    def epochs(g: "torch.Generator") -> "torch.Tensor":
        orders = [torch.randperm(rows, generator=g, device=device) for _ in range(1 + math.prod(shape) // rows)]
        return torch.cat(orders)[: math.prod(shape)].view(shape)

    return torch.stack([epochs(generator(seed, "rows", *names, device=device)) for seed in seeds], 1)


def draw_noise(
    seeds: Sequence[int], names: Sequence[object], shape: tuple[int, int], numbers: int, device: "torch.device | str"
) -> "torch.Tensor":
    """[steps, K, B, numbers] of shape (steps, B) a member: standard normal numbers, from its own seed."""
    import torch

    if not numbers:
        return torch.empty(shape[0], len(seeds), shape[1], 0, device=device)
    generators = [generator(seed, "noise", *names, device=device) for seed in seeds]
    return torch.stack([torch.randn(*shape, numbers, generator=g, device=device) for g in generators], 1)
