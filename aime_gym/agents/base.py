"""What every agent is: an SB3 algorithm with two more verbs, ``pretrain`` and ``imitate``."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
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
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper
from torch import Tensor, nn

from aime_gym.agents.storage import read_agent_file, write_agent_file
from aime_gym.data import ActionEncoding, TrajectoryDataset, check_trajectories, collect, load_trajectories
from aime_gym.naming import suggestion
from aime_gym.training.fit import Fit, PhaseCallback
from aime_gym.types import Array, Observation, Trajectories, Trajectory, sensors

#: Plain values of an agent that its file keeps.
_SAVED_ATTRIBUTES = (
    "seed",
    "policy_kwargs",
    "play_timesteps",
    "pretrained",
    "imitated",
    "num_updates",
    "num_timesteps",
)
#: Key of the random generator's state among the tensors.
_GENERATOR = "generator"
_POLICIES = ("MlpPolicy", "MultiInputPolicy")
_POLICY_KWARGS = {"hidden", "layers"}


class ImitationAgent(BaseAlgorithm):
    """Base of all agents, with SB3's constructor, ``predict``, ``save`` and ``load``.

    :param env: Gymnasium environment, SB3 ``VecEnv``, or the id of a registered environment.
    :param preset: named set of hyper-parameters; see ``presets``.
    :param demonstrations: default of ``imitate``.
    :param play: default of ``pretrain``.
    :param play_timesteps: least number of environment steps of random play that an agent collects, in whole episodes,
        when it needs play and got none.
    :param policy: ``"MlpPolicy"`` or ``"MultiInputPolicy"``; the networks follow the observation space either way.
    :param policy_kwargs: ``hidden`` (width) and ``layers`` of the policy network.
    :param hyper_parameters: fields of the agent's configuration, over the preset's values.
    :raises ValueError: an unknown preset, policy or hyper-parameter.
    """

    #: Named configurations, frozen dataclasses of JSON values.
    presets: ClassVar[Mapping[str, Any]]
    #: Whether ``imitate`` stands on ``pretrain``.
    needs_play: ClassVar[bool]
    #: Whether ``imitate`` reads the demonstrations' actions: for oracles only.
    needs_demonstration_actions: ClassVar[bool] = False

    config: Any
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
        if policy not in _POLICIES:
            raise ValueError(f"policy: expected {' or '.join(_POLICIES)}, got {policy!r}")
        for name in set(policy_kwargs or ()) - _POLICY_KWARGS:
            raise ValueError(f"policy_kwargs: expected some of {sorted(_POLICY_KWARGS)}, got {name!r}")
        super().__init__(
            policy=nn.Module,  # type: ignore[arg-type]  # what acts is made in _setup_networks
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
        #: Whether the last of them was cut short, by Ctrl-C or by a callback.
        self.interrupted = False
        #: Gradient steps of the offline phases; ``num_timesteps`` counts environment steps only.
        self.num_updates = 0
        if env is not None:
            self.env = self._wrap_env(gym.make(env) if isinstance(env, str) else env, self.verbose)
            self.n_envs = self.env.num_envs
            self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
            if _init_setup_model:
                self._setup_model()

    @classmethod
    def _configure(cls, preset: str, hyper_parameters: dict[str, Any]) -> Any:
        if preset not in cls.presets:
            raise ValueError(f"preset: {cls.__name__} expects one of {sorted(cls.presets)}, got {preset!r}")
        known = [field.name for field in fields(cls.presets[preset])]
        for name in hyper_parameters:
            if name not in known:
                raise ValueError(f"{name}: unknown hyper-parameter of {cls.__name__}; {suggestion(name, known)}")
        return replace(cls.presets[preset], **hyper_parameters)

    # Networks and randomness

    def _setup_model(self) -> None:
        space = self.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
        for name, part in parts.items():
            if is_image_space(part):
                raise NotImplementedError(
                    f"observation_space: agents learn from vectors in this version, {name!r} is an image "
                    f"{part.shape}; make the environment with modality='state' or 'position'"
                )
            if not isinstance(part, spaces.Box) or len(part.shape) != 1:
                raise ValueError(
                    f"observation_space: expected a Box of one dimension, or a Dict of those, got {name!r} as {part}"
                )
        #: Features of each sensor, sorted by name as in every dataset: spaces and files differ in their order.
        self.sensor_sizes = {name: int(parts[name].shape[0]) for name in sorted(parts)}
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
        """Make networks here: their weights follow the agent's generator, and the CPU's global one is left alone."""
        seed = torch.randint(2**31, (), generator=self.generator)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
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

        Ctrl-C ends the phase that runs, and keeps what was learnt.

        :param play: whatever :func:`~aime_gym.data.load_trajectories` accepts; the constructor's unless given.
        :param callback: called with a :class:`~aime_gym.training.fit.PhaseProgress` at each log entry.
        :raises ValueError: data that is missing or does not fit the environment, before any training.
        """
        trajectories = self._trajectories(play, self.play, "play", need_actions=True)
        with self._offline_phase(callback, tb_log_name, progress_bar) as fit:
            self.pretrained = True
            if self.needs_play:  # a policy of before does not fit what is learnt now
                self.imitated = False
            self._pretrain(trajectories, fit)
        return self

    def imitate(
        self,
        demos: Any = None,
        *,
        callback: PhaseCallback | None = None,
        tb_log_name: str = "imitate",
        progress_bar: bool = True,
    ) -> Self:
        """Turn demonstrations into a policy, a new one at each call; their actions are dropped at the door.

        (Oracles excepted.) Without ``pretrain``, an agent that needs play first learns from the constructor's, or from
        ``play_timesteps`` of random play in its own environment. Ctrl-C ends the phase that runs, and keeps what was
        learnt.

        :param demos: whatever :func:`~aime_gym.data.load_trajectories` accepts; the constructor's unless given.
        :param callback: called with a :class:`~aime_gym.training.fit.PhaseProgress` at each log entry.
        :raises ValueError: data that is missing or does not fit the environment, before any training.
        """
        need_actions = self.needs_demonstration_actions
        trajectories = self._trajectories(demos, self.demonstrations, "demos", need_actions=need_actions)
        if self.needs_play and not self.pretrained:
            play = self.play if self.play is not None else self._collect_play(progress_bar)
            self.pretrain(play, callback=callback, progress_bar=progress_bar)
        with self._offline_phase(callback, tb_log_name, progress_bar) as fit:
            self._imitate(trajectories, fit)
            self.imitated = True
        return self

    def infer_actions(self, demos: Any) -> list[Trajectory]:
        """The same demonstrations with the actions that the agent believes were taken.

        :raises ValueError: an agent that has learnt nothing yet.
        """
        if not (self.pretrained if self.needs_play else self.imitated):
            verb = "pretrain" if self.needs_play else "imitate"
            raise ValueError(f"infer_actions: {type(self).__name__} has learnt nothing yet; call {verb} first")
        dataset = TrajectoryDataset(self._trajectories(demos, None, "demos", need_actions=False), None, self.device)
        with torch.no_grad():
            inferred = dataset.per_trajectory(self._infer_actions(dataset))
        return [
            trajectory.with_actions(self.encoding.decode(pre_actions[1:].cpu().numpy()))
            for trajectory, pre_actions in zip(dataset.trajectories, inferred, strict=True)
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

    def _collect_play(self, progress_bar: bool) -> list[Trajectory]:
        vec_env = self.env
        while isinstance(vec_env, VecEnvWrapper):
            vec_env = vec_env.venv
        if not isinstance(vec_env, DummyVecEnv):
            raise ValueError("play: expected trajectories, since this environment cannot collect any in this process")
        message = f"{type(self).__name__}: no play data given, collecting {self.play_timesteps} steps of random play"
        warnings.warn(message, stacklevel=3)
        env, seed = vec_env.envs[0], self.generator.initial_seed() % 2**31
        play = collect(env, "play", 1, seed=seed, progress=False)  # says how long an episode is
        while play and (steps := sum(map(len, play))) < self.play_timesteps:
            episodes = math.ceil((self.play_timesteps - steps) * len(play) / steps)
            more = collect(env, "play", episodes, seed=seed + len(play), progress=progress_bar)
            play += more
            if len(more) < episodes:  # interrupted
                break
        self.num_timesteps += sum(map(len, play))
        return play

    @contextmanager
    def _offline_phase(self, callback: PhaseCallback | None, tb_log_name: str, progress_bar: bool) -> Iterator[Fit]:
        if not self._custom_logger:
            self._logger = configure_logger(self.verbose, self.tensorboard_log, tb_log_name)
        fit = Fit(self.logger, callback, progress_bar)
        try:
            yield fit
        except KeyboardInterrupt:  # between the updates, which catch it themselves
            warnings.warn(f"{tb_log_name}: interrupted; what was learnt is kept", stacklevel=4)
            fit.interrupted = True
        finally:
            self.num_updates += fit.updates
            self.interrupted = fit.interrupted

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
        :raises ValueError: an observation, state or ``episode_start`` of another shape.
        """
        inputs, batched = self._as_batch(observation)
        with torch.no_grad():
            before = fresh = self._initial_state(inputs)
            if state is not None:
                before = tuple(torch.as_tensor(part, device=self.device) for part in state)
                if [part.shape for part in before] != [part.shape for part in fresh]:
                    raise ValueError(
                        f"state: expected arrays of shapes {[tuple(part.shape) for part in fresh]}, "
                        f"got {[tuple(part.shape) for part in before]}"
                    )
            if state is not None and episode_start is not None:
                start = torch.as_tensor(np.asarray(episode_start, bool), device=self.device)
                if start.shape != fresh[0].shape[:1]:
                    raise ValueError(
                        f"episode_start: expected shape {tuple(fresh[0].shape[:1])}, got {tuple(start.shape)}"
                    )
                before = tuple(
                    torch.where(start.view(-1, *[1] * (old.ndim - 1)), new, old)
                    for old, new in zip(before, fresh, strict=True)
                )
            encoded, after = self._act(inputs, before, deterministic)
        actions = self.encoding.decode(encoded.cpu().numpy())
        return (actions if batched else actions[0]), tuple(part.cpu().numpy() for part in after)

    def _as_batch(self, observation: Observation) -> tuple[dict[str, Tensor], bool]:
        """Every sensor (n_envs, D), in our order; and whether the observation came as a batch."""
        if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
            raise ValueError("observation: expected what env.reset() returns first, got the tuple (observation, info)")
        space = self.observation_space
        is_dict = isinstance(space, spaces.Dict)
        if is_dict != isinstance(observation, dict) or set(sensors(observation)) != set(self.sensor_sizes):
            came = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
            expected = f"the sensors {list(self.sensor_sizes)}" if is_dict else "an array"
            raise ValueError(f"observation: expected {expected}, got {came}")
        arrays = {name: np.asarray(values, np.float32) for name, values in sensors(observation).items()}
        batched = {
            is_vectorized_observation(values, space[name] if is_dict else space) for name, values in arrays.items()
        }
        if len(batched) > 1:
            raise ValueError("observation: expected all sensors as a batch or none, got both")
        is_batch = batched.pop()
        return {
            name: torch.as_tensor(arrays[name] if is_batch else arrays[name][None], device=self.device)
            for name in self.sensor_sizes
        }, is_batch

    @abstractmethod
    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The state before the first observation of an episode, (n_envs, ...) each; ``observation`` may matter."""

    @abstractmethod
    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], deterministic: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encoded actions (n_envs, A) and the next state."""

    # Environment and files

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Go on with another environment of the same spaces, with any number of copies.

        :raises ValueError: other spaces.
        """
        wrapped = self._wrap_env(env, self.verbose)
        try:
            check_for_correct_spaces(wrapped, self.observation_space, self.action_space)
        except ValueError as error:
            raise ValueError(
                f"env: expected the spaces {self.observation_space} and {self.action_space}, got "
                f"{wrapped.observation_space} and {wrapped.action_space}"
            ) from error
        if force_reset:
            self._last_obs = None
        self.env, self.n_envs = wrapped, wrapped.num_envs

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
        :param kwargs: of the constructor: ``verbose``, ``seed`` or hyper-parameters of the phases to come, for example.
        :raises ValueError: a damaged file, another agent's file, or an environment with other spaces.
        """
        document, tensors = read_agent_file(path)
        if document["class"] != cls.__name__:
            raise ValueError(f"path: expected a file of {cls.__name__}, got one of {document['class']} in {path}")
        fixed = {"preset", "policy_kwargs"} & set(kwargs)
        if fixed:
            raise ValueError(f"{fixed.pop()}: expected none in load, since the file says what the agent is")
        agent = cls(None, device=device, **(document["config"] | kwargs))
        try:
            for name in _SAVED_ATTRIBUTES:
                setattr(agent, name, kwargs.get(name, document["attributes"][name]))
            agent.observation_space = deserialize_space(document["observation_space"])
            agent.action_space = deserialize_space(document["action_space"])
            agent._setup_model()
            if "seed" not in kwargs:
                agent.generator.set_state(tensors[_GENERATOR])
            parameters: dict[str, Any] = {name: {} for name in agent._get_torch_save_params()[0]}
            for key in tensors.keys() - {_GENERATOR}:
                module, _, name = key.partition("/")
                parameters[module][name] = tensors[key]
            agent.set_parameters(parameters, exact_match=True, device=agent.device)
        except (KeyError, TypeError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"path: expected an agent's file, got {path} ({type(error).__name__}: {error})") from error
        if env is not None:
            agent.set_env(env)
        return agent
