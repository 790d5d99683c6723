"""Slurm, using sbatch, squeue, scancel, and on the node scontrol and srun. Accounting (sacct) is not needed."""

import os
import re
import signal
from collections.abc import Collection

from jobrunner.backend import Backend, Phase, SchedulerError, State, Submission, call_scheduler, submit

# States of stopped jobs, with reason and exit status (squeue(1), "JOB STATE CODES").
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
SECONDS_BETWEEN_NODES = 150  # between the end of the command on one node and on all, to write a checkpoint


class Slurm(Backend):
    """Slurm 20.11 or later.

    An id is the answer of `sbatch --parsable`: the number of the array and, if several clusters were given, the chosen
    one, as in `77;gpu`. Numbers are specific to a cluster, so every request names the cluster.
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
        # without variables of a job that the runner itself may be part of
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment |= {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CLUSTERS") if name in os.environ}
        return submit([program, "--parsable", *options, str(submission.script)], r"^[0-9]+(;\S+)?$", environment)

    def find(self, submission: Submission) -> str | None:
        """See `Backend`."""
        cluster, asked = "", clusters(submission.command)
        answer = _call("squeue", asked, *ALL_STATES, f"--name={submission.name}", "--format=%F")
        for line in answer.splitlines():
            if line.startswith("CLUSTER: "):  # heading of the jobs of each cluster
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
            if task.isdecimal():  # not a heading, nor the array as such, which remains when all its jobs are gone
                states[int(task)] = _state(*rest)
        return states

    def cancel(self, submitted: str) -> None:
        """See `Backend`."""
        number, _, cluster = submitted.partition(";")
        _call("scancel", cluster, "--quiet", number)

    def requeue(self) -> None:
        """See `Backend`."""
        _call("scontrol", "", "requeue", os.environ["SLURM_JOB_ID"])  # the cluster of the node is that of the job

    def launcher(self, nodes: int) -> list[str]:
        """See `Backend`."""
        return [
            "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--export=ALL",
            "--kill-on-bad-exit=0", f"--wait={SECONDS_BETWEEN_NODES}",
        ]  # fmt: skip


def clusters(command: list[str]) -> str:
    """The clusters that `sbatch` may choose from, as given to it; "" if none."""
    named = re.findall(r"\0(?:-M\0?|--clusters?[\0=])([^\0]+)", "\0" + "\0".join(command))
    return named[-1] if named else os.environ.get("SLURM_CLUSTERS") or os.environ.get("SBATCH_CLUSTERS", "")


def _call(program: str, cluster: str, *words: str) -> str:
    """Output of one of Slurm's programs for a cluster; "" is the cluster of this machine."""
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
