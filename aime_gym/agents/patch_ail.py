"""PatchAIL: visual imitation learning with patch rewards (Liu et al. 2023, arXiv 2302.00840). It sees images alone.

    repeat   collect transitions with pi, rewarded by w(o, o') mean_p f_p(o, o')
             f_p by logistic regression, on average over the patches p: the demonstrations' (o, o') against those of pi
             pi  by reinforcement learning on the reward

    w = lambda exp(-KL(q(o, o') || q_E))        q  the distribution over patches of sigmoid(f_p), q_E that of the expert

The discriminator is convolutional to the end, so that each of its logits is of a patch of both images alone. Where the
agent looks like the expert is lost in one logit for the whole, and the mean of many keeps it. See
[`PatchLogits`][] and, for w and its lambda,
[`PatchSimilarity`][].

Deviations: PPO, or SAC (``algorithm="sac"``) whose actor sees through the critic's encoder, where the authors have
DrQ-v2 with three-step returns and noise on a schedule; a smaller encoder; what SAC's replay buffer hands out is
rewarded anew by the discriminator of the moment, where theirs is rewarded once, at an episode's end; no pair (o_0, o_0)
in front of an episode; the discriminator learns from the latest transitions alone, not from the replay buffer; q_E is
that of a batch, after each series of updates; the gradient penalty is one-sided, for slopes above one; both stacks of a
pair are shifted alike; terminal states have a value, by way of an absorbing state (``absorbing=False`` leaves it out),
which w leaves alone; the reward comes in units of the running spread of its discounted sums; what acts is the average
of past policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gymnasium import spaces

from aime_gym.agents.learned_reward_agent import LearnedRewardAgent
from aime_gym.learned_reward.discriminator_reward import AdversarialConfig, DiscriminatorInputs, DiscriminatorReward
from aime_gym.models.discriminator import Discriminator
from aime_gym.models.patch_discriminator import PatchLogits, PatchSimilarity


@dataclass(frozen=True)
class PatchAILConfig(AdversarialConfig):
    """Hyper-parameters of [`PatchAILAgent`][], over
    [`AdversarialConfig`][]'s.

    :param discriminator_hidden: channels of the first convolution; each further one has twice as many.
    :param discriminator_layers: convolutions before the one that makes the logits.
    """

    discriminator_hidden: int = 32
    discriminator_layers: int = 3
    batch_size: int = 128
    learning_rate: float = 1e-4


class PatchAILAgent(LearnedRewardAgent):
    """An agent that learns in its environment to look like the demonstrations, patch by patch, without their actions.

    The policy sees vectors too, if there are any, the discriminator does not. Hyper-parameters:
    [`PatchAILConfig`][].

    :raises NotImplementedError: observations without an image.
    """

    config: PatchAILConfig
    discriminator: Discriminator
    presets: ClassVar = {"default": PatchAILConfig()}

    def _make_reward(self, space: spaces.Dict) -> DiscriminatorReward:
        config = self.config
        inputs = DiscriminatorInputs(space, images_only=True)
        if not inputs.image_shapes:
            raise NotImplementedError(
                f"observation_space: PatchAILAgent learns from images, got {self.observation_space} without one; make "
                f"the environment with modality='pixels', or take GAIfOAgent"
            )
        net = PatchLogits(inputs.image_shapes, config.discriminator_hidden, config.discriminator_layers)
        return DiscriminatorReward(config, inputs, self.device, net=net, similarity=PatchSimilarity(net.patches))
