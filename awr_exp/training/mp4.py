"""Pictures to an mp4, one after another: a file that is there as a whole or not at all."""

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.errors import UserError, first_line


def encoder() -> str:
    """The program that encodes. Raises UserError where it is not installed."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(f"a video needs imageio-ffmpeg: pip install 'awr-exp[video]' ({first_line(error)})") from None


class Mp4:
    """Writes pictures [height, width, 3] of uint8, all of one shape, to `path`; rate: how many a second.

    The file takes its place when `finish` is called, and what is left of a draft is gone after `close`. `add` and
    `finish` raise UserError where it cannot be written.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate, self.draft = path, rate, path.with_name(f".{path.name}.tmp")
        self.shape: tuple[int, ...] = ()
        # Whether its folder is made for it.
        self.alone = False
        self.process: subprocess.Popen[bytes] | None = None

    def add(self, picture: NDArray[np.uint8]) -> None:
        self.process = self.process or self._begin(picture)
        if picture.shape != self.shape:
            raise self._unwritable(f"one picture has the shape {picture.shape}, the first one {self.shape}")
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(np.ascontiguousarray(picture, np.uint8).tobytes())
        except OSError:
            self._end(self.process)

    def finish(self) -> None:
        if self.process is None:
            raise self._unwritable("there are no pictures")
        self._end(self.process)
        try:
            self.draft.replace(self.path)
        except OSError as error:
            raise self._unwritable(error.strerror) from None

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        with suppress(OSError):
            self.draft.unlink(missing_ok=True)
            if self.alone:
                # Where the film is in it, it stays.
                self.path.parent.rmdir()

    def _begin(self, picture: NDArray[np.uint8]) -> "subprocess.Popen[bytes]":
        self.shape = height, width, _ = picture.shape
        given: list[Any] = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", self.rate]
        # As every player takes it: such colours need even sides, and what is in the file comes first.
        made = ["-pix_fmt", "yuv420p", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-movflags", "+faststart", "-f", "mp4"]
        command = [encoder(), "-v", "error", "-y", *given, "-i", "-", *made, self.draft]
        try:
            self.alone = not self.path.parent.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.draft.unlink(missing_ok=True)
            return subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise self._unwritable(error.strerror) from None

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for the encoder. Raises UserError where it failed."""
        _, said = process.communicate()
        if process.returncode:
            reason, full = said.decode(errors="replace").strip(), "No space left on device"
            raise self._unwritable(full if full in reason else reason.partition("\n")[0] or "the encoder died")

    def _unwritable(self, reason: str | None) -> UserError:
        return UserError(f"{self.path} cannot be written ({reason})")
