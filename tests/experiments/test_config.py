import numpy as np
import pytest

from aime_gym.data import collect
from aime_gym.experiments.data import load_for_task
from aime_gym.experiments.video import SIZE, _render_env
from aime_gym.tasks import TaskConfig

PIXELS = TaskConfig("HalfCheetah-v5", "pixels", max_episode_steps=2, image_size=16, quality="fast")


def test_pixels():
    with PIXELS.make() as env:
        assert env.observation_space.shape == (16, 16, 3)
        assert env.spec.kwargs["quality"] == "fast"
    with PIXELS.with_state().make() as env:
        assert env.observation_space.shape == (17,)


@pytest.mark.parametrize("options", [{"image_size": 16}, {"quality": "fast"}])
def test_options_of_pixels_only(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: expected with modality='pixels' only"):
        TaskConfig("HalfCheetah-v5", "state", **options)


def test_data_drawn_otherwise_than_the_task():
    with TaskConfig("HalfCheetah-v5", "pixels", max_episode_steps=2, image_size=16).make() as env:
        recorded = collect(env, "random", 1, seed=0, progress=False)
    with pytest.raises(ValueError, match=r"^demos\[0\].rendering: expected .*'fast', got quality='default'"):
        load_for_task(PIXELS, recorded, argument="demos", actions=False)


def test_videos_show_an_agent_of_pixels_what_it_knows():
    with _render_env(PIXELS) as env:
        observation, _ = env.reset(seed=0)
        np.testing.assert_array_equal(observation, env.render())
    with _render_env(PIXELS.with_state()) as env:
        env.reset(seed=0)
        assert env.render().shape == (SIZE, SIZE, 3)
