"""Progress where no bar is shown: how long it will take."""

import pytest

from aime_gym import progress


@pytest.fixture
def seconds(monkeypatch):
    """Seconds on a clock that a test sets."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    return clock


def run(seconds, total, each, *, start=0, enabled=True):
    with progress.progress_bar("policy", total, enabled=enabled) as advance:
        advance(start, "")
        for step in range(20):
            seconds[0] += each if step else 100 * each  # the first one is slow
            advance(1, "")


def test_a_long_run_says_how_long_it_takes_once(seconds, capsys):
    run(seconds, total=600, each=0.6)
    assert capsys.readouterr().err.count("policy: about 6 minutes here, 10 of 600 are done\n") == 1


def test_what_a_checkpoint_has_done_takes_no_time(seconds, capsys):
    run(seconds, total=600, each=1.0, start=500)
    assert "policy: about 2 minutes here, 506 of 600 are done" in capsys.readouterr().err


@pytest.mark.parametrize(("total", "enabled"), [(20, True), (600, False)])
def test_a_short_run_and_a_silent_one_say_nothing(total, enabled, seconds, capsys):
    run(seconds, total=total, each=0.6, enabled=enabled)
    assert "about" not in capsys.readouterr().err


@pytest.mark.parametrize(("given", "text"), [(59, "59 seconds"), (61, "1 minute"), (9000, "2 hours")])
def test_durations_in_words(given, text):
    assert progress._duration(given) == f"about {text}"
