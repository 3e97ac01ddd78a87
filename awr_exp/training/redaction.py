"""Configurations and command lines without their secrets."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SECRET = re.compile(r"((^|[^a-z])|api|access|private)keys?$|token|secret|passw|credential", re.IGNORECASE)
_MASK = "***"
_SHORTEST_SECRET = 8
"""Shorter values of variables such as TOKENIZERS_PARALLELISM=true would mask ordinary words."""


def redact(value: Any) -> Any:
    """A copy of a config without its secrets, which are masked by three asterisks.

    Masked are entries whose key looks like a secret's (`api_key`, `hub_token`, `password`...) and every
    occurrence of a value that the environment holds under such a name.
    """
    secrets = [v for k, v in os.environ.items() if len(v) >= _SHORTEST_SECRET and _SECRET.search(k)]
    return _redact(value, sorted(secrets, key=len, reverse=True))


def _redact(value: Any, secrets: Sequence[str]) -> Any:
    match value:
        case Mapping():
            return {k: _MASK if v and _SECRET.search(str(k)) else _redact(v, secrets) for k, v in value.items()}
        case list() | tuple():
            return [_redact(v, secrets) for v in value]
        case str() | Path():
            text = str(value)
            for secret in secrets:
                text = text.replace(secret, _MASK)
            return text
    return value


def command_line_has_a_secret() -> bool:
    """Whether this program was started with one."""
    arguments = sys.argv[1:]
    pairs = [dict([argument.partition("=")[::2]]) for argument in arguments]
    return redact([arguments, pairs]) != [arguments, pairs]
