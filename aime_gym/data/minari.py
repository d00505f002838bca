"""Minari datasets: the format in which Gymnasium's users exchange trajectories.

Two things are done otherwise than Minari does by itself. Images are stored raw: JPEG, its default, is lossy, and a
discriminator tells compressed demonstrations from raw frames at a glance. And Minari has no episodes without actions:
for observation-only demonstrations we write zeros and say so in the metadata, and never read them back.

The images of an episode are also stored in one piece, where Minari cuts them into chunks. A piece can be mapped as it
lies on disk, so these images are not read here, but when a sequence needs them. Chunked images (Minari's own raw ones),
compressed ones and JPEG are decoded into memory, all of them at once.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset._storages.hdf5_storage import HDF5Storage
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import MinariStorage, is_image_space
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage import get_dataset_path

from aime_gym.data.validation import iterate_checked
from aime_gym.types import Array, Observation, Trajectory, sensors
from aime_gym.wrappers import rendering_of
from aime_gym.wrappers.quality import as_quality

#: Our part of a dataset's metadata. What is absent there (other people's datasets) has actions and rewards.
_METADATA_KEY = "aime_gym"
#: Where Minari keeps the episodes of a dataset in HDF5.
_DATA_FILE = "main_data.hdf5"


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
    :param env: where they come from; or its spaces, as ``(observation_space, action_space)``.
    :param actions: ``False`` leaves the actions out: demonstrations for imitation from observation. ``None`` keeps
        them if the trajectories have some.
    :param metadata: what else to remember, JSON. The environment's id, and the arguments it was made with, are kept
        anyway.
    :return: the folder of the dataset, for :func:`load_trajectories` or ``minari.MinariDataset(folder / "data")``.
    :raises FileExistsError: the target exists.
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
    check = functools.partial(
        iterate_checked,
        argument="trajectories",
        observation_space=observation_space,
        action_space=action_space,
        need_actions=actions,
        rendering=rendering,
    )
    with_rewards, renderings = True, dict[str | None, int]()
    for index, trajectory in enumerate(check(trajectories)):  # all of them, before anything is written
        slashed = [name for name in sensors(trajectory.observations) if "/" in name]
        if slashed:  # HDF5 would take them for groups, which Minari does not find again
            raise ValueError(f"trajectories: expected sensor names without '/', got {slashed}")
        with_rewards = with_rewards and trajectory.rewards is not None
        renderings.setdefault(trajectory.rendering, index)
    rendering = rendering or _common_rendering(renderings)

    folder, dataset_id = _place(target)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: choose another name, or remove it first")
    # Built beside its place and moved at the end, so that an interruption leaves no half of a dataset there.
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        storage = MinariStorage.new(
            partial / "data",
            observation_space=observation_space,
            action_space=action_space,
            env_spec=spec if _is_serialisable(spec) else None,
            jpeg_encoding=False,
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                _METADATA_KEY: {
                    **described_env(spec),
                    **(metadata or {}),
                    "actions": actions,
                    "rewards": with_rewards,
                    **({} if rendering is None else {"rendering": rendering}),
                },
            }
        )
        buffers = (
            EpisodeBuffer(
                observations=next(check([trajectory])).observations,
                # The caller's own numbers: the check rounds what a float64 action space gave.
                actions=trajectory.actions if actions else _no_actions(len(trajectory), action_space),
                rewards=trajectory.rewards if with_rewards else np.zeros(len(trajectory), np.float32),
                terminations=_last_only(trajectory.terminated, len(trajectory)),
                truncations=_last_only(trajectory.truncated, len(trajectory)),
            )
            for trajectory in trajectories
        )
        storage.update_episodes(_write_images(buffers, storage.data_path / _DATA_FILE))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_images(buffers: Iterator[EpisodeBuffer], path: Path) -> Iterator[EpisodeBuffer]:
    """Leave episodes to Minari without their images, and write those in one piece each, which Minari never does."""
    with h5py.File(path, "a") as file:  # Minari has it open as well: in one process, HDF5 shares it
        for index, buffer in enumerate(buffers):
            observations = buffer.observations
            images = {name: values for name, values in sensors(observations).items() if _is_images(values)}
            if isinstance(observations, dict):
                others = {name: values for name, values in observations.items() if name not in images}
                yield dataclasses.replace(buffer, observations=others)
            else:
                yield dataclasses.replace(buffer, observations=None if images else observations)
            # Asking for the next episode, Minari has written this one.
            for name, values in images.items():
                place = f"observations/{name}" if isinstance(observations, dict) else "observations"
                file[f"episode_{index}"].create_dataset(place, data=values)


def read_minari(source: Any, *, actions: bool, wanted: Sequence[str] | None = None) -> list[Trajectory]:
    """Read a Minari dataset.

    Images that :func:`save_minari` wrote are not read: they are views of one mapping of the file, read-only, and that
    of a file which has to stay as it is. All others, and all vectors, are in memory when this returns. Warns of images
    that Minari stored as JPEG.

    :param source: a ``minari.MinariDataset`` (or a part of one, as ``filter_episodes`` makes), or the path of a folder.
    :param actions: ``False`` leaves the actions unread, and so does a dataset that was saved without.
    :param wanted: sensors that will be used; ``None`` for all.
    :raises ValueError: the dataset is corrupted. The message names its folder.
    :raises ImportError: its format needs a library that is not installed.
    """
    if isinstance(source, Path):
        return _read_folder(source, actions, wanted)
    return list(_read_episodes(source, actions, wanted))


def is_minari_folder(folder: Path) -> bool:
    """Whether a folder is a Minari dataset, or the ``data`` folder inside one."""
    return _data_folder(folder) is not None


def local_minari_folder(dataset_id: str) -> Path | None:
    """The folder of a dataset in Minari's local store (``MINARI_DATASETS_PATH``); ``None`` when there is none."""
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


