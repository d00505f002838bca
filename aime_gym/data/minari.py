"""Minari datasets: the format in which Gymnasium's users exchange trajectories.

Two things are done otherwise than Minari does by itself. Images are stored raw: JPEG, its default, is lossy, and a
discriminator tells compressed demonstrations from raw frames at a glance. And Minari has no episodes without actions:
for observation-only demonstrations we write zeros and say so in the metadata, and never read them back.

The images of an episode are also stored in one piece, where Minari cuts them into chunks. A piece can be mapped as it
lies on disk, so these images are not read here, but when a sequence needs them. Chunked images (Minari's own raw ones),
compressed ones and JPEG are decoded into memory, all of them at once.
"""

from __future__ import annotations

import io
import json
import math
import numbers
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
from gymnasium import spaces
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import is_image_space
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage import get_dataset_path
from PIL import Image

from aime_gym.data.spaces import read_box, write_space
from aime_gym.data.stored_arrays import Hdf5Arrays, open_hdf5
from aime_gym.data.validation import iterate_checked
from aime_gym.serialization import digest, file_digest, new_folder, plain_number
from aime_gym.types import Array, Observation, Trajectory, sensors
from aime_gym.wrappers import rendering_of
from aime_gym.wrappers.quality import as_quality

#: Our part of a dataset's metadata. What is absent there (other people's datasets) has actions and rewards.
_METADATA_KEY = "aime_gym"
#: Files of a dataset: its episodes in HDF5, and what describes them.
_DATA_FILE, _METADATA_FILE = "main_data.hdf5", "metadata.json"
#: Key of the digest of each file, in our part of the metadata.
_DIGESTS = "digests"
#: Bytes of images for each byte of JPEG that are believed.
_JPEG_FACTOR = 10
#: Errors of the code that reads a dataset, where it is damaged or hostile.
_DAMAGED = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
)


