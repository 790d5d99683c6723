"""Several training processes at once, forked from a server that has torch loaded."""

import multiprocessing
import runpy
import socket
import time
from pathlib import Path

import pytest

PEER = Path(__file__).with_name("peer.py")
TIMEOUT_SECONDS = 1200
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["speechlvm.training.trainer", "torch._dynamo", "torch.distributed", "torch.utils.tensorboard"]
)


@pytest.fixture
def train_together(tmp_path):
    """train_together(arguments, size=2, wrong=None) -> exit statuses, and the lines that each process wrote.

    What goes `wrong` is a function of peer.py.
    """
    return lambda arguments, size=2, wrong=None: _train(arguments, size, wrong, tmp_path / "logs")


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _train(arguments, size, wrong, logs):
    logs.mkdir(exist_ok=True)
    port = _free_port()
    paths = [logs / f"{wrong}_{rank}.log" for rank in range(size)]
    processes = []
    for rank, path in enumerate(paths):
        given = {
            "rank": rank, "size": size, "port": port, "log": str(path), "arguments": arguments, "wrong": wrong,
        }  # fmt: skip
        processes.append(SERVER.Process(target=runpy.run_path, args=(str(PEER), {"given": given})))
        processes[-1].start()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes], [path.read_text().splitlines() for path in paths]