def _read_folder(folder: Path, actions: bool, wanted: Sequence[str] | None) -> list[Trajectory]:
    data = _data_folder(folder)
    assert data is not None
    try:
        described = json.loads((data / "metadata.json").read_text())
        if not {"observation_space", "action_space"} <= set(described):
            # Minari would then make the environment that the file names, and so run code that the file chooses.
            raise ValueError("its metadata.json names no spaces")
        return list(_read_episodes(minari.MinariDataset(data), actions, wanted))
    except ImportError as error:  # of the libraries that Minari reads with, h5py is the only one that comes with us
        raise ImportError(
            f"{folder}: a Minari dataset in the format {described.get('data_format')!r}, which needs pyarrow: "
            f"pip install pyarrow"
        ) from error
    except (OSError, KeyError, ValueError, AssertionError) as error:
        raise ValueError(f"{folder}: expected a readable Minari dataset, but it is corrupted: {error}") from error


def _read_episodes(dataset: Any, actions: bool, wanted: Sequence[str] | None) -> Iterator[Trajectory]:
    _warn_of_jpeg(dataset.storage, wanted)
    ours = dataset.storage.metadata.get(_METADATA_KEY, {})
    actions = actions and ours.get("actions", True)
    with_rewards = ours.get("rewards", True)
    rendering = as_quality(ours.get("rendering"))
    if len(dataset.episode_indices) == 0:
        return
    if isinstance(dataset.storage, HDF5Storage):
        episodes = _hdf5_episodes(dataset, actions)
    else:
        episodes = (vars(episode) for episode in dataset.iterate_episodes())
    for episode in episodes:
        yield Trajectory(
            observations=_plain(episode["observations"]),
            actions=np.asarray(episode["actions"]) if actions else None,
            rewards=np.asarray(episode["rewards"]) if with_rewards else None,
            terminated=bool(episode["terminations"][-1]),
            truncated=bool(episode["truncations"][-1]),
            rendering=rendering,
        )


def _warn_of_jpeg(storage: MinariStorage, wanted: Sequence[str] | None) -> None:
    space = storage.observation_space
    parts = space.spaces.items() if isinstance(space, spaces.Dict) else [("", space)]
    images = [name for name, part in parts if is_image_space(part) and (not name or wanted is None or name in wanted)]
    if storage.jpeg_encoding and images:
        warnings.warn(
            f"Minari dataset {storage.metadata.get('dataset_id', storage.data_path)}: its images were stored as JPEG, "
            f"so they are not the frames that the environment showed; a discriminator tells the two apart by that "
            f"alone. Record it with jpeg_encoding=False to keep them as they are",
            stacklevel=2,
        )


