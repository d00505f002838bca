"""The driver of environment steps: rounds of steps and updates, the steps of a policy, and its whole episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import NormalizeObservation, TimeLimit
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from aime_gym.data import EpisodeRecorder
from aime_gym.data.recording import EPISODE_LIMIT, endless_episode
from aime_gym.data.spaces import require_finite
from aime_gym.envs import env_of_id
from aime_gym.training.checkpoint import RunState, Stateful, snapshot
from aime_gym.training.loop import Advance, TrainingLoop
from aime_gym.types import Array, Metrics, Observation, Trajectory


class Rollouts:
    """Driver of the environment steps of a phase, and of the updates that follow them.

    A round is a rollout and the updates after it, or several of them where the environment continues from one rollout
    to the next. Where a checkpoint is kept, each round has to start with a reset of the environment by a seed from the
    phase's generator, as [`collect`][] and [`continued_steps`][] do, and to end before the next one. So no state of
    an environment outlives a round, and a checkpoint between two rounds holds all that there is: a resumed phase ends
    as an uninterrupted one.

    An algorithm that has a loop of its own runs in [`drive`][], and reports to [`start`][], [`start_rollout`][],
    [`step`][], [`end_rollout`][] and, where a checkpoint is kept, [`end_round`][].

    :param agent: the agent whose environment it is, and whose counters move.
    :param loop: loop of a phase with ``step_callbacks``.
    :param name: name of the phase, in the log and on the progress bar.
    :param total: number of units to take; the last round may take more.
    :param state: object that holds all that a round changes, the generator and the counters aside; ``None`` where
        nothing is kept.
    :param unit: ``steps`` of the environment, all copies together, or ``episodes``.
    """

    def __init__(
        self,
        agent: BaseAlgorithm,
        loop: TrainingLoop,
        name: str,
        total: int,
        state: Stateful | None = None,
        *,
        unit: str = "steps",
    ) -> None:
        assert loop.step_callbacks is not None
        self.agent, self.loop, self.name, self.total = agent, loop, name, total
        self._state, self._unit, self._callbacks = state, unit, loop.step_callbacks
        #: Progress up to now, and up to the end of the last round: what a checkpoint may hold.
        self._now = RunState(name)
        self._kept = self._now
        self._first_update = 0
        self._advance: Advance = lambda steps, text: None
        #: Steps that continue from rollout to rollout, since the reset that began the round.
        self._continued_steps: Iterator[EnvStep] | None = None
        #: Mask (n_envs,) of the copies that have not finished an episode in this round.
        self._unfinished = np.ones(agent.n_envs, bool)
        #: Number of steps of each copy in this round.
        self._round_steps = 0
        #: Metrics of the updates after the current rollout, by the name of their run.
        self._windows: dict[str, list[Metrics]] = {}
        self._unwritten = False
        #: Whether the callback has asked to stop.
        self.stopped = False

    @property
    def remaining(self) -> int:
        """Number of units that the current round, and those after it, still have to take."""
        return self.total - int(getattr(self._now, self._unit))

    @property
    def updates(self) -> int:
        """Number of the agent's updates in the current round."""
        return self.loop.counter.num_updates - self._first_update - self._kept.updates

    # The driver

    def drive(self, body: Callable[[], object]) -> bool:
        """Run a function that takes the steps, with a progress bar, up to its end or to Ctrl-C.

        :param body: function that takes the steps, and reports to [`start`][], [`step`][] and [`end_rollout`][].
        :return: whether it came to its end, rather than being stopped by Ctrl-C or by the callback.
        :raises KeyboardInterrupt: Ctrl-C where a checkpoint is kept.
        """

        def started(run: RunState, advance: Advance) -> bool:
            self._advance = advance
            self._kept = run
            # Where nothing is kept, a message about Ctrl-C names all steps up to then.
            self._now = run if self._state is None else replace(run)
            self._first_update = self.loop.counter.num_updates - run.updates
            self._unwritten = self._state is not None and run.state is None  # the start of the phase
            try:
                body()
            except KeyboardInterrupt:
                self._write_checkpoint()
                raise
            self._count_round()
            return not self.stopped

        return self.loop.drive(self.name, self.total, self._unit, self._state, started, end=self._callbacks.end)

    def repeat(self, collect_and_update: Callable[[], Metrics]) -> bool:
        """Repeat a rollout and its updates until all steps are taken, or those that a checkpoint left.

        :param collect_and_update: function that takes the steps of one rollout in [`collect`][], or reports those of
            [`continued_steps`][] to [`record_step`][], makes its updates in [`run`][], and returns further values
            for the log, by their whole names.
        :return: as [`drive`][].
        """

        def rounds() -> None:
            loop, now = self.loop, self._now
            started = time.monotonic()
            first_step, written_updates, count = now.steps, self._kept.updates, 0
            self.start({"total_timesteps": self.agent.num_timesteps + self.remaining})
            while self.remaining > 0 and not self.stopped:
                self._windows = {}
                self.start_rollout()
                metrics = collect_and_update()
                count += 1
                if count % loop.log_interval == 0 or self.remaining <= 0:
                    self._log(metrics, (now.steps - first_step) / max(time.monotonic() - started, 1e-9))
                if self._continued_steps is None or self.is_round_over(self.updates):
                    updates = self._kept.updates + self.updates
                    due = loop.checkpoint is not None and updates - written_updates >= loop.checkpoint.interval
                    written_updates = updates if due else written_updates
                    self.end_round(write=due)

        return self.drive(rounds)

    # Parts of a round

    def start(self, local_values: dict[str, Any]) -> None:
        """Announce the first step to the callback.

        :param local_values: ``locals`` of SB3's algorithms at that point: ``total_timesteps``.
        """
        self._callbacks.start(local_values)

    def collect(self, act: ActFunction, *, steps: int) -> list[Trajectory]:
        """Collect whole episodes of all copies of the environment, after a reset, at least so many steps.

        :raises KeyboardInterrupt: Ctrl-C.
        """
        env = self.agent.env
        assert env is not None
        seed = draw_seed(self.loop.generator)
        episodes = collect_episodes(env, act, steps=steps, seed=seed, on_step=self.record_step)
        if not self.stopped:
            self.end_rollout({})
        self._now.episodes += len(episodes)
        mean_return = np.mean([episode.episode_return for episode in episodes])
        self._advance(len(episodes) if self._unit == "episodes" else 0, f"return {mean_return:.1f}")
        return episodes

    def continued_steps(self, act: ActFunction) -> Iterator[EnvStep]:
        """Return steps of all copies without end, from where the last rollout stopped, or from a reset in a new round.

        :param act: choice of actions, the same in all rollouts.
        """
        env = self.agent.env
        assert env is not None
        if self._continued_steps is None:
            self._continued_steps = env_steps(env, act, seed=draw_seed(self.loop.generator))
        return self._continued_steps

    def record_step(self, step: EnvStep) -> bool:
        """Count a step of all copies, and the episodes that end there; returns as [`step`][]."""
        self.agent._update_info_buffer(step.infos, step.dones)
        return self.step(len(step.dones), step.local_values())

    def step(self, n_envs: int, local_values: dict[str, Any]) -> bool:
        """Count a step of all copies, tell the callback of it, and return whether to continue.

        :param n_envs: number of copies.
        :param local_values: ``locals`` that SB3's callbacks look for: ``infos``, ``dones``, ``rewards``, ``new_obs``.
        :raises KeyboardInterrupt: Ctrl-C.
        """
        self.loop.counter.num_timesteps += n_envs
        self._now.steps += n_envs
        self._round_steps += 1
        self._unfinished &= ~np.asarray(local_values.get("dones", False), bool)
        if self._unit == "steps":
            self._advance(n_envs, "")
        self._raise_pending_signal()
        if not self._callbacks.step(local_values):
            self.stopped = True
        return not self.stopped

    def start_rollout(self) -> None:
        """Tell the callback that a rollout starts."""
        self._callbacks.rollout_start()

    def end_rollout(self, local_values: dict[str, Any]) -> None:
        """Tell the callback that the steps of this rollout are taken, and its updates follow."""
        self._callbacks.rollout_end(local_values)

    def run(self, name: str, total: int, update: Callable[[], Metrics], state: Stateful | None = None) -> bool:
        """Make updates after a rollout, as [`TrainingLoop.run`][] makes those of a phase without steps.

        Their averages are logged with the rollout, as ``name/metric``. A checkpoint keeps whole rounds, no ``state``.

        :raises KeyboardInterrupt: Ctrl-C.
        """
        for _ in self.loop.count_updates(self._windows.setdefault(name, []), total, update):
            self._raise_pending_signal()
        return True

    # Rounds

    def is_round_over(self, updates: int) -> bool:
        """Return whether a round of an environment that continues from rollout to rollout should end here.

        It does where a checkpoint is kept, after the updates of its interval. But no sooner than each copy has finished
        an episode: an agent in an environment that is reset before would never learn how episodes end.

        :param updates: number of updates in this round.
        """
        checkpoint = self.loop.checkpoint
        seen = not self._unfinished.any() or self._round_steps >= EPISODE_LIMIT
        return checkpoint is not None and updates >= checkpoint.interval and seen

    def end_round(self, *, write: bool = True) -> None:
        """Keep the state between two rounds, of which the next has to start with a reset.

        :param write: whether to write it here, rather than with a later round or at Ctrl-C.
        """
        self._count_round()
        self._continued_steps = None
        self._unfinished[:] = True
        self._round_steps = 0
        if self.stopped or self.loop.checkpoint is None or self._state is None:
            return
        state = self._state.state_dict()
        self._kept.state = state if write else snapshot(state)
        self._kept.generator = self.loop.generator.get_state()
        self._unwritten = True
        if write:
            self._write_checkpoint()

    def _count_round(self) -> None:
        self._kept.updates += self.updates
        self._kept.steps = self._now.steps
        self._kept.episodes = self._now.episodes

    def _raise_pending_signal(self) -> None:
        if self.loop.signals.pending:
            self._write_checkpoint()  # first, since SIGTERM ends the process
        self.loop.signals.raise_pending()

    def _write_checkpoint(self) -> None:
        """Write the last complete round, if it is not on the disk yet: a resumed phase repeats the current one."""
        if self._unwritten and self.loop.checkpoint is not None:
            self.loop.checkpoint.write()
        self._unwritten = False

    def _log(self, metrics: Metrics, steps_per_second: float) -> None:
        logger, counter = self.loop.logger, self.loop.counter
        for name, window in self._windows.items():
            self.loop.record_averages(name, window)
        for name, value in (episode_metrics(self.agent) | metrics).items():
            logger.record(name, float(value))
        logger.record("time/fps", steps_per_second)
        logger.record("time/total_timesteps", counter.num_timesteps)
        logger.record(f"{self.name}/updates", counter.num_updates)
        logger.dump(step=counter.num_timesteps)


