"""Programs of Slurm, Grid Engine and PBS, as far as runners call them, that can be told to misbehave.

Behind them is one scheduler of this machine that runs the scripts it is given; its state is in the directory
$FAKE_SCHEDULER. What the programs say, how they exit, which signals and variables jobs get, is that of the real ones.
A file `faults.json` there tells what goes wrong:

    refuse TEXT        nothing can be submitted
    busy N             the first N submissions do not get through
    unheard N          the first N submissions get through, but their answer does not
    slow SECONDS       submitting takes so long
    pending            jobs never start
    early SECONDS      a job counts as ended so long before it is (or its files are to be seen)
    lose [TASK]        these are forgotten
    kill {TASK: HOW}   what happens to these as soon as they run: signal, memory, time
    silent N           the first N questions about jobs are not answered
    deaf N             the first N cancellations do not get through
    forgetful          what has ended is not known any more

Jobs belong to the cluster or server that they were submitted to, and only programs that are told so see them there.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GRACE_SECONDS = 1.5
BUSY = {
    "slurm": "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "sge": "error: commlib error: got select error (Connection refused)\nUnable to run job: unable to send message to "
    'qmaster using port 6444 on host "head": got send error',
    "pbs": "Connection refused\nqsub: cannot connect to server head (errno=111)",
}
PROGRAMS = {
    "slurm": ("sbatch", "squeue", "scancel", "scontrol"),
    "sge": ("qsub", "qstat", "qacct", "qalter", "qdel"),
    "pbs": ("qsub", "qstat", "qdel"),
}


class Scheduler:
    """Its state: `faults.json`, and for each job `<id>.json` with what was submitted and the state of its tasks."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory, self.kind = directory, kind

    @contextmanager
    def changed(self, name: str) -> Iterator[dict]:
        """A file's content, written back in the end; one process at a time."""
        path = self.directory / f"{name}.json"
        with open(self.directory / f"{name}.lock", "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            yield value
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(value), encoding="utf-8")
            temporary.replace(path)

    def fault(self, name: str) -> object:
        """What is to go wrong in this way."""
        with self.changed("faults") as faults:
            return faults.get(name)

    def this_time(self, name: str) -> bool:
        """Whether a fault that happens N times happens now."""
        with self.changed("faults") as faults:
            faults[name] = faults.get(name, 0) - 1
            return faults[name] >= 0

    def jobs(self) -> dict[int, dict]:
        """All that was ever submitted, by number."""
        paths = sorted(self.directory.glob("[0-9]*.json"))
        return {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in paths}

    def submit(
        self, name: str, script: str, tasks: range, limit: int, output: str, *, array: bool, requeue: bool, where: str
    ) -> int:
        """Accepts a job and starts the process that runs it."""
        number = len(self.jobs()) + 1
        lost = self.fault("lose") or []
        with self.changed(str(number)) as job:
            job.update(
                name=name, script=Path(script).read_bytes().decode(errors="surrogateescape"), array=array, limit=limit,
                output=output, requeue=requeue, where=where,
                tasks={str(task): {"state": "waiting", "runs": 0} for task in tasks if task not in lost},
            )  # fmt: skip
        command = [sys.executable, __file__, self.kind, "run", str(number)]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen(command, start_new_session=True, cwd="/", **streams)
        return number

    def ask_of(self, number: int, what: str, task: str | None = None) -> None:
        """Asks that something be done to a job's tasks: delete, requeue."""
        with self.changed(str(number)) as job:
            for name, record in job["tasks"].items():
                if task in (None, name) and record["state"] in ("waiting", "running"):
                    record["asked"] = what


