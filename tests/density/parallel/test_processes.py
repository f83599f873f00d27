"""One process and several, started by torchrun, give the same fit; one that dies ends the others with one error."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from density.parallel import processes
from density.parallel.processes import ProcessLost, collected, from_main, gathered, joined, share, total
from tests.density.parallel import sharded_runs
from tests.places import ROOT

SCRIPT = Path(sharded_runs.__file__)
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))


def torchrun(count: int, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    run = subprocess.run(
        [*command, str(SCRIPT), str(folder), str(count)], env=ENVIRONMENT, text=True, capture_output=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-6000:]
    assert run.stdout == ""
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def assert_one_process_equals(count: int, folder: Path, tolerance: float) -> None:
    results = torchrun(count, folder)
    expected = sharded_runs.found(count)
    # Without draws the parts make no difference but to the order of summation: an ulp, 2e-16 relative, in a gradient,
    # which some ten steps of Adam, whose first ones divide by the gradient itself, let grow by orders of magnitude.
    whole = sharded_runs.found(1)
    torch.testing.assert_close(expected["flow"], whole["flow"], rtol=1e-10, atol=1e-10)
    for rank, result in enumerate(results):
        # Every process ends with the same bits, since it saw the same sums.
        torch.testing.assert_close(result["found"], results[0]["found"], rtol=0, atol=0)
        for name, values in expected.items():
            loose = 1e-4 if name == "float32" else tolerance
            torch.testing.assert_close(
                result["found"][name],
                values,
                rtol=loose,
                atol=loose,
                msg=lambda message, name=name, rank=rank: f"{name}, process {rank}: {message}",
            )
        refused = result["refused"]
        assert "process 1" in refused["data"]
        assert "data is" in refused["data"]
        assert "epochs is 1 in process 0 and 2 in process 1" in refused["settings"]
        assert f"{count} processes need a part of each batch; got parts=1" in refused["parts"]
        assert f"{count} processes need a part of the rows each; got parts=1" in refused["parts of a claim"]
        assert "is nan" in refused["a claim"]
        assert "objective became nan in epoch 1" in refused["non-finite"]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Two summands have one sum, in either order: nothing is left for the tolerance to excuse."""
    assert_one_process_equals(2, tmp_path, tolerance=0.0)


@pytest.mark.slow
def test_four_processes_equal_one(tmp_path: Path) -> None:
    """Sums of four gradients depend on their order."""
    assert_one_process_equals(4, tmp_path, tolerance=1e-10)


def test_a_process_that_dies_ends_the_others_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    """Started by hand, since torchrun ends the others before they can say why. One process then finishes for two."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "hand"}
    runs = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path), "2", "lost"],
            env={**ENVIRONMENT, **address, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        errors = [run.communicate(timeout=300)[1].decode()[-3000:] for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert runs[0].returncode == 0, errors[0]
    assert runs[1].returncode == -9, errors[1]
    assert "process 0 of 2 lost another one" in torch.load(tmp_path / "0.pt")
    vae, history = sharded_runs.losing(tmp_path, 2, dies=False)
    uncut, whole = sharded_runs.losing(None, 2, dies=False)
    assert 0 < torch.load(tmp_path / "fit.ckpt", weights_only=True)["content"]["finished"]
    assert history.objective == whole.objective
    assert all(vae.state_dict()[name].equal(tensor) for name, tensor in uncut.state_dict().items())


def test_one_process_shares_with_nobody() -> None:
    x = torch.arange(5.0)
    assert processes.world() == 1
    assert processes.is_main()
    assert share(5) == slice(0, 5)
    assert total(x) is x
    assert gathered(x) is x
    assert collected("a") == ["a"]
    assert from_main(lambda: 3) == 3
    with joined("cpu") as device:
        assert device == torch.device("cpu")


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_cover_the_rows_once(n: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "world", lambda: size)
    shares = []
    for own in range(size):
        monkeypatch.setattr(processes, "rank", lambda own=own: own)
        shares.append(range(n)[share(n)])
    assert [row for rows in shares for row in rows] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_an_error_of_a_collective_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(processes, "world", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: 0)
    monkeypatch.setattr(processes.dist, "all_reduce", broken)
    with pytest.raises(ProcessLost, match=r"process 0 of 2 lost another one .*closed by peer.*resumes"):
        total(torch.ones(2))