def episode_metrics(agent: BaseAlgorithm) -> Metrics:
    """Return SB3's metrics of the last episodes: ``Monitor``'s returns, which the agent does not learn from."""
    metrics: Metrics = {}
    if agent.ep_info_buffer:
        metrics["rollout/ep_rew_mean"] = safe_mean([info["r"] for info in agent.ep_info_buffer])
        metrics["rollout/ep_len_mean"] = safe_mean([info["l"] for info in agent.ep_info_buffer])
    if agent.ep_success_buffer:
        metrics["rollout/success_rate"] = safe_mean(agent.ep_success_buffer)
    return metrics


# Environments


def wrap_env(env: GymEnv | str, verbose: int) -> VecEnv:
    """Wrap a user's environment as SB3 does, but for ``VecTransposeImage``: demonstrations have their channels last.

    :param env: Gymnasium environment, SB3 ``VecEnv``, or an id as [`aime_gym.envs.env_of_id`][] knows it.
    :param verbose: verbosity of SB3's wrapping.
    :return: the environment as a ``VecEnv``.
    :raises ValueError: something else than an environment, an unknown id, or one that normalises observations.
    """
    if isinstance(env, str):
        env = env_of_id(env)
    if not isinstance(env, gym.Env | VecEnv):
        advice = "; stable_baselines3.common.env_util.make_vec_env makes a VecEnv" * isinstance(env, VectorEnv)
        raise ValueError(
            f"env: expected a Gymnasium environment, an SB3 VecEnv or an id, got {type(env).__name__}{advice}"
        )
    wrapped = BaseAlgorithm._wrap_env(env, verbose)
    if isinstance(wrapped, VecTransposeImage):
        wrapped = wrapped.venv
    normalizer = unwrap_vec_normalize(wrapped)
    if normalizer is not None and normalizer.norm_obs:
        raise ValueError(
            "env: expected observations as the demonstrations hold them, got VecNormalize(norm_obs=True), whose "
            "statistics move; the agents standardise observations themselves, so leave it out or pass norm_obs=False"
        )
    if any(_wrapped_by(wrapped, NormalizeObservation)):
        raise ValueError(
            "env: expected observations as the demonstrations hold them, got gymnasium's NormalizeObservation, whose "
            "statistics move; the agents standardise observations themselves, so leave it out"
        )
    return wrapped


