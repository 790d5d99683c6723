"""Option parsing of the shell side: utils/parse_options.sh."""

import shlex
import subprocess
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "utils"

SCRIPT = r"""#!/usr/bin/env bash
set -euo pipefail
nj=4             # number of jobs
max_jobs_run=    # bound on jobs at once
smoke=false      # only a trial
train_args="a b" # words; with a semicolon
tag="x # y"      # with a hash in its default
  indented=1
if false; then
never=1
fi
. "UTILS/parse_options.sh"
later=1
printf '%s\0' "$nj" "$max_jobs_run" "$smoke" "$train_args" "$tag" "$@"
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "a dir" / "script.sh"
    path.parent.mkdir()
    path.write_text(SCRIPT.replace("UTILS", str(UTILS)), encoding="utf-8")
    return path


def call(script, *arguments, cwd=None):
    return subprocess.run(
        ["bash", script, *arguments], capture_output=True, text=True, timeout=1200, check=False, cwd=cwd
    )


def values(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


def test_defaults(script):
    assert values(call(script)) == ["4", "", "false", "a b", "x # y"]


def test_dashes_and_underscores_are_alike(script):
    for spelling in ("--max-jobs-run", "--max_jobs_run", "--max-jobs_run"):
        assert values(call(script, spelling, "3"))[1] == "3"
        assert values(call(script, f"{spelling}=3"))[1] == "3"


def test_values_stay_data(script, tmp_path):
    hostile = f"$(touch {tmp_path}/canary) `id` \"q\" 'q' ; * \\"
    assert values(call(script, "--train_args", hostile, "--tag", ""))[3:] == [hostile, ""]
    assert not (tmp_path / "canary").exists()


def test_a_value_may_look_like_a_setting(script):
    assert values(call(script, "--train_args", "--limits.seconds 60"))[3] == "--limits.seconds 60"
    assert values(call(script, "--train_args=--nj"))[3] == "--nj"


def test_arguments_after_the_options_stay(script):
    assert values(call(script, "--nj", "5", "x", "--nj", "y"))[5:] == ["x", "--nj", "y"]
    assert values(call(script, "--", "--nj"))[5:] == ["--nj"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n_j", "3"], "unknown option '--n_j'; did you mean --nj?"),
        (["--smokee=true"], "unknown option '--smokee'; did you mean --smoke?"),
        (["--quite-different", "3"], "unknown option '--quite-different' ("),
        (["--later", "3"], "unknown option '--later'"),
        (["--indented", "3"], "unknown option '--indented'"),
        (["--never", "3"], "unknown option '--never'"),
        (["--PATH", "/"], "unknown option '--PATH'"),
        (["-n", "3"], "unknown option '-n'"),
        (["--$(touch canary)", "1"], "unknown option"),
        (["--nj[$(touch canary)]", "1"], "unknown option"),
        (["--x]+`touch canary`", "1"], "unknown option"),
        (["--*", "1"], "unknown option"),
        (["--nj"], "option '--nj' requires a value"),
        (["--nj", "--smoke", "true"], "option '--nj' requires a value"),
        (["--smoke", "yes"], "must be true or false, not 'yes'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(script, arguments, message, tmp_path):
    done = call(script, *arguments, cwd=tmp_path)
    assert not (tmp_path / "canary").exists()
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_lists_options_with_defaults_and_comments(script):
    done = call(script, "--help")
    assert done.returncode == 0
    listed = [" ".join(line.split()) for line in done.stdout.splitlines() if line.startswith("  --")]
    assert listed == [
        "--nj number of jobs (4)",
        "--max_jobs_run bound on jobs at once ()",
        "--smoke only a trial (false)",
        "--train_args words; with a semicolon (a b)",
        "--tag with a hash in its default (x # y)",
    ]


def test_a_script_that_changed_directory_is_still_read(script):
    script.write_text(
        script.read_text(encoding="utf-8").replace("nj=4 ", 'cd "$(dirname "${BASH_SOURCE[0]}")"\nnj=4 '),
        encoding="utf-8",
    )
    done = call(Path(script.parent.name) / script.name, "--nj", "7", cwd=script.parent.parent)
    assert values(done)[0] == "7"


def test_further_option_files(script, tmp_path):
    shared = tmp_path / "shared.sh"
    shared.write_text('stage=0 # first stage\nnj=1 # jobs\noption_files=("${BASH_SOURCE[0]}")\n', encoding="utf-8")
    text = script.read_text(encoding="utf-8").replace(
        "nj=4             # number of jobs", f". {shlex.quote(str(shared))}\nnj=9"
    )
    script.write_text(text + 'echo "$stage given: ${given_options[*]}"\n', encoding="utf-8")
    done = call(script, "--stage", "3")
    assert done.stdout.endswith("3 given: stage\n")
    assert "--nj               jobs (9)" in call(script, "--help").stdout
