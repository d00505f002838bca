"""ILPO: Imitating Latent Policies from Observation (Edwards, Sahni, Schroecker and Isbell 2019, arXiv 1805.07914).

    step 1, offline    g(s, z), the change that latent action z causes, and pi(z|s), from demonstrations D = s' - s:
                       min_z ||D - g(s, z)||^2 + ||D - sum_z pi(z|s) g(s, z)||^2
    step 2, online     pi(a|s, z), from a few hundred environment steps (s, a, s'), by cross-entropy of a under
                       z = argmin_z ||s' - (s + g(s, z))||
    acting             z = argmax_z pi(z|s), a = argmax_a pi(a|s, z)

Choices where the sources differ: g predicts changes, and the second loss trains pi alone, as in the authors' program;
the closest z is closest in the space of observations, as there, where the paper measures distances of encodings.

Deviations: observations and changes are standardised by the demonstrations; step 2 remembers its transitions and
repeats them, instead of seeing each once. The authors' demonstrations are of a policy that acts at random in a quarter
of its steps: one that never does leaves open what other actions would have caused, and so which z stands for them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.config import MAX_ROWS, MAX_UNITS, check_bounds
from aime_gym.data import TrajectoryDataset
from aime_gym.models.latent_actions import ActionRemap, LatentActionPolicy, latent_policy_losses
from aime_gym.models.stacked import concatenate_sensors
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.rollouts import EnvStep, Rollouts
from aime_gym.types import Array, Metrics, Observation, Trajectories

#: Transitions that step 2 remembers.
_MEMORY = 10_000
#: Steps of all environments that make a rollout: the unit of ``log_interval``.
_ROLLOUT_STEPS = 50


@dataclass(frozen=True)
class ILPOConfig:
    """Hyper-parameters of [`ILPOAgent`][].

    :param latents: number |Z| of latent actions; ``None`` for as many as there are actions.
    :param updates: number of updates of the latent policy, in step 1.
    :param batch_size: transitions per update, in both steps.
    :param learning_rate: Adam's learning rate in step 1.
    :param timesteps: number of environment steps of step 2, unless ``imitate`` is given another.
    :param exploration: share of random actions among them.
    :param remap_updates: number of updates of the action remapping after each step of all environments.
    :param remap_learning_rate: Adam's learning rate in step 2.
    """

    latents: int | None = None
    updates: int = 3000
    batch_size: int = 32
    learning_rate: float = 2e-4
    timesteps: int = 1000
    exploration: float = 0.2
    remap_updates: int = 1
    remap_learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        if self.latents is not None:
            check_bounds(self, latents=(1, MAX_UNITS))
        check_bounds(
            self,
            updates=(1, None),
            batch_size=(1, MAX_ROWS),
            learning_rate=(0, None),
            timesteps=(1, None),
            exploration=(0, 1),
            remap_updates=(1, None),
            remap_learning_rate=(0, None),
        )


class ILPOAgent(ImitationAgent):
    """Learns a policy of latent actions offline, and online which real actions those are.

    For Discrete actions. ``imitate(demos)`` takes ``timesteps`` environment steps, ``imitate(demos, total_timesteps)``
    takes ``total_timesteps``, and ``learn(total_timesteps)`` takes more of them. Needs no play. Hyper-parameters:
    [`ILPOConfig`][].
    """

    config: ILPOConfig
    policy: LatentActionPolicy
    remap: ActionRemap
    presets: ClassVar = {"default": ILPOConfig()}
    needs_play = False
    imitates_online = True

    def _setup_networks(self) -> None:
        if not isinstance(self.action_space, spaces.Discrete):
            raise NotImplementedError(
                f"action_space: ILPOAgent expects Discrete, got {self.action_space}: each latent action stands for one "
                f"of finitely many; AIMEAgent, BCOAgent and GAIfOAgent take a Box"
            )
        size = sum(self.sensor_sizes.values())
        latents = self.config.latents or self.action_encoding.size
        self.policy = LatentActionPolicy(size, latents, **self.policy_kwargs).to(self.device)
        hidden = {name: value for name, value in self.policy_kwargs.items() if name == "hidden"}
        self.remap = ActionRemap(size, latents, self.action_encoding.size, **hidden).to(self.device)
        self.remap_optimizer = Optimizer([self.remap], self.config.remap_learning_rate, max_grad_norm=None)
        #: Transitions of step 2: s (N, D), the closest z (N,) and a (N,).
        self.memory: tuple[Tensor, ...] = (
            torch.empty(0, size, device=self.device),
            torch.empty(0, dtype=torch.long, device=self.device),
            torch.empty(0, dtype=torch.long, device=self.device),
        )

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "remap"], []

    def _training_state(self) -> dict[str, Any]:
        return {"remap_moments": self.remap_optimizer.state_dict()["moments"], "memory": list(self.memory)}

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        self.remap_optimizer.load_state_dict(self.remap_optimizer.state_dict() | {"moments": state["remap_moments"]})
        self.memory = tuple(part.to(self.device) for part in state["memory"])

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        loop.logger.info("ILPOAgent.pretrain: latent policies have nothing to learn from play")

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        with self._initial_weights():
            self._setup_networks()
        self._learn_latent_policy(demos, loop)
        self._remap_actions(loop.total_timesteps or self.config.timesteps, loop, "imitate")

    def _learn(self, demos: Trajectories, loop: TrainingLoop) -> None:
        assert loop.total_timesteps is not None
        self._remap_actions(loop.total_timesteps, loop, "learn")

    # Step 1

    def _learn_latent_policy(self, demos: Trajectories, loop: TrainingLoop) -> None:
        config = self.config
        dataset = TrajectoryDataset(demos, None, self.device)
        rows = (~dataset.first_rows()).nonzero().squeeze(-1)
        observations = concatenate_sensors(dataset.observations)
        observations, changes = observations[rows - 1], dataset.differences(observations)[rows]
        self.policy.fit_standardizers(observations, changes)
        self.remap.standardizer.load_state_dict(self.policy.standardizer.state_dict())
        changes = self.policy.changes(changes)
        optimizer = Optimizer([self.policy], config.learning_rate, max_grad_norm=None)

        def loss() -> tuple[Tensor, Metrics]:
            batch = self._integers(len(rows), config.batch_size)
            nearest, expected = latent_policy_losses(changes[batch], *self.policy(observations[batch]))
            total = nearest + expected
            return total, {"loss": total.detach(), "nearest": nearest.detach(), "expected": expected.detach()}

        loop.minimize("policy", config.updates, loss, optimizer)

    # Step 2

    def _remap_actions(self, timesteps: int, loop: TrainingLoop, name: str) -> None:
        state = None if loop.checkpoint is None else _RemapState(self)
        rollouts = Rollouts(self, loop, name, timesteps, state)

        def collect_and_update() -> Metrics:
            count = min(_ROLLOUT_STEPS, math.ceil(rollouts.remaining / self.n_envs))
            for step in itertools.islice(rollouts.continued_steps(self._explore), count):
                self._remember(step)
                rollouts.run("remap", self.config.remap_updates, self.update_remap)
                if not rollouts.record_step(step):
                    break
            rollouts.end_rollout({})
            return {}

        rollouts.repeat(collect_and_update)

    @torch.no_grad()
    def _explore(self, observations: Observation, state: Any, episode_start: Array) -> tuple[Array, None]:
        """Act greedily but for a share of random actions."""
        encoded, _ = self.observation_encoding.encode(observations, self.device)
        greedy = self._act(encoded, (), None)[0].argmax(-1).cpu()
        random = torch.randint(self.action_encoding.size, greedy.shape, generator=self.generator)
        explores = torch.rand(greedy.shape, generator=self.generator) < self.config.exploration
        chosen = F.one_hot(torch.where(explores, random, greedy), self.action_encoding.size)
        return self.action_encoding.decode(chosen.numpy()), None

    @torch.no_grad()
    def _remember(self, step: EnvStep) -> None:
        """Keep which latent action each real one was."""
        before, after = (
            concatenate_sensors(self.observation_encoding.encode(part, self.device)[0])
            for part in (step.observations, step.next_observations)
        )
        latents = self.policy.nearest_latent_action(before, after)
        taken = torch.from_numpy(np.asarray(self.action_encoding.encode(step.actions).argmax(-1))).to(self.device)
        self.memory = tuple(
            torch.cat([old, new])[-_MEMORY:] for old, new in zip(self.memory, (before, latents, taken), strict=True)
        )

    def update_remap(self) -> Metrics:
        """Take one step of cross-entropy on the transitions of step 2."""
        observations, latents, actions = self.memory
        batch = self._integers(len(actions), self.config.batch_size)
        logits = self.remap(observations[batch], latents[batch])
        loss = F.cross_entropy(logits, actions[batch])
        accuracy = (logits.argmax(-1) == actions[batch]).float().mean()
        self.remap_optimizer.step(loss)
        return {"loss": loss.detach(), "accuracy": accuracy}

    # Acting

    @torch.no_grad()
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """Return the action that the latent one closest to each change stands for."""
        observations = concatenate_sensors(demos.observations)
        before = observations[(torch.arange(len(demos), device=self.device) - 1).clamp_min(0)]
        logits: Tensor = self.remap(before, self.policy.nearest_latent_action(before, observations))
        return logits

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return ()

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        observations = concatenate_sensors(observation)
        latents = _choose(self.policy(observations)[0], generator)
        actions = _choose(self.remap(observations, latents), generator)
        return F.one_hot(actions, self.action_encoding.size), ()


class _RemapState:
    """State of all that step 2 changes."""

    def __init__(self, agent: ILPOAgent) -> None:
        self._agent = agent

    def state_dict(self) -> dict[str, Any]:
        return {"remap": self._agent.remap.state_dict(), "training": self._agent._training_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._agent.remap.load_state_dict(state["remap"])
        self._agent._load_training_state(state["training"])


def _choose(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return indices (N,) for logits (N, K): sampled, or the most likely ones."""
    if generator is None:
        return logits.argmax(-1)
    uniform = torch.rand(logits.shape, generator=generator).to(logits.device)
    return (logits - (-uniform.log()).log()).argmax(-1)  # the argmax of logits plus Gumbel noise is a sample
