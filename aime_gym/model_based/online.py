"""AIME-v2: learning from one's own experience, without a reward (Zhang et al. 2024, arXiv 2404.18896).

Each update draws sequences of play, of the agent's experience and of the demonstrations, and moves

    model    up the ELBO of play (a share alpha of the batch) and of experience, with a surrogate reward and the
             terminal states to predict                                                        (Eq. 4)
    policy   up the ELBO of the demonstrations under its actions, and beta times the return of imagined rollouts under
             the surrogate reward                                                              (Eq. 8)
    value    to the TD(lambda) returns of these rollouts                                       (Eq. 7)

Each sequence is embedded once, by the world model as the update finds it: of images, that is most of the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aime_gym.data import ActionEncoding, SequenceSampler, TrajectoryDataset
from aime_gym.model_based.action_inference import (
    ActionInference,
    Noise,
    inverse_source,
)
from aime_gym.model_based.actor_critic import Critic, EvaluatedRollout, draw_starts, imagine
from aime_gym.model_based.config import AIMEConfig
from aime_gym.model_based.filtering import FilteredLatents, filter_trajectories
from aime_gym.model_based.one_hot_evidence import OneHotEvidence
from aime_gym.model_based.surrogate_rewards import EmbeddedSequences, Surrogate
from aime_gym.model_based.task_model import JointSampler, TaskModel, TransitionLabels
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import CategoricalPolicy, LatentPolicy
from aime_gym.models.rssm import State
from aime_gym.models.world_model import WorldModel
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.replay import EpisodeReplayBuffer
from aime_gym.types import Metrics, SequenceBatch, Trajectory


class OnlineImitation:
    """Networks that change in ``learn``, their updates, and the experience.

    :param config: configuration of AIME, in all its phases.
    :param world_model: world model of the agent.
    :param inverse_model: inverse model of the agent.
    :param policy: policy of the agent.
    :param surrogate: reward in place of the task's; ``None`` learns no reward, and imagines nothing.
    """

    def __init__(
        self,
        config: AIMEConfig,
        world_model: WorldModel,
        inverse_model: LatentInverseModel,
        policy: LatentPolicy,
        surrogate: Surrogate | None,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.world_model, self.inverse_model, self.policy = world_model, inverse_model, policy
        self.surrogate = surrogate
        self.task_model = TaskModel(world_model, config.online_model_learning_rate, config.max_grad_norm, device)
        self.critic = Critic(world_model.feature_size, config, device)
        self.inverse_optimizer = Optimizer([inverse_model], config.online_model_learning_rate)
        self.policy_optimizer = Optimizer(
            [policy], config.online_policy_learning_rate, max_grad_norm=config.max_grad_norm
        )
        self._inference = ActionInference.from_config(config, world_model)
        self.replay = EpisodeReplayBuffer()
        self.updates = 0

    # A round

    def add(self, episodes: Sequence[Trajectory]) -> int:
        """Add episodes to the experience; the surrogate's reward replaces the task's in them.

        :return: the number of updates that are due for them.
        """
        steps_before = self.experienced_steps
        for episode in episodes:
            rewards = None if self.surrogate is None else self.surrogate.labels(episode)
            self.replay.add([replace(episode, rewards=rewards)])
        # Differences of rounded totals: rounding each round by itself would starve short episodes.
        total, before = (round(self.config.updates_per_step * n) for n in (self.experienced_steps, steps_before))
        return total - before

    @property
    def experienced_steps(self) -> int:
        """Number of environment steps of all experience."""
        return sum(map(len, self.replay.trajectories))

    def begin_updates(
        self,
        play: TrajectoryDataset | None,
        demos: TrajectoryDataset,
        encoding: ActionEncoding,
        noise: Noise,
        generator: torch.Generator,
    ) -> None:
        """Prepare for updates on the experience so far.

        :param play: play data, if there is any.
        :param demos: demonstrations.
        :param encoding: encoding of actions.
        :param noise: source of standard normal noise.
        :param generator: source of the sampled sequences.
        """
        config = self.config
        self._noise, self._generator = noise, generator
        self._joint = JointSampler(
            play,
            TrajectoryDataset(self.replay.trajectories, encoding, self.device),
            config,
            play_ratio=config.play_ratio,
            start_fraction=config.play_start_fraction,
            generator=generator,
        )
        self._demos = SequenceSampler(
            demos,
            sequence_length=config.sequence_length,
            batch_size=config.batch_size,
            generator=generator,
            start_fraction=config.demo_start_fraction,
        )
        # The model has moved since the last round, and with it the latent states of the demonstrations.
        self._beliefs: FilteredLatents | None = None
        self._one_hot: OneHotEvidence | None = None
        if isinstance(self.policy, CategoricalPolicy):
            self._one_hot = OneHotEvidence(self.world_model, demos)
        elif config.warm_start:
            source = inverse_source(self.inverse_model, self.world_model, demos)
            self._beliefs = filter_trajectories(self.world_model, demos, source)

    def update(self) -> Metrics:
        """Make one update of all networks."""
        batch, labels = self._joint.sample()
        demos = self._demos.sample()
        embeddings = self.task_model.embed(batch)
        joint = EmbeddedSequences(embeddings.detach(), batch.valid)
        expert = self._embed(demos)
        metrics: Metrics = {}
        if self.surrogate is not None:
            labels, metrics = self._update_surrogate(self.surrogate, joint, labels, expert)
        states, model_metrics = self.task_model.update(batch, labels, self._noise, embeddings)
        if self.config.warm_start:
            self._update_inverse_model(states, batch, joint.embeddings)
        rollout, policy_metrics = self._update_policy(demos, self._starts(states, batch), expert.embeddings)
        if rollout is not None:
            metrics |= self.critic.update(rollout)
        self.updates += 1
        return metrics | model_metrics | policy_metrics

    # Parts of an update

    def _update_surrogate(
        self, surrogate: Surrogate, joint: EmbeddedSequences, labels: TransitionLabels, expert: EmbeddedSequences
    ) -> tuple[TransitionLabels, Metrics]:
        """Train the reward, and relabel the joint batch with it."""
        count = self._joint.experienced
        experience = EmbeddedSequences(joint.embeddings[:, -count:], joint.valid[:, -count:])
        metrics = surrogate.update(expert, experience, self._generator)
        with torch.no_grad():
            rewards = surrogate.relabel(joint.embeddings)
        if rewards is not None:
            known = torch.ones_like(labels.rewarded)
            known[0] = False  # what came before a sequence was not drawn
            labels = TransitionLabels(rewards, known, labels.terminal)
        return labels, metrics

    @torch.no_grad()
    def _embed(self, batch: SequenceBatch) -> EmbeddedSequences:
        return EmbeddedSequences(self.task_model.embed(batch), batch.valid)

    def _update_inverse_model(self, states: State, batch: SequenceBatch, embeddings: Tensor) -> None:
        """Train the inverse model, which has to follow the latent states, on transitions of play and experience."""
        assert batch.prev_actions is not None
        valid = batch.valid[1:]
        inputs = self.world_model.inverse_model_inputs(batch.observations, embeddings)
        features, changes = states.feature[:-1][valid], (inputs[1:] - inputs[:-1])[valid]
        self.inverse_optimizer.step(self.inverse_model.loss(features, changes, batch.prev_actions[1:][valid]))

    def _starts(self, states: State, batch: SequenceBatch) -> State:
        """Draw the states (N, ...) that rollouts start from."""
        valid = batch.valid.clone()
        if not self.config.imagine_from_play:
            valid[:, : -self._joint.experienced] = False
        return draw_starts(states, valid, self.config.imagination_starts, self._generator)

    def _update_policy(
        self, demos: SequenceBatch, starts: State, embeddings: Tensor | None = None
    ) -> tuple[EvaluatedRollout | None, Metrics]:
        """Train the policy (Eq. 8) on the evidence of demonstrations, and the return of rollouts from ``starts``.

        :param embeddings: embeddings (T, B, E) of the demonstrations, where they are known already.
        """
        config = self.config
        self.task_model.set_trainable(False)
        if isinstance(self.policy, CategoricalPolicy):
            assert self._one_hot is not None
            loss, found = self._one_hot.loss(self.policy, demos.rows, demos.valid)
            metrics: Metrics = {"loss": found["loss"], "demo_kl": found["kl"]}
        else:
            filtered = self._beliefs if config.continue_latents else None
            evidence = self._inference.evidence(self.policy, demos, self._noise, starts=filtered, embeddings=embeddings)
            loss = evidence.loss
            metrics = {"loss": loss.detach(), "demo_elbo": evidence.elbo.detach()}
        losses = [(1.0, loss)]
        if self._beliefs is not None:
            valid = demos.valid[1:]
            features = evidence.latents.states.feature[:-1].detach()[valid]
            inferred = self._beliefs.prev_actions[demos.rows[1:]][valid]
            losses.append((config.clone_weight, self.policy(features).regression_loss(inferred)))
        rollout = None
        if self.surrogate is not None and config.value_weight:
            rollout = self._evaluate_rollout(starts)
            warmed_up = self.updates >= config.value_warmup
            beta = config.value_weight * (1.0 if warmed_up else self.updates / config.value_warmup)
            losses.append((beta, rollout.policy_loss(config.entropy_weight)))
            metrics["imagined_reward"] = rollout.rewards.detach().mean()
        if config.normalize_gradients:
            self.policy_optimizer.step_on(losses)
        else:
            self.policy_optimizer.step(torch.stack([weight * part for weight, part in losses]).sum())
        return rollout, metrics

    def _evaluate_rollout(self, starts: State) -> EvaluatedRollout:
        """Imagine rollouts of the policy, and evaluate them under the surrogate reward."""
        imagined = imagine(self.world_model.rssm, self.policy, starts, self.config.imagination_horizon, self._noise)
        following = imagined.features[1:]
        return self.critic.evaluate(imagined, self.task_model.reward(following), self.task_model.alive(following))

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return all that a round changes as nested JSON values and tensors."""
        return {"agent": [module.state_dict() for module in self._agent_modules()], **self.own_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        for module, weights in zip(self._agent_modules(), state["agent"], strict=True):
            module.load_state_dict(weights)
        self.load_own_state(state)

    def own_state(self) -> dict[str, Any]:
        """Return the state without the weights of the agent's own networks."""
        return {
            "heads": [head.state_dict() for head in self.task_model.heads],
            "optimizers": [optimizer.progress() for optimizer in self._optimizers()],
            "critic": self.critic.state_dict(),
            "surrogate": {} if self.surrogate is None else dict(self.surrogate.state_dict()),
            "replay": self.replay.state_dict(),
            "updates": self.updates,
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state, with the agent's networks as they are."""
        for head, weights in zip(self.task_model.heads, state["heads"], strict=True):
            head.load_state_dict(weights)
        for optimizer, progress in zip(self._optimizers(), state["optimizers"], strict=True):
            optimizer.load_progress(progress)
        self.critic.load_state_dict(state["critic"])
        if self.surrogate is not None:
            self.surrogate.load_state_dict(state["surrogate"])
        self.replay.load_state_dict(state["replay"])
        self.updates = state["updates"]

    def _agent_modules(self) -> tuple[nn.Module, ...]:
        return self.world_model, self.inverse_model, self.policy

    def _optimizers(self) -> tuple[Optimizer, ...]:
        return self.task_model.optimizer, self.inverse_optimizer, self.policy_optimizer
