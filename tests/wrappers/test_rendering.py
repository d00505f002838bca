import ctypes
import os

import pytest

from aime_gym.wrappers import rendering


@pytest.fixture
def bare_linux(monkeypatch):
    """Linux machine without a screen and without `MUJOCO_GL`."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    # First set, so that the variable is as it was after the test, whatever the test sets.
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delenv("MUJOCO_GL")
    return monkeypatch


def have(monkeypatch, *backends):
    monkeypatch.setattr(
        rendering, "_BACKENDS", {name: (lambda name=name: name in backends) for name in ("egl", "osmesa")}
    )


@pytest.mark.parametrize(
    ("backends", "chosen"), [(("egl", "osmesa"), "egl"), (("egl",), "egl"), (("osmesa",), "osmesa"), ((), None)]
)
def test_choice(bare_linux, backends, chosen):
    have(bare_linux, *backends)
    rendering.choose_gl()
    assert os.environ.get("MUJOCO_GL") == chosen


def test_the_users_choice_stands(bare_linux):
    have(bare_linux, "egl", "osmesa")
    bare_linux.setenv("MUJOCO_GL", "osmesa")
    rendering.require_gl()
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_a_screen_is_left_to_the_simulator(bare_linux):
    have(bare_linux)
    bare_linux.setenv("DISPLAY", ":0")
    rendering.require_gl()
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.parametrize("asked", [None, "egl", "osmesa"])
def test_the_error_names_the_packages(bare_linux, asked):
    have(bare_linux)
    if asked:
        bare_linux.setenv("MUJOCO_GL", asked)
    with pytest.raises(RuntimeError, match="libegl1 libgl1 libosmesa6"):
        rendering.require_gl()


def test_rendering_switched_off(bare_linux):
    bare_linux.setenv("MUJOCO_GL", "off")
    with pytest.raises(RuntimeError, match="MUJOCO_GL=off"):
        rendering.require_gl()


def test_no_library_at_all(bare_linux):
    bare_linux.setattr(rendering, "load_library", lambda *names: None)
    with pytest.raises(RuntimeError, match="neither was found"):
        rendering.require_gl()


class FakeEGL:
    """EGL with at most one device, which starts or does not, with or without configurations."""

    def __init__(self, devices=1, starts=True, configurations=1):
        self._starts, self._configurations = starts, configurations
        pointer = ctypes.c_void_p

        def query(_, found, count):
            ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = devices
            if found:
                ctypes.cast(found, ctypes.POINTER(pointer))[0] = 1
            return 1

        self._functions = {
            b"eglQueryDevicesEXT": ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, pointer, pointer)(query),
            b"eglGetPlatformDisplayEXT": ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(lambda *_: 1),
        }

        def address(name):
            return ctypes.cast(self._functions[name], pointer).value if name in self._functions else None

        self.eglGetProcAddress = lambda name: address(name)

    def eglInitialize(self, display, major, minor):  # noqa: N802 - the library's name
        return int(self._starts)

    def eglChooseConfig(self, display, wanted, configurations, size, found):  # noqa: N802
        found._obj.value = self._configurations
        return 1


@pytest.mark.parametrize(
    ("egl", "chosen"),
    [
        ({}, "egl"),
        ({"devices": 0}, "osmesa"),
        ({"starts": False}, "osmesa"),
        ({"configurations": 0}, "osmesa"),
    ],
)
def test_a_library_that_cannot_draw_is_passed_over(bare_linux, egl, chosen):
    fake = FakeEGL(**egl)
    bare_linux.setattr(rendering, "load_library", lambda *names: fake if "libEGL.so.1" in names else ctypes)
    rendering.choose_gl()
    assert os.environ.get("MUJOCO_GL") == chosen


def test_an_old_egl_without_devices(bare_linux):
    fake = FakeEGL()
    fake._functions.clear()
    bare_linux.setattr(rendering, "load_library", lambda *names: fake if "libEGL.so.1" in names else ctypes)
    rendering.choose_gl()
    assert os.environ.get("MUJOCO_GL") == "osmesa"


def test_the_error_names_what_works(bare_linux):
    have(bare_linux, "osmesa")
    bare_linux.setenv("MUJOCO_GL", "egl")
    with pytest.raises(RuntimeError, match="MUJOCO_GL=egl: .*MUJOCO_GL=osmesa works"):
        rendering.require_gl()


def test_a_fork_of_a_process_that_has_drawn(monkeypatch):
    """Check for the error, without which the fork would wait for its first frame forever."""
    have(monkeypatch, "egl", "osmesa")
    monkeypatch.setattr(rendering, "_rendering_pid", None)
    rendering.claim_rendering()
    rendering.claim_rendering()
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked .* context='forkserver'"):
        rendering.claim_rendering()
