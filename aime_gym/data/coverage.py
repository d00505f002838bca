"""Coverage of demonstrations by play: how many of their records lie where play has been."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from aime_gym.types import Array, Trajectories, channels_first, is_image, sensors

#: Share of records outside of play from which on a user is told. Measured with 20 demonstrations: 0.0 for reach-v3
#: after play of held random actions, 0.4 after uniform ones; 0.6 to 0.7 for LunarLander-v3 after uniform ones.
LIMIT = 0.5
#: Records of each data set that are compared, and blocks of a side of an image, which stand for it.
_RECORDS, _BLOCKS = 2000, 8


def sample_records(trajectories: Trajectories) -> list[Array]:
    """Return records of each trajectory as vectors (n, D), evenly spread, about 2000 in all; of images 8 x 8 blocks."""
    step = -(-sum(len(trajectory) + 1 for trajectory in trajectories) // _RECORDS)
    sampled, first = [], 0
    for trajectory in trajectories:
        parts = [_vectors(values[first::step]) for _, values in sorted(sensors(trajectory.observations).items())]
        sampled.append(np.concatenate(parts, axis=1))
        first = (first - len(trajectory) - 1) % step
    return sampled


def _vectors(values: Array) -> Array:
    if values.dtype != np.uint8 or not is_image(values.shape[1:]):
        return values.astype(np.float32)
    frames = torch.from_numpy(np.array(values)).float() / 255
    frames = frames if channels_first(values.shape[1:]) else frames.movedim(-1, 1)
    blocks: Array = F.adaptive_avg_pool2d(frames, _BLOCKS).flatten(1).numpy()
    return blocks


def share_outside(demos: Sequence[Array], play: Sequence[Array]) -> float:
    """Return the share of demonstrations' records that are farther from play than 95% of play's own records.

    Both are compared with one half of play, play itself by its other episodes: 0.05 is usual. Distances are those to
    the nearest record, in standard deviations of play.

    :param demos: records of each demonstration, as [`sample_records`][] returns them; so are those of ``play``.
    """
    halves = [play[::2], play[1::2]] if len(play) > 1 else [[half] for half in np.array_split(play[0], 2)]
    known, other, shown = (torch.from_numpy(np.concatenate(part)) for part in (*halves, demos))
    std = known.std(0, correction=0)
    unit = std.clamp_min(0.1 * float(std.square().mean().sqrt())).clamp_min(1e-6)  # of entries that hardly move
    distances = [torch.cdist(records / unit, known / unit).amin(1) for records in (other, shown)]
    return float((distances[1] > distances[0].quantile(0.95)).float().mean())


def outside_text(share: float) -> str:
    """Return the share in a sentence that says what it means."""
    return (
        f"{share:.0%} of the demonstrations' records lie where play has not been (5% is usual, the limit is "
        f"{LIMIT:.0%}), and what actions do there has to be guessed: record play that comes there, by "
        f"'plan2explore' or by a policy that is better than random"
    )


def warn_of_outside(demos: Trajectories, play: Sequence[Array], argument: str) -> None:
    """Warn of demonstrations most of whose records lie where play has not been.

    :param play: records of play, as [`sample_records`][] returns them; without any there is no warning.
    """
    if play and (share := share_outside(sample_records(demos), play)) > LIMIT:
        warnings.warn(f"{argument}: {outside_text(share)}", stacklevel=4)
