"""What a data set says of the environments it belongs to. It is somebody else's text: nothing it names is imported."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.envs.registration import WrapperSpec

from awr_exp.envs.spaces import keeping_choices
from awr_exp.errors import UserError, first_line
from awr_exp.guard import names_file, names_module
from awr_exp.vocabulary import near

RECREATED = (
    *("AddRenderObservation", "AtariPreprocessing", "ClipAction", "ClipReward", "DelayObservation", "DiscretizeAction"),
    *("DiscretizeObservation", "DtypeObservation", "FilterObservation", "FlattenObservation", "FrameStackObservation"),
    *("GrayscaleObservation", "MaxAndSkipObservation", "NormalizeObservation", "NormalizeReward", "RepeatAction"),
    *("RescaleAction", "RescaleObservation", "ReshapeObservation", "ResizeObservation", "StickyAction"),
    *("TimeAwareObservation", "TimeLimit"),
)
"""Gymnasium's wrappers that do again what they did, given their arguments."""
LEARNING = ("NormalizeObservation", "NormalizeReward")
"""The wrappers among them that learn statistics, which begin anew."""
IDLE = (
    *("AddWhiteNoise", "AutoResetWrapper", "Autoreset", "FlattenObservation", "HumanRendering", "ObstructView"),
    *("OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo", "RenderCollection"),
    *("StepAPICompatibility", "TimeLimit"),
)
"""Gymnasium's wrappers that change nothing in an episode, or nothing that is not seen to otherwise."""
RENAMED = {"GrayScaleObservation": "GrayscaleObservation"}
"""Wrappers that had other names before, with the same arguments."""


@dataclass(frozen=True)
class EnvSource:
    """An environment as gymnasium's EnvSpec describes it, but for its code.

    max_episode_steps: as gymnasium.make takes it, None: as registered, -1: without a limit; package: where the code of
    the environment was, as far as that is known.
    """

    id: str
    kwargs: dict[str, Any]
    max_episode_steps: int | None = None
    additional_wrappers: tuple[WrapperSpec, ...] = ()
    package: str | None = None


def parse(text: Any) -> EnvSource:
    """An EnvSpec in JSON, of any version of gymnasium. Raises ValueError, with the reason, if it is none."""
    content = json.loads(text) if isinstance(text, str) else text
    id = content.get("id") if isinstance(content, dict) else None
    if not isinstance(id, str) or not re.fullmatch(r"[\w:./-]+", id):
        raise ValueError("it names no id")
    kwargs, wrappers = content.get("kwargs") or {}, content.get("additional_wrappers") or []
    if not isinstance(kwargs, dict) or not all(map(str.isidentifier, kwargs)) or not isinstance(wrappers, list):
        raise ValueError("its kwargs or additional_wrappers are of another kind")
    steps = content.get("max_episode_steps", "registered")
    if not (steps in (None, "registered") or (type(steps) is int and steps > 0)):
        raise ValueError(f"its max_episode_steps is {steps!r}")
    # A window, or pictures that nobody looks at: how it was watched is no part of the task.
    kwargs = {name: value for name, value in kwargs.items() if name != "render_mode"}
    package = str(content.get("entry_point") or "").partition(":")[0].partition(".")[0]
    return EnvSource(
        id=id,
        kwargs=kwargs,
        max_episode_steps={None: -1, "registered": None}.get(steps, steps),
        additional_wrappers=tuple(map(_wrapper, wrappers)),
        # All that gymnasium registers is there already.
        package=package if package.isidentifier() and package != "gymnasium" else None,
    )


def _wrapper(content: Any) -> WrapperSpec:
    if not isinstance(content, dict):
        raise ValueError("one of its additional_wrappers is of another kind")
    name, code, kwargs = (content.get(key) for key in ("name", "entry_point", "kwargs"))
    if not str(name).isidentifier() or not isinstance(code, str) or not isinstance(kwargs, dict | None):
        raise ValueError("one of its additional_wrappers is of another kind")
    return WrapperSpec(str(name), code, kwargs)


