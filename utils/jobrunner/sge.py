"""Grid Engine (Sun's, Son of, Open, Univa or Altair), using qsub, qstat, qacct and qdel."""

import getpass
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from jobrunner.backend import Backend, Phase, SchedulerError, State, Submission, call_scheduler, warned_after
from jobrunner.call import INTERRUPTED

RESCHEDULE = 99  # what a script exits with to be queued again
ACCOUNTING_SECONDS = 10.0  # what has ended should be in the accounting file by then
RESCHEDULED, OVER_LIMIT, KILLED = 25, 37, 100  # `failed` in accounting(5)
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./ +=@~^-]+")


class GridEngine(Backend):
    """The array of one runner.

    With -notify (utils/conf/sge.conf) jobs get USR2 some time before they are killed, be it that they are deleted or
    over their limit. Grid Engine queues a job again that exits with 99, but not if it is over the limit h_rt; jobs that
    want that get a limit s_rt as well, at which they get USR1. The time of all attempts counts towards both limits, and
    after one signal for a limit the next comes 90 s later at the earliest.
    """

    name = "sge"
    task_variable = "SGE_TASK_ID"
    id_variable = "JOB_ID"
    restart_variable = "RESTARTED"
    variables = (
        "SGE_", "JOB_ID", "JOB_NAME", "JOB_SCRIPT", "QUEUE", "NSLOTS", "NQUEUES", "NHOSTS", "PE_HOSTFILE", "RESTARTED",
    )  # fmt: skip
    busy = "gdi request|commlib error|unable to (contact|send message to) qmaster|timed out"

    def __init__(self) -> None:
        self.submission: Submission | None = None  # of this runner, if it has come to that
        self.known: dict[int, Phase] = {}  # where qstat saw a job last
        self.gone: dict[int, float] = {}  # since when it does not see it any more
        self.ended: dict[int, State] = {}
        self.deleted: set[int] = set()

    def submit(self, submission: Submission) -> str:
        """See `Backend`."""
        self.__init__()  # forgets what a runner that was killed has left, see `cluster.Runner.recover`
        self.submission = submission
        jobs, at_once = submission.jobs, submission.max_jobs_run
        output = str(submission.directory / "output.$TASK_ID")
        limit = ["-tc", str(at_once)] if at_once else []
        answer = call_scheduler([
            *submission.command, *warning(submission.command),
            "-terse", "-N", name_of(submission.name), "-t", f"{jobs[0]}-{jobs[-1]}", *limit,
            "-b", "n", "-C", "",  # a script, and nothing in it is an option
            "-S", "/bin/sh", "-wd", "/", "-j", "y",
            # Grid Engine would look for hosts and variables in other paths.
            "-o", output if PLAIN_PATH.fullmatch(str(submission.directory)) else "/dev/null",
            str(submission.script),
        ])  # fmt: skip
        found = re.search(r"^([0-9]+)(?:\.[0-9:-]+)?$", answer, re.MULTILINE)
        if not found:
            raise SchedulerError(f"{submission.command[0]}: no job's number in its answer {answer.strip()!r}")
        return found[1]

    def find(self, name: str, command: list[str]) -> str | None:
        """See `Backend`."""
        return next((row["JB_job_number"] for row in listed() if row["JB_name"] == name_of(name)), None)

    def states(self, submitted: str) -> dict[int, State]:
        """See `Backend`."""
        letters = {int(row["tasks"] or 0): row["state"] for row in listed() if row["JB_job_number"] == submitted}
        self.deleted |= {job for job, state in letters.items() if "d" in state}
        self._give_up(submitted, [job for job, state in letters.items() if "E" in state])
        states = {job: phase_of(state) for job, state in letters.items() if job not in self.ended}
        self.known.update({job: state.phase for job, state in states.items()})
        self.gone = {job: since for job, since in self.gone.items() if job not in states}
        if states and not any(state.phase == Phase.RUNNING for state in states.values()):
            reason = why_waiting(submitted)
            states = {job: State(Phase.WAITING, state.reason or reason) for job, state in states.items()}
        jobs = self.submission.jobs if self.submission else self.known
        self._settle(submitted, [job for job in jobs if job not in states and job not in self.ended])
        return {**states, **self.ended}

    def _settle(self, submitted: str, jobs: list[int]) -> None:
        """Finds out how jobs ended that qstat does not list any more and that have left no status."""
        jobs = [job for job in jobs if not (self.submission and (self.submission.directory / f"status.{job}").exists())]
        ends = self._ends(submitted) if jobs else {}
        for job in jobs:
            gone = time.monotonic() - self.gone.setdefault(job, time.monotonic())
            if job in ends:
                self.ended[job] = ends[job]
            elif gone >= ACCOUNTING_SECONDS and (job in self.deleted or self.known.get(job) == Phase.WAITING):
                self.ended[job] = State(Phase.STOPPED, "cancelled", status=INTERRUPTED)

    def _give_up(self, submitted: str, jobs: list[int]) -> None:
        """Jobs in the error state never start unless an administrator says so: notes the reason and deletes them."""
        if not jobs:
            return
        reasons = dict(re.findall(r"^error reason +([0-9]+): *(.+)$", call_scheduler(["qstat", "-j", submitted]), re.M))
        for job in jobs:
            reason = re.sub(r"^\S+ \S+ \[[0-9:]+\]: (?:error: )?", "", reasons.get(str(job), "error state"))
            self.ended[job] = State(Phase.STOPPED, f"could not start: {reason}")
        call_scheduler(["qdel", submitted, "-t", ",".join(map(str, jobs))])

    def _ends(self, submitted: str) -> dict[int, State]:
        """What the accounting file tells of jobs that have ended; nothing where this machine has no such file."""
        try:
            records = call_scheduler(["qacct", "-j", submitted]).split("\n=====")
        except SchedulerError:
            return {}
        ends = {}
        for record in records:  # the last one of a job counts
            fields = dict(re.findall(r"^(taskid|failed|exit_status) +(.*?) *$", record, re.MULTILINE))
            if fields.get("taskid", "").isdecimal():
                job = int(fields["taskid"])
                ends[job] = end_of(fields["failed"], fields["exit_status"], deleted=job in self.deleted)
        return {job: end for job, end in ends.items() if end}

    def cancel(self, submitted: str) -> None:
        """See `Backend`."""
        call_scheduler(["qdel", submitted])

    def requeue(self) -> int:
        """See `Backend`."""
        return RESCHEDULE


