"""An environment that is registered with Gymnasium: whoever imports this module can make Corridor-v0.

`python -m my_parts.corridor log.csv` plays some episodes of random actions and writes them to a file.
"""

import csv
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Corridor(gymnasium.Env):
    """One walks from -1 to the door at 1 in steps of up to 0.2, in a wind that changes; each step costs 0.1."""

    observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.wind = -1.0, 0.0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.wind = float(0.9 * self.wind + 0.02 * self.np_random.normal())
        self.place = float(np.clip(self.place + 0.2 * action[0] + self.wind, -2, 2))
        there = self.place >= 1
        return self._seen(), (1.0 if there else -0.1), there, False, {}

    def _seen(self) -> Any:
        return np.array([self.place, self.wind], np.float32)


gymnasium.register("Corridor-v0", "my_parts.corridor:Corridor", max_episode_steps=30)


def write_log(path: str, episodes: int = 40) -> None:
    """Random episodes as rows: episode, what was seen, what was done, and what came of it."""
    env = gymnasium.make("Corridor-v0")
    env.action_space.seed(0)
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["episode", "place", "wind", "step", "reward", "ended"])
        for episode in range(episodes):
            (place, wind), _ = env.reset(seed=episode)
            terminated = truncated = False
            while not (terminated or truncated):
                action = env.action_space.sample() * 0.5 + 0.5
                seen, reward, terminated, truncated, _ = env.step(action)
                rows.writerow([episode, place, wind, action[0], reward, int(terminated)])
                place, wind = seen
            # What was seen last, after which nothing was done.
            rows.writerow([episode, place, wind, "", "", ""])


if __name__ == "__main__":
    write_log(sys.argv[1])
