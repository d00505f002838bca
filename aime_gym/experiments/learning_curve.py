"""Evaluations in the middle of an agent's training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback

from aime_gym.agents.base import ImitationAgent
from aime_gym.experiments.evaluation import evaluate
from aime_gym.experiments.tracking import log_score


class LearningCurve(BaseCallback):
    """Evaluations of an agent each time that it has taken so many environment steps.

    Steps are the agent's own: phases that take none get no point, but for the policy that ``learn`` starts from.

    :param envs: copies of the task to evaluate in; the agent's own environment is left alone.
    :param steps: environment steps between two evaluations.
    :param seed: seed of each evaluation's episodes.
    """

    def __init__(self, agent: ImitationAgent, envs: Sequence[gym.Env], steps: int, episodes: int, seed: int) -> None:
        super().__init__()
        self._agent, self._envs, self._steps, self._episodes, self._seed = agent, envs, steps, episodes, seed
        self._next = steps
        #: Environment steps, and the returns of the episodes then.
        self.points: list[dict[str, Any]] = []

    def _on_training_start(self) -> None:
        if self._agent.interacts and self._agent.improves_online:  # the policy that imitate left
            self._measure()

    def _on_step(self) -> bool:
        taken = self._agent.num_timesteps
        if taken >= self._next:
            self._measure()
            self._next = (taken // self._steps + 1) * self._steps
        return True

    def _measure(self) -> None:
        score = evaluate(self._agent, self._envs, self._episodes, seed=self._seed)
        log_score(self._agent, score)
        self.points.append({"env_steps": self._agent.num_timesteps, "returns": list(score.returns)})
