"""Rendering without a screen: which OpenGL library MuJoCo shall use, and what is missing when there is none."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

_OFF = ("disable", "disabled", "off", "false", "0")
_HELP = "on Debian or Ubuntu: apt-get install libegl1 libgl1 libosmesa6"


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

    :raises RuntimeError: there is no library to render with (the message names the Debian packages), or ``MUJOCO_GL``
        forbids it.
    """
    choose_gl()
    backend = os.environ.get("MUJOCO_GL", "").lower()
    if backend in _OFF:
        raise RuntimeError(f"Rendering needs OpenGL, but the environment variable MUJOCO_GL={backend} switches it off")
    if backend in _BACKENDS and sys.platform.startswith("linux") and not _BACKENDS[backend]():
        raise RuntimeError(f"MUJOCO_GL={backend}: the library for it is missing; {_HELP}")
    if not backend and "DISPLAY" not in os.environ and sys.platform.startswith("linux"):
        raise RuntimeError(f"Rendering without a screen needs EGL or OSMesa, and neither was found; {_HELP}")


def load(*names: str) -> ctypes.CDLL | None:
    """Return the first shared library that loads."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _has_egl() -> bool:
    """Whether EGL is there with a device: without one, as in a bare container, importing dm_control fails."""
    egl = load("libEGL.so.1")
    if egl is None or load("libGL.so.1", "libOpenGL.so.0") is None:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not address:
        return False
    count = ctypes.c_int(0)
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
    return bool(query(0, None, ctypes.byref(count))) and count.value > 0


def _has_osmesa() -> bool:
    return load("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so") is not None


_BACKENDS: dict[str, Callable[[], bool]] = {"egl": _has_egl, "osmesa": _has_osmesa}
