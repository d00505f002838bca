"""Surrogate rewards, for an agent that improves online without the task's.

``viper``  the likelihood of an episode under an action-free world model of the demonstrations (Escontrela et al. 2023,
           in the form of AIME-v2): r_t = symlog(log p(o_t | s_t) - KL_t), computed once for each episode.
``ail``    the logit of a discriminator between the demonstrations and the agent's own experience, in the embeddings of
           the world model (as in AIME-NoB). Both of them change, so it relabels each batch.
``none``   no reward: experience corrects the world model, and nothing else.

A user's function of transitions is possible too. None of them knows how the task ends. An episode that terminates
ends a sequence of rewards that are mostly negative (``viper``) or of either sign (``ail``), so where the task is to
survive or to end early, they may reward the opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.filtering import by_pieces, filtered_batches, standardized
from aime_gym.models.discriminator import Discriminator, discrimination_loss, gradient_penalty
from aime_gym.models.rssm import RecordedActions
from aime_gym.models.world_model import WorldModel, sum_over_sensors
from aime_gym.training.loop import TrainingLoop, train_on_sequences
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Array, Metrics, Observation, SequenceBatch, Trajectory, sensors

#: Names of the surrogates.
SURROGATES = ("viper", "ail", "none")
#: Name in a configuration of a reward that is a user's function, which no file can hold.
USER_REWARD = "own"
#: Weight of the discriminator's gradient penalty (AIME-NoB).
_PENALTY = 10.0

#: Function of observations and next observations (n, ...) that returns rewards (n,).
UserReward = Callable[[Observation, Observation], Array]


class EmbeddedSequences(NamedTuple):
    """Embeddings of sequences by a world model."""

    embeddings: Tensor  # (T, B, E)
    valid: Tensor  # (T, B) bool

    def pairs(self) -> Tensor:
        """Return [e_{t-1}, e_t] of each transition, (N, 2 E)."""
        return _pairs(self.embeddings)[self.valid[1:]]


class Surrogate(Protocol):
    """Reward that labels an episode once, or relabels each batch."""

    def labels(self, trajectory: Trajectory) -> Array | None:
        """Compute the reward of each transition (T,) of an episode; ``None`` leaves it to [`relabel`][]."""

    def relabel(self, embeddings: Tensor) -> Tensor | None:
        """Compute the reward on arriving at each record (T, B) from the world model's embeddings (T, B, E).

        ``None`` if the labels still hold.
        """

    def update(self, expert: EmbeddedSequences, agent: EmbeddedSequences, generator: torch.Generator) -> Metrics:
        """Train on sequences of demonstrations, and of the agent's own experience."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...


