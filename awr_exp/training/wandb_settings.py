"""What W&B itself is set to."""

import logging
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from awr_exp.errors import named
from awr_exp.machine import cache_home

log = logging.getLogger(__name__)


def settle_cache(folder: Path) -> None:
    """Where W&B keeps its own log and cache: `folder`, if the user has no place for it, else the terminal gets all."""
    home = cache_home()
    if home and "WANDB_CACHE_DIR" not in os.environ:
        with suppress(OSError):
            (home / "wandb").mkdir(parents=True, exist_ok=True)
    place = home / "wandb" if home and os.access(home / "wandb", os.W_OK) else folder.absolute() / "wandb" / "cache"
    os.environ.setdefault("WANDB_CACHE_DIR", str(place))


_repository: dict[str, Any] = {}
"""What W&B found of the repository of this process when the first run began, as settings of the next ones."""


def known() -> dict[str, Any]:
    """Settings that spare a run what W&B asks git, and of all packages: a second for every run of a sweep."""
    return {"x_save_requirements": False, **_repository}


def tell_packages(run: Any) -> None:
    """Hand W&B the installed packages, and keep what it found of the repository, for the next runs."""
    import wandb

    settings = run.settings
    _repository.update(disable_git=True, git_commit=settings.git_commit, git_remote_url=settings.git_remote_url)
    if wandb.setup().settings.x_save_requirements and (interface := getattr(run, "_interface", None)):
        interface.publish_python_packages(_packages())


@cache
def _packages() -> list[Any]:
    from wandb.util import working_set

    return list(working_set())


def has_key() -> bool:
    """Whether W&B has credentials for its server: in the environment, a netrc file or its own settings."""
    import wandb
    from wandb.sdk.lib import wbauth

    try:
        host = wandb.setup(settings=wandb.Settings(silent=True)).settings.base_url
        return bool(wbauth.authenticate_session(host=host, source="awr_exp", prompt=False, update_session=False))
    except (wandb.errors.AuthenticationError, ValueError) as error:  # the second of a variable that means nothing
        log.warning("W&B cannot be used online: %s", named(error))
        return False


def answers(url: str) -> bool:
    """Whether a server says anything at all, and soon."""
    try:
        urlopen(url, timeout=5).close()
    except HTTPError:
        return True
    except URLError as error:
        # Of certificates W&B has its own opinion.
        return isinstance(error.reason, SSLError)
    except OSError:
        return False
    return True


def possible(mode: str, out_of_reach: bool) -> str:
    """What a mode comes to: "auto" is what W&B's variables say, and online needs a key and a server within reach."""
    if mode == "auto":
        if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
            return "disabled"
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
    if mode != "online":
        return mode
    if not has_key():
        # W&B would ask for one, and wait.
        log.warning("no W&B key is configured: this run is logged offline")
        return "offline"
    if out_of_reach:
        # Each of many jobs would wait for the server anew.
        log.warning("W&B was out of reach a moment ago: this run is logged offline")
        return "offline"
    return "online"
