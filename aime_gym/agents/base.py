"""The base of all imitation agents: two more verbs than SB3's algorithms have, ``pretrain`` and ``imitate``."""

from __future__ import annotations

import functools
import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor, nn

from aime_gym.agents.agent import Agent, whole_timesteps
from aime_gym.agents.environments import check_envs_agree, record_play, rendering_of_envs, shown_frames
from aime_gym.agents.files import ValueChecks, check_count, check_flag, description
from aime_gym.config import check_number
from aime_gym.data import TrajectoryDataset, check_trajectories, load_trajectories
from aime_gym.data.coverage import sample_records, warn_of_outside
from aime_gym.data.validation import Spread, spreads, warn_of_other_units
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.world_model import WorldModel
from aime_gym.serialization import digest
from aime_gym.training.data_parallel import processes_of_torchrun
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.phase import PhaseData, digest_trajectories, run_phase
from aime_gym.types import Array, Trajectories, Trajectory


class ImitationAgent(Agent):
    """Base of all imitation agents; arguments that are not named here are those of [`Agent`][].

    :param demonstrations: default of ``imitate``.
    :param play: default of ``pretrain``.
    :param play_timesteps: least number of environment steps of random play that an agent collects, in whole episodes,
        when it needs play and got none.
    :param checkpoint_dir: folder that keeps how far each phase came. The same script, run again, resumes there, and
        ends with the same agent, to the last bit, as one that was never stopped. Ctrl-C and SIGTERM write a last
        checkpoint and then do what they do elsewhere; without the folder, Ctrl-C ends a phase and keeps what it learnt.
    :param checkpoint_interval: number of updates between two checkpoints, and at least a whole episode of each copy
        where ``imitate`` interacts: such an agent's environment is reset at each checkpoint, and the end of the phase
        depends on where that is. Updates are those of the reward, or of the policy if the reward was fitted in advance.
    """

    #: Whether ``imitate`` stands on ``pretrain``.
    needs_play: ClassVar[bool]
    #: Whether ``imitate`` always reads the demonstrations' actions: for oracles only; see [`reads_actions`][].
    needs_demonstration_actions: ClassVar[bool] = False
    #: Whether ``imitate`` takes environment steps, which callbacks then count, and ``learn`` continues with more.
    imitates_online: ClassVar[bool] = False
    #: Whether ``imitate`` takes none, and ``learn`` then improves the policy with some.
    improves_online: ClassVar[bool] = False
    #: Number of copies of its environment that it is best trained in, all in one process; scripts and the command line
    #: make them.
    default_n_envs: ClassVar[int] = 1

    #: Whether processes that ``torchrun`` starts can share the updates of ``pretrain``.
    divides_pretraining: ClassVar[bool] = False

    policy: nn.Module
    saved_attributes: ClassVar[ValueChecks] = {
        **Agent.saved_attributes,
        "play_timesteps": check_count,
        "pretrained": check_flag,
        "imitated": check_flag,
    }

    def __init__(
        self,
        *args: Any,
        demonstrations: Any = None,
        play: Any = None,
        play_timesteps: int = 20_000,
        checkpoint_dir: str | Path | None = None,
        checkpoint_interval: int = 500,
        **options: Any,
    ) -> None:
        check_number("play_timesteps", play_timesteps, 1, whole=True)
        check_number("checkpoint_interval", checkpoint_interval, 1, whole=True)
        self.demonstrations, self.play, self.play_timesteps = demonstrations, play, play_timesteps
        self.checkpoint_dir = Path(checkpoint_dir) if checkpoint_dir is not None else None
        self.checkpoint_interval = checkpoint_interval
        #: Flags of the offline phases that have run.
        self.pretrained = self.imitated = False
        #: Data that ``learn`` continues with, for an agent with an online phase; no file holds it.
        self.imitated_demonstrations: list[Trajectory] | None = None
        self.pretrained_play: list[Trajectory] | None = None
        #: Spreads and records of the play that this process has seen: demonstrations that differ are warned of.
        self._play_spreads: dict[str, Spread] = {}
        self._play_records: list[Array] = []
        #: Digest of the weights from which the phase started that was stopped with a checkpoint.
        self.starting_digest: str | None = None
        super().__init__(*args, **options)

    @classmethod
    def reads_actions(cls, config: Any) -> bool:
        """Return whether ``imitate`` reads the demonstrations' actions under a configuration."""
        return cls.needs_demonstration_actions

    @property
    def has_online_phase(self) -> bool:
        """Whether ``learn`` takes environment steps."""
        return self.imitates_online or self.improves_online

    @property
    def rendering(self) -> str | None:
        """Quality in which the environment draws images; ``None`` when unknown, or when it shows none.

        :raises ValueError: copies of several qualities.
        """
        return None if self.env is None else rendering_of_envs(self.env)

    @property
    def must_pretrain(self) -> bool:
        """Whether ``imitate`` would first have to learn from play."""
        return self.needs_play and not self.pretrained

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

        :param play: trajectories, as anything that [`load_trajectories`][] accepts; the constructor's
            unless given.
        :param callback: callback of SB3. Its steps are updates here: ``EvalCallback(env, eval_freq=500)`` evaluates
            every 500 updates, and its ``num_timesteps`` is the agent's ``num_updates``. If it returns ``False``, the
            run of updates ends. See [`aime_gym.training.callbacks.UpdateCallbacks`][].
        :param tb_log_name: name of the run in TensorBoard.
        :param progress_bar: whether to show one.
        :raises ValueError: data that is missing or does not fit the environment, or another run's checkpoint, before
            any training.
        """
        trajectories = self._trajectories(play, self.play, "play", need_actions=True, progress=progress_bar)
        self._run_pretrain(trajectories, callback, tb_log_name, progress_bar)
        return self

    def _run_pretrain(self, play: PhaseData, callback: MaybeCallback, tb_log_name: str, progress_bar: bool) -> None:
        def train(trajectories: Trajectories, loop: TrainingLoop) -> None:
            self.num_timesteps += sum(map(len, trajectories)) if callable(play) else 0
            self.pretrained = True
            self._play_spreads = spreads(trajectories)
            self._play_records = sample_records(trajectories) if self.needs_play else []
            if self.needs_play:  # an earlier policy does not fit what is learnt now
                self.imitated = False
            self._pretrain(trajectories, loop)

        run_phase(
            self,
            "pretrain",
            train,
            play,
            callback=callback,
            tb_log_name=tb_log_name,
            progress_bar=progress_bar,
            divided=self.divides_pretraining,
        )
        if self.improves_online:
            # Where a checkpoint holds the whole phase, random play is recorded anew: the same trajectories.
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
        """Turn demonstrations into a policy, a new one at each call.

        Their actions are dropped when they are loaded, but for oracles. Without ``pretrain``, an agent that needs play
        first learns from the constructor's, or from ``play_timesteps`` of random play in its own environment.

        :param demos: trajectories, as anything that [`load_trajectories`][] accepts; the constructor's
            unless given.
        :param total_timesteps: budget of environment steps, for agents that imitate in their environment; their
            configuration's unless given.
        :param callback: callback of SB3, as in [`pretrain`][]; where ``imitate`` takes environment steps it counts
            those.
        :param tb_log_name: name of the run in TensorBoard.
        :param progress_bar: whether to show one.
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
        processes_of_torchrun("imitate", divided=False)  # before hours of pretrain
        if total_timesteps is not None and not self.imitates_online:
            raise ValueError(
                f"total_timesteps: expected None, since {type(self).__name__}.imitate takes no environment step, got "
                f"{total_timesteps}"
            )
        if total_timesteps is not None:
            total_timesteps = whole_timesteps(total_timesteps, least=1)
        need_actions = self.reads_actions(self.config)
        trajectories = self._trajectories(
            demos, self.demonstrations, "demos", need_actions=need_actions, progress=progress_bar
        )
        self._require_env()
        if self.must_pretrain:
            if self.play is not None:
                self.pretrain(callback=callback, progress_bar=progress_bar)
            else:
                record = functools.cache(lambda: self._record_play(progress_bar))
                self._run_pretrain(record, callback, "pretrain", progress_bar)

        def train(trajectories: Trajectories, loop: TrainingLoop) -> None:
            self.imitated = True
            warn_of_other_units(trajectories, self._play_spreads, "demos")
            warn_of_outside(trajectories, self._play_records, "demos")
            self._imitate(trajectories, loop)

        if self.imitates_online:
            self._reset_episode_windows()
        run_phase(
            self,
            "imitate",
            train,
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
        """Return the same demonstrations with the actions that the agent believes were taken.

        :param demos: trajectories, as anything that [`load_trajectories`][] accepts.
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
        calls on the one that it has, with the same demonstrations. An agent with ``improves_online`` imitates offline,
        and spends them on improving the policy. An agent with neither has no online phase, and takes ``learn(0)`` only:
        it trains on the data that the constructor was given. For every agent, ``learn(0)`` does what ``pretrain`` and
        ``imitate`` do.

        :param total_timesteps: budget of environment steps, rounded up to whole rounds of the agent.
        :param callback: callback of SB3, as in [`imitate`][]; while the agent interacts it counts environment steps.
        :param log_interval: number of rounds between two entries in the log.
        :param tb_log_name: name of the run in TensorBoard.
        :param reset_num_timesteps: whether ``num_timesteps`` starts again at zero.
        :param progress_bar: whether to show one.
        :raises NotImplementedError: a positive ``total_timesteps`` without an online phase, before any training.
        :raises ValueError: no data, and nothing learnt before; no environment to interact with, or copies of it that
            disagree.
        """
        processes_of_torchrun("learn", divided=False)
        total_timesteps = whole_timesteps(total_timesteps, least=0)
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
                need_actions=self.reads_actions(self.config),
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
                self._reset_episode_windows()
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
                other_data=self.pretrained_play or (),
            )
        return self

    # The part of a subclass

    @abstractmethod
    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        """Learn from play, by updates in ``loop.run``."""

    @abstractmethod
    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        """Make a policy, by updates in ``loop.run``; with ``imitates_online``, by environment steps in ``Rollouts``."""

    def _check_learn(self, demos: Trajectories) -> None:
        """Find what would stop ``_learn``, before any training.

        :raises ValueError: an unfit argument, by name.
        """

    def _learn(self, demos: Trajectories, loop: TrainingLoop) -> None:
        """Take ``loop.total_timesteps`` environment steps and learn from them, in an agent with an online phase."""
        raise NotImplementedError(f"{type(self).__name__}._learn: an agent with an online phase has to define it")

    @abstractmethod
    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """Return the encoded previous actions (N, A) of every record; those of first records are not read."""

    # Checkpoints

    def checkpoint_identity(self, data: PhaseData) -> dict[str, Any]:
        """Return what has to agree for a checkpoint to be of the phase that starts, as JSON values."""
        if self.starting_digest is None:
            # The first weights of an agent without a seed differ from process to process, and decide nothing else.
            comparable = self.seed is not None or self.pretrained or self.imitated
            weights = [weight for state in self.get_parameters().values() for weight in state.values()]
            self.starting_digest = digest([self.generator.get_state(), *weights]) if comparable else "fresh"
        described = description(self)
        identity = {
            "agent": described["class"],
            "hyper-parameters": [described["config"], self.policy_kwargs],
            "spaces": [described["observation_space"], described["action_space"]],
            "seed": self.seed,
            "data": f"{self.play_timesteps} steps of its own" if callable(data) else digest_trajectories(data),
            "starting weights": self.starting_digest,
        }
        return identity | ({"checkpoint_interval": self.checkpoint_interval} if self.imitates_online else {})

    def end_phase(self, name: str, *, failed: bool) -> None:
        """Note that a phase has ended, or has failed and has to run again: half a phase counts as none."""
        if failed:
            self.pretrained = self.pretrained and name != "pretrain"
            self.imitated = name == "learn"  # which keeps the policy that it started from
        else:
            self.starting_digest = None

    def _import_world_model(self, world_model: WorldModel, inverse_model: LatentInverseModel | None = None) -> bool:
        """Give new models the weights of the file that the constructor was given, which stand for ``pretrain``.

        :return: whether there is such a file.
        """
        if self.imported is None:
            return False
        self.imported.restore(world_model, inverse_model, discrete=self.action_encoding.discrete)
        self.pretrained = True
        self.imitated = False
        if self.seed is None:  # two processes have the file in common alone, and a checkpoint compares them
            self.starting_digest = self.imported.digest
        return True

    # Data and environment

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
        """Load data as [`load_trajectories`][] does, videos as this agent's environment shows them."""
        return load_trajectories(
            source,
            actions=actions,
            argument=argument,
            progress=progress,
            **shown_frames(self.env, self.observation_space),
        )

    def _record_play(self, progress_bar: bool) -> list[Trajectory]:
        """Record random play, the same trajectories for the same seed."""
        message = f"{type(self).__name__}: no play data given, collecting {self.play_timesteps} steps of random play"
        warnings.warn(message, stacklevel=5)
        seed = self.generator.initial_seed() % 2**31
        play, interrupted = record_play(self.env, self.play_timesteps, seed=seed, progress=progress_bar)
        # With checkpoints, the next attempt records all of it.
        if interrupted and (self.checkpoint_dir is not None or not play):
            raise KeyboardInterrupt
        return self._checked(play, "play", need_actions=True)

    def _require_env(self, *, interacts: bool = False) -> None:
        if not (self.imitates_online or interacts):
            return
        if self.env is None:
            verb = "imitate" if self.imitates_online else "learn"
            raise ValueError(f"env: expected {type(self).__name__} to have one to {verb} in, got None; call set_env")
        check_envs_agree(self.env)
