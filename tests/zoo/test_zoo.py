"""RL Zoo: the agents among its algorithms, trained from data, enjoyed and plotted by its own scripts."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3.common.monitor import load_results

from aime_gym.agents import BCOAgent, load_agent
from aime_gym.agents.registry import AGENTS
from aime_gym.data import save_minari
from aime_gym.testing.toy import PointMass, demonstrations, play_data

TASK, FOLDER = "toy/PointMass-v0", "toy-PointMass-v0"
#: By agent, as the command line has them.
TINY = {
    "aime": [
        *(
            "model_updates:4",
            "inverse_updates:4",
            "clone_updates:4",
            "policy_updates:4",
            "sequence_length:8",
            "batch_size:4",
        ),
        "world_model:dict(deter=8, stoch=4, hidden=8, decoder_hidden=8)",
    ],
    "bco": ["min_epochs:1", "max_epochs:1", "min_updates:8", "learning_rate:0.002"],
    "bc": ["min_epochs:1", "max_epochs:1", "min_updates:8", "learning_rate:0.002"],
}

ENJOY = ["--no-render", "-n", "30", "--device", "cpu"]


@pytest.fixture(scope="module")
def zoo():
    """The command line. RL Zoo puts a TimeLimit of its own into Gymnasium: other tests have the original."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (gym.wrappers, gym.wrappers.common, gym.envs.registration):
            patch.setattr(module, "TimeLimit", gym.wrappers.TimeLimit, raising=False)
        gym.register(TASK, "aime_gym.testing.toy:PointMass")
        from aime_gym.zoo.command import main

        yield main
        del gym.registry[TASK]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    env = PointMass()
    save_minari(folder / "play", play_data(env, 6), env)
    save_minari(folder / "demos", demonstrations(env, 6), env, actions=False)
    save_minari(folder / "oracle", demonstrations(env, 6), env)
    return folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train_arguments(data, algo, *more):
    demos = data / ("oracle" if algo == "bc" else "demos")
    play = ["--play", str(data / "play")] if algo != "bc" else []
    arguments = ["train", "--algo", algo, "--env", TASK, "--demos", str(demos), *play, "--seed", "1"]
    return [*arguments, "--device", "cpu", "--eval-episodes", "2", *more, "--hyperparams", *TINY[algo]]


@pytest.mark.parametrize("algo", ["aime", "bco", "bc"])
def test_a_run_from_training_to_enjoying(zoo, data, algo, tmp_path, capsys):
    arguments = train_arguments(data, algo, "--eval-freq", "4", "--save-freq", "4", "-tb", "tb", "-P")
    assert zoo(arguments) == 0
    run = tmp_path / "logs" / algo / f"{FOLDER}_1"
    assert (run / f"{FOLDER}.zip").is_file()
    assert (run / "best_model.zip").is_file()
    assert load_results(str(run)).empty  # the data was there: no environment step
    assert list((tmp_path / "tb" / FOLDER).glob("*/events*"))

    evaluations = np.load(run / "evaluations.npz")
    agent = load_agent(run / f"{FOLDER}.zip")
    assert agent.imitated
    assert len(evaluations["timesteps"]) >= 2
    assert evaluations["timesteps"][0] == 4  # updates
    assert evaluations["timesteps"][-1] <= agent.num_updates
    assert (run / "rl_model_4_steps.zip").is_file()

    config = yaml.unsafe_load((run / FOLDER / "config.yml").read_text())
    assert config["n_timesteps"] == 0
    assert config["demonstrations"] == str(data / ("oracle" if algo == "bc" else "demos"))
    if algo != "aime":
        assert agent.config.learning_rate == 0.002

    capsys.readouterr()
    assert zoo(["enjoy", "--algo", algo, "--env", TASK, *ENJOY]) == 0
    assert "Mean reward" in capsys.readouterr().out


def test_enjoy_takes_whichever_file_of_a_run(zoo, data, capsys):
    for _ in range(2):
        assert zoo(train_arguments(data, "bco", "--eval-freq", "4", "--save-freq", "4")) == 0
    for options, file in {
        "": f"{FOLDER}_2/{FOLDER}.zip",
        "--exp-id 1": f"{FOLDER}_1/{FOLDER}.zip",
        "--load-best": f"{FOLDER}_2/best_model.zip",
        "--load-checkpoint 8": f"{FOLDER}_2/rl_model_8_steps.zip",
        "--load-last-checkpoint": f"{FOLDER}_2/rl_model_16_steps.zip",
    }.items():
        capsys.readouterr()
        assert zoo(["enjoy", "--algo", "bco", "--env", TASK, *ENJOY, *options.split()]) == 0
        assert f"Loading logs/bco/{file}" in capsys.readouterr().out


