"""OpenPBS and PBS Professional, using qsub, qstat and qdel.

Torque differs: there arrays are submitted with -t, their variable is PBS_ARRAYID, `qstat -x` means something else, and
ended jobs are in state C with a lower-case exit_status.
"""

import json
import re
import signal

from jobrunner.backend import Backend, Phase, SchedulerError, State, Submission, call_scheduler
from jobrunner.call import INTERRUPTED

WAITING = "QHWTM"  # job_state of qstat(1B): queued, held, waiting for its time, in transit, moved
ENDED = "FX"  # a job, a job of an array
KILLED = 256  # plus the signal's number: Exit_status of a script that was killed
STOPPED = {  # Exit_status of jobs that the server or the node has stopped
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
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+=@~-]+")


class Pbs(Backend):
    """The array of one runner, or the plain job: PBS refuses arrays of one job.

    PBS warns nobody of a time limit (at which jobs get TERM, and KILL 10 s later), so jobs warn themselves. It lets
    only its operators queue a running job again, so a job that was warned is submitted once more from here. An id is
    that of the array or job, and, after a blank each, those of jobs that were submitted once more.
    """

    name = "pbs"
    task_variable = "PBS_ARRAY_INDEX"
    id_variable = "PBS_JOBID"
    restart_variable = ""  # there is none
    variables = ("PBS_", "NCPUS", "TMPDIR")
    busy = "cannot connect|connection refused|server shutting down|timed out|no free connections|end of file"
    to_all = (signal.SIGTERM,)
    warns = False

    def __init__(self) -> None:
        self.submission: Submission | None = None
        self.numbers: dict[str, int] = {}  # of plain jobs
        self.again: list[str] = []
        self.cancelled = False
        self.history = True  # whether the server keeps what has ended, and qstat knows -x

    def submit(self, submission: Submission) -> str:
        """See `Backend`."""
        self.__init__()  # forgets what a runner that was killed has left, see `cluster.Runner.recover`
        self.submission = submission
        return self._submit(submission.jobs)

    def _submit(self, jobs: range) -> str:
        plain = bool(PLAIN_PATH.fullmatch(str(self.submission.directory)))  # PBS would look for hosts in others
        if len(jobs) == 1:
            array, output = [], f"{self.submission.directory}/output.{jobs[0]}"
        else:
            limit = f"%{self.submission.max_jobs_run}" if self.submission.max_jobs_run else ""
            array, output = ["-J", f"{jobs[0]}-{jobs[-1]}{limit}"], f"{self.submission.directory}/output.^array_index^"
        answer = call_scheduler([
            *self.submission.command, "-N", name_of(self.submission.name), *array,
            "-C", "",  # nothing in the script is an option
            "-S", "/bin/sh", "-j", "oe", "-o", output if plain else "/dev/null", str(self.submission.script),
        ])  # fmt: skip
        found = re.search(r"^([0-9]+(?:\[\])?(?:\.\S+)?)$", answer, re.MULTILINE)
        if not found:
            raise SchedulerError(f"{self.submission.command[0]}: no job's id in its answer {answer.strip()!r}")
        if len(jobs) == 1:
            self.numbers[found[1]] = jobs[0]
        return found[1]

    def find(self, name: str, command: list[str]) -> str | None:
        """See `Backend`."""
        rows = listed(server(command))
        return next((job for job, row in rows if row.get("Job_Name") == name_of(name)), None)

    def states(self, submitted: str) -> dict[int, State]:
        """See `Backend`."""
        states: dict[int, State] = {}
        for one in (*submitted.split(), *self.again):
            for job, row in self._rows(one):
                if index := re.match(r"[0-9]+\[([0-9]+)\]", job):
                    states[int(index[1])] = state_of(row)
                elif "[]" not in job:
                    states[self.numbers.get(one, -1)] = state_of(row)
        for job in self.submission.jobs if self.submission and not self.cancelled else ():
            if states.get(job, State(Phase.ENDED)).phase in (Phase.ENDED, Phase.STOPPED) and self._warned(job):
                self._submit_again(submitted, job)
                states[job] = State(Phase.WAITING, "submitted once more")
        return states

    def _rows(self, submitted: str) -> list[tuple[str, dict[str, str]]]:
        """What qstat knows of a job or an array; nothing if it knows no such job."""
        try:
            return listed(["-x"] * self.history + ["-t", submitted])
        except SchedulerError as error:
            if re.search("unknown job id|has finished", str(error), re.IGNORECASE):
                return []
            if self.history and re.search("history|usage:|invalid option", str(error), re.IGNORECASE):
                self.history = False
                return self._rows(submitted)
            raise

    def _warned(self, job: int) -> bool:
        """Whether a job ended because its time was over, and asks to be run again: it has an error, see `requeue`."""
        try:
            left = json.loads((self.submission.directory / f"status.{job}").read_text(encoding="utf-8"))
        except OSError:  # there is none, or a network file system stumbles
            return False
        return left["stopped"] and left["status"] == INTERRUPTED and left["error"] != ""

    def _submit_again(self, submitted: str, job: int) -> None:
        self.again.append(self._submit(range(job, job + 1)))
        # for another runner, should this one be killed
        (self.submission.directory / "submitted").write_text(" ".join([submitted, *self.again]), encoding="utf-8")
        (self.submission.directory / f"status.{job}").unlink()

    def cancel(self, submitted: str) -> None:
        """See `Backend`."""
        self.cancelled = True
        for one in (*submitted.split(), *self.again):
            try:
                call_scheduler(["qdel", one])
            except SchedulerError as error:
                if not re.search("unknown job id|has finished|invalid for state", str(error), re.IGNORECASE):
                    raise

    def requeue(self) -> int:
        """See `Backend`; the runner submits the job once more when it finds this in its status."""
        raise SchedulerError("PBS allows this only to operators")


def server(command: list[str]) -> list[str]:
    """How qstat is asked about the server that `qsub -q queue@server` submits to; nothing for the usual one."""
    queues = re.findall(r"\0-q\0?([^\0]+)", "\0" + "\0".join(command))
    at = queues[-1].partition("@")[2] if queues else ""
    return [f"@{at}"] if at else []


def listed(words: list[str]) -> list[tuple[str, dict[str, str]]]:
    """Ids and attributes of jobs, by `qstat -f`: its JSON is not to be relied on (several jobs, arrays, odd values).

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
    """What the attributes of a job mean."""
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


def name_of(name: str) -> str:
    """A name that every qsub accepts (15 characters, the first a letter); its end, which is unique, remains."""
    return "j" + re.sub(r"[^A-Za-z0-9_.-]", "_", name)[-14:]
