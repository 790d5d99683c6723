"""OpenPBS and PBS Professional, using qsub, qstat and qdel.

Torque differs: arrays are submitted with -t, their variable is PBS_ARRAYID, `qstat -x` has another meaning, and
ended jobs are in state C with a lower-case exit_status.
"""

import re
import signal
from collections.abc import Collection

from jobrunner.backend import Backend, Phase, SchedulerError, State, Submission, call_scheduler, submit
from jobrunner.call import INTERRUPTED

WAITING = "QHWTM"  # job_state of qstat(1B): queued, held, waiting for its time, in transit, moved
ENDED = "FX"  # a job, a job of an array
KILLED = 256  # plus the number of the signal: Exit_status of a script that was killed
STOPPED = {  # Exit_status of jobs that the server or the node stopped
    -1: ("could not start", 1),
    -2: ("could not start", 1),
    -4: ("its node was restarted", INTERRUPTED),
    -11: ("to be rerun, but deleted", INTERRUPTED),
    -24: ("used more CPUs than requested with --num-threads", 1),
    -25: ("used more CPUs than requested with --num-threads", 1),
    -26: ("out of memory; request more with --mem", 1),
    -27: ("out of memory; request more with --mem", 1),
    -28: ("out of CPU time", 1),
    -29: ("out of time; request more with --time", 1),
}


class Pbs(Backend):
    """At its time limit, a job gets TERM, and KILL 10 s later. PBS refuses arrays of one job, so it is not an array."""

    name = "pbs"
    task_variable = "PBS_ARRAY_INDEX"
    id_variable = "PBS_JOBID"
    restart_variable = ""  # there is none
    variables = ("PBS_", "NCPUS", "TMPDIR")
    busy = "cannot connect|connection refused|server shutting down|timed out|no free connections|end of file"
    to_all = (signal.SIGTERM,)

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}  # of jobs that are not arrays
        self.history = True  # whether the server keeps ended jobs, and qstat has -x

    def submit(self, submission: Submission) -> str:
        """See `Backend`."""
        jobs, array, index = submission.jobs, [], "^array_index^"
        if len(jobs) == 1:
            index = str(jobs[0])
        else:
            limit = f"%{submission.max_jobs_run}" if submission.max_jobs_run else ""
            array = ["-J", f"{jobs[0]}-{jobs[-1]}{limit}"]
        command = [
            *submission.command, "-N", submission.short_name, *array,
            "-C", "",  # no options in the script
            "-S", "/bin/sh", "-j", "oe", "-o", submission.output(index), str(submission.script),
        ]  # fmt: skip
        submitted = submit(command, r"^[0-9]+(?:\[\])?(?:\.\S+)?$")
        if not array:
            self.numbers[submitted] = jobs[0]
        return submitted

    def find(self, submission: Submission) -> str | None:
        """See `Backend`."""
        for submitted, row in listed(server(submission.command)):
            if row.get("Job_Name") == submission.short_name:
                self.numbers[submitted] = submission.jobs[0]
                return submitted
        return None

    def states(self, submitted: str, jobs: Collection[int]) -> dict[int, State]:
        """See `Backend`."""
        states: dict[int, State] = {}
        for job, row in self._rows(submitted):
            if index := re.match(r"[0-9]+\[([0-9]+)\]", job):
                states[int(index[1])] = state_of(row)
            elif "[]" not in job:
                states[self.numbers.get(submitted, 0)] = state_of(row)
        return states

    def _rows(self, submitted: str) -> list[tuple[str, dict[str, str]]]:
        """Output of qstat for a job or an array; empty if there is no such job."""
        try:
            return listed(["-x"] * self.history + ["-t", submitted])
        except SchedulerError as error:
            if re.search("unknown job id|has finished", str(error), re.IGNORECASE):
                return []
            if self.history and re.search("history|usage:|invalid option", str(error), re.IGNORECASE):
                self.history = False
                return self._rows(submitted)
            raise

    def cancel(self, submitted: str) -> None:
        """See `Backend`."""
        call_scheduler(["qdel", submitted])


def server(command: list[str]) -> list[str]:
    """Arguments of qstat for the server that `qsub -q queue@server` submits to; none for the default server."""
    queues = re.findall(r"\0-q\0?([^\0]+)", "\0" + "\0".join(command))
    at = queues[-1].partition("@")[2] if queues else ""
    return [f"@{at}"] if at else []


def listed(words: list[str]) -> list[tuple[str, dict[str, str]]]:
    """Ids and attributes of jobs, from `qstat -f`; its JSON is unreliable (several jobs, arrays, odd values).

    Raises:
        SchedulerError: PBS did not answer, or does not know the job.
    """
    blocks = re.split(r"^Job Id: *", call_scheduler(["qstat", "-f", *words]), flags=re.MULTILINE)[1:]
    rows = []
    for block in blocks:
        job, _, text = block.replace("\n\t", "").partition("\n")
        attributes: dict[str, str] = {}
        for name, value in re.findall(r"^ {4}(\w+) = (.*)$", text, re.MULTILINE):
            attributes.setdefault(name, value)
        rows.append((job.strip(), attributes))
    return rows


def state_of(row: dict[str, str]) -> State:
    """State of a job, from its attributes."""
    letter, comment = row.get("job_state", ""), row.get("comment", "")
    node = row.get("exec_host", "").partition("/")[0]
    if letter not in ENDED:
        if letter in WAITING:
            return State(Phase.WAITING, "held" if letter == "H" else comment)
        return State(Phase.RUNNING, "suspended" if letter in "SU" else "", node)
    if "Exit_status" not in row:
        never = not node and "stime" not in row
        return State(Phase.STOPPED, "cancelled", node, INTERRUPTED) if never else State(Phase.ENDED, comment, node)
    code = int(row["Exit_status"])
    if code < 0:
        reason, status = STOPPED.get(code, (f"stopped by PBS with Exit_status {code}; {comment}", 1))
        return State(Phase.STOPPED, reason, node, status)
    if code > KILLED:
        return State(Phase.STOPPED, f"killed by signal {code - KILLED}: cancelled, or over a limit", node)
    return State(Phase.ENDED, comment, node)
