"""Tables of the simulators: their tasks, and the positions in their observations."""

from __future__ import annotations

from aime_gym.wrappers.custom_tasks import CUSTOM_TASKS
from aime_gym.wrappers.metaworld import FRAME_SIZE, OBSERVATION_SIZE

#: Tasks of ``dm_control.suite``, by domain, and those that the papers add to its bodies.
DM_CONTROL_TASKS: dict[str, tuple[str, ...]] = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run", *CUSTOM_TASKS["cheetah"]),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run", *CUSTOM_TASKS["walker"]),
}

_METAWORLD = """
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open
    door-unlock drawer-close drawer-open faucet-close faucet-open hammer hand-insert handle-press-side handle-press
    handle-pull-side handle-pull lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place
    pick-place-wall plate-slide plate-slide-back plate-slide-back-side plate-slide-side push push-back push-wall
    reach reach-wall shelf-place soccer stick-pull stick-push sweep sweep-into window-close window-open
"""
#: Tasks of Meta-World v3.
METAWORLD_TASKS: tuple[str, ...] = tuple(f"{name}-v3" for name in _METAWORLD.split())

#: dm_control: sensors of each domain that are positions, and the number of their leading entries (``None``: all).
#: A task may lack some sensors of its domain. Domains that the papers list have their "first" keys, with two
#: differences: the target that the finger turns to (``target_position``, ``dist_to_target``) is observed, since the
#: task cannot be solved without it, and so are the goals of quadruped's escape and fetch.
#: The papers' keys of quadruped do contain velocities: those of the joints in ``egocentric_state``, and the ``imu``.
DM_CONTROL_POSITIONS: dict[str, dict[str, int | None]] = {
    "acrobot": {"orientations": None},
    "ball_in_cup": {"position": None},
    "cartpole": {"position": None},
    "cheetah": {"position": None},
    # Without inertial_sensors: accelerometer, velocimeter, gyro. ball_state is position 3, velocity 3.
    "dog": {
        "joint_angles": None,
        "torso_pelvis_height": None,
        "z_projection": None,
        "foot_forces": None,
        "touch_sensors": None,
        "actuator_state": None,
        "ball_state": 3,
        "target_position": None,
    },
    "finger": {"position": None, "touch": None, "target_position": None, "dist_to_target": None},
    "fish": {"joint_angles": None, "upright": None, "target": None},
    "hopper": {"position": None, "touch": None},
    "humanoid": {
        "joint_angles": None,
        "head_height": None,
        "extremities": None,
        "torso_vertical": None,
        "position": None,
    },
    "humanoid_CMU": {"joint_angles": None, "head_height": None, "extremities": None, "torso_vertical": None},
    "lqr": {"position": None},
    "manipulator": {"arm_pos": None, "touch": None, "hand_pos": None, "object_pos": None, "target_pos": None},
    "pendulum": {"orientation": None},
    "point_mass": {"position": None},
    # ball_state is position 3, velocity 3, angular velocity 3.
    "quadruped": {
        "egocentric_state": None,
        "torso_upright": None,
        "imu": None,
        "force_torque": None,
        "origin": None,
        "rangefinder": None,
        "ball_state": 3,
        "target_position": None,
    },
    "reacher": {"position": None, "to_target": None},
    "stacker": {"arm_pos": None, "touch": None, "hand_pos": None, "box_pos": None, "target_pos": None},
    "swimmer": {"joints": None, "to_target": None},
    "walker": {"orientations": None, "height": None},
}

#: Gymnasium's MuJoCo tasks, with their default arguments: entries of the observation that are positions.
MUJOCO_POSITIONS: dict[str, tuple[int, ...]] = {
    "Ant-v5": tuple(range(13)),
    "HalfCheetah-v5": tuple(range(8)),
    "Hopper-v5": tuple(range(5)),
    "Humanoid-v5": tuple(range(22)),
    "HumanoidStandup-v5": tuple(range(22)),
    "InvertedDoublePendulum-v5": tuple(range(5)),
    "InvertedPendulum-v5": tuple(range(2)),
    "Pusher-v5": (*range(7), *range(14, 23)),
    "Reacher-v5": (*range(6), 8, 9),
    "Swimmer-v5": tuple(range(3)),
    "Walker2d-v5": tuple(range(8)),
}

#: Meta-World: the current frame and the goal. The previous frame between them would reveal the velocity.
METAWORLD_POSITIONS: tuple[int, ...] = (*range(FRAME_SIZE), *range(2 * FRAME_SIZE, OBSERVATION_SIZE))
