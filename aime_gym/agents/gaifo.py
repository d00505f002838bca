"""GAIfO: Generative Adversarial Imitation from Observation (Torabi, Warnell and Stone 2018, arXiv 1807.06158).

    repeat   collect transitions with pi, paid g(f(s, s'))
             f   by logistic regression: the demonstrations' (s, s') against those of pi
             pi  by reinforcement learning on the reward

The paper's discriminator D is the probability of the agent, and its reward -log D; here f is the logit of the expert,
which makes that the form ``positive``. See :class:`~aime_gym.models.discriminator.Discriminator` for the forms and for
what happens where episodes end.

Deviations: PPO by default, where the paper has TRPO (``generator="trpo"``); the reward is the logit; terminal states
have a value, by way of an absorbing state (``absorbing=False`` leaves it out); the discriminator is regularised and its
inputs, (s, s' - s), are standardised, as are the policy's; the reward comes in units of the running spread of its
discounted sums. A round is paid by the discriminator as it was when the round began.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.models.stacked import joined
from aime_gym.training.adversarial import AdversarialConfig, Adversary
from aime_gym.training.fit import Fit
from aime_gym.types import Array, Observation, Trajectories


class GAIfOAgent(ImitationAgent):
    """Learns in its environment to make transitions that look like the demonstrations', without their actions.

    ``imitate(demos)`` takes ``timesteps`` environment steps, ``imitate(demos, total_timesteps)`` as many as it is told,
    and ``learn(total_timesteps)`` goes on. Needs no play. Hyper-parameters:
    :class:`~aime_gym.training.adversarial.AdversarialConfig`.
    """

    config: AdversarialConfig
    discriminator: nn.Module
    presets: ClassVar = {"default": AdversarialConfig()}
    needs_play = False
    imitates_online = True

    def _setup_networks(self) -> None:
        self.adversary = Adversary(
            self.config,
            self.observations,
            self.encoding,
            sees_actions=False,
            policy_kwargs=self.policy_kwargs,
            device=self.device,
        )
        self.policy, self.standardizer, self.discriminator = self.adversary.modules

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "standardizer", "discriminator"], []

    def _training_state(self) -> dict[str, Any]:
        return self.adversary.state_dict()

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        self.adversary.load_state_dict(state)

    def _pretrain(self, play: Trajectories, fit: Fit) -> None:
        fit.logger.info("GAIfOAgent.pretrain: adversarial imitation has nothing to learn from play")

    def _imitate(self, demos: Trajectories, fit: Fit) -> None:
        with self._initial_weights():
            self._setup_networks()
        self.adversary.start(demos)
        self.adversary.run(self, demos, fit.total_timesteps or self.config.timesteps, fit, "imitate")

    def _learn(self, demos: Trajectories, fit: Fit) -> None:
        assert fit.total_timesteps is not None
        self.adversary.run(self, demos, fit.total_timesteps, fit, "learn")

    def reward_fn(self, obs: Observation, next_obs: Observation) -> Array:
        """The learned reward g(f(s, s')) of transitions, (n,).

        See :class:`~aime_gym.models.discriminator.Discriminator`.

        :param obs: (n, ...), and ``next_obs`` likewise: at an episode's end the last observation, not the next start.
        :raises ValueError: other sensors or shapes.
        """
        self._need_setup()
        return self.adversary.reward(obs, next_obs)

    def transition_reward(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array) -> Array:
        """The reward that the agent is paid, (n,): :meth:`reward_fn`, and what a termination is worth.

        For :class:`~aime_gym.training.learned_reward.LearnedRewardVecEnv`.
        """
        self._need_setup()
        return self.adversary.transition_reward(obs, actions, next_obs, terminated)

    @torch.no_grad()
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """What the policy would have done."""
        observations, rows = joined(demos.observations), torch.arange(len(demos), device=self.device)
        return self.adversary.act(observations[(rows - 1).clamp_min(0)], None)

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return ()

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.adversary.act(joined(observation), generator), ()
