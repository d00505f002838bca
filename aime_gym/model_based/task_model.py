"""World model of a task: joint batches of play and experience, and heads for its reward and its end."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aime_gym.data import SequenceSampler, TrajectoryDataset
from aime_gym.model_based.action_inference import Noise
from aime_gym.model_based.pretraining import WorldModelTrainingConfig
from aime_gym.models.heads import ScalarHead
from aime_gym.models.rssm import RecordedActions, State
from aime_gym.models.world_model import WorldModel, per_sequence
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Metrics, SequenceBatch


class TransitionLabels(NamedTuple):
    """Labels of the records of sequences, each (T, B)."""

    rewards: Tensor  # on arriving at the record
    rewarded: Tensor  # bool, whether the reward is known
    terminal: Tensor  # bool, whether the task ends there


class JointSampler:
    """Sampler of sequences of play and of experience side by side.

    :param play: play data; ``None`` takes all sequences from experience.
    :param experience: experience of the agent.
    :param play_ratio: share alpha of play in a batch.
    :param start_fraction: share of sequences that start where an episode starts.
    :param generator: source of the sampled sequences.
    """

    def __init__(
        self,
        play: TrajectoryDataset | None,
        experience: TrajectoryDataset,
        config: WorldModelTrainingConfig,
        *,
        play_ratio: float,
        start_fraction: float,
        generator: torch.Generator,
    ) -> None:
        from_play = int(play_ratio * config.batch_size) if play is not None else 0
        sources = [(play, from_play), (experience, config.batch_size - from_play)]
        parts = [(dataset, count) for dataset, count in sources if dataset is not None and count]
        # Sequences stand side by side, so none may be longer than the longest trajectory of either.
        sequence_length = min(config.sequence_length, *(int(dataset.counts.max()) for dataset, _ in parts))
        self._samplers = [
            SequenceSampler(
                dataset,
                sequence_length=sequence_length,
                batch_size=count,
                generator=generator,
                start_fraction=start_fraction,
            )
            for dataset, count in parts
        ]
        self._labels = [_labels(dataset, rewarded=dataset is experience) for dataset, _ in parts]
        #: Number of sequences of a batch that are experience, the last ones.
        self.experienced = config.batch_size - from_play

    def sample(self) -> tuple[SequenceBatch, TransitionLabels]:
        """Draw a batch (T, B, ...), and return it with its labels."""
        batches = [sampler.sample() for sampler in self._samplers]
        labels = [
            TransitionLabels(*(part[batch.rows] for part in own))
            for batch, own in zip(batches, self._labels, strict=True)
        ]
        if len(batches) == 1:
            return batches[0], labels[0]
        first, second = batches
        assert first.prev_actions is not None
        assert second.prev_actions is not None
        joint = SequenceBatch(
            observations={
                name: torch.cat([values, second.observations[name]], dim=1)
                for name, values in first.observations.items()
            },
            prev_actions=torch.cat([first.prev_actions, second.prev_actions], dim=1),
            is_first=torch.cat([first.is_first, second.is_first]),
            valid=torch.cat([first.valid, second.valid], dim=1),
            rows=torch.cat([first.rows, second.rows], dim=1),  # each in its own dataset
        )
        return joint, TransitionLabels(*(torch.cat(pair, dim=1) for pair in zip(*labels, strict=True)))


def _labels(dataset: TrajectoryDataset, *, rewarded: bool) -> TransitionLabels:
    """Return the labels of all records of a dataset, each (N,)."""
    rewards, known, terminal = (torch.zeros(len(dataset)) for _ in range(3))
    for start, trajectory in zip(dataset.starts.tolist(), dataset.trajectories, strict=True):
        end = start + len(trajectory)
        terminal[end] = trajectory.terminated
        if rewarded and trajectory.rewards is not None:
            rewards[start + 1 : end + 1] = torch.from_numpy(trajectory.rewards)
            known[start : end + 1] = True  # the reset too, whose reward is zero
    return TransitionLabels(*(part.to(dataset.device) for part in (rewards, known.bool(), terminal.bool())))


class TaskModel:
    """World model that is trained on experience, with heads that predict a task's reward and its end.

    :param world_model: world model that the heads are added to.
    :param learning_rate: Adam's learning rate for the world model and the heads.
    :param max_grad_norm: largest global norm of their gradient.
    """

    def __init__(
        self, world_model: WorldModel, learning_rate: float, max_grad_norm: float, device: torch.device
    ) -> None:
        self.world_model = world_model
        features, config = world_model.feature_size, world_model.config
        self.reward_head, self.terminal_head = (
            ScalarHead(features, config.hidden, layer_norm=config.layer_norm).to(device) for _ in range(2)
        )
        self.optimizer = Optimizer(
            [world_model, self.reward_head, self.terminal_head], learning_rate, max_grad_norm=max_grad_norm
        )

    @property
    def heads(self) -> tuple[ScalarHead, ScalarHead]:
        """Heads of reward and end."""
        return self.reward_head, self.terminal_head

    def set_trainable(self, trainable: bool) -> None:
        """Set whether gradients reach the model and its heads, or pass through them to a policy."""
        for module in self.optimizer.modules:
            module.requires_grad_(trainable)

    def embed(self, batch: SequenceBatch) -> Tensor:
        """Embed a batch, (T, B, E), with a gradient to the model."""
        self.set_trainable(True)
        return self.world_model.embed(self.world_model.standardize(batch.observations))

    def update(
        self, batch: SequenceBatch, labels: TransitionLabels, noise: Noise, embeddings: Tensor | None = None
    ) -> tuple[State, Metrics]:
        """Take one step up the ELBO of a batch and to its labels.

        :param embeddings: embeddings of the batch as [`embed`][] returns them, where they are known already.
        :return: the filtered states (T, B), detached, and metrics.
        """
        model = self.world_model
        self.set_trainable(True)
        assert batch.prev_actions is not None
        evidence = model.evidence(
            batch.observations,
            RecordedActions(batch.prev_actions),
            noise(*batch.valid.shape, model.config.stoch),
            valid=batch.valid,
            embeddings=embeddings,
        )
        features = evidence.latents.states.feature
        # Unit-variance Gaussian and Bernoulli, in nats per sequence as the rest.
        reward_error = 0.5 * (self.reward_head(features) - labels.rewards).square() * labels.rewarded
        terminal = F.binary_cross_entropy_with_logits(
            self.terminal_head(features), labels.terminal.float(), reduction="none"
        )
        reward_loss, terminal_loss = per_sequence(reward_error, batch.valid), per_sequence(terminal, batch.valid)
        self.optimizer.step(evidence.loss + reward_loss + terminal_loss)
        metrics: Metrics = {
            "elbo": evidence.elbo.detach(),
            "reward_loss": reward_loss.detach(),
            "terminal_loss": terminal_loss.detach(),
        }
        states = evidence.latents.states
        return State(states.deter.detach(), states.stoch.detach()), metrics

    def reward(self, features: Tensor) -> Tensor:
        """Predict the task's reward (...) on arriving at states (..., F)."""
        reward: Tensor = self.reward_head(features)
        return reward

    def alive(self, features: Tensor) -> Tensor:
        """Predict the probability (...) that the task continues from states (..., F)."""
        return 1 - torch.sigmoid(self.terminal_head(features))
