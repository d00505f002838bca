"""Adversarial imitation: a discriminator that pays, and an algorithm of SB3 that earns. What GAIfO and GAIL share."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from aime_gym.data import ActionEncoding, ObservationEncoding, TrajectoryDataset
from aime_gym.models.discriminator import (
    REGULARIZERS,
    REWARDS,
    Discriminator,
    RunningStandardizer,
    discrimination_loss,
    gradient_penalty,
)
from aime_gym.models.stacked import joined
from aime_gym.progress import progress_bar
from aime_gym.training.fit import Fit
from aime_gym.training.generators import (
    GENERATORS,
    EncodedVecEnv,
    act,
    encoded_spaces,
    generator_options,
    make_generator,
)
from aime_gym.training.learned_reward import LearnedRewardVecEnv
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.randomness import BorrowedRandomness
from aime_gym.training.ranges import check_ranges
from aime_gym.types import Array, Metrics, Observation, Trajectories


@dataclass(frozen=True)
class AdversarialConfig:
    """Hyper-parameters of adversarial imitation.

    :param timesteps: environment steps of ``imitate``, unless it is told otherwise.
    :param generator: the algorithm that learns the policy: SB3's ``ppo``, or ``trpo`` of sb3-contrib.
    :param generator_kwargs: arguments of its constructor, as JSON values; ``n_steps``, ``learning_rate``, ``gamma`` ...
    :param reward: form of the learned reward, ``logit``, ``positive`` or ``negative``; see
        :class:`~aime_gym.models.discriminator.Discriminator`.
    :param absorbing: whether an episode that terminates goes on in an absorbing state, as there. Without it, a terminal
        state is worth nothing, as in the papers. It is left out where the demonstrations do not say how they end.
    :param regularizer: of the discriminator, ``gradient_penalty`` or ``spectral_norm``.
    :param penalty: weight of the gradient penalty.
    :param discriminator_hidden: width of the discriminator's layers.
    :param discriminator_layers: number of them.
    :param discriminator_updates: per round of the generator.
    :param batch_size: rows of each side in such an update.
    :param learning_rate: of the discriminator's Adam.
    """

    timesteps: int = 100_000
    generator: str = "ppo"
    generator_kwargs: dict[str, Any] = field(default_factory=dict)
    reward: str = "logit"
    absorbing: bool = True
    regularizer: str = "gradient_penalty"
    penalty: float = 10.0
    discriminator_hidden: int = 256
    discriminator_layers: int = 2
    discriminator_updates: int = 8
    batch_size: int = 512
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        for name, known in (("generator", GENERATORS), ("reward", REWARDS), ("regularizer", REGULARIZERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected {' or '.join(known)}, got {getattr(self, name)!r}")
        check_ranges(
            self,
            timesteps=(1, None),
            penalty=(0, None),
            discriminator_hidden=(1, None),
            discriminator_layers=(1, None),
            discriminator_updates=(1, None),
            batch_size=(1, None),
            learning_rate=(0, None),
        )
        if not isinstance(self.absorbing, bool):
            raise ValueError(f"absorbing: expected True or False, got {self.absorbing!r}")
        if not isinstance(self.generator_kwargs, dict):
            raise ValueError(f"generator_kwargs: expected a dict, got {self.generator_kwargs!r}")
        known_options = generator_options(self.generator)
        if unknown := sorted(set(self.generator_kwargs) - set(known_options)):
            raise ValueError(f"generator_kwargs: expected some of {', '.join(known_options)}, got {unknown[0]!r}")
        try:
            json.dumps(self.generator_kwargs)
        except TypeError as error:
            raise ValueError(
                f"generator_kwargs: expected JSON values, got {self.generator_kwargs} ({error})"
            ) from error


class Adversary:
    """The policy, the discriminator and all that changes with them, for one agent.

    Made under the agent's own randomness, it is its networks; :meth:`start` and :meth:`run` train them.

    :param observations: encoding of the sensors.
    :param encoding: of the actions.
    :param sees_actions: whether the discriminator's input is (s, a) rather than (s, s').
    :param policy_kwargs: of the policy: ``hidden``, ``layers``.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        observations: ObservationEncoding,
        encoding: ActionEncoding,
        *,
        sees_actions: bool,
        policy_kwargs: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.config, self.observations, self.encoding = config, observations, encoding
        self.sees_actions, self.policy_kwargs, self.device = sees_actions, dict(policy_kwargs), device
        self.size = sum(observations.sizes.values())
        first = self._make_generator(n_envs=1)
        policy: Any = first.policy
        self.policy: ActorCriticPolicy = policy
        self.standardizer = RunningStandardizer(self.size).to(device)
        self.discriminator = Discriminator(
            self.size + (encoding.size if sees_actions else self.size),
            hidden=config.discriminator_hidden,
            layers=config.discriminator_layers,
            reward=config.reward,
            spectral=config.regularizer == "spectral_norm",
        ).to(device)
        self.optimizer = Optimizer([self.discriminator], config.learning_rate, clip=None)
        #: Of discounted sums of the learned reward; its spread is the unit in which the generator is paid.
        self.returns = RunningMeanStd(shape=())
        self.horizon = 1 / (1 - first.gamma) if first.gamma < 1 else math.inf
        if config.absorbing and not math.isfinite(self.horizon):
            raise ValueError("generator_kwargs: expected gamma below 1 with absorbing=True, got gamma=1")

    @property
    def modules(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Policy, standardizer of its observations, discriminator."""
        return self.policy, self.standardizer, self.discriminator

    def _make_generator(self, n_envs: int, stats_window_size: int = 100) -> OnPolicyAlgorithm:
        return make_generator(
            self.config.generator,
            self.config.generator_kwargs,
            *encoded_spaces(self.size, self.encoding),
            n_envs=n_envs,
            policy_kwargs=self.policy_kwargs,
            device=self.device,
            stats_window_size=stats_window_size,
        )

    # Acting

    @torch.no_grad()
    def act(self, observations: Tensor, generator: torch.Generator | None) -> Tensor:
        """Encoded actions (N, A) for sensors side by side (N, D)."""
        return act(self.policy, self.standardizer(observations), generator)

    # The reward

    def rows(self, obs: Tensor, other: Tensor) -> Tensor:
        """The discriminator's input (N, ...) from s and s', or from s and an encoded a.

        (s, s' - s) holds what (s, s') does, and shows what happened in units of its own spread.
        """
        return torch.cat([obs, other if self.sees_actions else other - obs], dim=-1)

    def reward(self, obs: Observation, other: Any) -> Array:
        """Learned rewards (n,) of transitions, given (s, s') or (s, a) as the environment has them.

        :raises ValueError: arrays of other shapes.
        """
        rewards: Array = self.discriminator.reward(self._encoded_rows(obs, other)).cpu().numpy()
        return rewards

    def _encoded_rows(self, obs: Observation, other: Any) -> Tensor:
        first = self._joined(obs, "obs")
        if not self.sees_actions:
            second = self._joined(other, "next_obs")
        else:
            actions, shape = np.asarray(other), (len(first), *(self.encoding.space.shape or ()))
            if actions.shape != shape:
                raise ValueError(f"actions: expected shape {shape}, got {actions.shape}")
            second = torch.from_numpy(self.encoding.encode(actions)).to(self.device)
        if len(first) != len(second):
            raise ValueError(f"next_obs: expected {len(first)} observations, got {len(second)}")
        return self.rows(first, second)

    def _joined(self, observation: Observation, argument: str) -> Tensor:
        try:
            return joined(self.observations.encode(observation, self.device)[0])
        except ValueError as error:
            raise ValueError(f"{argument}: expected observations of the environment ({error})") from error

    def transition_reward(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array) -> Array:
        """The learned reward of transitions (n,), with what follows a termination: for ``LearnedRewardVecEnv``."""
        return self._ends(self.reward(obs, actions if self.sees_actions else next_obs), terminated)

    def _ends(self, rewards: Array, terminated: Array) -> Array:
        if np.any(terminated):
            gamma = 1 - 1 / self.horizon
            rewards = rewards + gamma * self.discriminator.terminal_value() * terminated
        return rewards

    # Training

    def expert(self, demos: Trajectories) -> Tensor:
        """The discriminator's rows of all transitions of the demonstrations, (N, ...)."""
        dataset = TrajectoryDataset(demos, self.encoding if self.sees_actions else None, self.device)
        observations = joined(dataset.observations)
        reached = (~dataset.first_rows()).nonzero().squeeze(-1)
        other = observations if dataset.pre_actions is None else dataset.pre_actions
        return self.rows(observations[reached - 1], other[reached])

    def start(self, demos: Trajectories) -> None:
        """Meet the demonstrations: statistics of what is known before the first step."""
        expert, ends = self.expert(demos), sum(demo.terminated for demo in demos)
        known = all(demo.terminated or demo.truncated for demo in demos)
        self.discriminator.start(
            steps=len(expert), ends=ends, horizon=self.horizon, absorbing=self.config.absorbing and known
        )
        self.discriminator.standardizer.update(expert)
        self.standardizer.update(expert[:, : self.size])

    def run(self, agent: BaseAlgorithm, demos: Trajectories, timesteps: int, fit: Fit, name: str) -> None:
        """Let the policy interact and learn, for some environment steps.

        The environment is reset first, with a seed from the agent's generator: what happens is a fixed function of the
        agent, the demonstrations and the environment. Ctrl-C ends it between two steps.

        :param agent: whose environment it is, and whose counters move.
        :param name: of the phase, for progress and warnings.
        """
        assert agent.env is not None
        assert fit.steps is not None
        seed = int(torch.randint(2**31 - 1, (), generator=fit.generator))
        with BorrowedRandomness(seed, self.device) as randomness:
            generator = self._make_generator(agent.n_envs, agent._stats_window_size)
            generator.policy = self.policy
            recorder = _Recorder(self)
            paid = LearnedRewardVecEnv(agent.env, recorder)
            seen = EncodedVecEnv(paid, self._encode, self.size, self.encoding)
            scaled = VecNormalize(seen, norm_obs=False, clip_reward=np.inf, gamma=generator.gamma)
            scaled.ret_rms = self.returns
            scaled.seed(seed)
            generator.set_env(scaled)
            generator.set_logger(fit.logger)
            generator.num_timesteps = agent.num_timesteps
            with progress_bar(name, timesteps, enabled=fit.progress_bar) as advance:
                rounds = _Rounds(self, agent, self.expert(demos), recorder, fit, randomness, advance)
                try:
                    generator.learn(
                        timesteps, callback=rounds, log_interval=fit.log_interval, reset_num_timesteps=False
                    )
                except KeyboardInterrupt:
                    message = f"{name}: interrupted after {rounds.steps} of {timesteps} steps; what was learnt is kept"
                    warnings.warn(message, stacklevel=2)
                    rounds.stopped = True
                finally:
                    with randomness.given_back():
                        fit.steps.end()
        fit.interrupted |= rounds.stopped

    @torch.no_grad()
    def _encode(self, observation: Observation) -> Array:
        encoded: Array = self.standardizer(self._joined(observation, "observation")).cpu().numpy()
        return encoded

    def update_discriminator(self, expert: Tensor, agent: Tensor, generator: torch.Generator) -> Metrics:
        """One step of logistic regression; expert and agent: rows (N, ...) of the same number."""
        discriminator, config = self.discriminator, self.config
        discriminator.train()  # spectral norms follow the weights here only
        expert, agent = discriminator.standardizer(expert), discriminator.standardizer(agent)
        expert_logit, agent_logit = discriminator.from_standardized(torch.cat([expert, agent])).chunk(2)
        loss = discrimination_loss(expert_logit, agent_logit)
        metrics: Metrics = {
            "loss": loss.detach(),
            "expert_logit": expert_logit.detach().mean(),
            "agent_logit": agent_logit.detach().mean(),
        }
        if config.regularizer == "gradient_penalty":
            weight = torch.rand(len(expert), 1, generator=generator).to(self.device)
            penalty = gradient_penalty(discriminator.from_standardized, expert, agent, weight)
            metrics["penalty"] = penalty.detach()
            loss = loss + config.penalty * penalty
        self.optimizer.step(loss)
        discriminator.eval()
        return metrics

    # Files

    def state_dict(self) -> dict[str, Any]:
        """What training goes on from, beside the modules: moments, and the scale of the reward."""
        moments = self.policy.optimizer.state_dict()["state"]
        return {
            "policy_moments": {str(index): values for index, values in moments.items()},
            "discriminator_moments": self.optimizer.state_dict()["moments"],
            "returns": [float(self.returns.mean), float(self.returns.var), float(self.returns.count)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        moments = {int(index): values for index, values in state["policy_moments"].items()}
        self.policy.optimizer.load_state_dict(self.policy.optimizer.state_dict() | {"state": moments})
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"moments": state["discriminator_moments"]})
        mean, variance, count = state["returns"]
        self.returns.mean, self.returns.var = np.array(mean), np.array(variance)
        self.returns.count = count


class _Recorder:
    """The learned reward of the training environment, which keeps what the discriminator will learn from."""

    def __init__(self, adversary: Adversary) -> None:
        self._adversary = adversary
        self.rows: list[Tensor] = []
        self.rewards: list[Array] = []
        self.ends = 0

    def __call__(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array) -> Array:
        adversary = self._adversary
        rows = adversary._encoded_rows(obs, actions if adversary.sees_actions else next_obs)
        rewards: Array = adversary.discriminator.reward(rows).cpu().numpy()
        self.rows.append(rows)
        self.rewards.append(rewards)
        self.ends += int(np.sum(terminated))
        return adversary._ends(rewards, terminated)

    def take(self) -> tuple[Tensor, float, int]:
        """Rows (N, ...), mean reward and terminations since the last time."""
        taken = torch.cat(self.rows), float(np.mean(self.rewards)), self.ends
        self.rows, self.rewards, self.ends = [], [], 0
        return taken


class _Rounds(BaseCallback):
    """What happens around the generator: counting, the user's callback, and the discriminator's part of each round."""

    def __init__(
        self,
        adversary: Adversary,
        agent: BaseAlgorithm,
        expert: Tensor,
        recorder: _Recorder,
        fit: Fit,
        randomness: BorrowedRandomness,
        advance: Any,
    ) -> None:
        super().__init__()
        assert fit.steps is not None
        self.adversary, self.agent, self.expert, self.recorder = adversary, agent, expert, recorder
        self.fit, self.watch, self.randomness, self.advance = fit, fit.steps, randomness, advance
        self.steps, self.stopped = 0, False

    def _on_training_start(self) -> None:
        self.agent.ep_info_buffer = self.model.ep_info_buffer
        self.agent.ep_success_buffer = self.model.ep_success_buffer
        with self.randomness.given_back():
            self.watch.start(self.locals)

    def _on_rollout_start(self) -> None:
        with self.randomness.given_back():
            self.watch.rollout_start()

    def _on_step(self) -> bool:
        done = self.model.num_timesteps - self.agent.num_timesteps
        self.agent.num_timesteps = self.model.num_timesteps
        self.steps += done
        self.advance(done, "")
        if self.watch.watches:
            with self.randomness.given_back():
                self.stopped = not self.watch.step(self.locals)
        self.fit.interruption.obey()
        return not self.stopped

    def _on_rollout_end(self) -> None:
        with self.randomness.given_back():
            self.watch.rollout_end(self.locals)
        adversary, config, draw = self.adversary, self.adversary.config, self.fit.generator
        discriminator, expert = adversary.discriminator, self.expert
        rows, reward, ends = self.recorder.take()
        discriminator.count(steps=len(rows), ends=ends)
        discriminator.standardizer.update(torch.cat([rows, _sample(expert, len(rows), draw)]))
        adversary.standardizer.update(rows[:, : adversary.size])
        for _ in range(config.discriminator_updates):
            metrics = adversary.update_discriminator(
                _sample(expert, config.batch_size, draw), _sample(rows, config.batch_size, draw), draw
            )
            self.fit.counter.num_updates += 1
            for name, value in metrics.items():
                self.logger.record_mean(f"discriminator/{name}", float(value))
        if not math.isfinite(float(metrics["loss"])):
            raise FloatingPointError("training diverged: the discriminator's loss is not finite; lower learning_rate")
        self.logger.record("discriminator/reward", reward)
        self.logger.record("discriminator/terminal_value", discriminator.terminal_value())
        self.logger.record("discriminator/updates", self.fit.counter.num_updates)


def _sample(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some rows, with replacement."""
    return rows[torch.randint(len(rows), (count,), generator=generator).to(rows.device)]
