"""What phase 2 adds to the ELBO: robust sums of nats, and a prior that adapts its width."""

from types import SimpleNamespace

import pytest
import torch

from aime_gym.model_based.action_inference import ActionBelief, ActionInference
from aime_gym.model_based.config import AIMEConfig
from aime_gym.models.config import PRESETS, WorldModelConfig
from aime_gym.models.rssm import RecordedActions
from aime_gym.models.world_model import WorldModel

T, B, A = 6, 3, 2
EVERYWHERE = torch.ones(T, B)


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


def test_a_belief_is_as_wide_as_actions_are_away_from_it():
    torch.manual_seed(0)
    batch = SimpleNamespace(rows=torch.arange(T * B).view(T, B), valid=torch.ones(T, B, dtype=torch.bool))
    means = torch.rand(T * B, A)
    errors = torch.tensor([0.1, 0.4]) * torch.randn(T, B, A)
    actions = (means[batch.rows] + errors).requires_grad_()
    belief = ActionBelief(means, torch.full((A,), 1e-4))
    penalty = belief.penalty(actions, batch, EVERYWHERE)
    variance = errors.square().mean((0, 1))
    torch.testing.assert_close(penalty, (0.5 * errors.square() / variance).sum(-1).sum(0).mean())
    (gradient,) = torch.autograd.grad(penalty, actions)
    torch.testing.assert_close(gradient, errors / variance / B)  # the width is no way out
    belief.penalty(means[batch.rows], batch, EVERYWHERE)
    assert (belief.distance < variance).all()
    narrow = ActionBelief(means, torch.ones(A))  # the error on play is the least variance
    torch.testing.assert_close(narrow.penalty(actions, batch, EVERYWHERE), 0.5 * errors.square().sum(-1).sum(0).mean())


def test_only_records_that_are_there_widen_a_belief():
    rows = torch.zeros(T, B, dtype=torch.long)
    batch = SimpleNamespace(rows=rows, valid=torch.arange(T)[:, None].expand(T, B) < 2)
    actions = torch.zeros(T, B, A)
    actions[2:] = 100.0
    belief = ActionBelief(torch.ones(1, A), torch.full((A,), 1e-4))
    torch.testing.assert_close(belief.penalty(actions, batch, EVERYWHERE), torch.tensor(0.5 * A * 2))
    torch.testing.assert_close(belief.distance, torch.ones(A))


@pytest.mark.parametrize(("preset", "expected"), [("default", 30.0), ("aime", None)])
def test_nats_are_summed_where_sigma_is_learnt(preset, expected):
    model = WorldModel(PRESETS[preset], {"observation": (3,)}, A)
    assert ActionInference.from_config(AIMEConfig(), model).robust_nats == expected


def test_the_belief_counts_where_the_evidence_does_not():
    inference = ActionInference(None, 10.0)
    weights = inference.unexplained(SimpleNamespace(surprise=torch.tensor([0.0, 10.0, 1e6])))
    torch.testing.assert_close(weights, torch.tensor([0.0, 0.25, 1.0]), rtol=0, atol=1e-4)
    assert (ActionInference(None, None).unexplained(SimpleNamespace(surprise=torch.zeros(2))) == 1).all()
