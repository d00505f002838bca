import os

import pytest

from aime_gym.wrappers import rendering


@pytest.fixture
def bare_linux(monkeypatch):
    """A Linux machine without a screen and without a word on what to render with."""
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
    bare_linux.setattr(rendering, "load", lambda *names: None)
    with pytest.raises(RuntimeError, match="neither was found"):
        rendering.require_gl()
