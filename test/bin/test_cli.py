import signal
import subprocess
import sys

SLOW = """
import sys, time, pathlib
from bilevel.bin._cli import run
from bilevel.data.files import atomic_path

def main(argv):
    with atomic_path(pathlib.Path(sys.argv[1])) as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(60)

run(main)
"""


def test_a_terminated_command_leaves_no_half_written_file(root, tmp_path):
    (tmp_path / "out").write_text("old")
    command = [sys.executable, "-c", SLOW, tmp_path / "out"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "old")]
