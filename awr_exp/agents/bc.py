"""Behaviour cloning: the actor's regression with weight 1."""

from awr_exp.agents.agent import Agent


class BC(Agent):
    """Maximum likelihood of the data's actions; `actor_iters` steps on each batch."""
