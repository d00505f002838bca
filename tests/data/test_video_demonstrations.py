"""Videos, gifs and folders of frames become the same trajectories; errors name the file that is wrong."""

import contextlib
import json
import re

import gymnasium as gym
import numpy as np
import pytest
from encoding import encode
from gymnasium import spaces
from PIL import Image

import aime_gym
from aime_gym.data import (
    collect,
    described_quality,
    frame_rate,
    frame_rate_of,
    frame_shape,
    load_trajectories,
    save_video,
    save_videos,
)
from aime_gym.types import Trajectory
from aime_gym.wrappers.rendering import require_gl

pytestmark = pytest.mark.filterwarnings("error")

#: The index of an mp4 stands at the end, or at the front.
FRONT = {"container_options": {"movflags": "faststart"}}
#: Codec, pixels, and options of codec and container of what users bring.
CODECS = {
    "end.mp4": ("libx264", "yuv420p", {}, {}),
    "front.mp4": ("libx264", "yuv420p", {}, FRONT),
    "end.mov": ("libx264", "yuv420p", {}, {}),
    "front.mov": ("mpeg4", "yuv420p", {}, FRONT),
    "h264.mkv": ("libx264", "yuv420p", {}, {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}, {}),
    "vp8.webm": ("libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16"}, {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}, {}),
}
KINDS = [".mp4", ".gif", ""]
NO_RATES = [0, -1.0, float("nan"), np.float32("inf"), "20", True]


def frames(count=12, height=16, width=16, colours=200, seed=0):
    """Noise, whose palette changes with each frame; the second frame repeats the first, and the last the one before."""
    rng = np.random.default_rng(seed)
    palettes = rng.integers(0, 256, (count, colours, 3), dtype=np.uint8)
    numbers = rng.integers(0, colours, (count, height, width))
    shown = np.stack([palette[number] for palette, number in zip(palettes, numbers, strict=True)])
    shown[1], shown[-1] = shown[0], shown[-2]
    return shown


