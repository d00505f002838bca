"""GAIL: Generative Adversarial Imitation Learning (Ho and Ermon 2016, arXiv 1606.03476). An oracle: it sees the
demonstrations' true actions.

    repeat   collect transitions with pi, paid g(f(s, a))
             f   by logistic regression: the demonstrations' (s, a) against those of pi
             pi  by reinforcement learning on the reward

GAIfO with another input to the discriminator, so that the two differ only in what they see. The paper's D is the
probability of the agent, and log D what the policy pays; here f is the logit of the expert, which makes the paper's
-log D the form ``positive``. Deviations: those of GAIfO; no entropy bonus unless ``generator_kwargs`` has ``ent_coef``.
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


class GAILAgent(ImitationAgent):
    """Learns in its environment to act as the demonstrations do; an oracle for agents that see no actions.

    ``imitate(demos)`` takes ``timesteps`` environment steps, ``imitate(demos, total_timesteps)`` as many as it is told,
    and ``learn(total_timesteps)`` goes on. Needs no play. Hyper-parameters:
    :class:`~aime_gym.training.adversarial.AdversarialConfig`.
    """

    config: AdversarialConfig
    discriminator: nn.Module
    presets: ClassVar = {"default": AdversarialConfig()}
    needs_play = False
    needs_demonstration_actions = True
    imitates_online = True

    def _setup_networks(self) -> None:
        self.adversary = Adversary(
            self.config,
            self.observations,
            self.encoding,
            sees_actions=True,
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
        fit.logger.info("GAILAgent.pretrain: adversarial imitation has nothing to learn from play")

    def _imitate(self, demos: Trajectories, fit: Fit) -> None:
        with self._initial_weights():
            self._setup_networks()
        self.adversary.start(demos)
        self.adversary.run(self, demos, fit.total_timesteps or self.config.timesteps, fit, "imitate")

    def _learn(self, demos: Trajectories, fit: Fit) -> None:
        assert fit.total_timesteps is not None
        self.adversary.run(self, demos, fit.total_timesteps, fit, "learn")

    def reward_fn(self, obs: Observation, actions: Array) -> Array:
        """The learned reward g(f(s, a)) of transitions, (n,).

        See :class:`~aime_gym.models.discriminator.Discriminator`.

        :param obs: (n, ...).
        :param actions: (n, ...), as the environment takes them.
        :raises ValueError: other sensors or shapes.
        """
        self._need_setup()
        return self.adversary.reward(obs, actions)

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
