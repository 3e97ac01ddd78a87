"""What our own environments share that are stepped many at once."""

import gymnasium
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
