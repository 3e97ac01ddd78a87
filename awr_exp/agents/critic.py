"""What agents share that judge actions: a discount, and how fast and how often their critic learns."""

from functools import partial
from typing import Any

from awr_exp.agents.agent import Agent
from awr_exp.math.advantages import Estimator
from awr_exp.math.blocks import BLOCK, in_blocks
from awr_exp.networks.mlp import MakeNetwork
from awr_exp.ranges import Count, PerMember, Positive, Unit
from awr_exp.types import Columns, Episodes, Value


def of_critic(network: MakeNetwork, **own: Any) -> MakeNetwork:
    """What makes a critic's network where `network` makes the policy's, by arguments of its own that are not None."""
    return partial(network, **{name: value for name, value in own.items() if value is not None})


class CriticAgent(Agent):
    """An agent with a critic.

    gamma: discount of a step, so that the attribute is gamma^h where actions are chunks of h; critic_lr: learning rate
    of the critic; value_iters: its steps on each batch; critic_layer_norm: layer_norm of the critic's networks, or None
    for that of the policy's. options: other arguments of Agent.
    """

    def __init__(
        self,
        *args: Any,
        gamma: PerMember[Unit] = 0.99,
        critic_lr: PerMember[Positive] = 3e-4,
        value_iters: Count = 1,
        critic_layer_norm: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.make_critic = of_critic(self.make_network, layer_norm=critic_layer_norm)
        self.gamma = self.hyper(gamma) ** self.spec.chunk
        self.critic_lr, self.value_iters = self.hyper(critic_lr), value_iters

    def returns(self, episodes: Episodes, value: Value, estimator: Estimator) -> Columns:
        """The estimator's targets by V(s), and V(s) itself, [K, N], vectorised over blocks of episodes."""

        def of(block: Episodes) -> Columns:
            values, next_values = block.values(value, self.chunk)
            discount, reward = self.gamma * ~block.terminated, block.reward.to(values)
            target = estimator(reward, discount, next_values, block.last, longest=block.longest)
            return {"target": target, "value": values}

        return in_blocks(episodes, of, max(1, BLOCK // self.members))
