"""A video takes its name once it is complete; what is damaged later is found by its digest."""

import contextlib
import json

import gymnasium as gym
import numpy as np
import pytest
from full_disk import full_disk

from aime_gym.data import load_trajectories, save_video, save_videos
from aime_gym.data.video_writing import check_video_path, write_video
from aime_gym.types import Trajectory

pytestmark = pytest.mark.filterwarnings("error")

KINDS = [".mp4", ".gif", ""]


def noise(count=6, side=32, colours=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (colours, 3), dtype=np.uint8)[rng.integers(0, colours, (count, side, side))]


@pytest.mark.parametrize("size", [0, 100, 2000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk(tmp_path, kind, size):
    path = tmp_path / f"video{kind}"
    if kind:
        save_video(path, noise(seed=1), 20)
    with full_disk(size), pytest.raises(OSError, match=f"File too large.*video{kind}"):
        save_video(path, noise(), 20)
    assert list(tmp_path.iterdir()) == ([path] if kind else [])
    if kind:
        np.testing.assert_array_equal(load_trajectories(path)[0].observations, noise(seed=1))
        save_video(path, noise(), 20)
        np.testing.assert_array_equal(load_trajectories(path)[0].observations, noise())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("kind", [".mp4", ".gif"])
@pytest.mark.parametrize("lossless", [True, False])
def test_an_interrupted_video(tmp_path, kind, lossless, error):
    path = tmp_path / f"video{kind}"

    def frames(count):
        yield from noise()[:count]
        raise error

    for count in (0, 1, 4):
        with pytest.raises(error):
            write_video(path, frames(count), 20, lossless=lossless)
        assert not list(tmp_path.iterdir())
    save_video(path, noise(), 20)
    before = path.read_bytes()
    with pytest.raises(error):
        write_video(path, frames(4), 20, lossless=lossless)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_videos_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="frames: expected at least one frame"):
        write_video(tmp_path / "a.mp4", [], 20)
    with pytest.raises(OSError, match=r"a\.mp4"):  # as half the pixels have a colour
        write_video(tmp_path / "a.mp4", noise(side=33), 20)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(IsADirectoryError, match=r"path: expected a file, got the folder .*a\.mp4"):
        save_video(tmp_path / "a.mp4", noise(), 20)
    with pytest.raises(IsADirectoryError, match=r"--out: expected a file, got the folder .*a\.mp4"):
        check_video_path(tmp_path / "a.mp4", "--out")


@pytest.mark.parametrize("kind", [".mp4", ".gif"])
def test_videos_to_look_at(tmp_path, kind):
    """Close to the frames, of which a gif may have more colours than it has room for."""
    smooth = np.stack(np.meshgrid(np.arange(64), np.arange(64), np.arange(1)), axis=-1)[:, :, 0] * 4
    shown = np.stack([smooth.astype(np.uint8) + np.uint8(index) for index in range(5)])
    write_video(tmp_path / f"a{kind}", iter(shown), 20)
    read = load_trajectories(tmp_path / f"a{kind}")[0].observations
    assert read.shape == shown.shape
    assert np.abs(read.astype(int) - shown).mean() < 8


class Camera(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_fps": 20}


def test_bits_that_flip(tmp_path):
    folder = save_videos(tmp_path / "videos", [Trajectory(noise(seed=seed)) for seed in range(2)], Camera())
    path = folder / "001.mp4"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 40):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"001\.mp4: expected a readable video.*digest differs"):
            load_trajectories(folder)
        assert len(load_trajectories(folder / "000.mp4")) == 1
        with contextlib.suppress(ValueError):
            load_trajectories(folder, check_digests=False)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"001\.mp4: expected a readable video, but it is damaged or cut short"):
        load_trajectories(folder, check_digests=False)


def test_a_description_that_was_changed(tmp_path):
    folder = save_videos(tmp_path / "videos", [Trajectory(noise())], Camera(), policy="expert")
    path = folder / "videos.json"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(7)
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            np.testing.assert_array_equal(load_trajectories(folder, frame_rate=20)[0].observations, noise())
    described = json.loads(data)
    path.write_text(json.dumps({**described, "frame_rate": 40.0}))
    with pytest.raises(ValueError, match=r"videos\.json: .* damaged \(its digest differs; remove the key .digests."):
        load_trajectories(folder)
    del described["digests"]
    path.write_text(json.dumps({**described, "frame_rate": 40.0}))
    with pytest.warns(UserWarning, match="40 frames per second"):
        assert len(load_trajectories(folder, frame_rate=20)[0]) == 2
