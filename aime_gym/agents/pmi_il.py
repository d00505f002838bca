"""PMI-IL: pointwise mutual information of a state and the next one as a reward.

    model    f = argmin -E log f(s, s') / sum_j f(s, s_j)      over the demonstrations' transitions
    policy   by reinforcement learning on r = log f(s, s') / sum_j f(s, s_j)

From the slides "Imitation Learning from Observations" (Eq. 14 and 18), which name no paper. f(s, s') is
exp(phi_1(s')^T phi_2(s) / tau), a network for each side, so that the model tells transitions apart instead of
generating states. The reward is learnt once, before the first step, and stays. See
:class:`~aime_gym.models.two_tower.TwoTowerModel` for its forms, and
:class:`~aime_gym.learned_reward.fitted_reward.FittedRewardNetwork` for what is paid where episodes end.

Deviations: the reward has the sign of what it means, how likely the expert is to go from s to s', where the slides have
-log; phi_1 sees the change s' - s, and the s_j are s under other changes, some of them with noise; terminal states
have a value, by way of an absorbing state (``absorbing=False`` leaves it out); no entropy bonus unless
``algorithm_kwargs`` has ``ent_coef``. What the slides leave open (networks, number of negatives, tau, the algorithm) is
a choice of this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aime_gym.agents.learned_reward_agent import LearnedRewardAgent
from aime_gym.config import MAX_RECORDS, MAX_UNITS, check_bounds, check_choices
from aime_gym.learned_reward.fitted_reward import FittedConfig, FittedReward, FittedRewardNetwork
from aime_gym.models.flat_layout import FlatLayout
from aime_gym.models.two_tower import REWARDS, TwoTowerModel
from aime_gym.types import Array, Observation


@dataclass(frozen=True)
class PMIILConfig(FittedConfig):
    """Hyper-parameters of :class:`PMIILAgent`, over :class:`~aime_gym.learned_reward.fitted_reward.FittedConfig`'s.

    :param reward: form of the reward, ``softmax`` or ``cosine``; see :class:`~aime_gym.models.two_tower.TwoTowerModel`.
    :param temperature: tau there.
    :param embedding: size of the towers' outputs.
    :param negatives: changes in the denominator of the reward; that of the loss follows ``batch_size``.
    """

    reward: str = "softmax"
    temperature: float = 0.1
    embedding: int = 32
    negatives: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, reward=REWARDS)
        check_bounds(self, temperature=(0.01, None), embedding=(1, MAX_UNITS), negatives=(2, MAX_RECORDS))


class PMIILAgent(LearnedRewardAgent):
    """Learns in its environment to make the transitions that are the expert's rather than anybody's.

    ``imitate(demos)`` takes ``timesteps`` environment steps, ``imitate(demos, total_timesteps)`` as many as it is told,
    and ``learn(total_timesteps)`` goes on. Needs neither play nor the demonstrations' actions. Hyper-parameters:
    :class:`PMIILConfig`.
    """

    config: PMIILConfig
    reward_model: FittedRewardNetwork
    presets: ClassVar = {"default": PMIILConfig()}

    def _setup_networks(self) -> None:
        self._features = sum(self.sensor_sizes.values())
        super()._setup_networks()

    def _make_reward(self, layout: FlatLayout) -> FittedReward:
        config = self.config
        model = TwoTowerModel(
            self._features,
            hidden=config.hidden,
            layers=config.layers,
            embedding=config.embedding,
            temperature=config.temperature,
            negatives=config.negatives,
            reward=config.reward,
        )
        return FittedReward(config, model, self.device)

    def reward_fn(self, obs: Observation, next_obs: Observation) -> Array:
        """The reward of transitions, (n,): how likely the expert is to go from s to s'.

        See :class:`~aime_gym.models.two_tower.TwoTowerModel`.

        :param obs: (n, ...), and ``next_obs`` likewise: at an episode's end the last observation, not the next start.
        :raises ValueError: other sensors or shapes.
        """
        self._require_setup()
        return self.trainer.rewards(obs, next_obs=next_obs)
