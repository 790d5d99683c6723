"""What only Slurm does, with a real one: GPUs, several nodes, time limits, nodes that fail."""

import contextlib
import re
import subprocess

import pytest
from cluster import end, training, wait_for


def test_gpus_are_those_that_slurm_gives(slurm):
    words = ["--gpu", 2, "x.log", "sh", "-c", 'echo "$CUDA_VISIBLE_DEVICES"']
    assert slurm.call(*words, CUDA_VISIBLE_DEVICES="7") == (0, "")
    assert slurm.body() == ["0,1"]


def test_two_nodes(slurm):
    script = 'echo "$SLURM_NODEID $NUM_NODES $MASTER_ADDR:$MASTER_PORT $OMP_NUM_THREADS $1"'
    words = ["--num-nodes", 2, "--num-threads", 2, "x.log", "sh", "-c", script, "sh", "$(touch canary) é"]
    assert slurm.call(*words, PYTHONUTF8="1") == (0, "")
    first, second = sorted(slurm.body())
    assert re.fullmatch(r"0 2 \S+:\d+ 2 \$\(touch canary\) é", first)
    assert second == "1" + first[1:]


@pytest.mark.recipe
def test_a_training_on_two_nodes_is_warned_and_requeued(slurm):
    python, _, text, _, steps = training(steps=50)
    script = ["sh", "-c", 'exec "$1" -c "$2" "state.$SLURM_NODEID" "$3"', "sh", python, text, steps]
    process = slurm.start("--num-nodes", 2, "--requeue", "true", "x.log", *script)
    wait_for(lambda: (slurm.directory / "x.log").exists() and len(slurm.body()) == 2)
    slurm.scheduler.warn(slurm.jobs())
    assert end(process)[0] == 0
    said = [line.split() for line in slurm.body() if not line.startswith("srun: ")]
    assert len(said) == 8 and sum(line[1:] == ["step", "0"] for line in said) == 2
    assert sorted(int(line[2]) for line in said if line[0] == "to")[2:] == [50, 50]


@pytest.mark.recipe
def test_a_job_is_warned_before_its_time_limit(slurm):
    """Within half a minute: Slurm looks at time limits every 30 s, and warns up to a minute early."""
    script = "test -e told && exit; trap 'touch told; exit 75' TERM; for i in $(seq 600); do sleep 0.1; done; exit 1"
    process = slurm.start("--requeue", "true", "--time", "1m", "x.log", "sh", "-c", script)
    wait_for((slurm.directory / "told").exists)
    slurm.scheduler.start_soon(*slurm.jobs())
    assert end(process)[0] == 0


@pytest.mark.recipe
def test_a_job_that_is_told_to_stop_and_may_not_be_requeued(slurm):
    process = slurm.start("x.log", *training(steps=600))
    slurm.wait_for_start("x.log")
    slurm.scheduler.ask("scancel", "--batch", "--signal=USR1", *slurm.jobs())
    status, err = end(process)
    assert status == 75 and "1 (status 75)" in err


@pytest.mark.recipe
def test_a_failed_node(slurm):
    process = slurm.start(*slurm.conf("command sbatch --nodelist=n1\n"), "x.log", "sleep", "60")
    wait_for((slurm.directory / "x.log").exists)
    slurm.scheduler.ask("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=test")
    try:
        status, err = end(process)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it came back by itself
            slurm.scheduler.ask("scontrol", "update", "NodeName=n1", "State=RESUME")
    assert status == 75 and "1 (its node failed)" in err


@pytest.mark.recipe
def test_logs_that_the_node_cannot_see(slurm):
    apart = slurm.scheduler.apart
    (apart / "here").touch()
    if slurm.scheduler.ask("srun", "--nodelist=n2", "ls", apart):
        pytest.skip("no mount namespaces here: both nodes see the same files")
    status, err = slurm.call(*slurm.conf("command sbatch --nodelist=n2\n"), apart / "logs" / "x.log", "true")
    assert status == 1
    assert f"lost: it left no status (JobLaunchFailure); can n2 write {apart}/logs, and is that on a" in err
