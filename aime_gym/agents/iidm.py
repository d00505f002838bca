"""IIDM: an inverted one-step forward model, the ablation of AIME without latent states and sequences.

From AIME's paper (Zhang et al. 2023, arXiv 2312.02019), with x_t for the stack o_{t-k+1} ... o_t:

    phase 1   phi = argmin |f_phi(x_t, a_t) - o_{t+1}|^2            over play
    phase 2   psi = argmin |f_phi(x_t, pi_psi(x_t)) - o_{t+1}|^2    over demonstrations

The model is frozen in phase 2, and the gradient goes through the action alone. The preset ``paper`` has the paper's
networks, errors and stopping: two hidden layers of 128 that predict the next frame, Adam, a 70/30 split and early
stopping, as [`BCOAgent`][aime_gym.agents.bco.BCOAgent] has them.

The default asks for more exactness. An action moves the next observation little, so a model that is right to a few
percent cannot tell actions apart. Deviations: the model predicts the *change* in units of its spread, is wider and has
LayerNorm, and learns for a fixed number of large batches, its weight matrices by [`aime_gym.training.muon`][]. Phase 2
minimises

    sum_i log(1 + e_i^2 / (4 v_i))

where e_i is the error of number i and v_i its mean square on held-out play, or in the batch where that is larger: a
likelihood of heavy tails, which a few contacts do not rule, and in which each number counts by how well the model knows
it.

In both presets observations are standardised by the play data, whole trajectories are held out, and policies of
discrete actions are learnt from one-hot samples with a straight-through gradient. The policy starts from the model's
encoder of images, and trains it further. Images are predicted as frames, not changes; for them, ``paper`` or a smaller
``batch_size`` fits: a batch encodes ``stack * batch_size`` frames.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from aime_gym.agents.stacked_agent import StackedAgent
from aime_gym.config import MAX_LAYERS, MAX_UNITS, check_bounds
from aime_gym.data import TrajectoryDataset, split_trajectories
from aime_gym.models.distributions import OneHotCategorical
from aime_gym.models.forward_model import ForwardModel
from aime_gym.models.stacked import StackedNetwork
from aime_gym.training.loop import TrainingLoop
from aime_gym.training.optimizer import Optimizer
from aime_gym.training.supervised import (
    ROWS_AT_ONCE,
    StackedConfig,
    act_on_windows,
    encode_windows,
    fit_until_stale,
)
from aime_gym.types import Metrics, Trajectories


@dataclass(frozen=True)
class IIDMConfig(StackedConfig):
    """Hyper-parameters of [`IIDMAgent`][].

    Where a number of updates is ``None``, [`StackedConfig`][]'s epochs and patience decide when to stop, and
    demonstrations are held out too; otherwise learning rates fall linearly to zero over these updates.

    :param model_updates: number of updates of the forward model in ``pretrain``, or ``None``.
    :param policy_updates: number of updates of the policy in ``imitate``, or ``None``.
    :param matrix_learning_rate: Muon's learning rate for weight matrices; ``None`` leaves them to Adam, as does
        a number of updates that is ``None``.
    :param predict_changes: whether the forward model predicts changes of vectors, in units of their spread.
    :param robust: whether the policy maximises the likelihood of heavy tails, rather than minimising squared errors.
    :param hidden: width of the forward model.
    :param layers: hidden layers of the forward model.
    :param layer_norm: whether the forward model has LayerNorm and SiLU in place of ELU.
    """

    train_fraction: float = 0.9
    batch_size: int = 512
    model_updates: int | None = 12_000
    policy_updates: int | None = 8000
    matrix_learning_rate: float | None = 1e-2
    predict_changes: bool = True
    robust: bool = True
    hidden: int = 256
    layers: int = 3
    layer_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(
            self,
            model_updates=(1, None),
            policy_updates=(1, None),
            matrix_learning_rate=(0, None),
            hidden=(1, MAX_UNITS),
            layers=(1, MAX_LAYERS),
        )


class IIDMAgent(StackedAgent):
    """Learns a forward model of observations from play, and a policy whose actions explain the demonstrations by it.

    Acts on a stack of observations. Hyper-parameters: [`IIDMConfig`][].
    """

    config: IIDMConfig
    forward_model: ForwardModel
    presets: ClassVar = {
        "default": IIDMConfig(),
        "paper": IIDMConfig(
            train_fraction=StackedConfig.train_fraction,
            batch_size=StackedConfig.batch_size,
            model_updates=None,
            policy_updates=None,
            matrix_learning_rate=None,
            predict_changes=False,
            robust=False,
            hidden=128,
            layers=2,
            layer_norm=False,
        ),
    }
    needs_play = True

    def _setup_networks(self) -> None:
        config = self.config
        self.forward_model = ForwardModel(
            self.observation_encoding.shapes,
            config.stack,
            self.action_encoding.size,
            predict_changes=config.predict_changes,
            hidden=config.hidden,
            layers=config.layers,
            layer_norm=config.layer_norm,
        )
        self.policy = self._stacked_network(config.stack)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["forward_model", "policy"], []

    # Phase 1

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        config, model = self.config, self.forward_model
        dataset = TrajectoryDataset(play, self.action_encoding, self.device)
        prev_actions = dataset.prev_actions
        assert prev_actions is not None
        model.requires_grad_(True)
        model.fit_standardizer(dataset.observations)
        if model.vectors:
            changes = dataset.differences(model.standardize(dataset.observations))
            model.fit_changes(changes[~dataset.first_rows()])

        def errors(rows: Tensor) -> Tensor:
            return prediction_errors(model, dataset, rows, prev_actions[rows])

        train, held_out = self._split(dataset)
        self._fit(
            "model",
            model,
            lambda rows: model.mean_square(errors(rows)),
            (train, held_out),
            loop,
            updates=config.model_updates,
        )
        model.set_variance(mean_over(held_out, lambda rows: errors(rows).square().mean(0)))
        model.requires_grad_(False)

    # Phase 2

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        config, model = self.config, self.forward_model
        dataset = TrajectoryDataset(demos, None, self.device)
        model.requires_grad_(False)
        self.policy = self._fresh_policy()
        self.policy.copy_encoding(model)
        cost = model.negative_log_likelihood if config.robust else model.mean_square

        def loss(rows: Tensor) -> Tensor:
            actions = policy_actions(self.policy, encode_windows(self.policy, dataset, rows - 1), self._noise)
            return cost(prediction_errors(model, dataset, rows, actions))

        rows = self._split(dataset)
        if config.policy_updates is not None:  # which nothing stops earlier
            rows = (torch.cat(rows), rows[1])
        self._fit("policy", self.policy, loss, rows, loop, updates=config.policy_updates)

    # Both

    def _split(self, dataset: TrajectoryDataset) -> tuple[Tensor, Tensor]:
        fraction = self.config.train_fraction
        return dataset.split_rows(split_trajectories(len(dataset.trajectories), fraction, self.generator), fraction)

    def _fit(
        self,
        name: str,
        network: nn.Module,
        loss: Callable[[Tensor], Tensor],
        rows: tuple[Tensor, Tensor],
        loop: TrainingLoop,
        *,
        updates: int | None,
    ) -> None:
        """Minimise a loss of rows, in so many updates or until its value on held-out rows improves no more."""
        config = self.config
        if updates is None:
            error = functools.partial(mean_over, of=loss)
            fit_until_stale(network, loss, error, rows, config=config, name=name, runner=loop, generator=self.generator)
            return
        optimizer = Optimizer(
            [network],
            config.learning_rate,
            matrix_learning_rate=config.matrix_learning_rate,
            max_grad_norm=None,
            decay_updates=updates,
        )

        train, _ = rows

        def batch_loss() -> tuple[Tensor, Metrics]:
            value = loss(train[self._integers(len(train), config.batch_size)])
            return value, {"loss": value.detach()}

        loop.minimize(name, updates, batch_loss, optimizer)

    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """Return the policy's actions: the model alone knows what an action leads to, not which one led there."""
        if not self.imitated:
            raise ValueError("infer_actions: IIDMAgent infers actions by its policy; call imitate first")
        return act_on_windows(self.policy, demos, (torch.arange(len(demos), device=self.device) - 1).clamp_min(0))


def policy_actions(policy: StackedNetwork, features: Tensor, noise: Callable[..., Tensor]) -> Tensor:
    """Return a policy's encoded actions (N, A) with a gradient; discrete ones are sampled.

    :param features: encoded stacks (N, frames, E).
    :param noise: source of standard normal numbers of a given shape.
    """
    out = policy.act(features)
    return OneHotCategorical(out.log_softmax(-1)).rsample(noise(*out.shape)) if policy.discrete else out


def prediction_errors(model: ForwardModel, dataset: TrajectoryDataset, rows: Tensor, actions: Tensor) -> Tensor:
    """Return the errors (M, numbers) of predictions of the records at rows (M,) under encoded actions (M, A)."""
    return model.errors(encode_windows(model, dataset, rows - 1), actions, dataset.observed(rows))


@torch.no_grad()
def mean_over(rows: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean over rows (N,) of what ``of`` returns as the mean over a piece of them."""
    return torch.stack([of(piece) * (len(piece) / len(rows)) for piece in rows.split(ROWS_AT_ONCE)]).sum(0)
