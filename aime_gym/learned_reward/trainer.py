"""Training of a policy by one of SB3's algorithms on a reward that is learnt from demonstrations.

What all agents of that kind share: the algorithm runs with the agent's counters, callbacks, logger and randomness, sees
standardised observations, and gets its rewards in units of the running spread of their discounted sums. What the reward
is, and what it learns from the agent's transitions, is a [`LearnedReward`][].
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import TensorDict
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
    reset_env,
    share_weights,
    steps_per_reward_update,
)
from aime_gym.learned_reward.frame_stack import FrameStack
from aime_gym.learned_reward.relabelling_buffer import RelabellingReplayBuffer
from aime_gym.learned_reward.transitions import ExpertTransitions, Transitions
from aime_gym.learned_reward.vec_envs import EncodedVecEnv, LearnedRewardVecEnv, decode_actions
from aime_gym.models.augmentation import augment
from aime_gym.models.images import IMAGE_ARCHITECTURES
from aime_gym.models.stacked import concatenate_sensors
from aime_gym.models.standardizer import RunningStandardizer
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.rollouts import Rollouts, draw_seed
from aime_gym.training.seeding import TemporaryGlobalSeed
from aime_gym.types import Array, Observation, Trajectories


@dataclass(frozen=True)
class LearnedRewardConfig:
    """Hyper-parameters of training on a learned reward.

    :param timesteps: environment steps of ``imitate``, unless it is told otherwise.
    :param algorithm: the algorithm that learns the policy: SB3's ``ppo`` or, for continuous actions, ``sac``, or
        ``trpo`` of sb3-contrib. What ``sac`` samples from its replay buffer is rewarded anew. The buffer lasts as long
        as a call of ``imitate`` or ``learn``, and holds 300,000 steps, or as many of images as go into 4 GB.
    :param algorithm_kwargs: arguments of its constructor, as JSON values; ``n_steps``, ``learning_rate``, ``gamma`` ...
    :param absorbing: whether an episode that terminates goes on in an absorbing state, which has a value. Without it, a
        terminal state is worth nothing. It is left out where the demonstrations do not say how they end.
    :param frame_stack: number of the last frames of an image that the policy and the reward see.
    :param image_encoder: network of images, ``ha``, ``stages`` or ``patch``; see [`aime_gym.models.images`][].
    :param augment: whether images are shifted at random, by 4 pixels at most if they are 84 wide, where a reward learns
        from them, and where ``sac`` does.
    :param policy_ema_decay: decay of the average of past policies, which is what acts, with each update of the reward;
        0 acts by the last policy. Policy and reward need not settle, and so the last policy may be a bad one. The first
        policies weigh the same.
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
        check_choices(self, algorithm=ALGORITHMS, image_encoder=IMAGE_ARCHITECTURES)
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
    """A reward of transitions that is learnt from demonstrations."""

    #: Name of its network, in files and in the log.
    name: str
    #: True for a reward of (s, a), false for one of (s, s').
    uses_actions: bool

    @property
    def network(self) -> nn.Module:
        """Network and statistics that a file keeps."""
        ...

    def reward(self, transitions: Transitions) -> Tensor:
        """Return rewards (N,), without the value of a termination."""
        ...

    def terminal_value(self) -> float:
        """Return the value of a terminal state, discounted from the step after the termination on."""
        ...

    def fit_demonstrations(self, expert: ExpertTransitions, effective_horizon: float, loop: TrainingLoop) -> bool:
        """Learn from the demonstrations alone, before the first environment step.

        :param effective_horizon: steps that the discount looks ahead, 1 / (1 - gamma).
        :return: whether it came to its end, rather than being cut short by Ctrl-C.
        """
        ...

    def update(self, transitions: Transitions, expert: ExpertTransitions, loop: TrainingLoop) -> None:
        """Learn from the agent's transitions since the last update."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what training goes on from, beside the network."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what [`state_dict`][] returned."""
        ...


