"""AIME: Action Inference by Maximising Evidence (Zhang et al. 2023, arXiv 2312.02019).

A world model of one's own body explains a demonstration only under the right actions. So:

    phase 1   phi, theta = argmax E[ELBO(o | recorded actions)]        over play data         (Eq. 4)
    phase 2   psi        = argmax E[ELBO(o | actions ~ pi_psi)]        over demonstrations    (Eq. 8)

with the world model frozen in phase 2; the two differ only in where the actions come from.

Deviations, which the preset ``"aime"`` turns off: phase 2 starts from a policy that was cloned from the actions of an
inverse model in the latent space (``warm_start``), whose belief is a prior of the actions where they explain more than
the policy's (``action_prior``); records that no action explains count by the logarithm of their surprise
(``robust_nats``); sequences of demonstrations continue from the latent state that a filter with the policy's actions
reaches there, instead of starting from zero (``continue_latents``); Muon trains the matrices
(``matrix_learning_rate``, ``policy_matrix_learning_rate``); the default world model sees standardised observations
through a likelihood of fixed, small sigma. Acting with ``deterministic=True`` filters with the posterior's mode, in all
presets, where the authors sample it.

The papers have continuous actions only. Discrete ones are one-hot vectors to the model, and few enough to compare what
each of them explains: the likeliest ones are cloned, and the policy then maximises the evidence with its own
uncertainty summed out ([`aime_gym.model_based.one_hot_evidence.OneHotEvidence`][]).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import torch

from aime_gym.agents.world_model_agent import WorldModelAgent
from aime_gym.analysis.beliefs import write_beliefs
from aime_gym.analysis.diagnosis import diagnose
from aime_gym.analysis.diagnosis_report import Diagnosis
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.action_inference import inverse_source
from aime_gym.model_based.config import AIME_PRESETS, AIMEConfig
from aime_gym.model_based.online import OnlineImitation
from aime_gym.model_based.surrogate_rewards import (
    USER_REWARD,
    EpisodeReward,
    UserReward,
    ViperReward,
    make_surrogate,
)
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.rollouts import Rollouts
from aime_gym.types import Metrics, Trajectories


class AIMEAgent(WorldModelAgent):
    """Imitates demonstrations without actions, through a world model learnt from play.

    Presets: ``"default"``; ``"aime"``, the paper's model and from-scratch phase 2; ``"dreamer"``, the same with the
    model of AIME-v2; ``"aime-v2"`` and ``"aime-nob"``, those papers' choices for ``learn``. Hyper-parameters:
    [`AIMEConfig`][].

    A world model knows a body, not a task. Pretrained once and written by ``save_world_model``, it serves all tasks
    of that body: ``AIMEAgent(env, world_model="walker.safetensors")`` needs no play and goes straight to ``imitate``.

    Another ``pretrain``, of such an agent or of any, starts from the weights, but standardises observations by the new
    play: what lies beyond the old play could hardly be learnt in the old units. The first hundreds of updates adapt the
    weights to that, so a few are worse than none, and what only the old play showed is forgotten unless the new play
    holds it too.

    So ``world_model`` is as in [`AIMEConfig`][], or the path of such a file, whose configuration replaces that of
    the preset. Its sensors and actions have to be those of the environment.
    """

    config: AIMEConfig
    presets: ClassVar = AIME_PRESETS
    improves_online = True

    def __init__(self, *args: Any, **options: Any) -> None:
        #: Reward by a function of the user's.
        self.user_reward: UserReward | None = options["reward"] if callable(options.get("reward")) else None
        if self.user_reward is not None:
            options["reward"] = USER_REWARD
        #: Networks of phase 3; made by the first ``learn`` after ``imitate``.
        self.online: OnlineImitation | None = None
        super().__init__(*args, **options)

    def _training_state(self) -> dict[str, Any]:
        return {} if self.online is None else self.online.own_state()

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        self.online = None
        if state:
            with torch.random.fork_rng(devices=[]):  # its weights are those of the state
                self.online = self._make_online()
            self.online.load_own_state(state)

    # Phase 1

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        self.online = None
        super()._pretrain(play, loop)

    # Phase 2

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        self.online = None
        self._start_policy()
        self._infer_policy(TrajectoryDataset(demos, None, self.device), loop)

    def render_beliefs(
        self,
        demos: Any = None,
        path: str | PathLike[str] = "beliefs.mp4",
        *,
        context: int = 5,
        length: int | None = None,
        episodes: int = 3,
        fps: float = 10,
    ) -> Path:
        """Write a video of the agent's beliefs about demonstrations with images.

        Side by side: the demonstration, the world model's reconstruction under the inferred actions, and its prediction
        from a few records and these actions. Before ``imitate`` the actions are those of the inverse model, afterwards
        those of the policy. Several images of an observation stand on top of each other; of stacked frames the last
        three channels are shown. Changes nothing in the agent.

        :param demos: demonstrations; the constructor's unless given.
        :param path: name of a file that ends in ``.mp4`` or ``.gif``.
        :param context: number of records of each demonstration after which the prediction sees no more of it.
        :param length: number of records of each demonstration to show; ``None`` for all.
        :param episodes: number of demonstrations to show, the first ones.
        :param fps: records a second.
        :return: the path.
        :raises ValueError: an agent without a world model, observations without an image, data that is missing or does
            not fit the environment, or an argument out of range.
        """
        if not self.pretrained:
            raise ValueError("render_beliefs: AIMEAgent has no world model yet; call pretrain first")
        checked = self._trajectories(demos, self.demonstrations, "demos", need_actions=False)
        written = Path(path)
        write_beliefs(
            written,
            self.world_model,
            checked,
            self._action_source,
            context=context,
            length=length,
            episodes=episodes,
            fps=fps,
        )
        return written

    def diagnose(self, demos: Any = None, play: Any = None) -> Diagnosis:
        """Report what keeps the agent from the demonstrations: too little play, too few demonstrations, or nothing.

        Changes nothing in the agent. Before ``imitate`` the inferred actions are those of the inverse model, afterwards
        those of the policy.

        :param demos: demonstrations; the constructor's unless given. If all of them have their true actions, which the
            agent does not see, the report compares with these.
        :param play: trajectories with actions, recorded anew in the way of those that the agent was trained on, which
            it does not keep. The constructor's unless given, which it was trained on; the report then says so.
        :raises ValueError: an agent without a world model, or data that is missing or does not fit the environment.
        """
        if not self.pretrained:
            raise ValueError("diagnose: AIMEAgent has no world model yet; call pretrain first")
        source = self.demonstrations if demos is None else demos
        loaded = source if source is None else self._load(source, "demos", actions=True)
        recorded = loaded is not None and all(demo.actions is not None for demo in loaded)
        checked = self._trajectories(loaded, None, "demos", need_actions=recorded)
        known = self._trajectories(play, self.play, "play", need_actions=True)
        dataset = TrajectoryDataset(checked, self.action_encoding if recorded else None, self.device)
        with torch.no_grad():
            inferred = self._infer_actions(dataset)
        return diagnose(
            self.world_model,
            dataset,
            TrajectoryDataset(known, self.action_encoding, self.device),
            discrete=self.action_encoding.discrete,
            inferred=inferred,
            inverse=functools.partial(inverse_source, self.inverse_model, self.world_model),
            make_policy=self._fresh_policy,
            play_held_out=play is not None and play is not self.play,
        )

    # Phase 3

    def _check_learn(self, demos: Trajectories) -> None:
        """Check a user's reward on a demonstration.

        :raises ValueError: a function that no file holds, or that returns no rewards.
        """
        if self.config.reward == USER_REWARD:
            EpisodeReward(self.user_reward).labels(demos[0])

    def _learn(self, demos: Trajectories, loop: TrainingLoop) -> None:
        """Run Algorithm 1 of AIME-v2, a round at a time."""
        dataset = TrajectoryDataset(demos, None, self.device)
        play = None
        if self.pretrained_play is not None:
            play = TrajectoryDataset(self.pretrained_play, self.action_encoding, self.device)
        elif self.config.play_ratio:
            warnings.warn(
                "learn: no play at hand, which kept the world model from overfitting its own experience (play_ratio "
                "falls to 0); pass play= to the constructor or to load",
                stacklevel=4,
            )
        if self.online is None:
            with self._initial_weights():
                online = self._make_online()
            if isinstance(online.surrogate, ViperReward) and not online.surrogate.fit(dataset, loop, self.config):
                return  # half a reward counts as none: the next learn fits another
            self.online = online
        online = self.online
        assert loop.total_timesteps is not None
        rollouts = Rollouts(self, loop, "learn", loop.total_timesteps, online)

        def collect_and_update() -> Metrics:
            updates = online.add(rollouts.collect(self._sample_actions, steps=self.config.round_steps))
            if not rollouts.stopped:
                online.begin_updates(play, dataset, self.action_encoding, self._noise, self.generator)
                rollouts.run("learn", updates, online.update)
            return {}

        rollouts.repeat(collect_and_update)

    def _make_online(self) -> OnlineImitation:
        """Make the networks of phase 3."""
        model, config = self.world_model, self.config
        surrogate = make_surrogate(
            config.reward, model, self.user_reward, config.discriminator_learning_rate, self.device
        )
        return OnlineImitation(config, model, self.inverse_model, self.policy, surrogate, self.device)
