"""What every agent is: an SB3 algorithm with two more verbs, ``pretrain`` and ``imitate``."""

from __future__ import annotations

import functools
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import check_for_correct_spaces, get_device
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor, nn

from aime_gym.agents.environments import check_envs_agree, record_play, rendering_of_envs, shown_frames
from aime_gym.agents.files import agent_document, check_policy_kwargs, load_agent_file, read_agent_document
from aime_gym.agents.phases import run_phase
from aime_gym.config import check_number, check_seed, nearest_names
from aime_gym.data import (
    ActionEncoding,
    ObservationEncoding,
    TrajectoryDataset,
    check_trajectories,
    load_trajectories,
)
from aime_gym.data.validation import Spread, spreads, warn_of_other_units
from aime_gym.serialization import Source, write_archive
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.predict import predict_as_sb3
from aime_gym.training.rollouts import collect_episodes, wrap_env
from aime_gym.training.rounds import Rounds
from aime_gym.types import Array, Observation, Trajectories, Trajectory, is_image

_POLICIES = ("MlpPolicy", "MultiInputPolicy")


class ImitationAgent(BaseAlgorithm):
    """Base of all agents, with SB3's constructor, ``predict``, ``learn``, ``save`` and ``load``.

    Both ``Agent(env)`` and SB3's ``Agent("MlpPolicy", env)`` are fine.

    :param env: Gymnasium environment, SB3 ``VecEnv``, or the id of a registered environment.
    :param preset: named set of hyper-parameters; see ``presets``.
    :param demonstrations: default of ``imitate``.
    :param play: default of ``pretrain``.
    :param play_timesteps: least number of environment steps of random play that an agent collects, in whole episodes,
        when it needs play and got none.
    :param policy: ``"MlpPolicy"`` or ``"MultiInputPolicy"``; the networks follow the observation space either way.
    :param policy_kwargs: ``hidden`` (width) and ``layers`` of the policy network.
    :param checkpoint_dir: folder that keeps how far each phase came. The same script, run again, goes on from there,
        and ends with the same agent, to the last bit, as one that was never stopped. Ctrl-C and SIGTERM write a last
        checkpoint and then do what they do elsewhere; without the folder, Ctrl-C ends a phase and keeps what it learnt.
    :param checkpoint_interval: updates between two checkpoints.
    :param hyper_parameters: fields of the agent's configuration, over the preset's values.
    :raises ValueError: an unknown preset, policy or hyper-parameter; an environment that normalises observations.
    """

    #: Named configurations, frozen dataclasses of JSON values.
    presets: ClassVar[Mapping[str, Any]]
    #: Whether ``imitate`` stands on ``pretrain``.
    needs_play: ClassVar[bool]
    #: Whether ``imitate`` reads the demonstrations' actions: for oracles only.
    needs_demonstration_actions: ClassVar[bool] = False
    #: Whether ``imitate`` takes environment steps, which callbacks then count, and ``learn`` goes on with more of them.
    imitates_online: ClassVar[bool] = False
    #: Whether ``imitate`` takes none, and ``learn`` then improves the policy with some.
    improves_online: ClassVar[bool] = False
    #: Copies of its environment that it is best trained in, all in one process; scripts and the command line make them.
    default_n_envs: ClassVar[int] = 1

    config: Any
    policy: nn.Module  # type: ignore[assignment]

    def __init__(
        self,
        env_or_policy: GymEnv | str | None = None,
        env_after_policy: GymEnv | str | None = None,
        /,
        *,
        env: GymEnv | str | None = None,
        preset: str = "default",
        demonstrations: Any = None,
        play: Any = None,
        play_timesteps: int = 20_000,
        policy: str = "MlpPolicy",
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        checkpoint_dir: str | Path | None = None,
        checkpoint_interval: int = 500,
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
        self.config = self._configure(preset, hyper_parameters)
        if policy not in _POLICIES:
            raise ValueError(f"policy: expected {' or '.join(_POLICIES)}, got {policy!r}")
        check_policy_kwargs(policy_kwargs)
        check_number("play_timesteps", play_timesteps, 1, whole=True)
        check_number("checkpoint_interval", checkpoint_interval, 1, whole=True)
        seed = check_seed(seed)
        try:
            device = get_device(device)
        except RuntimeError as error:
            raise ValueError(f"device: expected 'auto', 'cpu' or 'cuda', got {device!r} ({error})") from error
        if checkpoint_dir is not None and self.imitates_online:
            raise NotImplementedError(
                f"checkpoint_dir: {type(self).__name__} imitates in its environment, and a phase of environment "
                f"steps cannot be resumed in this version; save the agent from a callback (CheckpointCallback) and "
                f"go on from its file with learn"
            )
        super().__init__(
            policy=nn.Module,  # type: ignore[arg-type]  # what acts is made in _setup_networks
            env=None,
            learning_rate=0.0,  # each phase has its own
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
        )
        self.demonstrations, self.play, self.play_timesteps = demonstrations, play, play_timesteps
        self.checkpoint_dir = Path(checkpoint_dir) if checkpoint_dir is not None else None
        self.checkpoint_interval = checkpoint_interval
        #: Which of the offline phases have run, and how many in all.
        self.pretrained = self.imitated = False
        self.num_phases = 0
        #: Whether the last of them was cut short, by Ctrl-C or by a callback.
        self.interrupted = False
        #: Gradient steps of the offline phases, of a discriminator in others; ``num_timesteps`` counts environment
        #: steps only.
        self.num_updates = 0
        #: What an agent with an online phase goes on with in ``learn``; no file holds it.
        self.imitated_demonstrations: list[Trajectory] | None = None
        self.pretrained_play: list[Trajectory] | None = None
        #: Of the play that this process has seen: demonstrations in other units are warned of.
        self._play_spreads: dict[str, Spread] = {}
        #: Whether the phase that runs, or ran last, takes environment steps.
        self.interacts = False
        #: What the phase that was stopped with a checkpoint started from.
        self.unfinished_start: str | None = None
        self.n_envs = 1
        if env is not None:
            wrapped = wrap_env(env, self.verbose)
            self._attach_env(wrapped)
            self.observation_space, self.action_space = wrapped.observation_space, wrapped.action_space
            if _init_setup_model:
                self._setup_model()

    @property
    def has_online_phase(self) -> bool:
        """Whether ``learn`` takes environment steps."""
        return self.imitates_online or self.improves_online

    @property
    def rendering(self) -> str | None:
        """The quality in which the environment draws images; ``None`` when unknown, or when it shows none.

        :raises ValueError: copies of several qualities.
        """
        return None if self.env is None else rendering_of_envs(self.env)

    @property
    def lacks_play(self) -> bool:
        """Whether ``imitate`` would first have to learn from play."""
        return self.needs_play and not self.pretrained

    @classmethod
    def _configure(cls, preset: str, hyper_parameters: dict[str, Any]) -> Any:
        if preset not in cls.presets:
            raise ValueError(f"preset: {cls.__name__} expects one of {sorted(cls.presets)}, got {preset!r}")
        known = [field.name for field in fields(cls.presets[preset])]
        for name in hyper_parameters:
            if name not in known:
                raise ValueError(f"{name}: unknown hyper-parameter of {cls.__name__}; {nearest_names(name, known)}")
        return replace(cls.presets[preset], **hyper_parameters)

    # Networks and randomness

    def _setup_model(self) -> None:
        self.observation_encoding = ObservationEncoding(self.observation_space)
        self.action_encoding = ActionEncoding(self.action_space)
        self.set_random_seed(self.seed)
        with self._initial_weights():
            self._setup_networks()
        for name in self._get_torch_save_params()[0]:
            getattr(self, name).to(self.device)

    @property
    def sensor_sizes(self) -> dict[str, int]:
        """Features of each sensor, for an agent that knows vectors only.

        :raises NotImplementedError: an image.
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
        #: The sources of all randomness, on the CPU whatever the device. Acting has its own, so that an evaluation in
        #: the middle of training changes nothing.
        self.generator = torch.Generator().manual_seed(training)
        self.acting_generator = torch.Generator().manual_seed(acting)

    @contextmanager
    def _initial_weights(self) -> Iterator[None]:
        """Make networks here: their weights follow the agent's generator, and the CPU's global one is left alone."""
        seed = torch.randint(2**31, (), generator=self.generator)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            yield

    def _noise(self, *shape: int, of: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, generator=of if of is not None else self.generator).to(self.device)

    def _integers(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self.generator).to(self.device)

    # The verbs

    def pretrain(
        self,
        play: Any = None,
        *,
        callback: MaybeCallback = None,
        tb_log_name: str = "pretrain",
        progress_bar: bool = True,
    ) -> Self:
        """Learn what the body can do, from trajectories with actions of any quality.

        :param play: whatever :func:`~aime_gym.data.load_trajectories` accepts; the constructor's unless given.
        :param callback: of SB3. Its steps are updates here: ``EvalCallback(env, eval_freq=500)`` evaluates every 500
            updates, and its ``num_timesteps`` is the agent's ``num_updates``. If it returns ``False``, the run of
            updates ends. See :class:`~aime_gym.training.callbacks.UpdateCallbacks`.
        :raises ValueError: data that is missing or does not fit the environment, or another run's checkpoint, before
            any training.
        """
        trajectories = self._trajectories(play, self.play, "play", need_actions=True, progress=progress_bar)
        self._run_pretrain(trajectories, callback, tb_log_name, progress_bar)
        return self

    def _run_pretrain(
        self,
        play: Trajectories | Callable[[], Trajectories],
        callback: MaybeCallback,
        tb_log_name: str,
        progress_bar: bool,
    ) -> None:
        def phase(trajectories: Trajectories, loop: TrainingLoop) -> None:
            self.num_timesteps += sum(map(len, trajectories)) if callable(play) else 0
            self.pretrained = True
            self._play_spreads = spreads(trajectories)
            if self.needs_play:  # a policy of before does not fit what is learnt now
                self.imitated = False
            self._pretrain(trajectories, loop)

        run_phase(self, "pretrain", phase, play, callback=callback, tb_log_name=tb_log_name, progress_bar=progress_bar)
        if self.improves_online:
            # Recorded again where a checkpoint has it all: the same trajectories.
            self.pretrained_play = list(play() if callable(play) else play)

    def imitate(
        self,
        demos: Any = None,
        total_timesteps: int | None = None,
        *,
        callback: MaybeCallback = None,
        tb_log_name: str = "imitate",
        progress_bar: bool = True,
    ) -> Self:
        """Turn demonstrations into a policy, a new one at each call; their actions are dropped at the door.

        (Oracles excepted.) Without ``pretrain``, an agent that needs play first learns from the constructor's, or from
        ``play_timesteps`` of random play in its own environment.

        :param demos: whatever :func:`~aime_gym.data.load_trajectories` accepts; the constructor's unless given.
        :param total_timesteps: environment steps, for agents that imitate in their environment; what their
            configuration says unless given.
        :param callback: of SB3, as in :meth:`pretrain`; where ``imitate`` takes environment steps it counts those.
        :raises ValueError: data that is missing or does not fit the environment, or another run's checkpoint, before
            any training; ``total_timesteps`` for an agent that takes no environment step.
        """
        return self._run_imitate(demos, total_timesteps, callback, tb_log_name, progress_bar)

    def _run_imitate(
        self,
        demos: Any,
        total_timesteps: int | None,
        callback: MaybeCallback,
        tb_log_name: str,
        progress_bar: bool,
        log_interval: int = 1,
    ) -> Self:
        if total_timesteps is not None and not self.imitates_online:
            raise ValueError(
                f"total_timesteps: expected None, since {type(self).__name__}.imitate takes no environment step, got "
                f"{total_timesteps}"
            )
        if total_timesteps is not None:
            total_timesteps = _whole_steps(total_timesteps, least=1)
        need_actions = self.needs_demonstration_actions
        trajectories = self._trajectories(
            demos, self.demonstrations, "demos", need_actions=need_actions, progress=progress_bar
        )
        self._require_env()
        if self.lacks_play:
            if self.play is not None:
                self.pretrain(callback=callback, progress_bar=progress_bar)
            else:
                record = functools.cache(lambda: self._record_play(progress_bar))
                self._run_pretrain(record, callback, "pretrain", progress_bar)

        def phase(trajectories: Trajectories, loop: TrainingLoop) -> None:
            self.imitated = True
            warn_of_other_units(trajectories, self._play_spreads, "demos")
            self._imitate(trajectories, loop)

        run_phase(
            self,
            "imitate",
            phase,
            trajectories,
            callback=callback,
            tb_log_name=tb_log_name,
            progress_bar=progress_bar,
            online=self.imitates_online,
            total_timesteps=total_timesteps,
            log_interval=log_interval,
        )
        self.imitated_demonstrations = trajectories if self.has_online_phase else None
        return self

    def infer_actions(self, demos: Any) -> list[Trajectory]:
        """The same demonstrations with the actions that the agent believes were taken.

        :raises ValueError: an agent that has learnt nothing yet.
        """
        self._require_setup()
        if not (self.pretrained if self.needs_play else self.imitated):
            verb = "pretrain" if self.needs_play else "imitate"
            raise ValueError(f"infer_actions: {type(self).__name__} has learnt nothing yet; call {verb} first")
        dataset = TrajectoryDataset(self._trajectories(demos, None, "demos", need_actions=False), None, self.device)
        with torch.no_grad():
            inferred = dataset.per_trajectory(self._infer_actions(dataset))
        return [
            trajectory.with_actions(self.action_encoding.decode(prev_actions[1:].cpu().numpy()))
            for trajectory, prev_actions in zip(dataset.trajectories, inferred, strict=True)
        ]

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Run whichever phase has data but has not run, then interact for some environment steps.

        An agent that imitates in its environment spends ``total_timesteps`` on that: on a new policy first, in further
        calls on the one that it has, with the demonstrations of before. An agent with ``improves_online`` imitates
        offline, and spends them on improving the policy. An agent without either has no online phase, so ``learn(0)``
        is what it can do: it trains on the data that the constructor was given. ``learn(0)`` of all is what the verbs
        do.

        :param total_timesteps: environment steps, in whole rounds of the algorithm that takes them.
        :param callback: of SB3, as in :meth:`imitate`; while the agent interacts it counts environment steps.
        :param log_interval: rounds of interaction between two entries in the log.
        :param reset_num_timesteps: whether ``num_timesteps`` starts again at zero.
        :raises NotImplementedError: a positive ``total_timesteps`` without an online phase, before any training.
        :raises ValueError: no data, and nothing learnt before; no environment to interact with, or copies of it that
            disagree.
        """
        total_timesteps = _whole_steps(total_timesteps, least=0)
        if total_timesteps > 0 and not self.has_online_phase:
            raise NotImplementedError(
                f"{type(self).__name__}.learn: there is no online phase; use imitate(demos), which needs no "
                f"environment step, or learn(0) with demonstrations= in the constructor"
            )
        pending, demos = not self.imitated, None
        if pending or total_timesteps > 0:  # before hours of pretrain
            demos = self._trajectories(
                None if pending else self.imitated_demonstrations,
                self.demonstrations,
                "demonstrations",
                need_actions=self.needs_demonstration_actions,
                progress=progress_bar,
            )
            self._require_env(interacts=total_timesteps > 0)
        if demos is not None and total_timesteps > 0:
            self._check_learn(demos)
        if reset_num_timesteps:
            self.num_timesteps = 0
        if self.play is not None and not self.pretrained:
            self.pretrain(callback=callback, tb_log_name=f"{tb_log_name}_pretrain", progress_bar=progress_bar)
        if pending:
            steps = total_timesteps or None if self.imitates_online else None
            self._run_imitate(demos, steps, callback, f"{tb_log_name}_imitate", progress_bar, log_interval)
        if demos is not None and total_timesteps > 0 and not (pending and self.imitates_online):
            if self.ep_info_buffer is None or reset_num_timesteps:
                self.ep_info_buffer = deque(maxlen=self._stats_window_size)
                self.ep_success_buffer = deque(maxlen=self._stats_window_size)
            if self.improves_online and self.pretrained_play is None and self.play is not None:
                self.pretrained_play = self._trajectories(None, self.play, "play", need_actions=True)
            run_phase(
                self,
                "learn",
                self._learn,
                demos,
                callback=callback,
                tb_log_name=tb_log_name,
                progress_bar=progress_bar,
                online=True,
                total_timesteps=total_timesteps,
                log_interval=log_interval,
                also_from=self.pretrained_play or (),
            )
        return self

    @abstractmethod
    def _setup_networks(self) -> None:
        """Make every module that ``_get_torch_save_params`` names."""

    @abstractmethod
    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None: ...

    @abstractmethod
    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        """Make a policy: updates in ``loop.run``; or, with ``imitates_online``, environment steps, as ``loop`` says."""

    def _check_learn(self, demos: Trajectories) -> None:
        """Find what would stop :meth:`_learn`, before any training.

        :raises ValueError: by the name of an argument.
        """

    def _learn(self, demos: Trajectories, loop: TrainingLoop) -> None:
        """Interact for ``loop.total_timesteps``; of agents with an online phase."""
        raise NotImplementedError(f"{type(self).__name__}._learn: an agent with an online phase has to define it")

    @abstractmethod
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """Encoded previous actions (N, A) of every record; those of first records are not read."""

    def _collect_round_episodes(self, rounds: Rounds, steps: int) -> list[Trajectory]:
        """Whole episodes of a round, at least so many steps, seen by SB3's window of episodes and by callbacks."""
        assert self.env is not None

        def step(local_values: dict[str, Any]) -> bool:
            self._update_info_buffer(local_values["infos"], local_values["dones"])
            return rounds.step(self.n_envs, local_values)

        seed = int(torch.randint(2**31 - 1, (), generator=self.generator))
        episodes = collect_episodes(self.env, self._sample_actions, steps=steps, seed=seed, on_step=step)
        if not rounds.stopped:
            rounds.collected({})
        return episodes

    def _trajectories(
        self, given: Any, default: Any, argument: str, *, need_actions: bool, progress: bool = False
    ) -> list[Trajectory]:
        self._require_setup()
        source = given if given is not None else default
        if source is None:
            raise ValueError(f"{argument}: expected trajectories, got None")
        loaded = self._load(source, argument, actions=need_actions, progress=progress)
        return self._checked(loaded, argument, need_actions=need_actions)

    def _checked(self, trajectories: list[Trajectory], argument: str, *, need_actions: bool) -> list[Trajectory]:
        return check_trajectories(
            trajectories,
            argument=argument,
            observation_space=self.observation_space,
            action_space=self.action_space,
            need_actions=need_actions,
            rendering=self.rendering,
        )

    def _load(self, source: Any, argument: str, *, actions: bool, progress: bool = False) -> list[Trajectory]:
        """Load data as :func:`load_trajectories` does, videos as this agent's environment shows them."""
        return load_trajectories(
            source,
            actions=actions,
            argument=argument,
            progress=progress,
            **shown_frames(self.env, self.observation_space),
        )

    def _record_play(self, progress_bar: bool) -> list[Trajectory]:
        """The same trajectories for the same seed."""
        message = f"{type(self).__name__}: no play data given, collecting {self.play_timesteps} steps of random play"
        warnings.warn(message, stacklevel=5)
        seed = self.generator.initial_seed() % 2**31
        play, interrupted = record_play(self.env, self.play_timesteps, seed=seed, progress=progress_bar)
        # With checkpoints, the next attempt records all of it.
        if interrupted and (self.checkpoint_dir is not None or not play):
            raise KeyboardInterrupt
        return self._checked(play, "play", need_actions=True)

    # Acting

    def predict(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | bool | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """The action for an observation, as SB3's recurrent policies give it.

        :param observation: one observation, or a batch (n_envs, ...).
        :param state: what the last call returned; ``None`` starts an episode in every environment.
        :param episode_start: (n_envs,) bool; rows to start anew. One bool will do for one observation.
        :return: action(s), and the state: arrays with leading dimension ``n_envs``.
        :raises ValueError: an observation, state or ``episode_start`` of another shape.
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
        """Sampled actions for all copies, as :meth:`predict` gives them, by the generator of training."""
        actions, after, _ = self._select_actions(observation, state, episode_start, self.generator)
        return actions, after

    def _select_actions(
        self,
        observation: Observation,
        state: tuple[Array, ...] | None,
        episode_start: Array | bool | None,
        generator: torch.Generator | None,
    ) -> tuple[Array, tuple[Array, ...], bool]:
        """Actions and states, and whether the observations came as a batch."""
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
        """The state before the first observation of an episode, (n_envs, ...) each; ``observation`` may matter."""

    @abstractmethod
    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encoded actions (n_envs, A) and the next state; sampled from the generator, or the most likely ones."""

    # Environment and files

    def _attach_env(self, env: VecEnv) -> None:
        self.env, self.n_envs, self._vec_normalize_env = env, env.num_envs, unwrap_vec_normalize(env)

    def _require_env(self, *, interacts: bool = False) -> None:
        if not (self.imitates_online or interacts):
            return
        if self.env is None:
            verb = "imitate" if self.imitates_online else "learn"
            raise ValueError(f"env: expected {type(self).__name__} to have one to {verb} in, got None; call set_env")
        check_envs_agree(self.env)

    def _require_setup(self) -> None:
        if not hasattr(self, "action_encoding"):
            raise ValueError(f"env: expected {type(self).__name__} to have one, got None; call set_env first")

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Go on with another environment of the same spaces, with any number of copies.

        :raises ValueError: other spaces, or an environment that normalises observations.
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
        if force_reset:
            self._last_obs = None
        self._attach_env(wrapped)

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Weights of each module by name."""
        self._require_setup()
        parameters: dict[str, dict[str, Any]] = super().get_parameters()
        return parameters

    def set_parameters(
        self,
        load_path_or_dict: Source | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Take the weights of another agent of the same class: of its file, or of its ``get_parameters()``.

        :param exact_match: whether every module has to be there.
        :raises ValueError: other modules or tensors, or a file of another agent.
        """
        self._require_setup()
        given = load_path_or_dict
        parameters = given if isinstance(given, dict) else read_agent_document(type(self), given)["parameters"]
        own = self.get_parameters()
        # All of it is checked before any of it is taken: None stands for what is not there.
        if not parameters.keys() <= own.keys() or (exact_match and parameters.keys() != own.keys()):
            raise ValueError(f"parameters: expected the modules {sorted(own)}, got {sorted(parameters)}")
        for module, state in parameters.items():
            expected, came = (
                {name: tuple(getattr(value, "shape", ())) for name, value in part.items()}
                for part in (own[module], state)
            )
            compared = expected.keys() | came.keys() if exact_match else expected.keys() & came.keys()
            for name in sorted(compared):
                if expected.get(name) != came.get(name):
                    raise ValueError(
                        f"parameters: expected {name} of {module} with shape {expected.get(name)}, got {came.get(name)}"
                    )
        super().set_parameters(parameters, exact_match=exact_match, device=device)

    def dump_logs(self) -> None:
        """Write the log entry so far, at what a callback's clock shows; for SB3's ``LogEveryNTimesteps``."""
        self.logger.dump(step=self.num_timesteps if self.interacts else self.num_updates)

    def _training_state(self) -> dict[str, Any]:
        """JSON values and tensors that ``learn`` goes on with, beside the parameters: moments of an optimizer."""
        return {}

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""

    @abstractmethod
    def _get_torch_save_params(self) -> tuple[list[str], list[str]]: ...

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

        :param env: environment to go on with; acting needs none.
        :param custom_objects: accepted for SB3's scripts, which replace pickled objects by it: here are none.
        :param print_system_info: of this process, and of the one that wrote the file.
        :param kwargs: of the constructor: ``verbose``, ``seed`` or hyper-parameters of the phases to come, for example.
        :raises FileNotFoundError: no such file.
        :raises ValueError: a damaged file, another agent's file, or an environment with other spaces.
        """
        agent = load_agent_file(cls, path, device, print_system_info, kwargs)
        if env is not None:
            agent.set_env(env, force_reset=force_reset)
            if "seed" in kwargs:
                agent.set_random_seed(kwargs["seed"])
        return agent


def _whole_steps(steps: Any, least: int) -> int:
    """A number of environment steps; 1e5 is one too, as for SB3."""
    if isinstance(steps, float) and steps.is_integer():
        steps = int(steps)
    check_number("total_timesteps", steps, least, whole=True)
    return int(steps)
