"""Rendering without a screen: the choice of MuJoCo's OpenGL library, and errors that name a missing one."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

#: Constants of EGL.
_PLATFORM_DEVICE = 0x313F
_TRUE = 1
_NONE = 0x3038
#: EGL configuration that MuJoCo asks for, as pairs of attribute and value.
_CONFIGURATION = (
    *(0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8),  # red, green, blue, alpha: bits
    *(0x3025, 24, 0x3026, 8),  # depth, stencil: bits
    *(0x303F, 0x308E),  # colours: RGB
    *(0x3033, 0x0001),  # surface: off the screen
    *(0x3040, 0x0008),  # API: OpenGL, not only OpenGL ES
    _NONE,
)
#: Id of the process that has rendered: this one, or the one that this one was forked from.
_rendering_pid: int | None = None

_OFF = ("disable", "disabled", "off", "false", "0")
_HELP = "on Debian or Ubuntu: apt-get install libegl1 libgl1 libosmesa6"


class RenderingError(RuntimeError):
    """Error of a machine or process that cannot render."""


def choose_gl() -> None:
    """Set ``MUJOCO_GL`` if it is unset, to ``egl`` or else ``osmesa``, on a Linux machine without a screen.

    MuJoCo and dm_control read the variable when they are imported, and try to open a window without it, so call this
    before their import. It takes a few milliseconds and never raises; without a library it leaves the variable unset,
    so that everything but rendering works.
    """
    if "MUJOCO_GL" in os.environ or "DISPLAY" in os.environ or not sys.platform.startswith("linux"):
        return
    for backend, works in _BACKENDS.items():
        if works():
            os.environ["MUJOCO_GL"] = backend
            return


def require_gl() -> None:
    """Raise an error unless MuJoCo can render.

    :raises RenderingError: there is no library to render with (the message names the Debian packages), or ``MUJOCO_GL``
        forbids it.
    """
    choose_gl()
    backend = os.environ.get("MUJOCO_GL", "").lower()
    if backend in _OFF:
        raise RenderingError(
            f"Rendering needs OpenGL, but the environment variable MUJOCO_GL={backend} switches it off"
        )
    if backend in _BACKENDS and sys.platform.startswith("linux") and not _BACKENDS[backend]():
        other = next((name for name, works in _BACKENDS.items() if name != backend and works()), None)
        advice = f"MUJOCO_GL={other} works; " if other else ""
        raise RenderingError(
            f"MUJOCO_GL={backend}: the library for it is missing, or finds nothing to draw with; {advice}{_HELP}"
        )
    if not backend and "DISPLAY" not in os.environ and sys.platform.startswith("linux"):
        raise RenderingError(f"Rendering without a screen needs EGL or OSMesa, and neither was found; {_HELP}")


def claim_rendering() -> None:
    """Raise an error unless this process can render, and record that it does.

    :raises RenderingError: see ``require_gl``; or the process was forked from one that has rendered. A fork does
        not copy the threads that render on a CPU, so that it would wait for its first frame forever.
    """
    global _rendering_pid
    require_gl()
    if _rendering_pid not in (None, os.getpid()):
        raise RenderingError(
            "Rendering: this process was forked from one that has rendered (to make an environment for pixels is "
            "enough), and OpenGL does not outlive a fork; start workers afresh, as with "
            "AsyncVectorEnv(..., context='forkserver') or SubprocVecEnv(..., start_method='forkserver')"
        )
    _rendering_pid = os.getpid()


def load_library(*names: str) -> ctypes.CDLL | None:
    """Return the first of the shared libraries that loads, or ``None``."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _has_egl() -> bool:
    """Return whether EGL can render: whether its first usable device, which MuJoCo takes too, has a configuration."""
    egl = load_library("libEGL.so.1")
    if egl is None or load_library("libGL.so.1", "libOpenGL.so.0") is None:
        return False
    number = ctypes.c_int
    pointer = ctypes.c_void_p
    query = _extension(egl, b"eglQueryDevicesEXT", ctypes.c_uint, number, pointer, pointer)
    display_of = _extension(egl, b"eglGetPlatformDisplayEXT", pointer, ctypes.c_uint, pointer, pointer)
    if query is None or display_of is None:
        return False
    count = number(0)
    if not query(0, None, ctypes.byref(count)) or count.value < 1:
        return False
    devices = (pointer * count.value)()
    query(count, devices, ctypes.byref(count))
    for device in devices[: count.value]:
        display = pointer(display_of(_PLATFORM_DEVICE, device, None))
        # The display is not terminated: the whole process shares it, and another renderer may be using it.
        if display and egl.eglInitialize(display, None, None) == _TRUE:
            wanted = (number * len(_CONFIGURATION))(*_CONFIGURATION)
            found = number(0)
            configuration = pointer()
            egl.eglChooseConfig(display, wanted, ctypes.byref(configuration), 1, ctypes.byref(found))
            return found.value > 0
    return False


def _extension(egl: ctypes.CDLL, name: bytes, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    """Return an extension function of EGL, or ``None`` if the library lacks it."""
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(name)
    return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None


def _has_osmesa() -> bool:
    return load_library("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so") is not None


_BACKENDS: dict[str, Callable[[], bool]] = {"egl": _has_egl, "osmesa": _has_osmesa}
