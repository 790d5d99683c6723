"""Slurm: sbatch, squeue, scancel, and on the node scontrol and srun. Accounting (sacct) is not needed."""

import os
import re
import signal
from collections.abc import Collection

from jobrunner.backend import Backend, Phase, SchedulerError, State, Submission, call_scheduler, submit

# States in which a job was stopped, with what it counts as (squeue(1), "JOB STATE CODES").
STOPPED = {
    "BOOT_FAIL": ("its node did not start", 75),
    "CANCELLED": ("cancelled", 75),
    "DEADLINE": ("past its deadline", 1),
    "NODE_FAIL": ("its node failed", 75),
    "OUT_OF_MEMORY": ("out of memory; request more with --mem", 1),
    "PREEMPTED": ("preempted", 75),
    "REVOKED": ("moved to another cluster", 1),
    "TIMEOUT": ("out of time; request more with --time", 1),
}
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
ALL_STATES = ("--all", "--states=all")
SECONDS_BETWEEN_NODES = 150  # from the end of the command on one node to the end of all: a checkpoint may be written


class Slurm(Backend):
    """Slurm from 20.11 on.

    An id is what `sbatch --parsable` answers: the array's number and, if it was given clusters to choose from, its
    choice, as in `77;gpu`. Numbers are a cluster's own, so that every question names the cluster.
    """

    name = "slurm"
    task_variable = "SLURM_ARRAY_TASK_ID"
    id_variable = "SLURM_ARRAY_JOB_ID"
    restart_variable = "SLURM_RESTART_COUNT"
    variables = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_")
    busy = "timed out|temporarily unable|unable to contact slurm controller|resource temporarily unavailable"
    to_all = (signal.SIGTERM,)
    requeues = True
    many_nodes = True

    def submit(self, submission: Submission) -> str:
        """See `Backend`."""
        program, *options = submission.command
        at_once = f"%{submission.max_jobs_run}" if submission.max_jobs_run else ""
        directory = str(submission.directory)
        pattern = directory.replace("\\", "\\\\").replace("%", "%%") + "/output.%a"
        options += [f"--array={submission.jobs[0]}-{submission.jobs[-1]}{at_once}", f"--job-name={submission.name}"]
        options += [f"--chdir={directory}", f"--output={pattern}", "--open-mode=append", "--export=NONE"]
        # nothing of a job that the runner itself may be part of
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment |= {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CLUSTERS") if name in os.environ}
        return submit([program, "--parsable", *options, str(submission.script)], r"^[0-9]+(;\S+)?$", environment)

    def find(self, submission: Submission) -> str | None:
        """See `Backend`."""
        cluster, asked = "", clusters(submission.command)
        answer = _call("squeue", asked, *ALL_STATES, f"--name={submission.name}", "--format=%F")
        for line in answer.splitlines():
            if line.startswith("CLUSTER: "):  # heads the jobs of each
                cluster = f";{line.split()[1]}"
            elif line.strip().isdecimal():
                return line.strip() + cluster
        return None

    def states(self, submitted: str, jobs: Collection[int]) -> dict[int, State]:
        """See `Backend`."""
        number, _, cluster = submitted.partition(";")
        try:
            said = _call("squeue", cluster, *ALL_STATES, f"--jobs={number}", "--array", "--format=%K|%T|%N|%r")
        except SchedulerError as error:
            if "invalid job id" in str(error).lower():
                return {}
            raise
        states = {}
        for task, *rest in (line.strip().split("|", 3) for line in said.splitlines()):
            if task.isdecimal():  # no heading, and not of the array as such, once all its jobs are gone
                states[int(task)] = _state(*rest)
        return states

    def cancel(self, submitted: str) -> None:
        """See `Backend`."""
        number, _, cluster = submitted.partition(";")
        _call("scancel", cluster, "--quiet", number)

    def requeue(self) -> None:
        """See `Backend`."""
        _call("scontrol", "", "requeue", os.environ["SLURM_JOB_ID"])  # a node's own cluster is the job's

    def launcher(self, nodes: int) -> list[str]:
        """See `Backend`."""
        return [
            "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--export=ALL",
            "--kill-on-bad-exit=0", f"--wait={SECONDS_BETWEEN_NODES}",
        ]  # fmt: skip


def clusters(command: list[str]) -> str:
    """Those that `sbatch` may choose from, as given to it; nothing if none were."""
    named = re.findall(r"\0(?:-M\0?|--clusters?[\0=])([^\0]+)", "\0" + "\0".join(command))
    return named[-1] if named else os.environ.get("SLURM_CLUSTERS") or os.environ.get("SBATCH_CLUSTERS", "")


def _call(program: str, cluster: str, *words: str) -> str:
    """What one of Slurm's programs says about jobs of a cluster; without a name, of this machine's own."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SQUEUE_", "SCANCEL_")) and name != "SLURM_CLUSTERS"  # filters, other clusters
    }
    return call_scheduler([program, *([f"--clusters={cluster}"] if cluster else []), *words], environment)


def _state(name: str, node: str, reason: str) -> State:
    if name in STOPPED:
        return State(Phase.STOPPED, STOPPED[name][0], node, STOPPED[name][1])
    if name == "FAILED" and reason != "NonZeroExitCode":
        return State(Phase.FAILED, reason, node)
    if name in ("COMPLETED", "FAILED"):
        return State(Phase.ENDED, node=node)
    return State(Phase.WAITING if name in WAITING else Phase.RUNNING, reason, node)
