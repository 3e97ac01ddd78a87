"""Batches that are made while the one before is learnt from."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from awr_exp.types import Batch

Made = tuple[Batch]


def ahead(batches: Iterator[Made], device: torch.device) -> Iterator[Made]:
    """The same, each made by a thread of its own while whoever took the one before is busy.

    On a GPU it also has a stream of its own, so that copies from the host wait for no update, nor updates for them.
    """
    side = torch.cuda.Stream(device) if device.type == "cuda" else None
    if side is not None:
        # What batches are made of was drawn in the stream of this thread.
        side.wait_stream(torch.cuda.current_stream(device))

    def make() -> tuple[Made | None, torch.cuda.Event | None]:
        if side is None:
            return next(batches, None), None
        with torch.cuda.stream(side):
            return next(batches, None), side.record_event()

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make)
        while True:
            found, event = coming.result()
            if found is None:
                return
            coming = pool.submit(make)
            if event is not None:
                _take_over(found, event, device)
            yield found


def _take_over(found: Made, event: torch.cuda.Event, device: torch.device) -> None:
    """Let the stream of this thread wait for a batch, and keep its memory until it is done with that."""
    here = torch.cuda.current_stream(device)
    here.wait_event(event)
    for batch in found:
        for tensor in filter(torch.is_tensor, vars(batch).values()):
            tensor.record_stream(here)
