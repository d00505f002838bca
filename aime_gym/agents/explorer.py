"""Explorer: a world model, and an actor-critic in its imagination that looks for the new, or for a task's reward.

    model      up the ELBO of all episodes so far, with the task's reward and its end to predict
    ensemble   to the embedding e_{t+1} of what follows [h, s]_t and a_t
    actor      up the return of imagined rollouts, through the dynamics
    critic     to these returns: see aime_gym.model_based.actor_critic

With ``novelty`` the reward is the ensemble's disagreement: Plan2Explore (Sekar et al. 2020, arXiv 2005.05960), which
makes play data without a reward. With ``task`` it is what the model predicts of the task's reward: Dreamer (Hafner et
al. 2020, arXiv 1912.01603), which makes experts, and the buffers of their learning. AIME's papers have all of their
data from the two.

Where this differs from their code: actor and critic are those of AIME-v2 for both rewards. Episodes are taken with
samples of the policy, where the code takes its mode and Dreamer's paper adds noise of std 0.3 to that. The novelty of a
step is that of its own action, where the code gives the first state of a rollout its successor's. Observations are
standardised by the random play that comes first. Small networks and larger learning rates make data in minutes; the
papers have ``world_model="dreamer"``, ``batch_size=50``, ``sequence_length=50``, ``model_learning_rate=3e-4``,
``ensemble_hidden=1024`` and 8e-5 for actor and critic.

Novelty is mostly below zero, and what follows the end of an episode is worth zero. So where an episode can terminate,
an explorer may look for its end.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor

from aime_gym.agents.agent import Agent, whole_timesteps
from aime_gym.config import MAX_LAYERS, MAX_UNITS, check_bounds, check_choices, check_number, check_seed
from aime_gym.data import HeldRandomPolicy, TrajectoryDataset
from aime_gym.model_based.actor_critic import Critic, ImaginationConfig, ImaginedRollout, draw_starts, imagine
from aime_gym.model_based.predict import act_in_latents, initial_memory
from aime_gym.model_based.pretraining import WorldModelTrainingConfig
from aime_gym.model_based.task_model import JointSampler, TaskModel
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.ensemble import Ensemble, novelty
from aime_gym.models.policies import LatentPolicy, make_latent_policy
from aime_gym.models.rssm import State
from aime_gym.models.world_model import WorldModel
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.phase import run_phase
from aime_gym.training.rollouts import ActFunction, Rollouts, draw_seed
from aime_gym.types import Array, Metrics, Observation, SequenceBatch, Trajectories, Trajectory

#: Rewards of an explorer.
REWARDS = ("novelty", "task")


@dataclass(frozen=True)
class ExplorerConfig(ImaginationConfig, WorldModelTrainingConfig):
    """Hyper-parameters of [`Explorer`][].

    :param reward: ``novelty`` (Plan2Explore) or ``task`` (Dreamer).
    :param random_episodes: number of episodes of random play, before anything is learnt.
    :param first_updates: number of updates of model and ensemble alone, after them: an actor that is trained in an
        untrained model learns to push as hard as it can, and hardly unlearns it.
    :param updates_per_step: number of updates for each environment step from then on.
    :param ensemble: number of heads, at least two.
    :param ensemble_hidden: width of their layers, of which there are two.
    :param policy_hidden: width of the actor's layers, unless ``policy_kwargs`` has another.
    :param actor_learning_rate: Adam's learning rate for the actor.
    :param ensemble_learning_rate: Adam's learning rate for the ensemble.
    :param value_learning_rate: Adam's learning rate for the critic, which has to be ahead of the actor: where its
        values have yet to fall, they look like a good place to go.
    """

    reward: str = "novelty"
    random_episodes: int = 5
    first_updates: int = 100
    updates_per_step: float = 0.2
    ensemble: int = 5
    ensemble_hidden: int = 256
    policy_hidden: int = 128
    actor_learning_rate: float = 3e-4
    ensemble_learning_rate: float = 1e-3
    value_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        WorldModelTrainingConfig.__post_init__(self)
        ImaginationConfig.__post_init__(self)
        check_choices(self, reward=REWARDS)
        check_bounds(
            self,
            random_episodes=(1, None),
            first_updates=(0, None),
            updates_per_step=(0, None),
            ensemble=(2, MAX_LAYERS),
            ensemble_hidden=(1, MAX_UNITS),
            policy_hidden=(1, MAX_UNITS),
            actor_learning_rate=(0, None),
            ensemble_learning_rate=(0, None),
        )


class Explorer(Agent):
    """Collects episodes, learns from all of them, and collects better ones.

        >>> explorer = Explorer(env, seed=0)
        >>> play = explorer.explore(150)                                # Plan2Explore: the episodes are the data

        >>> dreamer = Explorer(env, reward="task", seed=0).learn(30_000)
        >>> buffer, demos = dreamer.trajectories, collect(env, dreamer, 20)

    The same seed in the same environment collects the same episodes; the process's own random numbers stay as they are.
    A file holds what it has learnt, and none of its episodes. ``world_model`` may be the file of a pretrained one: it
    starts from its weights and its units. Hyper-parameters: [`ExplorerConfig`][].
    """

    config: ExplorerConfig
    policy: LatentPolicy
    presets: ClassVar = {"default": ExplorerConfig()}

    def __init__(self, *args: Any, **options: Any) -> None:
        #: All episodes so far, oldest first, with actions and the task's rewards.
        self.trajectories: list[Trajectory] = []
        self._random_policies: list[HeldRandomPolicy] = []
        super().__init__(*args, **options)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the explorer, and leave the process's own random numbers as they are.

        :raises ValueError: anything but ``None`` and a whole number of at most 32 bits.
        """
        seed = check_seed(seed)
        self.seed = seed
        training, acting, weights = (int(word) for word in np.random.SeedSequence(seed).generate_state(3))
        self.generator = torch.Generator().manual_seed(training)
        self.acting_generator = torch.Generator().manual_seed(acting)
        self._weights_seed = weights
        self._random_policies = []

    @contextmanager
    def _initial_weights(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._weights_seed)
            yield

    def _setup_networks(self) -> None:
        config, actions = self.config, self.action_encoding.size
        assert isinstance(config.world_model, WorldModelConfig)
        model = self.world_model = WorldModel(config.world_model, self.observation_encoding.shapes, actions)
        if self.imported is not None:
            self.imported.restore(model, discrete=self.action_encoding.discrete)
        model.to(self.device)
        self.task_model = TaskModel(model, config.model_learning_rate, config.max_grad_norm, self.device)
        self.ensemble = Ensemble(
            model.feature_size,
            actions,
            model.embedding_size,
            config.ensemble,
            config.ensemble_hidden,
            layer_norm=model.config.layer_norm,
        ).to(self.device)
        policy_kwargs = {"hidden": config.policy_hidden} | self.policy_kwargs
        self.policy = make_latent_policy(
            model.feature_size, actions, discrete=self.action_encoding.discrete, **policy_kwargs
        ).to(self.device)
        self.critic = Critic(model.feature_size, config, self.device)
        self.ensemble_optimizer = Optimizer(
            [self.ensemble], config.ensemble_learning_rate, max_grad_norm=config.max_grad_norm
        )
        self.policy_optimizer = Optimizer([self.policy], config.actor_learning_rate, max_grad_norm=config.max_grad_norm)

        #: Whether the random episodes are over, and observations are standardised by them.
        self.begun = False

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        heads = ["task_model.reward_head", "task_model.terminal_head"]
        return ["world_model", *heads, "ensemble", "policy", "critic.value", "critic.target"], []

    def _training_state(self) -> dict[str, Any]:
        return {"begun": self.begun}

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        # A file of before has no such entry, and was written by an explorer that had begun if it had made updates.
        self.begun = bool(state.get("begun", self.num_updates))

    # Collecting and learning

    def explore(self, episodes: int, *, progress_bar: bool = True) -> list[Trajectory]:
        """Collect episodes, and learn after each; the next call continues.

        With several copies of the environment all of them act until each has finished one. What some have begun in the
        meantime is returned as well, cut where it stands. Ctrl-C ends it early: the complete episodes are returned,
        with a warning.

        :param episodes: least number of episodes.
        :return: the new episodes, with actions and the task's rewards.
        :raises ValueError: ``episodes`` below 1.
        """
        check_number("episodes", episodes, 1, whole=True)
        before = len(self.trajectories)
        self._collect_and_learn(episodes, "episodes", tb_log_name="explore", progress_bar=progress_bar)
        return self.trajectories[before:]

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "explorer",
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> Self:
        """Collect episodes for at least so many environment steps, and learn after each; the next call continues.

        :param total_timesteps: least number of environment steps, in whole episodes.
        :param callback: callback of SB3, called at each step.
        :param log_interval: number of episodes between two entries in the log.
        :param reset_num_timesteps: whether ``num_timesteps`` starts again at zero.
        :raises ValueError: ``total_timesteps`` below 1.
        """
        total_timesteps = whole_timesteps(total_timesteps, least=1)
        if reset_num_timesteps:
            self.num_timesteps = 0
        self._collect_and_learn(
            total_timesteps,
            "steps",
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            progress_bar=progress_bar,
        )
        return self

    def _collect_and_learn(
        self,
        total: int,
        unit: str,
        *,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str,
        progress_bar: bool,
    ) -> None:
        name = "explore" if self.config.reward == "novelty" else "dreamer"

        def train(_: Trajectories, loop: TrainingLoop) -> None:
            rollouts = Rollouts(self, loop, name, total, unit=unit)

            def collect_and_update() -> Metrics:
                episodes = rollouts.collect(self._acting(), steps=1)
                self.trajectories += episodes
                if not rollouts.stopped:
                    self._improve(len(episodes), rollouts)
                return {}

            rollouts.repeat(collect_and_update)

        self._require_setup()
        if self.env is None:
            raise ValueError("env: expected Explorer to have one to explore, got None; call set_env")
        self._reset_episode_windows()
        run_phase(
            self,
            name,
            train,
            (),
            callback=callback,
            tb_log_name=tb_log_name,
            progress_bar=progress_bar,
            online=True,
            log_interval=log_interval,
        )

    def _acting(self) -> ActFunction:
        """Return how the next episodes are taken: at random first, then by the policy."""
        if len(self._random_policies) != self.n_envs:
            self._random_policies = [
                HeldRandomPolicy(self.action_space, seed=draw_seed(self.generator)) for _ in range(self.n_envs)
            ]
        return self._sample_actions if self.begun else self._act_at_random

    def _act_at_random(self, observation: Observation, state: Any, episode_start: Array) -> tuple[Array, None]:
        for policy, first in zip(self._random_policies, episode_start, strict=True):
            if first:
                policy.reset()
        return np.stack([policy() for policy in self._random_policies]), None

    def _improve(self, new: int, rollouts: Rollouts) -> None:
        """Make the updates that are due after the last ``new`` episodes."""
        config = self.config
        first = not self.begun
        if first and len(self.trajectories) < config.random_episodes:
            return
        self.begun = True
        steps = sum(map(len, self.trajectories[-new:]))
        for_task = config.reward == "task"
        known = self.trajectories if for_task else [replace(t, rewards=None) for t in self.trajectories]
        dataset = TrajectoryDataset(known, self.action_encoding, self.device)
        if first and self.imported is None:  # the weights of a file belong to its units
            self.world_model.fit_standardizers(dataset.observations)
        sampler = JointSampler(
            None,
            dataset,
            config,
            play_ratio=0.0,
            start_fraction=config.play_start_fraction,
            generator=self.generator,
        )

        def update() -> Metrics:
            batch, labels = sampler.sample()
            embeddings = self.task_model.embed(batch)
            states, metrics = self.task_model.update(batch, labels, self._noise, embeddings)
            if not for_task:
                metrics |= self._update_ensemble(states, batch, embeddings.detach())
            if not first:
                starts = draw_starts(states, batch.valid, config.imagination_starts, self.generator)
                metrics |= self._update_actor(starts)
            return metrics

        rollouts.run(rollouts.name, config.first_updates if first else round(config.updates_per_step * steps), update)

    def _update_ensemble(self, states: State, batch: SequenceBatch, embeddings: Tensor) -> Metrics:
        """Fit the ensemble to the embeddings of what was observed next."""
        assert batch.prev_actions is not None
        valid = batch.valid[1:]
        self.ensemble.requires_grad_(True)
        loss = self.ensemble.loss(states.feature[:-1][valid], batch.prev_actions[1:][valid], embeddings[1:][valid])
        self.ensemble_optimizer.step(loss)
        return {"ensemble_loss": loss.detach()}

    def _update_actor(self, starts: State) -> Metrics:
        """Train actor and critic in imagination."""
        self.task_model.set_trainable(False)
        self.ensemble.requires_grad_(False)
        imagined = imagine(self.world_model.rssm, self.policy, starts, self.config.imagination_horizon, self._noise)
        rollout = self.critic.evaluate(imagined, self._rewards(imagined), self.task_model.alive(imagined.features[1:]))
        self.policy_optimizer.step(rollout.policy_loss(self.config.entropy_weight))
        return self.critic.update(rollout)

    def _rewards(self, imagined: ImaginedRollout) -> Tensor:
        """Return the rewards (H, N) on arriving at the states 1 ... H."""
        if self.config.reward == "novelty":
            return novelty(self.ensemble(imagined.features[:-1], imagined.actions))
        return self.task_model.reward(imagined.features[1:])

    # Acting

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return initial_memory(self.world_model, observation)

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        noise = None if generator is None else functools.partial(self._noise, of=generator)
        return act_in_latents(self.world_model, self.policy, observation, state, noise)
