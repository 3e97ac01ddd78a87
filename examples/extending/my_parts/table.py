"""A data set: what a log in a CSV file says."""

import csv
from itertools import groupby
from typing import Any

from awr_exp.data.episodes import from_episodes
from awr_exp.data.transitions import Transitions
from awr_exp.types import Spec

SPEC = Spec(obs_dim=2, action_dim=1, action_low=(-1.0,), action_high=(1.0,))


def read(path: str, device: Any = "cpu") -> Transitions:
    """The episodes of the log at `path`; the last row of each is what was seen at its end."""
    with open(path, newline="") as file:
        parts = [list(rows) for _, rows in groupby(csv.DictReader(file), lambda row: row["episode"])]
    episodes = [
        {
            "observations": [[row["place"], row["wind"]] for row in rows],
            "actions": [[row["step"]] for row in rows[:-1]],
            "rewards": [row["reward"] for row in rows[:-1]],
            "terminated": rows[-2]["ended"] == "1",
        }
        for rows in parts
    ]
    return from_episodes(path, SPEC, episodes).to(device)
