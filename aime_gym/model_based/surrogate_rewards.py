"""Rewards in place of the task's, for an agent that improves online and is paid by nobody.

``viper``  how likely an action-free world model of the demonstrations finds what happened (Escontrela et al. 2023, in
           the form of AIME-v2): r_t = symlog(log p(o_t | s_t) - KL_t), once for each episode.
``ail``    the logit of a discriminator between the demonstrations and the agent's own experience, in the embeddings of
           the world model (as in AIME-NoB), which moves with both and so is asked anew at each update.
``none``   no reward: experience corrects the world model, and nothing else.

Or a function of one's own of transitions. None of them knows how the task ends. An episode that terminates ends a
stream of rewards that are mostly negative (``viper``) or of either sign (``ail``), so where the task is to survive or
to end early, they may pay for the opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.filtering import by_pieces, filtered_batches, standardized
from aime_gym.models.action_sources import RecordedActions
from aime_gym.models.discriminator import Discriminator, discrimination_loss, gradient_penalty
from aime_gym.models.world_model import WorldModel, sum_over_sensors
from aime_gym.training.loop import TrainingLoop, train_on_sequences
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Array, Metrics, Observation, SequenceBatch, Trajectory, sensors

#: By name.
SURROGATES = ("viper", "ail", "none")
#: Name in a configuration of a reward that is a user's function, which no file can hold.
USER_REWARD = "own"
#: Weight of the discriminator's gradient penalty (AIME-NoB).
_PENALTY = 10.0

#: Rewards (n,) of transitions, on arriving at ``next_obs``.
UserReward = Callable[[Observation, Observation], Array]


class EmbeddedSequences(NamedTuple):
    """A sequence as a world model sees it."""

    embeddings: Tensor  # (T, B, E)
    valid: Tensor  # (T, B) bool

    def pairs(self) -> Tensor:
        """[e_{t-1}, e_t] of each transition, (N, 2 E)."""
        return _pairs(self.embeddings)[self.valid[1:]]


class Surrogate(Protocol):
    """A reward that is known when an episode is over, or anew whenever a sequence of it is drawn."""

    def labels(self, trajectory: Trajectory) -> Array | None:
        """The reward of each transition (T,) of an episode; ``None`` if only :meth:`relabel` knows."""

    def relabel(self, embeddings: Tensor) -> Tensor | None:
        """The reward on arriving at each record (T, B) of a sequence, by the embeddings (T, B, E) of the world model.

        ``None`` if the labels still hold.
        """

    def update(self, expert: EmbeddedSequences, agent: EmbeddedSequences, generator: torch.Generator) -> Metrics:
        """Learn from sequences of demonstrations, and of the agent's own experience."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...


class EpisodeReward:
    """A reward by a function of transitions, once for each episode.

    :param reward: (T, ...) and (T, ...) observations -> (T,); ``None`` where a file has left it behind.
    """

    def __init__(self, reward: UserReward | None) -> None:
        self.reward = reward

    def labels(self, trajectory: Trajectory) -> Array:
        """:raises ValueError: no function; another shape, or numbers that are not finite."""
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
        came = self.reward(before, after) if is_dict else self.reward(*(one["observation"] for one in (before, after)))
        try:
            with np.errstate(over="ignore"):  # what overflows becomes infinite
                rewards = np.array(came, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"reward: expected numbers, got {type(came).__name__} ({error})") from error
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
        """It has no state."""


class ViperReward(EpisodeReward):
    """How likely a world model without actions, fitted to demonstrations, finds what happened.

    It sees observations in the units of the agent's own world model: in units of the demonstrations' spread, what the
    agent does at first would lie out of all bounds.

    :param world_model: of the agent.
    """

    def __init__(self, world_model: WorldModel, device: torch.device) -> None:
        self.model = WorldModel(world_model.config, world_model.sensors, 0).to(device)
        self.model.standardizers.load_state_dict(world_model.standardizers.state_dict())

    def fit(self, demos: TrajectoryDataset, loop: TrainingLoop, config: Any) -> bool:
        """Fit the model to demonstrations; too long, and nothing but the demonstrations themselves is likely.

        :return: whether it came to its end.
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
        return symlog(evidence[1:]).cpu().numpy()  # the reset is nobody's doing

    @torch.no_grad()
    def evidence(self, dataset: TrajectoryDataset) -> Tensor:
        """The score log p(o_t | s_t) - KL_t of every record (N,), filtered with the posterior's mean.

        Without the Gaussian's constants: with them, the log-likelihood of a wide observation is so far from zero that
        symlog would erase its changes.
        """
        model = self.model
        out = next(model.parameters()).new_zeros(len(dataset))

        def nothing(rows: Tensor) -> RecordedActions:
            return RecordedActions(out.new_zeros(*rows.shape, 0))

        for rows, valid, latents in filtered_batches(model, dataset, nothing):
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
    """The logit of a discriminator on pairs of embeddings (e_{t-1}, e_t): the expert's, or the agent's own?

    Pairs, where AIME-NoB has single embeddings of images: one vector of positions does not show where it moves.

    :param embedding: size E.
    """

    def __init__(self, embedding: int, learning_rate: float, device: torch.device) -> None:
        self.discriminator = Discriminator(2 * embedding, reward="logit").to(device)
        self.optimizer = Optimizer([self.discriminator], learning_rate)

    def labels(self, trajectory: Trajectory) -> None:
        return None

    @torch.no_grad()
    def relabel(self, embeddings: Tensor) -> Tensor:
        rewards: Tensor = self.discriminator.from_standardized(_pairs(embeddings))
        return torch.cat([torch.zeros_like(rewards[:1]), rewards])

    def update(self, expert: EmbeddedSequences, agent: EmbeddedSequences, generator: torch.Generator) -> Metrics:
        """One step of logistic regression, with a penalty on its gradient between the two."""
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

    :param name: name of a surrogate, or :data:`USER_REWARD`.
    :param user_reward: function behind :data:`USER_REWARD`; ``None`` where a file has left it behind.
    :param learning_rate: Adam's learning rate for the discriminator of ``ail``.
    """
    if name == USER_REWARD:
        return EpisodeReward(user_reward)
    if name == "viper":
        return ViperReward(world_model, device)
    return LatentDiscriminatorReward(world_model.embedding_size, learning_rate, device) if name == "ail" else None


def _pairs(embeddings: Tensor) -> Tensor:
    """(T, B, E) -> (T - 1, B, 2 E)."""
    return torch.cat([embeddings[:-1], embeddings[1:]], dim=-1)


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()
