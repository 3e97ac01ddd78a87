"""What looks wrong with a data set, by its description: each a sentence that also says what it will mean."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from awr_exp.data import content, facts
from awr_exp.data.transitions import Transitions
from awr_exp.math import diagnosis
from awr_exp.networks.heads import MANY_AT_BOUNDS

if TYPE_CHECKING:
    from awr_exp.data.description import Column, Description

MANY_STILL = 0.1
"""Share of steps without a change of the observation above which something is said."""
MANY_REPEATED = 0.01
"""Share of steps that are there twice."""
RARE = 0.01
"""Share of steps with a reward below which these are rare."""
FAR = 50
"""Standard deviations from the mean at which a number has nothing to do with the others."""
TOLD = 0.02
"""Share of the changes of observations that chance explains at the most."""
NAMED = 5
"""Columns that a sentence names."""


def about(found: "Description", data: Transitions) -> Iterator[str]:
    """All that is said of a data set and its description."""
    limit = data.info.env_spec.max_episode_steps if data.info.env_spec else None
    yield from content.doubts(data, limit)
    if sentence := facts.of_data(data):
        yield sentence
    yield from said(found)


def said(found: "Description") -> Iterator[str]:
    """What a description says by itself."""
    yield from _order(found)
    yield from _ends(found)
    yield from _copies(found)
    yield from _observations(found)
    yield from _actions(found)
    yield from _returns(found)


def _order(found: "Description") -> Iterator[str]:
    """Whether actions are in the row of what they did."""
    if not found.explained:
        return
    # A regression that learns nothing but noise explains less than nothing of other steps.
    own = max(0.0, found.explained["own"])
    for name, late in (("after", "late"), ("before", "early")):
        if (other := found.explained[name]) > 2 * own + TOLD:
            yield (
                f"how observations change in a step is explained by the action of the row {name} it ({other:.0%}) and "
                f"not by its own ({own:.0%}): the actions are one row too {late}, and whatever is learnt of "
                "them is of other actions; write the data set anew"
            )


def _ends(found: "Description") -> Iterator[str]:
    if found.episodes > 1 and found.terminated == 1 and found.length.low == found.length.high:
        yield (
            f"all episodes terminate after exactly {found.length.low:,.0f} steps: if a time limit or whoever recorded "
            "ended them, values go on there; write the data anew with truncations, as an import does with "
            "truncated=done terminated=none"
        )


def _copies(found: "Description") -> Iterator[str]:
    if found.duplicate_episodes:
        yield (
            f"{found.duplicate_episodes:,} of the {found.episodes:,} episodes are the same as an earlier one, step by "
            "step: they count as often as they are there, and a share that is held out is not new to who has seen its "
            "copy; leave the copies out, unless the task really repeats itself"
        )
    if found.duplicate_steps > MANY_REPEATED * found.steps:
        yield (
            f"{found.duplicate_steps / found.steps:.0%} of the steps of different episodes are the same to the last "
            "digit: that is right in a small world of few states; of measured numbers it says that parts of a log are "
            "there several times, which then count as often"
        )
    if found.still > MANY_STILL:
        yield (
            f"in {found.still:.0%} of the steps the observation stays exactly as it is: it may be measured less often "
            "than there are steps, or a sensor stands still; a policy cannot tell such steps apart"
        )


def _observations(found: "Description") -> Iterator[str]:
    if constant := [one for one in found.observations if one.constant]:
        yield (
            f"in every step there is the same number in {_entries(constant)} of the observations: nothing is learnt of "
            "that, and where there is another number later, the policy does what no data have shown"
        )
    if far := [one for one in found.observations if one.farthest > FAR]:
        one = max(far, key=lambda one: one.farthest)
        yield (
            f"there are numbers far from all others in {_entries(far)} of the observations (in {one.name}, {one.low:g} "
            f"to {one.high:g}, with a mean of {one.mean:.3g} and a standard deviation of {one.std:.3g}): networks see "
            "them in such deviations, and can hardly tell the others apart; look for missing values that were written "
            "as numbers, or clip them"
        )


def _actions(found: "Description") -> Iterator[str]:
    if never := [str(action) for action, share in found.choices.items() if share == 0]:
        yield (
            f"no step has action {_listed(never)}, of {len(found.choices)}: nothing says what it is worth, and an "
            "agent whose policy climbs Q may take it for the best"
        )
    open_ones = [one for one in found.actions if one.bounds[0] is None or one.bounds[0] != one.bounds[1]]
    if constant := [one for one in open_ones if one.constant]:
        yield (
            f"in every step there is the same number in {_entries(constant)} of the actions: nothing says whether "
            "another would be better"
        )
    share = sum(one.on_low + one.on_high for one in open_ones) / max(1, len(open_ones))
    if share > MANY_AT_BOUNDS:
        yield (
            f"{share:.0%} of the numbers in the actions lie on their bounds: head=tanh_gaussian never reaches these, "
            "and its likelihood there has no limit; keep head=gaussian, or bin them with head=categorical_bins"
        )


def _returns(found: "Description") -> Iterator[str]:
    if found.episodes < facts.FEWEST:
        yield (
            f"there are {found.episodes} episodes: too few to say how much better the best ones are, and to hold some "
            "out for a judgement"
        )
    if 0 < found.rewarded < RARE:
        yield (
            f"only {found.rewarded:.2%} of the steps have a reward other than 0: one-step targets carry it back by a "
            "step an update, so that advantage=monte_carlo or an agent with a Q and many updates is better here, and "
            "dataset.reward_shift=-1 where reaching a goal is all"
        )
    numbers = {f"diagnosis/{name}": value for name, value in found.coverage.items()}
    yield from diagnosis.said(diagnosis.diagnose(numbers, {}))


def _entries(columns: Sequence["Column"]) -> str:
    return f"entr{'y' if len(columns) == 1 else 'ies'} {_listed([one.name for one in columns])}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