def put_on(env: gymnasium.Env, wrappers: Sequence[WrapperSpec]) -> gymnasium.Env:
    """The environment in the wrappers that it was recorded through, as far as they are gymnasium's.

    Those that it has from the start stay the only ones of their kind. Raises ValueError, with the name, for one that
    cannot be made.
    """
    own = _classes(env)
    # Those that it is registered with come first.
    known = len(own) if list(map(_class, wrappers[: len(own)])) == own else 0
    for wrapper in wrappers[known:]:
        if name := recreated(wrapper):
            kwargs = {key: _as_tuple(value) for key, value in (wrapper.kwargs or {}).items()}
            try:
                env = keeping_choices(getattr(gymnasium.wrappers, name)(env, **kwargs))
            except Exception as error:
                raise ValueError(f"the wrapper {name} cannot be put on: {first_line(error)}") from None
    return env


def asked(wrapper: Any) -> WrapperSpec:
    """A wrapper of gymnasium by its name, or by {name: {argument: value}}. Raises UserError for another one."""
    name, kwargs = next(iter(wrapper.items())) if isinstance(wrapper, Mapping) else (wrapper, None)
    if name not in RECREATED:
        raise UserError(
            f"env.wrappers: {name} is none of gymnasium's that can be made by its arguments: put it on in an "
            f"environment of your own, registered as my_module:MyEnv-v0{near(str(name), RECREATED)}"
        )
    if not isinstance(kwargs or {}, Mapping):
        raise UserError(f"env.wrappers: give the arguments of {name} by name, such as {{{name}: {{argument: value}}}}")
    return WrapperSpec(name, f"gymnasium.wrappers.{name}:{name}", dict(kwargs or {}))


def stack(history: int) -> list[dict[str, Any]]:
    """The wrapper, as `asked` takes it, that shows so many observations at once; none for one of them."""
    return [{"FrameStackObservation": {"stack_size": history}}] if history > 1 else []


def missing(env: gymnasium.Env, wrappers: Sequence[WrapperSpec]) -> list[WrapperSpec]:
    """The recorded wrappers that an environment should have and has not."""
    own, found = _classes(env), []
    for wrapper in wrappers:
        if _class(wrapper) in own:
            own.remove(_class(wrapper))
        elif not _idle(wrapper):
            found.append(wrapper)
    return found


def reaches_out(value: Any) -> bool:
    """Whether a text somewhere in the arguments of an environment makes it import a module or open a file."""
    if isinstance(value, dict | list | tuple):
        return any(map(reaches_out, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and (names_module(value) or names_file(value))


def described(env: Any) -> str:
    """An environment in words, of what tells it from others of its name."""
    limit = env.max_episode_steps
    steps = {None: [], -1: ["no time limit"]}.get(limit, [f"{limit} steps"])
    options = [f"{name}={value!r:.40}" for name, value in env.kwargs.items()]
    wrappers = [wrapper.name for wrapper in env.additional_wrappers if not _idle(wrapper)]
    more = ", ".join([*steps, *options, *wrappers])
    return f"{env.id} ({more})" if more else env.id


def _class(wrapper: WrapperSpec) -> str:
    name = wrapper.entry_point.rpartition(":")[2].removesuffix("V0")
    return RENAMED.get(name, name)


def _classes(env: gymnasium.Env) -> list[str]:
    """The wrappers that an environment is in, as far as it says."""
    return list(map(_class, env.spec.additional_wrappers)) if env.spec else []


def _of_gymnasium(wrapper: WrapperSpec) -> bool:
    return wrapper.entry_point.startswith(("gymnasium.wrappers.", "gymnasium.experimental.wrappers."))


def recreated(wrapper: WrapperSpec) -> str | None:
    """Its name in gymnasium.wrappers, if it can be made again from there."""
    name = _class(wrapper)
    return name if _of_gymnasium(wrapper) and name in RECREATED and wrapper.kwargs is not None else None


def _idle(wrapper: WrapperSpec) -> bool:
    return _of_gymnasium(wrapper) and _class(wrapper) in IDLE


def _as_tuple(value: Any) -> Any:
    """JSON has lists where gymnasium's wrappers want tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
