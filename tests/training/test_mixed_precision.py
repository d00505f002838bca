"""Mixed precision: the same loss and gradients but for rounding, in tensors of the usual types."""

import pytest
import torch

import aime_gym.training.mixed_precision as module
from aime_gym.models.config import PRESETS
from aime_gym.models.rssm import RecordedActions
from aime_gym.models.world_model import WorldModel
from aime_gym.training.mixed_precision import mixed_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def any_processor(monkeypatch):
    """Products of bfloat16 on every processor, however slow."""
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: True)


@pytest.mark.parametrize("preset", ["small", "aime"])
def test_gradients_agree_but_for_rounding(preset):
    torch.manual_seed(0)
    model = WorldModel(PRESETS[preset], {"observation": (5,)}, 2)
    observations = {"observation": torch.randn(6, 4, 5)}
    actions, noise = torch.rand(6, 4, 2), torch.randn(6, 4, model.config.stoch)

    def gradient(enabled):
        model.zero_grad()
        with mixed_precision(CPU, enabled=enabled):
            evidence = model.evidence(observations, RecordedActions(actions), noise)
        evidence.loss.backward()
        assert {tensor.dtype for tensor in (evidence.loss, *evidence.latents.states)} == {torch.float32}
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact, rounded = gradient(False), gradient(True)
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.999


def test_is_off_where_it_is_not_asked_for_or_not_faster(monkeypatch):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: False)
    with mixed_precision(CPU):
        assert not torch.is_autocast_enabled("cpu")
    with mixed_precision(CPU, enabled=False):
        assert not torch.is_autocast_enabled("cpu")
