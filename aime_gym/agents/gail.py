"""GAIL: Generative Adversarial Imitation Learning (Ho and Ermon 2016, arXiv 1606.03476). An oracle: it sees the
demonstrations' true actions.

    repeat   collect transitions with pi, rewarded by g(f(s, a))
             f   by logistic regression: the demonstrations' (s, a) against those of pi
             pi  by reinforcement learning on the reward

GAIfO with another input to the discriminator, so that the two differ only in what they see. The paper's D is the
probability of the agent, and log D the cost of the policy; here f is the logit of the expert, which makes the paper's
-log D the form ``positive``. Of images, f sees the last few frames, and the action beside their embedding. Deviations:
those of GAIfO; no entropy bonus unless ``algorithm_kwargs`` has ``ent_coef``.
"""

from __future__ import annotations

from typing import ClassVar

from gymnasium import spaces

from aime_gym.agents.learned_reward_agent import LearnedRewardAgent
from aime_gym.learned_reward.discriminator_reward import AdversarialConfig, DiscriminatorInputs, DiscriminatorReward
from aime_gym.models.discriminator import Discriminator
from aime_gym.types import Array, Observation


class GAILAgent(LearnedRewardAgent):
    """An agent that learns in its environment to act as the demonstrations do; an oracle, since it sees their actions.

    Hyper-parameters: [`AdversarialConfig`][].
    """

    config: AdversarialConfig
    discriminator: Discriminator
    presets: ClassVar = {"default": AdversarialConfig()}
    needs_demonstration_actions = True

    def _make_reward(self, space: spaces.Dict) -> DiscriminatorReward:
        return DiscriminatorReward(self.config, DiscriminatorInputs(space, self.action_encoding.size), self.device)

    def reward_fn(self, obs: Observation, actions: Array) -> Array:  # type: ignore[override]
        """Return the learned reward g(f(s, a)) of transitions, (n,), without the value of a termination.

        Images are taken for the first of an episode, the frames before s for copies of s.

        :param obs: s, (n, ...).
        :param actions: a, (n, ...), as the environment takes them.
        :raises ValueError: other sensors or shapes.
        """
        self._require_setup()
        return self.trainer.rewards(obs, actions=actions)
