"""The part of an agent that any learner with named networks has: it acts, and is saved and loaded, as SB3's do."""

from __future__ import annotations

import functools
import operator
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import HumanOutputFormat
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces, configure_logger, get_device
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor, nn

from aime_gym.agents.environments import task_of_envs
from aime_gym.agents.files import (
    ValueChecks,
    agent_document,
    check_count,
    check_policy_kwargs,
    load_agent_file,
    read_agent_document,
    restore,
)
from aime_gym.config import check_number, check_seed, constructor_signature, preset_config
from aime_gym.data import ActionEncoding, ObservationEncoding
from aime_gym.models.parameters import check_parameters
from aime_gym.models.pretrained import imported_world_model
from aime_gym.serialization import Source, write_archive
from aime_gym.tasks import KnownTask
from aime_gym.training.data_parallel import select_gpu
from aime_gym.training.phase import PhaseData
from aime_gym.training.predict import predict_as_sb3
from aime_gym.training.rollouts import wrap_env
from aime_gym.types import Array, Observation, is_image

_POLICIES = ("MlpPolicy", "MultiInputPolicy")
#: Letters of a key in the log on the screen. SB3 cuts after 36, and fails where two keys are the same by then.
_LONGEST_KEY = 2**16


class Agent(BaseAlgorithm):
    """Base of all that learns and acts here, with SB3's constructor, ``predict``, ``save`` and ``load``.

    A subclass makes its networks in ``_setup_networks``, names them in ``_get_torch_save_params``, and acts in
    ``_initial_state`` and ``_act``. Both ``Agent(env)`` and SB3's ``Agent("MlpPolicy", env)`` are fine.

    :param env: Gymnasium environment, SB3 ``VecEnv``, or an id: ``"walker-run"`` as [`aime_gym.make_env`][] makes it
        without options, ``"CartPole-v1"`` as ``gymnasium.make`` does.
    :param preset: named set of hyper-parameters; see ``presets``.
    :param policy: ``"MlpPolicy"`` or ``"MultiInputPolicy"``; the networks follow the observation space either way.
    :param policy_kwargs: ``hidden`` (width) and ``layers`` of the policy network.
    :param hyper_parameters: fields of the agent's configuration, over the preset's values. Of an agent with one,
        ``world_model`` may also be the path of a file that `AIMEAgent.save_world_model` wrote: its configuration then
        replaces that of the preset. Its sensors and actions have to be those of the environment.
    :raises ValueError: an unknown preset, policy, hyper-parameter or device; an environment that normalises
        observations.
    """

    #: Named configurations, frozen dataclasses of JSON values.
    presets: ClassVar[Mapping[str, Any]]
    #: Plain values that a file keeps, each with the check that it has to pass when it is read.
    saved_attributes: ClassVar[ValueChecks] = {
        "seed": lambda name, value: check_seed(value),
        "policy_kwargs": check_policy_kwargs,
        "num_phases": check_count,
        "num_updates": check_count,
        "num_timesteps": check_count,
    }

    config: Any
    policy: nn.Module  # type: ignore[assignment]
    checkpoint_dir: Path | None = None
    checkpoint_interval: int = 1

    def __init_subclass__(cls, **options: Any) -> None:
        """Show notebooks and ``help`` the keywords that the constructor hands on."""
        super().__init_subclass__(**options)
        if hasattr(cls, "presets"):
            bases = [base for base in reversed(cls.__mro__) if issubclass(base, Agent) and "__init__" in vars(base)]
            cls.__signature__ = constructor_signature(bases, cls.presets["default"])  # type: ignore[attr-defined]

    def __init__(
        self,
        env_or_policy: GymEnv | str | None = None,
        env_after_policy: GymEnv | str | None = None,
        /,
        *,
        env: GymEnv | str | None = None,
        preset: str = "default",
        policy: str = "MlpPolicy",
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **hyper_parameters: Any,
    ) -> None:
        if env_after_policy is not None or (isinstance(env_or_policy, str) and env_or_policy.endswith("Policy")):
            policy, env_or_policy = env_or_policy, env_after_policy  # type: ignore[assignment]  # checked below
        if env is not None and env_or_policy is not None:
            raise ValueError("env: expected one environment, got one by position and one by name")
        env = env if env is not None else env_or_policy
        #: World model of a file, unless it is to be learnt.
        self.imported = imported_world_model(hyper_parameters, self.presets["default"])
        self.config = preset_config(type(self).__name__, self.presets, preset, hyper_parameters)
        if policy not in _POLICIES:
            raise ValueError(f"policy: expected {' or '.join(_POLICIES)}, got {policy!r}")
        check_policy_kwargs("policy_kwargs", policy_kwargs)
        seed = check_seed(seed)
        select_gpu()
        try:
            device = get_device(device)
        except RuntimeError as error:
            raise ValueError(f"device: expected 'auto', 'cpu' or 'cuda', got {device!r} ({error})") from error
        super().__init__(
            policy=nn.Module,  # type: ignore[arg-type]  # the networks are made in _setup_networks
            env=None,
            learning_rate=0.0,  # each phase has its own
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
        )
        #: Number of gradient steps, while ``num_timesteps`` counts environment steps; of agents that learn a reward,
        #: the reward's.
        self.num_updates = 0
        #: Number of phases that have run.
        self.num_phases = 0
        #: Whether the last of them was cut short, by Ctrl-C or by a callback.
        self.interrupted = False
        #: Whether the phase that runs, or ran last, takes environment steps.
        self.interacts = False
        self.n_envs = 1
        #: Task of the environment, or of the one that the agent's file was trained in; ``None`` when unknown.
        self.known_task: KnownTask | None = None
        if env is not None:
            wrapped = wrap_env(env, self.verbose)
            self._attach_env(wrapped)
            self.observation_space = wrapped.observation_space
            self.action_space = wrapped.action_space
            if _init_setup_model:
                self._setup_model()

    # Networks and randomness

    def _setup_model(self) -> None:
        self.observation_encoding = ObservationEncoding(self.observation_space)
        self.action_encoding = ActionEncoding(self.action_space)
        self.set_random_seed(self.seed)
        with self._initial_weights():
            self._setup_networks()
        for name in self._get_torch_save_params()[0]:
            operator.attrgetter(name)(self).to(self.device)

    @abstractmethod
    def _setup_networks(self) -> None:
        """Make every module that ``_get_torch_save_params`` names."""

    @abstractmethod
    def _get_torch_save_params(self) -> tuple[list[str], list[str]]: ...

    @property
    def sensor_sizes(self) -> dict[str, int]:
        """Number of features of each sensor, for an agent that takes vectors only.

        :raises NotImplementedError: a sensor that is an image.
        """
        for name, shape in self.observation_encoding.shapes.items():
            if is_image(shape):
                raise NotImplementedError(
                    f"observation_space: {type(self).__name__} learns from vectors, {name!r} is an image {shape}; make "
                    f"the environment with modality='state' or 'position'"
                )
        return {name: shape[0] for name, shape in self.observation_encoding.shapes.items()}

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed this agent and its environment.

        :raises ValueError: anything but ``None`` and a whole number of at most 32 bits.
        """
        seed = check_seed(seed)
        super().set_random_seed(seed)
        self.seed = seed
        training, acting = (int(word) for word in np.random.SeedSequence(seed).generate_state(2))
        #: Sources of all randomness, on the CPU whatever the device. Acting has its own, so that an evaluation in the
        #: middle of training changes nothing.
        self.generator = torch.Generator().manual_seed(training)
        self.acting_generator = torch.Generator().manual_seed(acting)

    @contextmanager
    def _initial_weights(self) -> Iterator[None]:
        """Draw initial weights by the agent's generator in a ``with`` block, and leave the CPU's global one alone."""
        seed = torch.randint(2**31, (), generator=self.generator)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            yield

    def _noise(self, *shape: int, of: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, generator=of if of is not None else self.generator).to(self.device)

    def _integers(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self.generator).to(self.device)

    # Phases, as ``PhaseAgent`` has them

    def start_log(self, tb_log_name: str, *, resumed: bool) -> None:
        """Make a logger for a phase, unless the user has set one."""
        if not self._custom_logger:
            self._logger = configure_logger(
                self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps=not resumed
            )
        for output in self.logger.output_formats:
            if isinstance(output, HumanOutputFormat):
                output.max_length = _LONGEST_KEY

    def checkpoint_identity(self, data: PhaseData) -> dict[str, Any]:
        """Return what has to agree for a checkpoint to be of the phase that starts, as JSON values."""
        raise NotImplementedError(f"checkpoint_dir: {type(self).__name__} keeps no checkpoints")

    def document(self) -> dict[str, Any]:
        """Return all that a file holds of the agent: JSON values and tensors."""
        return agent_document(self)

    def load_document(self, document: Mapping[str, Any]) -> None:
        """Make the agent what a document holds, of the same class, configuration and spaces."""
        restore(self, document)

    def end_phase(self, name: str, *, failed: bool) -> None:
        """Note that a phase has ended, or has failed and has to run again."""

    def _reset_episode_windows(self) -> None:
        """Start SB3's averages over the last episodes anew."""
        self.ep_info_buffer = deque(maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(maxlen=self._stats_window_size)

    # Acting

    def predict(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | bool | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Choose the action for an observation, as SB3's recurrent policies do.

        :param observation: one observation, or a batch (n_envs, ...).
        :param state: state that the last call returned; ``None`` starts an episode in every environment.
        :param episode_start: mask (n_envs,) of rows that start an episode, or one bool for one observation.
        :param deterministic: whether to choose the most likely action, rather than a sample.
        :return: action(s), and the state: arrays with leading dimension ``n_envs``.
        :raises ValueError: an observation, state or ``episode_start`` of another shape; an observation that is not
            finite.
        """
        self._require_setup()
        actions, after, batched = self._select_actions(
            observation, state, episode_start, None if deterministic else self.acting_generator
        )
        # Not actions[0], which would be a number instead of an array for a Discrete space.
        return (actions if batched else actions.squeeze(0)), after

    def _sample_actions(
        self, observation: Observation, state: Any, episode_start: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """Sample actions for all copies as [`predict`][] does, by the generator of training."""
        actions, after, _ = self._select_actions(observation, state, episode_start, self.generator)
        return actions, after

    def _select_actions(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None,
        episode_start: Array | bool | None,
        generator: torch.Generator | None,
    ) -> tuple[Array, tuple[Array, ...], bool]:
        """Choose actions, and return them with the states, and whether the observations came as a batch."""
        return predict_as_sb3(
            self.observation_encoding,
            self.action_encoding,
            self._initial_state,
            functools.partial(self._act, generator=generator),
            observation,
            state,
            episode_start,
            self.device,
        )

    @abstractmethod
    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the state (n_envs, ...) before the first observation of an episode, which may depend on it."""

    @abstractmethod
    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return encoded actions (n_envs, A) and the next state.

        :param observation: encoded observations (n_envs, ...) of each sensor.
        :param state: state before this observation.
        :param generator: source of samples; ``None`` chooses the most likely actions.
        """

    # Environment and files

    def _attach_env(self, env: VecEnv) -> None:
        self.env = env
        self.known_task = task_of_envs(env)
        self.n_envs = env.num_envs
        self._vec_normalize_env = unwrap_vec_normalize(env)

    def _require_setup(self) -> None:
        if not hasattr(self, "action_encoding"):
            raise ValueError(f"env: expected {type(self).__name__} to have one, got None; call set_env first")

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Replace the environment by one of the same spaces, with any number of copies.

        :param env: Gymnasium environment, SB3 ``VecEnv``, or the id of a registered environment.
        :param force_reset: whether SB3 forgets its last observation.

        :raises ValueError: other spaces, an environment that normalises observations, or one that is known to observe
            or act otherwise, by its ``action_repeat`` for example.
        """
        wrapped = wrap_env(env, self.verbose)
        if not hasattr(self, "action_encoding"):  # made without an environment
            self.observation_space, self.action_space = wrapped.observation_space, wrapped.action_space
            self._attach_env(wrapped)
            self._setup_model()
            return
        try:
            check_for_correct_spaces(wrapped, self.observation_space, self.action_space)
        except ValueError as error:
            raise ValueError(
                f"env: expected the spaces {self.observation_space} and {self.action_space}, got "
                f"{wrapped.observation_space} and {wrapped.action_space}"
            ) from error
        task = task_of_envs(wrapped)
        if self.known_task is not None and task is not None:
            self.known_task.check_view(task)
        if force_reset:
            self._last_obs = None
        self._attach_env(wrapped)

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Return the weights of each module by name."""
        self._require_setup()
        parameters: dict[str, dict[str, Any]] = super().get_parameters()
        return parameters

    def set_parameters(
        self,
        load_path_or_dict: Source | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Take over the weights of another agent of the same class, from its file or its ``get_parameters()``.

        :param load_path_or_dict: path of the file, or weights of each module by name.
        :param exact_match: whether every module has to be there.
        :raises ValueError: other modules or tensors, or a file of another agent.
        """
        self._require_setup()
        given = load_path_or_dict
        parameters = given if isinstance(given, dict) else read_agent_document(type(self), given)["parameters"]
        # All of it is checked before any of it is taken.
        check_parameters(parameters, self.get_parameters(), exact_match=exact_match)
        super().set_parameters(parameters, exact_match=exact_match, device=device)

    def dump_logs(self) -> None:
        """Write the log entry so far, at the step count that callbacks see; for SB3's ``LogEveryNTimesteps``."""
        self.logger.dump(step=self.num_timesteps if self.interacts else self.num_updates)

    def _training_state(self) -> dict[str, Any]:
        """Return what ``learn`` needs beside the parameters, such as moments: JSON values and tensors."""
        return {}

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``_training_state`` returned."""

    def save(  # type: ignore[override]
        self,
        path: Source,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write the agent to a file of JSON and tensors; data, environment and logger stay behind.

        :raises ValueError: ``exclude`` or ``include``, which SB3 has for its pickles.
        """
        if exclude or include:
            raise ValueError("exclude, include: expected None; an agent's file has a fixed content")
        self._require_setup()
        write_archive(path, agent_document(self))

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: Source,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Make an agent from a file; no code of the file is run.

        :param env: environment for further training; acting needs none.
        :param custom_objects: accepted for SB3's scripts, which replace pickled objects by it: here are none.
        :param print_system_info: whether to print the systems of this process and of the one that wrote the file.
        :param kwargs: arguments of the constructor that differ from the file, such as ``verbose``, ``seed`` or
            hyper-parameters of later phases. ``world_model`` is the file of a world model, to start from it in place of
            the agent's own; its policy, which does not fit that, is left behind.
        :raises FileNotFoundError: no such file.
        :raises ValueError: a damaged file, another agent's file, or an environment with other spaces.
        """
        imported = imported_world_model(kwargs, cls.presets["default"])
        if imported is not None:
            del kwargs["world_model"]
        agent = load_agent_file(cls, path, device, print_system_info, kwargs)
        if imported is not None:
            agent.imported = imported
            agent.config = replace(agent.config, world_model=imported.config)
            agent._setup_model()
        if env is not None:
            agent.set_env(env, force_reset=force_reset)
            if "seed" in kwargs:
                agent.set_random_seed(kwargs["seed"])
        return agent


def whole_timesteps(steps: Any, least: int) -> int:
    """Return a number of environment steps, which may be a float such as 1e5, as for SB3.

    :param least: least number.
    :raises ValueError: something else, or a lower number.
    """
    if isinstance(steps, float) and steps.is_integer():
        steps = int(steps)
    check_number("total_timesteps", steps, least, whole=True)
    return int(steps)
