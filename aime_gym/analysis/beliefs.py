"""Videos of a world model's beliefs: its reconstruction of demonstrations, and its open-loop prediction.

Each frame of the video has three panels, for the images of one record of a demonstration:

    demonstration    o_t
    reconstruction   decoded mean at s_t ~ q(s_t | h_t, o_t), under the inferred actions
    prediction       the reconstruction for the first records; afterwards the decoded mean at s_t ~ p(s_t | h_t), given
                     the actions only

All states are means instead of samples.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aime_gym.data import TrajectoryDataset
from aime_gym.data.captions import captioned
from aime_gym.data.video_writing import check_video_path, write_video
from aime_gym.model_based.filtering import RowSource, by_pieces, filtered_batches
from aime_gym.models.rssm import RSSM, Latents, State
from aime_gym.models.world_model import WorldModel
from aime_gym.types import Array, Trajectories, Trajectory, channels_first, is_image, sensors

#: Approximate height in pixels to which images are enlarged.
_HEIGHT = 256
#: Least width of a panel in pixels, which the captions need.
_MIN_WIDTH = 208


class Beliefs(NamedTuple):
    """Panels of one demonstration, ``uint8`` (T, H, W, 3) each; several images are stacked vertically."""

    demonstration: Array
    reconstruction: Array
    prediction: Array


def write_beliefs(
    path: Path,
    model: WorldModel,
    demos: Trajectories,
    make_source: Callable[[TrajectoryDataset], RowSource],
    *,
    context: int,
    length: int | None,
    episodes: int,
    fps: float,
) -> None:
    """Write a video of the first demonstrations, one frame for each record.

    :param path: output file, ending in ``.mp4`` or ``.gif``.
    :param model: world model with an image among its sensors.
    :param demos: demonstrations.
    :param make_source: function that returns the source of actions for a dataset.
    :param context: number of filtered records, after which the prediction is open-loop.
    :param length: records of each demonstration in the video; ``None`` for all.
    :param episodes: demonstrations in the video.
    :param fps: frames per second.
    :raises ValueError: no sensor is an image, or an argument is out of range.
    """
    for name, value, least in (("context", context, 1), ("length", length, 2), ("episodes", episodes, 1)):
        if value is not None and (not isinstance(value, numbers.Integral) or value < least):
            raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    if not isinstance(fps, numbers.Real) or not fps > 0:
        raise ValueError(f"fps: expected more than 0, got {fps!r}")
    check_video_path(path)
    images = sum(is_image(shape) for shape in model.sensors.values())
    if not images:
        raise ValueError(f"render_beliefs: expected an observation with an image, got the sensors {model.sensors}")
    selected = [demo if length is None else _truncate(demo, length) for demo in demos[:episodes]]
    dataset = TrajectoryDataset(selected, None, next(model.parameters()).device)
    panels = beliefs(model, dataset, make_source(dataset), context=context)
    write_video(path, video_frames(panels, images, context), fps)


@torch.no_grad()
def beliefs(model: WorldModel, dataset: TrajectoryDataset, source: RowSource, *, context: int) -> list[Beliefs]:
    """Return the three panels of every trajectory under the actions of ``source``; see the module."""
    filtered = next(model.parameters()).new_zeros(len(dataset), model.feature_size)
    predicted = torch.zeros_like(filtered)
    for rows, valid, latents, _ in filtered_batches(model, dataset, source):
        filtered[rows[valid]] = latents.states.feature[valid]
        predicted[rows[valid]] = predict_open_loop(model.rssm, latents, context).feature[valid]

    panels = []
    for features in (None, filtered, predicted):
        images = []
        for name, shape in model.sensors.items():
            if is_image(shape):
                rows = torch.arange(len(dataset), device=dataset.device)
                if features is None:
                    frames = dataset.observed(rows)[name]
                    frames = frames.movedim(1, -1) if channels_first(shape) else frames
                else:
                    frames = _decode_images(model, name, features, rows)
                images.append(_to_rgb(frames))
        panels.append([part.cpu().numpy() for part in dataset.per_trajectory(_stack_vertically(images))])
    return [Beliefs(*parts) for parts in zip(*panels, strict=True)]


def predict_open_loop(rssm: RSSM, latents: Latents, context: int) -> State:
    """Return states (T, B, ...): ``context`` filtered ones, then the prior's modes under the same actions."""
    deters = list(latents.states.deter[:context])
    stochs = list(latents.states.stoch[:context])
    state = State(deters[-1], stochs[-1])
    for prev_action in latents.prev_actions[context:]:
        h = rssm.transition(state, prev_action)
        state = State(h, rssm.prior(h).mode)
        deters.append(state.deter)
        stochs.append(state.stoch)
    return State(torch.stack(deters), torch.stack(stochs))


def _truncate(demo: Trajectory, records: int) -> Trajectory:
    """Return the first records of a demonstration."""
    truncated = {name: values[:records] for name, values in sensors(demo.observations).items()}
    observations = truncated if isinstance(demo.observations, dict) else truncated["observation"]
    return replace(demo, observations=observations, actions=None, rewards=None)


def _decode_images(model: WorldModel, name: str, features: Tensor, rows: Tensor) -> Tensor:
    """Decode the mean of an image as ``uint8``, (N, H, W, C)."""

    def decode(piece: Tensor) -> Tensor:
        mean: Tensor = model.decoders[name](features[piece]).mean
        return (mean.clamp(0, 1) * 255).round().to(torch.uint8)

    return by_pieces(model, decode, rows)


def _to_rgb(frames: Tensor) -> Tensor:
    """Convert images (N, H, W, C) to (N, H, W, 3): the last three channels of stacked frames, grey ones repeated."""
    return frames[..., -3:] if frames.shape[-1] >= 3 else frames[..., -1:].expand(*frames.shape[:-1], 3)


def _stack_vertically(images: list[Tensor]) -> Tensor:
    """Stack images (N, H, W, 3) on top of each other, narrower ones with a black margin."""
    width = max(image.shape[2] for image in images)
    return torch.cat([F.pad(image, (0, 0, 0, width - image.shape[2])) for image in images], dim=1)


def video_frames(panels: list[Beliefs], images: int, context: int) -> Iterator[Array]:
    """Yield the frames of a video: three panels with captions for each record.

    :param panels: panels of each demonstration.
    :param images: number of images in a panel.
    :param context: number of filtered records.
    """
    for number, demo_panels in enumerate(panels, 1):
        factor = max(1, round(_HEIGHT * images / demo_panels.demonstration.shape[1]))
        for t, record_panels in enumerate(zip(*demo_panels, strict=True)):
            texts = (
                f"{number} of {len(panels)}, record {t}",
                "under the inferred actions",
                "filtered" if t < context else f"open loop since record {context}",
            )
            yield np.concatenate(
                [
                    captioned(panel.repeat(factor, 0).repeat(factor, 1), title, text, least=_MIN_WIDTH)
                    for panel, title, text in zip(record_panels, Beliefs._fields, texts, strict=True)
                ],
                axis=1,
            )
