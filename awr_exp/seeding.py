"""One root seed feeds named child generators, so that what one part draws never changes another."""

import hashlib

import torch


def child_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on the root seed and the names alone."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for a named purpose, such as ("rows", 3)."""
    return torch.Generator(device).manual_seed(child_seed(seed, *names))
