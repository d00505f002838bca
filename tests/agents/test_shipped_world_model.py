"""The world model that comes with the package is what is said of it, and knows its body."""

import json

import numpy as np
import pytest

from aime_gym.agents import AIMEAgent
from aime_gym.data import load_trajectories
from aime_gym.envs import make_env
from aime_gym.models.pretrained import SHIPPED
from aime_gym.serialization import file_digest

NAME = "reach-v3"


def test_it_infers_the_actions_of_its_body():
    stated = json.loads((SHIPPED / f"{NAME}.json").read_text())
    assert file_digest(SHIPPED / f"{NAME}.safetensors") == stated["digest"]
    demos = load_trajectories(f"metaworld/{NAME}")[:3]
    with make_env(stated["task"], modality=stated["modality"]) as env:
        agent = AIMEAgent(env, world_model=f"pretrained/{NAME}", seed=0)
    inferred = agent.infer_actions([demo.without_actions() for demo in demos])
    actions, taken = (np.concatenate([demo.actions for demo in part]) for part in (inferred, demos))
    assert (np.square(actions - taken).mean(0)[:3] < 0.01).all()  # the gripper, which is last, has nothing to hold


def test_an_unknown_name_is_told_the_known_ones():
    with (
        make_env(NAME, modality="position") as env,
        pytest.raises(FileNotFoundError, match=r"expected one of pretrained/reach-v3.*, got pretrained/reach-v9"),
    ):
        AIMEAgent(env, world_model="pretrained/reach-v9")
