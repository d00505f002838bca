"""Evidence of demonstrations under one-hot actions, of which there are few enough to compare all."""

from __future__ import annotations

import torch
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.filtering import RowSource, by_pieces, filter_trajectories, standardized
from aime_gym.models.policies import CategoricalPolicy
from aime_gym.models.rssm import LikeliestActions, State
from aime_gym.models.world_model import WorldModel, per_sequence
from aime_gym.types import Metrics

#: Transitions at once in a comparison of one-hot actions.
_TRANSITIONS_AT_ONCE = 8192


class OneHotEvidence:
    """Evidence of demonstrations under a policy of one-hot actions, the policy's uncertainty summed out.

        -log sum_a pi(a | h, s) exp(-KL_a)

    for each record, where KL_a is its surprise if action a led there
    ([`surprise_of_each_action`][aime_gym.models.rssm.RSSM.surprise_of_each_action]) from the latent state before, which
    the likeliest actions have led to.

    :param world_model: world model, which stays as it is.
    :param demos: demonstrations, without actions.
    """

    def __init__(self, world_model: WorldModel, demos: TrajectoryDataset) -> None:
        #: Latent features of the demonstrations and the likeliest actions.
        self.filtered = filter_trajectories(world_model, demos, likeliest_source(world_model))
        self.surprise = self._surprise(world_model, demos)

    @torch.no_grad()
    def _surprise(self, model: WorldModel, demos: TrajectoryDataset) -> Tensor:
        """Return the surprise (N, A) of each record under each action; of first records it has no meaning."""
        sizes = [model.config.deter, model.config.stoch]
        pieces = []
        count = max(_TRANSITIONS_AT_ONCE // model.action_size, 1)
        for rows in torch.arange(len(demos), device=demos.device).split(count):
            before = State(*self.filtered.features[(rows - 1).clamp_min(0)].split(sizes, dim=-1))
            embeddings = by_pieces(model, lambda piece: model.embed(standardized(model, demos, piece)), rows)
            pieces.append(model.rssm.surprise_of_each_action(before, embeddings))
        return torch.cat(pieces)

    def loss(self, policy: CategoricalPolicy, rows: Tensor, valid: Tensor) -> tuple[Tensor, Metrics]:
        """Compute the negative evidence in nats per sequence.

        :param rows: rows (T, B) of sequences of the demonstrations; the action before the first one is not known.
        :param valid: mask (T, B) of the records that count.
        """
        log_probs, surprise = policy(self.filtered.features[rows[:-1]]).log_probs, self.surprise[rows[1:]]
        loss = per_sequence(-torch.logsumexp(log_probs - surprise, dim=-1), valid[1:])
        expected = (log_probs.detach().exp() * surprise).sum(-1)
        return loss, {"loss": loss.detach(), "kl": per_sequence(expected, valid[1:])}


def likeliest_source(world_model: WorldModel) -> RowSource:
    """Make a source of the one-hot actions that surprise a world model least, to filter trajectories with."""
    return lambda _, embeddings: LikeliestActions(world_model.rssm, embeddings)
