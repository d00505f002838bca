"""LeRobotDataset, versions 2.0 to 3.0: Parquet files of columns, and videos of cameras.

Up to version 2.1 each episode has files of its own in ``data/`` and ``videos/``; from 3.0 on a file holds many, and
``meta/episodes/`` says which one. Nothing here is trusted: the files name paths and counts, and both are checked.
Source: https://huggingface.co/docs/lerobot.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt
from pydantic import BaseModel, TypeAdapter, ValidationError

from aime_gym.data.paths import natural_order
from aime_gym.data.resampling import frames_at_decisions
from aime_gym.data.stored_arrays import Budget
from aime_gym.data.video_decoding import Video, read_pictures, read_video
from aime_gym.data.video_demonstrations import check_frame_shape
from aime_gym.progress import progress_bar
from aime_gym.types import Array, Trajectory

_INFO, _EPISODES = "meta/info.json", "meta/episodes"
_STATE, _ACTION, _REWARD = "observation.state", "action", "next.reward"
#: Types of columns that hold images.
_CAMERAS = ("video", "image")
#: Greatest number of bytes of a number.
_WIDEST = 8

_Count = Annotated[int, Ge(0)]


class _Feature(BaseModel):
    dtype: str
    shape: tuple[_Count, ...]


class _Info(BaseModel):
    codebase_version: str
    fps: Annotated[float, Gt(0)]
    total_episodes: _Count
    total_frames: _Count
    chunks_size: Annotated[int, Ge(1)] = 1000
    data_path: str
    video_path: str | None = None
    features: dict[str, _Feature]


class _Episode(BaseModel, extra="allow"):
    episode_index: _Count
    length: _Count


def is_lerobot_folder(folder: Path) -> bool:
    """Whether a folder is a LeRobotDataset."""
    return (folder / _INFO).is_file()


def read_lerobot(
    folder: Path,
    argument: str,
    *,
    actions: bool,
    wanted: Sequence[str] | None,
    frame_rate: float | None,
    frame_shape: tuple[int, ...] | None,
    resize: bool,
    progress: bool,
) -> list[Trajectory]:
    """Read one trajectory for each episode; see [`load_trajectories`][].

    What the last action of an episode led to is not recorded, nor why the episode ended: of N frames there are N
    observations and N - 1 actions and rewards, neither terminated nor truncated.

    :param wanted: columns that make a dict of observations. ``None`` takes a single column: the only camera where
        ``frame_shape`` says that the environment shows images, and else ``observation.state``.
    :raises ValueError: a dataset that is damaged, leads out of its folder, or lacks a column.
    :raises ImportError: pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
    except ImportError as error:
        raise ImportError(
            f"{argument}: {folder} is a LeRobot dataset, which needs pyarrow: pip install 'aime-gym[lerobot]'"
        ) from error
    try:
        dataset = _Dataset(folder, argument, frame_shape, resize, progress)
        names = list(wanted) if wanted is not None else [dataset.default_column(images=frame_shape is not None)]
        columns = {name: dataset.read(name) for name in names}
        kept = {"rewards": _REWARD} | ({"actions": _ACTION} if actions else {})
        others = {field: dataset.read(name) for field, name in kept.items() if name in dataset.info.features}
        trajectories = []
        for index, frames in enumerate(dataset.frames_at_decisions(frame_rate)):
            shown = {name: parts[index] if frames is None else parts[index][frames] for name, parts in columns.items()}
            fields: Any = {field: parts[index][:-1] for field, parts in others.items() if frames is None}
            if "rewards" in fields:
                fields["rewards"] = fields["rewards"].reshape(-1)
            trajectories.append(Trajectory(shown if wanted is not None else shown[names[0]], **fields))
        return trajectories
    except (ArrowException, OSError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{argument}: expected a LeRobot dataset that can be read in {folder}: {error}") from error


class _Dataset:
    """Reader of columns, each as one array for each episode."""

    def __init__(
        self, folder: Path, argument: str, frame_shape: tuple[int, ...] | None, resize: bool, progress: bool
    ) -> None:
        self._folder, self._progress = folder, progress
        self._check_shape = partial(check_frame_shape, expected=frame_shape, resize=resize, argument=argument)
        self._size = (frame_shape[0], frame_shape[1]) if resize and frame_shape is not None else None
        self.info = _parsed(_Info, json.loads((folder / _INFO).read_text(encoding="utf-8")), _INFO)
        if not re.match(r"v?[23]\.\d", self.info.codebase_version):
            raise ValueError(f"codebase_version: expected v2.0 to v3.0, got {self.info.codebase_version!r}")
        self._many_in_a_file = self.info.codebase_version.lstrip("v").startswith("3")
        self._episodes = sorted(self._read_episodes(), key=lambda episode: episode.episode_index)
        count = len(self._episodes)
        frames = sum(episode.length for episode in self._episodes)
        if (count, frames) != (self.info.total_episodes, self.info.total_frames):
            raise ValueError(
                f"{_EPISODES}: expected {self.info.total_episodes} episodes of {self.info.total_frames} frames, as "
                f"{_INFO} says, got {count} of {frames}"
            )
        if [episode.episode_index for episode in self._episodes] != list(range(count)):
            raise ValueError(f"{_EPISODES}: expected the numbers 0 to {count - 1}, each once")

    def _read_episodes(self) -> list[_Episode]:
        if self._many_in_a_file:
            places = [f"videos/{name}" for name, feature in self.info.features.items() if feature.dtype == "video"]
            columns = ["episode_index", "length"]
            columns += [f"{place}/{index}_index" for place in ("data", *places) for index in ("chunk", "file")]
            columns += [f"{place}/from_timestamp" for place in places]
            paths = sorted((self._folder / _EPISODES).rglob("*.parquet"), key=natural_order)
            entries = [entry for path in paths for entry in _read_table(path, columns, len(columns)).to_pylist()]
        else:
            lines = (self._folder / f"{_EPISODES}.jsonl").read_text(encoding="utf-8").splitlines()
            entries = [json.loads(line) for line in lines if line.strip()]
        return [_parsed(_Episode, entry, _EPISODES) for entry in entries]

    def default_column(self, *, images: bool) -> str:
        """Return the only camera, or the state."""
        cameras = [name for name, feature in self.info.features.items() if feature.dtype in _CAMERAS]
        if images and len(cameras) != 1:
            raise ValueError(f"one camera is needed, and it has {cameras or 'none'}; sensors= names the one to take")
        return cameras[0] if images else _STATE

    def frames_at_decisions(self, frame_rate: float | None) -> list[Array | None]:
        """Return the frames of each episode that an environment's decisions see; ``None`` for all of them.

        Warns of another rate than the environment's.
        """
        chosen: list[Array | None] = []
        for episode in self._episodes:
            times = np.arange(episode.length + 1) / self.info.fps
            chosen.append(frames_at_decisions(Video(times[:-1], times, rounding=0.0), frame_rate))
        if any(frames is not None for frames in chosen):
            warnings.warn(
                f"{self._folder}: its {self.info.fps:g} frames per second are resampled to the environment's "
                f"{frame_rate:g} decisions, without actions and rewards",
                stacklevel=4,
            )
        return chosen

    def read(self, name: str) -> list[Array]:
        """Return a column of each episode, (N, ...)."""
        if name not in self.info.features:
            raise ValueError(f"expected columns out of {sorted(self.info.features)}, got {name!r}")
        if self.info.features[name].dtype == "video":
            parts = dict(self._videos(name))
        else:
            parts = dict(self._tables(name))
        return [parts[episode.episode_index] for episode in self._episodes]

    def _tables(self, name: str) -> Iterator[tuple[int, Array]]:
        """Yield the rows of each episode."""
        for path, episodes in self._files(self.info.data_path, "data", name):
            values, owners = self._rows(path, name)
            lengths = [episode.length for episode in episodes]
            expected = [episode.episode_index for episode in episodes]
            if len(owners) != sum(lengths) or not np.array_equal(owners, np.repeat(expected, lengths)):
                raise ValueError(f"{path}: expected {sum(lengths)} rows of the episodes {expected[:5]}, got others")
            yield from zip(expected, np.split(values, np.cumsum(lengths)[:-1]), strict=True)

    def _rows(self, path: Path, name: str) -> tuple[Array, Array]:
        """Return a column of a file, and the number of the episode of each row."""
        feature = self.info.features[name]
        table = _read_table(path, [name, "episode_index"], 1 + math.prod(feature.shape))
        owners = _numbers(table, "episode_index", path).reshape(-1)
        if feature.dtype == "image":
            contents = [row["bytes"] for row in table.column(name).to_pylist()]
            return read_pictures(contents, path, partial(self._check_shape, path=path), self._size), owners
        values = _numbers(table, name, path)
        if values.size != len(owners) * math.prod(feature.shape):
            raise ValueError(
                f"{path}: expected {feature.shape} in each row of {name!r}, got {values.size} numbers in all"
            )
        return values.reshape(len(owners), *feature.shape), owners

    def _videos(self, name: str) -> Iterator[tuple[int, Array]]:
        """Yield the frames of each episode by a camera."""
        files = list(self._files(self.info.video_path or "", f"videos/{name}", name))
        with progress_bar("videos", len(files), enabled=self._progress) as advance:
            for path, episodes in files:
                frames = read_video(path, partial(self._check_shape, path=path), self._size).frames
                for episode in episodes:
                    seconds = (episode.model_extra or {}).get(f"videos/{name}/from_timestamp", 0)
                    start = round(seconds * self.info.fps)
                    if not 0 <= start <= len(frames) - episode.length:
                        raise ValueError(
                            f"{path}: expected {episode.length} frames from {start} on, for episode "
                            f"{episode.episode_index}, got {len(frames)} in all"
                        )
                    yield episode.episode_index, frames[start : start + episode.length]
                advance(1, path.name)

    def _files(self, template: str, place: str, name: str) -> Iterator[tuple[Path, list[_Episode]]]:
        """Yield the files of a column, and the episodes in each."""
        files: dict[Path, list[_Episode]] = {}
        for episode in self._episodes:
            index = episode.episode_index
            values: dict[str, Any] = {
                "video_key": name,
                "episode_index": index,
                "episode_chunk": index // self.info.chunks_size,
            }
            if self._many_in_a_file:
                extra = episode.model_extra or {}
                values |= {key: extra[f"{place}/{key}"] for key in ("chunk_index", "file_index")}
            files.setdefault(self._folder / _filled_in(template, values), []).append(episode)
        yield from files.items()


def _filled_in(template: str, values: dict[str, Any]) -> PurePosixPath:
    """Fill in a path of ``info.json``, which stays inside the folder.

    The names in it do; links on the disk are the user's, as in the cache of Hugging Face's downloads.
    """
    if unknown := set(re.findall(r"\{(\w+)", template)) - set(values):
        raise ValueError(f"expected {sorted(values)} in the paths of {_INFO}, got {', '.join(sorted(unknown))}")
    text = re.sub(r"\{(\w+)(:0\dd)?\}", lambda found: format(values[found[1]], (found[2] or ":")[1:]), template)
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"expected paths inside the folder in {_INFO}, got {template!r}")
    return path


