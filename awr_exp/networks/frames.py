"""How the columns of an image, or of a stack of them, become channels, rows and columns of pixels."""

import math
from dataclasses import dataclass

from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.layout import SMALLEST, Entries, Entry
from awr_exp.ranges import Channels

MOST_CHANNELS = 12
KIND = f"an image has uint8 on two axes or any numbers on three, two of them of {SMALLEST} or more"
"""What `Entry.is_image` asks for, in words."""


@dataclass(frozen=True)
class Frame:
    """What an entry of an observation shows: an image, or a stack of images of several time steps.

    shape: the images that lie in the columns, [stack, ...] or [...] of three axes; last: whether the last of these is
    that of the channels, instead of the first; channels, height, width: of what `pixels` makes of them.
    """

    shape: tuple[int, ...]
    last: bool
    channels: int
    height: int
    width: int

    @property
    def axes(self) -> tuple[int, int]:
        """Those of the height and of the width of the images as they lie in columns, counted from the end."""
        return (-3, -2) if self.last else (-2, -1)

    def pixels(self, columns: Tensor) -> Tensor:
        """[..., channels, height, width] of columns [..., n]; the images of a stack follow one another in channels."""
        images = columns.unflatten(-1, self.shape)
        if self.last:
            images = images.movedim(-1, -3)
        return images.flatten(columns.dim() - 1, -3)


def frames_of(entries: Entries, channels: Channels) -> dict[int, Frame]:
    """The frames of those parts of an observation that are images, by the number of the part."""
    return {n: frame_of(entry, channels) for n, entry in enumerate(entries) if entry.is_image}


def frame_of(entry: Entry, channels: Channels = "auto") -> Frame:
    """The frame of an image. Raises UserError where it cannot be told which axis has its channels."""
    if len(entry.shape) == 2:
        return Frame((1, *entry.shape), False, 1, *entry.shape)
    stack, (first, middle, last) = entry.shape[:-3], entry.shape[-3:]
    if channels == "auto":
        could = [one <= MOST_CHANNELS and side >= SMALLEST for one, side in ((first, last), (last, first))]
        if could[0] == could[1]:
            why = "both could be" if could[0] else "neither is"
            raise UserError(
                f"{entry.name} has the shape {list(entry.shape)}, with {first} and {last} on the first and the last "
                f"axis of an image, and {why} a number of channels, 1 to {MOST_CHANNELS}: set network.channels to "
                "first or last, and augmentation.channels too if there is one"
            )
        channels = "first" if could[0] else "last"
    count, height, width = (last, first, middle) if channels == "last" else (first, middle, last)
    return Frame(entry.shape, channels == "last", math.prod(stack) * count, height, width)
