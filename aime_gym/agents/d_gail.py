"""D-GAIL: adversarial imitation in the imagination of a world model (DeMoss et al. 2023, arXiv 2302.03086).

    phase 1   phi, theta = argmax E[ELBO(o | recorded actions)]                 over play data
    phase 2   psi        = argmax E[sum_k gamma^k f(h_{k-1}, h_k)]              over imagined rollouts
              f          = argmin E[log(1 + exp f(h_{k-1}, h_k))]               over imagined rollouts
                                + E[log(1 + exp -f(h^E_{k-1}, h^E_k))]          over demonstrations

GAIfO in the latent space of a frozen model, without an environment step: DITTO with a discriminator of transitions in
place of the distance to what the demonstration does at the same time. All else is as in [`aime_gym.agents.ditto`][],
the choice between inferred actions and the demonstrations' own included. A baseline, and a weak one: on the contract's
toy task it learns from new weights, and falls somewhat below AIME's policy where it starts from that. So its policy's
steps are smaller.

Deviations from the paper and its code, beside those of DITTO: the expert's side is imagined too, under the
demonstrations' actions, since a discriminator tells filtered states from imagined ones whatever the policy; it has a
gradient penalty, and the reward is its logit, as in AIME-NoB, where the code takes its probability. The code never
moves D-GAIL's target network. As in the paper, the value network stands for what follows a rollout (``bootstrap``).
"""

from __future__ import annotations

from typing import ClassVar

from aime_gym.agents.imagination_agent import ImaginationAgent
from aime_gym.model_based.imagined_imitation import ImaginedImitationConfig


class DGAILAgent(ImaginationAgent):
    """Imitates demonstrations in imagined rollouts, which are rewarded for deceiving a discriminator.

    With ``expert_actions=True`` an oracle, which sees the demonstrations' actions. The log has the
    ``imagination/latent_distance`` that DITTO's has. Hyper-parameters:
    [`ImaginedImitationConfig`][aime_gym.model_based.imagined_imitation.ImaginedImitationConfig].
    """

    presets: ClassVar = {"default": ImaginedImitationConfig(actor_learning_rate=1e-4, bootstrap=True)}
    adversarial = True
