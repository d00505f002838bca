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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

import numpy as np
from annotated_types import Ge, Gt
from pydantic import BaseModel, ValidationError

from aime_gym.config import import_extra
from aime_gym.data.paths import natural_order
from aime_gym.data.resampling import frames_at_decisions
from aime_gym.data.stored_arrays import Budget
from aime_gym.data.video_decoding import Video, read_pictures, read_video
from aime_gym.data.video_demonstrations import check_frame_shape
from aime_gym.progress import progress_bar
from aime_gym.types import Array, Trajectory

_INFO, _EPISODES = "meta/info.json", "meta/episodes"
_STATE, _ACTION, _REWARD = "observation.state", "action", "next.reward"
#: Greatest number of bytes of a number.
_WIDEST = 8

_Count = Annotated[int, Ge(0)]
_Model = TypeVar("_Model", bound=BaseModel)


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
    need = f"{argument}: {folder} is a LeRobot dataset, which needs pyarrow"
    arrow_error = import_extra("pyarrow", "lerobot", need).ArrowException
    check_shape = partial(check_frame_shape, expected=frame_shape, resize=resize, argument="images")
    size = (frame_shape[0], frame_shape[1]) if resize and frame_shape is not None else None
    frames: Array | None = None
    try:
        dataset = _Dataset(folder, check_shape, size, progress)
        names = list(wanted) if wanted is not None else [_STATE if frame_shape is None else dataset.only_camera()]
        columns = {name: dataset.read(name) for name in names}
        kept = {"rewards": _REWARD} | ({"actions": _ACTION} if actions else {})
        others = {field: dataset.read(name) for field, name in kept.items() if name in dataset.info.features}
        trajectories = []
        for index, episode in enumerate(dataset.episodes):
            times = np.arange(episode.length + 1) / dataset.info.fps
            frames = frames_at_decisions(Video(times[:-1], times, rounding=0.0), frame_rate)
            if actions and frames is not None:
                expected = f"the environment's {frame_rate:g} decisions per second, since actions cannot be resampled"
                raise ValueError(f"{_INFO}.fps: expected {expected}, got {dataset.info.fps:g}")
            shown = {name: parts[index] if frames is None else parts[index][frames] for name, parts in columns.items()}
            fields: Any = {field: parts[index][:-1] for field, parts in others.items() if frames is None}
            if "rewards" in fields:
                fields["rewards"] = fields["rewards"].reshape(-1)
            trajectories.append(Trajectory(shown if wanted is not None else shown[names[0]], **fields))
    except (arrow_error, OSError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{argument}: expected a LeRobot dataset that can be read in {folder}: {error}") from error
    if frames is not None:
        warnings.warn(
            f"{argument}: {folder} has {dataset.info.fps:g} frames per second, and the environment decides "
            f"{frame_rate:g} times: observations are resampled to its decisions, without rewards",
            stacklevel=3,
        )
    return trajectories


class _Dataset:
    """Reader of columns, each as one array for each episode."""

    def __init__(
        self, folder: Path, check_shape: Callable[..., None], size: tuple[int, int] | None, progress: bool
    ) -> None:
        self._folder, self._check_shape, self._size, self._progress = folder, check_shape, size, progress
        self.info = _parsed(_Info, json.loads((folder / _INFO).read_text(encoding="utf-8")), _INFO)
        version = self.info.codebase_version.removeprefix("v")
        if not version.startswith(("2.", "3.")):
            raise ValueError(f"codebase_version: expected v2.0 to v3.0, got {self.info.codebase_version!r}")
        entries = self._entries() if version.startswith("3.") else self._lines()
        episodes = [_parsed(_Episode, one, _EPISODES) for one in entries]
        self.episodes = sorted(episodes, key=lambda one: one.episode_index)
        count = len(self.episodes)
        frames = sum(episode.length for episode in self.episodes)
        said = (self.info.total_episodes, self.info.total_frames)
        if (count, frames) != said or [episode.episode_index for episode in self.episodes] != list(range(count)):
            raise ValueError(
                f"{_EPISODES}: expected {said[0]} episodes of {said[1]} frames, as in {_INFO}, each once, got {count} "
                f"of {frames}"
            )

    def _lines(self) -> Iterator[Any]:
        """Yield what is known of each episode that has files of its own."""
        for line in (self._folder / f"{_EPISODES}.jsonl").read_text(encoding="utf-8").splitlines():
            if line.strip():
                entry = json.loads(line)
                yield {"episode_chunk": int(entry["episode_index"]) // self.info.chunks_size, **entry}

    def _entries(self) -> Iterator[Any]:
        """Yield what is known of each episode that shares files with others."""
        places = [f"videos/{name}" for name, feature in self.info.features.items() if feature.dtype == "video"]
        columns = ["episode_index", "length", *(f"{place}/from_timestamp" for place in places)]
        columns += [f"{place}/{kind}_index" for place in ("data", *places) for kind in ("chunk", "file")]
        for path in sorted((self._folder / _EPISODES).rglob("*.parquet"), key=natural_order):
            yield from _read_table(path, columns, len(columns)).to_pylist()

    def only_camera(self) -> str:
        """Return the name of the only camera."""
        cameras = [name for name, feature in self.info.features.items() if feature.dtype in ("video", "image")]
        if len(cameras) != 1:
            raise ValueError(f"one camera is needed, and it has {cameras or 'none'}; sensors= names the one to take")
        return cameras[0]

    def read(self, name: str) -> list[Array]:
        """Return a column of each episode, (N, ...)."""
        feature = self.info.features.get(name)
        if feature is None:
            raise ValueError(f"expected columns out of {sorted(self.info.features)}, got {name!r}")
        template, place, read = self.info.data_path, "data/", self._rows
        if feature.dtype == "video":
            template, place, read = self.info.video_path or "", f"videos/{name}/", self._frames
        files: dict[Path, list[_Episode]] = {}
        for episode in self.episodes:
            known = {key.removeprefix(place): value for key, value in dict(episode).items()}
            path = self._folder / _filled_in(template, known | {"video_key": name})
            files.setdefault(path, []).append(episode)
        parts = {}
        with progress_bar(name, len(files), enabled=self._progress and feature.dtype == "video") as advance:
            for path, episodes in files.items():
                values, starts = read(path, name, episodes)
                for episode, start in zip(episodes, starts, strict=True):
                    part = parts[episode.episode_index] = values[max(start, 0) : start + episode.length]
                    if len(part) != episode.length:
                        raise ValueError(
                            f"{path}: expected {episode.length} frames from {start} on, as {_EPISODES} says of episode "
                            f"{episode.episode_index}, got {len(values)} in all"
                        )
                advance(1, path.name)
        return [parts[episode.episode_index] for episode in self.episodes]

    def _frames(self, path: Path, name: str, episodes: Sequence[_Episode]) -> tuple[Array, list[int]]:
        """Return the frames of a video, and the first one of each episode."""
        seconds = [dict(episode).get(f"videos/{name}/from_timestamp", 0) for episode in episodes]
        frames = read_video(path, partial(self._check_shape, path=path), self._size).frames
        return frames, [round(second * self.info.fps) for second in seconds]

    def _rows(self, path: Path, name: str, episodes: Sequence[_Episode]) -> tuple[Array, list[int]]:
        """Return the rows of a column of a file, and the first one of each episode."""
        feature = self.info.features[name]
        table = _read_table(path, [name, "episode_index"], 1 + math.prod(feature.shape))
        owners = _numbers(table, "episode_index", path)
        lengths = [episode.length for episode in episodes]
        expected = [episode.episode_index for episode in episodes]
        if len(owners) != sum(lengths) or not np.array_equal(owners, np.repeat(expected, lengths)):
            raise ValueError(f"{path}: expected {sum(lengths)} rows of the episodes {expected[:5]}, got others")
        starts = np.cumsum([0, *lengths[:-1]]).tolist()
        if feature.dtype == "image":
            contents = [row["bytes"] for row in table.column(name).to_pylist()]
            return read_pictures(contents, path, partial(self._check_shape, path=path), self._size), starts
        values = _numbers(table, name, path)
        if values.size != len(owners) * math.prod(feature.shape):
            raise ValueError(f"{path}: expected {feature.shape} in each row of {name!r}, got {values.size} numbers")
        return values.reshape(len(owners), *feature.shape), starts


def _filled_in(template: str, values: Mapping[str, Any]) -> PurePosixPath:
    """Fill in a path of ``info.json``, which leads to no place outside the folder.

    Links on the disk are the user's, as in the cache of Hugging Face's downloads.
    """
    if unknown := set(re.findall(r"\{(\w+)", template)) - set(values):
        raise ValueError(f"expected names that are known in the paths of {_INFO}, got {', '.join(sorted(unknown))}")
    text = re.sub(r"\{(\w+)(:0\dd)?\}", lambda found: format(values[found[1]], (found[2] or ":")[1:]), template)
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"expected paths inside the folder in {_INFO}, got {template!r}")
    return path


def _parsed(model: type[_Model], values: Any, where: str) -> _Model:
    try:
        return model.model_validate(values)
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
    while hasattr(column.type, "value_field"):
        column = column.flatten()
    values: Array = column.to_numpy(zero_copy_only=False)
    if column.null_count or values.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected numbers in every row of {name!r}, got {column.type}")
    return values
