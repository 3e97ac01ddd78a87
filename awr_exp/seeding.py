"""One root seed feeds named child generators, so that what one part draws never changes another."""

import hashlib
from collections.abc import Sequence

import torch


def child_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on the root seed and the names alone."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def draw_rows(
    seeds: Sequence[int], names: Sequence[object], rows: int, shape: tuple[int, int], device: torch.device | str
) -> torch.Tensor:
    """[steps, K, B] of shape (steps, B) a member: numbers from 0 to rows - 1 with replacement, from its own seed."""
    generators = [generator(seed, "rows", *names, device=device) for seed in seeds]
    return torch.stack([torch.randint(rows, shape, generator=g, device=device) for g in generators], 1)


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for a named purpose, such as ("rows", 3)."""
    return torch.Generator(device).manual_seed(child_seed(seed, *names))