class LearnedRewardTrainer:
    """The policy, the reward and all that changes with them, for one agent.

    Made under the agent's own randomness, it is its networks; [`fit_demonstrations`][] and [`train`][] train them.

    :param observations: encoding of the sensors.
    :param actions: encoding of the actions.
    :param make_reward: function from the space of stacked observations to a reward.
    :param policy_kwargs: ``hidden`` and ``layers`` of the policy.
    :raises ValueError: an algorithm that does not fit the actions, or options that it refuses.
    """

    def __init__(
        self,
        config: LearnedRewardConfig,
        observations: ObservationEncoding,
        actions: ActionEncoding,
        make_reward: Callable[[spaces.Dict], LearnedReward],
        *,
        policy_kwargs: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.config, self.observations, self.actions = config, observations, actions
        self.policy_kwargs = dict(policy_kwargs)
        self.device = device
        self.frame_stack = FrameStack(observations.shapes, config.frame_stack)
        #: Statistics of all vectors, shared by the policies.
        self.standardizer = RunningStandardizer(
            sum(observations.shapes[name][0] for name in self.frame_stack.vectors)
        ).to(device)
        #: Holds what was learnt; each run has one of its own, for its environment.
        self.algorithm = self._make_algorithm(n_envs=1)
        #: Average of past policies, which acts.
        shared = {id(self.standardizer): self.standardizer}
        self.policy = copy.deepcopy(self.algorithm.policy, shared).requires_grad_(False)
        #: Number of policies in the average.
        self.num_averaged = 0
        self.reward = make_reward(self.frame_stack.space)
        #: Statistics of discounted sums of the learned reward, whose spread is its unit.
        self.returns = RunningMeanStd(shape=())
        gamma: float = self.algorithm.gamma
        self.effective_horizon = 1 / (1 - gamma) if gamma < 1 else math.inf
        if config.absorbing and not math.isfinite(self.effective_horizon):
            raise ValueError("algorithm_kwargs: expected gamma below 1 with absorbing=True, got gamma=1")

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All networks and statistics, by the names that a file gives them."""
        return {"policy": self.policy, "learner": self.algorithm.policy, self.reward.name: self.reward.network}

    def _make_algorithm(self, n_envs: int, stats_window_size: int = 100) -> Algorithm:
        return make_algorithm(
            self.config.algorithm,
            self.config.algorithm_kwargs,
            self.frame_stack.space,
            self.actions,
            n_envs=n_envs,
            policy_kwargs=self.policy_kwargs,
            standardizer=self.standardizer,
            image_encoder=self.config.image_encoder,
            replay_buffer_kwargs={"relabel": self._relabel, "augment": self._augment},
            device=self.device,
            stats_window_size=stats_window_size,
        )

    @torch.no_grad()
    def act(self, observation: TensorDict, generator: torch.Generator | None) -> Tensor:
        """Return encoded actions (N, A) for stacked observations (N, ...)."""
        return act(self.policy, observation, generator)

    # The reward

    def rewards(self, obs: Observation, *, actions: Any = None, next_obs: Observation | None = None) -> Array:
        """Return learned rewards (n,) of transitions as the environment has them, the first of an episode with images.

        :param actions: actions (n, ...), for a reward of (s, a).
        :param next_obs: s' (n, ...), for a reward of (s, s').
        :raises ValueError: arrays of other shapes.
        """
        first = self.frame_stack.reset(self._encode(obs, "obs"))
        second = first if next_obs is None else self.frame_stack.append(first, self._encode(next_obs, "next_obs"))
        count, next_count = (len(next(iter(sensors.values()))) for sensors in (first, second))
        if count != next_count:
            raise ValueError(f"next_obs: expected {count} observations, got {next_count}")
        encoded = None
        if self.reward.uses_actions:
            actions = np.asarray(actions)
            shape = (count, *(self.actions.space.shape or ()))
            if actions.shape != shape:
                raise ValueError(f"actions: expected shape {shape}, got {actions.shape}")
            encoded = torch.from_numpy(self.actions.encode(actions)).to(self.device)
        unused = torch.zeros(count, dtype=torch.bool, device=self.device)
        rewards: Array = self.reward.reward(Transitions(first, encoded, second, unused)).cpu().numpy()
        return rewards

    def transition_reward(self, obs: Observation, actions: Array, next_obs: Observation, terminated: Array) -> Array:
        """Return learned rewards (n,) with the value of a termination, for ``LearnedRewardVecEnv``."""
        return self._add_terminal_value(self.rewards(obs, actions=actions, next_obs=next_obs), terminated)

    def _add_terminal_value(self, rewards: Array, terminated: Array) -> Array:
        if np.any(terminated):
            gamma = 1 - 1 / self.effective_horizon
            rewards = rewards + gamma * self.reward.terminal_value() * terminated
        return rewards

    def _encode(self, observation: Observation, argument: str) -> TensorDict:
        try:
            return self.observations.encode(observation, self.device)[0]
        except ValueError as error:
            raise ValueError(f"{argument}: expected observations of the environment ({error})") from error

    def _executed_actions(self, actions: Array) -> Tensor | None:
        """Return what the environment did of an algorithm's actions, encoded: integers in a Box are rounded."""
        if not self.reward.uses_actions:
            return None
        return torch.from_numpy(self.actions.encode(decode_actions(actions, self.actions))).to(self.device)

    # The replay buffer

    def _relabel(self, transitions: Transitions) -> Array:
        actions = None if transitions.actions is None else self._executed_actions(transitions.actions.cpu().numpy())
        rewards = self.reward.reward(replace(transitions, actions=actions)).cpu().numpy()
        return self._add_terminal_value(rewards, transitions.terminated.cpu().numpy())

    def _augment(self, observation: TensorDict) -> TensorDict:
        if not self.config.augment:
            return observation
        # SB3 trains under a temporary seed of PyTorch's generator.
        return {name: augment(values, torch.default_generator) for name, values in observation.items()}

    # Training

    def _expert_transitions(self, demos: Trajectories) -> ExpertTransitions:
        actions = self.actions if self.reward.uses_actions else None
        return ExpertTransitions(demos, actions, self.frame_stack, self.device)

    def update_standardizer(self, transitions: Transitions) -> None:
        """Take the vectors of s into the statistics that standardise the policy's observations."""
        if self.frame_stack.vectors:
            self.standardizer.update(
                concatenate_sensors({name: transitions.obs[name] for name in self.frame_stack.vectors})
            )

    def fit_demonstrations(self, demos: Trajectories, loop: TrainingLoop) -> bool:
        """Learn from the demonstrations alone, before the first environment step.

        :return: whether it came to its end, rather than being cut short by Ctrl-C.
        """
        expert = self._expert_transitions(demos)
        self.update_standardizer(expert.vectors)
        return self.reward.fit_demonstrations(expert, self.effective_horizon, loop)

    def train(self, agent: BaseAlgorithm, demos: Trajectories, timesteps: int, loop: TrainingLoop, name: str) -> None:
        """Let the policy interact and learn, for some environment steps.

        The environment is reset first, with a seed from the agent's generator: what happens is a fixed function of the
        agent, the demonstrations and the environment. Ctrl-C ends it between two steps.

        Where a checkpoint is kept, so is each round from such a reset to the next: whole updates of the reward and of
        the policy, as many as the interval has. Without one there is a single round, since a reset cuts episodes short.

        :param agent: agent whose environment it is, and whose counters move.
        :param name: name of the phase, for progress and warnings.
        """
        assert agent.env is not None
        assert loop.step_callbacks is not None
        seed = draw_seed(loop.generator)
        with TemporaryGlobalSeed(seed, self.device) as global_seed:
            algorithm = self._make_algorithm(agent.n_envs, agent._stats_window_size)
            share_weights(self.algorithm, algorithm)
            recorder = _TransitionRecorder(self)
            encoded = EncodedVecEnv(agent.env, self.observations, self.frame_stack, self.actions)
            scaled = VecNormalize(
                LearnedRewardVecEnv(encoded, recorder), norm_obs=False, clip_reward=np.inf, gamma=algorithm.gamma
            )
            scaled.ret_rms = self.returns
            scaled.seed(seed)
            algorithm.set_env(scaled)
            algorithm.set_logger(loop.logger)
            if isinstance(algorithm, OffPolicyAlgorithm):  # whose new replay buffer is empty
                algorithm.learning_starts += agent.num_timesteps
            loop.step_callbacks.context = global_seed.suspended
            state = None if loop.checkpoint is None else _RoundState(self, algorithm)
            rollouts = Rollouts(agent, loop, name, timesteps, state)

            def start_round() -> None:
                # Of all that was drawn before, a process that resumes has drawn something else.
                seed = draw_seed(loop.generator)
                global_seed.reseed(seed)
                reset_env(algorithm, seed)

            expert = self._expert_transitions(demos)
            callback = _RewardUpdateCallback(self, expert, recorder, rollouts, start_round)

            def learn() -> None:
                algorithm.num_timesteps = agent.num_timesteps
                if state is not None:
                    start_round()
                algorithm.learn(
                    rollouts.remaining, callback=callback, log_interval=loop.log_interval, reset_num_timesteps=False
                )
                if state is not None:
                    state.replay_buffer = None  # it lasts as long as this run

            rollouts.drive(learn)

    @torch.no_grad()
    def update_average_policy(self) -> None:
        """Take the policy that learns into the average, which acts."""
        self.num_averaged += 1
        weight = max(1 - self.config.policy_ema_decay, 1 / self.num_averaged)
        for average, last in zip(self.policy.parameters(), self.algorithm.policy.parameters(), strict=True):
            average.lerp_(last, weight)

    # Files

    def state_dict(self) -> dict[str, Any]:
        """Return what training goes on from, beside the modules: moments, and the scale of the reward."""
        return {
            "algorithm": optimizer_state(self.algorithm),
            "reward": self.reward.state_dict(),
            "returns": [float(self.returns.mean), float(self.returns.var), float(self.returns.count)],
            "num_averaged": self.num_averaged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what [`state_dict`][] returned."""
        load_optimizer_state(self.algorithm, state["algorithm"])
        self.reward.load_state_dict(state["reward"])
        mean, variance, count = state["returns"]
        self.returns.mean = np.array(mean)
        self.returns.var = np.array(variance)
        self.returns.count = count
        self.num_averaged = state["num_averaged"]


class _RoundState:
    """State of all that rounds change: networks, moments, statistics, and the replay buffer of ``sac``."""

    def __init__(self, trainer: LearnedRewardTrainer, algorithm: Algorithm) -> None:
        self._trainer = trainer
        buffer = algorithm.replay_buffer if isinstance(algorithm, OffPolicyAlgorithm) else None
        self.replay_buffer = buffer if isinstance(buffer, RelabellingReplayBuffer) else None

    def state_dict(self) -> dict[str, Any]:
        buffer = {} if self.replay_buffer is None else {"replay_buffer": self.replay_buffer.state_dict()}
        modules = {name: module.state_dict() for name, module in self._trainer.modules.items()}
        return {"modules": modules, "training": self._trainer.state_dict(), **buffer}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, module in self._trainer.modules.items():
            module.load_state_dict(state["modules"][name])
        self._trainer.load_state_dict(state["training"])
        if self.replay_buffer is not None and "replay_buffer" in state:
            self.replay_buffer.load_state_dict(state["replay_buffer"])


class _TransitionRecorder:
    """The reward function of the training environment, which keeps the transitions that the reward will learn from."""

    def __init__(self, trainer: LearnedRewardTrainer) -> None:
        self._trainer = trainer
        self._transitions: list[Transitions] = []
        self._rewards: list[Array] = []
        #: Number of transitions since the last ``pop``.
        self.steps = 0

    def __call__(self, obs: Any, actions: Array, next_obs: Any, terminated: Array) -> Array:
        """Return the rewards of transitions (n,) between stacked observations."""
        trainer = self._trainer
        first, second = (
            {name: torch.from_numpy(values).to(trainer.device) for name, values in observation.items()}
            for observation in (obs, next_obs)
        )
        ended = torch.from_numpy(terminated).to(trainer.device)
        transitions = Transitions(first, trainer._executed_actions(actions), second, ended)
        rewards: Array = trainer.reward.reward(transitions).cpu().numpy()
        self._transitions.append(transitions)
        self._rewards.append(rewards)
        self.steps += len(transitions)
        return trainer._add_terminal_value(rewards, terminated)

    def pop(self) -> tuple[Transitions, float]:
        """Return the transitions since the last time, and their mean reward."""
        transitions = Transitions.concatenate(self._transitions)
        mean_reward = float(np.mean(self._rewards))
        self._transitions, self._rewards, self.steps = [], [], 0
        return transitions, mean_reward


class _RewardUpdateCallback(BaseCallback):
    """A callback that counts steps, calls the user's callback, and updates the reward between collecting and training.

    What changes with the policy (its average, and the statistics of its observations) waits until it has been trained.
    """

    def __init__(
        self,
        trainer: LearnedRewardTrainer,
        expert: ExpertTransitions,
        recorder: _TransitionRecorder,
        rollouts: Rollouts,
        start_round: Callable[[], None],
    ) -> None:
        super().__init__()
        self.trainer, self.expert, self.recorder, self.rollouts = trainer, expert, recorder, rollouts
        self.start_round = start_round
        #: The algorithm's updates before the current round.
        self.policy_updates = 0
        #: Transitions of the last update of the reward, until the policy has been trained.
        self.pending: Transitions | None = None

    def _on_training_start(self) -> None:
        agent = self.rollouts.agent
        agent.ep_info_buffer = self.model.ep_info_buffer
        agent.ep_success_buffer = self.model.ep_success_buffer
        self.rollouts.start(self.locals)

    def _on_rollout_start(self) -> None:
        self._finish_policy_update()
        # Those of a reward that was fitted in advance are over.
        updates = self.rollouts.updates or self.model._n_updates - self.policy_updates
        if self.recorder.steps == 0 and self.rollouts.is_round_over(updates):
            self.rollouts.end_round()
            self.start_round()
            self.policy_updates = self.model._n_updates
        self.rollouts.start_rollout()

    def _on_training_end(self) -> None:
        self._finish_policy_update()

    def _finish_policy_update(self) -> None:
        if self.pending is not None:
            self.trainer.update_average_policy()
            self.trainer.update_standardizer(self.pending)
        self.pending = None

    def _on_step(self) -> bool:
        return self.rollouts.step(self.model.num_timesteps - self.rollouts.agent.num_timesteps, self.locals)

    def _on_rollout_end(self) -> None:
        self.rollouts.end_rollout(self.locals)
        if self.recorder.steps < steps_per_reward_update(self.trainer.algorithm):
            return
        reward = self.trainer.reward
        self.pending, mean_reward = self.recorder.pop()
        reward.update(self.pending, self.expert, self.rollouts.loop)
        self.logger.record(f"{reward.name}/reward", mean_reward)
        self.logger.record(f"{reward.name}/terminal_value", reward.terminal_value())
