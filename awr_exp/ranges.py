"""The ranges of settings, each beside the argument that it is of, as its annotation.

A part says by its constructor what its settings may be: `beta: PerMember[Positive] = 0.3`, `hidden: Widths = (8, 8)`. A
`bool` and a `Literal` say it by themselves; any other range is `Annotated[<type>, Range(<predicate>, <words>)]`.
Nothing here imports torch.
"""

import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin

from awr_exp.errors import UserError
from awr_exp.reading import LARGEST

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

PerMember: TypeAlias = T | Sequence[T]
"""One value for all members of a model, or a list of one a member, which a sweep makes.

Settings of this kind may differ between members; all others have to agree."""


@dataclass(frozen=True)
class Range:
    """accepts: whether a value is in it; wanted: what such a value is, in words that end "it must be ..."."""

    accepts: Callable[[Any], bool]
    wanted: str

    def __repr__(self) -> str:
        return self.wanted


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is a list all of whose entries are accepted."""
    return lambda value: _is_list(value) and all(map(accepts, value))


def matches(pattern: str) -> Callable[[Any], bool]:
    """Whether a value is a text that has this form."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


Number = Annotated[float, Range(_number, "a finite number")]
Positive = Annotated[float, Range(lambda v: _number(v) and v > 0, "a positive, finite number")]
PositiveOrInf = Annotated[float, Range(lambda v: isinstance(v, Real) and v is not True and v > 0, "a positive number")]
NotNegative = Annotated[float, Range(lambda v: _number(v) and v >= 0, "a number of at least 0")]
AtLeastOne = Annotated[float, Range(lambda v: _number(v) and v >= 1, "a finite number of at least 1")]
Unit = Annotated[float, Range(lambda v: _number(v) and 0 <= v <= 1, "a number from 0 to 1")]
BelowOne = Annotated[float, Range(lambda v: _number(v) and 0 <= v < 1, "a number of at least 0 and below 1")]
InsideUnit = Annotated[float, Range(lambda v: _number(v) and 0 < v < 1, "a number above 0 and below 1")]
Percent = Annotated[float, Range(lambda v: _number(v) and 0 < v <= 100, "a number above 0 and up to 100")]
Count = Annotated[int, Range(lambda v: _whole(v) and v >= 1, "a whole number of at least 1")]
Whole = Annotated[int, Range(_whole, "a whole number of at least 0")]
Text = Annotated[str, Range(matches(r"(?s).+"), "a text")]
Texts = Annotated[Sequence[str], Range(list_of(lambda v: isinstance(v, str)), "a list of texts")]
Widths = Annotated[
    Sequence[int],
    Range(lambda v: bool(v) and list_of(lambda n: _whole(n) and n >= 1)(v), "a list of widths such as [256, 256]"),
]
Steps = Annotated[Sequence[int], Range(lambda v: bool(v) and list_of(_whole)(v), "a list of steps")]
Std: TypeAlias = Literal["state_independent", "state_dependent"] | Positive
"""The standard deviation of a Gaussian: learnt, by the network, or a number."""
Channels: TypeAlias = Literal["auto", "first", "last"]
"""Where the channels of images are: on the first or the last of their three axes, or on that which is short enough."""
Wrappers = Annotated[
    Sequence[Any],
    Range(
        list_of(lambda v: isinstance(v, str) or (isinstance(v, Mapping) and len(v) == 1)),
        "a list of wrappers, each a name or {name: {argument: value}}",
    ),
]
Goals: TypeAlias = Text | Positive | None
"""Who says what a goal is worth: the environment of this id, or a distance; None: that which the data name."""
Options = Annotated[Mapping[str, Any], Range(lambda v: isinstance(v, Mapping), "a mapping")]


