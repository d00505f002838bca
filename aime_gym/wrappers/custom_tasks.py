"""Tasks that the AIME papers add to dm_control's bodies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple


class CustomTask(NamedTuple):
    """Task of dm_control's suite with another reward."""

    #: The suite's task, which has the same body, the same episodes and the same observations.
    original: str
    #: Reward of one control step, in [0, 1], from the physics after it and the suite's reward.
    reward: Callable[[Any, float], float]


def _fraction(value: float, goal: float) -> float:
    """Return how much of ``goal`` is reached, in [0, 1]; the sign of ``goal`` is a direction."""
    return float(min(max(value / goal, 0.0), 1.0))


# MuJoCo computes velocities of subtrees only where a model has a sensor of them, as cheetah and walker do. The torso is
# the root of both, so its subtree is the whole body.


def _velocity(physics: Any, axis: str) -> float:
    """Return the velocity of the centre of mass along an axis, in m/s."""
    return float(physics.named.data.subtree_linvel["torso", axis])


def _run(physics: Any, reward: float, *, speed: float) -> float:
    """Reward horizontal speed."""
    return _fraction(_velocity(physics, "x"), speed)


def _walk(physics: Any, stand: float, *, speed: float) -> float:
    """Reward horizontal speed while standing, in the form of the suite's own walk and run."""
    return stand * (5 * _fraction(_velocity(physics, "x"), speed) + 1) / 6


def _jump(physics: Any, stand: float, *, speed: float) -> float:
    """Reward upward speed while standing."""
    return stand * _fraction(_velocity(physics, "z"), speed)


def _flip(physics: Any, reward: float, *, momentum: float) -> float:
    """Reward angular momentum about the y axis, in kg m^2/s; it is positive when the body turns forwards."""
    return _fraction(physics.named.data.subtree_angmom["torso", "y"], momentum)


#: The tasks by domain and name, with the rewards of AIME-v2's code. The first paper's code has the same tasks, but one
#: reward after the action repeat, and takes the walker's vertical speed for its horizontal one: its returns do not
#: compare with these.
CUSTOM_TASKS: dict[str, dict[str, CustomTask]] = {
    "cheetah": {
        "runbackward": CustomTask("run", partial(_run, speed=-10.0)),
        "flip": CustomTask("run", partial(_flip, momentum=5.0)),
        "flipbackward": CustomTask("run", partial(_flip, momentum=-5.0)),
    },
    "walker": {
        "walkbackward": CustomTask("stand", partial(_walk, speed=-1.0)),
        "runbackward": CustomTask("stand", partial(_walk, speed=-8.0)),
        "flip": CustomTask("stand", partial(_flip, momentum=5.0)),
        "flipbackward": CustomTask("stand", partial(_flip, momentum=-5.0)),
        "jump": CustomTask("stand", partial(_jump, speed=2.0)),
    },
}