def run(scheduler: Scheduler, number: int) -> None:
    """Runs the tasks of a job to their end."""
    processes: dict[str, subprocess.Popen] = {}
    deadlines: dict[str, float] = {}
    script = scheduler.directory / f"{number}.sh"
    early, kill = scheduler.fault("early") or 0, scheduler.fault("kill") or {}
    with scheduler.changed(str(number)) as job:
        script.write_bytes(job["script"].encode(errors="surrogateescape"))
    while True:
        with scheduler.changed(str(number)) as job:
            for task, record in job["tasks"].items():
                asked = record.get("asked")
                if record["state"] == "waiting":
                    if asked == "delete":
                        record.update(state="deleted")
                    elif not scheduler.fault("pending") and len(processes) < job["limit"]:
                        record.update(state="running", runs=record["runs"] + 1, how="")
                        processes[task] = start(scheduler.kind, number, task, job, script, early)
                        if early:
                            record.update(state="ended", code=0)
                        if task in kill:
                            record["how"] = kill[task]
                            end_group(processes[task], signal.SIGKILL)
                elif task in processes:
                    if asked and task not in deadlines:
                        deadlines[task] = time.monotonic() + GRACE_SECONDS
                        end_group(processes[task], signal.SIGUSR2 if scheduler.kind == "sge" else signal.SIGTERM)
                    if time.monotonic() > deadlines.get(task, float("inf")):
                        end_group(processes[task], signal.SIGKILL)
                    code = processes[task].poll()
                    if code is not None:
                        del processes[task]
                        deadlines.pop(task, None)
                        record.pop("asked", None)
                        again = asked == "requeue" or (scheduler.kind == "sge" and code == 99 and not asked)
                        how = "deleted" if asked == "delete" else "waiting" if again else "ended"
                        record.update(state=how, code=code)
            if not any(record["state"] in ("waiting", "running") for record in job["tasks"].values()) and not processes:
                return
        time.sleep(0.03)