def _wrapped_by(env: VecEnv, kind: type[gym.Wrapper]) -> list[bool]:
    """Return whether each copy has a wrapper, as far as the environment says so."""
    try:
        return list(env.env_is_wrapped(kind))
    except (AttributeError, NotImplementedError, TypeError):  # a VecEnv of others need not know
        return [False] * env.num_envs


class ActFunction(Protocol):
    """Choice of actions in all copies of an environment at once."""

    def __call__(self, observation: Observation, state: Any, episode_start: Array, /) -> tuple[Array, Any]:
        """Return actions (n_envs, ...) and the next state, as ``predict`` does; the first state is ``None``."""
        ...


class EnvStep(NamedTuple):
    """One step of all copies of an environment, each entry (n_envs, ...)."""

    observations: Observation
    actions: Array
    rewards: Array
    dones: Array
    infos: list[dict[str, Any]]
    next_observations: Observation  # at an episode's end its last one
    new_obs: VecEnvObs  # at an episode's end the first one of the next episode, as the environment returns it

    def local_values(self) -> dict[str, Any]:
        """Return the step as the ``locals`` of SB3's collecting loop, which callbacks see."""
        names = ("new_obs", "rewards", "dones", "infos", "actions")
        return {name: getattr(self, name) for name in names}


def draw_seed(generator: torch.Generator) -> int:
    """Draw a seed for an environment."""
    return int(torch.randint(2**31 - 1, (), generator=generator))


