"""Recording of trajectories: an environment, a policy, a number of episodes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from aime_gym.config import check_number, check_seed
from aime_gym.data.policies import EpisodicPolicy, HeldRandomPolicy, ScriptedExpert
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
_ActFunction: TypeAlias = Callable[[Observation, bool], Any]


def collect(
    env: gym.Env | str,
    policy: Policy,
    episodes: int,
    *,
    seed: int | None = None,
    deterministic: bool = True,
    progress: bool = True,
) -> list[Trajectory]:
    """Run a policy for whole episodes, and return what happened.

        >>> env = aime_gym.make_env("reach-v3", modality="position", action_repeat=2)
        >>> play = collect(env, "play", 50, seed=0)
        >>> demos = [t.without_actions() for t in collect(env, "expert", 20, seed=1)]

    Ctrl-C ends the recording early: the complete episodes are returned, with a warning.

    :param env: a Gymnasium environment (not a vectorised one), or an id that ``aime_gym.make_env`` knows.
    :param policy: a callable ``observation -> action``; or a model with SB3's ``predict``, recurrent ones included; or
        ``"random"`` (uniform actions), ``"play"`` ([`HeldRandomPolicy`][]), ``"expert"``
        ([`ScriptedExpert`][], Meta-World only). Actions outside a Box are clipped to it, and recorded as clipped.
    :param episodes: number of episodes. Each one runs until the environment ends it, which one without a time limit
        (``gymnasium.wrappers.TimeLimit``) has to do within 10,000 steps.
    :param seed: seed of the first ``env.reset`` and of the policy's random numbers; later episodes continue from there.
        With the same seed, the same environment records the same trajectories.
    :param deterministic: handed to ``predict``; means nothing for a callable.
    :param progress: show a progress bar.
    :return: one trajectory per episode, with actions and rewards (``float32``), and the true last observation. Taking
        its actions again, from the same seed, gives the same observations.
    :raises ValueError: another kind of environment or policy, ``episodes`` below 1, an action of another shape than the
        action space, or one that is not finite; an episode that does not end.
    """
    check_number("episodes", episodes, 1, whole=True)
    seed = check_seed(seed, most=2**63 - 1)
    if isinstance(env, str):
        from aime_gym.envs import make_env  # loads the simulators, which recording in one's own env does not need

        with make_env(env) as made:
            return collect(made, policy, episodes, seed=seed, deterministic=deterministic, progress=progress)
    if not isinstance(env, gym.Env):
        raise ValueError(f"env: expected a Gymnasium environment or an id, got {type(env).__name__}")

    if normalizes_observations(env):
        warnings.warn(
            "collect: the environment has a NormalizeObservation, whose statistics move: each observation is recorded "
            "in other units, and agents refuse such environments",
            stacklevel=2,
        )
    act = _act_function(policy, env, seed, deterministic)
    trajectories: list[Trajectory] = []
    with (
        progress_bar("collect", episodes, enabled=progress) as advance,
        torch.random.fork_rng(enabled=seed is not None),
    ):
        if seed is not None:
            torch.manual_seed(seed)  # what stochastic models draw; the caller's random numbers stay as they were
        try:
            for episode in range(episodes):
                trajectories.append(_run_episode(env, act, seed if episode == 0 else None))
                advance(1, "")
        except KeyboardInterrupt:
            warnings.warn(f"collect: interrupted, returning {len(trajectories)} of {episodes} episodes", stacklevel=2)
    return trajectories


def _run_episode(env: gym.Env, act: _ActFunction, seed: int | None) -> Trajectory:
    observation, _ = env.reset(seed=seed)
    episode = EpisodeRecorder(observation)
    terminated = truncated = False
    limit = None if has_time_limit(env) else EPISODE_LIMIT
    while not (terminated or truncated):
        if len(episode) == limit:
            raise endless_episode(limit)
        action = legal_action(act(observation, not len(episode)), env.action_space)
        observation, reward, terminated, truncated, _ = env.step(action.astype(env.action_space.dtype))
        episode.add(action, reward, observation)
    return episode.trajectory(terminated=bool(terminated), truncated=bool(truncated), rendering=rendering_of(env))


def _act_function(policy: Policy, env: gym.Env, seed: int | None, deterministic: bool) -> _ActFunction:
    """Make one function ``(observation, is_first) -> action`` of every kind of policy."""
    if isinstance(policy, str):
        policy = _named_policy(policy, env)
    if hasattr(policy, "predict"):
        model, state = policy, None

        def predict(observation: Observation, is_first: bool) -> Any:
            nonlocal state
            if is_first:
                state = None
            action, state = model.predict(
                observation, state=state, episode_start=np.array([is_first]), deterministic=deterministic
            )
            return action

        return predict
    if not callable(policy):
        raise ValueError(
            "policy: expected a callable, a model with `predict`, or one of 'random', 'play', 'expert', "
            f"got {type(policy).__name__}"
        )
    if not isinstance(policy, EpisodicPolicy):
        return lambda observation, is_first: policy(observation)

    policy.reset(seed=seed)

    def call(observation: Observation, is_first: bool) -> Any:
        if is_first:
            policy.reset()
        return policy(observation)

    return call


def _named_policy(name: str, env: gym.Env) -> Callable[[Observation], Any]:
    if name == "random":
        return HeldRandomPolicy(env.action_space, magnitudes=(1.0,), hold=(1, 1))
    if name == "play":
        return HeldRandomPolicy(env.action_space)
    if name == "expert":
        return ScriptedExpert(env)
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
