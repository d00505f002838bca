"""A reward that is learnt from demonstrations, and an algorithm of SB3 that earns it in the environment.

What all agents of that kind share: the algorithm runs with the agent's counters, callbacks, logger and randomness, sees
standardised observations, and is paid in units of the running spread of its discounted sums of rewards. What the reward
is, and what it learns from the steps that were taken for it, is a :class:`LearnedReward`.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from aime_gym.config import MAX_LAYERS, MAX_NUMBER, MAX_ROWS, check_bounds, check_choices, check_number
from aime_gym.data import ActionEncoding, ObservationEncoding
from aime_gym.learned_reward.algorithms import (
    ALGORITHMS,
    Algorithm,
    act,
    algorithm_options,
    load_optimizer_state,
    make_algorithm,
    optimizer_state,
    round_steps,
    share_weights,
)
from aime_gym.learned_reward.relabelling_buffer import RelabellingReplayBuffer
from aime_gym.learned_reward.transitions import ExpertTransitions, Transitions
from aime_gym.learned_reward.vec_envs import EncodedVecEnv, FlatVecEnv, LearnedRewardVecEnv
from aime_gym.models.augmentation import shifted
from aime_gym.models.flat_layout import FlatLayout, FrameStacker
from aime_gym.models.images import KINDS
from aime_gym.models.standardizer import RunningStandardizer
from aime_gym.progress import progress_bar
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.seeding import TemporaryGlobalSeed
from aime_gym.types import Array, Observation, Trajectories


@dataclass(frozen=True)
class LearnedRewardConfig:
    """Hyper-parameters of whoever earns a learned reward.

    :param timesteps: environment steps of ``imitate``, unless it is told otherwise.
    :param algorithm: the algorithm that learns the policy: SB3's ``ppo`` or, for continuous actions, ``sac``, or
        ``trpo`` of sb3-contrib. ``sac`` is paid by the reward of the moment for all that it samples from its replay
        buffer, which lasts as long as a call of ``imitate`` or ``learn``, and holds 300,000 steps, or as many of images
        as go into 4 GB.
    :param algorithm_kwargs: arguments of its constructor, as JSON values; ``n_steps``, ``learning_rate``, ``gamma`` ...
    :param absorbing: whether an episode that terminates goes on in an absorbing state, which has a value. Without it, a
        terminal state is worth nothing. It is left out where the demonstrations do not say how they end.
    :param frame_stack: how many of the last frames of an image the policy and the reward see.
    :param image_encoder: network of images, ``ha``, ``stages`` or ``patch``; see :mod:`aime_gym.models.images`.
    :param augment: whether images are shifted at random, by 4 pixels at most if they are 84 wide, where a reward learns
        from them, and where ``sac`` does.
    :param policy_ema_decay: what a round leaves of the average of past policies; 0 acts by the last policy. The last
        one is whatever the last round left, in a game that need not settle. The first rounds weigh the same.
    """

    timesteps: int = 100_000
    algorithm: str = "ppo"
    algorithm_kwargs: dict[str, Any] = field(default_factory=dict)
    absorbing: bool = True
    frame_stack: int = 3
    image_encoder: str = "patch"
    augment: bool = True
    policy_ema_decay: float = 0.9

    def __post_init__(self) -> None:
        check_choices(self, algorithm=ALGORITHMS, image_encoder=KINDS)
        check_bounds(self, timesteps=(1, None), frame_stack=(1, MAX_LAYERS), policy_ema_decay=(0, 1))
        if not isinstance(self.algorithm_kwargs, dict):
            raise ValueError(f"algorithm_kwargs: expected a dict, got {self.algorithm_kwargs!r}")
        known_options = algorithm_options(self.algorithm)
        if unknown := sorted(set(self.algorithm_kwargs) - set(known_options)):
            raise ValueError(f"algorithm_kwargs: expected some of {', '.join(known_options)}, got {unknown[0]!r}")
        for name, value in self.algorithm_kwargs.items():
            most = {"batch_size": MAX_ROWS, "n_steps": MAX_ROWS, "buffer_size": 10 * MAX_ROWS}.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                check_number(f"algorithm_kwargs[{name!r}]", value, -MAX_NUMBER, most, whole=False)
        try:
            json.dumps(self.algorithm_kwargs)
        except TypeError as error:
            raise ValueError(
                f"algorithm_kwargs: expected JSON values, got {self.algorithm_kwargs} ({error})"
            ) from error


class LearnedReward(Protocol):
    """What pays."""

    #: Of its network, in files and in the log.
    name: str
    #: Whether it is of (s, a) rather than of (s, s').
    sees_actions: bool

    @property
    def network(self) -> nn.Module:
        """All that a file has to keep of it."""
        ...

    def rewards(self, transitions: Transitions) -> Tensor:
        """(N,), without what follows a termination."""
        ...

    def terminal_value(self) -> float:
        """What follows a termination, discounted from the step after it on."""
        ...

    def start(self, expert: ExpertTransitions, effective_horizon: float, loop: TrainingLoop) -> bool:
        """Meet the demonstrations, before the first step.

        :param effective_horizon: steps that the discount looks ahead, 1 / (1 - gamma).
        :return: whether all was done that had to be, rather than being cut short by Ctrl-C.
        """
        ...

    def round(self, taken: Transitions, expert: ExpertTransitions, loop: TrainingLoop) -> None:
        """Learn from the steps that were taken since the last round."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What training goes on from, beside the network."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        ...


