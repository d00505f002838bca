import numpy as np
import pytest
import torch
from gymnasium import spaces

from aime_gym.data import ActionEncoding, SequenceSampler, TrajectoryDataset, split_trajectories
from aime_gym.types import Trajectory

BOX = spaces.Box(-2, 2, (1,), np.float32)


def numbered(lengths):
    """Trajectories whose observation at step t of episode e is 100 e + t, and whose action there is t / 100."""
    return [
        Trajectory(
            100 * episode + np.arange(length + 1, dtype=np.float32)[:, None],
            np.arange(length, dtype=np.float32)[:, None] / 100,
        )
        for episode, length in enumerate(lengths)
    ]


def sampler(dataset, **options):
    return SequenceSampler(
        dataset, generator=torch.Generator().manual_seed(0), **{"sequence_length": 4, "batch_size": 200, **options}
    )


def test_sequences_are_windows_with_the_action_that_led_to_each_record():
    batch = sampler(TrajectoryDataset(numbered([9, 6]), ActionEncoding(BOX))).sample()
    values = batch.observations["observation"][..., 0]
    assert values.shape == (4, 200)
    assert (values[1:] - values[:-1] == 1).all()
    step = values % 100
    expected = torch.where(step == 0, torch.zeros(()), (step - 1) / 100 / 2)
    torch.testing.assert_close(batch.prev_actions[..., 0], expected)
    assert torch.equal(batch.is_first, step[0] == 0)
    assert batch.valid.all()


def test_every_window_is_drawn():
    batch = sampler(TrajectoryDataset(numbered([9, 6]), None), batch_size=2000).sample()
    starts = set(batch.observations["observation"][0, :, 0].int().tolist())
    assert starts == {*range(7), *range(100, 104)}


def test_short_trajectories_repeat_their_end_and_are_masked():
    batch = sampler(TrajectoryDataset(numbered([1, 9]), None)).sample()
    values = batch.observations["observation"][..., 0]
    short = values[0] < 100
    assert short.any()
    assert (values[2:, short] == 1).all()
    assert batch.valid[:, short].sum(0).eq(2).all()
    assert batch.valid[:, ~short].all()


def test_a_share_of_the_sequences_starts_where_episodes_start():
    dataset = TrajectoryDataset(numbered([99, 99]), None)
    assert sampler(dataset, start_fraction=1.0).sample().is_first.all()
    assert 0.4 < sampler(dataset, start_fraction=0.5, batch_size=1000).sample().is_first.float().mean() < 0.65


def test_stacks_repeat_the_first_record_of_their_trajectory():
    dataset = TrajectoryDataset(numbered([5, 5]), None)
    stack = dataset.windows(torch.tensor([1, 6, 9]), 3)["observation"]
    assert stack[..., 0].tolist() == [[0, 0, 1], [100, 100, 100], [101, 102, 103]]


def test_episodes_visit_every_record_once():
    dataset = TrajectoryDataset(numbered([5, 2, 7]), None)
    seen = torch.cat([rows[valid] for rows, valid in dataset.episodes(2)])
    assert sorted(seen.tolist()) == list(range(len(dataset)))


def split(count, fraction, known=(), seed=0):
    return split_trajectories(count, fraction, torch.Generator().manual_seed(seed), known)


def test_no_trajectory_is_in_both_parts():
    dataset = TrajectoryDataset(numbered([5] * 10), None)
    first, second = dataset.split_rows(split(10, 0.7), 0.7)
    assert len({int(row) // 6 for row in first}) == 7
    assert not {int(row) // 6 for row in first} & {int(row) // 6 for row in second}
    assert not (torch.cat([first, second]) % 6 == 0).any()


def test_a_single_trajectory_is_cut_in_time():
    first, second = TrajectoryDataset(numbered([10]), None).split_rows(split(1, 0.7), 0.7)
    assert first.tolist() == list(range(1, 8))
    assert second.tolist() == list(range(8, 11))


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_that_grows(fraction, seed):
    known = []
    for count in (1, 2, 3, 3, 7, 20, 21):
        train_mask = split(count, fraction, known, seed)
        assert train_mask[: len(known)] == known
        assert any(train_mask)
        assert count == 1 or not all(train_mask)
        known = train_mask
    assert abs(sum(known) - fraction * len(known)) <= 1
    assert split(2, fraction, known, seed) == known[:2]


def test_changes_stay_inside_a_trajectory():
    dataset = TrajectoryDataset(numbered([3, 3]), None)
    changes = dataset.differences(dataset.observations["observation"])[:, 0]
    assert changes.tolist() == [0, 1, 1, 1, 0, 1, 1, 1]


def test_actions_of_some_are_not_enough():
    trajectories = numbered([3, 3])
    with pytest.raises(ValueError, match="expected all with actions"):
        TrajectoryDataset([trajectories[0], trajectories[1].without_actions()], ActionEncoding(BOX))


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (spaces.Box(np.array([-2, 0]), np.array([2, 1]), dtype=np.float64), np.array([[-2, 1], [0.5, 0.25]])),
        (spaces.Box(0, 10, (1,), np.int64), np.arange(11)[:, None]),
        (spaces.Box(np.array([0.0, 1.0]), np.array([0.0, 2.0]), dtype=np.float64), np.array([[0.0, 1.5]])),
        (spaces.Discrete(4, start=2), np.array([2, 5, 3])),
    ],
)
def test_encoded_actions_come_back(space, actions):
    encoding = ActionEncoding(space)
    encoded = encoding.encode(actions)
    assert encoded.shape == (len(actions), encoding.size)
    assert np.abs(encoded).max() <= 1
    np.testing.assert_allclose(encoding.decode(encoded), actions, atol=1e-6)


def test_spaces_without_an_encoding_are_named():
    for space in (spaces.Box(-np.inf, np.inf, (1,)), spaces.MultiBinary(3)):
        with pytest.raises(ValueError, match="action_space: expected"):
            ActionEncoding(space)
