"""What phase 2 adds to the ELBO: robust sums of nats, and a prior that adapts its width."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.action_inference import ActionBelief, ActionInference
from aime_gym.model_based.config import AIMEConfig
from aime_gym.model_based.filtering import FilteredLatents
from aime_gym.model_based.one_hot_evidence import OneHotEvidence
from aime_gym.models.config import PRESETS, WorldModelConfig
from aime_gym.models.policies import CategoricalPolicy
from aime_gym.models.rssm import RecordedActions
from aime_gym.models.world_model import WorldModel
from aime_gym.types import Trajectory

T, B, A = 6, 3, 2


@pytest.fixture(autouse=True)
def double():
    """Float64, in which formulas agree to the last digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_evidence(scale, robust_nats):
    """The evidence of random observations of some scale, and the model."""
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8), {"observation": (3,)}, A)
    observations = {"observation": scale * torch.randn(T, B, 3)}
    actions, noise = torch.rand(T, B, A), torch.randn(T, B, 4)
    evidence = model.evidence(observations, RecordedActions(actions), noise, regularize=False, robust_nats=robust_nats)
    return evidence, model, observations


def test_records_that_nothing_explains_count_by_the_logarithm_of_their_surprise():
    evidence, model, observations = make_evidence(2.0, 5.0)
    latents = evidence.latents
    kl = latents.posterior.kl(latents.prior).sum(-1)
    decoded = model.decode(latents.states.feature)["observation"]
    surprise = kl + 0.5 * ((observations["observation"] - decoded.mean) / decoded.std).square().sum(-1)
    assert (surprise >= 0).all()
    torch.testing.assert_close(evidence.loss, (5 * (1 + surprise / 5).log()).sum(0).mean())
    plain, _, _ = make_evidence(2.0, None)
    torch.testing.assert_close(evidence.elbo, plain.elbo)  # which is reported as it is


def test_a_large_bound_is_the_sum_of_nats():
    robust, _, _ = make_evidence(0.1, 1e9)
    plain, _, _ = make_evidence(0.1, None)
    best = 3 * T * torch.log(torch.tensor(0.1 * (2 * torch.pi) ** 0.5))  # of a Gaussian with sigma 0.1
    torch.testing.assert_close(robust.loss + best, plain.loss, rtol=1e-5, atol=1e-5)


def make_belief(means, least_variance, surprise=0.0):
    """A belief of actions (N, A) that leaves some surprise, the same at all records or one for each."""
    surprises = torch.as_tensor(surprise).expand(len(means))
    return ActionBelief(FilteredLatents(torch.zeros(len(means), 3), means, surprises), torch.full((A,), least_variance))


def evidence_of(actions, surprise=1.0):
    """Evidence under a policy's actions, which leave some surprise."""
    surprises = torch.as_tensor(surprise).expand(actions.shape[:2])
    return SimpleNamespace(latents=SimpleNamespace(prev_actions=actions), surprise=surprises)


def test_a_belief_is_as_wide_as_actions_are_away_from_it():
    torch.manual_seed(0)
    batch = SimpleNamespace(rows=torch.arange(T * B).view(T, B), valid=torch.ones(T, B, dtype=torch.bool))
    means = torch.rand(T * B, A)
    errors = torch.tensor([0.1, 0.4]) * torch.randn(T, B, A)
    actions = (means[batch.rows] + errors).requires_grad_()
    belief = make_belief(means, 1e-4)
    penalty = belief.penalty(evidence_of(actions), batch)
    variance = errors.square().mean((0, 1))
    torch.testing.assert_close(penalty, (0.5 * errors.square() / variance).sum(-1).sum(0).mean())
    (gradient,) = torch.autograd.grad(penalty, actions)
    torch.testing.assert_close(gradient, errors / variance / B)  # the width is no way out
    belief.penalty(evidence_of(means[batch.rows]), batch)
    assert (belief.distance < variance).all()
    narrow = make_belief(means, 1.0)  # the error on play is the least variance
    torch.testing.assert_close(narrow.penalty(evidence_of(actions), batch), 0.5 * errors.square().sum(-1).sum(0).mean())


def test_only_records_that_are_there_widen_a_belief():
    rows = torch.zeros(T, B, dtype=torch.long)
    batch = SimpleNamespace(rows=rows, valid=torch.arange(T)[:, None].expand(T, B) < 2)
    actions = torch.zeros(T, B, A)
    actions[2:] = 100.0
    belief = make_belief(torch.ones(1, A), 1e-4)
    torch.testing.assert_close(belief.penalty(evidence_of(actions), batch), torch.tensor(0.5 * A * 2))
    torch.testing.assert_close(belief.distance, torch.ones(A))


def test_a_belief_counts_at_the_records_that_it_explains_better():
    batch = SimpleNamespace(rows=torch.arange(T)[:, None].expand(T, B), valid=torch.ones(T, B, dtype=torch.bool))
    actions = torch.zeros(T, B, A).requires_grad_()
    belief = make_belief(torch.ones(T, A), 1.0, surprise=torch.arange(T, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(belief.penalty(evidence_of(actions, surprise=1.5), batch), actions)
    assert (gradient[:2] < 0).all()
    assert (gradient[2:] == 0).all()


@pytest.mark.parametrize(("preset", "expected"), [("default", 30.0), ("aime", None)])
def test_nats_are_summed_where_sigma_is_learnt(preset, expected):
    model = WorldModel(PRESETS[preset], {"observation": (3,)}, A)
    assert ActionInference.from_config(AIMEConfig(), model).robust_nats == expected


def test_the_evidence_of_one_hot_actions_sums_them_out():
    """Against one pass of the model for each action, in the state that the likeliest ones have led to."""
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8), {"observation": (3,)}, A)
    policy = CategoricalPolicy(model.feature_size, A, hidden=4)
    demos = [
        Trajectory(observations=np.random.default_rng(i).normal(size=(length, 3)), actions=None, truncated=True)
        for i, length in enumerate((T, T - 2))
    ]
    dataset = TrajectoryDataset(demos, None)
    dataset.observations = {name: values.double() for name, values in dataset.observations.items()}
    found = OneHotEvidence(model, dataset)
    expected = []
    for start, length in zip(dataset.starts, dataset.counts, strict=True):
        rows = torch.arange(int(start), int(start + length))
        observations = {"observation": dataset.observations["observation"][rows][:, None]}
        chosen, zeros = found.filtered.prev_actions[rows], torch.zeros(len(rows), 1, 4)
        for t in range(1, len(rows)):
            surprise = []
            for action in torch.eye(A):
                taken = chosen.clone()
                taken[t] = action
                latents = model.evidence(observations, RecordedActions(taken[:, None]), zeros).latents
                surprise.append(latents.posterior.kl(latents.prior).sum(-1)[t, 0])
            assert int(torch.stack(surprise).argmin()) == int(chosen[t].argmax())
            pi = policy(latents.states.feature[t - 1, 0]).log_probs.exp()
            expected.append(-sum(p * (-nats).exp() for p, nats in zip(pi, surprise, strict=True)).log())
    steps = torch.arange(T)[:, None]
    rows = dataset.starts + torch.minimum(steps, dataset.counts - 1)
    loss, metrics = found.loss(policy, rows, steps < dataset.counts)
    torch.testing.assert_close(loss, torch.stack(expected).sum() / len(demos))
    assert metrics["kl"] >= loss  # by Jensen's inequality
