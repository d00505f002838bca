"""GAIL: Generative Adversarial Imitation Learning (Ho and Ermon 2016, arXiv 1606.03476). An oracle: it sees the
demonstrations' true actions.

    repeat   collect transitions with pi, paid g(f(s, a))
             f   by logistic regression: the demonstrations' (s, a) against those of pi
             pi  by reinforcement learning on the reward

GAIfO with another input to the discriminator, so that the two differ only in what they see. The paper's D is the
probability of the agent, and log D what the policy pays; here f is the logit of the expert, which makes the paper's
-log D the form ``positive``. Of images, f sees the last few frames, and the action beside their embedding. Deviations:
those of GAIfO; no entropy bonus unless ``algorithm_kwargs`` has ``ent_coef``.
"""

from __future__ import annotations

from typing import ClassVar

from aime_gym.agents.learned_reward_agent import LearnedRewardAgent
from aime_gym.learned_reward.discriminator_reward import AdversarialConfig, DiscriminatorInputs, DiscriminatorReward
from aime_gym.models.discriminator import Discriminator
from aime_gym.models.flat_layout import FlatLayout
from aime_gym.types import Array, Observation


class GAILAgent(LearnedRewardAgent):
    """Learns in its environment to act as the demonstrations do; an oracle for agents that see no actions.

    ``imitate(demos)`` takes ``timesteps`` environment steps, ``imitate(demos, total_timesteps)`` as many as it is told,
    and ``learn(total_timesteps)`` goes on. Needs no play. Hyper-parameters:
    :class:`~aime_gym.learned_reward.discriminator_reward.AdversarialConfig`.
    """

    config: AdversarialConfig
    discriminator: Discriminator
    presets: ClassVar = {"default": AdversarialConfig()}
    needs_demonstration_actions = True

    def _make_reward(self, layout: FlatLayout) -> DiscriminatorReward:
        return DiscriminatorReward(self.config, DiscriminatorInputs(layout, self.action_encoding.size), self.device)

    def reward_fn(self, obs: Observation, actions: Array) -> Array:
        """The learned reward g(f(s, a)) of transitions, (n,).

        See :class:`~aime_gym.models.discriminator.Discriminator`. Images are taken for the first of an episode, the
        frames before s for copies of s.

        :param obs: (n, ...).
        :param actions: (n, ...), as the environment takes them.
        :raises ValueError: other sensors or shapes.
        """
        self._require_setup()
        return self.trainer.rewards(obs, actions=actions)
