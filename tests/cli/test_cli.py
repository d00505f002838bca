"""The command line: help at once, one line for what is wrong, and the verbs."""

import re
import subprocess
import sys
from dataclasses import fields, replace

import pytest

import aime_gym
from aime_gym.agents import BCAgent
from aime_gym.agents.registry import AGENTS
from aime_gym.cli import _PROGRAM, main
from aime_gym.config import describe_fields
from aime_gym.data import load_trajectories
from aime_gym.experiments.data import load_for_task
from aime_gym.tasks import TaskConfig
from aime_gym.testing import toy

TINY = "min_epochs=1,max_epochs=1,min_updates=2"
PENDULUM = ["Pendulum-v1", "--modality", "state", "--max-episode-steps", "20"]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom aime_gym.cli import main\n"
        "try: main(['compare', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'stable_baselines3', 'matplotlib', 'metaworld', 'mujoco', 'minari', 'rich'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in result.stdout


def test_the_help_of_compare_shows_how_to_change_everything(capsys):
    assert main(["compare", "--help"]) == 0
    text = capsys.readouterr().out
    for part in ("another task", "another modality", "another dataset", "another agent", "--expert sac:20000"):
        assert part in text


VERBS = ["compare", "collect", "train", "diagnose", "beliefs", "evaluate", "benchmark", "report"]
VERBS += ["label", "list", "options"]


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS)])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_verb_has_help_of_80_columns(verb, flag, capsys):
    assert main([*verb, flag]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: {' '.join(['aime-gym', *verb])}")
    assert "aime-gym" in text.split("Options:")[1]  # an example, at the end
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_examples_use_options_that_are_there(verb):
    examples = _PROGRAM.commands[verb].epilog.replace("\\\n", "")
    lines = [line.split("#")[0].split() for line in examples.splitlines() if line.strip().startswith("aime-gym")]
    assert lines
    for _, other, *arguments in lines:
        known = {flag for parameter in _PROGRAM.commands[other].params for flag in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("-")} <= known


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("compare reech-v3", "ENV_ID: expected 'walker-walk' (dm_control), 'reach-v3' (Meta-World)"),
        ("compare reech-v3", "the nearest names are 'reach-v3'"),
        ("compare --modality stat", "--modality: expected one of"),
        ("compare --quality fast", "--quality: expected with modality='pixels' only"),
        ("compare --image-size 32", "--image-size: expected with modality='pixels' only"),
        (
            "collect CartPole-v1 --modality pixels --quality fast --out x",
            "--quality: expected 'default' for CartPole-v1",
        ),
        ("compare --action-repeat 0", "--action-repeat: expected an integer of at least 1, got 0"),
        ("compare --action-repeat two", "--action-repeat: expected a whole number, got 'two'"),
        ("compare --agents aimee", "did you mean aime?"),
        ("compare --agents aime:model_update=1", "unknown option 'model_update'; did you mean model_updates"),
        ("compare --agents bc:stack=many", "agent bc: stack: expected int, got 'many'"),
        ("compare --agents", "aime-gym compare: error: --agents: expected a value, got none"),
        ("compare --eval-episodes 0", "--eval-episodes: expected at least 1, got 0"),
        ("compare --demos nowhere", "--demos: nothing is stored at nowhere"),
        ("compare --play nowhere", "--play: nothing is stored at nowhere"),
        ("compare Pendulum-v1 --modality state", "--expert: there is no script for Pendulum-v1"),
        ("compare CartPole-v1 --modality position --agents bc", "positions is unknown; expected --positions"),
        ("compare CartPole-v1 --positions 0,2", "--positions: expected with modality='position' only"),
        ("compare --camera 1", "--camera: expected with modality='pixels' only"),
        ("compare --env-kwargs gravity", "--env-kwargs: expected name=value, got 'gravity'"),
        ("compare --env-kwargs gravity=1", "--env-kwargs: expected with a Gymnasium id only, got {'gravity': 1}"),
        (
            "compare CartPole-v1 --modality state --agents aime:sequence_length=1",
            "agent aime:sequence_length=1: sequence_length: expected at",
        ),
        ("compare --speed 3", "--speed: unknown option; did you mean --seed?"),
        (
            "collect Pendulum-v1 --modality state --policy fast --out x",
            "--policy: expected 'play', 'random', 'plan2explore'",
        ),
        ("collect reach-v3 --episodes 0 --out x", "--episodes: expected at least 1, got 0"),
        ("collect reach-v3 --out .", "--out: . exists already"),
        ("collect reach-v3 --video --out x", "--video: expected an environment that shows images (--modality pixels)"),
        ("compare --demos clips/*.mp4", "--demos: nothing matches the pattern 'clips/*.mp4'"),
        ("train aime reach-v3 -o model_updates --out x.zip", "expected option=value, got 'model_updates'"),
        ("evaluate nowhere.zip", "path: expected an agent's file, found none at nowhere.zip"),
        ("list agent", "expected one of agents, envs, presets, got 'agent'"),
        ("options aimee", "did you mean aime?"),
        ("options aime --preset papers", "--preset: AIMEAgent expects one of ['aime', "),
        ("comp reach-v3", "VERB: unknown verb 'comp'; did you mean compare?"),
        ("evaluate", "FILE: expected a value, got none"),
        ("compare --seed -1", "--seed: expected at least 0, got -1"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_the_program_without_a_verb_says_what_it_can(capsys):
    assert main([]) == 0
    assert main(["--help"]) == 0
    bare, asked = capsys.readouterr().out.split("Usage:")[1:]
    assert bare == asked
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{aime_gym.__version__}\n"
    result = subprocess.run([sys.executable, "-m", "aime_gym", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"{aime_gym.__version__}\n"


def test_names_are_listed(capsys):
    for kind, names in {
        "agents": list(AGENTS),
        "envs": ["walker-run", "reach-v3", "Ant-v5", "CartPole-v1"],
        "presets": ["aime-nob", "paper", "dreamer-m"],
    }.items():
        assert main(["list", kind]) == 0
        text = capsys.readouterr().out
        assert set(names) <= set(re.findall(r"[^\s,]+", text))
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", AGENTS)
def test_every_option_has_a_meaning(name, capsys):
    config = AGENTS[name].presets["default"]
    described = describe_fields(config)
    assert [field.name for field in described] == [field.name for field in fields(config)]
    assert [field.name for field in described if not field.meaning] == []
    assert main(["options", name]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"\n  {field.name}" in text for field in described)


def test_the_values_of_a_preset_are_shown(capsys):
    assert main(["options", "aime", "--preset", "dreamer"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "world_model WorldModelConfig | str, dreamer. Name of a preset" in text
    assert "model_updates int, 200000. Number of updates of the world model in pretrain." in text


def test_the_shell_completes(monkeypatch, capsys):
    for words, found in {"ev": "evaluate", "list a": "agents", "compare --modality p": "position,pixels"}.items():
        monkeypatch.setenv("_AIME_GYM_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", f"aime-gym {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        with pytest.raises(SystemExit):
            main([])
        assert capsys.readouterr().out.split() == [f"plain,{word}" for word in found.split(",")]


def test_a_run_by_its_verbs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reach = ["reach-v3", "--max-episode-steps", "20"]
    assert main(["collect", *reach, "--policy", "play", "--episodes", "3", "--out", "play"]) == 0
    assert (
        main(["collect", *reach, "--policy", "expert", "--episodes", "3", "--without-actions", "--out", "demos"]) == 0
    )
    (play, *_), (demo, *_) = load_trajectories("play"), load_trajectories("demos")
    assert (len(play), play.actions.shape) == (10, (10, 4))
    assert demo.actions is None
    options = [part for option in TINY.split(",") for part in ("-o", option)]
    assert main(["train", "bco", *reach, "--play", "./play", "--demos", "demos", *options, "--out", "bco.zip"]) == 0
    assert main(["evaluate", "bco.zip", "--episodes", "2", "--video", "bco.mp4"]) == 0
    assert (tmp_path / "bco.mp4").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "play: 3 episodes, 30 steps, mean return" in printed
    assert "bco.zip: bco:min_epochs=1" in printed
    assert "reach-v3 (state), 2 episodes each" in printed
    assert main(["evaluate", "bco.zip", *reach, "--action-repeat", "2", "--episodes", "1"]) == 0
    for wrong, message in {
        "push-v3": "ENV_ID: expected 'reach-v3', which bco.zip was trained with, got 'push-v3'",
        "--action-repeat 1": "--action-repeat: expected 2, which bco.zip was trained with, got 1",
        "--modality position": "--modality: expected 'state', which bco.zip was trained with, got 'position'",
    }.items():
        with pytest.raises(SystemExit):
            main(["evaluate", "bco.zip", *wrong.split()])
        assert message in capsys.readouterr().err


def test_a_file_that_does_not_know_its_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    BCAgent(toy.PointMass(), seed=0).save("own")
    with pytest.raises(SystemExit):
        main(["evaluate", "own.zip"])
    assert "ENV_ID: expected one, since own.zip does not know its task" in capsys.readouterr().err


def test_exploration_is_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    collect = ["collect", "reach-v3", "--max-episode-steps", "20", "--policy", "plan2explore", "--episodes", "2"]
    assert main([*collect, "--out", "play"]) == 0
    assert [trajectory.actions.shape for trajectory in load_trajectories("play")] == [(10, 4)] * 2
    assert "play: 2 episodes, 20 steps" in capsys.readouterr().out


def test_a_training_that_was_interrupted_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reach = ["reach-v3", "--max-episode-steps", "20"]
    main(["collect", *reach, "--policy", "play", "--episodes", "3", "--out", "play"])
    options = [part for option in TINY.split(",") for part in ("-o", option)]
    data = ["--play", "./play", "--demos", "play", *options]
    train = ["train", "bco", *reach, *data, "--checkpoint", "runs"]
    with monkeypatch.context() as patch:
        patch.setattr("aime_gym.training.supervised._Regression.finish", interrupt)
        assert main([*train, "--out", "whole.zip"]) == 130
    assert "the same command goes on from runs" in capsys.readouterr().err
    assert main([*train, "--out", "end.zip"]) == 0
    assert (tmp_path / "end.zip").is_file()
    with pytest.raises(SystemExit) as end:
        main([*train, "--seed", "1", "--out", "other.zip"])
    assert end.value.code == 2
    assert "error: --checkpoint: runs/00-pretrain.zip was left by another run" in capsys.readouterr().err


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_compare_goes_to_a_folder_named_after_the_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")  # no name is folded
    arguments = ["compare", *PENDULUM, "--expert", "sac:1", "--agents", f"bc:{TINY}"]
    assert main([*arguments, "--demo-count", "2", "--eval-episodes", "1", "--video-episodes", "0"]) == 0
    written = {path.name for path in (tmp_path / "runs" / "Pendulum-v1").iterdir()}
    assert written == {"results.json", "results.jsonl", "plan.json", "returns.png", "bc.zip", "expert.zip"}
    assert "bc (oracle: sees the actions)" in capsys.readouterr().out


def test_collected_videos_are_demonstrations(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reach = ["reach-v3", "--modality", "pixels", "--max-episode-steps", "8", "--quality", "fast"]
    collect = ["collect", *reach, "--policy", "expert", "--episodes", "2"]
    assert main([*collect, "--video", "--out", "videos"]) == 0
    assert "videos: 2 episodes, 8 steps" in capsys.readouterr().out
    assert main([*collect, "--out", "dataset"]) == 0
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["000.mp4", "001.mp4", "videos.json"]
    task = TaskConfig("reach-v3", "pixels", max_episode_steps=8, quality="fast")
    shown = load_for_task(task, "videos/*.mp4", argument="demos", actions=False)
    for video, episode in zip(shown, load_trajectories("dataset"), strict=True):
        assert (video.observations == episode.observations).all()
        assert video.actions is None
        assert video.rewards is None
    with pytest.warns(UserWarning, match="40 frames per second.*80 times a second"):
        upsampled = load_for_task(replace(task, action_repeat=1), "videos", argument="demos", actions=False)
    assert [len(video) for video in upsampled] == [9, 9]


def test_nothing_to_render_with(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MUJOCO_GL", "off")
    with pytest.raises(SystemExit) as end:
        main(["collect", "reach-v3", "--modality", "pixels", "--out", str(tmp_path / "play")])
    assert end.value.code == 2
    assert "aime-gym collect: error: Rendering needs OpenGL" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["collect", "CartPole-v1", "--modality", "pixels", "--out", "play"], ["evaluate", "bc.zip", "--video", "bc.mp4"]],
    ids=["collect", "evaluate"],
)
def test_a_package_that_gymnasium_lacks_is_named_before_the_work(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pygame", None)
    with TaskConfig("CartPole-v1", "state").make() as env:
        BCAgent(env, min_epochs=1, max_epochs=1, min_updates=2).imitate("classic/CartPole-v1").save("bc.zip")
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert "pygame is not installed" in capsys.readouterr().err


def test_a_task_of_ones_own_is_found_in_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_task.py").write_text(
        "import gymnasium\nfrom aime_gym.testing.toy import PointMass\n"
        "gymnasium.register('Own-v0', PointMass, max_episode_steps=5)\n"
    )
    assert main(["collect", "own_task:Own-v0", "--episodes", "2", "--out", "play"]) == 0
    assert "play: 2 episodes, 10 steps" in capsys.readouterr().out


def test_no_module_of_the_current_folder_is_imported_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert main(["collect", "CartPole-v1", "--episodes", "1", "--out", "play"]) == 0
    assert sys.path == path
