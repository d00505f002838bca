"""Trajectories: recording, loading, saving and checking them."""

from aime_gym.data.collecting import collect, episode_seeds
from aime_gym.data.dataset import SequenceSampler, TrajectoryDataset, split_trajectories
from aime_gym.data.loading import load_trajectories
from aime_gym.data.minari import save_minari
from aime_gym.data.paddle_expert import PaddleExpert
from aime_gym.data.policies import EpisodicPolicy, HeldRandomPolicy, ScriptedExpert, scripted_expert
from aime_gym.data.recording import EpisodeRecorder
from aime_gym.data.resampling import frame_rate, frame_rate_of
from aime_gym.data.spaces import ActionEncoding, ObservationEncoding
from aime_gym.data.transitions import save_transitions
from aime_gym.data.validation import check_trajectories
from aime_gym.data.video_demonstrations import frame_shape
from aime_gym.data.video_description import described_quality
from aime_gym.data.video_writing import save_video, save_videos

__all__ = [
    "ActionEncoding",
    "EpisodeRecorder",
    "EpisodicPolicy",
    "HeldRandomPolicy",
    "ObservationEncoding",
    "PaddleExpert",
    "ScriptedExpert",
    "SequenceSampler",
    "TrajectoryDataset",
    "check_trajectories",
    "collect",
    "described_quality",
    "episode_seeds",
    "frame_rate",
    "frame_rate_of",
    "frame_shape",
    "load_trajectories",
    "save_minari",
    "save_transitions",
    "save_video",
    "save_videos",
    "scripted_expert",
    "split_trajectories",
]
