"""Recording of trajectories: an environment, a policy, a number of episodes."""

from __future__ import annotations

import functools
import io
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

from aime_gym.config import check_number, check_seed
from aime_gym.data.paddle_expert import PaddleExpert
from aime_gym.data.policies import EpisodicPolicy, HeldRandomPolicy, ScriptedExpert, scripted_expert
from aime_gym.data.recording import (
    EPISODE_LIMIT,
    EpisodeRecorder,
    endless_episode,
    has_time_limit,
    normalizes_observations,
)
from aime_gym.data.spaces import legal_actions
from aime_gym.progress import progress_bar
from aime_gym.types import Observation, Predictor, Trajectory
from aime_gym.wrappers import rendering_of

#: Source of actions: a callable, a model as SB3's, or the name of a policy made for the environment.
Policy: TypeAlias = Callable[[Observation], Any] | Predictor | str
_ActFunction: TypeAlias = Callable[[Observation], Any]
#: Seconds of recording that pay for starting processes, which import PyTorch and the simulator.
_LONG_RECORDING = 10.0


def collect(
    env: gym.Env | str | Callable[[], gym.Env],
    policy: Policy,
    episodes: int,
    *,
    seed: int | None = None,
    deterministic: bool = True,
    progress: bool = True,
    workers: int = 1,
) -> list[Trajectory]:
    """Run a policy for whole episodes, and return what happened.

        >>> env = aime_gym.make_env("reach-v3", modality="position", action_repeat=2)
        >>> play = collect(env, "play", 50, seed=0)
        >>> demos = [t.without_actions() for t in collect(env, "expert", 20, seed=1)]

    Ctrl-C ends the recording early: the complete episodes are returned, with a warning.

    Several processes record the same trajectories as one, bit by bit. Each makes the environment anew and gets a copy
    of the policy, of which nothing may remember earlier episodes. A script that starts them keeps its work under
    ``if __name__ == "__main__":``, as with SB3's ``SubprocVecEnv``.

    :param env: a Gymnasium environment (not a vectorised one), an id that ``aime_gym.make_env`` knows, or a function
        that makes an environment. Other processes make an environment anew by its ``spec``.
    :param policy: a callable ``observation -> action``; or a model with SB3's ``predict``, recurrent ones included; or
        ``"random"`` (uniform actions), ``"play"`` ([`HeldRandomPolicy`][]), ``"expert"``
        ([`scripted_expert`][], of Meta-World, Pong and Breakout). Actions outside a Box are clipped to it, and recorded
        as clipped.
    :param episodes: number of episodes. Each one runs until the environment ends it, which one without a time limit
        (``gymnasium.wrappers.TimeLimit``) has to do within 10,000 steps.
    :param seed: seed of the first episode, from which those of the others follow: episode ``k`` begins with
        ``env.reset(seed=episode_seeds(seed, episodes)[k])``, and the policy's random numbers follow from that too. With
        the same seed, the same environment records the same trajectories.
    :param deterministic: handed to ``predict``; means nothing for a callable.
    :param progress: show a progress bar.
    :param workers: greatest number of processes that record; more than one start only where the recording takes longer
        than their start. Without a ``seed`` they draw one.
    :return: one trajectory per episode, with actions and rewards (``float32``), and the true last observation. Taking
        its actions again, from the same seed, gives the same observations.
    :raises ValueError: another kind of environment or policy, ``episodes`` or ``workers`` below 1, an action of another
        shape than the action space, or one that is not finite; an episode that does not end; with several workers, an
        environment or a policy that other processes cannot make.
    """
    check_number("episodes", episodes, 1, whole=True)
    check_number("workers", workers, 1, whole=True)
    seed = check_seed(seed, most=2**63 - 1)
    if isinstance(env, str):
        from aime_gym.envs import make_env  # loads the simulators, which recording in one's own env does not need

        env = functools.partial(make_env, env)
    with ExitStack() as stack:
        if isinstance(env, gym.Env):
            opened = env
        elif callable(env):
            opened = stack.enter_context(env())
        else:
            raise ValueError(f"env: expected a Gymnasium environment or an id, got {type(env).__name__}")
        if normalizes_observations(opened):
            warnings.warn(
                "collect: the environment has a NormalizeObservation, whose statistics move: each observation is "
                "recorded in other units, and agents refuse such environments",
                stacklevel=2,
            )
        if workers > 1 and seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        seeds: Sequence[int | None] = [None] * episodes if seed is None else episode_seeds(seed, episodes)
        record = _Recorder(opened, policy, deterministic)
        elsewhere: Callable[[], _Recorder] | None = None
        if workers > 1:
            elsewhere = functools.partial(
                _recorder_elsewhere, registered_here(), _maker(env), _portable(policy), deterministic
            )
        recording = stack.enter_context(closing(_record(record, seeds, elsewhere, workers)))
        stack.enter_context(_callers_random_numbers(policy, seeded=seed is not None))
        advance = stack.enter_context(progress_bar("collect", episodes, enabled=progress))
        trajectories: list[Trajectory] = []
        try:
            for trajectory in recording:
                trajectories.append(trajectory)
                advance(1, "")
        except KeyboardInterrupt:
            warnings.warn(f"collect: interrupted, returning {len(trajectories)} of {episodes} episodes", stacklevel=2)
    return trajectories


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """Return the seeds of a recording's first episodes, each of which follows from ``seed`` and its number alone.

    The first one is ``seed`` itself.
    """
    sequences = (np.random.SeedSequence(seed, spawn_key=(number,)) for number in range(1, episodes))
    return [seed, *(int(sequence.generate_state(1)[0]) for sequence in sequences)]


