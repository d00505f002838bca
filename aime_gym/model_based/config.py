"""Hyper-parameters of AIME in all its phases, and the presets of its papers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aime_gym.config import check_bounds
from aime_gym.model_based.action_inference import InferenceConfig
from aime_gym.model_based.actor_critic import ImaginationConfig
from aime_gym.model_based.surrogate_rewards import SURROGATES, USER_REWARD


@dataclass(frozen=True)
class OnlineConfig(ImaginationConfig):
    """Hyper-parameters of ``learn``.

    :param reward: surrogate reward, ``viper``, ``ail`` or ``none``; see [`surrogate_rewards`][].
    :param play_ratio: share alpha of play in a batch of the world model; 0 where there is no play.
    :param value_weight: weight beta of the imagined return.
    :param value_warmup: number of updates over which beta rises to its value: at first neither the reward nor the value
        network has learnt anything, and their gradients would only spoil the policy.
    :param clone_weight: weight of the error to the actions that the inverse model infers, which learns from experience
        too. Only with ``warm_start``. The latent states move with the world model, and the policy has to follow.
    :param normalize_gradients: whether only the directions of the gradients of evidence and return count, so that beta
        is the ratio of the two. A step that the model cannot explain at all costs thousands of nats, and would drown
        any return; the papers' form, their plain sum, is for models that have seen everything in play.
    :param updates_per_step: number of updates for each environment step; 0.2 is the authors' 100 for an episode of 500.
    :param round_steps: least number of environment steps of a round, in whole episodes.
    :param online_model_learning_rate: Adam's learning rate for the world model in ``learn``: small, since the policy's
        latent states move with it, and twenty updates at 1e-3 undo what it has learnt.
    :param online_policy_learning_rate: Adam's learning rate for the policy in ``learn``.
    :param discriminator_learning_rate: Adam's learning rate for the reward ``ail``; 1e-4 in AIME-NoB, for many more
        updates.
    :param reward_updates: number of updates of the model behind ``viper``; more of them overfit.
    :param imagine_from_play: whether rollouts start from states of play too, as in the authors' code; in the paper
        (Eq. 8) they start from experience alone.
    """

    reward: str = "ail"
    play_ratio: float = 0.5
    value_weight: float = 0.3
    value_warmup: int = 100
    clone_weight: float = 3.0
    normalize_gradients: bool = True
    updates_per_step: float = 0.2
    round_steps: int = 1
    online_model_learning_rate: float = 5e-5
    online_policy_learning_rate: float = 3e-4
    discriminator_learning_rate: float = 1e-3
    reward_updates: int = 500
    imagine_from_play: bool = False

    def __post_init__(self) -> None:
        ImaginationConfig.__post_init__(self)  # not super(): a subclass has other parents too
        if self.reward not in (*SURROGATES, USER_REWARD):
            raise ValueError(f"reward: expected one of {', '.join(SURROGATES)}, or a function, got {self.reward!r}")
        check_bounds(
            self,
            play_ratio=(0, 1),
            value_weight=(0, None),
            value_warmup=(0, None),
            clone_weight=(0, None),
            updates_per_step=(0, None),
            round_steps=(1, None),
            online_model_learning_rate=(0, None),
            online_policy_learning_rate=(0, None),
            discriminator_learning_rate=(0, None),
            reward_updates=(0, None),
        )
        if self.play_ratio == 1:
            raise ValueError("play_ratio: expected less than 1, which would leave no room for experience, got 1")


@dataclass(frozen=True)
class AIMEConfig(OnlineConfig, InferenceConfig):
    """Hyper-parameters of [`aime_gym.agents.aime.AIMEAgent`][].

    Those of phases 1 and 2 are [`InferenceConfig`][]'s (the agent's constructor takes the file of a pretrained
    ``world_model`` too), those of ``learn`` [`OnlineConfig`][]'s.
    """

    def __post_init__(self) -> None:
        InferenceConfig.__post_init__(self)
        OnlineConfig.__post_init__(self)


def _paper(world_model: str, model_updates: int) -> AIMEConfig:
    return AIMEConfig(
        world_model=world_model,
        batch_size=50,
        sequence_length=50,
        model_updates=model_updates,
        policy_updates=50_000,
        policy_learning_rate=3e-4,
        policy_matrix_learning_rate=None,
        robust_nats=None,
        model_learning_rate=3e-4,
        matrix_learning_rate=None,
        decay_learning_rate=False,
        play_start_fraction=0.0,
        mixed_precision=False,
        demo_start_fraction=0.0,
        warm_start=False,
        action_prior=False,
        continue_latents=False,
        imagination_starts=None,
        reward="viper",
        value_weight=0.1,
        value_warmup=0,
        normalize_gradients=False,
        online_model_learning_rate=3e-4,
        value_learning_rate=8e-5,
        discriminator_learning_rate=1e-4,
    )


AIME_PRESETS = {
    "default": AIMEConfig(),
    "aime": _paper("aime", 100_000),
    "dreamer": _paper("dreamer", 200_000),
    "aime-v2": replace(_paper("dreamer", 200_000), policy_updates=2000),
    "aime-nob": replace(_paper("dreamer", 200_000), policy_updates=2000, reward="ail", value_weight=1.0),
}