def _hdf5_episodes(dataset: Any, actions: bool) -> Iterator[dict[str, Any]]:
    """Minari's own reading loop, less what nobody asked for: it always reads the actions and infos too."""
    storage = dataset.storage
    path = storage.data_path / _DATA_FILE
    space, mapping = storage.observation_space, None

    def observed(stored: Any, space: spaces.Space) -> Any:
        nonlocal mapping
        if (offset := _mappable_offset(stored)) is None:
            return storage._decode_space(stored, space)
        if mapping is None:
            mapping = np.memmap(path, np.uint8, mode="r")
        return np.asarray(mapping[offset : offset + stored.nbytes]).reshape(stored.shape)

    with h5py.File(path, "r") as file:
        for index in dataset.episode_indices:
            group = file[f"episode_{index}"]
            episode = {name: group[name][()] for name in ("rewards", "terminations", "truncations")}
            stored = group["observations"]
            if isinstance(space, spaces.Dict):
                episode["observations"] = {name: observed(stored[name], space[name]) for name in stored}
            else:
                episode["observations"] = observed(stored, space)
            if actions:
                episode["actions"] = storage._decode_space(group["actions"], storage.action_space)
            yield episode


def _mappable_offset(stored: Any) -> int | None:
    """The byte of a file at which images (T+1, H, W, C) begin, if they lie there as they are in memory."""
    if not isinstance(stored, h5py.Dataset) or not _is_images(stored) or stored.file.userblock_size:
        return None
    properties = stored.id.get_create_plist()
    in_one_piece = properties.get_layout() == h5py.h5d.CONTIGUOUS and not properties.get_external_count()
    return stored.id.get_offset() if in_one_piece else None


def _is_images(values: Any) -> bool:
    return values.dtype == np.uint8 and values.ndim == 4


def _plain(observations: Any) -> Observation:
    if isinstance(observations, dict) and all(isinstance(values, np.ndarray) for values in observations.values()):
        return observations
    if isinstance(observations, np.ndarray):
        return observations
    raise ValueError("expected observations in one array, or in one array per sensor; flatten nested spaces first")


def _place(target: str | os.PathLike[str]) -> tuple[Path, str]:
    """Folder and id of a new dataset."""
    if isinstance(target, str) and _is_dataset_id(target):
        namespace = target.rpartition("/")[0]
        if namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
        return get_dataset_path() / target, target
    folder = Path(target).resolve()  # Minari takes a relative path twice
    # Minari insists on an id of this form for every dataset.
    return folder, folder.name if _is_dataset_id(folder.name) else f"{_word(folder.name)}-v0"


def _is_dataset_id(name: str) -> bool:
    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):  # the latter where there is no version
        return False
    return True


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name) or "dataset"


def _data_folder(folder: Path) -> Path | None:
    return next((path for path in (folder / "data", folder) if (path / "metadata.json").is_file()), None)


def _is_serialisable(spec: Any) -> bool:
    if spec is None:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            type(spec).from_json(spec.to_json())
    except Exception:  # a spec may hold anything: then the dataset goes without, its spaces are stored anyway
        return False
    return True


def described_env(spec: Any) -> dict[str, Any]:
    """What makes the same environment again: its id, and the arguments that are JSON."""
    if spec is None:
        return {}
    arguments = {name: value for name, value in spec.kwargs.items() if isinstance(value, str | int | float | bool)}
    return {"env_id": spec.id, "env_arguments": arguments}


def _common_rendering(found: Mapping[str | None, int]) -> str | None:
    """The one quality of all trajectories, if it is known; ``found`` has the first one of each."""
    known = [name for name in found if name is not None]
    if len(known) > 1:
        places = ", ".join(f"{name!r} in trajectories[{found[name]}]" for name in sorted(known))
        raise ValueError(f"trajectories: expected images of one quality, got {places}")
    return known[0] if len(found) == len(known) == 1 else None


def _no_actions(steps: int, space: spaces.Space) -> Array:
    return np.zeros((steps, *(space.shape or ())), dtype=space.dtype)


def _last_only(value: bool, steps: int) -> Array:
    flags = np.zeros(steps, dtype=bool)
    flags[-1] = value
    return flags