# Episodes


class _Recorder:
    """Function of a seed that records an episode."""

    def __init__(self, env: gym.Env, policy: Policy, deterministic: bool) -> None:
        self._env = env
        self._start = _start_function(policy, env, deterministic)

    def __call__(self, seed: int | None) -> Trajectory:
        env = self._env
        if seed is not None:
            torch.manual_seed(seed)  # what stochastic models draw
        act = self._start(seed)
        observation, _ = env.reset(seed=seed)
        episode = EpisodeRecorder(observation)
        terminated = truncated = False
        limit = None if has_time_limit(env) else EPISODE_LIMIT
        while not (terminated or truncated):
            if len(episode) == limit:
                raise endless_episode(limit)
            action = legal_action(act(observation), env.action_space)
            observation, reward, terminated, truncated, _ = env.step(action.astype(env.action_space.dtype))
            episode.add(action, reward, observation)
        return episode.trajectory(terminated=bool(terminated), truncated=bool(truncated), rendering=rendering_of(env))


def _start_function(policy: Policy, env: gym.Env, deterministic: bool) -> Callable[[int | None], _ActFunction]:
    """Make of every kind of policy a function of an episode's seed, which returns how to act in the episode."""
    if isinstance(policy, str):
        policy = _named_policy(policy, env)
    if hasattr(policy, "predict"):
        model = policy
        generator = _acting_generator(model)

        def start(seed: int | None) -> _ActFunction:
            if seed is not None and generator is not None:
                generator.manual_seed(seed)
            state: Any = None
            first = True

            def predict(observation: Observation) -> Any:
                nonlocal state, first
                action, state = model.predict(
                    observation, state=state, episode_start=np.array([first]), deterministic=deterministic
                )
                first = False
                return action

            return predict

        return start
    if not callable(policy):
        raise ValueError(
            "policy: expected a callable, a model with `predict`, or one of 'random', 'play', 'expert', "
            f"got {type(policy).__name__}"
        )
    act = policy
    if not isinstance(act, EpisodicPolicy):
        return lambda seed: act

    def restart(seed: int | None) -> _ActFunction:
        act.reset(seed=seed)
        return act

    return restart


def _acting_generator(policy: Policy) -> torch.Generator | None:
    """Return the generator from which a model samples actions, if it has one of its own, as this package's agents."""
    generator = getattr(policy, "acting_generator", None)
    return generator if isinstance(generator, torch.Generator) else None


@contextmanager
def _callers_random_numbers(policy: Policy, *, seeded: bool) -> Iterator[None]:
    """Leave the random numbers of the caller as they were, in a ``with`` block that seeds them; and use one thread.

    The number of threads may change the last bits of what a network computes, and other processes have one.
    """
    generator = _acting_generator(policy) if seeded else None
    state = None if generator is None else generator.get_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(enabled=seeded):
            yield
    finally:
        torch.set_num_threads(threads)
        if generator is not None and state is not None:
            generator.set_state(state)


# Recording in other processes


def _record(
    record: _Recorder, seeds: Sequence[int | None], elsewhere: Callable[[], _Recorder] | None, workers: int
) -> Generator[Trajectory]:
    """Record the first episode, and then the others: in processes if there is a way to, and all of them take long."""
    first, *left = seeds
    start = time.perf_counter()
    yield record(first)
    if elsewhere is None or (time.perf_counter() - start) * len(left) < _LONG_RECORDING:
        yield from map(record, left)
        return
    from aime_gym.processes import map_in_processes  # not every system has all that it needs

    yield from map_in_processes(record, elsewhere, left, workers, preload=[__name__])


