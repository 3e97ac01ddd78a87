"""What is done to observations before an agent learns from them, by noise that comes with the batch."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.networks.frames import KIND, Frame, frames_of
from awr_exp.ranges import Channels, Count, checked
from awr_exp.types import Spec


class Augmentation(Protocol):
    """Changes observations at random; noise: standard normal numbers that one observation is changed by."""

    @property
    def noise(self) -> int: ...

    def __call__(self, obs: Tensor, noise: Tensor) -> Tensor:
        """[..., obs_dim] of any dtype, by noise [..., noise]."""


MakeAugmentation = Callable[[Spec], Augmentation | None]


def none(spec: Spec) -> None:
    """Leave observations as they are."""


@checked("augmentation")
class RandomShift:
    """Moves every image by up to `pixels`, each way alike, and repeats its edge (Yarats et al. 2022, arXiv 2107.09645).

    What is no image stays as it is. Raises UserError where there is none.
    """

    def __init__(self, spec: Spec, pixels: Count = 4, channels: Channels = "auto") -> None:
        self.pixels = pixels
        self.widths = [entry.width for entry in spec.entries]
        self.frames = frames_of(spec.entries, channels)
        if not self.frames:
            raise UserError(
                f"augmentation=random_shift moves images, and this task shows none: {KIND}; use augmentation=none"
            )
        self.noise = 2 * len(self.frames)

    def __call__(self, obs: Tensor, noise: Tensor) -> Tensor:
        columns = list(obs.split(self.widths, -1))
        for (n, frame), own in zip(self.frames.items(), noise.split(2, -1), strict=True):
            columns[n] = self._shifted(frame, columns[n], own)
        return torch.cat(columns, -1)

    def _shifted(self, frame: Frame, columns: Tensor, noise: Tensor) -> Tensor:
        """[..., n] by noise [..., 2]."""
        # erf turns normal numbers into even ones; the largest of them would be one pixel too many.
        even = (torch.erf(noise / 2**0.5) + 1) / 2
        moves = (even * (2 * self.pixels + 1)).long().clamp(max=2 * self.pixels) - self.pixels
        images = columns.unflatten(-1, frame.shape)
        for move, axis in zip(moves.unbind(-1), frame.axes, strict=True):
            images = _moved(images, move, axis)
        return images.flatten(columns.dim() - 1)


def _moved(images: Tensor, move: Tensor, axis: int) -> Tensor:
    """Images whose places along an axis, counted from the end, are those `move` [...] farther, or the edge's."""
    size = images.shape[axis]
    places = (torch.arange(size, device=images.device) + move.unsqueeze(-1)).clamp(0, size - 1)
    places = places.reshape(*move.shape, *[1] * (images.dim() - move.dim() + axis), size, *[1] * (-axis - 1))
    return images.gather(axis, places.expand_as(images))
