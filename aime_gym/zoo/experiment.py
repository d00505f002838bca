"""RL Zoo's experiment, for agents that learn from data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.environments import shown_frames
from aime_gym.agents.registry import get_agent_class
from aime_gym.data import check_trajectories, load_trajectories


class BadInput(Exception):
    """Input that does not fit, found before any training."""


class ImitationExperiment(ExperimentManager):
    """RL Zoo's experiment with data, and with all checks before a run's folder is made.

    A folder without an agent in it would be the run that ``enjoy`` takes for the latest.

    :param demos: data to imitate, over ``demonstrations`` of the hyper-parameters: a Minari id, or a path.
    :param play: data to learn the body from, over ``play`` of the hyper-parameters.
    """

    def __init__(self, *args: Any, demos: str | None, play: str | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.optimize_hyperparameters or self.trial_id is not None:
            raise BadInput(
                f"--optimize-hyperparameters: expected an algorithm of RL Zoo, got {self.algo}, for which there is no "
                f"search space; set hyper-parameters with --hyperparams"
            )
        self.agent_class: type[ImitationAgent] = get_agent_class(self.algo)
        data = {name: source for name, source in (("demonstrations", demos), ("play", play)) if source is not None}
        self.custom_hyperparams = (self.custom_hyperparams or {}) | data
        self._constructor: dict[str, Any] = {}

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """Read the hyper-parameters and the data, check them, and make the agent.

        :raises BadInput: hyper-parameters or data that do not fit the agent or the environment.
        """
        try:
            return super().setup_experiment()
        except (ValueError, OSError, ImportError, NotImplementedError) as error:
            raise BadInput(str(error)) from error

    @staticmethod
    def _preprocess_schedules(hyperparams: dict[str, Any]) -> dict[str, Any]:
        # The agents' rates are numbers.
        return hyperparams

    def _preprocess_hyperparams(
        self, hyperparams: dict[str, Any]
    ) -> tuple[dict[str, Any], Callable[..., Any] | None, list[BaseCallback], Callable[..., Any] | None]:
        hyperparams.setdefault("n_timesteps", 0)
        processed = super()._preprocess_hyperparams(hyperparams)
        if self.n_timesteps > 0 and not self.agent_class.imitates_online:
            raise ValueError(
                f"--n-timesteps: expected 0, since {self.algo} learns from data and takes no environment step, got "
                f"{self.n_timesteps}"
            )
        self._constructor = processed[0]
        if self._constructor.get("demonstrations") is None:
            raise ValueError("--demos: expected what to imitate, a Minari id or a path, got none")
        if (
            self.agent_class.needs_play
            and self._constructor.get("play") is None
            and self.vec_env_class is not DummyVecEnv
        ):
            raise ValueError("--play: expected a dataset, since --vec-env subproc cannot collect any in this process")
        return processed

    def create_log_folder(self) -> None:
        """Load the data, check that agent, environment and data fit together, and only then make the run's folder."""
        env = self.create_envs(1, no_log=True)
        agent = self.agent_class(env=env, device=self.device, **self._constructor)
        frames = shown_frames(env, agent.observation_space)
        env.close()
        for name, argument, need_actions in (
            ("demonstrations", "--demos", agent.reads_actions(agent.config)),
            ("play", "--play", True),
        ):
            if self._constructor.get(name) is not None:
                self._constructor[name] = check_trajectories(
                    load_trajectories(self._constructor[name], actions=need_actions, argument=argument, **frames),
                    argument=argument,
                    observation_space=agent.observation_space,
                    action_space=agent.action_space,
                    need_actions=need_actions,
                    rendering=agent.rendering,
                )
        super().create_log_folder()

    def learn(self, model: BaseAlgorithm) -> None:
        """Run the phases whose data is there.

        :raises BadInput: checkpoints of another run.
        :raises KeyboardInterrupt: Ctrl-C where checkpoints are kept: half a phase is nothing to save as the result.
        """
        assert isinstance(model, self.agent_class)
        if self.continue_training:
            # A trained agent has run its phases; those run anew that data is given for.
            model.imitated = False
            model.pretrained = model.pretrained and model.play is None
        updates = model.num_updates
        try:
            super().learn(model)
        except ValueError as error:
            if model.num_updates > updates:  # not of the input
                raise
            raise BadInput(str(error)) from error
        if not model.imitated:
            raise KeyboardInterrupt