class EpisodeReward:
    """Reward by a user's function, which labels an episode once.

    :param reward: function of observations and next observations (T, ...) that returns rewards (T,); ``None`` for an
        agent from a file, which does not hold it.
    """

    def __init__(self, reward: UserReward | None) -> None:
        self.reward = reward

    def labels(self, trajectory: Trajectory) -> Array:
        """Compute the reward of each transition (T,).

        :raises ValueError: no function; another shape, or numbers that are not finite.
        """
        if self.reward is None:
            raise ValueError(
                "reward: expected the function that this agent learns from, which no file holds, got none; pass "
                "reward= to load"
            )
        # Copies, since a function of a user's may work in place, and may hand out the same buffer again and again.
        before, after = (
            {name: values[part].copy() for name, values in sensors(trajectory.observations).items()}
            for part in (slice(None, -1), slice(1, None))
        )
        is_dict = isinstance(trajectory.observations, dict)
        returned = (
            self.reward(before, after) if is_dict else self.reward(*(one["observation"] for one in (before, after)))
        )
        try:
            with np.errstate(over="ignore"):  # what overflows becomes infinite
                rewards = np.array(returned, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"reward: expected numbers, got {type(returned).__name__} ({error})") from error
        if rewards.shape != (len(trajectory),):
            raise ValueError(f"reward: expected rewards of shape {(len(trajectory),)}, got {rewards.shape}")
        if not np.isfinite(rewards).all():
            raise ValueError(f"reward: expected finite rewards, got {rewards[~np.isfinite(rewards)][0]}")
        return rewards

    def relabel(self, embeddings: Tensor) -> None:
        return None

    def update(self, expert: EmbeddedSequences, agent: EmbeddedSequences, generator: torch.Generator) -> Metrics:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over nothing: there is no state."""


class ViperReward(EpisodeReward):
    """Likelihood of an episode under a world model without actions that was fitted to demonstrations.

    It standardises observations as the agent's own world model does: in units of the demonstrations' spread, the
    agent's first episodes would lie out of all bounds.

    :param world_model: world model of the agent.
    """

    def __init__(self, world_model: WorldModel, device: torch.device) -> None:
        self.model = WorldModel(world_model.config, world_model.sensors, 0).to(device)
        self.model.standardizers.load_state_dict(world_model.standardizers.state_dict())

    def fit(self, demos: TrajectoryDataset, loop: TrainingLoop, config: Any) -> bool:
        """Fit the model to demonstrations; too long, and nothing but the demonstrations themselves is likely.

        :return: whether the run came to its end.
        """

        def loss(batch: SequenceBatch) -> tuple[Tensor, Metrics]:
            shape = batch.valid.shape
            noise = torch.randn(*shape, self.model.config.stoch, generator=loop.generator).to(demos.device)
            nothing = RecordedActions(noise.new_zeros(*shape, 0))
            evidence = self.model.evidence(batch.observations, nothing, noise, valid=batch.valid)
            return evidence.loss, evidence.metrics

        return train_on_sequences(
            "viper",
            self.model,
            loss,
            demos,
            loop,
            config,
            updates=config.reward_updates,
            learning_rate=config.model_learning_rate,
            start_fraction=config.demo_start_fraction,
        )

    def labels(self, trajectory: Trajectory) -> Array:
        evidence = self.evidence(TrajectoryDataset([trajectory], None, next(self.model.parameters()).device))
        return symlog(evidence[1:]).cpu().numpy()  # no action led to the first record

    @torch.no_grad()
    def evidence(self, dataset: TrajectoryDataset) -> Tensor:
        """Compute log p(o_t | s_t) - KL_t of every record (N,), filtered with the posterior's mode.

        Without the Gaussian's constants: with them, the log-likelihood of a wide observation is so far from zero that
        symlog would erase its changes.
        """
        model = self.model
        out = next(model.parameters()).new_zeros(len(dataset))

        def nothing(rows: Tensor, _: Tensor) -> RecordedActions:
            return RecordedActions(out.new_zeros(*rows.shape, 0))

        for rows, valid, latents, _ in filtered_batches(model, dataset, nothing):
            chosen, features = rows[valid], latents.states.feature[valid]

            def kernel(piece: Tensor, chosen: Tensor = chosen, features: Tensor = features) -> Tensor:
                scores = model.likelihood_terms(features[piece], standardized(model, dataset, chosen[piece]))
                return sum_over_sensors(scores, "kernel")

            likelihood = by_pieces(model, kernel, torch.arange(len(chosen), device=dataset.device))
            out[chosen] = likelihood - latents.posterior.kl(latents.prior).sum(-1)[valid]
        return out

    def state_dict(self) -> dict[str, Any]:
        return dict(self.model.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state)


class LatentDiscriminatorReward:
    """Logit of a discriminator between the expert's and the agent's pairs of embeddings (e_{t-1}, e_t).

    Pairs, where AIME-NoB has single embeddings of images: one vector of positions does not show where it moves.

    :param embedding: size E of an embedding.
    :param learning_rate: Adam's learning rate for the discriminator.
    """

    def __init__(self, embedding: int, learning_rate: float, device: torch.device) -> None:
        self.discriminator = Discriminator(2 * embedding, reward="logit").to(device)
        self.optimizer = Optimizer([self.discriminator], learning_rate)

    def labels(self, trajectory: Trajectory) -> None:
        return None

    def relabel(self, embeddings: Tensor) -> Tensor:
        rewards: Tensor = self.discriminator.from_standardized(_pairs(embeddings))
        return torch.cat([torch.zeros_like(rewards[:1]), rewards])

    def update(self, expert: EmbeddedSequences, agent: EmbeddedSequences, generator: torch.Generator) -> Metrics:
        """Take one step of logistic regression, with a gradient penalty between the two sides."""
        sides = expert.pairs(), agent.pairs()
        count = min(map(len, sides))
        theirs, own = (rows[torch.randperm(len(rows), generator=generator)[:count]] for rows in sides)
        logit = self.discriminator.from_standardized
        expert_logit, agent_logit = logit(torch.cat([theirs, own])).chunk(2)
        weight = torch.rand(count, 1, generator=generator).to(own.device)
        penalty = gradient_penalty(logit, [theirs], [own], weight)
        loss = discrimination_loss(expert_logit, agent_logit)
        self.optimizer.step(loss + _PENALTY * penalty)
        return {
            "discriminator_loss": loss.detach(),
            "expert_logit": expert_logit.detach().mean(),
            "agent_logit": agent_logit.detach().mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def make_surrogate(
    name: str, world_model: WorldModel, user_reward: UserReward | None, learning_rate: float, device: torch.device
) -> Surrogate | None:
    """Make a surrogate that has learnt nothing yet; ``None`` for no reward.

    :param name: name of a surrogate, or ``USER_REWARD``.
    :param user_reward: function behind ``USER_REWARD``; ``None`` for an agent from a file.
    :param learning_rate: Adam's learning rate for the discriminator of ``ail``.
    """
    if name == USER_REWARD:
        return EpisodeReward(user_reward)
    if name == "viper":
        return ViperReward(world_model, device)
    return LatentDiscriminatorReward(world_model.embedding_size, learning_rate, device) if name == "ail" else None


def _pairs(embeddings: Tensor) -> Tensor:
    """Concatenate successive embeddings (T, B, E) to (T - 1, B, 2 E)."""
    return torch.cat([embeddings[:-1], embeddings[1:]], dim=-1)


def symlog(x: Tensor) -> Tensor:
    """Compute sign(x) ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()
