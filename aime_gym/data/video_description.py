"""Description of a folder of videos, ``videos.json``: their environment, frame rate and policy, and their digests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aime_gym.data.video_decoding import damaged_video
from aime_gym.serialization import digest, file_digest
from aime_gym.wrappers.quality import as_quality

#: Name of the description, beside the videos.
DESCRIPTION = "videos.json"
#: Key of the digests: of each video by its name, and of the description's other keys by the description's.
_DIGESTS = "digests"
#: Frames per second beyond which a description is taken for damaged.
_HIGHEST_RATE = 1e6


def write_description(folder: Path, names: Sequence[str], about: Mapping[str, Any]) -> None:
    """Describe the videos of a folder, which are all written by now.

    :param names: the videos' file names.
    :param about: what is known of all of them, ``frame_rate`` among it.
    """
    described = {**about, "videos": list(names)}
    digests = {name: file_digest(folder / name) for name in names}
    described[_DIGESTS] = {**digests, DESCRIPTION: _digest_of_description(described)}
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def read_description(video: Path) -> dict[str, Any] | None:
    """Return what is known of a video; ``None`` where nothing is written beside it, or nothing of this one.

    :raises ValueError: the description is damaged.
    """
    path = video.parent / DESCRIPTION
    if not path.is_file():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        rate = described.get("frame_rate")
        names = described.get("videos", [])
        arguments = described.get("env_arguments", {})
        digests = described.get(_DIGESTS, {})
        if not isinstance(rate, int | float) or not 0 < rate < _HIGHEST_RATE:
            raise ValueError(f"frame_rate: {rate!r}")
        for key, value, kind in (
            ("videos", names, list),
            ("env_arguments", arguments, dict),
            (_DIGESTS, digests, dict),
        ):
            if not isinstance(value, kind):
                raise ValueError(f"{key}: {value!r}")
        if digests and digests.get(DESCRIPTION) != _digest_of_description(described):
            raise ValueError(f"its digest differs; remove the key {_DIGESTS!r} from a file that was edited on purpose")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a description as save_videos writes it, but it is damaged ({error})"
        ) from error
    return dict(described) if video.name in names else None


def check_digest(video: Path) -> None:
    """Compare a video with the digest that was written beside it, if one was.

    :raises ValueError: its bytes have changed since it was written.
    """
    described = read_description(video) or {}
    expected = described.get(_DIGESTS, {}).get(video.name)
    if expected is not None and file_digest(video) != expected:
        raise damaged_video(video, f"its digest differs from the one in {DESCRIPTION}")


def described_quality(video: Path) -> str | None:
    """Return how a video was rendered, as :func:`aime_gym.make_env` calls it; ``None`` where nobody knows."""
    described = read_description(video)
    return None if described is None else as_quality(described.get("env_arguments", {}).get("quality", "default"))


def _digest_of_description(described: Mapping[str, Any]) -> str:
    others = {key: value for key, value in described.items() if key != _DIGESTS}
    return digest([json.dumps(others, sort_keys=True)])