def of(hint: Any) -> Range | None:
    """The range that an annotation says, without the lists of `PerMember`; None where it says none.

    A text beside the range is a reason, and ends the sentence.
    """
    if get_origin(hint) is Annotated:
        found = next((one for one in hint.__metadata__ if isinstance(one, Range)), None)
        reasons = [one for one in hint.__metadata__ if isinstance(one, str)]
        return Range(found.accepts, ": ".join([found.wanted, *reasons])) if found else None
    if hint is bool:
        return Range(lambda v: isinstance(v, bool), "true or false")
    if hint is NoneType:
        return Range(lambda v: v is None, "null")
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        # `in` alone would take 1 for true.
        accepts = lambda v: any(type(v) is type(one) and v == one for one in choices)  # noqa: E731
        return Range(accepts, f"one of {', '.join(str(one).lower() for one in choices)}")
    if get_origin(hint) not in (Union, UnionType):
        return None
    each = [of(one) for one in get_args(hint) if not (per_member(hint) and get_origin(one) is Sequence)]
    known = [one for one in each if one]
    if len(known) < len(each):
        return None
    return Range(lambda v: any(one.accepts(v) for one in known), ", or ".join(one.wanted for one in known))


def per_member(hint: Any) -> bool:
    """Whether an annotation is `PerMember` of something."""
    lists, alias = [one for one in get_args(hint) if get_origin(one) is Sequence], cast(Any, PerMember)
    return len(lists) == 1 and bool(hint == alias[get_args(lists[0])[0]])


def shown(value: Any) -> str:
    """A value as people read it; what is long is cut."""
    text = json.dumps(value, default=str)
    return text if len(text) < 60 else f"{text[:60]}…"


def check(name: str, value: Any, hint: Any) -> None:
    """Raises UserError where a value is not in the range that its annotation says, if it says one."""
    found = of(hint)
    if found is None:
        return
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise UserError(f"{name} is {value}, which is too large")
    try:
        fits = found.accepts(value)
    except Exception:  # of a predicate that is for numbers alone
        fits = False
    if not fits:
        raise UserError(f"{name} is {shown(value)}; it must be {found.wanted}")


def arguments(part: Any) -> dict[str, Any]:
    """The annotations of what a function or a class takes, inherited ones included, as far as they can be told."""
    kinds = reversed(part.__mro__) if isinstance(part, type) else ()
    inits = [vars(kind)["__init__"] for kind in kinds if "__init__" in vars(kind)]
    functions = map(inspect.unwrap, inits or [part])
    return {
        name: _meant(hint, function)
        for function in functions
        for name, hint in getattr(function, "__annotations__", {}).items()
    }


def _meant(hint: Any, function: Any) -> Any:
    """What an annotation means, also one that is a text; None where it names what type checkers alone import."""
    try:
        return eval(hint, function.__globals__) if isinstance(hint, str) else hint
    except Exception:
        return None


def check_all(place: str, known: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Check values by name with these annotations, where there may be a list of one a member.

    place: of which setting they are parts, such as "agent".
    """
    for name in known.keys() & values.keys():
        value = values[name]
        value = value.tolist() if hasattr(value, "tolist") else value
        several = per_member(known[name]) and _is_list(value)
        for one in value if several else [value]:
            check(f"{place}.{name}".lstrip("."), one, known[name])


def checked(place: str) -> Callable[[F], F]:
    """Decorates a function, or a class with a constructor of its own, so that it checks what it is called with.

    place: as of `check_all`.
    """

    def decorate(part: F) -> F:
        if not isinstance(part, type):
            return _checking(place, part, part)
        if "__init__" in vars(part):
            part.__init__ = _checking(place, part.__init__, part)  # type: ignore[misc]
        return part

    return decorate


def _checking(place: str, function: Any, owner: Any) -> Any:
    """The function, which first checks what it is called with by the annotations of its owner, a class or itself."""
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, one in inspect.signature(function).parameters.items() if one.kind in by_position]

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        check_all(place, arguments(owner), dict(zip(names, args, strict=False)) | kwargs)
        return function(*args, **kwargs)

    return call
