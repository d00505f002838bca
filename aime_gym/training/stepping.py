"""Environment steps of an agent that learns from them one by one, without an algorithm of SB3 inside."""

from __future__ import annotations

import time
import warnings
from collections import deque
from typing import Any, Protocol

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from aime_gym.progress import progress_bar
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.rollouts import copy_observation, episode_metrics, next_observations
from aime_gym.types import Array, Metrics, Observation

#: Steps of all environments that make a round: the unit of ``log_interval``.
_ROUND = 50


class Learner(Protocol):
    """Acts, and learns from what came of it."""

    def act(self, observations: Observation, /) -> Array:
        """Actions (n_envs, ...) of the environment."""
        ...

    def learn(self, observations: Observation, actions: Array, reached: Observation, /) -> Metrics:
        """Learn from a step of all environments; ``reached`` is what ended an episode, not what starts the next one."""
        ...


def interact(agent: BaseAlgorithm, learner: Learner, timesteps: int, loop: TrainingLoop, name: str) -> None:
    """Take environment steps, watched by ``loop.step_callbacks``, and let the learner learn from each.

    The environment is reset first, with a seed from the agent's generator: what happens is a fixed function of the
    agent, the learner and the environment. Ctrl-C ends it between two steps. Metrics are averaged between log entries
    and appear as ``name`` of their dictionary.

    :param agent: whose environment it is, and whose counters move.
    :param timesteps: of all copies together; rounded up to whole steps of all.
    :param name: of the phase, for progress and warnings.
    """
    assert agent.env is not None
    assert loop.step_callbacks is not None
    env, watch, steps, stopped, started = agent.env, loop.step_callbacks, 0, False, time.monotonic()
    agent.ep_info_buffer, agent.ep_success_buffer = (deque(maxlen=agent._stats_window_size) for _ in range(2))
    env.seed(int(torch.randint(2**31 - 1, (), generator=loop.generator)))
    seen: dict[str, Any] = {"total_timesteps": agent.num_timesteps + timesteps}
    with progress_bar(name, timesteps, enabled=loop.progress_bar) as advance:
        try:
            watch.start(seen)
            watch.rollout_start()
            observations = copy_observation(env.reset())
            while steps < timesteps and not stopped:
                actions = learner.act(observations)
                new, rewards, dones, infos = env.step(actions)
                steps += env.num_envs
                agent.num_timesteps += env.num_envs
                agent._update_info_buffer(infos, dones)
                metrics = learner.learn(observations, actions, next_observations(new, dones, infos))
                observations = copy_observation(new)
                for metric, value in metrics.items():
                    loop.logger.record_mean(metric, float(value))
                advance(env.num_envs, "")
                seen |= {"rewards": rewards, "dones": dones, "infos": infos}
                stopped = not watch.step(seen)
                loop.signals.raise_pending()
                if steps // env.num_envs % (_ROUND * loop.log_interval) == 0 or stopped or steps >= timesteps:
                    _log(agent, loop, steps / (time.monotonic() - started))
            watch.rollout_end(seen)
        except KeyboardInterrupt:
            message = f"{name}: interrupted after {steps} of {timesteps} steps; what was learnt is kept"
            warnings.warn(message, stacklevel=2)
            stopped = True
        finally:
            watch.end()
    loop.interrupted |= stopped


def _log(agent: BaseAlgorithm, loop: TrainingLoop, per_second: float) -> None:
    for name, value in episode_metrics(agent).items():
        loop.logger.record(name, float(value))
    loop.logger.record("time/fps", int(per_second))
    loop.logger.record("time/total_timesteps", agent.num_timesteps)
    loop.logger.dump(step=agent.num_timesteps)
