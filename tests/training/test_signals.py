import os
import signal
import subprocess
import sys
import textwrap

import pytest

from aime_gym.training.signals import DeferredSignals


def send(number):
    os.kill(os.getpid(), number)


def test_ctrl_c_waits_until_it_is_obeyed():
    with DeferredSignals(terminations=False) as interruption:
        send(signal.SIGINT)
        assert interruption.pending
        with pytest.raises(KeyboardInterrupt):
            interruption.raise_pending()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nobody_forgets_a_signal():
    with pytest.raises(KeyboardInterrupt), DeferredSignals(terminations=False):
        send(signal.SIGINT)


def test_a_second_one_does_not_wait():
    with DeferredSignals(terminations=False):
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_an_error_goes_first():
    def fail():
        with DeferredSignals(terminations=False):
            send(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_user_s_handler_of_sigterm_is_called_and_put_back():
    calls = []

    def handler(number, frame):
        calls.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with DeferredSignals(terminations=True) as interruption:
            send(signal.SIGTERM)
            assert calls == []
            interruption.raise_pending()
            assert not interruption.pending
        assert calls == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_the_process_when_it_is_obeyed():
    code = """
        import os, signal
        from aime_gym.training.signals import DeferredSignals
        with DeferredSignals(terminations=True) as interruption:
            os.kill(os.getpid(), signal.SIGTERM)
            print("complete", flush=True)
            interruption.raise_pending()
            print("never", flush=True)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "complete\n")
