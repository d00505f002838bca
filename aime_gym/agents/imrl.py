"""IMRL: an internal model of the expert as a reward (Kimura et al. 2018, arXiv 1806.01267), without its actions.

    model    theta = argmin E[-log p(s' | s; theta)]      over the demonstrations' transitions
    policy   by reinforcement learning on a reward that falls with || s' - theta(s) ||, for example

        r = -10 tanh || s' - theta(s) ||     in the paper
        r = log p(s' | s; theta)             here, unless `reward` says otherwise

The reward is learnt once, before the first step, and stays. See :class:`~aime_gym.models.next_state.NextStateModel` for
its forms, and :class:`~aime_gym.learned_reward.fitted_reward.FittedRewardNetwork` for what is paid where episodes end.

Deviations: there is no reward of the task beside it, which the paper adds; theta predicts the change s' - s and is the
mean of a Gaussian with a sigma of its own; the norm is the root mean square, of features in units of the size of their
changes; terminal states have a value, by way of an absorbing state (``absorbing=False`` leaves it out); the algorithm
looks three steps ahead (``gamma`` 0.7). The reward says how the expert goes on from here, not where to be: who looks
further finds the states that are easy to predict, and stays there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aime_gym.agents.learned_reward_agent import LearnedRewardAgent
from aime_gym.config import check_choices
from aime_gym.learned_reward.fitted_reward import FittedConfig, FittedReward, FittedRewardNetwork
from aime_gym.models.flat_layout import FlatLayout
from aime_gym.models.next_state import REWARDS, NextStateModel
from aime_gym.types import Array, Observation

#: Of the algorithm, unless ``algorithm_kwargs`` says otherwise.
_GAMMA = 0.7


@dataclass(frozen=True)
class IMRLConfig(FittedConfig):
    """Hyper-parameters of :class:`IMRLAgent`, over :class:`~aime_gym.learned_reward.fitted_reward.FittedConfig`'s.

    :param reward: form of the reward, ``likelihood``, ``tanh`` or ``exp``; see
        :class:`~aime_gym.models.next_state.NextStateModel`.
    """

    reward: str = "likelihood"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, reward=REWARDS)
        object.__setattr__(self, "algorithm_kwargs", {"gamma": _GAMMA} | self.algorithm_kwargs)


class IMRLAgent(LearnedRewardAgent):
    """Learns in its environment to reach the states that the expert would have reached from where it was.

    ``imitate(demos)`` takes ``timesteps`` environment steps, ``imitate(demos, total_timesteps)`` as many as it is told,
    and ``learn(total_timesteps)`` goes on. Needs neither play nor the demonstrations' actions. Hyper-parameters:
    :class:`IMRLConfig`.
    """

    config: IMRLConfig
    reward_model: FittedRewardNetwork
    presets: ClassVar = {"default": IMRLConfig()}

    def _setup_networks(self) -> None:
        self._features = sum(self.sensor_sizes.values())
        super()._setup_networks()

    def _make_reward(self, layout: FlatLayout) -> FittedReward:
        config = self.config
        model = NextStateModel(self._features, hidden=config.hidden, layers=config.layers, reward=config.reward)
        return FittedReward(config, model, self.device)

    def reward_fn(self, obs: Observation, next_obs: Observation) -> Array:
        """The reward of transitions, (n,): how near s' is to what the expert would have reached from s.

        See :class:`~aime_gym.models.next_state.NextStateModel`.

        :param obs: (n, ...), and ``next_obs`` likewise: at an episode's end the last observation, not the next start.
        :raises ValueError: other sensors or shapes.
        """
        self._require_setup()
        return self.trainer.rewards(obs, next_obs=next_obs)
