"""Videos of a world model's beliefs about demonstrations: their panels, frames and files."""

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from gymnasium import spaces

from aime_gym.agents import AIMEAgent, BCAgent
from aime_gym.analysis.beliefs import beliefs, video_frames
from aime_gym.cli import main
from aime_gym.data import TrajectoryDataset, save_minari
from aime_gym.data.captions import LINE
from aime_gym.model_based.action_inference import inverse_source, policy_source
from aime_gym.model_based.filtering import filter_trajectories
from aime_gym.models.config import WorldModelConfig
from aime_gym.testing import toy

SIDE, CONTEXT = 16, 4
OPTIONS = {
    "world_model": WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8, image_depth=4),
    **dict.fromkeys(("model_updates", "inverse_updates", "clone_updates", "policy_updates"), 3),
    "sequence_length": 8,
    "batch_size": 4,
}


class ImageToy(toy.PointMass):
    """Toy task as an image of a bright square."""

    channels = 3

    def __init__(self):
        self.observation_space = spaces.Box(0, 255, (SIDE, SIDE, self.channels), np.uint8)

    def observe(self):
        picture = np.full((SIDE, SIDE, self.channels), 40, np.uint8)
        row, column = ((np.clip(self.position, -1, 1) + 1) / 2 * (SIDE - 4)).astype(int)
        picture[row : row + 4, column : column + 4] = np.arange(200, 200 + self.channels)
        return picture


class GreyToy(ImageToy):
    channels = 1


class StackedToy(ImageToy):
    channels = 6


class ChannelsFirstToy(ImageToy):
    """Toy task with channels first."""

    def __init__(self):
        self.observation_space = spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8)

    def observe(self):
        return np.ascontiguousarray(np.moveaxis(super().observe(), -1, 0))


