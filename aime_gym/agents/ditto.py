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
deterministic ones, and by default less their mean over the demonstrations (``center_latents``). A return ends with its
rollout by default (``bootstrap``). Returns are those of r_k - 1, which changes no policy and spares the value network a
large constant. A demonstration that is shorter than the horizon ends the rollouts that follow it.

``preset="ditto"`` has the paper's numbers for Atari and its world model, with categorical latents; the paper's policy
takes ``policy_kwargs={"hidden": 256, "layers": 8}`` too. Deviations that are left: sequences of the world model start
from the zero state, where the code carries the state from one to the next; frames are not standardised (instead the
world model's preset ``"ditto"`` has a smaller sigma); the value network has its own optimizer and size, and its target
network moves at each update by a hundredth, where the paper's is a copy every 100 updates. Paper and code do not say
how many updates there are in imagination: here as many as AIME's policy has.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aime_gym.agents.imagination_agent import ImaginationAgent
from aime_gym.model_based.imagined_imitation import ImaginedImitationConfig
from aime_gym.models.config import WorldModelConfig

_PAPER = ImaginedImitationConfig(
    world_model="ditto",
    batch_size=50,
    sequence_length=50,
    model_updates=1_000_000,
    model_learning_rate=3e-4,
    matrix_learning_rate=None,
    decay_learning_rate=False,
    max_grad_norm=200.0,
    play_start_fraction=0.0,
    demo_start_fraction=0.0,
    expert_actions=True,
    cloned_start=False,
    center_latents=False,
    bootstrap=True,
    imagination_updates=50_000,
    imagination_warmup=0,
    gamma=0.95,
    entropy_weight=0.05,
    target_decay=0.99,
    value_learning_rate=3e-4,
)


class DITTOAgent(ImaginationAgent):
    """Imitates demonstrations in imagined rollouts, which are rewarded for staying near them.

    With ``expert_actions=True`` an oracle, which sees the demonstrations' actions. The log's
    ``imagination/latent_distance`` tells without an environment how far the policy strays from the demonstrations: the
    mean squared distance of deterministic states at the same time, in units of the demonstrations' variance. Callbacks
    find it as ``locals["metrics"]["latent_distance"]``. Presets: ``"default"``; ``"ditto"``, the paper's, an oracle.
    Hyper-parameters: [`ImaginedImitationConfig`][aime_gym.model_based.imagined_imitation.ImaginedImitationConfig].

    :raises ValueError: ``preset="ditto"`` with a world model that has no categorical latents.
    """

    presets: ClassVar = {"default": ImaginedImitationConfig(), "ditto": _PAPER}
    adversarial = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        model = self.config.world_model
        assert isinstance(model, WorldModelConfig)
        if options.get("preset") == "ditto" and model.classes is None:
            raise ValueError(
                "world_model: expected one with categorical latents (classes) for preset='ditto', got Gaussian ones"
            )
