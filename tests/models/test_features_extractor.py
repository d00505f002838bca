"""Features of a Dict of sensors, for SB3's policies."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from aime_gym.models.features_extractor import SensorsExtractor
from aime_gym.models.standardizer import RunningStandardizer

SPACE = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (6, 16, 16), np.uint8),
        "angles": spaces.Box(-np.inf, np.inf, (2,), np.float32),
        "speed": spaces.Box(-np.inf, np.inf, (1,), np.float32),
    }
)


def test_vectors_are_in_units_of_their_spread_as_of_now():
    standardizer = RunningStandardizer(3)
    extractors = [SensorsExtractor(SPACE, standardizer, "patch") for _ in range(2)]
    observation = {"camera": torch.rand(500, 6, 16, 16), "angles": 5 + torch.randn(500, 2), "speed": torch.rand(500, 1)}
    vectors = torch.cat([observation["angles"], observation["speed"]], dim=-1)
    for extractor in extractors:
        torch.testing.assert_close(extractor(observation)[:, :3], vectors)  # nothing is known yet
    standardizer.update(vectors)
    for extractor in extractors:
        features = extractor(observation)
        assert features.shape == (500, extractor.features_dim)
        torch.testing.assert_close(features[:, :3].mean(0), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(features[:, :3].std(0), torch.ones(3), atol=1e-2, rtol=0)
        assert features[:, 3:].abs().max() <= 1


@pytest.mark.parametrize("name", ["front.left", "keys", "training", "", "$"])
def test_a_sensor_has_any_name(name):
    space = spaces.Dict({name: SPACE["camera"], "angles": SPACE["angles"]})
    extractors = [SensorsExtractor(space, RunningStandardizer(2), "patch") for _ in range(2)]
    extractors[1].load_state_dict(extractors[0].state_dict())
    observation = {name: torch.rand(3, 6, 16, 16), "angles": torch.randn(3, 2)}
    features = [extractor(observation) for extractor in extractors]
    torch.testing.assert_close(*features, atol=0, rtol=0)
    assert not torch.equal(features[0], extractors[0](observation | {name: torch.rand(3, 6, 16, 16)}))