class TwoCamerasToy(ImageToy):
    """Toy task with two images of different sizes, and a vector."""

    def __init__(self):
        self.observation_space = spaces.Dict(
            {
                "near": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
                "far": spaces.Box(0, 255, (SIDE // 2, SIDE // 2, 3), np.uint8),
                "position": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            }
        )

    def observe(self):
        picture = super().observe()
        return {"near": picture, "far": picture[::2, ::2], "position": self.position.astype(np.float32)}


def pretrained(make=ImageToy, **options):
    env, play, demos = toy.task(make, play=4, demos=3)
    return AIMEAgent(env, seed=0, **OPTIONS | options).pretrain(play, progress_bar=False), demos


@pytest.fixture(scope="module")
def agent():
    return pretrained()[0]


@pytest.fixture(scope="module")
def demos():
    return toy.task(ImageToy, play=4, demos=3).demos


def demo_beliefs(agent, demos, source=None, context=CONTEXT):
    dataset = TrajectoryDataset(demos, None)
    source = source or inverse_source(agent.inverse_model, agent.world_model, dataset)
    return beliefs(agent.world_model, dataset, source, context=context), dataset, source


def as_bytes(mean):
    return (mean.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def test_the_reconstruction_is_the_decoded_filter(agent, demos):
    panels, dataset, source = demo_beliefs(agent, demos)
    features = filter_trajectories(agent.world_model, dataset, source).features
    with torch.no_grad():
        means = dataset.per_trajectory(agent.world_model.decode(features)["observation"].mean)
    for panels_of_demo, demo, mean in zip(panels, demos, means, strict=True):
        np.testing.assert_array_equal(panels_of_demo.demonstration, demo.observations)
        # A number between two bytes may become either.
        np.testing.assert_allclose(panels_of_demo.reconstruction.astype(int), as_bytes(mean).astype(int), atol=1)


@pytest.mark.parametrize("context", [1, CONTEXT, 1000])
def test_the_prediction_leaves_the_reconstruction_where_it_sees_no_more(agent, demos, context):
    for panels_of_demo in demo_beliefs(agent, demos, context=context)[0]:
        same = (panels_of_demo.prediction == panels_of_demo.reconstruction).all((1, 2, 3))
        assert same[:context].all()
        assert not same[context:].any()


def test_the_prediction_sees_nothing_after_the_context(agent, demos):
    """Check that other frames there change the reconstruction only, under actions that do not depend on them."""
    changed = [toy.Trajectory(demo.observations.copy()) for demo in demos]
    for demo in changed:
        demo.observations[CONTEXT:] = 255 - demo.observations[CONTEXT:]
    dataset = TrajectoryDataset(demos, None)
    source = inverse_source(agent.inverse_model, agent.world_model, dataset)
    recorded = filter_trajectories(agent.world_model, dataset, source).prev_actions

    def same_actions(rows, _):
        return lambda t, state: recorded[rows][t]

    assert recorded.abs().sum() > 0
    for one, other in zip(
        demo_beliefs(agent, demos, same_actions)[0], demo_beliefs(agent, changed, same_actions)[0], strict=True
    ):
        np.testing.assert_array_equal(one.prediction, other.prediction)
        assert (one.reconstruction != other.reconstruction).any()


@pytest.mark.parametrize("make", [GreyToy, StackedToy, ChannelsFirstToy])
def test_every_kind_of_image_becomes_a_picture(make):
    agent, demos = pretrained(make)
    for panels_of_demo, demo in zip(demo_beliefs(agent, demos)[0], demos, strict=True):
        assert {panel.shape for panel in panels_of_demo} == {(len(demo) + 1, SIDE, SIDE, 3)}
        shown = np.moveaxis(demo.observations, 1, -1) if make is ChannelsFirstToy else demo.observations
        for channel in range(3):
            np.testing.assert_array_equal(
                panels_of_demo.demonstration[..., channel - 3], shown[..., -1 if make is GreyToy else channel - 3]
            )


def test_two_images_stand_on_top_of_each_other():
    agent, demos = pretrained(TwoCamerasToy)
    far = demos[0].observations["far"]
    for panel in demo_beliefs(agent, demos)[0][0]:
        assert panel.shape == (len(demos[0]) + 1, SIDE + SIDE // 2, SIDE, 3)
    shown = demo_beliefs(agent, demos)[0][0].demonstration
    np.testing.assert_array_equal(shown[:, : SIDE // 2, : SIDE // 2], far)
    np.testing.assert_array_equal(shown[:, SIDE // 2 :], demos[0].observations["near"])


@pytest.mark.parametrize("name", ["beliefs.mp4", "beliefs.gif"])
def test_the_file_has_a_frame_for_each_record(agent, demos, tmp_path, name):
    path = agent.render_beliefs(demos, tmp_path / name, episodes=2, length=9)
    assert path == tmp_path / name
    frames = imageio.imread(path, index=..., plugin="pyav", format="rgb24")
    assert frames.shape == (2 * 9, LINE + 256, 3 * 256, 3)
    enlarged = demos[0].observations[0].repeat(256 // SIDE, 0).repeat(256 // SIDE, 1)
    assert np.abs(frames[0, LINE:, :256].astype(int) - enlarged).mean() < 8


def test_all_demonstrations_are_shown_to_their_end(agent, demos, tmp_path):
    frames = imageio.imread(agent.render_beliefs(demos, tmp_path / "all.mp4"), index=..., plugin="pyav")
    assert len(frames) == sum(len(demo) + 1 for demo in demos)


def test_the_open_loop_is_named(agent, demos):
    captions = [frame[24:LINE, 512:] for frame in video_frames(demo_beliefs(agent, demos[:1])[0], 1, CONTEXT)]
    for caption in captions:
        assert (caption == captions[0]).all() or (caption == captions[-1]).all()
    assert [(caption == captions[0]).all() for caption in captions].count(True) == CONTEXT


def test_the_actions_are_the_policys_after_imitation(demos, tmp_path, monkeypatch):
    agent = pretrained()[0]
    sources = []
    monkeypatch.setattr("aime_gym.agents.aime.write_beliefs", lambda *args, **_: sources.append(args[3]))
    dataset = TrajectoryDataset(demos, None)
    before = agent._action_source(dataset)
    agent.imitate(demos, progress_bar=False)
    agent.render_beliefs(demos, tmp_path / "x.mp4")
    after = sources[0](dataset)

    def actions(source):
        return filter_trajectories(agent.world_model, dataset, source).prev_actions

    torch.testing.assert_close(actions(after), actions(policy_source(agent.policy, 2)))
    assert not torch.equal(actions(before), actions(after))


def test_the_agent_stays_as_it_is(agent, demos, tmp_path):
    def state():
        return {
            **{name: value.clone() for name, value in agent.world_model.state_dict().items()},
            "generator": agent.generator.get_state(),
            "acting": agent.acting_generator.get_state(),
            "torch": torch.get_rng_state(),
        }

    before, trains = state(), [p.requires_grad for p in agent.world_model.parameters()]
    agent.render_beliefs(demos, tmp_path / "beliefs.mp4", length=6)
    after = state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert trains == [p.requires_grad for p in agent.world_model.parameters()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 0}, "context: expected a whole number of at least 1, got 0"),
        ({"context": 2.5}, "context: expected a whole number"),
        ({"length": 1}, "length: expected a whole number of at least 2, got 1"),
        ({"episodes": 0}, "episodes: expected a whole number of at least 1, got 0"),
        ({"fps": 0}, "fps: expected more than 0, got 0"),
        ({"path": "beliefs.avi"}, r"path: expected a file that ends in .mp4 or .gif, got beliefs.avi"),
        ({"demos": None}, "demos: expected trajectories, got None"),
    ],
)
def test_bad_input_is_named(agent, demos, changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        agent.render_beliefs(**{"demos": demos} | changes)
    assert not list(tmp_path.iterdir())


def test_vectors_are_not_drawn(tmp_path):
    agent, demos = pretrained(toy.PointMass)
    with pytest.raises(ValueError, match="render_beliefs: expected an observation with an image, got the sensors"):
        agent.render_beliefs(demos, tmp_path / "beliefs.mp4")


def test_an_agent_without_a_world_model_is_refused(demos):
    with pytest.raises(ValueError, match="AIMEAgent has no world model yet; call pretrain first"):
        AIMEAgent(ImageToy(), **OPTIONS).render_beliefs(demos)


# The command line


@pytest.fixture(scope="module")
def files(tmp_path_factory, agent, demos):
    folder = tmp_path_factory.mktemp("files")
    agent.save(folder / "agent.zip")
    BCAgent(toy.PointMass(), seed=0).save(folder / "bc.zip")
    save_minari(folder / "demos", demos, ImageToy(), actions=False)
    return folder


def test_a_file_of_an_agent_is_enough(files, tmp_path, capsys):
    out = tmp_path / "beliefs.gif"
    arguments = ["--demos", str(files / "demos"), "--length", "5", "--episodes", "2", "--out", str(out)]
    assert main(["beliefs", str(files / "agent.zip"), *arguments]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert len(imageio.imread(out, index=..., plugin="pyav")) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agent": "bc.zip"}, "path: expected an agent with a world model, got BCAgent in bc.zip"),
        ({"--out": "beliefs.avi"}, "--out: expected a file that ends in .mp4 or .gif, got beliefs.avi"),
        ({"--context": "0"}, "--context: expected a whole number of at least 1, got 0"),
        ({"--demos": "nowhere"}, "--demos: nothing is stored at nowhere"),
    ],
)
def test_bad_input_ends_in_one_line(changes, message, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    given = {"agent": "agent.zip", "--demos": "demos", "--out": "beliefs.mp4"} | changes
    with pytest.raises(SystemExit) as end:
        main(["beliefs", given.pop("agent"), *(part for option in given.items() for part in option)])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