def test_the_plots_of_rl_zoo_read_the_logs(zoo, data, tmp_path):
    for _ in range(2):
        assert zoo(train_arguments(data, "bc", "--eval-freq", "4")) == 0

    logs = ["-e", FOLDER, "-f", "logs"]
    scripts = {
        "all_plots": ["-a", "bc", *logs, "--no-million", "--no-display", "-o", "results"],
        "plot_train": ["-a", "bc", *logs],
        "plot_from_file": ["-i", "results.pkl", "-o", "figure.png", "--format", "png"],
    }
    code = "import sys; from rl_zoo3 import plots\n" + "\n".join(
        f"sys.argv[1:] = {arguments}; plots.{script}()" for script, arguments in scripts.items()
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"|{FOLDER}|" in done.stdout
    assert (tmp_path / "figure.png").is_file()


def test_what_is_enjoyed_is_what_was_trained(zoo, data, tmp_path):
    """The file of the zoo is an agent's file, and the same seed gives the same agent outside of it."""
    assert zoo(train_arguments(data, "bco")) == 0
    enjoyed = load_agent(tmp_path / "logs" / "bco" / f"{FOLDER}_1" / f"{FOLDER}.zip", device="cpu")
    budget = {"min_epochs": 1, "max_epochs": 1, "min_updates": 8, "learning_rate": 0.002}
    agent = BCOAgent(gym.make(TASK), seed=1, device="cpu", **budget)
    agent.pretrain(data / "play", progress_bar=False)
    agent.imitate(data / "demos", progress_bar=False)
    observation = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)
    np.testing.assert_array_equal(enjoyed.predict(observation)[0], agent.predict(observation)[0])


def test_without_play_random_play_is_collected_and_monitored(zoo, data, tmp_path):
    demos = ["--demos", str(data / "demos"), "--eval-freq", "-1"]
    arguments = ["train", "--algo", "bco", "--env", TASK, *demos, "-params", *TINY["bco"], "play_timesteps:60"]
    with pytest.warns(UserWarning, match="collecting 60 steps of random play"):
        assert zoo(arguments) == 0
    assert load_results(str(tmp_path / "logs" / "bco" / f"{FOLDER}_1"))["l"].sum() == 60


def test_data_may_stand_in_the_hyper_parameters(zoo, data, tmp_path):
    (tmp_path / "mine.yml").write_text(
        f"{TASK}:\n  policy: MlpPolicy\n  demonstrations: {data / 'oracle'}\n"
        "  min_epochs: 1\n  max_epochs: 1\n  min_updates: 2\n"
    )
    assert zoo(["train", "--algo", "bc", "--env", TASK, "--conf-file", "mine.yml", "-f", "elsewhere"]) == 0
    assert load_agent(tmp_path / "elsewhere" / "bc" / f"{FOLDER}_1" / f"{FOLDER}.zip").imitated


def test_a_trained_agent_imitates_other_demonstrations(zoo, data, tmp_path):
    """With ``-i`` the model stays, and the policy is new."""
    assert zoo(train_arguments(data, "bco")) == 0
    runs = tmp_path / "logs" / "bco"
    before = runs / f"{FOLDER}_1" / f"{FOLDER}.zip"
    demos = ["--demos", str(data / "oracle"), "--seed", "2"]
    assert zoo(["train", "--algo", "bco", "--env", TASK, *demos, "-i", str(before), "-params", *TINY["bco"]]) == 0
    old, new = load_agent(before), load_agent(runs / f"{FOLDER}_2" / f"{FOLDER}.zip")
    assert (old.num_phases, new.num_phases) == (2, 3)
    assert new.num_updates > old.num_updates
    for name, weights in old.inverse_model.state_dict().items():
        assert weights.equal(new.inverse_model.state_dict()[name])
    assert any(not weights.equal(new.policy.state_dict()[name]) for name, weights in old.policy.state_dict().items())


def test_an_interrupted_run_goes_on_from_its_checkpoint(zoo, data, tmp_path, monkeypatch):
    """And ends with the same agent; the interrupted one leaves no agent behind."""
    assert zoo(train_arguments(data, "bco")) == 0
    arguments = [*train_arguments(data, "bco"), "checkpoint_dir:'ck'", "checkpoint_interval:2"]

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BCOAgent, "_imitate", interrupt)
        assert zoo(arguments) == 130
    runs = tmp_path / "logs" / "bco"
    assert not (runs / f"{FOLDER}_2" / f"{FOLDER}.zip").exists()
    assert zoo(arguments) == 0
    whole, resumed = (load_agent(runs / f"{FOLDER}_{run}" / f"{FOLDER}.zip") for run in (1, 3))
    for name, weights in whole.policy.state_dict().items():
        assert weights.equal(resumed.policy.state_dict()[name])


