"""Gates: what could run code that somebody else wrote is in no file, or in an exception with its reason.

Those of Python are ruff's, `banned-api` and its exceptions in pyproject.toml; `test_style.py` runs them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def sources(suffix):
    """Files of the project with an ending; those of tests are left out, as they attack."""
    apart = {"venv", "data", "dump", "exp", "downloads", "smoke", "__pycache__"}
    for top in ("speechlvm", "utils", "tools", "egs"):
        for folder, folders, names in os.walk(ROOT / top):
            folders[:] = [name for name in folders if top == "speechlvm" or name not in apart]
            yield from (Path(folder, name) for name in names if name.endswith(suffix))


DANGEROUS = """\
import torch as t
t.load("x")
from torch.serialization import add_safe_globals
t.jit.load("x")
import torch.distributed as dist
dist.broadcast_object_list(t)
import yaml
from pickle import loads
from xml.etree import ElementTree
import os
os.system(t)
import subprocess
subprocess.run("x", shell=True)
eval(t)
exec(t)
from importlib import import_module
import kaldiio
def f():
    import tarfile
"""
HARMLESS = {1, 5, 10, 12, 18}  # lines of it


def test_the_gate_of_python_shuts():
    ruff = [Path(sys.executable).with_name("ruff"), "check", "--output-format", "concise"]
    done = subprocess.run(
        [*ruff, "--stdin-filename", "speechlvm/new.py", "-"], input=DANGEROUS, cwd=ROOT, capture_output=True, text=True
    )
    found = {int(line) for line in re.findall(r"new\.py:(\d+):\d+: (?:S|TID)\d", done.stdout)}
    assert found == set(range(1, 20)) - HARMLESS, done.stdout + done.stderr


SHELL_OF_WAV_SCP = "speechlvm/data/kaldi/scp.py"  # commands of wav.scp, with --allow_pipes alone


def test_python_loads_plain_values_and_starts_no_shell_with_text():
    files = list(sources(".py"))
    assert len(files) > 80
    for path in files:
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"torch\.load\(.*", text):
            assert call.endswith(", weights_only=True)"), path
        assert "allow_pickle=True" not in text, path
        if re.search(r'"(?:ba|da|z|k)?sh",[^]]*"-\w*c", (?!")', text):
            assert path == ROOT / SHELL_OF_WAV_SCP


# -- the shell ---------------------------------------------------------------------------------------------------------

# Variables in arithmetic, where bash would run what an array's index holds: loop variables, differences of clocks, and
# options that check_options.sh has found to be whole numbers before.
NUMBERS = {
    "SECONDS", "b", "began", "best", "cost", "diagonal", "failed", "i", "j", "last", "needed_gb", "ngpu", "now",
    "nthreads", "number", "row", "seconds", "stage", "started", "status", "stop_stage",
}  # fmt: skip
SHELL_GATES = {
    "eval": r"\beval\b",
    "a file that is not named": r"(?:^|[;&|({]|\b(?:then|do|else)\b)\s*(?:source|\.)\s+"
    r"(?!\"?(?:\$\{_utils\}/|\./|(?:\.\./)*utils/|SCRIPTDIR/)?[a-z_]+\.sh\"?(?:\s|$|;))",
    "text for a shell": r"\b(?:ba|da|z|k)?sh\s+(?:-\S+\s+)*-[a-z]*c\b",
    "find -exec, or xargs": r"-exec(?:dir)?\b|\bxargs\b",
    "integers by declaration": r"\b(?:declare|local|typeset)\s+-[a-zA-Z]*i|\blet\s",
    "arithmetic in a condition": r"\[\[[^]]*\s-(?:eq|ne|lt|le|gt|ge)\s",
}
ARITHMETIC = re.compile(r"\(\((.*?)\)\)")
PARSER = "utils/parse_options.sh"  # printf -v of names that it has found in the script


def shell_errors(text):
    errors = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        code = re.sub(r"(?<!\S)#.*", "", line)
        for what, pattern in SHELL_GATES.items():
            if re.search(pattern, code):
                errors.append((number, what))
        for expression in ARITHMETIC.findall(code):
            names = set(re.findall(r"[A-Za-z_]\w*", re.sub(r"\$\{#\w+\}|\$\((?!\().*?\)|10#|\d+", " ", expression)))
            if names - NUMBERS:
                errors.append((number, f"arithmetic with {sorted(names - NUMBERS)}"))
        if re.search(r"printf\s+-v\s+\"?\$", code):
            errors.append((number, "a variable that is named by another"))
    return errors


def test_shell_scripts_run_no_text():
    files = list(sources(".sh"))
    assert len(files) > 40
    found = [
        f"{path.relative_to(ROOT)}:{number}: {what}"
        for path in files
        for number, what in shell_errors(path.read_text(encoding="utf-8"))
        if (str(path.relative_to(ROOT)), what) != (PARSER, "a variable that is named by another")
    ]
    assert found == []


def test_the_gates_of_the_shell_shut():
    lines = [
        "x=1; eval $y", 'if true; then . "$1"; fi', 'bash -euc "$x"', "ls | xargs rm", "local -i n=$x",
        '[[ "$x" -eq 1 ]]', "for ((k = 0; k < x; k++)); do", 'printf -v "${name}" x',
    ]  # fmt: skip
    for line in lines:
        assert shell_errors(line), line
    harmless = [
        ". ./db.sh", ". utils/parse_options.sh", '. "${_utils}/jobs.sh"', "# eval in a comment", '[ "${x}" -eq 1 ]',
        "for ((i = 0; i < 3; i++)); do", "echo $((SECONDS - began))",
    ]  # fmt: skip
    assert shell_errors("\n".join(harmless)) == []
