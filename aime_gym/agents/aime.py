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

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from aime_gym.agents.base import ImitationAgent
from aime_gym.data import ClipSampler, TrajectoryDataset
from aime_gym.models.config import PRESETS, WorldModelConfig
from aime_gym.models.inverse import LatentInverseModel
from aime_gym.models.policies import TanhGaussianPolicy
from aime_gym.models.rssm import ActionSource, State
from aime_gym.models.sources import InverseActions, PolicyActions, RecordedActions
from aime_gym.models.world_model import WorldModel, per_sequence
from aime_gym.training.fit import Fit
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.ranges import check_ranges
from aime_gym.types import Metrics, Trajectories

#: Trajectories that are filtered side by side in passes over a whole dataset.
_EPISODES_AT_ONCE = 128
#: Records of a minibatch for networks that see single steps.
_STEP_BATCH = 512
#: Records on which the inverse model's error is measured, and the least variance that is believed.
_ERROR_SAMPLE, _MIN_VARIANCE = 8192, 1e-4


@dataclass(frozen=True)
class AIMEConfig:
    """Hyper-parameters of :class:`AIMEAgent`.

    :param world_model: a preset's name ("default", "aime", "dreamer") or a configuration.
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
                raise ValueError(f"world_model: expected one of {sorted(PRESETS)} or a WorldModelConfig, got {model!r}")
            object.__setattr__(self, "world_model", PRESETS[model])
        elif isinstance(model, dict):  # as JSON brings it back
            object.__setattr__(self, "world_model", WorldModelConfig(**model))
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
    """

    config: AIMEConfig
    policy: TanhGaussianPolicy
    presets: ClassVar = {
        "default": AIMEConfig(),
        "aime": _paper("aime", 100_000),
        "dreamer": _paper("dreamer", 200_000),
    }
    needs_play = True

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

    def _fresh_policy(self) -> TanhGaussianPolicy:
        return TanhGaussianPolicy(self.world_model.feature_size, self.encoding.size, **self.policy_kwargs)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["world_model", "inverse_model", "policy"], []

    # Phase 1

    def _pretrain(self, play: Trajectories, fit: Fit) -> None:
        dataset = TrajectoryDataset(play, self.encoding, self.device)
        self.world_model.requires_grad_(True)
        self.world_model.fit_standardizers(dataset.observations)
        fit.run("model", self.config.model_updates, self.model_update(dataset))
        # Also when the model was interrupted: without an inverse model, what it learnt could not be used.
        self._fit_inverse_model(dataset, fit)

    def model_update(self, dataset: TrajectoryDataset) -> Callable[[], Metrics]:
        """One maximisation of the evidence of play under its recorded actions (Eq. 4)."""
        config = self.config
        sampler = self._sampler(dataset, config.play_start_fraction)
        optimizer = Optimizer(
            [self.world_model],
            config.model_learning_rate,
            clip=config.clip,
            decay_updates=config.model_updates if config.decay else None,
        )

        def update() -> Metrics:
            clip = sampler.sample()
            assert clip.pre_actions is not None
            evidence = self.world_model.evidence(
                clip.observations,
                RecordedActions(clip.pre_actions),
                self._noise(*clip.valid.shape, self.stoch),
                valid=clip.valid,
            )
            return evidence.metrics | {"gradient_norm": optimizer.step(evidence.loss)}

        return update

    def _fit_inverse_model(self, play: TrajectoryDataset, fit: Fit) -> None:
        """Regress a_{t-1} on [h, s]_{t-1} and o_t - o_{t-1}, along the play data filtered with its true actions."""
        pre_actions = play.pre_actions
        assert pre_actions is not None
        self.world_model.requires_grad_(False)
        features, _ = self._filter(play, lambda rows: RecordedActions(pre_actions[rows]))
        changes = play.changes()
        self.inverse_model.standardizer.fit(changes)
        targets = (~play.first_rows()).nonzero().squeeze(-1)  # something led to every record but the first
        optimizer = Optimizer([self.inverse_model], 1e-3, decay_updates=self.config.inverse_updates)

        def update() -> Metrics:
            rows = targets[self._integers(len(targets), _STEP_BATCH)]
            loss = (self.inverse_model(features[rows - 1], changes[rows]) - pre_actions[rows]).square().mean()
            return {"loss": loss.detach(), "gradient_norm": optimizer.step(loss)}

        before = fit.updates
        fit.run("inverse", self.config.inverse_updates, update)
        self.inverse_model.variance.zero_()
        if fit.updates > before:
            rows = targets[self._integers(len(targets), _ERROR_SAMPLE)]
            with torch.no_grad():
                errors = self.inverse_model(features[rows - 1], changes[rows]) - pre_actions[rows]
            self.inverse_model.variance.copy_(errors.square().mean(0).clamp_min(_MIN_VARIANCE))

    # Phase 2

    def _imitate(self, demos: Trajectories, fit: Fit) -> None:
        dataset = TrajectoryDataset(demos, None, self.device)
        self.world_model.requires_grad_(False)
        with self._initial_weights():
            self.policy = self._fresh_policy().to(self.device)
        beliefs = None
        if self.config.warm_start:
            features, actions = self._filter(dataset, self._inverse_source(dataset))
            beliefs = (features, actions)
            if not self._clone(dataset, features, actions, fit):
                return
        fit.run("policy", self.config.policy_updates, self.policy_update(dataset, beliefs))

    def _clone(self, demos: TrajectoryDataset, features: Tensor, actions: Tensor, fit: Fit) -> bool:
        """Warm start: behavioural cloning of the inferred actions in the latent space.

        By the squared error of the mode: under a likelihood, saturated actions would outweigh all others.
        """
        targets = (~demos.first_rows()).nonzero().squeeze(-1)
        early = targets[demos.steps()[targets] < self.config.horizon]
        early_count = round(self.config.demo_start_fraction * _STEP_BATCH)
        optimizer = Optimizer([self.policy], 1e-3, decay_updates=self.config.clone_updates)

        def update() -> Metrics:
            rows = torch.cat(
                [
                    early[self._integers(len(early), early_count)],
                    targets[self._integers(len(targets), _STEP_BATCH - early_count)],
                ]
            )
            loss = (self.policy(features[rows - 1]).mode - actions[rows]).square().mean()
            return {"loss": loss.detach(), "gradient_norm": optimizer.step(loss)}

        return fit.run("clone", self.config.clone_updates, update)

    def policy_update(self, dataset: TrajectoryDataset, beliefs: tuple[Tensor, Tensor] | None) -> Callable[[], Metrics]:
        """One maximisation of the evidence of demonstrations under the policy's actions (Eq. 8).

        :param beliefs: latent features and inferred actions of every record: where clips continue from, and the prior.
        """
        config = self.config
        sampler = self._sampler(dataset, config.demo_start_fraction)
        optimizer = Optimizer(
            [self.policy],
            config.policy_learning_rate,
            clip=config.clip,
            decay_updates=config.policy_updates if config.decay else None,
        )

        def update() -> Metrics:
            clip = sampler.sample()
            initial, first = None, None
            if beliefs is not None:
                features, actions = beliefs
                first = actions[clip.rows[0]]
                if config.continue_latents:
                    before = features[(clip.rows[0] - 1).clamp_min(0)] * ~clip.is_first[:, None]
                    initial = State(*before.split([self.world_model.config.deter, self.stoch], dim=-1))
            source = PolicyActions(self.policy, self._noise(*clip.valid.shape, self.encoding.size), first)
            noise = self._noise(*clip.valid.shape, self.stoch)
            evidence = self.world_model.evidence(
                clip.observations, source, noise, initial=initial, valid=clip.valid, regularize=False
            )
            loss = evidence.loss
            if beliefs is not None and config.action_prior:
                surprise = (evidence.latents.pre_actions - beliefs[1][clip.rows]).square() / self.inverse_model.variance
                loss = loss + per_sequence(0.5 * surprise.sum(-1), clip.valid)
            return evidence.metrics | {"gradient_norm": optimizer.step(loss)}

        return update

    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """By the policy once it has imitated, by the inverse model before."""
        return self._filter(demos, self._policy_source if self.imitated else self._inverse_source(demos))[1]

    # Acting

    def _act(
        self, observation: dict[str, Tensor], state: tuple[Tensor, ...], deterministic: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        deter, stoch, pre_action = state
        rssm = self.world_model.rssm
        embedding = self.world_model.embed(self.world_model.standardize(observation))
        h = rssm.transition(State(deter, stoch), pre_action)
        posterior = rssm.posterior(h, rssm.prepare(embedding))
        s = posterior.mean if deterministic else posterior.rsample(self._noise(*posterior.mean.shape))
        actions = self.policy(State(h, s).feature)
        action = actions.mode if deterministic else actions.rsample(self._noise(*actions.mean.shape))
        return action, (h, s, action)

    def _initial_state(self, observation: dict[str, Tensor]) -> tuple[Tensor, ...]:
        batch = len(next(iter(observation.values())))
        h, s = self.world_model.rssm.initial_state(batch)
        return h, s, h.new_zeros(batch, self.encoding.size)

    # Shared by the phases

    @property
    def stoch(self) -> int:
        return self.world_model.config.stoch

    def _sampler(self, dataset: TrajectoryDataset, start_fraction: float) -> ClipSampler:
        return ClipSampler(
            dataset,
            horizon=self.config.horizon,
            batch_size=self.config.batch_size,
            generator=self.generator,
            start_fraction=start_fraction,
        )

    def _inverse_source(self, dataset: TrajectoryDataset) -> Callable[[Tensor], ActionSource]:
        if not self.inverse_model.variance.all():
            raise ValueError(
                "inverse model: not fitted, since pretrain was interrupted before; call pretrain again, or go without: "
                "warm_start=False, action_prior=False, continue_latents=False"
            )
        changes = dataset.changes()
        return lambda rows: InverseActions(self.inverse_model, changes[rows])

    def _policy_source(self, rows: Tensor) -> ActionSource:
        mode = torch.zeros(*rows.shape, self.encoding.size, device=self.device)
        return PolicyActions(self.policy, mode, first=mode[0])

    @torch.no_grad()
    def _filter(self, dataset: TrajectoryDataset, source: Callable[[Tensor], ActionSource]) -> tuple[Tensor, Tensor]:
        """Filter whole trajectories with the posterior's mean.

        :param source: makes the source of actions for rows (T, B).
        :return: features (N, H + S) and pre-actions (N, A), one row for each record.
        """
        model = self.world_model
        embeddings = model.embed(model.standardize(dataset.observations))
        features = torch.zeros(len(dataset), model.feature_size, device=self.device)
        actions = torch.zeros(len(dataset), self.encoding.size, device=self.device)
        for rows, valid in dataset.episodes(_EPISODES_AT_ONCE):
            noise = features.new_zeros(*rows.shape, self.stoch)
            latents = model.rssm(embeddings[rows], source(rows), noise)
            features[rows[valid]] = latents.states.feature[valid]
            actions[rows[valid]] = latents.pre_actions[valid]
        return features, actions
