"""Rollouts: which environments an agent accepts, and the transitions and episodes that a policy makes in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
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
from aime_gym.types import Array, Metrics, Observation, Trajectory


def wrap_env(env: GymEnv | str, verbose: int) -> VecEnv:
    """Wrap an environment as SB3 does, but for its ``VecTransposeImage``: demonstrations have their channels last.

    :raises ValueError: something else than an environment, or one that normalises observations.
    """
    if isinstance(env, str):
        env = gym.make(env)
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
    """Whether each copy has a wrapper, as far as the environment says so."""
    try:
        return list(env.env_is_wrapped(kind))
    except (AttributeError, NotImplementedError, TypeError):  # a VecEnv of others need not know
        return [False] * env.num_envs


class ActFunction(Protocol):
    """Function that acts in all environments at once."""

    def __call__(self, observation: Observation, state: Any, episode_start: Array, /) -> tuple[Array, Any]:
        """Return actions (n_envs, ...) and the next state, as ``predict`` gives them; the first state is ``None``."""
        ...


def episode_metrics(agent: BaseAlgorithm) -> Metrics:
    """Return what SB3 logs of the last episodes: returns by ``Monitor``, which the agent does not learn from."""
    metrics: Metrics = {}
    if agent.ep_info_buffer:
        metrics["rollout/ep_rew_mean"] = safe_mean([info["r"] for info in agent.ep_info_buffer])
        metrics["rollout/ep_len_mean"] = safe_mean([info["l"] for info in agent.ep_info_buffer])
    if agent.ep_success_buffer:
        metrics["rollout/success_rate"] = safe_mean(agent.ep_success_buffer)
    return metrics


def collect_episodes(
    env: VecEnv,
    act: ActFunction,
    *,
    steps: int,
    seed: int,
    on_step: Callable[[dict[str, Any]], bool],
    episodes: int = 1,
) -> list[Trajectory]:
    """Reset the environment with a seed, and act until each copy has finished an episode and enough steps are taken.

    Copies run until the last of them is done. What they begin in the meantime is returned as well, cut where it stands:
    it is experience like any other.

    :param steps: least number of environment steps, all copies together.
    :param on_step: is told of each step of all copies, as the ``locals`` of SB3's collecting loop, and says whether to
        go on.
    :param episodes: least number of episodes, all copies together.
    :return: trajectories with actions, rewards and the true last observation of each episode.
    :raises ValueError: an observation that is not finite; an episode that does not end.
    """
    endless = not all(_wrapped_by(env, TimeLimit))
    env.seed(seed)
    observation: Any = env.reset()
    recorders = [EpisodeRecorder(_row(observation, index)) for index in range(env.num_envs)]
    finished: list[Trajectory] = []
    unfinished = set(range(env.num_envs))
    state, episode_start, taken, go_on = None, np.ones(env.num_envs, bool), 0, True
    while go_on and (unfinished or taken < steps or len(finished) < episodes):
        actions, state = act(observation, state, episode_start)
        observation, rewards, dones, infos = env.step(actions)
        reached = next_observations(observation, dones, infos)
        require_finite(reached)
        for index, info in enumerate(infos):
            recorders[index].add(actions[index], float(rewards[index]), _row(reached, index))
            if dones[index]:
                cut = bool(info.get("TimeLimit.truncated", False))
                finished.append(recorders[index].trajectory(terminated=not cut, truncated=cut))
                recorders[index] = EpisodeRecorder(_row(observation, index))
                unfinished.discard(index)
            elif endless and len(recorders[index]) == EPISODE_LIMIT:
                raise endless_episode(EPISODE_LIMIT)
        taken += env.num_envs
        episode_start = np.array(dones, bool)
        go_on = on_step(
            {"new_obs": observation, "rewards": rewards, "dones": dones, "infos": infos, "actions": actions}
        )
    return finished + [episode.trajectory(terminated=False, truncated=True) for episode in recorders if len(episode)]


def _row(observations: Observation, index: int) -> Observation:
    if isinstance(observations, dict):
        return {name: values[index] for name, values in observations.items()}
    row: Array = observations[index]
    return row


def next_observations(observations: VecEnvObs, dones: Array, infos: list[dict[str, Any]]) -> Observation:
    """Return the observations that a step led to: at an episode's end its last one, not the first of the next.

    :return: (n_envs, ...), a copy.
    :raises ValueError: an environment that does not tell the last one.
    """
    reached = copy_observation(observations)
    for index in np.flatnonzero(dones):
        if "terminal_observation" not in infos[index]:
            raise ValueError(
                f"env: expected info['terminal_observation'] at the end of an episode, as SB3's VecEnvs have it, got "
                f"the keys {sorted(infos[index])}"
            )
        last = infos[index]["terminal_observation"]
        if isinstance(reached, dict):
            for name, values in reached.items():
                values[index] = last[name]
        else:
            reached[index] = last
    return reached


def copy_observation(observations: VecEnvObs) -> Observation:
    """Return observations that no later step of the environment rewrites."""
    if isinstance(observations, dict):
        return {name: np.array(values) for name, values in observations.items()}
    return np.array(observations)
