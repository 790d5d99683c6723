"""Grid Engine (Sun's, Son of, Open, Univa or Altair), using qsub, qstat, qacct and qdel."""

import getpass
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator

from jobrunner.backend import Backend, Phase, SchedulerError, State, Submission, call_scheduler, submit

RESCHEDULED, OVER_LIMIT, KILLED = 25, 37, 100  # `failed` in accounting(5)


class GridEngine(Backend):
    """With -notify (utils/conf/sge.conf), jobs get USR2 some time before they are killed or deleted."""

    name = "sge"
    task_variable = "SGE_TASK_ID"
    id_variable = "JOB_ID"
    restart_variable = "RESTARTED"
    variables = (
        "SGE_", "JOB_ID", "JOB_NAME", "JOB_SCRIPT", "QUEUE", "NSLOTS", "NQUEUES", "NHOSTS", "PE_HOSTFILE", "RESTARTED",
    )  # fmt: skip
    busy = "gdi request|commlib error|unable to (contact|send message to) qmaster|timed out"

    def __init__(self) -> None:
        self.given_up: dict[int, State] = {}  # jobs that were in the error state

    def submit(self, submission: Submission) -> str:
        """See `Backend`."""
        jobs, at_once = submission.jobs, submission.max_jobs_run
        limit = ["-tc", str(at_once)] if at_once else []
        command = [
            *submission.command, "-terse", "-N", submission.short_name, "-t", f"{jobs[0]}-{jobs[-1]}", *limit,
            "-b", "n", "-C", "",  # a script, without options in it
            "-S", "/bin/sh", "-wd", "/", "-j", "y", "-o", submission.output("$TASK_ID"), str(submission.script),
        ]  # fmt: skip
        return submit(command, r"^[0-9]+(?=(\.[0-9:-]+)?$)")

    def find(self, submission: Submission) -> str | None:
        """See `Backend`."""
        return next((row["JB_job_number"] for row in listed() if row["JB_name"] == submission.short_name), None)

    def states(self, submitted: str, jobs: Collection[int]) -> dict[int, State]:
        """See `Backend`."""
        letters = {int(row["tasks"] or 0): row["state"] for row in listed() if row["JB_job_number"] == submitted}
        self._give_up(submitted, [job for job, state in letters.items() if "E" in state])
        states = {job: state_of(state) for job, state in letters.items()}
        if states and not any(state.phase == Phase.RUNNING for state in states.values()):
            reason = why_waiting(submitted)
            states = {job: State(Phase.WAITING, state.reason or reason) for job, state in states.items()}
        gone = set(jobs) - states.keys() - self.given_up.keys()
        return {**(ends(submitted) if gone else {}), **states, **self.given_up}

    def _give_up(self, submitted: str, jobs: list[int]) -> None:
        """Deletes jobs in the error state, which only an administrator can start, and records the reason."""
        if not jobs:
            return
        reasons = dict(re.findall(r"^error reason +([0-9]+): *(.+)$", call_scheduler(["qstat", "-j", submitted]), re.M))
        for job in jobs:
            reason = re.sub(r"^\S+ \S+ \[[0-9:]+\]: (?:error: )?", "", reasons.get(str(job), "error state"))
            self.given_up[job] = State(Phase.STOPPED, f"could not start: {reason}")
        call_scheduler(["qdel", submitted, "-t", ",".join(map(str, jobs))])

    def cancel(self, submitted: str) -> None:
        """See `Backend`."""
        call_scheduler(["qdel", submitted])


def listed() -> Iterator[dict[str, str]]:
    """The user's jobs that have not ended, as elements of qstat's answer, one for each job of an array.

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


def why_waiting(submitted: str) -> str:
    """Why a job could not run even on an empty cluster; "" if it could."""
    try:
        call_scheduler(["qalter", "-w", "v", submitted])
    except SchedulerError as error:
        return str(error)
    return ""


def state_of(letters: str) -> State:
    """State of a job, from the letters of qstat(1), such as `qw`, `hqw`, `Rr`, `dr`."""
    if "w" in letters or "q" in letters:
        return State(Phase.WAITING, "held" if "h" in letters else "")
    return State(Phase.RUNNING, "suspended" if set("sST") & set(letters) else "")


def ends(submitted: str) -> dict[int, State]:
    """How jobs ended, by the accounting file; nothing if this machine has no such file."""
    try:
        records = call_scheduler(["qacct", "-j", submitted]).split("\n=====")
    except SchedulerError:
        return {}
    found = {}
    for record in records:  # the last record of a job counts
        fields = dict(re.findall(r"^(taskid|failed|exit_status) +(.*?) *$", record, re.MULTILINE))
        if fields.get("taskid", "").isdecimal():
            found[int(fields["taskid"])] = end_of(fields["failed"], fields["exit_status"])
    return {job: state for job, state in found.items() if state}


def end_of(failed: str, exit_status: str) -> State | None:
    """How a job ended, from two fields of qacct; None if it was rescheduled."""
    code, status = (int(re.match(r"[0-9]*", field)[0] or 0) for field in (failed, exit_status))
    if code == RESCHEDULED:
        return None
    if code == OVER_LIMIT:
        return State(Phase.STOPPED, "over its limit of time or memory")
    if code == KILLED:
        return State(Phase.STOPPED, f"killed by signal {status - 128}: cancelled, or out of memory")
    if code:
        return State(Phase.STOPPED, f"failed {' '.join(failed.split())}")
    return State(Phase.ENDED)
