"""Training with several processes: runs torchrun, once on each node.

torchrun is called within this process: as a separate program it exits with status 1 and a traceback, whatever the
status of its workers. The nodes use static rendezvous; that of `torchrun --standalone` (c10d) unpickles anything sent
to its port.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from pathlib import Path

from torch.distributed import DistError
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from speechlvm.training.distributed import PeerLost
from speechlvm.utils.errors import ConfigError, Interrupted, UserError
from speechlvm.utils.processes import STOP_SIGNALS

RENDEZVOUS_SECONDS = 60


def launch(arguments: list[str], processes: int, nodes: int) -> int:
    """Train with several processes and return their exit status; stop signals are forwarded to them.

    Args:
        arguments: arguments of the training program.
        processes: number of processes per node.
        nodes: number of nodes; each runs this function.

    Raises:
        ConfigError: the environment does not say where the nodes meet.
        UserError: the nodes do not find each other, or a process died without a message.
        Interrupted: processes were stopped before they could save.
        KeyboardInterrupt: a signal came before any process was started.
    """
    node, address, port = _rendezvous(nodes)
    words = [
        f"--nnodes={nodes}", f"--node-rank={node}", f"--master-addr={address}", f"--master-port={port}",
        f"--nproc-per-node={processes}", f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}", f"--log-dir={os.devnull}",
        "--signals-to-handle=SIGQUIT",  # not the usual ones: torchrun would kill processes that take 30 s to save
        "-m", "speechlvm.bin.train", *(argument.replace("$", "$$") for argument in arguments),  # it expands templates
    ]  # fmt: skip
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        workers = _children()
        if not workers:
            raise KeyboardInterrupt
        for worker in workers:
            os.kill(worker, number)

    for number in STOP_SIGNALS:
        signal.signal(number, forward)
    logging.disable(logging.CRITICAL)  # the processes report what matters
    try:
        torchrun.main(words)
    except ChildFailedError as error:
        return _exit_status(error, received)
    except DistError as error:
        raise UserError(
            f"{nodes} nodes did not meet at {address}:{port} within {RENDEZVOUS_SECONDS} s; check that the command "
            f"runs on each of them with --num_nodes {nodes}, and that they reach this address and port"
        ) from error
    return 0


def _children() -> list[int]:
    """Child processes of the main thread."""
    return [int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _rendezvous(nodes: int) -> tuple[str, str, str]:
    """Rank of this node, and address and port of the rendezvous."""
    if nodes == 1:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return "0", "127.0.0.1", str(listener.getsockname()[1])
    node, address, port = (os.environ.get(name, "") for name in ("SLURM_NODEID", "MASTER_ADDR", "MASTER_PORT"))
    if not (node.isdecimal() and address and port.isdecimal()):
        raise ConfigError(
            f"--num_nodes {nodes}: SLURM_NODEID is '{node}', MASTER_ADDR '{address}' and MASTER_PORT '{port}'; "
            "expected this node's rank, the first node's address and a free port on it; use cmd_backend=slurm"
        )
    return node, address, port


def _exit_status(error: ChildFailedError, received: list[int]) -> int:
    """The exit status of processes that have reported why they failed; raises if none has."""
    ends = {rank: failure.exitcode for rank, failure in sorted(error.failures.items())}
    explained = [code for code in ends.values() if code > 0 and code != PeerLost.exit_status]
    if explained:
        return min(explained)
    if received:
        raise Interrupted(f"stopped by {signal.Signals(received[0]).name}; run the same command again to resume")
    named = [
        f"process {rank} {'lost contact' if code > 0 else f'was killed by {signal.Signals(-code).name}'}"
        for rank, code in ends.items()
    ]
    raise UserError(
        f"training failed on {socket.gethostname()}: {', '.join(named)}; run the same command again to resume"
    )
