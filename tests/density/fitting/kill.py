"""Kill a script with SIGKILL again and again, and let it run to its end at last.

``killed_until_done`` is for tests. Run as a program, this file imports the libraries once and forks one life of the
script for every moment: a life costs what its fit costs, and nothing of one life is in the memory of the next.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]


def killed_until_done(
    script: Path, moments: Sequence[float], *arguments: str | Path, timeout: float = 600.0
) -> list[float]:
    """Run a Python script as often as there are moments, killing it so many seconds into each run; then to its end.

    Args:
        script: a file that takes up its own work where the files that it wrote say it was.
        moments: seconds of wall clock from the start of a life (its imports are already done) to SIGKILL.
        arguments: of the script, ``sys.argv[1:]``.
        timeout: seconds for everything.

    Returns:
        Seconds that each life lasted; as many as there are moments that hit a running script, and the last life, which
        ended by itself.

    Raises:
        AssertionError: a life ended with an error; its traceback is the message.
    """
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    command = [sys.executable, __file__, json.dumps(list(moments)), str(script), *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-6000:]
    lives: list[float] = json.loads(out.splitlines()[-1])
    return lives


def _lives(moments: list[float], script: str, arguments: list[str]) -> list[float]:
    lives: list[float] = []
    for moment in [*moments, None]:
        started = time.perf_counter()
        life = os.fork()
        if life == 0:
            _live(script, arguments)
        if moment is not None:
            while time.perf_counter() - started < moment and _running(life):
                time.sleep(min(2e-3, moment))
            if _running(life):
                os.kill(life, signal.SIGKILL)
        _, status = os.waitpid(life, 0)
        lives.append(time.perf_counter() - started)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit(f"life {len(lives)} ended with an error")
            break
    return lives


def _running(life: int) -> bool:
    return os.waitid(os.P_PID, life, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _live(script: str, arguments: list[str]) -> None:
    status = 1
    try:
        os.dup2(2, 1)  # what the script prints is no part of the report
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    for library in ("density", "flows", "lvm", "bridge", "torch._dynamo"):  # optimisers import the last
        __import__(library)
    print(json.dumps(_lives(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:])))
