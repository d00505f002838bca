"""DITTO and D-GAIL: imitation in the imagination of a world model (DeMoss et al. 2023, arXiv 2302.03086).

    phase 1   phi, theta = argmax E[ELBO(o | recorded actions)]                     over play data
    phase 2   psi        = argmax E[sum_k gamma^k r_k]                              over imagined rollouts

        DITTO     r_k = h^E_k . h_k / max(|h^E_k|, |h_k|)^2                         (Eq. 8)
        D-GAIL    r_k = f(h_{k-1}, h_k),  f the logit of a discriminator that is trained on pairs of both

A rollout of the frozen model starts from a latent state of a demonstration. DITTO rewards it, for 15 steps, for
reaching the deterministic states h^E that the demonstration has at the same time; D-GAIL, which is GAIfO in the latent
space, for transitions that could be the demonstrations'. The policy sees where its own errors lead, which a clone does
not, and takes no environment step.

The paper filters demonstrations with their own actions (``expert_actions=True``, an oracle). By default they are
inferred as AIME does it, by the policy that maximises the evidence of the demonstrations. The policy in imagination
starts from that one, or from a clone of the demonstrations' own actions; with ``cloned_start=False`` from new weights,
as in the paper.

Deviations from the paper and its code, beside those of AIME's default world model: actions in [-1, 1] learn by the
gradient through the dynamics and the reward; one-hot actions by REINFORCE, as in the paper. The value network is that
of AIME-v2, whose target network moves at each update (D-GAIL's never does in the code). The paper compares whole latent
states; its code, and this, deterministic ones. The discriminator has a gradient penalty, and D-GAIL's reward is its
logit, where the code takes its probability.
"""

from __future__ import annotations

from typing import ClassVar

from aime_gym.agents.world_model_agent import WorldModelAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.action_inference import policy_source
from aime_gym.model_based.filtering import FilteredLatents, filter_trajectories, recorded_source
from aime_gym.model_based.imagined_imitation import ImaginedImitation, ImaginedImitationConfig
from aime_gym.model_based.latent_regression import clone_actions
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Trajectories


class DITTOAgent(WorldModelAgent):
    """Imitates demonstrations in imagined rollouts, which are rewarded for staying near them.

    With ``expert_actions=True`` an oracle, which sees the demonstrations' actions. The log's
    ``imagination/latent_distance``, one minus the mean similarity of rollouts to the demonstrations, tells how far the
    policy is from them without an environment; callbacks find it in their ``locals["metrics"]``. Hyper-parameters:
    [`ImaginedImitationConfig`][].
    """

    config: ImaginedImitationConfig
    presets: ClassVar = {"default": ImaginedImitationConfig()}
    #: Whether the reward is a discriminator's.
    adversarial: ClassVar[bool] = False

    @classmethod
    def reads_actions(cls, config: ImaginedImitationConfig) -> bool:
        return config.expert_actions

    def _imitate(self, demos: Trajectories, loop: TrainingLoop) -> None:
        config = self.config
        encoding = self.action_encoding if config.expert_actions else None
        dataset = TrajectoryDataset(demos, encoding, self.device)
        self._start_policy()
        latents = self._fit_actions(dataset, loop)
        if latents is None:
            return
        if not config.cloned_start:
            self._start_policy()
        with self._initial_weights():
            updates = ImaginedImitation(
                self.world_model,
                self.policy,
                dataset,
                latents.features,
                config,
                self._noise,
                loop.generator,
                adversarial=self.adversarial,
            )
        loop.run("imagination", config.imagination_updates, updates.update, updates)

    def _fit_actions(self, demos: TrajectoryDataset, loop: TrainingLoop) -> FilteredLatents | None:
        """Filter demonstrations with their own actions or inferred ones, after fitting the policy to these.

        :return: their latent states; ``None`` if the policy's updates were cut short.
        """
        config = self.config
        if not config.expert_actions:
            completed = self._infer_policy(demos, loop)
            source = policy_source(self.policy, self.action_encoding.size)
            return filter_trajectories(self.world_model, demos, source) if completed else None
        latents = filter_trajectories(self.world_model, demos, recorded_source(demos))
        completed = not config.cloned_start or clone_actions(
            self.policy,
            demos,
            latents,
            loop,
            updates=config.clone_updates,
            start_fraction=config.demo_start_fraction,
            start_steps=config.sequence_length,
        )
        return latents if completed else None


class DGAILAgent(DITTOAgent):
    """Imitates demonstrations in imagined rollouts, which are rewarded for deceiving a discriminator.

    Like [`DITTOAgent`][] in all else.
    """

    adversarial = True
