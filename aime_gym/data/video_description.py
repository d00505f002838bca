"""Description of a folder of videos, ``videos.json``: their environment, frame rate and policy, and their digests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aime_gym.data.resampling import is_rate
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
    :param about: facts that hold for all of them, ``frame_rate`` among them.
    """
    described = {**about, "videos": list(names)}
    digests = {name: file_digest(folder / name) for name in names}
    described[_DIGESTS] = {**digests, DESCRIPTION: digest([described])}
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def read_description(video: Path) -> dict[str, Any] | None:
    """Return what is known of a video; ``None`` where nothing is written beside it, or nothing of this one.

    :raises ValueError: the description is damaged.
    """
    path = video.parent / DESCRIPTION
    if not path.is_file():
        return None
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        described = {"videos": [], "env_arguments": {}, _DIGESTS: {}, **written}
        if not is_rate(written.get("frame_rate"), _HIGHEST_RATE):
            raise ValueError(f"frame_rate: {written.get('frame_rate')!r}")
        for key, kind in (("videos", list), ("env_arguments", dict), (_DIGESTS, dict)):
            if not isinstance(described[key], kind):
                raise ValueError(f"{key}: {described[key]!r}")
        digests = described[_DIGESTS]
        if digests and digests.get(DESCRIPTION) != digest([{k: v for k, v in written.items() if k != _DIGESTS}]):
            raise ValueError(f"its digest differs; remove the key {_DIGESTS!r} from a file that was edited on purpose")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a description as save_videos writes it, but it is damaged ({error})"
        ) from error
    return described if video.name in described["videos"] else None


def check_digest(video: Path, described: Mapping[str, Any]) -> None:
    """Compare a video with the digest that was written beside it, if one was.

    :param described: description of the video, by ``read_description``.
    :raises ValueError: its bytes have changed since it was written.
    """
    expected = described[_DIGESTS].get(video.name)
    if expected is not None and file_digest(video) != expected:
        raise damaged_video(video, f"its digest differs from the one in {DESCRIPTION}")


def described_quality(video: Path) -> str | None:
    """Return how a video was rendered, as [`make_env`][] calls it; ``None`` where nobody knows."""
    described = read_description(video)
    return None if described is None else as_quality(described["env_arguments"].get("quality", "default"))
