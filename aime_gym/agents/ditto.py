"""DITTO: imitation in the imagination of a world model (DeMoss et al. 2023, arXiv 2302.03086).

    phase 1   phi, theta = argmax E[ELBO(o | recorded actions)]                 over play data
    phase 2   psi        = argmax E[sum_k gamma^k r_k]                          over imagined rollouts
              r_k        = h^E_k . h_k / max(|h^E_k|, |h_k|)^2                  (Eq. 8)

A rollout of the frozen model starts from a latent state of a demonstration. For 15 steps it is rewarded for reaching
the deterministic states h^E that the demonstration has at the same time. The policy sees where its own errors lead,
which a clone does not, and takes no environment step.

The paper filters demonstrations with their own actions (``expert_actions=True``, an oracle). By default they are
inferred as AIME does it, by the policy that maximises the evidence of the demonstrations. The policy in imagination
starts from that one, or from a clone of the demonstrations' own actions; with ``cloned_start=False`` from new weights,
as in the paper.

Deviations from the paper and its code, beside those of AIME's default world model: actions in [-1, 1] learn by the
gradient through the dynamics and the reward; one-hot actions by REINFORCE, as in the paper. The value network is that
of AIME-v2, whose target network moves at each update. The paper compares whole latent states; its code, and this,
deterministic ones, and by default less their mean over the demonstrations (``center_latents``). Returns are those of
r_k - 1, which changes no policy and spares the value network a large constant. A demonstration that is shorter than the
horizon ends the rollouts that follow it.
"""

from __future__ import annotations

from aime_gym.agents.imagination_agent import ImaginationAgent


class DITTOAgent(ImaginationAgent):
    """Imitates demonstrations in imagined rollouts, which are rewarded for staying near them.

    With ``expert_actions=True`` an oracle, which sees the demonstrations' actions. The log's
    ``imagination/latent_distance`` tells without an environment how far the policy strays from the demonstrations: the
    mean squared distance of deterministic states at the same time, in units of the demonstrations' variance. Callbacks
    find it as ``locals["metrics"]["latent_distance"]``. Hyper-parameters:
    [`ImaginedImitationConfig`][aime_gym.model_based.imagined_imitation.ImaginedImitationConfig].
    """

    adversarial = False