def test_checkpoints_of_another_run_are_refused(zoo, data, capsys):
    checkpointed = ["--hyperparams", *TINY["bco"], "checkpoint_dir:'ck'"]
    assert zoo([*train_arguments(data, "bco"), *checkpointed]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        zoo([*train_arguments(data, "bco"), "--seed", "2", *checkpointed])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert "checkpoint_dir: ck/00-pretrain.zip was left by another run, of another seed" in printed
    assert printed.count("\n") == 1


def test_agents_of_other_packages_are_there_too(zoo, data, tmp_path, monkeypatch):
    """``--gym-packages`` may register them, and they need no file of hyper-parameters."""
    (tmp_path / "their_agents.py").write_text(
        "from aime_gym.agents import BCAgent, register_agent\n"
        "@register_agent('theirs')\nclass TheirAgent(BCAgent): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data_given = ["--demos", str(data / "oracle"), "--eval-freq", "-1"]
    their = ["--algo", "theirs", "--env", TASK, "--gym-packages", "their_agents"]
    try:
        assert zoo(["train", *their, *data_given, "-params", *TINY["bc"]]) == 0
        assert zoo(["enjoy", *their, *ENJOY]) == 0
    finally:
        AGENTS.pop("theirs", None)


def test_algorithms_of_sb3_keep_their_own(zoo, capsys, tmp_path):
    arguments = ["--algo", "ppo", "--env", "CartPole-v1"]
    small = ["-params", "n_envs:1", "n_steps:32", "batch_size:32", "n_epochs:1"]
    assert zoo(["train", *arguments, "-n", "64", "--eval-freq", "32", "--eval-episodes", "1", *small]) == 0
    assert "rl_zoo3/hyperparams/ppo.yml" in capsys.readouterr().out
    assert zoo(["enjoy", *arguments, "-f", "logs", *ENJOY]) == 0


def test_every_agent_is_among_rl_zoos_algorithms(zoo):
    from rl_zoo3.utils import ALGOS

    from aime_gym.zoo import register_agents

    register_agents()
    assert {name: ALGOS[name] for name in AGENTS} == AGENTS
    assert "sac" in ALGOS


@pytest.mark.parametrize("name", ["aime", "bco", "bc"])
def test_the_hyper_parameters_are_those_of_the_agent(zoo, name):
    from aime_gym.zoo.registration import hyperparams_file

    path = hyperparams_file(name)
    assert path.stem == name
    for task, entry in yaml.safe_load(path.read_text()).items():
        assert task == "default" or task in gym.registry
        assert entry["n_timesteps"] == 0
        AGENTS[name](**{option: value for option, value in entry.items() if option != "n_timesteps"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --algo aimee", "--algo: unknown algorithm 'aimee'; did you mean aime?"),
        ("train --algo bco --env reach-v3", "did you mean aime_gym/reach-v3-state-v0 or"),
        ("train --algo bco --env toy/PointMess-v0", f"got 'toy/PointMess-v0'; did you mean {TASK}"),
        (f"train --algo bco --env {TASK}", "--demos: expected what to imitate, a Minari id or a path, got none"),
        (f"train --algo bco --env {TASK} --demos nowhere", "--demos: nothing is stored at nowhere"),
        (f"train --algo bco --env {TASK} --demos DEMOS --play nowhere", "--play: nothing is stored at nowhere"),
        (f"train --algo bco --env {TASK} --demos DEMOS --play DEMOS", "--play[0].actions: expected"),
        (f"train --algo bc --env {TASK} --demos DEMOS", "--demos[0].actions: expected"),
        ("train --algo bco --env CartPole-v1 --demos DEMOS", "--demos[0].observations: expected shape (T+1, 4)"),
        (f"train --algo bco --env {TASK} --demos DEMOS -params stak:1", "stak: unknown hyper-parameter of BCOAgent"),
        (f"train --algo bco --env {TASK} --demos DEMOS -params stack:0", "stack: expected at least 1, got 0"),
        (f"train --algo bco --env {TASK} --demos DEMOS -params normalize:True", "VecNormalize(norm_obs=True)"),
        (
            f"train --algo bco --env {TASK} --demos DEMOS -n 100",
            "--n-timesteps: expected 0, since bco",
        ),
        (f"train --algo bco --env {TASK} --demos DEMOS -optimize", "--optimize-hyperparameters: expected an algorithm"),
        (f"train --algo bco --env {TASK} --demos DEMOS --vec-env subproc", "--play: expected a dataset, since"),
        (f"train --algo bco --env {TASK} --demos DEMOS -conf nowhere.yml", "nowhere.yml"),
        (
            "train --algo sac --env Pendulum-v1 --demos DEMOS",
            "--demos: expected an agent that learns",
        ),
        ("train --algo bco --gym-packages no_such_package", "No module named 'no_such_package'"),
        ("train --demos", "argument --demos: expected one argument"),
        (f"enjoy --algo bco --env {TASK}", "The logs/bco folder was not found"),
        ("play", "expected train or enjoy, got play"),
        ("", "expected train or enjoy, got nothing"),
    ],
)
def test_bad_input_ends_in_one_line_and_starts_no_run(zoo, data, arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        zoo(arguments.replace("DEMOS", str(data / "demos")).split())
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def settings_of_a_run(zoo, data, tmp_path):
    assert zoo(train_arguments(data, "bc", "--eval-freq", "-1")) == 0
    return tmp_path / "logs" / "bc" / f"{FOLDER}_1" / FOLDER


@pytest.mark.parametrize(
    "code",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [ran]]",
        "!!python/object/apply:os.mkdir [ran]",
        "!!python/object/new:os.mkdir [ran]",
    ],
)
@pytest.mark.parametrize("file", ["args.yml", "config.yml"])
def test_settings_of_a_run_do_not_run_code(zoo, data, tmp_path, file, code):
    folder = settings_of_a_run(zoo, data, tmp_path)
    (folder / file).write_text(f"env_kwargs: {{}}\nother: {code}\n")
    assert zoo(["enjoy", "--algo", "bc", "--env", TASK, *ENJOY]) == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("env_wrapper: their_wrappers.Wrapper", "env_wrapper: expected wrappers of gymnasium"),
        ("vec_env_wrapper: [{their_wrappers.Wrapper: {a: 1}}]", "vec_env_wrapper: expected wrappers of gymnasium"),
        ("[1]", "expected settings by name, got [1]"),
        ("a: !!python/object/apply:collections.OrderedDict [1, 2]", "expected settings of RL Zoo"),
    ],
)
def test_settings_that_name_code_are_refused(zoo, data, tmp_path, capsys, monkeypatch, setting, message):
    (tmp_path / "their_wrappers.py").write_text("open('ran', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    (settings_of_a_run(zoo, data, tmp_path) / "config.yml").write_text(setting)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        zoo(["enjoy", "--algo", "bc", "--env", TASK, *ENJOY])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_statistics_that_are_a_pickle_are_not_read_for_our_agents(zoo, data, tmp_path):
    folder = settings_of_a_run(zoo, data, tmp_path)
    (folder / "config.yml").write_text("normalize: \"__import__('os').mkdir('ran')\"")
    (folder / "vecnormalize.pkl").write_bytes(b"cos\nmkdir\n(S'ran'\ntR.")
    assert zoo(["enjoy", "--algo", "bc", "--env", TASK, *ENJOY]) == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("verb", ["train", "enjoy"])
def test_help_is_ours_and_then_rl_zoos(zoo, verb, capsys):
    with pytest.raises(SystemExit) as end:
        zoo([verb, "--help"])
    assert end.value.code == 0
    ours, theirs = capsys.readouterr().out.split(f"usage: python -m aime_gym.zoo {verb}")
    assert "gradient updates" in ours
    assert ("--demos DATA" in ours) == (verb == "train")
    assert "aime,bco,bc" in theirs


def test_help_without_a_verb(zoo, capsys):
    assert zoo(["--help"]) == 0
    assert "usage: python -m aime_gym.zoo train" in capsys.readouterr().out


def test_without_the_extra_the_error_has_the_command():
    code = (
        "import sys; sys.modules['rl_zoo3'] = None; sys.argv[1:] = ['train', '--algo', 'aime']; "
        "import runpy; runpy.run_module('aime_gym.zoo', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'pip install "aime-gym[zoo]"' in done.stderr


def test_an_agent_that_imitates_in_its_environment_takes_steps(zoo, data, tmp_path):
    options = ["--hyperparams", "algorithm_kwargs:dict(n_steps=32)", "batch_size:8", "discriminator_updates:1"]
    arguments = ["train", "--algo", "gaifo", "--env", TASK, "--demos", str(data / "demos"), "-n", "64", "--seed", "1"]
    assert zoo([*arguments, "--device", "cpu", "--eval-freq", "32", "--eval-episodes", "1", *options]) == 0
    run = tmp_path / "logs" / "gaifo" / f"{FOLDER}_1"
    assert load_agent(run / f"{FOLDER}.zip").num_timesteps == 64
    assert list(np.load(run / "evaluations.npz")["timesteps"]) == [32, 64]
    assert zoo(["enjoy", "--algo", "gaifo", "--env", TASK, *ENJOY]) == 0