def start(kind: str, number: int, task: str, job: dict, script: Path, delay: float) -> subprocess.Popen:
    """Runs the script for one task."""
    restarts = job["tasks"][task]["runs"] - 1
    variables = {
        "slurm": {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_JOB_ID": str(number), "SLURM_JOB_ID": f"{number}_{task}"}
        | ({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
        "sge": {"SGE_TASK_ID": task, "JOB_ID": str(number), "RESTARTED": str(min(restarts, 1))},
        "pbs": {"PBS_JOBID": f"{number}[{task}].{job['where']}", "PBS_ARRAY_INDEX": task}
        if job["array"]
        else {"PBS_JOBID": f"{number}.{job['where']}"},
    }[kind]
    kept = {name: os.environ[name] for name in ("PATH", "FAKE_SCHEDULER")}
    shell = ["sh", "-c", 'sleep "$1"; exec sh "$2"', "sh", str(delay), str(script)] if delay else ["sh", str(script)]
    with open(job["output"].replace("TASK", task), "ab") as output:
        return subprocess.Popen(
            shell, env={**kept, **variables}, cwd=os.environ["FAKE_SCHEDULER"], stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def end_group(process: subprocess.Popen, number: int) -> None:
    """A signal to all that a script has started (it keeps its session); Grid Engine's USR2 to the script only."""
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True, check=False)
    for pid in [process.pid] if number == signal.SIGUSR2 else map(int, listed.stdout.split()):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def value_of(words: list[str], option: str) -> str | None:
    """What stands after an option, or after it and `=`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option or word.startswith(f"{option}="):
            return following if word == option else word.partition("=")[2]
    return None


def fail(text: str, status: int = 1) -> None:
    """Says what a program says when it fails."""
    print(text, file=sys.stderr)
    sys.exit(status)


def where(kind: str, words: list[str]) -> str:
    """The cluster or server that a program is to ask: of several, Slurm takes the last one here."""
    if kind == "pbs":
        asked = [found[1] for word in words if (found := re.fullmatch(r"(?:\w*@|[0-9]+(?:\[\])?\.)(\w+)", word))]
        return asked[-1] if asked else "head"  # of a queue, or a job
    named = value_of(words, "--clusters") or value_of(words, "-M") or os.environ.get("SLURM_CLUSTERS", "")
    return named.split(",")[-1]


def submit(scheduler: Scheduler, words: list[str]) -> None:
    """sbatch or qsub."""
    kind = scheduler.kind
    time.sleep(scheduler.fault("slow") or 0)
    if scheduler.fault("refuse"):
        fail(scheduler.fault("refuse"))
    if scheduler.this_time("busy"):
        fail(BUSY[kind])
    numbers = value_of(words, {"slurm": "--array", "sge": "-t", "pbs": "-J"}[kind])
    array = numbers is not None
    if kind == "pbs" and not array:
        numbers = "1"
    first, last, limit = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?:%([0-9]+))?", numbers).groups()
    if kind == "sge":
        limit = value_of(words, "-tc")
    if kind == "pbs" and array and last == first:
        fail("qsub: Illegal attribute or resource value")
    if kind == "pbs" and array and "-r n" in " ".join(words):
        fail("qsub:  cannot submit non-rerunable Array Job")
    at = where(kind, words)
    output = value_of(words, "--output" if kind == "slurm" else "-o")
    for pattern in ("%a", "$TASK_ID", "^array_index^"):
        output = output.replace(pattern, "TASK")
    number = scheduler.submit(
        value_of(words, "--job-name" if kind == "slurm" else "-N"),
        words[-1],
        range(int(first), int(last or first) + 1),
        int(limit or 4),
        output,
        array=array,
        requeue="--requeue" in words or "-r y" in " ".join(words),
        where=at,
    )
    if scheduler.this_time("unheard"):
        fail(BUSY[kind])
    slurm = f"{number};{at}" if at else f"{number}"
    print({"slurm": slurm, "sge": f"{number}.{numbers}:1", "pbs": f"{number}{'[]' * array}.{at}"}[kind])


def shown(scheduler: Scheduler, words: list[str]) -> dict[int, dict]:
    """Jobs that questions are answered from."""
    if scheduler.this_time("silent"):
        fail(BUSY[scheduler.kind])
    jobs = {number: job for number, job in scheduler.jobs().items() if job["where"] == where(scheduler.kind, words)}
    for job in jobs.values():
        if scheduler.fault("forgetful"):
            job["tasks"] = {task: row for task, row in job["tasks"].items() if row["state"] in ("waiting", "running")}
    return jobs


def squeue(scheduler: Scheduler, words: list[str]) -> None:
    jobs, name, number = shown(scheduler, words), value_of(words, "--name"), value_of(words, "--jobs")
    if at := where("slurm", words):
        print(f"CLUSTER: {at}")
    print("ARRAY_JOB_ID" if name else "ARRAY_TASK_ID|STATE|NODELIST|REASON")
    if name:
        print(*(number for number, job in jobs.items() if job["name"] == name), sep="\n")
        return
    states = {"waiting": "PENDING", "running": "RUNNING", "deleted": "CANCELLED"}
    how = {"memory": "OUT_OF_MEMORY", "time": "TIMEOUT", "signal": "FAILED"}
    if int(number) not in jobs or not jobs[int(number)]["tasks"]:
        fail("slurm_load_jobs error: Invalid job id specified")
    for task, row in jobs[int(number)]["tasks"].items():
        state = states.get(row["state"]) or how.get(row["how"]) or ("FAILED" if row["code"] else "COMPLETED")
        reason = {"PENDING": "Resources", "FAILED": "NonZeroExitCode"}.get(state, "None")
        print(f"{task}|{state}|n1|{'RaisedSignal:9(Killed)' if row.get('how') == 'signal' else reason}")


def qstat_sge(scheduler: Scheduler, words: list[str]) -> None:
    print("<?xml version='1.0'?>\n<job_info><queue_info>")
    letters = {"waiting": "qw", "running": "r"}
    for number, job in shown(scheduler, words).items():
        for task, row in job["tasks"].items():
            if row["state"] in letters:
                letter = "d" * (row.get("asked") == "delete") + "R" * (row["runs"] > 1) + letters[row["state"]]
                print(f"<job_list><JB_job_number>{number}</JB_job_number><JB_name>{job['name']}</JB_name>")
                print(f"<state>{letter}</state><tasks>{task}</tasks></job_list>")
    print("</queue_info></job_info>")


def qacct(scheduler: Scheduler, words: list[str]) -> None:
    rows = shown(scheduler, words)[int(words[-1])]["tasks"]
    failures = {"time": "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "signal": "100 : assumedly after job"}
    ended = {task: row for task, row in rows.items() if row["state"] in ("ended", "deleted") and row["runs"]}
    if not ended:
        fail(f"error: job id {words[-1]} not found")
    for task, row in ended.items():
        failed = failures.get({"memory": "time"}.get(row["how"], row["how"]), "0    ")
        if row["code"] < 0:
            failed = failures.get(row["how"], failures["signal"])
        print("=" * 62)
        print(f"qname        all.q\njobnumber    {words[-1]}\ntaskid       {task:<20}\nfailed       {failed}")
        print(f"exit_status  {128 - row['code'] if row['code'] < 0 else row['code']:<20}\nru_wallclock 1s")


def qstat_pbs(scheduler: Scheduler, words: list[str]) -> None:
    asked = value_of(words, "-t")
    jobs = shown(scheduler, words)
    ids = {f"{number}{'[]' * job['array']}.{job['where']}": (number, job) for number, job in jobs.items()}
    if asked and (asked not in ids or not ids[asked][1]["tasks"]):
        fail(f"qstat: Unknown Job Id {asked}", 153)
    status = {"signal": 265, "memory": -27, "time": -29}
    for name, (number, job) in ids.items():
        if asked not in (None, name):
            continue
        if job["array"]:
            print(f"Job Id: {name}\n    Job_Name = {job['name']}\n    job_state = B\n    Variable_List = A=1,\n\tB=2\n")
        for task, row in job["tasks"].items():
            letter = {"waiting": "Q", "running": "R"}.get(row["state"], "X" if job["array"] else "F")
            one = f"{number}[{task}].{job['where']}" if job["array"] else name
            print(f"Job Id: {one}\n    Job_Name = {job['name']}")
            print(f"    job_state = {letter}")
            if letter == "Q":
                print("    comment = Not Running: Insufficient amount of resource: ncpus")
            if row["runs"]:
                print("    exec_host = n1/0*4\n    stime = Sat Nov 21 12:00:00 2026")
            if letter in "FX" and row["runs"]:
                code = row["code"]
                print(f"    Exit_status = {status.get(row['how']) or (256 - code if code < 0 else code)}")
            print("    Variable_List = PBS_O_HOME=/,\n\tPBS_O_LANG=C\n")


def delete(scheduler: Scheduler, words: list[str]) -> None:
    """scancel or qdel."""
    if scheduler.this_time("deaf"):
        fail(BUSY[scheduler.kind])
    number = int(re.match(r"[0-9]+", next(word for word in words if word[0].isdecimal()))[0])
    if number not in scheduler.jobs() or scheduler.jobs()[number]["where"] != where(scheduler.kind, words):
        fail(
            "scancel: error: Invalid job id" if scheduler.kind == "slurm" else f"qdel: Unknown Job Id {words[-1]}", 153
        )
    scheduler.ask_of(number, "delete")


def main(kind: str, program: str, words: list[str]) -> None:
    scheduler = Scheduler(Path(os.environ["FAKE_SCHEDULER"]), kind)
    if program == "run":
        run(scheduler, int(words[0]))
    elif program in ("sbatch", "qsub"):
        submit(scheduler, words)
    elif program in ("scancel", "qdel"):
        delete(scheduler, words)
    elif program == "scontrol":  # requeue <id>_<task>
        number, task = words[-1].split("_")
        scheduler.ask_of(int(number), "requeue", task)
    elif program == "qalter":
        print("verification: found suitable queue(s)")
    else:
        {"squeue": squeue, "qacct": qacct, "qstat": qstat_sge if kind == "sge" else qstat_pbs}[program](
            scheduler, words
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
