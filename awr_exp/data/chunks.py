"""Actions for several steps at once, with the sum of their rewards (Li, Zhou and Levine 2025, arXiv 2507.07969)."""

import logging
from dataclasses import replace

import torch
from torch import Tensor

from awr_exp.data.packing import check_memory
from awr_exp.data.schema import STORED, Schema
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError

log = logging.getLogger(__name__)


def chunks(data: Transitions, steps: int, gamma: float) -> Transitions:
    """The data set of which an action is those of `steps` steps, one after another, see `Spec.chunked`.

    With h steps, the transition that begins at step t goes from s_t to s_{t+h}, and its reward is the sum of gamma^i
    r_{t+i} over i from 0 to h - 1. The next one is discounted by gamma^h, which is left to whoever learns from it.
    Each recorded episode becomes up to h interleaved ones, of the steps t, t + h, t + 2h, ... for each of its first h
    steps t, so that a next observation is still in the row below, and `origin` says whose parts they are. Where an
    episode terminates within a chunk, its last action is repeated, which changes nothing; where it is merely cut, a
    chunk has to be whole. Raises UserError where no episode is as long, where the new rows do not fit the memory, and
    for data whose observations are seen several at once.
    """
    if steps == 1:
        return data
    _check(data, steps)
    lengths, terminated = data.lengths, data.terminated[data.last].cpu()
    episode, phase, count = _parts(lengths, terminated, steps)
    # Of each row of the new data set, which has one more of them for each part: its part, and its step in the episode.
    part, ends = torch.repeat_interleave(torch.arange(len(count)), count + 1), (count + 1).cumsum(0)
    number = torch.arange(len(part)) - (ends - count - 1)[part]
    step = torch.minimum(phase[part] + steps * number, lengths[episode[part]])
    begin = ((lengths + 1).cumsum(0) - (lengths + 1))[episode[part]]
    packed = _packed(data, steps, gamma, begin + step, lengths[episode[part]] - step)
    spec, last = data.spec.chunked(steps), ends - 2
    schema = Schema(spec, STORED)
    for name in STORED[1:]:
        schema.view(packed, name)[ends - 1] = 0
    schema.view(packed, "terminated")[last, 0] = terminated[episode].to(packed)
    schema.view(packed, "truncated")[last, 0] = (~terminated)[episode].to(packed)
    kept, origin = data.origin[episode].unique(return_inverse=True)
    mark = f"{data.info.fingerprint}/chunks of {steps} by {gamma:g}"
    info = replace(data.info, episode_returns=data.info.episode_returns[kept], fingerprint=mark, action_columns=())
    return Transitions(packed, count, spec, info, origin)


def _check(data: Transitions, steps: int) -> None:
    """Raises UserError where no chunk can be made, and logs how many episodes have none."""
    id, longest = data.info.id, data.longest
    if data.info.history > 1:
        raise UserError("dataset.history and dataset.action_chunk do not go together so far: leave one of them out")
    short = (data.lengths < steps) & ~data.terminated[data.last].cpu()
    if short.all() or steps > longest:
        raise UserError(
            f"dataset.action_chunk={steps} is longer than any episode of data set '{id}', of which the longest has "
            f"{longest} steps: choose a shorter one"
        )
    if short.any():
        said = "data set '%s': %d of %d episodes are cut before a chunk of %d steps is whole, and are left out"
        log.info(said, id, int(short.sum()), len(short), steps)


def _parts(lengths: Tensor, terminated: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The parts [P] that episodes [E] become: whose each is, at which step it begins, and how many chunks it has."""
    left = lengths.unsqueeze(1) - torch.arange(steps)
    # The last chunk of an episode that terminates need not be whole.
    left = torch.where(terminated.unsqueeze(1), left + steps - 1, left).clamp(min=0)
    count = left.div(steps, rounding_mode="floor")
    episode, phase = count.nonzero().unbind(1)
    return episode, phase, count[episode, phase]


def _packed(data: Transitions, steps: int, gamma: float, at: Tensor, left: Tensor) -> Tensor:
    """Rows with the observations at packed rows `at` [M], and the chunks from there on; left: steps of the episode."""
    spec = data.spec.chunked(steps)
    schema = Schema(spec, STORED)
    what = f"takes {{}} with dataset.action_chunk={steps}"
    check_memory(data.info.id, len(at), schema.width, what, "give a smaller one, or dataset.max_transitions")
    packed = data.packed.new_zeros(len(at), schema.width)
    for old, new in zip(data.schema.views(data.packed, "obs"), schema.views(packed, "obs"), strict=True):
        new.copy_(old[at])
    places, reward = torch.from_numpy(spec.places), torch.zeros(len(at), dtype=torch.float64)
    for number in range(steps):
        there = at + torch.minimum(torch.tensor(number), (left - 1).clamp(min=0))
        action = data.schema.read(data.packed, "action", there)
        schema.view(packed, "action")[:, places[number]] = action.reshape(len(at), -1).to(packed)
        own = data.schema.read(data.packed, "reward", there).double()
        reward += gamma**number * own.where(left > number, 0)
    schema.view(packed, "reward")[:, 0] = reward.to(packed)
    return packed