def warning(command: list[str]) -> list[str]:
    """Options for a soft limit before a hard one, for jobs that may be queued again: by options of qsub."""
    limit = re.search(r"\bh_rt=([0-9]+:[0-9]+:[0-9]+)\b", " ".join(command))
    if not limit or ("-r", "y") not in zip(command, command[1:], strict=False):
        return []
    return ["-l", f"s_rt={warned_after(limit[1])}"]


def listed() -> Iterator[dict[str, str]]:
    """The user's jobs that have not ended, an element of qstat's answer for each job of an array.

    Raises:
        SchedulerError: qmaster did not answer.
    """
    answer = call_scheduler(["qstat", "-u", getpass.getuser(), "-g", "d", "-xml"])
    try:
        rows = ElementTree.fromstring(answer).iter("job_list")
    except ElementTree.ParseError as error:
        raise SchedulerError(f"qstat: {error} in its answer") from error
    for row in rows:
        yield {name: row.findtext(name) or "" for name in ("JB_job_number", "JB_name", "state", "tasks")}


def name_of(name: str) -> str:
    """A name that qsub accepts; its end, which is unique, remains."""
    return "j" + re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def why_waiting(submitted: str) -> str:
    """Why the job could not run even if the cluster were empty, if so."""
    try:
        call_scheduler(["qalter", "-w", "v", submitted])
    except SchedulerError as error:
        return str(error)
    return ""


def phase_of(letters: str) -> State:
    """What letters of qstat(1) mean, as `qw`, `hqw`, `Rr`, `dr`."""
    if "w" in letters or "q" in letters:
        return State(Phase.WAITING, "held" if "h" in letters else "")
    return State(Phase.RUNNING, "suspended" if set("sST") & set(letters) else "")


def end_of(failed: str, exit_status: str, *, deleted: bool) -> State | None:
    """How a job ended, by two fields of qacct; None if that was not its end."""
    code, status = (int(re.match(r"[0-9]*", field)[0] or 0) for field in (failed, exit_status))
    if deleted:
        return State(Phase.STOPPED, "cancelled", status=INTERRUPTED)
    if code == RESCHEDULED:
        return None
    if code == OVER_LIMIT:
        return State(Phase.STOPPED, "over its limit of time or memory")
    if code == KILLED:
        return State(Phase.STOPPED, f"killed by signal {status - 128}: cancelled, or out of memory")
    if code:
        return State(Phase.STOPPED, f"failed {' '.join(failed.split())}")
    return State(Phase.ENDED)
