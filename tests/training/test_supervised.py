"""Early stopping and validation of regressions of actions."""

import pytest
import torch

from aime_gym.data import ActionEncoding, TrajectoryDataset
from aime_gym.models.images import ImageEncoder
from aime_gym.models.stacked import StackedNetwork
from aime_gym.testing import toy
from aime_gym.training.supervised import StackedConfig, act_on_windows, regress_actions

FRAMES = 3


def make(task):
    env, play, _ = toy.task(task)
    dataset = TrajectoryDataset(play, ActionEncoding(env.action_space))
    shapes = {"observation": env.observation_space.shape}
    torch.manual_seed(0)
    network = StackedNetwork(shapes, FRAMES, 2, discrete=False, hidden=16)
    network.fit_standardizer(dataset.observations)
    return network, dataset


class Runner:
    """Makes so many updates and stops."""

    def __init__(self, updates):
        self.updates = updates

    def run(self, name, total, update, state):
        for _ in range(min(total, self.updates)):
            update()
        return True


@pytest.mark.parametrize("updates", [1, 3, 5, 6])
def test_the_last_weights_are_validated_wherever_training_ends(updates):
    """Check that weights that keep improving are the best of their run, after whole epochs and within one."""
    network, dataset = make(toy.PointMass)
    config = StackedConfig(batch_size=90, max_epochs=2, min_epochs=0, min_updates=1)
    train_mask = [True] * 9 + [False] * 3  # three updates an epoch
    seen = []

    class Watched(Runner):
        def run(self, name, total, update, state):
            super().run(name, total, update, state)
            seen.append({key: value.clone() for key, value in network.state_dict().items()})

    error = regress_actions(
        network, dataset, dataset.prev_actions, train_mask, lag=0, config=config, name="inverse",
        runner=Watched(updates), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    for key, value in network.state_dict().items():
        assert torch.equal(value, seen[0][key])
    _, held_out = dataset.split_rows(train_mask, 0.7)
    with torch.no_grad():
        expected = network.loss(dataset.windows(held_out, FRAMES), dataset.prev_actions[held_out])
    assert error == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("lag", [0, 1])
def test_windows_share_the_encoding_of_their_frames(lag, monkeypatch):
    network, dataset = make(toy.PixelPointMass)
    _, rows = dataset.split_rows([True] * 9 + [False] * 3, 0.7)
    with torch.no_grad():
        expected = network(dataset.windows(rows - lag, FRAMES))
    encoded = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda self, x: encoded.append(len(x)) or forward(self, x))
    torch.testing.assert_close(act_on_windows(network, dataset, rows - lag), expected)
    assert sum(encoded) == 3 * (toy.STEPS + 1 - lag)


def test_features_of_one_piece_are_kept_at_a_time(monkeypatch):
    monkeypatch.setattr("aime_gym.training.supervised.ROWS_AT_ONCE", 7)
    network, dataset = make(toy.PixelPointMass)
    rows = torch.arange(len(dataset))
    with torch.no_grad():
        expected = network(dataset.windows(rows, FRAMES))
    encoded = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda self, x: encoded.append(len(x)) or forward(self, x))
    torch.testing.assert_close(act_on_windows(network, dataset, rows), expected)
    assert max(encoded) <= 7 + FRAMES - 1
