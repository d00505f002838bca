"""What every agent is: an SB3 algorithm with two more verbs, ``pretrain`` and ``imitate``."""

from __future__ import annotations

import difflib
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from minari.serialization import deserialize_space, serialize_space
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces, configure_logger, is_vectorized_observation
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from aime_gym.agents.storage import read_agent_file, write_agent_file
from aime_gym.data import ActionEncoding, TrajectoryDataset, check_trajectories, collect, load_trajectories
from aime_gym.training.fit import Fit, PhaseCallback
from aime_gym.types import Array, Observation, Trajectories, Trajectory, sensors

#: Plain values of an agent that its file keeps.
_SAVED_ATTRIBUTES = (
    "seed", "policy_kwargs", "play_timesteps", "pretrained", "imitated", "num_updates", "num_timesteps"
)  # fmt: skip
#: Key of the random generator's state among the tensors.
_GENERATOR = "generator"


@dataclass(frozen=True)
class AgentConfig:
    """Hyper-parameters of an agent: JSON values, or frozen configurations of them."""


class ImitationAgent(BaseAlgorithm):
    """Base of all agents, with SB3's constructor, ``predict``, ``save`` and ``load``.

    :param env: Gymnasium environment, SB3 ``VecEnv``, or the id of a registered environment.
    :param preset: named set of hyper-parameters; see ``presets``.
    :param demonstrations: default of ``imitate``.
    :param play: default of ``pretrain``.
    :param play_timesteps: environment steps of random play that an agent collects when it needs play and got none.
    :param policy: ``"MlpPolicy"`` or ``"MultiInputPolicy"``; the networks follow the observation space either way.
    :param policy_kwargs: ``hidden`` (width) and ``layers`` of the policy network.
    :param hyper_parameters: fields of the agent's configuration, over the preset's values.
    :raises ValueError: an unknown preset or hyper-parameter.
    """

    policy_aliases: ClassVar[dict[str, Any]] = {"MlpPolicy": nn.Module, "MultiInputPolicy": nn.Module}
    #: Named configurations.
    presets: ClassVar[Mapping[str, AgentConfig]]
    #: Whether ``imitate`` stands on ``pretrain``.
    needs_play: ClassVar[bool]
    #: Whether ``imitate`` reads the demonstrations' actions: for oracles only.
    needs_demonstration_actions: ClassVar[bool] = False

    policy: nn.Module  # type: ignore[assignment]

    def __init__(
        self,
        env: GymEnv | str | None = None,
        *,
        preset: str = "default",
        demonstrations: Any = None,
        play: Any = None,
        play_timesteps: int = 20_000,
        policy: str = "MlpPolicy",
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **hyper_parameters: Any,
    ) -> None:
        self.config = self._configure(preset, hyper_parameters)
        super().__init__(
            policy="MlpPolicy" if policy == "MultiInputPolicy" else policy,  # SB3 refuses the wrong one of the two
            env=None,
            learning_rate=0.0,  # each phase has its own
            policy_kwargs=policy_kwargs,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
        )
        self.demonstrations, self.play, self.play_timesteps = demonstrations, play, play_timesteps
        #: Which of the offline phases have run.
        self.pretrained = self.imitated = False
        #: Gradient steps of the offline phases; ``num_timesteps`` counts environment steps only.
        self.num_updates = 0
        if env is not None:
            self._use_env(gym.make(env) if isinstance(env, str) else env)
            if _init_setup_model:
                self._setup_model()

    @classmethod
    def _configure(cls, preset: str, hyper_parameters: dict[str, Any]) -> AgentConfig:
        if preset not in cls.presets:
            raise ValueError(f"preset: {cls.__name__} expects one of {sorted(cls.presets)}, got {preset!r}")
        known = [field.name for field in fields(cls.presets[preset])]
        for name in hyper_parameters:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3)
                hint = f"did you mean {' or '.join(near)}?" if near else f"expected some of {', '.join(known)}"
                raise ValueError(f"{name}: unknown hyper-parameter of {cls.__name__}; {hint}")
        return replace(cls.presets[preset], **hyper_parameters)

    def _use_env(self, env: GymEnv) -> None:
        wrapped = self._wrap_env(env, self.verbose)
        self.env, self.n_envs = wrapped, wrapped.num_envs
        self.observation_space, self.action_space = wrapped.observation_space, wrapped.action_space

    # Networks and randomness

    def _setup_model(self) -> None:
        parts = self.observation_space.spaces if isinstance(self.observation_space, spaces.Dict) else {}
        for name, space in (parts or {"observation": self.observation_space}).items():
            if is_image_space(space) or is_image_space(space, check_channels=False):
                raise NotImplementedError(
                    f"observation_space: agents learn from vectors in this version, {name!r} is an image "
                    f"{space.shape}; make the environment with modality='state' or 'position'"
                )
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise ValueError(
                    f"observation_space: expected a Box of one dimension, or a Dict of those, got {name!r} as {space}"
                )
        #: Features of each sensor, by name.
        self.sensor_sizes = {
            name: int(space.shape[0]) for name, space in (parts or {"observation": self.observation_space}).items()
        }
        self.encoding = ActionEncoding(self.action_space)
        self.set_random_seed(self.seed)
        with self._initial_weights():
            self._setup_networks()
        for name in self._get_torch_save_params()[0]:
            getattr(self, name).to(self.device)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed this agent and its environment."""
        super().set_random_seed(seed)
        entropy = np.random.SeedSequence(seed).generate_state(1)[0]
        #: The source of all randomness in training and acting, on the CPU whatever the device.
        self.generator = torch.Generator().manual_seed(int(entropy))

    @contextmanager
    def _initial_weights(self) -> Iterator[None]:
        """Make networks here: their weights follow the agent's seed alone, and the global generator is left alone."""
        seed = torch.randint(2**31, (), generator=self.generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            yield

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def _integers(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self.generator).to(self.device)

    # The verbs

    def pretrain(
        self,
        play: Any = None,
        *,
        callback: PhaseCallback | None = None,
        tb_log_name: str = "pretrain",
        progress_bar: bool = True,
    ) -> Self:
        """Learn what the body can do, from trajectories with actions of any quality.

        :param play: whatever :func:`~aime_gym.data.load_trajectories` accepts; the constructor's unless given.
        :param callback: called with a :class:`~aime_gym.training.fit.PhaseProgress` at each log entry.
        :raises ValueError: data that is missing or does not fit the environment, before any training.
        """
        trajectories = self._trajectories(play, self.play, "play", need_actions=True)
        fit = self._fit(callback, tb_log_name, progress_bar)
        self._pretrain(trajectories, fit)
        self.num_updates += fit.updates
        self.pretrained = True
        return self

    def imitate(
        self,
        demos: Any = None,
        *,
        callback: PhaseCallback | None = None,
        tb_log_name: str = "imitate",
        progress_bar: bool = True,
    ) -> Self:
        """Turn demonstrations into a policy; their actions are dropped at the door (oracles excepted).

        Without ``pretrain``, an agent that needs play first learns from the constructor's, or from ``play_timesteps``
        of random play in its own environment.

        :param demos: whatever :func:`~aime_gym.data.load_trajectories` accepts; the constructor's unless given.
        :raises ValueError: data that is missing or does not fit the environment, before any training.
        """
        need_actions = self.needs_demonstration_actions
        trajectories = self._trajectories(demos, self.demonstrations, "demos", need_actions=need_actions)
        if self.needs_play and not self.pretrained:
            play = self.play if self.play is not None else self._collect_play()
            self.pretrain(play, callback=callback, progress_bar=progress_bar)
        fit = self._fit(callback, tb_log_name, progress_bar)
        self._imitate(trajectories, fit)
        self.num_updates += fit.updates
        self.imitated = True
        return self

    def infer_actions(self, demos: Any) -> list[Trajectory]:
        """The same demonstrations with the actions that the agent believes were taken."""
        trajectories = self._trajectories(demos, None, "demos", need_actions=False)
        dataset = TrajectoryDataset(trajectories, None, self.device)
        with torch.no_grad():
            inferred = dataset.per_trajectory(self._infer_actions(dataset))
        return [
            trajectory.with_actions(self.encoding.decode(pre_actions[1:].cpu().numpy()))
            for trajectory, pre_actions in zip(trajectories, inferred, strict=True)
        ]

    def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> Self:
        """Learn online. No agent of this version does.

        :raises NotImplementedError: always, naming the verb to use.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.learn: there is no online phase in this version; use imitate(demos), which "
            f"needs no environment step"
        )

    @abstractmethod
    def _setup_networks(self) -> None:
        """Make every module that ``_get_torch_save_params`` names."""

    @abstractmethod
    def _pretrain(self, play: Trajectories, fit: Fit) -> None: ...

    @abstractmethod
    def _imitate(self, demos: Trajectories, fit: Fit) -> None: ...

    @abstractmethod
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """Encoded pre-actions (N, A) of every record; those of first records are not read."""

    def _trajectories(self, given: Any, default: Any, argument: str, *, need_actions: bool) -> list[Trajectory]:
        source = given if given is not None else default
        if source is None:
            raise ValueError(f"{argument}: expected trajectories, got None")
        return check_trajectories(
            load_trajectories(source, actions=need_actions, argument=argument),
            argument=argument,
            observation_space=self.observation_space,
            action_space=self.action_space,
            need_actions=need_actions,
        )

    def _collect_play(self) -> list[Trajectory]:
        if not isinstance(self.env, DummyVecEnv):
            raise ValueError(
                "play: expected trajectories, or an environment in this process to collect random play from"
            )
        env = self.env.envs[0]
        limit = getattr(env.spec, "max_episode_steps", None) or 1000
        episodes = max(1, self.play_timesteps // limit)
        message = f"{type(self).__name__}: no play data given, collecting {episodes} episodes of random play"
        warnings.warn(message, stacklevel=3)
        play = collect(env, "play", episodes, seed=self.generator.initial_seed() % 2**31)
        self.num_timesteps += sum(map(len, play))
        return play

    def _fit(self, callback: PhaseCallback | None, tb_log_name: str, progress_bar: bool) -> Fit:
        if not self._custom_logger:
            self._logger = configure_logger(self.verbose, self.tensorboard_log, tb_log_name)
        return Fit(self.logger, callback, progress_bar)

    # Acting

    def predict(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """The action for an observation, as SB3's recurrent policies give it.

        :param observation: one observation, or a batch (n_envs, ...).
        :param state: what the last call returned; ``None`` starts an episode in every environment.
        :param episode_start: (n_envs,) bool; rows to start anew.
        :return: action(s), and the state: arrays with leading dimension ``n_envs``.
        """
        if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
            raise ValueError("observation: expected what env.reset() returns first, got the tuple (observation, info)")
        batched = self._is_batched(observation)
        inputs = {
            name: torch.as_tensor(np.asarray(values if batched else values[None], np.float32), device=self.device)
            for name, values in sensors(observation).items()
        }
        with torch.no_grad():
            fresh = self._initial_state(inputs)
            before = fresh
            if state is not None:
                before = tuple(torch.as_tensor(part, device=self.device) for part in state)
                if [part.shape for part in before] != [part.shape for part in fresh]:
                    raise ValueError(
                        f"state: expected arrays of shapes {[tuple(part.shape) for part in fresh]}, "
                        f"got {[tuple(part.shape) for part in before]}"
                    )
                if episode_start is not None:
                    keep = ~torch.as_tensor(np.asarray(episode_start, bool), device=self.device)
                    before = tuple(
                        torch.where(keep.view(-1, *[1] * (old.ndim - 1)), old, new)
                        for old, new in zip(before, fresh, strict=True)
                    )
            encoded, after = self._act(inputs, before, deterministic)
        actions = self.encoding.decode(encoded.cpu().numpy())
        return (actions if batched else actions[0]), tuple(part.cpu().numpy() for part in after)

    def _is_batched(self, observation: Observation) -> bool:
        if isinstance(self.observation_space, spaces.Dict):
            name, space = next(iter(self.observation_space.items()))
            return is_vectorized_observation(np.asarray(sensors(observation)[name]), space)
        return is_vectorized_observation(np.asarray(observation), self.observation_space)

    @abstractmethod
    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The state before the first observation of an episode, (n_envs, ...) each; ``observation`` may matter."""

    @abstractmethod
    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], deterministic: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encoded actions (n_envs, A) and the next state."""

    # Files

    @abstractmethod
    def _get_torch_save_params(self) -> tuple[list[str], list[str]]: ...

    def save(  # type: ignore[override]
        self,
        path: str | Path | IO[bytes],
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write the agent to a file of JSON and tensors; data, environment and logger stay behind.

        :raises ValueError: ``exclude`` or ``include``, which SB3 has for its pickles.
        """
        if exclude or include:
            raise ValueError("exclude, include: expected None; an agent's file has a fixed content")
        document = {
            "class": type(self).__name__,
            "config": asdict(self.config),
            "observation_space": serialize_space(self.observation_space),
            "action_space": serialize_space(self.action_space),
            "attributes": {name: getattr(self, name) for name in _SAVED_ATTRIBUTES},
        }
        tensors = {
            f"{module}/{name}": tensor
            for module, state in self.get_parameters().items()
            for name, tensor in state.items()
        }
        write_agent_file(path, document, tensors | {_GENERATOR: self.generator.get_state()})

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | Path | IO[bytes],
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        **kwargs: Any,
    ) -> Self:
        """Make an agent from a file.

        :param env: environment to go on with; acting needs none.
        :param kwargs: of the constructor, ``verbose`` or ``tensorboard_log`` for example.
        :raises ValueError: a damaged file, another agent's file, or an environment with other spaces.
        """
        document, tensors = read_agent_file(path)
        if document["class"] != cls.__name__:
            raise ValueError(f"path: expected a file of {cls.__name__}, got one of {document['class']} in {path}")
        observation_space = deserialize_space(document["observation_space"])
        action_space = deserialize_space(document["action_space"])
        agent = cls(None, device=device, **(document["config"] | kwargs))
        for name, value in document["attributes"].items():
            setattr(agent, name, kwargs.get(name, value))
        if env is not None:
            agent._use_env(env)
            try:
                check_for_correct_spaces(agent.env, observation_space, action_space)
            except ValueError as error:
                raise ValueError(
                    f"env: expected the spaces in {path}, {observation_space} and {action_space}; got "
                    f"{agent.observation_space} and {agent.action_space}"
                ) from error
        agent.observation_space, agent.action_space = observation_space, action_space
        agent._setup_model()
        agent.generator.set_state(tensors.pop(_GENERATOR))
        parameters: dict[str, Any] = {name: {} for name in agent._get_torch_save_params()[0]}
        for key, tensor in tensors.items():
            module, name = key.split("/", 1)
            parameters[module][name] = tensor
        agent.set_parameters(parameters, exact_match=True, device=agent.device)
        return agent