def _parsed(model: Any, values: Any, where: str) -> Any:
    try:
        return TypeAdapter(model).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (where, *first["loc"])))
        raise ValueError(f"{place}: {first['msg']}, got {first['input']!r:.80}") from error


def _read_table(path: Path, columns: list[str], numbers: int) -> Any:
    """Read columns of a Parquet file.

    :param numbers: count of numbers in a row of these columns.
    """
    from pyarrow import parquet

    budget = Budget(path)
    with parquet.ParquetFile(path) as file:
        about = file.metadata
        stored = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
        budget.take(max(stored, 0) + about.num_rows * numbers * _WIDEST)
        table = file.read(columns=columns)
    if missing := set(columns) - set(table.column_names):
        raise ValueError(f"{path}: expected the columns {columns}, got none named {', '.join(sorted(missing))}")
    return table


def _numbers(table: Any, name: str, path: Path) -> Array:
    """Return the numbers of a column, flat, whether its rows are numbers or (nested) lists of them."""
    column = table.column(name).combine_chunks()
    while hasattr(column, "storage"):
        column = column.storage
    while hasattr(column.type, "value_field"):
        column = column.flatten()
    values: Array = column.to_numpy(zero_copy_only=False)
    if column.null_count or values.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected numbers in every row of {name!r}, got {column.type}")
    return values