class LearnedRewardTrainer:
    """The policy, the reward and all that changes with them, for one agent.

    Made under the agent's own randomness, it is its networks; :meth:`start` and :meth:`run` train them.

    :param observations: encoding of the sensors.
    :param encoding: of the actions.
    :param make_reward: from what the numbers of an observation are.
    :param policy_kwargs: of the policy: ``hidden``, ``layers``.
    :raises ValueError: an algorithm that does not fit the actions, or options that it refuses.
    """

    def __init__(
        self,
        config: LearnedRewardConfig,
        observations: ObservationEncoding,
        encoding: ActionEncoding,
        make_reward: Callable[[FlatLayout], LearnedReward],
        *,
        policy_kwargs: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.config, self.observations, self.encoding = config, observations, encoding
        self.policy_kwargs, self.device = dict(policy_kwargs), device
        #: From observations to rows, and what is in them.
        self.stacked = FrameStacker(observations.shapes, config.frame_stack)
        self.layout = self.stacked.layout
        #: Holds what was learnt; each run has one of its own, for its environment.
        self.algorithm = self._make_algorithm(n_envs=1)
        #: What acts, once trained: the average over rounds of the weights of the one that learns.
        self.policy = copy.deepcopy(self.algorithm.policy).requires_grad_(False)
        self.averaged = 0
        #: Of vectors; images need none.
        self.standardizer = RunningStandardizer(self.layout.vectors).to(device)
        self.reward = make_reward(self.layout)
        #: Of discounted sums of the learned reward; its spread is the unit in which the generator is paid.
        self.returns = RunningMeanStd(shape=())
        gamma: float = self.algorithm.gamma
        self.effective_horizon = 1 / (1 - gamma) if gamma < 1 else math.inf
        if config.absorbing and not math.isfinite(self.effective_horizon):
            raise ValueError("algorithm_kwargs: expected gamma below 1 with absorbing=True, got gamma=1")

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All networks and statistics, by the names that a file gives them."""
        policy, learner = self.policy, self.algorithm.policy
        return {
            "policy": policy,
            "learner": learner,
            "standardizer": self.standardizer,
            self.reward.name: self.reward.network,
        }

    def _make_algorithm(self, n_envs: int, stats_window_size: int = 100) -> Algorithm:
        return make_algorithm(
            self.config.algorithm,
            self.config.algorithm_kwargs,
            self.layout,
            self.encoding,
            n_envs=n_envs,
            policy_kwargs=self.policy_kwargs,
            image_encoder=self.config.image_encoder,
            device=self.device,
            stats_window_size=stats_window_size,
        )

    # Acting

    @torch.no_grad()
    def act(self, observations: Tensor, generator: torch.Generator | None) -> Tensor:
        """Encoded actions (N, A) for flat observations (N, D)."""
        return act(self.policy, self.standardize(observations), generator)

    def standardize(self, rows: Tensor) -> Tensor:
        """Flat observations (N, D), as the policy sees them: vectors in units of their spread."""
        vectors, size = self.layout.vectors, self.layout.size
        if not vectors:
            return rows
        standardized: Tensor = self.standardizer(rows[:, :vectors])
        return standardized if vectors == size else torch.cat([standardized, rows[:, vectors:]], dim=-1)

    # The reward

    def rewards(self, obs: Observation, *, actions: Any = None, next_obs: Observation | None = None) -> Array:
        """Learned rewards (n,) of transitions as the environment has them, the first ones of an episode with images.

        :param actions: read by a reward of (s, a), and ``next_obs`` by one of (s, s').
        :raises ValueError: arrays of other shapes.
        """
        first = self.stacked.start(self._encoded(obs, "obs"))
        second = first if next_obs is None else self.stacked.push(first, self._encoded(next_obs, "next_obs"))
        if len(first) != len(second):
            raise ValueError(f"next_obs: expected {len(first)} observations, got {len(second)}")
        rewards: Array = self.reward.rewards(self._transitions(first, actions, second)).cpu().numpy()
        return rewards

    def transition_reward(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array) -> Array:
        """The learned reward of transitions (n,), with what follows a termination: for ``LearnedRewardVecEnv``."""
        return self._ends(self.rewards(obs, actions=actions, next_obs=next_obs), terminated)

    def _ends(self, rewards: Array, terminated: Array) -> Array:
        if np.any(terminated):
            gamma = 1 - 1 / self.effective_horizon
            rewards = rewards + gamma * self.reward.terminal_value() * terminated
        return rewards

    def _transitions(self, first: Tensor, actions: Any, second: Tensor, terminated: Array | None = None) -> Transitions:
        """Of flat observations (n, D)."""
        encoded = None
        if self.reward.sees_actions:
            actions, shape = np.asarray(actions), (len(first), *(self.encoding.space.shape or ()))
            if actions.shape != shape:
                raise ValueError(f"actions: expected shape {shape}, got {actions.shape}")
            encoded = torch.from_numpy(self.encoding.encode(actions)).to(self.device)
        ends = torch.zeros(len(first), dtype=torch.bool) if terminated is None else torch.from_numpy(terminated)
        return Transitions(first, encoded, second, ends.to(self.device))

    def _encoded(self, observation: Observation, argument: str) -> dict[str, Tensor]:
        try:
            return self.observations.encode(observation, self.device)[0]
        except ValueError as error:
            raise ValueError(f"{argument}: expected observations of the environment ({error})") from error

    # Training

    def _expert(self, demos: Trajectories) -> ExpertTransitions:
        return ExpertTransitions(demos, self.encoding if self.reward.sees_actions else None, self.stacked, self.device)

    def start(self, demos: Trajectories, loop: TrainingLoop) -> bool:
        """Meet the demonstrations, before the first step.

        :return: whether there is no reason to stop here.
        """
        expert = self._expert(demos)
        self.standardizer.update(expert.transitions.obs)
        return self.reward.start(expert, self.effective_horizon, loop)

    def run(self, agent: BaseAlgorithm, demos: Trajectories, timesteps: int, loop: TrainingLoop, name: str) -> None:
        """Let the policy interact and learn, for some environment steps.

        The environment is reset first, with a seed from the agent's generator: what happens is a fixed function of the
        agent, the demonstrations and the environment. Ctrl-C ends it between two steps.

        :param agent: whose environment it is, and whose counters move.
        :param name: of the phase, for progress and warnings.
        """
        assert agent.env is not None
        assert loop.step_callbacks is not None
        seed = int(torch.randint(2**31 - 1, (), generator=loop.generator))
        with TemporaryGlobalSeed(seed, self.device) as global_seed:
            algorithm = self._make_algorithm(agent.n_envs, agent._stats_window_size)
            share_weights(self.algorithm, algorithm)
            recorder = _Recorder(self)
            flat = FlatVecEnv(agent.env, self.observations, self.stacked)
            rewarded = LearnedRewardVecEnv(flat, recorder)
            seen = EncodedVecEnv(rewarded, self._encode, self.layout, self.encoding)
            scaled = VecNormalize(seen, norm_obs=False, clip_reward=np.inf, gamma=algorithm.gamma)
            scaled.ret_rms = self.returns
            scaled.seed(seed)
            algorithm.set_env(scaled)
            algorithm.set_logger(loop.logger)
            algorithm.num_timesteps = agent.num_timesteps
            if isinstance(algorithm, OffPolicyAlgorithm):
                self._relabel(algorithm, recorder)
            with progress_bar(name, timesteps, enabled=loop.progress_bar) as advance:
                rounds = _Rounds(self, agent, self._expert(demos), recorder, loop, global_seed, advance)
                try:
                    algorithm.learn(
                        timesteps, callback=rounds, log_interval=loop.log_interval, reset_num_timesteps=False
                    )
                except KeyboardInterrupt:
                    message = f"{name}: interrupted after {rounds.steps} of {timesteps} steps; what was learnt is kept"
                    warnings.warn(message, stacklevel=2)
                    rounds.stopped = True
                finally:
                    with global_seed.suspended():
                        loop.step_callbacks.end()
        loop.interrupted |= rounds.stopped

    @torch.no_grad()
    def average(self) -> None:
        """Take the policy, as a round has left it, into the average."""
        self.averaged += 1
        weight = max(1 - self.config.policy_ema_decay, 1 / self.averaged)
        for average, last in zip(self.policy.parameters(), self.algorithm.policy.parameters(), strict=True):
            average.lerp_(last, weight)

    @torch.no_grad()
    def _encode(self, rows: Array) -> Array:
        encoded: Array = self.standardize(torch.from_numpy(rows).to(self.device)).cpu().numpy()
        return encoded

    def _sampled(self, rows: Tensor) -> Tensor:
        """Flat observations (N, D) of a replay buffer, as the policy learns from them."""
        if self.config.augment:  # inside of borrowed randomness
            rows = shifted(self.layout, rows, torch.default_generator)
        return self.standardize(rows)

    def _relabel(self, generator: OffPolicyAlgorithm, recorder: _Recorder) -> None:
        """Give an algorithm a replay buffer that pays as of today, and the steps to fill it."""
        generator.learning_starts += generator.num_timesteps
        generator.replay_buffer = RelabellingReplayBuffer(
            generator.buffer_size,
            generator.observation_space,
            generator.action_space,
            self.device,
            generator.n_envs,
            latest=lambda: recorder.taken[-1],
            standardize=self._sampled,
            pay=self._pay,
        )

    def _pay(self, transitions: Transitions) -> Array:
        if not self.reward.sees_actions:
            transitions = replace(transitions, actions=None)
        elif transitions.actions is not None:  # what was taken: integers in a Box are rounded on the way
            taken = self.encoding.encode(self.encoding.decode(transitions.actions.cpu().numpy()))
            transitions = replace(transitions, actions=torch.from_numpy(taken).to(self.device))
        rewards: Array = self.reward.rewards(transitions).cpu().numpy()
        return self._ends(rewards, transitions.terminated.cpu().numpy())

    # Files

    def state_dict(self) -> dict[str, Any]:
        """What training goes on from, beside the modules: moments, and the scale of the reward."""
        return {
            "generator": optimizer_state(self.algorithm),
            "reward": self.reward.state_dict(),
            "returns": [float(self.returns.mean), float(self.returns.var), float(self.returns.count)],
            "averaged": self.averaged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        load_optimizer_state(self.algorithm, state["generator"])
        self.reward.load_state_dict(state["reward"])
        mean, variance, count = state["returns"]
        self.returns.mean, self.returns.var = np.array(mean), np.array(variance)
        self.returns.count = count
        self.averaged = state["averaged"]


class _Recorder:
    """The learned reward of the training environment, which keeps what the reward will learn from."""

    def __init__(self, trainer: LearnedRewardTrainer) -> None:
        self._earner = trainer
        self.taken: list[Transitions] = []
        self.rewards: list[Array] = []

    def __call__(self, obs: Any, actions: Array, next_obs: Any, terminated: Array) -> Array:
        """The reward of flat observations (n, D)."""
        trainer = self._earner
        first, second = (torch.from_numpy(rows).to(trainer.device) for rows in (obs, next_obs))
        transitions = trainer._transitions(first, actions, second, terminated)
        rewards: Array = trainer.reward.rewards(transitions).cpu().numpy()
        self.taken.append(transitions)
        self.rewards.append(rewards)
        return trainer._ends(rewards, terminated)

    @property
    def steps(self) -> int:
        """How many are kept."""
        return sum(map(len, self.taken))

    def take(self) -> tuple[Transitions, float]:
        """The transitions since the last time, and their mean reward."""
        taken = Transitions.joined(self.taken), float(np.mean(self.rewards))
        self.taken, self.rewards = [], []
        return taken


class _Rounds(BaseCallback):
    """What happens around the generator: counting, the user's callback, and the reward's part of each round."""

    def __init__(
        self,
        trainer: LearnedRewardTrainer,
        agent: BaseAlgorithm,
        expert: ExpertTransitions,
        recorder: _Recorder,
        loop: TrainingLoop,
        global_seed: TemporaryGlobalSeed,
        advance: Any,
    ) -> None:
        super().__init__()
        assert loop.step_callbacks is not None
        self.trainer, self.agent, self.expert, self.recorder = trainer, agent, expert, recorder
        self.loop, self.callbacks, self.global_seed, self.advance = loop, loop.step_callbacks, global_seed, advance
        self.steps, self.stopped, self.learnt = 0, False, False
        self.round_steps = round_steps(trainer.algorithm)

    def _on_training_start(self) -> None:
        self.agent.ep_info_buffer = self.model.ep_info_buffer
        self.agent.ep_success_buffer = self.model.ep_success_buffer
        with self.global_seed.suspended():
            self.callbacks.start(self.locals)

    def _on_rollout_start(self) -> None:
        self._average()
        with self.global_seed.suspended():
            self.callbacks.rollout_start()

    def _on_training_end(self) -> None:
        self._average()

    def _average(self) -> None:
        if self.learnt:
            self.trainer.average()
        self.learnt = False

    def _on_step(self) -> bool:
        done = self.model.num_timesteps - self.agent.num_timesteps
        self.agent.num_timesteps = self.model.num_timesteps
        self.steps += done
        self.advance(done, "")
        if self.callbacks.watches:
            with self.global_seed.suspended():
                self.stopped = not self.callbacks.step(self.locals)
        self.loop.signals.raise_pending()
        return not self.stopped

    def _on_rollout_end(self) -> None:
        with self.global_seed.suspended():
            self.callbacks.rollout_end(self.locals)
        if self.recorder.steps < self.round_steps:
            return
        self.learnt = True  # by the time that the next rollout starts
        trainer, reward = self.trainer, self.trainer.reward
        taken, mean = self.recorder.take()
        reward.round(taken, self.expert, self.loop)
        trainer.standardizer.update(taken.obs[:, : trainer.layout.vectors])
        self.logger.record(f"{reward.name}/reward", mean)
        self.logger.record(f"{reward.name}/terminal_value", reward.terminal_value())
