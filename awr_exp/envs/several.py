"""What our own environments share that are stepped many at once."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space


class Several(gymnasium.vector.VectorEnv):
    """Is `num_envs` of an environment at once; an episode begins in the step after the last one's end.

    A class of this kind names the spaces of one.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1) -> None:
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)


class One(gymnasium.Env):
    """Is a single one of a vectorised form, which a class of this kind names beside the spaces."""

    form: type[Several]

    def __init__(self) -> None:
        self.one = self.form()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.one.np_random = self.np_random
        (obs,), info = self.one.reset()
        return obs, info

    def step(self, action: Any) -> Any:
        """Takes an action."""
        (obs,), (reward,), (terminated,), (truncated,), info = self.one.step(np.array([action]))
        return obs, float(reward), bool(terminated), bool(truncated), info
