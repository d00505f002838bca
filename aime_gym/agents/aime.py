"""AIME: Action Inference by Maximising Evidence (Zhang et al. 2023, arXiv 2312.02019).

A world model of one's own body explains a demonstration only under the right actions. So:

    phase 1   phi, theta = argmax E[ELBO(o | recorded actions)]        over play data         (Eq. 4)
    phase 2   psi        = argmax E[ELBO(o | actions ~ pi_psi)]        over demonstrations    (Eq. 8)

with the world model frozen in phase 2; the two differ only in where the actions come from.

Deviations, which the preset ``"aime"`` turns off: phase 2 starts from a policy that was cloned from the
actions of an inverse model in the latent space (``warm_start``); the ELBO scores actions under that model's belief as
well, a Gaussian as wide as its error on play (``action_prior``), so that actions which the evidence does not identify
stay where they were; clips of demonstrations continue from the latent state that a filter reaches there, instead of
starting from zero; the default world model sees standardised observations through a likelihood of fixed, small sigma.
Acting with ``deterministic=True`` filters with the posterior's mean, in all presets, where the authors sample it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, ClassVar, Self

import torch
from gymnasium import spaces
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.models.config import PRESETS, WorldModelConfig
from aime_gym.models.inverse import LatentInverseModel
from aime_gym.models.policies import TanhGaussianPolicy
from aime_gym.models.pretrained import SUFFIX, imported_world_model, write_world_model
from aime_gym.models.rssm import ActionSource, State
from aime_gym.models.sources import InverseActions, PolicyActions, RecordedActions
from aime_gym.models.world_model import WorldModel, per_sequence
from aime_gym.training.clips import train_on_clips
from aime_gym.training.filtering import Filtered, RowSource, filter_trajectories
from aime_gym.training.fit import Fit
from aime_gym.training.latent_regression import clone_actions, fit_inverse_model
from aime_gym.training.ranges import check_ranges
from aime_gym.types import Clip, Metrics, Trajectories


@dataclass(frozen=True)
class AIMEConfig:
    """Hyper-parameters of :class:`AIMEAgent`.

    :param world_model: a preset's name ("default", "aime", "dreamer") or a configuration; the agent's constructor takes
        the file of a pretrained model too.
    :param batch_size: clips per update.
    :param horizon: records per clip.
    :param model_updates: updates of the world model in ``pretrain``.
    :param policy_updates: updates of the policy by the ELBO in ``imitate``; 0 leaves the warm start alone.
    :param model_learning_rate: of the world model.
    :param policy_learning_rate: of the policy under the ELBO.
    :param decay: let both learning rates fall linearly to zero.
    :param clip: largest global norm of a gradient.
    :param play_start_fraction: share of play clips that start at an episode's start.
    :param demo_start_fraction: the same for demonstrations.
    :param warm_start: clone the policy from inferred actions before maximising the ELBO.
    :param inverse_updates: updates of the latent inverse model, at the end of ``pretrain``.
    :param clone_updates: updates of the cloned policy.
    :param action_prior: score the policy's actions under the inverse model's belief too, in maximising the ELBO; needs
        ``warm_start``.
    :param continue_latents: start clips of demonstrations from the filtered latent state; needs ``warm_start``.
    """

    world_model: WorldModelConfig | str = "default"
    batch_size: int = 32
    horizon: int = 32
    model_updates: int = 4500
    policy_updates: int = 1000
    model_learning_rate: float = 1e-3
    policy_learning_rate: float = 3e-4
    decay: bool = True
    clip: float = 100.0
    play_start_fraction: float = 0.1
    demo_start_fraction: float = 0.25
    warm_start: bool = True
    inverse_updates: int = 3000
    clone_updates: int = 3000
    action_prior: bool = True
    continue_latents: bool = True

    def __post_init__(self) -> None:
        model = self.world_model
        if isinstance(model, str):
            if model not in PRESETS:
                raise ValueError(
                    f"world_model: expected one of {sorted(PRESETS)}, a WorldModelConfig, or the path of a "
                    f"{SUFFIX} file in an agent's constructor, got {model!r}"
                )
            object.__setattr__(self, "world_model", PRESETS[model])
        elif isinstance(model, dict):  # as JSON brings it back
            try:
                object.__setattr__(self, "world_model", WorldModelConfig(**model))
            except TypeError as error:
                raise ValueError(f"world_model: expected the fields of WorldModelConfig ({error})") from error
        elif not isinstance(model, WorldModelConfig):
            raise ValueError(f"world_model: expected a name or a WorldModelConfig, got {type(model).__name__}")
        for name in ("continue_latents", "action_prior"):
            if getattr(self, name) and not self.warm_start:
                raise ValueError(f"{name}: expected False without warm_start, whose filter it needs")
        updates = ("model_updates", "policy_updates", "inverse_updates", "clone_updates")
        check_ranges(
            self,
            batch_size=(1, None),
            horizon=(2, None),
            play_start_fraction=(0, 1),
            demo_start_fraction=(0, 1),
            model_learning_rate=(0, None),
            policy_learning_rate=(0, None),
            clip=(0, None),
            **dict.fromkeys(updates, (0, None)),
        )


def _paper(world_model: str, model_updates: int) -> AIMEConfig:
    return AIMEConfig(
        world_model=world_model,
        batch_size=50,
        horizon=50,
        model_updates=model_updates,
        policy_updates=50_000,
        model_learning_rate=3e-4,
        decay=False,
        play_start_fraction=0.0,
        demo_start_fraction=0.0,
        warm_start=False,
        action_prior=False,
        continue_latents=False,
    )


class AIMEAgent(ImitationAgent):
    """Imitates demonstrations without actions, through a world model learnt from play.

    Presets: ``"default"``; ``"aime"``, the paper's model and from-scratch phase 2; ``"dreamer"``, the same with the
    model of AIME-v2. Hyper-parameters: :class:`AIMEConfig`.

    A world model knows a body, not a task. Pretrained once and written by :meth:`save_world_model`, it serves all tasks
    of that body: ``AIMEAgent(env, world_model="walker.safetensors")`` needs no play and goes straight to ``imitate``.

    Another ``pretrain``, of such an agent or of any, goes on from the weights, but observes in units of the new play's
    spread: what it reaches beyond the old play could hardly be learnt in the old units. The first hundreds of updates
    adapt the weights to that, so a few are worse than none, and what only the old play showed is forgotten unless the
    new play holds it too.

    :param world_model: as in :class:`AIMEConfig`, or the path of such a file, whose configuration replaces that of the
        preset. Its sensors and actions have to be those of the environment.
    """

    config: AIMEConfig
    policy: TanhGaussianPolicy
    presets: ClassVar = {
        "default": AIMEConfig(),
        "aime": _paper("aime", 100_000),
        "dreamer": _paper("dreamer", 200_000),
    }
    needs_play = True

    def __init__(self, *args: Any, **options: Any) -> None:
        #: Where the world model comes from, unless it is to be learnt.
        self.imported = imported_world_model(options.get("world_model"))
        if self.imported is not None:
            options["world_model"] = self.imported.config
        super().__init__(*args, **options)

    def _setup_networks(self) -> None:
        if not isinstance(self.action_space, spaces.Box):
            raise NotImplementedError(
                f"action_space: AIMEAgent expects a Box, got {self.action_space}; Discrete actions come with a later "
                f"version, and BCOAgent takes them today"
            )
        config, actions = self.config.world_model, self.encoding.size
        assert isinstance(config, WorldModelConfig)
        self.world_model = WorldModel(config, self.sensor_sizes, actions)
        features = self.world_model.feature_size
        self.inverse_model = LatentInverseModel(features, sum(self.sensor_sizes.values()), actions)
        self.policy = self._fresh_policy()
        if self.imported is not None:
            self.imported.restore(self.world_model, self.inverse_model)
            if self.config.warm_start:
                self._require_inverse_model()
            self.pretrained, self.imitated = True, False
            if self.seed is None:  # the file is all that two processes have in common, which a checkpoint asks for
                self.unfinished_start = self.imported.digest

    def _fresh_policy(self) -> TanhGaussianPolicy:
        return TanhGaussianPolicy(self.world_model.feature_size, self.encoding.size, **self.policy_kwargs)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["world_model", "inverse_model", "policy"], []

    # Phase 1

    def _pretrain(self, play: Trajectories, fit: Fit) -> None:
        dataset, config = TrajectoryDataset(play, self.encoding, self.device), self.config
        self.inverse_model.variance.zero_()  # it does not fit what the model becomes now
        self.world_model.requires_grad_(True)
        self.world_model.fit_standardizers(dataset.observations)
        train_on_clips(
            "model",
            self.world_model,
            self._evidence_of_play,
            dataset,
            fit,
            config,
            updates=config.model_updates,
            learning_rate=config.model_learning_rate,
            start_fraction=config.play_start_fraction,
        )
        self.world_model.requires_grad_(False)
        # Also when the model was interrupted: without an inverse model, what it learnt could not be used.
        fit_inverse_model(self.inverse_model, self.world_model, dataset, fit, updates=config.inverse_updates)

    def _evidence_of_play(self, clip: Clip) -> tuple[Tensor, Metrics]:
        """The loss of the model: play under its recorded actions (Eq. 4)."""
        assert clip.pre_actions is not None
        source, noise = RecordedActions(clip.pre_actions), self._noise(*clip.valid.shape, self.stoch)
        evidence = self.world_model.evidence(clip.observations, source, noise, valid=clip.valid)
        return evidence.loss, evidence.metrics

    # Phase 2

    def _imitate(self, demos: Trajectories, fit: Fit) -> None:
        dataset, config = TrajectoryDataset(demos, None, self.device), self.config
        self.world_model.requires_grad_(False)
        with self._initial_weights():
            self.policy = self._fresh_policy().to(self.device)
        beliefs = None
        if config.warm_start:
            beliefs = filter_trajectories(self.world_model, dataset, self._inverse_source(dataset))
            completed = clone_actions(
                self.policy,
                dataset,
                beliefs,
                fit,
                updates=config.clone_updates,
                start_fraction=config.demo_start_fraction,
                start_steps=config.horizon,
            )
            if not completed:
                return
        train_on_clips(
            "policy",
            self.policy,
            lambda clip: self._evidence_of_demonstrations(clip, beliefs),
            dataset,
            fit,
            config,
            updates=config.policy_updates,
            learning_rate=config.policy_learning_rate,
            start_fraction=config.demo_start_fraction,
        )

    def _evidence_of_demonstrations(self, clip: Clip, beliefs: Filtered | None) -> tuple[Tensor, Metrics]:
        """The loss of the policy: demonstrations under its actions, through the frozen model (Eq. 8).

        :param beliefs: latent features and inferred actions of every record: where clips continue from, and the prior.
        """
        model, initial, first = self.world_model, None, None
        if beliefs is not None:
            first = beliefs.pre_actions[clip.rows[0]]
            if self.config.continue_latents:
                before = beliefs.features[(clip.rows[0] - 1).clamp_min(0)] * ~clip.is_first[:, None]
                initial = State(*before.split([model.config.deter, self.stoch], dim=-1))
        source = PolicyActions(self.policy, self._noise(*clip.valid.shape, self.encoding.size), first)
        noise = self._noise(*clip.valid.shape, self.stoch)
        evidence = model.evidence(clip.observations, source, noise, initial=initial, valid=clip.valid, regularize=False)
        loss = evidence.loss
        if beliefs is not None and self.config.action_prior:
            distance = (evidence.latents.pre_actions - beliefs.pre_actions[clip.rows]).square()
            loss = loss + per_sequence(0.5 * (distance / self.inverse_model.variance).sum(-1), clip.valid)
        return loss, evidence.metrics

    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """By the policy once it has imitated, by the inverse model before."""
        source = self._policy_source if self.imitated else self._inverse_source(demos)
        return filter_trajectories(self.world_model, demos, source).pre_actions

    # Acting

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        deter, stoch, pre_action = state
        noise = None if generator is None else self._noise(*stoch.shape, of=generator)
        latent = self.world_model.observe(observation, State(deter, stoch), pre_action, noise)
        actions = self.policy(latent.feature)
        action = actions.mode if generator is None else actions.rsample(self._noise(*actions.mean.shape, of=generator))
        return action, (*latent, action)

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        batch = len(next(iter(observation.values())))
        h, s = self.world_model.rssm.initial_state(batch)
        return h, s, h.new_zeros(batch, self.encoding.size)

    @property
    def stoch(self) -> int:
        return self.world_model.config.stoch

    def _inverse_source(self, dataset: TrajectoryDataset) -> RowSource:
        self._require_inverse_model()
        changes = dataset.changes()
        return lambda rows: InverseActions(self.inverse_model, changes[rows])

    def _require_inverse_model(self) -> None:
        if not self.inverse_model.fitted:
            raise ValueError(
                "world_model: expected one with a fitted inverse model, which pretrain ends with, got one without; "
                "pretrain it again, or go without: warm_start=False, action_prior=False, continue_latents=False"
            )

    def _policy_source(self, rows: Tensor) -> ActionSource:
        mode = torch.zeros(*rows.shape, self.encoding.size, device=self.device)
        return PolicyActions(self.policy, mode, first=mode[0])

    # Files

    def save_world_model(self, path: str | PathLike[str]) -> None:
        """Write the world model, and the inverse model that belongs to it, to a file of their own.

        :param path: gets the suffix ``.safetensors`` if it has none.
        :raises ValueError: an agent that has not pretrained, or another suffix.
        """
        if not self.pretrained:
            raise ValueError("world_model: expected one that was pretrained, got a new one; call pretrain first")
        write_world_model(path, self.world_model, self.inverse_model)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Self:
        """As every agent's.

        :param world_model: the file of a world model, to start from it in place of the agent's own, with the agent's
            hyper-parameters and seed. The policy, which does not fit it, is left behind.
        """
        imported = imported_world_model(kwargs.get("world_model"))
        if imported is not None:
            del kwargs["world_model"]
        agent = super().load(*args, **kwargs)
        if imported is not None:
            agent.imported, agent.config = imported, replace(agent.config, world_model=imported.config)
            agent._setup_model()
        return agent
