"""Units of observations: what moves is seen, whatever else is observed, and what is still does not explode."""

import pytest
import torch

from aime_gym.models.standardizer import Standardizer


def fitted(values):
    standardizer = Standardizer(values.shape[1])
    standardizer.fit(values)
    return standardizer


def spread(*scales):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1000, len(scales), generator=generator) * torch.tensor(scales)


@pytest.mark.parametrize("scales", [(1.0, 1e5), (1e-3, 1e3), (1e-11, 1e-11), (1e20, 1e20), (1.0, 2.0, 1e4, 1e-1)])
def test_typical_entries_are_seen(scales):
    values = spread(*scales)
    std = fitted(values)(values).std(dim=0)
    assert std.isfinite().all()
    assert sorted(std.tolist())[(len(scales) - 1) // 2] == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("scales", [(1.0, 2.0, 0.5), (1.0, 1.0, 0.01, 0.0), (3.0,), (0.0, 1.0, 1.0)])
def test_ordinary_data_has_a_tenth_of_the_root_mean_square_as_its_floor(scales):
    values = spread(*scales)
    std = values.std(dim=0)
    expected = std.clamp_min(0.1 * std.square().mean().sqrt())
    assert torch.equal(fitted(values).std, expected)
    assert torch.equal(fitted(values).mean, values.mean(dim=0))


@pytest.mark.parametrize("value", [0.0, 7.0, 1e8])
def test_what_never_moves_stays_finite(value):
    values = torch.full((50, 2), value)
    assert fitted(values)(values + 1).abs().max() <= 1e7
    assert torch.equal(fitted(values[:1])(values), torch.zeros(50, 2))
