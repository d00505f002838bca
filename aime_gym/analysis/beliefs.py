"""What a world model believes of demonstrations, to be looked at: its reconstruction of them, and what it foresees.

Three pictures side by side for each record of a demonstration, of its images alone:

    demonstration    o_t
    reconstruction   the decoded mean at s_t ~ q(s_t | h_t, o_t), under the inferred actions
    prediction       the same for the first records; then at s_t ~ p(s_t | h_t), which sees these actions only

Every state is a mean in place of a sample.
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
from aime_gym.data.captions import captioned, check_video_path, write_video
from aime_gym.model_based.filtering import RowSource, by_pieces, filtered_batches
from aime_gym.models.rssm import RSSM, Latents, State
from aime_gym.models.world_model import WorldModel
from aime_gym.types import Array, Trajectories, Trajectory, channels_first, is_image, sensors

#: Pixels: about the height of an enlarged image, and the width that captions need.
_HEIGHT, _WIDTH = 256, 208


class Beliefs(NamedTuple):
    """Of one demonstration, (T, H, W, 3) of bytes each; several images stand on top of each other."""

    demonstration: Array
    reconstruction: Array
    prediction: Array


def write_beliefs(
    path: Path,
    model: WorldModel,
    demos: Trajectories,
    infer: Callable[[TrajectoryDataset], RowSource],
    *,
    context: int,
    length: int | None,
    episodes: int,
    fps: float,
) -> None:
    """Write a video of the first demonstrations, one frame for each record.

    :param path: ends in ``.mp4`` or ``.gif``.
    :param infer: makes the source of actions for a dataset.
    :param context: records of each demonstration after which the prediction sees no more of it.
    :param length: records of each demonstration to show; ``None`` for all.
    :param episodes: demonstrations to show.
    :param fps: frames a second.
    :raises ValueError: sensors without an image, or an argument out of range.
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
    shown = [demo if length is None else _start(demo, length) for demo in demos[:episodes]]
    dataset = TrajectoryDataset(shown, None, next(model.parameters()).device)
    write_video(path, pictures(beliefs(model, dataset, infer(dataset), context=context), images, context), fps)


@torch.no_grad()
def beliefs(model: WorldModel, dataset: TrajectoryDataset, source: RowSource, *, context: int) -> list[Beliefs]:
    """What a model believes of every trajectory under the actions of ``source``; see the module."""
    filtered = next(model.parameters()).new_zeros(len(dataset), model.feature_size)
    foreseen = torch.zeros_like(filtered)
    for rows, valid, latents in filtered_batches(model, dataset, source):
        filtered[rows[valid]] = latents.states.feature[valid]
        foreseen[rows[valid]] = foresee(model.rssm, latents, context).feature[valid]

    panels = []
    for features in (None, filtered, foreseen):
        images = []
        for name, shape in model.sensors.items():
            if is_image(shape):
                rows = torch.arange(len(dataset), device=dataset.device)
                frames = dataset.observed(rows)[name] if features is None else _decoded(model, name, features, rows)
                images.append(_colours(frames, first=features is None and channels_first(shape)))
        panels.append([part.cpu().numpy() for part in dataset.per_trajectory(_stacked(images))])
    return [Beliefs(*parts) for parts in zip(*panels, strict=True)]


def foresee(rssm: RSSM, latents: Latents, context: int) -> State:
    """States (T, B, ...): filtered for ``context`` records, then the prior's means under the same actions."""
    deters, stochs = list(latents.states.deter[:context]), list(latents.states.stoch[:context])
    state = State(deters[-1], stochs[-1])
    for pre_action in latents.prev_actions[context:]:
        h = rssm.transition(state, pre_action)
        state = State(h, rssm.prior(h).mean)
        deters.append(state.deter)
        stochs.append(state.stoch)
    return State(torch.stack(deters), torch.stack(stochs))


def _start(demo: Trajectory, records: int) -> Trajectory:
    """The first records of a demonstration."""
    observations = {name: values[:records] for name, values in sensors(demo.observations).items()}
    cut = observations if isinstance(demo.observations, dict) else observations["observation"]
    return replace(demo, observations=cut, actions=None, rewards=None)


def _decoded(model: WorldModel, name: str, features: Tensor, rows: Tensor) -> Tensor:
    """The mean of an image as bytes, (N, H, W, C)."""

    def decode(piece: Tensor) -> Tensor:
        mean: Tensor = model.decoders[name](features[piece]).mean
        return (mean.clamp(0, 1) * 255).round().to(torch.uint8)

    return by_pieces(model, decode, rows)


def _colours(frames: Tensor, *, first: bool) -> Tensor:
    """LazyImages (N, H, W, C), or (N, C, H, W) with their channels ``first``, as (N, H, W, 3).

    Of stacked frames the last three channels; grey ones three times.
    """
    frames = frames.movedim(1, -1) if first else frames
    return frames[..., -3:] if frames.shape[-1] >= 3 else frames[..., -1:].expand(*frames.shape[:-1], 3)


def _stacked(images: list[Tensor]) -> Tensor:
    """Images (N, H, W, 3) on top of each other, the narrower ones with a black margin."""
    width = max(image.shape[2] for image in images)
    return torch.cat([F.pad(image, (0, 0, 0, width - image.shape[2])) for image in images], dim=1)


def pictures(believed: list[Beliefs], images: int, context: int) -> Iterator[Array]:
    """The frames of a video: three panels with captions for each record."""
    for number, of_demo in enumerate(believed, 1):
        factor = max(1, round(_HEIGHT * images / of_demo.demonstration.shape[1]))
        for t, panels in enumerate(zip(*of_demo, strict=True)):
            texts = (
                f"{number} of {len(believed)}, record {t}",
                "under the inferred actions",
                "filtered" if t < context else f"open loop since record {context}",
            )
            yield np.concatenate(
                [
                    captioned(panel.repeat(factor, 0).repeat(factor, 1), title, text, least=_WIDTH)
                    for panel, title, text in zip(panels, Beliefs._fields, texts, strict=True)
                ],
                axis=1,
            )
