"""The numbers of a report are those that one works out by hand, from whatever is finished."""

import base64
import html
import json
import re
import sys

import numpy as np
import pytest

from aime_gym.cli import main
from aime_gym.experiments.figures import draw_returns
from aime_gym.experiments.records import append_record
from aime_gym.experiments.report import print_tables, report_tables, run_table, write_report
from aime_gym.experiments.results import analyse, load_results, summarise
from aime_gym.experiments.statistics import (
    estimates,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)


@pytest.fixture(autouse=True)
def few_repetitions(monkeypatch):
    """Resample less than a report does: the intervals are rliable's."""
    for function in (estimates, probability_of_improvement, performance_profile):
        monkeypatch.setitem(function.__kwdefaults__, "repetitions", 100)


#: Mean returns of each seed.
SCORES = {
    ("car", "bco"): [-150.0, -140.0, -160.0, -110.0, -200.0],
    ("car", "bc"): [-100.0, -110.0, -120.0, -130.0, -140.0],
    ("pole", "bco"): [100.0, 200.0, 300.0, 400.0, 500.0],
    ("pole", "bc"): [500.0, 500.0, 500.0, 500.0, 500.0],
}
REFERENCES = {"car": (-200.0, -100.0), "pole": (20.0, 500.0)}


def line(what, key, task, returns, **more):
    return {"what": what, "key": key, "task": task, "status": "done", "returns": returns, **more}


def cell(task, agent, seed, score, **more):
    about = {"agent": agent, "demonstrations": 20, "seed": seed, "oracle": agent == "bc", "successes": None}
    about |= {"train_seconds": 1.0, "random": f"{task} random", "expert": f"{task} expert", "curve": []}
    # Two episodes around the score.
    record = line("cell", f"{task} {agent} {seed}", task, [score - 1, score + 1], **about)
    return record | more


def references(task):
    random, expert = REFERENCES[task]
    return [line("random", f"{task} random", task, [random]), line("expert", f"{task} expert", task, [expert] * 3)]