def env_steps(env: VecEnv, act: ActFunction, *, seed: int) -> Iterator[EnvStep]:
    """Reset the environment with a seed, and yield one step of all copies after the other, without end.

    :raises ValueError: an observation that is not finite.
    """
    env.seed(seed)
    observations = copy_observation(env.reset())
    state = None
    episode_start = np.ones(env.num_envs, bool)
    while True:
        actions, state = act(observations, state, episode_start)
        new_obs, rewards, dones, infos = env.step(actions)
        following = next_observations(new_obs, dones, infos)
        require_finite(following)
        yield EnvStep(observations, actions, rewards, dones, infos, following, new_obs)
        observations = copy_observation(new_obs)
        episode_start = np.array(dones, bool)


def collect_episodes(
    env: VecEnv,
    act: ActFunction,
    *,
    steps: int,
    seed: int,
    on_step: Callable[[EnvStep], bool],
    episodes: int = 1,
) -> list[Trajectory]:
    """Reset the environment with a seed, and act until each copy has finished an episode and enough steps are taken.

    Copies run until the last of them is done. What they begin in the meantime is returned as well, cut where it stands:
    it is experience like any other.

    :param steps: least number of environment steps, all copies together.
    :param on_step: function of each step of all copies, which returns whether to continue.
    :param episodes: least number of episodes, all copies together.
    :return: trajectories with actions, rewards and the true last observation of each episode.
    :raises ValueError: an observation that is not finite, or an episode that does not end.
    """
    endless = not all(_wrapped_by(env, TimeLimit))
    recorders: list[EpisodeRecorder] = []
    finished: list[Trajectory] = []
    unfinished = set(range(env.num_envs))
    taken = 0
    for step in env_steps(env, act, seed=seed):
        if not recorders:
            recorders = [EpisodeRecorder(_row(step.observations, index)) for index in range(env.num_envs)]
        for index, info in enumerate(step.infos):
            recorders[index].add(step.actions[index], float(step.rewards[index]), _row(step.next_observations, index))
            if step.dones[index]:
                cut = bool(info.get("TimeLimit.truncated", False))
                finished.append(recorders[index].trajectory(terminated=not cut, truncated=cut))
                recorders[index] = EpisodeRecorder(_row(step.new_obs, index))
                unfinished.discard(index)
            elif endless and len(recorders[index]) == EPISODE_LIMIT:
                raise endless_episode(EPISODE_LIMIT)
        taken += env.num_envs
        if not on_step(step) or not (unfinished or taken < steps or len(finished) < episodes):
            break
    return finished + [recorder.trajectory(terminated=False, truncated=True) for recorder in recorders if len(recorder)]


def _row(observations: VecEnvObs, index: int) -> Observation:
    if isinstance(observations, dict):
        return {name: values[index] for name, values in observations.items()}
    row: Array = observations[index]
    return row


def next_observations(observations: VecEnvObs, dones: Array, infos: list[dict[str, Any]]) -> Observation:
    """Return the observations that a step led to: at an episode's end its last one, not the first of the next.

    :return: a copy, (n_envs, ...).
    :raises ValueError: an environment that does not tell the last one.
    """
    following = copy_observation(observations)
    for index in np.flatnonzero(dones):
        if "terminal_observation" not in infos[index]:
            raise ValueError(
                f"env: expected info['terminal_observation'] at the end of an episode, as SB3's VecEnvs have it, got "
                f"the keys {sorted(infos[index])}"
            )
        last = infos[index]["terminal_observation"]
        if isinstance(following, dict):
            for name, values in following.items():
                values[index] = last[name]
        else:
            following[index] = last
    return following


def copy_observation(observations: VecEnvObs) -> Observation:
    """Copy observations, which a later step of the environment may overwrite."""
    if isinstance(observations, dict):
        return {name: np.array(values) for name, values in observations.items()}
    return np.array(observations)
