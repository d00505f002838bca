"""Data makers: a world model, and an actor-critic in its imagination that looks for the new, or for a task's reward.

    model      up the ELBO of all episodes so far, with the task's reward and its end to predict
    ensemble   to the embedding e_{t+1} of what follows [h, s]_t and a_t
    actor      up the return of imagined rollouts, through the dynamics
    critic     to these returns: see :mod:`aime_gym.model_based.actor_critic`

``novelty`` pays the ensemble's disagreement: Plan2Explore (Sekar et al. 2020, arXiv 2005.05960), which makes play data
without a reward. ``task`` pays what the model predicts of the task's reward: Dreamer (Hafner et al. 2020, arXiv
1912.01603), which makes experts, and the buffers of their learning. AIME's papers have all of their data from the two.

Where this differs from their code: actor and critic are those of AIME-v2 for both rewards. Episodes are taken with
samples of the policy, where the code takes its mode and Dreamer's paper adds noise of std 0.3 to that. The novelty of a
step is that of its own action, where the code gives the first state of a rollout its successor's. Observations are seen
in units of the random play that comes first. Small networks and larger learning rates make data in minutes; the papers
have ``world_model="dreamer"``, ``batch_size=50``, ``sequence_length=50``, ``model_learning_rate=3e-4``,
``ensemble_hidden=1024`` and 8e-5 for actor and critic.

Novelty is mostly below zero, and what follows the end of an episode is worth zero. So where an episode can terminate,
an explorer may look for its end.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from aime_gym.config import MAX_LAYERS, MAX_UNITS, check_bounds, nearest_names, read_config
from aime_gym.data import ActionEncoding, HeldRandomPolicy, ObservationEncoding, TrajectoryDataset
from aime_gym.model_based.actor_critic import Critic, ImaginationConfig, ImaginedRollout, draw_starts, imagine
from aime_gym.model_based.predict import act_in_latents, initial_memory
from aime_gym.model_based.pretraining import WorldModelTrainingConfig
from aime_gym.model_based.task_model import JointSampler, TaskModel
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.ensemble import Ensemble, novelty
from aime_gym.models.policies import make_latent_policy
from aime_gym.models.rssm import State
from aime_gym.models.world_model import WorldModel
from aime_gym.progress import progress_bar
from aime_gym.serialization import AllocationLimit, Source, read_archive, write_archive
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.predict import predict_as_sb3
from aime_gym.training.rollouts import collect_episodes, wrap_env
from aime_gym.training.signals import DeferredSignals
from aime_gym.types import Array, Metrics, Observation, SequenceBatch, Trajectory

#: What an explorer may look for.
REWARDS = ("novelty", "task")


@dataclass(frozen=True)
class ExplorerConfig(ImaginationConfig, WorldModelTrainingConfig):
    """Hyper-parameters of :class:`Explorer`.

    :param reward: ``novelty`` (Plan2Explore) or ``task`` (Dreamer).
    :param random_episodes: of random play, before anything is learnt.
    :param first_updates: of model and ensemble alone, after them: an actor that dreams in a model that knows nothing
        learns to push as hard as it can, and hardly forgets it.
    :param updates_per_step: updates for each environment step from then on.
    :param ensemble: number of heads; two can disagree.
    :param ensemble_hidden: width of their layers, of which there are two.
    :param policy_hidden: width of the actor's layers.
    :param actor_learning_rate: of the actor.
    :param ensemble_learning_rate: of the ensemble.
    :param value_learning_rate: of the critic, which has to be ahead of the actor: where its values have yet to fall,
        they look like a good place to go.
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
        if self.reward not in REWARDS:
            raise ValueError(f"reward: expected {' or '.join(REWARDS)}, got {self.reward!r}")
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


