"""Software and hardware on which a figure was measured."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from aime_gym.processes import available_cores

_LIBRARIES = ("aime-gym", "torch", "numpy", "gymnasium", "stable-baselines3", "minari")
_SIMULATORS = ("mujoco", "metaworld", "dm_control", "shimmy")


def package_versions() -> dict[str, str]:
    """Versions of what moves a figure, by package."""
    versions = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *_SIMULATORS):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def describe_machine() -> dict[str, Any]:
    """Cores that this process may use, threads that torch does use, and what they are."""
    return {
        "cores": available_cores(),
        "cpu": _cpu_model(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch_threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def _cpu_model() -> str:
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
