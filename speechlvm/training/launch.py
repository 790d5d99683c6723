"""Starts the processes of a distributed training on this node, and stays with them: torch's elastic agent.

Every node runs one agent. The agents meet at MASTER_ADDR:MASTER_PORT, give their processes ranks, and start them: the
same command again, which finds in its environment that it is one of several. A process that dies (killed by the kernel
for its memory, say) takes the others with it, and all start again from the last checkpoint. What is no accident (an
error that has been said, an interruption) ends the training with the status that the processes end with.

Whoever reaches that port can take part, and make agents run code: several nodes need a network whose hosts and users
are trusted. The agent of a single node uses a file that only its owner can read.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import uuid

from torch.distributed.elastic.agent.server import WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.api import RunResult
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError, RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from speechlvm.training.distributed import PeerLost
from speechlvm.utils.errors import ConfigError, Interrupted, UserError
from speechlvm.utils.processes import LAUNCHER, STOP_SIGNALS

MEETING_SECONDS = 60
MAX_RESTARTS = 3
DECIDED = (ConfigError.exit_status, UserError.exit_status, Interrupted.exit_status)


class _Agent(LocalElasticAgent):
    """Hands signals on to the processes of this node, and starts them again only after an accident."""

    _meeting = True
    _request = 0

    def request(self, number: int, _: object) -> None:
        """Handler of the signals that ask to stop."""
        self._request = number
        if self._meeting:
            raise KeyboardInterrupt

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        if self._request:
            raise KeyboardInterrupt
        self._meeting = True
        super()._rendezvous(worker_group)
        self._meeting = False

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self._request:
            for worker in self._pcontext.subprocess_handlers.values():
                if worker.proc.poll() is None:  # the number of one that has been waited for may be another's by now
                    worker.proc.send_signal(self._request)
        result = super()._monitor_workers(worker_group)
        if result.is_failed():
            if self._request or any(failure.exitcode in DECIDED for failure in result.failures.values()):
                self._remaining_restarts = 0
            elif self._remaining_restarts:
                print(f"{_accident(result)}; all start again from the last checkpoint", file=sys.stderr, flush=True)
        return result

    def status(self, result: RunResult) -> int:
        """Exit status of the processes that `run` has ended with.

        Raises:
            Interrupted, UserError: they had no time to say anything themselves.
        """
        decided = [failure.exitcode for failure in result.failures.values() if failure.exitcode in DECIDED]
        if decided or not result.is_failed():
            return min(decided, default=0)
        if self._request:
            raise Interrupted(f"stopped by {signal.Signals(self._request).name}; run the same command again to resume")
        raise UserError(f"{_accident(result)}, after {MAX_RESTARTS} restarts; run the same command again to resume")


def launch(arguments: list[str], processes: int, nodes: int) -> int:
    """Train with several processes, and return their exit status.

    Args:
        arguments: of the training program.
        processes: on this node, as on every other one.
        nodes: number of nodes; each runs this.

    Raises:
        ConfigError: it is not said where the nodes meet.
        UserError: the nodes do not find each other, or processes died again and again.
        KeyboardInterrupt: a signal asked to stop before they had met.
    """
    place, run = _meeting_place(nodes)
    os.environ.update(
        {
            "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",  # the others are handled here
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # processes that start again find nothing of those before
            LAUNCHER: str(os.getpid()),
        }
    )
    logging.disable(logging.CRITICAL)  # the agent's own log is long, and what matters is said here
    try:
        # the store of several nodes listens on every address, and agents unpickle what is in it
        store = {} if nodes > 1 else {"store_type": "file"}
        meeting = RendezvousParameters(
            "c10d", place, run, nodes, nodes,
            local_addr=None if nodes > 1 else "127.0.0.1",
            join_timeout=MEETING_SECONDS, read_timeout=MEETING_SECONDS, **store,
        )  # fmt: skip
        # "$": the agent fills in templates
        command = ("-m", "speechlvm.bin.train", *(argument.replace("$", "$$") for argument in arguments))
        handler = get_rendezvous_handler(meeting)
        spec = WorkerSpec(
            role="train",
            local_world_size=processes,
            entrypoint=sys.executable,
            args=command,
            rdzv_handler=handler,
            max_restarts=MAX_RESTARTS,
            local_addr=meeting.local_addr,
        )
        agent = _Agent(spec, logs_specs=DefaultLogsSpecs(log_dir=os.devnull))
        for number in STOP_SIGNALS:
            signal.signal(number, agent.request)
        try:
            return agent.status(agent.run())
        finally:
            handler.shutdown()
    except RendezvousClosedError as error:
        raise UserError("the training has ended on another node, whose last lines say why") from error
    except RendezvousError as error:
        raise UserError(
            f"{nodes} nodes did not meet at {place} within {MEETING_SECONDS} s; check that the command runs on each of "
            f"them with --num_nodes {nodes}, and that they reach this address and port"
        ) from error
    finally:
        if nodes == 1:
            shutil.rmtree(os.path.dirname(place), ignore_errors=True)


def _meeting_place(nodes: int) -> tuple[str, str]:
    """Where the agents' store is (a file, or address and port), and the name of their meeting."""
    if nodes == 1:
        return os.path.join(tempfile.mkdtemp(prefix="speechlvm-"), "store"), str(uuid.uuid4())
    address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if not address or not port.isdecimal():
        raise ConfigError(
            f"--num_nodes {nodes}: MASTER_ADDR is '{address}' and MASTER_PORT '{port}'; give the first node's address "
            "and a free port, the same on every node (the runner of a cluster does)"
        )
    return f"{address}:{port}", "speechlvm"


def _accident(result: RunResult) -> str:
    """What became of the processes of this node, in words."""
    ends = {}
    for rank, failure in sorted(result.failures.items()):
        if failure.exitcode == PeerLost.exit_status:
            ends[rank] = "having lost contact"
        else:
            ends[rank] = f"with {failure.signal_name() if failure.exitcode < 0 else f'status {failure.exitcode}'}"
    named = ", ".join(f"process {rank} {end}" for rank, end in ends.items())
    return f"training processes ended on {socket.gethostname()}: {named}"
