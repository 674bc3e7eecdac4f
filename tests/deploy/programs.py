"""Starts programs for the tests of what is deployed, and leaves none running."""

import contextlib
import os
import pathlib
import socket
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).parents[2]
BRIDGE = os.environ.get("BRIDGE", ROOT / "target/debug/gsdk2mqtt")
PATIENCE_S = 90  # generous: the machine may be busy


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def running(*command, log, **options):
    """A program while the block runs; what it says goes into `log`."""
    with open(log, "wb") as out:
        program = subprocess.Popen(
            [str(word) for word in command], stdout=out, stderr=out, **options)
    try:
        yield program
    except BaseException:
        print(f"--- {command[0]}\n{pathlib.Path(log).read_text()[-3000:]}")
        raise
    finally:
        program.terminate()
        try:
            program.wait(15)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def until(what, condition, patience_s=PATIENCE_S):
    """Waits for a condition that is true; an exception counts as not yet."""
    deadline = time.monotonic() + patience_s
    last = None
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except (OSError, ValueError, KeyError, IndexError) as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"not within {patience_s} s: {what} ({last})")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()
