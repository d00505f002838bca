"""MBBC: model-based behavioural cloning, an oracle (Zhang et al. 2024, arXiv 2404.18896, section 1).

    phase 1   phi, theta = argmax E[ELBO(o | recorded actions)]        over play data
    phase 2   psi        = argmin E[|mode pi_psi(a | s) - a|^2]        over demonstrations, filtered with their actions

``preset="d-bc"`` is D-BC, the clone that DITTO is compared with (DeMoss et al. 2023, arXiv 2302.03086): the same, less
0.1 times the entropy of pi_psi, for discrete actions.

AIME with the actions that it would have to infer. Its distance to the expert is due to what the demonstrations do not
cover; the distance of AIME to it, to what the world model does not know of the body.

Deviations from the authors' code: those of AIME's default world model, a fixed number of updates in place of early
stopping on held-out sequences, which overlap those that are learnt from, and the std of a Gaussian policy, which the
regression leaves alone: it is set to the error that is left, at least 0.1 before tanh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from aime_gym.agents.latent_policy_agent import LatentPolicyAgent
from aime_gym.config import check_bounds
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.action_inference import policy_source
from aime_gym.model_based.filtering import filter_trajectories, recorded_source
from aime_gym.model_based.latent_regression import clone_actions
from aime_gym.model_based.pretraining import PretrainingConfig, fit_world_model
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.world_model import WorldModel
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Trajectories


@dataclass(frozen=True)
class MBBCConfig(PretrainingConfig):
    """Hyper-parameters of [`MBBCAgent`][]; those of phase 1 are ``PretrainingConfig``'s.

    :param clone_updates: number of updates of the policy.
    :param demo_start_fraction: share of each minibatch that comes from the starts of demonstrations.
    :param entropy_weight: weight of the policy's entropy, which is subtracted from the loss of discrete actions. Others
        have their std set to the error that is left, so there is none to weigh.
    """

    clone_updates: int = 3000
    demo_start_fraction: float = 0.25
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, clone_updates=(0, None), demo_start_fraction=(0, 1), entropy_weight=(0, None))


class MBBCAgent(LatentPolicyAgent):
    """Clones demonstrations with their actions in the latent space of a world model learnt from play.

    An oracle: it sees the demonstrations' actions. ``world_model`` may be the file of a pretrained one, as for
    [`AIMEAgent`][aime_gym.agents.aime.AIMEAgent]. Presets: ``"default"``; ``"d-bc"``, with an entropy term.
    Hyper-parameters: [`MBBCConfig`][].
    """

    config: MBBCConfig
    presets: ClassVar = {"default": MBBCConfig(), "d-bc": MBBCConfig(entropy_weight=0.1)}
    needs_demonstration_actions = True

    def _setup_networks(self) -> None:
        if self.config.entropy_weight and not self.action_encoding.discrete:
            raise ValueError(
                f"entropy_weight: expected 0 unless actions are discrete, got {self.config.entropy_weight} with "
                f"{self.action_space}"
            )
        assert isinstance(self.config.world_model, WorldModelConfig)
        self.world_model = WorldModel(
            self.config.world_model, self.observation_encoding.shapes, self.action_encoding.size
        )
        self.policy = self._fresh_policy()
        self._import_world_model(self.world_model)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["world_model", "policy"], []

    def _pretrain(self, play: Trajectories, loop: TrainingLoop) -> None:
        fit_world_model(self.world_model, TrajectoryDataset(play, self.action_encoding, self.device), loop, self.config)

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        config = self.config
        dataset = TrajectoryDataset(demos, self.action_encoding, self.device)
        self._start_policy()
        clone_actions(
            self.policy,
            dataset,
            filter_trajectories(self.world_model, dataset, recorded_source(dataset)),
            loop,
            name="policy",
            updates=config.clone_updates,
            start_fraction=config.demo_start_fraction,
            start_steps=config.sequence_length,
            entropy_weight=config.entropy_weight,
        )

    def _infer_actions(self, demos: TrajectoryDataset) -> Tensor:
        """Return the actions that the policy would have taken."""
        return filter_trajectories(
            self.world_model, demos, policy_source(self.policy, self.action_encoding.size)
        ).prev_actions