def write(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        append_record(folder / "results.jsonl", record)
    return folder


def everything(**more):
    for task in REFERENCES:
        yield from references(task)
    for (task, agent), scores in SCORES.items():
        for seed, score in enumerate(scores):
            yield cell(task, agent, seed, score, **more)


@pytest.fixture
def out(tmp_path):
    return write(tmp_path / "out", everything())


def test_a_table_by_hand(out):
    bco, bc = summarise(load_results([out]))["car"]
    assert (bco.policy, bco.runs, bco.train_seconds) == ("bco", 5, 1.0)
    assert bco.mean.value == pytest.approx(-152)
    # Normalised: 0.5, 0.6, 0.4, 0.9, 0; the middle three of them.
    assert bco.normalised.value == pytest.approx(0.48)
    assert bco.iqm.value == pytest.approx(0.5)
    assert bco.percent is None  # of a negative return
    assert bc.normalised.value == pytest.approx(0.8)
    pole, _ = summarise(load_results([out]))["pole"]
    assert pole.normalised.value == pytest.approx((300 - 20) / 480)
    assert pole.percent == pytest.approx(60)


@pytest.mark.parametrize("columns", [80, 200])
def test_tables_fit_the_terminal(columns, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    folder = write(tmp_path, everything(options={"learning_rate": 0.003}))
    print_tables(*report_tables(analyse(load_results([folder]))))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= columns
    assert "…" not in printed
    for heading in ("success", "return", "normalised", "IQM", "train s", "probability"):
        assert heading in printed


def test_videos_of_all_sources_are_shown(tmp_path):
    folders = [write(tmp_path / name, everything()) for name in ("one", "other")]
    for folder in folders:
        (folder / "bco.mp4").write_text(folder.name)
    sources = [folders[0], folders[1] / "results.jsonl"]
    (report, *_) = write_report(analyse(load_results(sources)), tmp_path / "report", html=True)
    page = report.read_text()
    assert page.count("<video") == 2
    assert all(f"<h3>bco, {folder}</h3>" in page for folder in folders)


def test_copies_of_a_file_of_results_do_not_count(out):
    before = load_results([out])
    write(out.parent / "old", everything(updates=1))
    (out.parent / "old" / "results.jsonl").rename(out / "results-old.jsonl")
    assert [run.record for run in load_results([out]).runs] == [run.record for run in before.runs]


def test_the_interquartile_mean():
    assert interquartile_mean([9.0, 1.0, 2.0, 3.0]) == 2.5
    assert interquartile_mean([9.0, 1.0, 2.0]) == 4  # a quarter of three is none
    assert interquartile_mean(np.arange(16.0).reshape(4, 4)) == np.arange(4, 12).mean()


def test_numbers_agree_with_rliable():
    from rliable import metrics

    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 4, (7, 3)).astype(float), rng.integers(0, 4, (5, 3)).astype(float)
    mean, iqm = estimates(one)
    assert mean.value == pytest.approx(one.mean())
    assert iqm.value == pytest.approx(metrics.aggregate_iqm(one))
    assert probability_of_improvement(one, other).value == pytest.approx(metrics.probability_of_improvement(one, other))


def test_intervals_are_stratified_hold_the_value_and_repeat():
    # No spread within the tasks: whoever resamples across them would find some.
    mean, _ = estimates(np.array([[0.0, 1.0]] * 4))
    assert mean.interval == (0.5, 0.5)
    scores = np.random.default_rng(1).normal(size=(10, 2))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = estimates(scores), estimates(scores)
    assert one == other
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    low, high = one[0].interval
    assert low < one[0].value < high
    standard_error = np.sqrt((scores.var(axis=0) / 10).sum()) / 2
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert estimates(scores[:1])[0].interval is None


def test_a_profile_is_the_share_of_runs_above():
    profile = performance_profile({"one": np.array([[0.2, 0.4], [0.6, 1.0]])}, repetitions=50)
    assert (profile.thresholds[0], profile.thresholds[-1]) == (0, 1)
    shares = dict(zip(profile.thresholds.round(2), profile.shares["one"], strict=True))
    assert [shares[value] for value in (0, 0.3, 0.5, 0.7, 1.0)] == [1, 0.75, 0.5, 0.25, 0]


def test_what_cannot_be_said_is_not_said(tmp_path):
    """No percent of an expert that is not positive, no scale where a reference is missing or both are equal."""
    runs = load_results([write(tmp_path / "one", [*references("car"), cell("car", "bco", 0, -150.0)])]).runs
    assert (runs[0].normalised, runs[0].percent) == (0.5, None)
    alone = load_results([write(tmp_path / "two", [references("car")[0], cell("car", "bco", 0, -150.0)])]).runs
    assert alone[0].normalised is None
    same = [line("random", "car random", "car", [5.0]), line("expert", "car expert", "car", [5.0])]
    assert load_results([write(tmp_path / "three", [*same, cell("car", "bco", 0, 5.0)])]).runs[0].normalised is None


def test_a_table_of_single_runs_names_oracles_and_leaves_blank_what_is_unknown(tmp_path):
    one = cell("pole", "bco", 0, 260.0, successes=[True, False])
    results = load_results([write(tmp_path / "out", [*references("pole"), one, cell("pole", "bc", 0, 500.0)])])
    table = run_table([*results.references["pole"], *results.runs], "task")
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["policy"] == ["random", "expert (demonstrations)", "bco", "bc (oracle: sees the actions)"]
    assert cells["success"] == ["", "", "0.50", ""]
    assert cells["return"] == ["20.0 ± 0.0", "500.0 ± 0.0", "260.0 ± 1.0", "500.0 ± 1.0"]
    assert cells["normalised"] == ["0.00", "1.00", "0.50", "1.00"]
    assert cells["% expert"] == ["4", "100", "52", "100"]


@pytest.mark.parametrize("successes", [None, [True, False]])
def test_the_figure_of_single_runs_is_drawn(tmp_path, successes):
    one = cell("pole", "bco", 0, 260.0, successes=successes)
    results = load_results([write(tmp_path / "out", [*references("pole"), one])])
    draw_returns([*results.references["pole"], *results.runs], "task", tmp_path / "returns.png")
    assert (tmp_path / "returns.png").stat().st_size > 5000


def test_over_tasks_and_improvement(out):
    report = analyse(load_results([out]), against="bco")
    assert report.common_tasks == ["car", "pole"]
    bco, _ = report.over_tasks
    assert bco.normalised.value == pytest.approx((0.48 + (300 - 20) / 480) / 2)
    # Of 25 pairs on car, 20 are better and 2 equal (-110 and -140); on pole, 20 and 5.
    assert report.improvements["bc"].value == pytest.approx((21 / 25 + 22.5 / 25) / 2)
    assert set(report.improvements) == {"bc"}
    assert analyse(load_results([out])).against == "bco"


def test_what_is_written(out, tmp_path):
    curve = [{"env_steps": 100, "returns": [1.0]}, {"env_steps": 200, "returns": [2.0]}]
    write(out, [cell("pole", "gaifo", seed, 50.0, curve=curve) for seed in range(2)])
    write(out, [cell("car", "gaifo", seed, -120.0, curve=curve) for seed in range(2)])
    files = write_report(analyse(load_results([out])), tmp_path / "report")
    assert [path.name for path in files] == [
        "report.md", "report.json", "scores.png", "profile.png", "improvement.png", "curves.png"
    ]  # fmt: skip
    assert all(path.stat().st_size > 500 for path in files)
    document = json.loads(files[1].read_text())
    assert document["tasks"]["car"][0]["iqm"]["value"] == pytest.approx(0.5)
    assert document["references"]["pole"] == {"random": 20.0, "expert": 500.0}
    text = files[0].read_text()
    assert "| bco | 5 |  | -152.0 (" in text
    assert "| bc (oracle) | 5 |" in text
    assert "## over car, pole" in text
    assert "![curves](curves.png)" in text


def test_the_page_holds_all_that_it_shows_and_escapes_texts(out, tmp_path, capsys):
    label = "<script>alert(1)</script>"
    write(out, [cell(task, label, seed, 50.0) for task in REFERENCES for seed in range(2)])
    write(out, [{**cell("pole", "bco", 9, 0.0), "status": "failed", "error": "ValueError: <b>no</b>"}])
    (out / "bco.mp4").write_bytes(b"video")
    assert main(["report", str(out), "--html", "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    links = re.findall(r"(?:src|srcset|href)=\"([^\"]{1,22})", page)
    assert {link for link in links if link[0] != "#"} == {"data:image/png;base64,", "data:video/mp4;base64,"}
    assert links.count("data:image/png;base64,") == 3
    assert f"base64,{base64.b64encode(b'video').decode()}" in page
    assert "://" not in page
    assert "<script" not in page
    assert "<b>no" not in page
    assert f"<td>{html.escape(label)}</td>" in page
    assert "<td>-152.0 (" in page
    assert "report.html" in capsys.readouterr().out


def test_half_finished_results_draw(tmp_path, capsys):
    """One cell of one task and some of another, no expert yet, a failure, a torn line."""
    out = write(
        tmp_path / "out",
        [
            *references("car"),
            *(cell("car", "bco", seed, score) for seed, score in enumerate(SCORES["car", "bco"])),
            cell("car", "bc", 0, -100.0),
            cell("pole", "bc", 0, 500.0),
            {**cell("pole", "bco", 0, 0.0), "status": "failed", "error": "RuntimeError: no"},
        ],
    )
    with (out / "results.jsonl").open("ab") as file:
        file.write(b'{"format": 1, "wh')
    plan = [{"key": f"pole bco {seed}", "title": f"pole, bco, 20 demonstrations, seed {seed}"} for seed in range(3)]
    kept = [{"key": key, "title": key} for key in ("car bc 0", "pole bc 0", *(f"car bco {seed}" for seed in range(4)))]
    (out / "plan.json").write_text(json.dumps({"suite": "x", "agents": ["bc", "bco"], "cells": plan + kept}))
    assert main(["report", str(out)]) == 0
    text = (out / "report.md").read_text()
    assert "6 runs, 2 to come, 1 failed" in text
    assert "pole, bco, 20 demonstrations, seed 0: RuntimeError: no" in text
    assert "| bc (oracle) | 1 |  | -100.0 | 1.00 | 1.00 |" in text  # no interval from one run
    assert "| bc (oracle) | 1 |  | 500.0 |  |  |" in text  # nothing to normalise by
    assert "Left out where tasks are taken together, for want of runs or references: pole." in text
    assert {"scores.png", "profile.png", "improvement.png"} <= {path.name for path in out.iterdir()}
    assert "6 runs, 2 to come, 1 failed" in capsys.readouterr().out


def test_no_reference_at_all_draws_returns(tmp_path):
    out = write(tmp_path / "out", [cell("car", "bco", seed, float(seed)) for seed in range(3)])
    report = analyse(load_results([out]))
    assert report.profile is None
    assert [path.name for path in write_report(report, out)] == ["report.md", "report.json", "scores.png"]


def test_several_files_and_what_was_done_again(tmp_path):
    one = write(tmp_path / "one", everything())
    again = {**cell("car", "bco", 0, -100.0), "key": "with other options"}
    other = write(tmp_path / "other", [*references("car"), again, cell("car", "bco", 9, -100.0)])
    results = load_results([one, other / "results.jsonl"])
    assert [run.seed for run in results.of("car", "bco")] == [0, 1, 2, 3, 4, 9]
    assert results.of("car", "bco")[0].normalised == 1  # the later one


def test_numbers_of_demonstrations_stand_side_by_side(tmp_path):
    few = [cell("car", "bco", seed, -180.0, demonstrations=5, key=f"few {seed}") for seed in range(2)]
    out = write(tmp_path / "out", [*everything(), *few])
    lines = summarise(load_results([out]))["car"]
    assert [(line.policy, line.runs) for line in lines] == [("bco, 5 demos", 2), ("bco, 20 demos", 5), ("bc", 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("report nowhere", "RESULTS: expected a folder of `aime-gym benchmark` or its results.jsonl, got nowhere"),
        ("report empty", "RESULTS: expected at least one finished cell, found none in empty"),
        ("report out --against ppo", "--against: unknown policy 'ppo'; expected one of bco, bc"),
        ("benchmark nowhere.toml", "SUITE: expected a TOML file, found none at nowhere.toml"),
        ("benchmark nowhere.toml --workers 0", "--workers: expected at least 1, got 0"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, message, out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "empty", references("car"))
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_without_rliable_the_command_is_named(out, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rliable.library", None)
    with pytest.raises(SystemExit) as end:
        main(["report", str(out)])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert "a report needs rliable (" in printed
    assert "): pip install 'aime-gym[report]'" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("writes", range(4))
def test_no_file_of_a_report_is_ever_half_written(writes, out, tmp_path, monkeypatch):
    """Writing ends after some files; what is there is whole."""
    report = analyse(load_results([out]))
    whole = {path.name: path.read_bytes() for path in write_report(report, tmp_path / "whole")}
    synced = iter(range(9))

    def end(descriptor):
        if next(synced) == writes:
            raise KeyboardInterrupt

    monkeypatch.setattr("aime_gym.serialization.os.fsync", end)
    with pytest.raises(KeyboardInterrupt):
        write_report(report, tmp_path / "cut")
    for path in (tmp_path / "cut").iterdir():
        assert path.read_bytes() == whole[path.name]
