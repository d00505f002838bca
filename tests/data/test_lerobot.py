"""LeRobot folders of both layouts, written after the public format; hostile and damaged ones end in one error."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from aime_gym.cli import main
from aime_gym.data import load_trajectories
from aime_gym.data.video_writing import write_video

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LENGTHS = (5, 3, 4)
CAMERA = "observation.images.top"
SIDE = 16
VERSIONS = ("v2.1", "v3.0")


def rows(length, start):
    """Columns of an episode: everything in them counts frames, from ``start`` on."""
    numbers = np.arange(start, start + length)
    return {
        "observation.state": (numbers[:, None] + [0.0, 0.5]).astype(np.float32),
        "action": -(numbers[:, None] + [0.0, 0.25, 0.5]).astype(np.float32),
        "next.reward": numbers.astype(np.float32),
        "observation.grid": np.repeat(numbers, 4).reshape(-1, 2, 2).astype(np.float32),
    }


def frames(length, start):
    levels = np.arange(start, start + length) * 20
    return np.broadcast_to(levels[:, None, None, None], (length, SIDE, SIDE, 3)).astype(np.uint8)


def png(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "../../elsewhere.png"}


def table(episodes):
    """Return a table of several episodes, as (number, length, first row)."""
    parts = [rows(length, start) for _, length, start in episodes]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns = {name: pa.array(values.tolist(), _type(values)) for name, values in columns.items()}
    columns["episode_index"] = pa.array([index for index, length, _ in episodes for _ in range(length)])
    columns["observation.picture"] = [png(frame) for _, length, start in episodes for frame in frames(length, start)]
    return pa.table(columns)


def _type(values):
    kind = pa.float32()
    for _ in values.shape[1:]:
        kind = pa.list_(kind)
    return kind


def write_parquet(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)


def write_mp4(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, content, 10, lossless=True)


@pytest.fixture(params=VERSIONS)
def folder(request, tmp_path):
    return write(tmp_path / "dataset", request.param)


def write(folder, version):
    starts = np.cumsum([0, *LENGTHS[:-1]]).tolist()
    episodes = list(zip(range(len(LENGTHS)), LENGTHS, starts, strict=True))
    info = {"codebase_version": version, "robot_type": None, "fps": 10, "total_episodes": 3, "total_frames": 12}
    info |= {"chunks_size": 2, "video_path": None, "splits": {"train": "0:3"}}
    shapes = {"observation.state": [2], "action": [3], "next.reward": [1], "observation.grid": [2, 2]}
    info["features"] = {name: {"dtype": "float32", "shape": shape, "names": None} for name, shape in shapes.items()}
    info["features"] |= {CAMERA: {"dtype": "video", "shape": [3, SIDE, SIDE], "info": {"video.fps": 10}}}
    info["features"] |= {"observation.picture": {"dtype": "image", "shape": [SIDE, SIDE, 3], "names": None}}
    if version == "v2.1":
        info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        for index, length, start in episodes:
            chunk, name = f"chunk-{index // 2:03d}", f"episode_{index:06d}"
            write_parquet(folder / "data" / chunk / f"{name}.parquet", table([(index, length, start)]))
            write_mp4(folder / "videos" / chunk / CAMERA / f"{name}.mp4", frames(length, start))
        lines = [json.dumps({"episode_index": index, "tasks": [], "length": length}) for index, length, _ in episodes]
        (folder / "meta").mkdir()
        (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    else:
        info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        # Two episodes in the first file, one in the second; of the camera, the other way round.
        write_parquet(folder / "data/chunk-000/file-000.parquet", table(episodes[::2]))
        write_parquet(folder / "data/chunk-000/file-001.parquet", table(episodes[1:2]))
        write_mp4(folder / "videos" / CAMERA / "chunk-000/file-000.mp4", frames(5, 0))
        write_mp4(folder / "videos" / CAMERA / "chunk-000/file-001.mp4", frames(7, 5))
        about = {"episode_index": [0, 1, 2], "length": list(LENGTHS), "data/chunk_index": [0] * 3}
        about |= {"data/file_index": [0, 1, 0], f"videos/{CAMERA}/chunk_index": [0] * 3}
        about |= {f"videos/{CAMERA}/file_index": [0, 1, 1], f"videos/{CAMERA}/from_timestamp": [0.0, 0.0, 0.3]}
        write_parquet(folder / "meta/episodes/chunk-000/file-000.parquet", pa.table(about))
    write_info(folder, info)
    return folder


def read_info(folder):
    return json.loads((folder / "meta" / "info.json").read_text())


def write_info(folder, info):
    (folder / "meta" / "info.json").write_text(json.dumps(info))


def test_a_folder_without_videos(tmp_path):
    folder = write(tmp_path / "dataset", "v2.1")
    change_info(video_path=None)(folder)
    assert len(load_trajectories(folder)) == 3
    with pytest.raises(ValueError, match="expected paths inside the folder"):
        load_trajectories(folder, sensors=CAMERA)


def test_the_state_actions_and_rewards(folder):
    trajectories = load_trajectories(folder)
    assert [len(trajectory) for trajectory in trajectories] == [4, 2, 3]
    for trajectory, length, start in zip(trajectories, LENGTHS, (0, 5, 8), strict=True):
        expected = rows(length, start)
        np.testing.assert_array_equal(trajectory.observations, expected["observation.state"])
        np.testing.assert_array_equal(trajectory.actions, expected["action"][:-1])
        np.testing.assert_array_equal(trajectory.rewards, expected["next.reward"][:-1])
        assert trajectory.observations.dtype == np.float32
        assert trajectory.terminated is trajectory.truncated is False
    assert all(demo.actions is None for demo in load_trajectories(str(folder), actions=False))


def test_columns_by_name(folder):
    names = ["observation.grid", CAMERA, "observation.picture"]
    trajectories = load_trajectories(folder, sensors=names, flatten=False)
    for trajectory, length, start in zip(trajectories, LENGTHS, (0, 5, 8), strict=True):
        assert list(trajectory.observations) == names
        grid = rows(length, start)["observation.grid"]
        np.testing.assert_array_equal(trajectory.observations["observation.grid"], grid)
        for name in (CAMERA, "observation.picture"):
            np.testing.assert_array_equal(trajectory.observations[name], frames(length, start))


def test_cameras_that_nobody_asked_for_are_not_decoded(folder, monkeypatch):
    monkeypatch.setattr("aime_gym.data.lerobot.read_video", None)
    assert len(load_trajectories(folder)) == 3


def without_pictures(folder):
    info = read_info(folder)
    del info["features"]["observation.picture"]
    write_info(folder, info)


def test_an_environment_of_images_gets_the_camera(folder):
    shape = (SIDE, SIDE, 3)
    with pytest.raises(ValueError, match=r"one camera is needed, and it has \['observation.images.top', "):
        load_trajectories(folder, frame_shape=shape)
    without_pictures(folder)
    first = load_trajectories(folder, frame_shape=shape, frame_rate=10.0)[0]
    np.testing.assert_array_equal(first.observations, frames(5, 0))
    assert first.actions is not None
    small = load_trajectories(folder, frame_shape=(8, 8, 3), resize=True)[1]
    np.testing.assert_array_equal(small.observations, frames(3, 5)[:, :8, :8])
    with pytest.raises(ValueError, match=r"expected frames \(H, W, C\) of \(8, 8, 3\), got \(16, 16, 3\)"):
        load_trajectories(folder, frame_shape=(8, 8, 3))
    with pytest.warns(UserWarning, match="has 10 frames per second, and the environment decides 5 times"):
        slow = load_trajectories(folder, frame_shape=shape, frame_rate=5.0, actions=False)[0]
    np.testing.assert_array_equal(slow.observations, frames(5, 0)[::2])
    assert slow.rewards is None
    with pytest.raises(ValueError, match="expected the environment's 5 decisions per second, since actions cannot"):
        load_trajectories(folder, frame_shape=shape, frame_rate=5.0)


# ---- hostile and damaged folders ----


def change_info(**changes):
    return lambda folder: write_info(folder, read_info(folder) | changes)


def change_feature(name, **changes):
    def change(folder):
        info = read_info(folder)
        info["features"][name] |= changes
        write_info(folder, info)

    return change


def first_table(folder, change):
    path = min((folder / "data").rglob("*.parquet"))
    pq.write_table(change(pq.read_table(path)), path)


def cut_video(folder):
    path = max((folder / "videos").rglob("*.mp4"))
    write_mp4(path, frames(3, 0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_info(data_path="../{episode_index:06d}.parquet"), "expected paths inside the folder"),
        (change_info(data_path="/etc/passwd"), "expected paths inside the folder"),
        (change_info(data_path="{episode_index.__class__}"), "expected a regular file"),
        (change_info(data_path="{unknown}"), "in the paths of meta/info.json, got unknown"),
        (change_info(data_path=""), "expected paths inside the folder"),
        (change_info(video_path="{video_key}/../../x.mp4"), "expected paths inside the folder"),
        (
            change_info(total_episodes=4),
            "expected 4 episodes of 12 frames, as in meta/info.json, each once, got 3 of 12",
        ),
        (change_info(total_frames=10**15), "frames, as in meta/info.json, each once, got 3 of 12"),
        (change_info(codebase_version="v1.6"), "codebase_version: expected v2.0 to v3.0, got 'v1.6'"),
        (change_info(fps=0), r"info.json.fps: Input should be greater than 0, got 0"),
        (change_info(features=[]), "info.json.features"),
        (change_feature("observation.state", shape=[3]), r"expected \(3,\) in each row of 'observation.state'"),
        (change_feature("observation.state", shape=[10**15]), "expected arrays that fit into their file"),
        (lambda folder: first_table(folder, lambda rows: rows.drop(["action"])), "got none named action"),
        (lambda folder: first_table(folder, lambda rows: rows.slice(1)), "rows of the episodes"),
        (lambda folder: first_table(folder, lambda rows: rows.take([*range(len(rows))] * 2)), "rows of the episodes"),
        (cut_video, "expected 4 frames from"),
        (lambda folder: (folder / "meta/info.json").write_text("{"), "Expecting property name"),
        (lambda folder: max((folder / "videos").rglob("*.mp4")).write_bytes(b"no video"), "damaged or cut short"),
        (lambda folder: max((folder / "data").rglob("*.parquet")).write_bytes(b"PAR1 no"), "[Pp]arquet"),
        (lambda folder: max((folder / "data").rglob("*.parquet")).unlink(), "expected a regular file"),
    ],
)
def test_what_is_wrong_is_one_error(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        load_trajectories(folder, sensors=["observation.state", CAMERA], flatten=False, argument="demos")
    assert str(error.value).startswith(f"demos: expected a LeRobot dataset that can be read in {folder}")


def test_without_pyarrow_the_command_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"source: .* needs pyarrow \(.*\): pip install 'aime-gym\[lerobot\]'"):
        load_trajectories(folder)


def test_missing_columns_and_episodes(tmp_path):
    folder = write(tmp_path / "dataset", "v2.1")
    with pytest.raises(ValueError, match="expected columns out of .*, got 'observation.images.front'"):
        load_trajectories(folder, sensors="observation.images.front")
    episodes = folder / "meta" / "episodes.jsonl"
    episodes.write_text(episodes.read_text().replace('"episode_index": 2', '"episode_index": 1'))
    with pytest.raises(ValueError, match="expected 3 episodes of 12 frames, as in meta/info.json, each once"):
        load_trajectories(folder)


def test_the_command_line_takes_a_folder(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(f"train bc CartPole-v1 --modality state --demos {folder} --out {tmp_path}/agent.zip".split())
    assert "expected shape (T+1, 4), got (5, 2)" in capsys.readouterr().err
