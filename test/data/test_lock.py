import os
import signal
import socket
import subprocess
import sys

import pytest

from bilevel.data.lock import lock

HOLD = """
import sys, pathlib
from bilevel.data.lock import lock
with lock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path, root):
    command = [sys.executable, "-c", HOLD, tmp_path / "exp"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=root, **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_live_run_is_refused_and_the_first_goes_on(holder, tmp_path):
    owner = f"process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(ValueError, match=f"exp is in use by {owner}: wait for it"), lock(tmp_path / "exp"):
        pytest.fail("two runs at once")
    assert (tmp_path / "exp/.lock").read_text() == f"{owner}\n"
    holder.communicate()
    with lock(tmp_path / "exp"):
        assert (tmp_path / "exp/.lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_the_lock_of_a_killed_run_is_explained_and_taken_over(holder, tmp_path, capsys):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock(tmp_path / "exp"):
        assert (
            f"was left by process {holder.pid} on {socket.gethostname()}, which was killed" in capsys.readouterr().out
        )


def test_a_run_of_another_host_may_be_alive(tmp_path):
    (tmp_path / ".lock").write_text("process 12 on elsewhere\n")
    with pytest.raises(ValueError, match=r"left by process 12 on elsewhere: .* delete .*\.lock"), lock(tmp_path):
        pytest.fail("it might be alive")
    assert (tmp_path / ".lock").read_text() == "process 12 on elsewhere\n"


def test_a_failing_run_leaves_a_free_folder(tmp_path, capsys):
    with pytest.raises(RuntimeError), lock(tmp_path):
        raise RuntimeError
    with lock(tmp_path):
        pass
    assert capsys.readouterr().out == ""
    assert (tmp_path / ".lock").read_text() == ""
