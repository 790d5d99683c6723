"""A fake scheduler: the programs of Slurm, Grid Engine and PBS that runners call, which can be told to misbehave.

It runs the scripts it is given on this machine; its state is in the directory $FAKE_SCHEDULER. What the programs say,
how they exit, which signals and variables jobs get, is that of the real ones. Trouble it can be told to make:

    refuse TEXT        nothing can be submitted
    busy N             the first N submissions do not get through
    unheard N          the first N submissions get through, but their answer does not
    slow SECONDS       submitting takes so long
    pending            jobs never start
    early SECONDS      a job counts as ended so long before it is (or its files are visible)
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
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GRACE_SECONDS = 5.0
BUSY = {
    "slurm": "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "sge": "error: commlib error: got select error (Connection refused)\nUnable to run job: unable to send message to "
    'qmaster using port 6444 on host "head": got send error',
    "pbs": "Connection refused\nqsub: cannot connect to server head (errno=111)",
}
PROGRAMS = {
    "slurm": ("sbatch", "squeue", "scancel"),
    "sge": ("qsub", "qstat", "qacct", "qalter", "qdel"),
    "pbs": ("qsub", "qstat", "qdel"),
}


class Fake:
    """The scheduler (slurm, sge, pbs), seen by tests and by its programs."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind, self.directory = kind, directory
        programs = directory / "programs"
        self.environment = {
            "FAKE_SCHEDULER": str(directory),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }

    def install(self) -> "Fake":
        """Write its programs."""
        (self.directory / "programs").mkdir(parents=True)
        for program in PROGRAMS[self.kind]:
            command = shlex.join([sys.executable, "-S", __file__, self.kind, program])
            path = self.directory / "programs" / program
            path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
            path.chmod(0o755)
        return self

    @contextmanager
    def changed(self, name: str) -> Iterator[dict]:
        """The state of a job, or the trouble; written back in the end; one process at a time."""
        path = self.directory / f"{name}.json"
        with open(self.directory / f"{name}.lock", "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            yield value
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(value), encoding="utf-8")
            temporary.replace(path)

    def make_trouble(self, **trouble: object) -> None:
        """From now on; without arguments, none."""
        with self.changed("trouble") as known:
            known.clear()
            known.update(trouble)

    def trouble(self, name: str) -> object:
        """What is to go wrong in this way."""
        with self.changed("trouble") as trouble:
            return trouble.get(name)

    def this_time(self, name: str) -> bool:
        """Whether trouble that happens N times happens now."""
        with self.changed("trouble") as trouble:
            trouble[name] = trouble.get(name, 0) - 1
            return trouble[name] >= 0

    def submitted(self) -> dict[int, dict]:
        """All that was ever submitted, by number."""
        paths = sorted(self.directory.glob("[0-9]*.json"))
        return {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in paths}

    def ask_of(self, number: int, what: str, task: str | None = None) -> None:
        """Asks that something be done to a job's tasks: delete, requeue."""
        with self.changed(str(number)) as job:
            for name, record in job["tasks"].items():
                if task in (None, name) and record["state"] in ("waiting", "running"):
                    record["asked"] = what

    def jobs(self, _: Path | None = None) -> list[str]:
        """See the package."""
        rows = [(number, *row) for number, job in self.submitted().items() for row in job["tasks"].items()]
        return [f"{number}.{task}" for number, task, row in rows if row["state"] in ("waiting", "running")]

    def cancel(self, ids: list[str]) -> None:
        """See the package."""
        for job in ids:
            self.ask_of(int(job.split(".")[0]), "delete", job.split(".")[1])

    def restart(self, job: str) -> None:
        """See the package."""
        self.ask_of(int(job.split(".")[0]), "requeue", job.split(".")[1])

    def warn(self, ids: list[str]) -> None:
        """Jobs warn themselves."""