def save_minari(
    target: str | os.PathLike[str],
    trajectories: Sequence[Trajectory],
    env: gym.Env | tuple[spaces.Space, spaces.Space],
    *,
    actions: bool | None = None,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Save trajectories as a Minari dataset that Minari's own tools can read.

    :param target: a Minari id such as ``"reach/play-v0"`` (a string that ends in ``-v`` and a number: stored where
        Minari keeps its datasets), otherwise the path of a folder that does not exist yet. A ``Path`` is always a
        folder, and so is a string that starts with ``./``, ``../`` or ``/``.
    :param trajectories: their observations fit the observation space. Stored bit by bit, images without compression.
        They are gone through two or three times, and none is kept: a sequence may make each as it is asked for.
    :param env: environment that they come from; or its spaces, as ``(observation_space, action_space)``.
    :param actions: ``False`` leaves the actions out: demonstrations for imitation from observation. ``None`` keeps
        them if the trajectories have some.
    :param metadata: further JSON values to remember. The environment's id, and the arguments it was made with, are kept
        anyway.
    :return: the folder of the dataset, for [`load_trajectories`][] or ``minari.MinariDataset(folder / "data")``.
    :raises FileExistsError: the target exists, or another process is writing it.
    :raises OSError: the disk is full; nothing is left of it then.
    :raises ValueError: a target that looks like an id, but is none to Minari; trajectories that do not fit the spaces,
        some with actions and some without, or images of several qualities.
    """
    refuse_malformed_id(target, "target")
    if isinstance(env, gym.Env):
        observation_space, action_space, spec = env.observation_space, env.action_space, env.spec
        rendering = rendering_of(env)
    else:
        (observation_space, action_space), spec, rendering = env, None, None
    if actions is None:
        actions = any(trajectory.actions is not None for trajectory in trajectories)
    checks = ("trajectories", observation_space, action_space, actions, rendering)
    with_rewards = True
    renderings: dict[str | None, int] = {}
    for index, trajectory in enumerate(iterate_checked(trajectories, *checks)):  # before anything is written
        unfit = [name for name in sensors(trajectory.observations) if "/" in name or name in ("", ".")]
        if unfit:  # HDF5 would take them for groups
            raise ValueError(
                f"trajectories: expected sensor names without '/', and others than '' and '.', got {unfit}"
            )
        with_rewards = with_rewards and trajectory.rewards is not None
        renderings.setdefault(trajectory.rendering, index)
    rendering = rendering or _common_rendering(renderings)

    folder, dataset_id = _place(target)
    described = {
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": write_space(observation_space),
        "action_space": write_space(action_space),
        **({"env_spec": spec.to_json()} if _is_serialisable(spec) else {}),
        "dataset_id": dataset_id,
        "minari_version": minari.__version__,
    }
    ours = {
        **described_env(spec),
        **_checked_metadata(metadata or {}),
        "actions": actions,
        "rewards": with_rewards,
        **({} if rendering is None else {"rendering": rendering}),
    }
    episodes = (
        {
            "observations": next(iterate_checked([trajectory], *checks)).observations,
            # The caller's own numbers: the check rounds what a float64 action space gave.
            "actions": trajectory.actions
            if actions
            else np.zeros((len(trajectory), *(action_space.shape or ())), action_space.dtype),
            "rewards": trajectory.rewards if with_rewards else np.zeros(len(trajectory), np.float32),
            "terminations": _last_only(trajectory.terminated, len(trajectory)),
            "truncations": _last_only(trajectory.truncated, len(trajectory)),
        }
        for trajectory in trajectories
    )
    with new_folder(folder) as unfinished:
        data = unfinished / "data"
        data.mkdir()
        described |= _write_episodes(data / _DATA_FILE, episodes)
        digests = {_DATA_FILE: file_digest(data / _DATA_FILE)}
        digests[_METADATA_FILE] = digest([{**described, _METADATA_KEY: ours}])
        described[_METADATA_KEY] = {**ours, _DIGESTS: digests}
        (data / _METADATA_FILE).write_text(json.dumps(described), encoding="utf-8")
    return folder


class _ErrorKeepingFile(io.FileIO):
    """File that keeps the first error instead of raising it: in HDF5, a failed write ends the whole process."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return size or 0


def _write_episodes(path: Path, episodes: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Write episodes as Minari lays them out, but images in one piece each, and return what its metadata says of them.

    :raises OSError: the disk is full.
    """
    count = steps = 0
    with _ErrorKeepingFile(path, "w+b") as disk:
        with h5py.File(disk, "w", track_order=True) as file:
            file.attrs[_METADATA_KEY] = True
            for count, episode in enumerate(episodes, start=1):
                group = file.create_group(f"episode_{count - 1}", track_order=True)
                group.attrs["id"] = count - 1
                group.attrs["total_steps"] = len(episode["rewards"])
                steps += len(episode["rewards"])
                for name, values in episode.items():
                    _write_array(group, name, values)
                if disk.error is not None:
                    break
        if disk.error is not None:
            raise OSError(disk.error.errno, f"{disk.error.strerror} in writing a data set", str(path)) from disk.error
    size = round(path.stat().st_size / 1e6, 1)
    return {"total_episodes": count, "total_steps": steps, "dataset_size": size}


def _write_array(group: h5py.Group, name: str, values: Observation) -> None:
    if isinstance(values, dict):
        sensor_group = group.create_group(name, track_order=True)
        for sensor, part in values.items():
            _write_array(sensor_group, sensor, part)
        return
    values = np.asarray(values)
    options = {} if _is_images(values) else {"chunks": True, "maxshape": (None, *values.shape[1:])}
    group.create_dataset(name, data=values, **options)


def read_minari(
    source: Any, *, actions: bool, wanted: Sequence[str] | None = None, check_digests: bool = True
) -> list[Trajectory]:
    """Read a Minari dataset.

    Images that [`save_minari`][] wrote are not read: they are views of one mapping of the file, read-only, and that
    of a file which has to stay as it is. All others, and all vectors, are in memory when this returns. Warns of images
    that Minari stored as JPEG, and of episodes without steps, which are left out.

    :param source: a ``minari.MinariDataset`` (or a part of one, as ``filter_episodes`` makes), or the path of a folder.
    :param actions: ``False`` leaves the actions unread, and so does a dataset that was saved without.
    :param wanted: sensors that will be used; ``None`` for all.
    :param check_digests: compare the files with the digests that [`save_minari`][] wrote.
    :raises ValueError: the dataset is corrupted, or holds what is no array of numbers. The message names its folder.
    :raises ImportError: its format needs a library that is not installed.
    """
    folder = source if isinstance(source, Path) else Path(source.storage.data_path)
    data = _data_folder(folder)
    if data is None:
        raise FileNotFoundError(f"{folder}: expected a Minari dataset, found no {_METADATA_FILE}")
    try:
        described = json.loads((data / _METADATA_FILE).read_text(encoding="utf-8"))
        if not {"observation_space", "action_space"} <= set(described):
            # Minari would then make the environment that the file names, and so run code that the file chooses.
            raise ValueError("its metadata.json names no spaces")
        reader = _Reader(folder, described, actions, wanted)
        if described.get("data_format") == "hdf5":
            whole = isinstance(source, Path)
            indices = range(int(described["total_episodes"])) if whole else map(int, source.episode_indices)
            with open_hdf5(data / _DATA_FILE) as file:
                if check_digests:
                    reader.check_digests(file)
                return reader.read((index, reader.hdf5_episode(file, index)) for index in indices)
        dataset = minari.MinariDataset(data) if isinstance(source, Path) else source
        return reader.read((episode.id, partial(getattr, episode)) for episode in dataset.iterate_episodes())
    except ImportError as error:  # of the libraries that Minari reads with, h5py is the only one that comes with us
        raise ImportError(
            f"{folder}: a Minari dataset in the format {described.get('data_format')!r}, which needs pyarrow: "
            f"pip install pyarrow"
        ) from error
    except _DAMAGED as error:
        if str(folder) in str(error):
            raise
        raise ValueError(f"{folder}: expected a readable Minari dataset, but it is corrupted: {error}") from error


def is_minari_folder(folder: Path) -> bool:
    """Whether a folder is a Minari dataset, or the ``data`` folder inside one."""
    return _data_folder(folder) is not None


def local_minari_folder(dataset_id: str) -> Path | None:
    """Return a dataset's folder in Minari's local store (``MINARI_DATASETS_PATH``); ``None`` when there is none."""
    if not _is_dataset_id(dataset_id):
        return None
    folder = get_dataset_path() / dataset_id
    return folder if is_minari_folder(folder) else None


def refuse_malformed_id(name: Any, argument: str) -> None:
    """Refuse a string that looks like a Minari id, but is none to Minari, and is no path of a folder either.

    Nobody means the folder ``./w/vec-v0`` by ``"w/vec-v0"``: it looks like ``"walker/vec-v0"``, which is an id.

    :raises ValueError: such a string.
    """
    if not isinstance(name, str) or not re.search(r"-v\d+$", name) or _is_dataset_id(name):
        return
    path = Path(name)
    if not path.is_absolute() and not name.startswith(("./", "../")) and not path.exists():
        raise ValueError(
            f"{argument}: expected a Minari id or the path of a folder, got {name!r}, which is no id to Minari "
            f"(namespace/name-v0, of letters, digits, '-' and '_', a namespace of at least two of them); for a folder "
            f"write './{name}'"
        )


class _Reader:
    """Reader of a dataset's episodes: of the arrays that are asked for, images by a mapping or from JPEG.

    :param folder: the dataset as the user calls it.
    :param described: metadata of the dataset.
    :param actions: whether to read actions, if there are any.
    :param wanted: sensors; ``None`` for all.
    """

    def __init__(self, folder: Path, described: dict[str, Any], actions: bool, wanted: Sequence[str] | None) -> None:
        self.folder, self.described, self.wanted = folder, described, wanted
        self._ours: dict[str, Any] = described.get(_METADATA_KEY, {})
        self._kept = {
            "actions": actions and self._ours.get("actions", True),
            "rewards": self._ours.get("rewards", True),
        }
        self._rendering = as_quality(self._ours.get("rendering"))
        self._mapping: np.memmap | None = None
        space = json.loads(described["observation_space"])
        self._is_dict = space["type"] == "Dict"
        parts = space["subspaces"] if self._is_dict else {"observations": space}
        self._images = {name: shape for name, part in parts.items() if (shape := _image_shape(part))}
        self._jpeg = bool(described.get("jpeg_encoding", True))

    def read(self, episodes: Iterable[tuple[int, Callable[[str], Any]]]) -> list[Trajectory]:
        """Make trajectories of episodes.

        :param episodes: index of each, and a function that reads its arrays by their names.
        """
        if self._jpeg and any(not self._is_dict or self._is_wanted(name) for name in self._images):
            warnings.warn(
                f"Minari dataset {self.described.get('dataset_id', self.folder)}: its images were stored as JPEG, so "
                f"they are not the frames that the environment showed; a discriminator tells the two apart by that "
                f"alone. Record it with jpeg_encoding=False to keep them as they are",
                stacklevel=3,
            )
        trajectories, empty = [], []
        for index, get in episodes:
            terminations, truncations = get("terminations"), get("truncations")
            if not len(terminations):
                empty.append(index)
                continue
            observations = get("observations")
            if not all(isinstance(values, np.ndarray) for values in sensors(observations).values()):
                raise ValueError("expected observations in one array, or one array per sensor; flatten nested spaces")
            fields: dict[str, Any] = {name: np.asarray(get(name)) for name, is_kept in self._kept.items() if is_kept}
            fields |= {"terminated": bool(terminations[-1]), "truncated": bool(truncations[-1])}
            try:
                trajectories.append(Trajectory(observations, **fields, rendering=self._rendering))
            except ValueError as error:
                raise ValueError(f"{self.folder}: episode {index}: {error}") from error
        if empty:
            warnings.warn(f"{self.folder}: left out {len(empty)} episodes without steps, {empty[:5]}", stacklevel=3)
        return trajectories

    def check_digests(self, file: Hdf5Arrays) -> None:
        """Compare the files with the digests that were written with them.

        :raises ValueError: another content.
        """
        digests = self._ours.get(_DIGESTS, {})
        if not digests:
            if _METADATA_KEY in file.file.attrs:
                raise ValueError(f"its {_METADATA_FILE} lacks what was written with it")
            return
        unsigned = {name: value for name, value in self._ours.items() if name != _DIGESTS}
        found = {_METADATA_FILE: digest([{**self.described, _METADATA_KEY: unsigned}])}
        found[_DATA_FILE] = file_digest(file.path)
        for name, value in found.items():
            if digests.get(name) != value:
                raise ValueError(
                    f"{self.folder}: expected the files that were written, but {name} does not match its digest: it is "
                    f"damaged, or was changed{_empty_episodes(file)}; load_trajectories(..., check_digests=False) "
                    f"reads it all the same"
                )

    def hdf5_episode(self, file: Hdf5Arrays, index: int) -> Callable[[str], Any]:
        """Return the function that reads the arrays of an episode in HDF5."""
        episode = file.group(file.file, f"episode_{index}")

        def get(name: str) -> Any:
            if name != "observations":
                return file.read(episode, name)
            if not self._is_dict:
                return self._sensor(file, episode, name)
            group = file.group(episode, name)
            names = [sensor for sensor in group if self._is_wanted(sensor)]
            if not names:
                raise ValueError(f"{self.folder}: expected sensors out of {sorted(group)}, got {self.wanted}")
            return {sensor: self._sensor(file, group, sensor) for sensor in names}

        return get

    def _is_wanted(self, sensor: str) -> bool:
        return self.wanted is None or sensor in self.wanted

    def _sensor(self, file: Hdf5Arrays, group: h5py.Group, name: str) -> Array:
        stored = file.find(group, name)
        image = self._images.get(name)
        if image is not None and self._jpeg:
            return _from_jpeg(file, stored, image)
        if isinstance(stored, h5py.Group) or stored.dtype.kind not in "biuf":
            kind = "nested ones" if isinstance(stored, h5py.Group) else f"the dtype {stored.dtype}"
            raise ValueError(
                f"{self.folder}: expected an array of numbers for every sensor, got {kind} for {name!r}; "
                f"sensors=[...] takes those that are arrays"
            )
        if (offset := _mappable_offset(stored)) is None:
            return file.read(group, name)
        if self._mapping is None:
            self._mapping = np.memmap(file.path, np.uint8, mode="r")
        return np.asarray(self._mapping[offset : offset + stored.nbytes]).reshape(stored.shape)


def _from_jpeg(file: Hdf5Arrays, stored: Any, shape: tuple[int, ...]) -> Array:
    """Decode images (T+1, H, W, C) one by one; each has to be as large as the space says."""
    file.budget.take(len(stored) * math.prod(shape) // _JPEG_FACTOR)
    images = np.empty((len(stored), *shape), np.uint8)
    for index in range(len(stored)):
        content = np.asarray(stored[index], np.uint8).tobytes()
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if (image.height, image.width) != shape[:2]:
                raise ValueError(f"expected images of {shape}, got one of {(image.height, image.width)}")
            images[index] = np.asarray(image, np.uint8).reshape(shape)
    return images


def _empty_episodes(file: Hdf5Arrays) -> str:
    """Name the episodes without steps of a file that was changed; a damaged one may not say."""
    try:
        empty = [name for name in file.file if not len(file.array(file.group(file.file, name), "rewards"))]
    except (ValueError, OSError, RuntimeError):
        return ""
    return f", and has no steps in {', '.join(empty)}" if empty else ""


def _image_shape(described: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the shape of what Minari takes for an image, by the description of its space."""
    if described["type"] != "Box" or described["dtype"] != "uint8":
        return None
    space = read_box(described)
    return space.shape if is_image_space(space) else None


def _checked_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        checked: dict[str, Any] = json.loads(json.dumps(metadata, default=plain_number))
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata: expected JSON values, got {metadata} ({error})") from error
    return checked


def _mappable_offset(stored: Any) -> int | None:
    """Return the byte of a file at which images (T+1, H, W, C) begin, if they lie there as they are in memory."""
    if not isinstance(stored, h5py.Dataset) or not _is_images(stored) or stored.file.userblock_size:
        return None
    in_one_piece = stored.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS and not stored.external
    return stored.id.get_offset() if in_one_piece else None


def _is_images(values: Any) -> bool:
    return values.dtype == np.uint8 and values.ndim == 4


def _place(target: str | os.PathLike[str]) -> tuple[Path, str]:
    """Return the folder and the id of a new dataset."""
    if isinstance(target, str) and _is_dataset_id(target):
        namespace = target.rpartition("/")[0]
        if namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
        return get_dataset_path() / target, target
    folder = Path(target).resolve()  # Minari takes a relative path twice
    # Minari insists on an id of this form for every dataset.
    word = re.sub(r"\W", "_", folder.name) or "dataset"
    return folder, folder.name if _is_dataset_id(folder.name) else f"{word}-v0"


def _is_dataset_id(name: str) -> bool:
    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):  # the latter where there is no version
        return False
    return True


def _data_folder(folder: Path) -> Path | None:
    return next((path for path in (folder / "data", folder) if (path / _METADATA_FILE).is_file()), None)


def _is_serialisable(spec: Any) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            type(spec).from_json(spec.to_json())
    except Exception:  # none, or one that holds anything: then the dataset goes without, its spaces are stored anyway
        return False
    return True


def described_env(spec: Any) -> dict[str, Any]:
    """Return what makes the same environment again: its id, and the arguments that are JSON."""
    if spec is None:
        return {}
    # What gymnasium.make calls the task of ours is the id that make_env takes.
    names = {"task": "id"} if spec.id.startswith("aime_gym/") else {}
    arguments = {
        names.get(name, name): plain_number(value) if isinstance(value, np.generic) else value
        for name, value in spec.kwargs.items()
        if isinstance(value, str | numbers.Real | np.bool_)
    }
    return {"env_id": spec.id, "env_arguments": arguments}


def _common_rendering(found: Mapping[str | None, int]) -> str | None:
    """Return the one quality of all trajectories, if it is known; ``found`` has the first one of each."""
    known = [name for name in found if name is not None]
    if len(known) > 1:
        places = ", ".join(f"{name!r} in trajectories[{found[name]}]" for name in sorted(known))
        raise ValueError(f"trajectories: expected images of one quality, got {places}")
    return known[0] if len(found) == len(known) == 1 else None


def _last_only(value: bool, steps: int) -> Array:
    flags = np.zeros(steps, dtype=bool)
    flags[-1] = value
    return flags
