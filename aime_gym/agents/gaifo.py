"""GAIfO: Generative Adversarial Imitation from Observation (Torabi, Warnell and Stone 2018, arXiv 1807.06158).

    repeat   collect transitions with pi, rewarded by g(f(s, s'))
             f   by logistic regression: the demonstrations' (s, s') against those of pi
             pi  by reinforcement learning on the reward

The paper's discriminator D is the probability of the agent, and its reward -log D; here f is the logit of the expert,
which makes that the form ``positive``. See [`Discriminator`][] for the forms and for
what happens where episodes end. Of images, the policy and f see the last few frames (``frame_stack``): f those of s and
of s', one behind the other along the channels, both shifted at random (``augment``).

Deviations: PPO by default, where the paper has TRPO (``algorithm="trpo"``); the reward is the logit; terminal states
have a value, by way of an absorbing state (``absorbing=False`` leaves it out); the discriminator is regularised and its
inputs, (s, s' - s), are standardised, as are the policy's; the reward comes in units of the running spread of its
discounted sums. All steps of a rollout are rewarded by the discriminator as it was when the rollout began.
"""

from __future__ import annotations

from typing import ClassVar

from gymnasium import spaces

from aime_gym.agents.learned_reward_agent import LearnedRewardAgent
from aime_gym.learned_reward.discriminator_reward import AdversarialConfig, DiscriminatorInputs, DiscriminatorReward
from aime_gym.models.discriminator import Discriminator


class GAIfOAgent(LearnedRewardAgent):
    """An agent that learns in its environment to make transitions like the demonstrations', without their actions.

    Hyper-parameters: [`AdversarialConfig`][].
    """

    config: AdversarialConfig
    discriminator: Discriminator
    presets: ClassVar = {"default": AdversarialConfig()}

    def _make_reward(self, space: spaces.Dict) -> DiscriminatorReward:
        return DiscriminatorReward(self.config, DiscriminatorInputs(space), self.device)