def registered_here() -> dict[str, EnvSpec]:
    """Return what other processes may not know, all but Atari's games: these are registered where they are imported."""
    return {name: spec for name, spec in gym.registry.items() if not str(spec.entry_point).startswith("ale_py.")}


def _recorder_elsewhere(
    registry: Mapping[str, EnvSpec], make: Callable[[], gym.Env], policy: Policy | _SavedModel, deterministic: bool
) -> _Recorder:
    gym.registry.update(registry)  # what was registered by hand there
    return _Recorder(make(), policy.load() if isinstance(policy, _SavedModel) else policy, deterministic)


def _maker(env: gym.Env | Callable[[], gym.Env]) -> Callable[[], gym.Env]:
    """Return a function that makes an environment in another process.

    :raises ValueError: an environment that does not say how it is made.
    """
    if not isinstance(env, gym.Env):
        return env
    spec = env.spec
    if spec is None or any(wrapper.kwargs is None for wrapper in spec.additional_wrappers):
        raise ValueError(
            f"env: expected an id, a function that makes the environment, or one whose `spec` does, for several "
            f"workers, got {env}"
        )
    return functools.partial(gym.make, spec, disable_env_checker=True)


class _SavedModel:
    """A model as its file, without its environment and its data."""

    def __init__(self, model: BaseAlgorithm) -> None:
        file = io.BytesIO()
        model.save(file)
        self._class = type(model)
        self._file = file.getvalue()
        self._device = model.device

    def load(self) -> BaseAlgorithm:
        """Make the model again."""
        return self._class.load(io.BytesIO(self._file), device=self._device)


def _portable(policy: Policy) -> Policy | _SavedModel:
    """Return what can be sent of a policy.

    :raises ValueError: a policy that other processes cannot make.
    """
    if isinstance(policy, ScriptedExpert | PaddleExpert):
        name = type(policy).__name__
        raise ValueError(f"policy: expected 'expert' for several workers, got a {name} of one environment")
    sent: Any = policy
    if isinstance(policy, BaseAlgorithm):
        # SB3's algorithms act by their policies alone, and may hold a buffer of gigabytes.
        acts_by_policy = type(policy).predict is BaseAlgorithm.predict
        sent = policy.policy if acts_by_policy else _SavedModel(policy)
    try:
        CloudpickleWrapper(sent).__getstate__()
    except Exception as error:  # what a policy holds may fail in any way
        raise ValueError(
            f"policy: expected one that can be copied to other processes, for several workers, got "
            f"{type(policy).__name__} ({error})"
        ) from error
    return sent


# Actions


def _named_policy(name: str, env: gym.Env) -> Callable[[Observation], Any]:
    if name == "random":
        return HeldRandomPolicy(env.action_space, magnitudes=(1.0,), hold=(1, 1))
    if name == "play":
        return HeldRandomPolicy(env.action_space)
    if name == "expert":
        return scripted_expert(env)
    raise ValueError(f"policy: expected a callable, a model, or one of 'random', 'play', 'expert', got {name!r}")


def legal_action(action: Any, space: spaces.Space) -> Any:
    """Return an action of a space as a trajectory records it: ``float32`` in a Box of floats, ``int64`` if Discrete.

    :raises ValueError: another shape, or numbers that are no action.
    """
    if isinstance(space, spaces.Box):
        action = np.asarray(action)
        if action.shape != space.shape:
            raise ValueError(f"policy: expected actions of shape {space.shape}, got {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"policy: expected finite actions, got {action}")
        if space.dtype.kind != "f":
            return legal_actions(action, space)
        # Clipped before the cast: a huge float64 would become infinite on the way. Rounded to what agents learn from
        # before it is taken, although dm_control's actions are float64: the recording then replays bit by bit.
        return np.clip(action, space.low, space.high).astype(np.float32)
    if isinstance(space, spaces.Discrete):
        action = np.asarray(action)
        if action.size != 1 or action.dtype.kind not in "iu" or not 0 <= action.item() - int(space.start) < space.n:
            raise ValueError(f"policy: expected one action in {space}, got {action}")
        return np.int64(action.item())
    raise ValueError(f"env: expected a Box or Discrete action space, got {space}")