def run(fake: Fake, number: int) -> None:
    """Runs the tasks of a job to their end."""
    processes: dict[str, subprocess.Popen] = {}
    deadlines: dict[str, float] = {}
    early, kill = fake.trouble("early") or 0, fake.trouble("kill") or {}
    while True:
        with fake.changed(str(number)) as job:
            for task, record in job["tasks"].items():
                asked = record.get("asked")
                if record["state"] == "waiting":
                    if asked == "delete":
                        record.update(state="deleted")
                    elif not fake.trouble("pending") and len(processes) < job["limit"]:
                        record.update(state="running", runs=record["runs"] + 1, how="")
                        processes[task] = start(fake, number, task, job, early)
                        if early:
                            record.update(state="ended", code=0)
                        if task in kill:
                            record["how"] = kill[task]
                            end_group(processes[task], signal.SIGKILL)
                elif task in processes:
                    if asked and task not in deadlines:
                        end_group(processes[task], signal.SIGUSR2 if fake.kind == "sge" else signal.SIGTERM)
                        deadlines[task] = time.monotonic() + GRACE_SECONDS
                    if time.monotonic() > deadlines.get(task, float("inf")):
                        end_group(processes[task], signal.SIGKILL)
                    code = processes[task].poll()
                    if code is not None:
                        del processes[task]
                        deadlines.pop(task, None)
                        record.pop("asked", None)
                        how = {"delete": "deleted", "requeue": "waiting"}.get(asked, "ended")
                        record.update(state=how, code=code)
            if not any(record["state"] in ("waiting", "running") for record in job["tasks"].values()) and not processes:
                return
        time.sleep(0.03)


def start(fake: Fake, number: int, task: str, job: dict, delay: float) -> subprocess.Popen:
    """Runs the script for one task."""
    restarts = job["tasks"][task]["runs"] - 1
    array = {"PBS_ARRAY_INDEX": task} if job["array"] else {}
    variables = {
        "slurm": {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_JOB_ID": str(number), "SLURM_RESTART_COUNT": str(restarts)},
        "sge": {"SGE_TASK_ID": task, "JOB_ID": str(number), "RESTARTED": str(min(restarts, 1))},
        "pbs": {"PBS_JOBID": f"{number}{f'[{task}]' * job['array']}.{job['where']}", **array},
    }[fake.kind]
    kept = {name: os.environ[name] for name in ("PATH", "FAKE_SCHEDULER")}
    script = ["sh", str(fake.directory / f"{number}.sh")]
    shell = ["sh", "-c", 'sleep "$1"; exec sh "$3"', "sh", str(delay), *script] if delay else script
    with open(job["output"].replace("TASK", task), "ab") as output:
        return subprocess.Popen(
            shell, env={**kept, **variables}, cwd=fake.directory, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def end_group(process: subprocess.Popen, number: int) -> None:
    """A signal to all that a script has started (it keeps its session); Grid Engine's USR2 to the script only."""
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True, check=False)
    for pid in [process.pid] if number == signal.SIGUSR2 else map(int, listed.stdout.split()):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def value_of(words: list[str], option: str) -> str | None:
    """What follows an option, or follows it and `=`."""
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


def submit(fake: Fake, words: list[str]) -> None:
    """sbatch or qsub."""
    kind = fake.kind
    time.sleep(fake.trouble("slow") or 0)
    if fake.trouble("refuse"):
        fail(fake.trouble("refuse"))
    if fake.this_time("busy"):
        fail(BUSY[kind])
    numbers = value_of(words, {"slurm": "--array", "sge": "-t", "pbs": "-J"}[kind])
    array = numbers is not None
    first, last, limit = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?:%([0-9]+))?", numbers or "1").groups()
    if kind == "pbs" and array and last == first:
        fail("qsub: Illegal attribute or resource value")
    if kind == "pbs" and array and "-r n" in " ".join(words):
        fail("qsub:  cannot submit non-rerunable Array Job")
    output = value_of(words, "--output" if kind == "slurm" else "-o")
    for pattern in ("%a", "$TASK_ID", "^array_index^"):
        output = output.replace(pattern, "TASK")
    lost, at, number = fake.trouble("lose") or [], where(kind, words), len(fake.submitted()) + 1
    (fake.directory / f"{number}.sh").write_bytes(Path(words[-1]).read_bytes())
    with fake.changed(str(number)) as job:
        job.update(
            name=value_of(words, "--job-name" if kind == "slurm" else "-N"), array=array, output=output, where=at,
            limit=int(limit or value_of(words, "-tc") or 4),
            tasks={
                str(task): {"state": "waiting", "runs": 0}
                for task in range(int(first), int(last or first) + 1)
                if task not in lost
            },
        )  # fmt: skip
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen([sys.executable, "-S", __file__, kind, "run", str(number)], start_new_session=True, **streams)
    if fake.this_time("unheard"):
        fail(BUSY[kind])
    slurm = f"{number};{at}" if at else f"{number}"
    print({"slurm": slurm, "sge": f"{number}.{numbers}:1", "pbs": f"{number}{'[]' * array}.{at}"}[kind])


