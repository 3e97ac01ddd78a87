"""What Hydra and OmegaConf say of a command line, in one line, and what was meant instead."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from awr_exp.config import CONF, SWEEPS
from awr_exp.errors import named
from awr_exp.help import SUBCOMMANDS
from awr_exp.vocabulary import names, near


@contextmanager
def plain_errors(own: Iterable[str] = ()) -> Iterator[None]:
    """End with what is wrong with a command line, and no more; HYDRA_FULL_ERROR=1 asks for Hydra's traceback.

    own: names of settings of a command that does not train.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    # Else it prints them itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except (CompactHydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {said(error, own).removeprefix('error: ')}")
    except ValueError as error:
        if not str(error).startswith("Unable to configure"):
            raise
        sys.exit(f"error: hydra.job_logging: {error} ({named(error.__cause__ or error)})")
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def said(error: Exception, own: Iterable[str] = ()) -> str:
    """What Hydra says, in one line, but for its advice on `+`."""
    text, cause = str(error), error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_option(error)
    if (name := re.match("Could not override '(.+)'", text)) and isinstance(
        cause, ConfigAttributeError | ConfigKeyError
    ):
        return _no_setting(name[1], own)
    if name := re.match("Could not delete from config. '(.+)' does not exist", text):
        return _no_setting(name[1], own)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if name := re.match(r"Multiple values for (.+?)\. ", text):
        return f"{name[1]} has a choice already: leave out the + on a command line, or write override in a yaml"
    if name := re.match("Could not append to config. An item is already at '(.+)'", text):
        return f"{name[1]} is a setting already: leave out the +"
    told = f"{text} {cause}" if isinstance(cause, OmegaConfBaseException) else text
    told = re.sub(r"full_key: .*", "", told, flags=re.DOTALL).partition("See https://hydra.cc")[0]
    return " ".join(told.split())


def _unreadable(error: OverrideParseException) -> str:
    """What is said of an override that Hydra's grammar cannot read."""
    what, reason = error.override or "''", " ".join(error.message.partition("See https://hydra.cc")[0].split())
    if re.fullmatch(r"[^\W\d][\w-]*", what):
        *most, last = SUBCOMMANDS
        commands = f"{', '.join(most)} and {last}"
        close = near(what, SUBCOMMANDS)
        return f"there is no command '{what}': there are {commands}, and settings such as agent.beta=0.05{close}"
    if "missing EQUAL" in reason:
        return f"'{what}' is no setting: write name=value, such as agent.beta=0.05"
    if "while evaluating" in reason:
        return reason
    return (
        f"{what} cannot be read: close what it opens, or put its value into quotes, which the shell must not "
        "take away: \"a='b c'\""
    )


def _no_such_option(error: MissingConfigException) -> str:
    """What is said of an option that is not there: its name as the user wrote it, and the options there are."""
    group, _, option = str(error.missing_cfg_file).removesuffix(".yaml").rpartition("/")
    where = re.match("In '(.+?)'", str(error))
    told = f"{where[1]}.yaml: " if where and where[1] not in ("config", "hydra/config") else ""
    if not group:
        return f"{told}there is no configuration {option}"
    if not error.options:
        return f"{told}{group}={option}: there is no such option, nor any other of {group}"
    there = list(map(str, error.options))
    close = near(option, there)
    return f"{told}{group}={option}: choose {group}=<one of {', '.join(there)}> or leave it out{close}"


def _no_setting(name: str, own: Iterable[str]) -> str:
    """What is said of a name that is not there: where it is, or what was meant."""
    known = names(CONF, SWEEPS)
    there = known.get(name.lstrip("+~"))
    if there:
        return f"there is no {name} with the options that are chosen: it is a setting of {', '.join(there)}"
    return f"there is no {name} with the options that are chosen{near(name, [*own, *known]) or ': --help lists them'}"
