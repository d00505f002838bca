"""IMRL: an internal model of the expert as a reward (Kimura et al. 2018, arXiv 1806.01267), without its actions.

    model    theta = argmin E[-log p(s' | s; theta)]      over the demonstrations' transitions
    policy   by reinforcement learning on r = log p(s' | s; theta) / D

The reward is learnt once, before the first step, and stays. See [`NextStateModel`][] for
its units, and [`FittedRewardNetwork`][] for the value of a termination.

Deviations: the reward is the log-likelihood, where the paper's experiments have -10 tanh || s' - theta(s) ||; there is
no reward of the task beside it, which the paper adds; theta predicts the change s' - s and is the mean of a Gaussian
with a sigma of its own; terminal states have a value, by way of an absorbing state (``absorbing=False`` leaves it out);
the algorithm looks three steps ahead (``gamma`` 0.7). The reward says how the expert goes on from here, not where to
be: who looks further finds the states that are easy to predict, and stays there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gymnasium import spaces

from aime_gym.agents.learned_reward_agent import LearnedRewardAgent
from aime_gym.learned_reward.fitted_reward import FittedConfig, FittedReward, FittedRewardNetwork
from aime_gym.models.next_state import NextStateModel

#: Discount of the algorithm, unless ``algorithm_kwargs`` has another.
_GAMMA = 0.7


@dataclass(frozen=True)
class IMRLConfig(FittedConfig):
    """Hyper-parameters of [`IMRLAgent`][]: [`FittedConfig`][]'s.

    The algorithm's ``gamma`` is 0.7 unless ``algorithm_kwargs`` has another.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "algorithm_kwargs", {"gamma": _GAMMA} | self.algorithm_kwargs)


class IMRLAgent(LearnedRewardAgent):
    """An agent that learns in its environment to reach the states that the expert would have reached from where it was.

    Needs no actions. Hyper-parameters: [`IMRLConfig`][].
    """

    config: IMRLConfig
    reward_model: FittedRewardNetwork
    presets: ClassVar = {"default": IMRLConfig()}

    def _make_reward(self, space: spaces.Dict) -> FittedReward:
        config = self.config
        model = NextStateModel(sum(self.sensor_sizes.values()), hidden=config.hidden, layers=config.layers)
        return FittedReward(config, model, self.device)
