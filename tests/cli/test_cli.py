from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.cli import options
from sam2_blocks.files.claims import LOCK_FILE
from tests.cli.conftest import COFFEE, QUICKSTART


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_what_is_finished(tmp_path, how):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for number in range(200):
        Pil.fromarray(np.roll(noise, number, 0)).save(pictures / f"{number:03}.png")
        (pictures / f"{number:03}.json").write_text('{"detections": [[10, 10, 200, 200]]}')
    target = tmp_path / "out"
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-m", "sam2_blocks"),
            *("run", QUICKSTART, "-i", str(pictures), "-o", str(target), "--batch-size", "1"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # Whoever runs these tests in the background has Ctrl-C ignored, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 600
    while not list(target.glob("*/overlay.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    try:
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == options.INTERRUPTED, err
    assert "interrupted after" in err
    assert "--resume goes on from there" in err
    written = list(target.rglob("*.*"))
    assert not [path for path in written if path.name.endswith(".part")]
    for path in target.glob("*/predictions.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize("begun", ["sys", "typer", "torch", "sam2_blocks.executor.sam2.executor"])
def test_an_interruption_at_any_time_ends_with_130_and_no_traceback(tmp_path, begun):
    """As soon as the import of a module has begun, from the first to the model's."""
    code = (
        "import os, signal, sys, threading, time\n"
        "def unset(*_): raise SystemExit('too early')\n"
        "signal.signal(signal.SIGINT, unset)\n"
        "def interrupt():\n"
        "    while signal.getsignal(signal.SIGINT) is unset: time.sleep(0.001)\n"
        f"    while {begun!r} not in sys.modules: time.sleep(0.001)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "from sam2_blocks.cli import main\n"
        "sys.argv = ['sam2-blocks', *sys.argv[1:]]\n"
        "main()\n"
        "time.sleep(30)"
    )
    command = ("run", QUICKSTART, "-i", COFFEE, "-o", str(tmp_path / "out"))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *command],
        capture_output=True,
        check=False,
        text=True,
    )
    assert "Traceback" not in result.stderr
    assert result.returncode == options.INTERRUPTED, result.stderr


def test_a_closed_stdout_does_not_stop_the_work(folder, tmp_path):
    (folder / "broken.jpg").unlink()
    command = f"{sys.executable} -W ignore -m sam2_blocks run {QUICKSTART} -i {folder}"
    shell = f"{command} -o {tmp_path / 'out'} --batch-size 1 | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "out").rglob("overlay.png"))) == 2


RUNNING = """\
import os, signal, sys, threading, time
from pathlib import Path
import sam2_blocks.engine.builtin
from sam2_blocks import cli
from sam2_blocks.testing import FakeExecutor

class Embeds(FakeExecutor):
    embedded_once = False
    def embed(self, images):
        if Embeds.embedded_once:
            second_batch()
        Embeds.embedded_once = True
        return super().embed(images)

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

sam2_blocks.engine.builtin.load_sam2 = Embeds
"""


@pytest.fixture
def running(tmp_path):
    """Run a program on four pictures: ``running(code)``; it may define ``second_batch``.

    Returns:
        What it said to stderr, and the folder of its results.
    """
    for number in range(4):
        Pil.new("RGB", (60, 40), (number, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.json").write_text('{"detections": [[10, 10, 50, 30]]}')
    out = tmp_path / "out"
    command = ("run", QUICKSTART, "-i", str(tmp_path), "-o", str(out), "--batch-size", "2")

    def run(code, ends_with=options.INTERRUPTED):
        program = f"{RUNNING}{code}\nsys.argv = ['sam2-blocks', *sys.argv[1:]]\ncli.main()"
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, *command],
            capture_output=True,
            check=False,
            text=True,
            timeout=300,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert result.returncode == ends_with, result.stderr
        assert "Traceback" not in result.stderr
        assert not list(out.rglob("*.part"))
        return result.stderr, out

    return run


def test_a_second_interruption_on_the_heels_of_the_first_breaks_nothing(running):
    code = (
        "second_batch = interrupt\n"
        "from sam2_blocks.runs.sinks.folder import FolderSink\n"
        "end = FolderSink.end\n"
        "def end_interrupted(self, **options):\n"
        "    interrupt()\n"
        "    end(self, **options)\n"
        "FolderSink.end = end_interrupted\n"
    )
    said, out = running(code)
    assert "interrupted after 2 of 4" in said
    assert not (out / LOCK_FILE).exists()
    assert len(list(out.glob("*/overlay.png"))) == 2


def test_a_second_interruption_that_comes_later_ends_at_once(running):
    code = (
        "cli.SAME_S = 0.0\n"
        "writing = threading.Event()\n"
        "def second_batch():\n"
        "    writing.wait()\n"
        "    interrupt()\n"
        "from sam2_blocks.runs.sinks import folder\n"
        "write = folder.write_atomically\n"
        "def slow(file):\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    writing.set()\n"
        "    time.sleep(0.2)\n"
        "    interrupt()  # meanwhile the first one waits for this\n"
        "    time.sleep(60)\n"
        "folder.write_atomically = lambda path, _: write(path, slow)\n"
    )
    said, out = running(code)
    assert "interrupted again: left at once; what is complete is kept" in said
    assert out.is_dir()


def test_an_interruption_that_other_code_made_an_error_of_is_one(running):
    code = (
        "from sam2_blocks.cli import run\n"
        "def load(**options):\n"
        "    try:\n"
        "        interrupt()\n"
        "        time.sleep(600)\n"
        "    except BaseException as error:\n"
        "        raise RuntimeError('it cannot be built') from error\n"
        "run.load_plugins = load\n"
    )
    said, _ = running(code)
    assert said.strip() == "interrupted"


def test_an_interruption_while_python_ends_does_not_change_the_exit_code(running):
    code = (
        "import builtins\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid(), how=signal.SIGINT):\n"
        "        kill(me, how)\n"
        "builtins.last = Last()\n"
        "second_batch = lambda: None\n"
    )
    running(code, ends_with=0)
