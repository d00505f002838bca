"""PMI-IL: pointwise mutual information of a state and the next one as a reward.

    model    f = argmin -E log f(s, s') / sum_j f(s, s_j)      over the demonstrations' transitions
    policy   by reinforcement learning on r = log f(s, s') / sum_j f(s, s_j)

From the slides "Imitation Learning from Observations" (Eq. 14 and 18), which name no paper. f(s, s') is
exp(phi_1(s')^T phi_2(s) / tau), a network for each side, so that the model tells transitions apart instead of
generating states. The reward is learnt once, before the first step, and stays. See
[`TwoTowerModel`][], and
[`FittedRewardNetwork`][] for the value of a termination.

Deviations: the reward has the sign of what it means, how likely the expert is to go from s to s', where the slides have
-log; phi_1 sees the change s' - s, and the s_j are s under other changes, some of them with noise; terminal states
have a value, by way of an absorbing state (``absorbing=False`` leaves it out); no entropy bonus unless
``algorithm_kwargs`` has ``ent_coef``. What the slides leave open (networks, number of negatives, tau, the algorithm) is
a choice of this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gymnasium import spaces

from aime_gym.agents.learned_reward_agent import LearnedRewardAgent
from aime_gym.config import MAX_RECORDS, MAX_UNITS, check_bounds
from aime_gym.learned_reward.fitted_reward import FittedConfig, FittedReward, FittedRewardNetwork
from aime_gym.models.two_tower import TwoTowerModel


@dataclass(frozen=True)
class PMIILConfig(FittedConfig):
    """Hyper-parameters of [`PMIILAgent`][], over [`FittedConfig`][]'s.

    :param temperature: tau of [`TwoTowerModel`][].
    :param embedding: size of the towers' outputs.
    :param negatives: number of changes in the denominator of the reward; that of the loss follows ``batch_size``.
    """

    temperature: float = 0.1
    embedding: int = 32
    negatives: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, temperature=(0.01, None), embedding=(1, MAX_UNITS), negatives=(2, MAX_RECORDS))


class PMIILAgent(LearnedRewardAgent):
    """An agent that learns in its environment to make the transitions that are the expert's rather than anybody's.

    Needs no actions. Hyper-parameters: [`PMIILConfig`][].
    """

    config: PMIILConfig
    reward_model: FittedRewardNetwork
    presets: ClassVar = {"default": PMIILConfig()}

    def _make_reward(self, space: spaces.Dict) -> FittedReward:
        config = self.config
        model = TwoTowerModel(
            sum(self.sensor_sizes.values()),
            hidden=config.hidden,
            layers=config.layers,
            embedding=config.embedding,
            temperature=config.temperature,
            negatives=config.negatives,
        )
        return FittedReward(config, model, self.device)
