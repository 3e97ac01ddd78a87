"""What W&B itself is set to."""

import logging
import os
from contextlib import suppress
from pathlib import Path

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