def counting(count, size=8):
    """Frame ``k`` is of the grey ``k``, so that one sees which frames were taken."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, 3)).copy()


def load_one(path, **options):
    (trajectory,) = load_trajectories(path, **options)
    assert trajectory.actions is None
    assert trajectory.rewards is None
    assert trajectory.observations.dtype == np.uint8
    return trajectory.observations


def taken(path, rate):
    """Which frames of `counting` a rate takes."""
    return load_one(path, frame_rate=rate)[:, 0, 0, 0].tolist()


# ---- what is written is read ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("height", "width", "count", "rate"),
    [(1, 1, 2, 20), (5, 7, 9, 40.0), (32, 32, 12, 125 / 3), (33, 31, 3, np.int64(40)), (64, 64, 40, np.float32(12.5))],
)
def test_bit_by_bit(tmp_path, kind, height, width, count, rate):
    shown = frames(count, height, width)
    path = save_video(tmp_path / f"video{kind}", shown, rate)
    np.testing.assert_array_equal(load_one(path, frame_rate=rate, frame_shape=(height, width, 3)), shown)


@pytest.mark.parametrize("kind", [".mp4", ""])
def test_any_number_of_colours(tmp_path, kind):
    shown = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load_one(save_video(tmp_path / f"video{kind}", shown, 20)), shown)


def test_a_gif_of_too_many_colours_says_so_once(tmp_path):
    shown = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match=r"v\.gif: a gif has 256 colours") as caught:
        save_video(tmp_path / "v.gif", shown, 20)
    assert len(caught) == 1
    assert load_one(tmp_path / "v.gif").shape == shown.shape


@pytest.mark.parametrize("name", ["reach-v3", "walker-walk"])
def test_an_episode_is_the_same_in_every_format(tmp_path, name):
    try:
        require_gl()
    except RuntimeError as error:
        pytest.skip(str(error))
    with aime_gym.make_env(name, modality="pixels", image_size=32, max_episode_steps=12) as env:
        (episode,) = collect(env, "random", 1, seed=0, progress=False)
        rate, shape = frame_rate_of(env), frame_shape(env.observation_space)
        folder = save_videos(tmp_path / "videos", [episode], env, policy="random")
    assert rate == {"reach-v3": 40, "walker-walk": 20}[name]
    np.testing.assert_array_equal(load_one(folder, frame_rate=rate, frame_shape=shape), episode.observations)
    few = episode.observations & 0b11000000  # colours of which a gif has room for all
    for kind in KINDS:
        path = save_video(tmp_path / f"video{kind}", Trajectory(few), rate)
        np.testing.assert_array_equal(load_one(path, frame_rate=rate, frame_shape=shape), few)
        path = None if kind == ".gif" else save_video(tmp_path / f"all{kind}", episode, rate)
        if path:
            np.testing.assert_array_equal(load_one(path), episode.observations)


@pytest.mark.parametrize("channels", [1, 4])
def test_folders_keep_other_channels(tmp_path, channels):
    shown = np.random.default_rng(0).integers(0, 256, (4, 6, 6, channels), dtype=np.uint8)
    path = save_video(tmp_path / "video", shown, 20)
    np.testing.assert_array_equal(load_one(path, frame_shape=(6, 6, channels)), shown)


@pytest.mark.parametrize("name", CODECS)
def test_what_users_bring(tmp_path, name):
    codec, pixels, options, container = CODECS[name]
    shown = np.repeat(np.repeat(frames(25, 4, 4), 16, axis=1), 16, axis=2)
    shown[:, :, :32] //= 2
    path = encode(tmp_path / name, shown, 30, codec, pixels, options, **container)
    read = load_one(path, frame_rate=30, frame_shape=(64, 64, 3))
    assert read.shape == shown.shape
    assert load_one(path, frame_rate=29.97).shape == shown.shape
    with pytest.warns(UserWarning, match="another frame rate"):
        halved = load_one(path, frame_rate=15)
    np.testing.assert_array_equal(halved, read[::2])


def test_a_sensor_of_a_trajectory(tmp_path):
    episode = Trajectory({"image": frames(), "joints": np.zeros((12, 3), np.float32)})
    np.testing.assert_array_equal(load_one(save_video(tmp_path / "a.mp4", episode, 20)), frames())
    np.testing.assert_array_equal(load_one(save_video(tmp_path / "b.mp4", episode, 20, sensor="image")), frames())
    for sensor, message in (("joints", "video: expected uint8 frames"), ("eye", r"sensor: expected one of \['image'")):
        with pytest.raises(ValueError, match=message):
            save_video(tmp_path / "c.mp4", episode, 20, sensor=sensor)
    with pytest.raises(ValueError, match="sensor: expected the name of one that has images"):
        save_video(tmp_path / "c.mp4", Trajectory(np.zeros((3, 2))), 20)


@pytest.mark.parametrize(
    ("name", "shown", "rate", "message"),
    [
        ("a.webm", frames(), 20, "path: expected .mp4, .gif or a folder"),
        *(("a.mp4", frames(), rate, f"frame_rate: expected a positive number, got {rate}") for rate in NO_RATES),
        ("a.gif", frames(), 200, "frame_rate: expected at most 100 for a gif, got 200"),
        ("a.mp4", frames()[..., :1], 20, "video: expected frames of 3 channels for a.mp4, got 1"),
        ("a", frames()[..., :2], 20, "video: expected frames of 1, 3 or 4 channels for a, got 2"),
        ("a.mp4", frames() / 255, 20, "video: expected uint8 frames"),
        ("a.mp4", frames()[0], 20, "video: expected uint8 frames"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, shown, rate, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        save_video(tmp_path / name, shown, rate)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_written_into(tmp_path):
    save_video(tmp_path / "video", frames(), 20)
    with pytest.raises(FileExistsError):
        save_video(tmp_path / "video", frames(), 20)


# ---- what stands beside the videos ----


class Camera(gym.Env):
    """Shows noise, 28.9 times a second."""

    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = spaces.Discrete(2)
    metadata = {"render_fps": 28.9}
    spec = gym.envs.registration.EnvSpec("Camera-v0", kwargs={"quality": "fast", "size": np.int64(8), "table": [1]})


def test_videos_and_what_is_known_of_them(tmp_path):
    episodes = [Trajectory(frames(count=count, height=8, width=8)) for count in range(2, 14)]
    folder = save_videos(tmp_path / "videos", episodes, Camera(), policy="expert")
    described = json.loads((folder / "videos.json").read_text())
    digests = described.pop("digests")
    names = [f"{index:03d}.mp4" for index in range(12)]
    assert described == {
        "env_id": "Camera-v0",
        "env_arguments": {"quality": "fast", "size": 8},
        "frame_rate": 28.9,
        "policy": "expert",
        "videos": names,
    }
    assert list(digests) == [*names, "videos.json"]
    assert described_quality(folder / names[0]) == "fast"
    loaded = load_trajectories(folder, frame_rate=28.9, frame_shape=(8, 8, 3))
    for episode, read in zip(episodes, loaded, strict=True):
        np.testing.assert_array_equal(read.observations, episode.observations)
        assert read.rendering == "fast"
    with pytest.raises(FileExistsError, match="videos exists already"):
        save_videos(folder, episodes, Camera())


def test_the_stated_rate_comes_first(tmp_path):
    path = save_video(tmp_path / "a.gif", counting(8), 40)
    description = tmp_path / "videos.json"
    description.write_text(json.dumps({"frame_rate": 80, "videos": ["a.gif"]}))
    with pytest.warns(UserWarning, match=r"80 frames per second.*40 times"):
        assert taken(path, 40) == [0, 2, 4, 6]
    assert described_quality(path) == "default"
    description.write_text(json.dumps({"frame_rate": 80, "videos": ["b.gif"]}))
    assert taken(path, 40) == list(range(8))
    assert described_quality(path) is None
    for damage in (
        "{",
        "[]",
        '{"frame_rate": "fast"}',
        '{"frame_rate": 0, "videos": []}',
        '{"frame_rate": 1e400, "videos": []}',
        '{"frame_rate": 80, "videos": ["a.gif"], "env_arguments": 1}',
        '{"frame_rate": 80, "videos": ["a.gif"], "digests": ["a.gif"]}',
    ):
        description.write_text(damage)
        with pytest.raises(ValueError, match=r"videos\.json: expected a description as save_videos writes it"):
            load_trajectories(path)


def test_no_description(tmp_path):
    assert described_quality(tmp_path / "a.gif") is None


def test_videos_that_cannot_be_written(tmp_path):
    silent = Camera()
    silent.metadata = {}
    with pytest.raises(ValueError, match=r"env: expected decisions per second"):
        save_videos(tmp_path / "videos", [Trajectory(frames())], silent)
    with pytest.raises(ValueError, match="trajectories: expected at least one"):
        save_videos(tmp_path / "videos", [], Camera())
    with pytest.raises(ValueError, match="sensor: expected"):
        save_videos(tmp_path / "videos", [Trajectory(np.zeros((3, 2)))], Camera())
    assert not list(tmp_path.iterdir())


# ---- rates ----


@pytest.mark.parametrize("kind", [".mp4", ".gif"])
@pytest.mark.parametrize(
    ("count", "rate", "wanted", "expected"),
    [
        (11, 40, 20, [0, 2, 4, 6, 8, 10]),
        (10, 40, 20, [0, 2, 4, 6, 8]),
        (9, 50, 20, [0, 2, 5, 7]),
        (7, 25, 20, [0, 1, 2, 3, 5, 6]),
        (4, 10, 20, [0, 0, 1, 1, 2, 2, 3, 3]),
        (4, 10, 25, [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]),
    ],
)
def test_resampling(tmp_path, kind, count, rate, wanted, expected):
    path = save_video(tmp_path / f"v{kind}", counting(count), rate)
    assert taken(path, None) == list(range(count))
    assert taken(path, rate) == list(range(count))
    with pytest.warns(UserWarning, match=rf"1 of 1 videos .* frames per second\).* {wanted} times a second"):
        assert taken(path, wanted) == expected


@pytest.mark.parametrize("rate", [15, 20, 24, 30, 33.3, 40, 45, 60, 62.5, 83.3, 100])
def test_a_gif_rounds_its_rate(tmp_path, rate):
    assert taken(save_video(tmp_path / "a.gif", counting(30), rate), rate) == list(range(30))
    # As Pillow and others write it: every delay is cut to the same whole number of centiseconds.
    images = [Image.fromarray(frame) for frame in counting(30)]
    images[0].save(tmp_path / "b.gif", save_all=True, append_images=images[1:], duration=1000 / rate)
    assert taken(tmp_path / "b.gif", rate) == list(range(30))


def test_a_gif_that_merges_equal_frames(tmp_path):
    shown = counting(9)
    shown[3:6] = shown[2]
    images = [Image.fromarray(frame) for frame in shown]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=50)
    assert taken(tmp_path / "a.gif", None) == [0, 1, 2, 6, 7, 8]
    with pytest.warns(UserWarning, match="on average, unsteady"):
        assert taken(tmp_path / "a.gif", 20) == [0, 1, 2, 2, 2, 2, 6, 7, 8]


def test_a_gif_without_delays(tmp_path):
    images = [Image.fromarray(frame) for frame in counting(5)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    assert taken(tmp_path / "a.gif", 20) == list(range(5))


def test_frames_that_come_unsteadily(tmp_path):
    late = [0, 1, 2, 3, 9, 10, 11, 12]  # the fifth of them stays away for 5 frames
    path = encode(tmp_path / "a.mkv", counting(8), 20, "ffv1", "bgr0", times=late)
    assert taken(path, None) == list(range(8))
    with pytest.warns(UserWarning, match="unsteady"):
        assert taken(path, 20) == [0, 1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 6, 7]


def test_one_warning_for_all(tmp_path):
    for index, rate in enumerate([40, 20, 30]):
        save_video(tmp_path / f"{index}.mp4", counting(9), rate)
    with pytest.warns(UserWarning, match="resampled") as caught:
        load_trajectories(tmp_path, frame_rate=20, argument="demos")
    (message,) = {str(warning.message) for warning in caught}
    assert message.startswith("demos: 2 of 3 videos have another frame rate (30, 40 frames per second)")
    assert len(caught) == 1


def test_folders_have_no_rate(tmp_path):
    assert taken(save_video(tmp_path / "video", counting(5), 40), 7) == list(range(5))


@pytest.mark.parametrize(
    ("metadata", "env_id", "rate"),
    [
        ({"render_fps": 20}, "", 20.0),
        ({"render_fps": np.float64(12.5)}, "CartPole-v1", 12.5),
        ({}, "", None),
        ({"render_fps": None}, "", None),
        ({"render_fps": 0}, "", None),
        ({"render_fps": 40_000}, "", None),
        ({"render_fps": float("nan")}, "", None),
        ({"render_fps": 25.0}, "dm_control/walker-walk-v0", None),  # milliseconds
    ],
)
def test_frame_rate(metadata, env_id, rate):
    assert frame_rate(metadata, env_id) == rate


@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (spaces.Box(0, 255, (64, 48, 3), np.uint8), (64, 48, 3)),
        (spaces.Box(0, 255, (64, 64, 1), np.uint8), (64, 64, 1)),
        (spaces.Box(0, 255, (3, 64, 64), np.uint8), None),
        (spaces.Box(0, 1, (64, 64, 3), np.float32), None),
        (spaces.Box(0, 255, (8,), np.uint8), None),
        (spaces.Dict(image=spaces.Box(0, 255, (64, 64, 3), np.uint8)), None),
    ],
)
def test_frame_shape(space, shape):
    assert frame_shape(space) == shape


# ---- where videos lie ----


def write_some(folder, count=12, kind=".gif"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        save_video(folder / f"{index}{kind}", counting(index + 2), 20)
    return folder


def lengths(source):
    return [len(trajectory) for trajectory in load_trajectories(source)]


@pytest.mark.parametrize("kind", [".gif", ""])
def test_a_folder_is_read_in_natural_order(tmp_path, kind):
    folder = write_some(tmp_path / "demos", kind=kind)
    for name in ("notes.txt", ".DS_Store", "._0.mp4"):
        (folder / name).write_text("no video")
    assert lengths(folder) == list(range(1, 13))
    assert lengths(str(folder)) == list(range(1, 13))


def test_patterns_and_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(write_some(tmp_path / "a", 11).parent)
    write_some(tmp_path / "b", 2, ".mp4")
    assert lengths("a/*.gif") == list(range(1, 12))
    assert lengths("a/1*") == [2, 11]
    assert lengths("*/1.*") == [2, 2]
    assert lengths("**/*.mp4") == [1, 2]
    assert lengths(["b/1.mp4", tmp_path / "a" / "3.gif", "a/1*.gif"]) == [2, 4, 2, 11]
    assert lengths("[ab]") == [*range(1, 12), 1, 2]


def test_a_pattern_of_other_data(tmp_path):
    for index in range(3):
        height = np.zeros((index + 2, 1), np.float32)
        np.savez(tmp_path / f"{index}.npz", height=height, pre_action=height, reward=height[:, 0])
    save_video(tmp_path / "3.gif", counting(5), 20)
    assert lengths(str(tmp_path / "*.npz")) == [1, 2, 3]
    assert lengths([tmp_path / "3.gif", tmp_path / "0.npz"]) == [4, 1]


def test_a_name_with_brackets_is_itself(tmp_path):
    assert lengths(save_video(tmp_path / "take[1].gif", counting(5), 20)) == [4]


def test_a_pattern_skips_the_description(tmp_path):
    folder = save_videos(tmp_path / "videos", [Trajectory(frames(height=8, width=8))] * 2, Camera())
    assert lengths(str(folder / "*")) == [11, 11]


def test_a_name_that_sounds_like_an_error(tmp_path):
    name = "corrupt partial file, not found.mp4"
    path = encode(
        tmp_path / name, frames(), 20, "libx264", "yuv420p", extra=lambda file: file.metadata.update(title=name)
    )
    assert lengths(path) == [11]


def test_capital_suffixes(tmp_path):
    save_video(tmp_path / "a.gif", counting(5), 20).rename(tmp_path / "A.GIF")
    assert lengths(tmp_path) == [4]


def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"demos: nothing matches the pattern 'clips/\*\.mp4'"):
        load_trajectories("clips/*.mp4", argument="demos")
    with pytest.raises(FileNotFoundError, match=r"demos: nothing is stored at clips/1\.mp4"):
        load_trajectories("clips/1.mp4", argument="demos")
    (tmp_path / "clips").mkdir()
    with pytest.raises(FileNotFoundError, match="found none in clips"):
        load_trajectories("clips")


def test_a_progress_bar(tmp_path, capsys):
    write_some(tmp_path / "demos", 2)
    load_trajectories(tmp_path / "demos", progress=True)
    shown = capsys.readouterr()
    assert "videos" in shown.err
    assert "2/2" in shown.err
    load_trajectories(tmp_path / "demos")
    assert capsys.readouterr().err == ""


# ---- what is wrong ends in an error ----


def refuse(source, message, **options):
    with pytest.raises(ValueError, match=message):
        load_trajectories(source, argument="demos", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_another_shape(tmp_path, kind):
    path = save_video(tmp_path / f"v{kind}", frames(height=16, width=24), 20)
    refuse(
        path,
        rf"demos: expected frames \(H, W, C\) of \(64, 64, 3\), got \(16, 24, 3\) in .*v{kind}; .*image_size=",
        frame_shape=(64, 64, 3),
    )
    refuse(path, r"v.*; the video has 3 channels, the environment 1", frame_shape=(16, 24, 1))


def test_channels(tmp_path):
    grey = encode(tmp_path / "grey.avi", frames()[..., :1], 20, "ffv1", "gray")
    np.testing.assert_array_equal(load_one(grey, frame_shape=(16, 16, 1)), frames()[..., :1])
    refuse(grey, r"got \(16, 16, 1\) in .*grey\.avi; the video has 1 channels, the env", frame_shape=(16, 16, 3))
    shown = np.concatenate([frames(), frames(seed=1)[..., :1]], axis=3)
    clear = encode(tmp_path / "clear.mkv", shown, 20, "ffv1", "bgra")
    np.testing.assert_array_equal(load_one(clear, frame_shape=(16, 16, 4)), shown)
    refuse(clear, r"clear\.mkv; the video has 4 channels", frame_shape=(16, 16, 3))


@pytest.mark.parametrize("part", [0.999, 0.95, 0.8, 0.5, 0.2, 0.05, 0.0])
@pytest.mark.parametrize("name", [*CODECS, "a.gif", "lossless.mp4"])
def test_cut_short(tmp_path, name, part):
    shown = frames(40, 32, 32)
    if name in CODECS:
        codec, pixels, options, container = CODECS[name]
        path = encode(tmp_path / name, shown, 20, codec, pixels, options, **container)
    else:
        path = save_video(tmp_path / name, shown, 20)
    whole, data = load_one(path), path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    if part == 0.999:
        with contextlib.suppress(ValueError):  # where what was cut is nothing that a frame needs
            np.testing.assert_array_equal(load_one(path), whole)
    else:
        refuse(path, rf"{re.escape(str(path))}: expected a readable video, but it is damaged or cut short")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("part", [0.9, 0.5, 0.1, 0.0])
def test_a_frame_cut_short(tmp_path, suffix, part):
    for index, frame in enumerate(frames(4, 64, 64)):
        Image.fromarray(frame).save(tmp_path / f"{index}{suffix}")
    path = tmp_path / f"2{suffix}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refuse(tmp_path, rf"2\{suffix}: expected a readable video, but it is damaged or cut short")


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.avi", "a.gif", "a.mkv", "a.mov"])
def test_no_video_at_all(tmp_path, name):
    (tmp_path / name).write_bytes(b"Not a video, whatever its name says. " * 50)
    refuse(tmp_path / name, rf"{name}: expected a readable video")


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_frame(tmp_path, kind):
    path = save_video(tmp_path / f"v{kind}", counting(1), 20)
    refuse(path, r"demos: expected at least 2 frames, got 1 in .*v")
    if kind:
        path = save_video(tmp_path / f"w{kind}", counting(3), 20)
        with pytest.raises(ValueError, match="expected at least 2 frames, got 1 at 5 a second, of 3 frames in"):
            load_trajectories(path, frame_rate=5)


def write_frames(folder, names, shown=None):
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, counting(len(names)) if shown is None else shown, strict=True):
        Image.fromarray(frame).save(folder / name)
    return folder


def test_numbering(tmp_path):
    names = [f"cam2_frame_{index}.png" for index in range(1, 13)]
    assert load_one(write_frames(tmp_path / "a", names))[:, 0, 0, 0].tolist() == list(range(12))
    refuse(write_frames(tmp_path / "b", ["0.png", "1.png", "3.png", "7.png"]), "b: .*but number 2 is missing")
    refuse(write_frames(tmp_path / "c", ["a1.png", "b1.png"]), "c: expected one frame of each number, got a1.png")
    refuse(write_frames(tmp_path / "d", ["1.png", "two.png"]), "two.png: expected a number in the name")
    refuse(write_frames(tmp_path / "e", ["1.png", "2.jpg"]), "e: expected files of one kind, got .jpg, .png")
    refuse(tmp_path / "a" / "cam2_frame_1.png", "demos: expected a video, got the single frame .*name its folder")


def test_pictures_that_differ(tmp_path):
    shown = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)]
    refuse(write_frames(tmp_path / "a", ["0.png", "1.png"], shown), r"1\.png: expected a picture of \(8, 8, 3\)")
    shown = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 4), np.uint8)]
    refuse(write_frames(tmp_path / "b", ["0.png", "1.png"], shown), r"1\.png: expected a picture of \(8, 8, 3\)")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(write_frames(tmp_path / "c", ["0.png"]) / "1.png")
    refuse(tmp_path / "c", r"1\.png: expected 8 bits of grey, RGB or RGBA, got a picture of mode I;16")


def test_pictures_with_a_palette(tmp_path):
    shown = frames(3)
    for index, frame in enumerate(shown):
        Image.fromarray(frame).quantize(256).save(tmp_path / f"{index}.png")
    assert load_one(tmp_path, frame_shape=(16, 16, 3)).shape == shown.shape


def test_folders_of_several_kinds(tmp_path):
    save_video(tmp_path / "1.gif", counting(3), 20)
    save_video(tmp_path / "1.mp4", counting(3), 20)
    refuse(tmp_path, "expected files of one kind, got .gif, .mp4; name those you mean")
    (tmp_path / "1.mp4").unlink()
    save_video(tmp_path / "frames", counting(3), 20)
    refuse(tmp_path, "demos: expected videos of one kind in .*, got video files and folders of frames")


def test_a_rate_that_is_none(tmp_path):
    for rate in NO_RATES:
        refuse(tmp_path, f"^frame_rate: expected a positive number, got {rate}$", frame_rate=rate)


@pytest.mark.parametrize(("kind", "channels"), [*((kind, 3) for kind in KINDS), ("", 1)])
def test_videos_of_another_size_are_resized_when_asked(kind, channels, tmp_path):
    shown = counting(5, 16)
    path = tmp_path / f"video{kind}"
    if kind:
        save_video(path, shown, 20)
    else:
        path.mkdir()
        for index, frame in enumerate(shown):
            Image.fromarray(frame if channels == 3 else frame[..., 0]).save(path / f"{index}.png")
    (video,) = load_trajectories(path, frame_shape=(4, 8, channels), resize=True)
    np.testing.assert_array_equal(video.observations, np.broadcast_to(shown[:, :4, :8, :channels], (5, 4, 8, channels)))
    (kept,) = load_trajectories(path, frame_shape=(16, 16, channels), resize=True)
    np.testing.assert_array_equal(kept.observations, shown[..., :channels])
    with pytest.raises(ValueError, match=r"expected frames .* of \(4, 8, .*resize=True"):
        load_trajectories(path, frame_shape=(4, 8, channels))
    with pytest.raises(ValueError, match="the video has . channels, the environment 4"):
        load_trajectories(path, frame_shape=(4, 8, 4), resize=True)


def test_resizing_needs_a_size():
    with pytest.raises(
        ValueError, match="^resize: expected together with frame_shape, for an environment that shows images"
    ):
        load_trajectories("classic/CartPole-v1", resize=True)
