"""Images that a data set keeps as JPEG files, as Minari does unless it is told not to, decoded once."""

from io import BytesIO
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from awr_exp.errors import first_line

MARK = b"\xff\xd8\xff"
"""How a JPEG file begins."""


def holds(data: Any) -> bool:
    """Whether the rows of an array in a file, each of its own length or all of one, are JPEG files."""
    kind = h5py.check_vlen_dtype(data.dtype) or data.dtype
    return kind == np.uint8 and bytes(np.ravel(data[0])[: len(MARK)]) == MARK


def decode(data: Any, out: NDArray[np.uint8]) -> None:
    """Fill out [rows, *shape] with the images of such an array. Raises ValueError, with its row, for one that is none.

    An image of another size is named before it is decoded: it could be one that no memory takes.
    """
    height, width, *_ = shape = out.shape[1:]
    for row, file in enumerate(data):
        try:
            image = Image.open(BytesIO(bytes(np.ravel(file))), formats=["JPEG"])
            if image.size != (width, height):
                raise ValueError(f"it is of {image.height} x {image.width} pixels, its space of {height} x {width}")
            pixels = np.asarray(image, np.uint8)
            out[row] = pixels.reshape(shape)
        except (OSError, ValueError) as error:
            raise ValueError(f"image {row} cannot be read: {first_line(error)}") from None
