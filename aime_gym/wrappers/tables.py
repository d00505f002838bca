"""Tables of the simulators: their tasks, and the positions in their observations."""

from __future__ import annotations

from aime_gym.wrappers.metaworld import FRAME_SIZE, OBSERVATION_SIZE

#: Tasks of ``dm_control.suite``, by domain.
DM_CONTROL_TASKS: dict[str, tuple[str, ...]] = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run",),
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
    "walker": ("stand", "walk", "run"),
}

#: Tasks of Meta-World v3.
METAWORLD_TASKS: tuple[str, ...] = (
    "assembly-v3",
    "basketball-v3",
    "bin-picking-v3",
    "box-close-v3",
    "button-press-topdown-v3",
    "button-press-topdown-wall-v3",
    "button-press-v3",
    "button-press-wall-v3",
    "coffee-button-v3",
    "coffee-pull-v3",
    "coffee-push-v3",
    "dial-turn-v3",
    "disassemble-v3",
    "door-close-v3",
    "door-lock-v3",
    "door-open-v3",
    "door-unlock-v3",
    "drawer-close-v3",
    "drawer-open-v3",
    "faucet-close-v3",
    "faucet-open-v3",
    "hammer-v3",
    "hand-insert-v3",
    "handle-press-side-v3",
    "handle-press-v3",
    "handle-pull-side-v3",
    "handle-pull-v3",
    "lever-pull-v3",
    "peg-insert-side-v3",
    "peg-unplug-side-v3",
    "pick-out-of-hole-v3",
    "pick-place-v3",
    "pick-place-wall-v3",
    "plate-slide-v3",
    "plate-slide-back-v3",
    "plate-slide-back-side-v3",
    "plate-slide-side-v3",
    "push-v3",
    "push-back-v3",
    "push-wall-v3",
    "reach-v3",
    "reach-wall-v3",
    "shelf-place-v3",
    "soccer-v3",
    "stick-pull-v3",
    "stick-push-v3",
    "sweep-v3",
    "sweep-into-v3",
    "window-close-v3",
    "window-open-v3",
)

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
