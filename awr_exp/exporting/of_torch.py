"""A policy as a program of torch.export."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.utils._python_dispatch import TorchDispatchMode

from awr_exp.exporting.formats import Acting

ABOUT = "about.json"
"""The name of the texts in the file."""


def encoded(program: ExportedProgram, about: Mapping[str, str]) -> bytes:
    """The file, with the texts as JSON among its extra files."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={ABOUT: json.dumps(about)})
    return file.getvalue()


class Drawn(TorchDispatchMode):
    """Notes the normal numbers that are drawn inside."""

    noise: Any = None

    def __torch_dispatch__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.randn.default:
            self.noise = made
        return made


def acting(content: bytes) -> Acting:
    """What acts by the file, and also tells the noise that is drawn in it."""
    module = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def act(obs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        with torch.random.fork_rng(devices=[]), Drawn() as drawn:
            action = module(torch.as_tensor(obs))
        return action.numpy(), None if drawn.noise is None else drawn.noise.numpy()

    return act