def shown(fake: Fake, words: list[str]) -> dict[int, dict]:
    """Jobs that questions are answered from."""
    if fake.this_time("silent"):
        fail(BUSY[fake.kind])
    jobs = {number: job for number, job in fake.submitted().items() if job["where"] == where(fake.kind, words)}
    for job in jobs.values():
        if fake.trouble("forgetful"):
            job["tasks"] = {task: row for task, row in job["tasks"].items() if row["state"] in ("waiting", "running")}
    return jobs


def squeue(fake: Fake, words: list[str]) -> None:
    jobs, name, number = shown(fake, words), value_of(words, "--name"), value_of(words, "--jobs")
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


def qstat_sge(fake: Fake, words: list[str]) -> None:
    print("<?xml version='1.0'?>\n<job_info><queue_info>")
    letters = {"waiting": "qw", "running": "r"}
    for number, job in shown(fake, words).items():
        for task, row in job["tasks"].items():
            if row["state"] in letters:
                letter = "d" * (row.get("asked") == "delete") + "R" * (row["runs"] > 1) + letters[row["state"]]
                print(f"<job_list><JB_job_number>{number}</JB_job_number><JB_name>{job['name']}</JB_name>")
                print(f"<state>{letter}</state><tasks>{task}</tasks></job_list>")
    print("</queue_info></job_info>")


def qacct(fake: Fake, words: list[str]) -> None:
    rows = shown(fake, words)[int(words[-1])]["tasks"]
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


def qstat_pbs(fake: Fake, words: list[str]) -> None:
    asked = value_of(words, "-t")
    jobs = shown(fake, words)
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
            print(f"Job Id: {one}\n    Job_Name = {job['name']}\n    job_state = {letter}")
            if letter == "Q":
                print("    comment = Not Running: Insufficient amount of resource: ncpus")
            if row["runs"]:
                print("    exec_host = n1/0*4\n    stime = Sat Nov 21 12:00:00 2026")
            if letter in "FX" and row["runs"]:
                code = row["code"]
                print(f"    Exit_status = {status.get(row['how']) or (256 - code if code < 0 else code)}")
            print("    Variable_List = PBS_O_HOME=/,\n\tPBS_O_LANG=C\n")


def delete(fake: Fake, words: list[str]) -> None:
    """scancel or qdel."""
    if fake.this_time("deaf"):
        fail(BUSY[fake.kind])
    number = int(re.match(r"[0-9]+", next(word for word in words if word[0].isdecimal()))[0])
    if number not in fake.submitted() or fake.submitted()[number]["where"] != where(fake.kind, words):
        fail("scancel: error: Invalid job id" if fake.kind == "slurm" else f"qdel: Unknown Job Id {words[-1]}", 153)
    fake.ask_of(number, "delete")


def main(kind: str, program: str, words: list[str]) -> None:
    fake = Fake(kind, Path(os.environ["FAKE_SCHEDULER"]))
    match program:
        case "run":
            run(fake, int(words[0]))
        case "sbatch" | "qsub":
            submit(fake, words)
        case "scancel" | "qdel":
            delete(fake, words)
        case "squeue":
            squeue(fake, words)
        case "qstat":
            (qstat_sge if kind == "sge" else qstat_pbs)(fake, words)
        case "qacct":
            qacct(fake, words)
        case "qalter":
            print("verification: found suitable queue(s)")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
