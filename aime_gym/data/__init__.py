"""Trajectories: recording, loading, saving and checking them."""

from aime_gym.data.actions import ActionEncoding
from aime_gym.data.checks import check_trajectories
from aime_gym.data.collecting import collect
from aime_gym.data.dataset import ClipSampler, TrajectoryDataset
from aime_gym.data.loading import load_trajectories
from aime_gym.data.minari import save_minari
from aime_gym.data.observations import ObservationEncoding
from aime_gym.data.policies import EpisodicPolicy, HeldRandomPolicy, ScriptedExpert

__all__ = [
    "ActionEncoding",
    "ClipSampler",
    "EpisodicPolicy",
    "HeldRandomPolicy",
    "ObservationEncoding",
    "ScriptedExpert",
    "TrajectoryDataset",
    "check_trajectories",
    "collect",
    "load_trajectories",
    "save_minari",
]
