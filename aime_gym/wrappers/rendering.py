"""Rendering without a screen: which OpenGL library MuJoCo shall use, and what is missing when there is none."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

#: EGL's numbers: a display of one device, and a configuration that MuJoCo asks for.
_PLATFORM_DEVICE, _TRUE, _NONE = 0x313F, 1, 0x3038
_CONFIGURATION = (
    *(0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8),  # red, green, blue, alpha: bits
    *(0x3025, 24, 0x3026, 8),  # depth, stencil: bits
    *(0x303F, 0x308E),  # colours: RGB
    *(0x3033, 0x0001),  # surface: off the screen
    *(0x3040, 0x0008),  # draws by OpenGL, not only by OpenGL ES
    _NONE,
)
#: The process that has drawn by OpenGL: this one, or the one that this one was forked from.
_drawn_in: int | None = None

_OFF = ("disable", "disabled", "off", "false", "0")
_HELP = "on Debian or Ubuntu: apt-get install libegl1 libgl1 libosmesa6"


class RenderingError(RuntimeError):
    """There is nothing to render with."""


def choose_gl() -> None:
    """Set ``MUJOCO_GL`` where nobody has: ``egl``, or else ``osmesa``, on a Linux machine without a screen.

    MuJoCo and dm_control read the variable when they are imported, and without it they try a window first. So this
    comes before their import. It costs a few milliseconds and never raises; without a library it leaves the variable
    unset, so that everything but rendering works.
    """
    if "MUJOCO_GL" in os.environ or "DISPLAY" in os.environ or not sys.platform.startswith("linux"):
        return
    for backend, works in _BACKENDS.items():
        if works():
            os.environ["MUJOCO_GL"] = backend
            return


def require_gl() -> None:
    """Check that MuJoCo can render.

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


def begin_drawing() -> None:
    """Check that this process may draw by OpenGL, and remember that it does.

    :raises RenderingError: as :func:`require_gl`; or the process was forked from one that has drawn. The threads that
        draw on a processor are not copied by a fork, and the first frame would be waited for forever.
    """
    global _drawn_in
    require_gl()
    if _drawn_in not in (None, os.getpid()):
        raise RenderingError(
            "Rendering: this process was forked from one that has rendered (to make an environment for pixels is "
            "enough), and OpenGL does not outlive a fork; start workers afresh, as with "
            "AsyncVectorEnv(..., context='forkserver') or SubprocVecEnv(..., start_method='forkserver')"
        )
    _drawn_in = os.getpid()


def load(*names: str) -> ctypes.CDLL | None:
    """Return the first shared library that loads."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _has_egl() -> bool:
    """Whether EGL can draw: the first device that starts, which MuJoCo and dm_control take too, has a configuration."""
    egl = load("libEGL.so.1")
    if egl is None or load("libGL.so.1", "libOpenGL.so.0") is None:
        return False
    number, pointer = ctypes.c_int, ctypes.c_void_p
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
        # The display is left as it is: it is one for the whole process, and somebody may be drawing by it.
        if display and egl.eglInitialize(display, None, None) == _TRUE:
            wanted = (number * len(_CONFIGURATION))(*_CONFIGURATION)
            found, configuration = number(0), pointer()
            egl.eglChooseConfig(display, wanted, ctypes.byref(configuration), 1, ctypes.byref(found))
            return found.value > 0
    return False


def _extension(egl: ctypes.CDLL, name: bytes, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    """A function of EGL that the library may lack."""
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(name)
    return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None


def _has_osmesa() -> bool:
    return load("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so") is not None


_BACKENDS: dict[str, Callable[[], bool]] = {"egl": _has_egl, "osmesa": _has_osmesa}
