"""Frame rates: how often an environment decides, and which frames of a video it would see."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from aime_gym.data.video_decoding import Video
from aime_gym.types import Array

#: Rates closer than this are one: 29.97 and 30 frames per second, but not 24 and 25.
_SAME_RATE = 0.02
#: Decisions per second beyond which an environment's word is no rate.
_HIGHEST_RATE = 1000.0


def frame_rate_of(env: gym.Env) -> float | None:
    """Return the decisions per second of an environment; ``None`` where it does not say."""
    return frame_rate(env.metadata, env.spec.id if env.spec is not None else "")


def frame_rate(metadata: Mapping[str, Any], env_id: str) -> float | None:
    """Return the decisions per second by an environment's ``metadata``; ``None`` where it does not say.

    [`make_env`][] sees to a rate that is true. Others are believed within reason, except for Shimmy's
    dm_control, which gives the milliseconds of a step.
    """
    rate: Any = metadata.get("render_fps")
    return float(rate) if is_rate(rate, _HIGHEST_RATE) and not env_id.startswith("dm_control/") else None


def is_rate(value: Any, most: float = math.inf) -> bool:
    """Return whether a value is a number of frames per second; NumPy's numbers are fine."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    return 0 < float(value) <= most and math.isfinite(value)


def check_frame_rate(rate: Any) -> None:
    """Check an argument that is a number of frames per second.

    :raises ValueError: something else than a positive, finite number.
    """
    if not is_rate(rate):
        raise ValueError(f"frame_rate: expected a positive number, got {rate}")


def frames_at_decisions(video: Video, rate: float | None) -> Array | None:
    """Return the index of the frame that is shown at each decision; ``None`` for all frames, one after the other.

    :param rate: decisions per second; ``None`` takes the video as it is.
    """
    if rate is None or video.times is None:
        return None
    delays = np.diff(video.times)
    period = 1 / rate
    mean_is_off = abs(delays.mean() - period) > _SAME_RATE * period + video.rounding / len(video.frames)
    if not mean_is_off and (abs(delays - period) < period / 2).all():
        return None
    # Each delay of a gif may be rounded the same way: then all of them are off.
    if (abs(delays - period) < video.rounding - 1e-9).all():
        return None
    # A frame that is due at a decision may be stored a little late, and the end too.
    rounding = max(video.rounding, 1e-6)
    count = math.ceil((video.times[-1] - min(rounding, period / 4) - 1e-9) * rate)
    due = np.arange(count) * period + min(rounding / 2, float(np.median(delays)) / 4) + 1e-9
    return np.searchsorted(video.times[:-1], due, side="right") - 1


def rate_in_words(video: Video) -> str:
    """Return the frames per second of a video that has times, for a message."""
    assert video.times is not None
    delays = np.diff(video.times)
    rate = f"{1 / delays.mean():.4g}"
    steady = (abs(delays - delays.mean()) <= max(0.1 * delays.mean(), video.rounding)).all()
    return rate if steady else f"{rate} on average, unsteady"