class Explorer:
    """Takes episodes, learns from all of them, and takes better ones.

    >>> explorer = Explorer(env, seed=0)
    >>> play = explorer.explore(150)                                # Plan2Explore: the episodes are the data

    >>> dreamer = Explorer(env, reward="task", seed=0).learn(30_000)
    >>> buffer, demos = dreamer.trajectories, collect(env, dreamer, 20)

    The same seed in the same environment takes the same episodes; the process's own random numbers stay as they are.

    :param env: Gymnasium environment, SB3 ``VecEnv``, or the id of a registered environment.
    :param hyper_parameters: fields of :class:`ExplorerConfig`.
    :raises ValueError: another environment, spaces that agents cannot learn from, or an unknown hyper-parameter.
    """

    def __init__(
        self,
        env: GymEnv | str,
        *,
        seed: int | None = None,
        device: torch.device | str = "auto",
        **hyper_parameters: Any,
    ) -> None:
        known = [field.name for field in fields(ExplorerConfig)]
        for name in hyper_parameters:
            if name not in known:
                raise ValueError(f"{name}: unknown hyper-parameter of Explorer; {nearest_names(name, known)}")
        self.config = ExplorerConfig(**hyper_parameters)
        self.env, self.device = wrap_env(env, verbose=0), get_device(device)
        self.observation_encoding = ObservationEncoding(self.env.observation_space)
        self.action_encoding = ActionEncoding(self.env.action_space)
        training, acting, weights = (int(word) for word in np.random.SeedSequence(seed).generate_state(3))
        # Acting on request has a source of its own, so that it changes nothing of what is learnt.
        self.generator = torch.Generator().manual_seed(training)
        self.acting_generator = torch.Generator().manual_seed(acting)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(weights)
            self._make_networks()
        #: All episodes so far, oldest first, with actions and the task's rewards.
        self.trajectories: list[Trajectory] = []
        self.num_timesteps = self.num_updates = 0
        self._random = [
            HeldRandomPolicy(self.env.action_space, seed=self._draw_seed()) for _ in range(self.env.num_envs)
        ]

    def _make_networks(self) -> None:
        config, actions = self.config, self.action_encoding.size
        assert isinstance(config.world_model, WorldModelConfig)
        model = self.world_model = WorldModel(config.world_model, self.observation_encoding.shapes, actions).to(
            self.device
        )
        self.task_model = TaskModel(model, config.model_learning_rate, config.max_grad_norm, self.device)
        self.ensemble = Ensemble(
            model.feature_size,
            actions,
            model.embedding_size,
            config.ensemble,
            config.ensemble_hidden,
            layer_norm=model.config.layer_norm,
        ).to(self.device)
        self.policy = make_latent_policy(
            model.feature_size, actions, discrete=self.action_encoding.discrete, hidden=config.policy_hidden
        ).to(self.device)
        self.critic = Critic(model.feature_size, config, self.device)
        self.ensemble_optimizer = Optimizer(
            [self.ensemble], config.ensemble_learning_rate, max_grad_norm=config.max_grad_norm
        )
        self.policy_optimizer = Optimizer([self.policy], config.actor_learning_rate, max_grad_norm=config.max_grad_norm)

    # Taking episodes

    def explore(self, episodes: int, *, progress_bar: bool = True) -> list[Trajectory]:
        """Take episodes, and learn after each; the next call goes on from there.

        With several copies of the environment all of them act until each has finished one. What some have begun in the
        meantime is returned as well, cut where it stands.

        Ctrl-C ends it early: the complete episodes are returned, with a warning.

        :param episodes: least number of them.
        :return: the new ones, with actions and the task's rewards.
        :raises ValueError: ``episodes`` below 1.
        """
        if episodes < 1:
            raise ValueError(f"episodes: expected at least 1, got {episodes}")
        before = len(self.trajectories)
        self._run(episodes, "episodes", len, show=progress_bar)
        return self.trajectories[before:]

    def learn(self, total_timesteps: int, *, progress_bar: bool = False) -> Self:
        """The same in environment steps, as SB3 has it: at least so many, in whole episodes.

        :raises ValueError: ``total_timesteps`` below 1.
        """
        if total_timesteps < 1:
            raise ValueError(f"total_timesteps: expected at least 1, got {total_timesteps}")
        self._run(total_timesteps, "steps", lambda episodes: sum(map(len, episodes)), show=progress_bar)
        return self

    def _run(self, total: int, unit: str, size: Callable[[list[Trajectory]], int], *, show: bool) -> None:
        taken = 0
        with (
            progress_bar("explore" if self.config.reward == "novelty" else "rollout", total, enabled=show) as advance,
            DeferredSignals(terminations=False) as interruption,
        ):
            try:
                while taken < total:
                    episodes = self._take_episodes(interruption)
                    self.trajectories += episodes
                    taken += size(episodes)
                    advance(size(episodes), f"return {np.mean([t.episode_return for t in episodes]):.1f}")
                    self._improve(len(episodes), interruption)
            except KeyboardInterrupt:
                warnings.warn(f"explorer: interrupted after {taken} of {total} {unit}, which are kept", stacklevel=3)

    def _take_episodes(self, interruption: DeferredSignals) -> list[Trajectory]:
        """One of each copy, without learning."""

        def step(local_values: dict[str, Any]) -> bool:
            self.num_timesteps += self.env.num_envs
            interruption.raise_pending()
            return True

        knows = len(self.trajectories) >= self.config.random_episodes
        act = self._explore if knows else self._play
        return collect_episodes(self.env, act, steps=1, seed=self._draw_seed(), on_step=step)

    def _explore(self, observation: Observation, state: Any, episode_start: Array) -> tuple[Array, Any]:
        actions, after, _ = self._choose(observation, state, episode_start, self.generator)
        return actions, after

    def _play(self, observation: Observation, state: Any, episode_start: Array) -> tuple[Array, None]:
        for policy in (policy for policy, first in zip(self._random, episode_start, strict=True) if first):
            policy.reset()
        return np.stack([policy() for policy in self._random]), None

    # Learning from them

    def _improve(self, new: int, interruption: DeferredSignals) -> None:
        """The updates that are due after the last ``new`` episodes."""
        config, count = self.config, len(self.trajectories)
        if count < config.random_episodes:
            return
        first, steps = count - new < config.random_episodes, sum(map(len, self.trajectories[-new:]))
        for_task = config.reward == "task"
        known = self.trajectories if for_task else [replace(t, rewards=None) for t in self.trajectories]
        dataset = TrajectoryDataset(known, self.action_encoding, self.device)
        if first:
            self.world_model.fit_standardizers(dataset.observations)
        sampler = JointSampler(
            None,
            dataset,
            config,
            play_ratio=0.0,
            start_fraction=config.play_start_fraction,
            generator=self.generator,
        )
        for _ in range(config.first_updates if first else round(config.updates_per_step * steps)):
            batch, labels = sampler.sample()
            states, _ = self.task_model.update(batch, labels, self._noise)
            if not for_task:
                self._update_ensemble(states, batch)
            if not first:
                self._update_actor(draw_starts(states, batch.valid, config.imagination_starts, self.generator))
            self.num_updates += 1
            interruption.raise_pending()

    def _update_ensemble(self, states: State, batch: SequenceBatch) -> Metrics:
        """To what was observed next."""
        assert batch.prev_actions is not None
        reached, model = batch.valid[1:], self.world_model
        with torch.no_grad():
            embeddings = model.embed(model.standardize(batch.observations))[1:][reached]
        self.ensemble.requires_grad_(True)
        loss = self.ensemble.loss(states.feature[:-1][reached], batch.prev_actions[1:][reached], embeddings)
        self.ensemble_optimizer.step(loss)
        return {"ensemble_loss": loss.detach()}

    def _update_actor(self, starts: State) -> Metrics:
        """Actor and critic, in imagination."""
        self.task_model.set_trainable(False)
        self.ensemble.requires_grad_(False)
        imagined = imagine(self.world_model.rssm, self.policy, starts, self.config.imagination_horizon, self._noise)
        rollout = self.critic.evaluate(imagined, self._rewards(imagined), self.task_model.alive(imagined.features[1:]))
        self.policy_optimizer.step(rollout.policy_loss(self.config.entropy_weight))
        return self.critic.update(rollout)

    def _rewards(self, imagined: ImaginedRollout) -> Tensor:
        """(H, N), on arriving at the states 1 ... H."""
        if self.config.reward == "novelty":
            return novelty(self.ensemble(imagined.features[:-1], imagined.actions))
        return self.task_model.reward(imagined.features[1:])

    # Acting

    def predict(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | bool | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """The action for an observation, as SB3's recurrent policies give it; see ``ImitationAgent.predict``.

        :raises ValueError: an observation, state or ``episode_start`` of another shape.
        """
        actions, after, batched = self._choose(
            observation, state, episode_start, None if deterministic else self.acting_generator
        )
        return (actions if batched else actions.squeeze(0)), after

    def _choose(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None,
        episode_start: Array | bool | None,
        generator: torch.Generator | None,
    ) -> tuple[Array, tuple[Array, ...], bool]:
        noise = None if generator is None else functools.partial(self._noise, of=generator)

        def act(inputs: dict[str, Tensor], memory: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            return act_in_latents(self.world_model, self.policy, inputs, memory, noise)

        return predict_as_sb3(
            self.observation_encoding,
            self.action_encoding,
            functools.partial(initial_memory, self.world_model),
            act,
            observation,
            state,
            episode_start,
            self.device,
        )

    # Files

    def save(self, path: Source) -> None:
        """Write what it is and what it knows to a file of JSON and tensors; its episodes stay behind."""
        modules = {name: module.state_dict() for name, module in self._modules().items()}
        write_archive(path, {"class": type(self).__name__, "config": asdict(self.config), "modules": modules})

    @classmethod
    def load(
        cls, path: Source, env: GymEnv | str, *, seed: int | None = None, device: torch.device | str = "auto"
    ) -> Self:
        """One that acts as that in a file, and that goes on from what it knew with new episodes.

        :raises FileNotFoundError: no such file.
        :raises ValueError: a damaged file, another one than an explorer's, or one of other spaces.
        """
        what = "an explorer's file"
        document = read_archive(path, what=what)
        if document.get("class") != cls.__name__:
            raise ValueError(f"path: expected {what}, got one of {document.get('class')} in {path}")
        try:
            config = read_config(ExplorerConfig, document["config"])
            limit = AllocationLimit(document["modules"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"path: expected {what}, got {path} ({error})") from error
        options = {field.name: getattr(config, field.name) for field in fields(config)}
        try:
            with limit:
                explorer = cls(env, seed=seed, device=device, **options)
            for name, module in explorer._modules().items():
                module.load_state_dict(document["modules"][name])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"path: expected {what} that fits the environment, got {path} ({error})") from error
        return explorer

    def _modules(self) -> dict[str, nn.Module]:
        reward, terminal = self.task_model.heads
        return {
            "world_model": self.world_model,
            "reward": reward,
            "terminal": terminal,
            "ensemble": self.ensemble,
            "policy": self.policy,
            "value": self.critic.value,
            "target": self.critic.target,
        }

    def _noise(self, *shape: int, of: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, generator=of if of is not None else self.generator).to(self.device)

    def _draw_seed(self) -> int:
        return int(torch.randint(2**31 - 1, (), generator=self.generator))
