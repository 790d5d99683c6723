"""Gates: what could run code that somebody else wrote is in no file, or in one that is named here with its reason."""

import ast
import os
import re
from pathlib import Path

import pytest
import yaml

from speechlvm.utils import settings

ROOT = Path(__file__).resolve().parents[1]

MODULES = {
    "_pickle", "cPickle", "cloudpickle", "code", "codeop", "dill", "imp", "joblib", "lxml", "marshal",
    "pickle", "pty", "runpy", "shelve", "tarfile", "tensorboard.backend", "torch.hub", "torch.package",
    "torch.utils.cpp_extension", "xml", "zipfile",
}  # fmt: skip
CALLS = {
    "__import__", "compile", "eval", "exec", "importlib.import_module", "kaldiio", "os.popen", "os.system",
    "shutil.unpack_archive", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.classes.load_library",
    "torch.hub", "torch.jit.load", "torch.ops.load_library", "torch.package", "torch.serialization.add_safe_globals",
    "torch.serialization.safe_globals", "torch.storage._load_from_bytes", "yaml",
}  # fmt: skip
METHODS = {
    "extract", "extractall",
    # they unpickle what other processes send
    "all_gather_object", "broadcast_object_list", "gather_object", "recv_object_list", "scatter_object_list",
}  # fmt: skip
HARMLESS = {"yaml.safe_dump"}
SHELLS = {"sh", "bash", "dash", "zsh", "ksh"}

REASONS = {
    ("egs/iam_ondb/local/prepare.py", "import xml"): "expat alone, which refuses document types: no entity is read",
    ("speechlvm/bin/baseline.py", "importlib.import_module"): "of its own table of three names",
    ("speechlvm/utils/settings.py", "yaml"): "the one loader, of plain values",
    ("speechlvm/data/dumps/shards.py", "kaldiio"): "writes; never reads what could be a pipe or a pickle",
    ("speechlvm/data/kaldi/scp.py", "shell"): "commands of wav.scp, with --allow_pipes alone",
    (
        "speechlvm/data/corpora/unpack.py",
        "import tarfile",
    ): "reads headers; every member is checked and written by itself",
    ("speechlvm/data/corpora/unpack.py", "import zipfile"): "the same",
    ("speechlvm/models/__init__.py", "importlib.import_module"): "of the registry's names alone",
    ("speechlvm/experiment/checkpoint.py", "import zipfile"): "lists the members before torch reads them",
    ("utils/jobrunner/sge.py", "import xml"): "of what qstat says, and of no file",
    ("utils/jobrunner/job.py", "importlib.import_module"): "of the table of backends",
}


class Calls(ast.NodeVisitor):
    """Dangerous imports and calls of a module, as (line, what)."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.found: list[tuple[int, str]] = []

    def _module(self, node, name):
        for dangerous in MODULES:
            if name == dangerous or name.startswith(f"{dangerous}."):
                self.found.append((node.lineno, f"import {dangerous}"))

    def visit_Import(self, node):
        for each in node.names:
            self._module(node, each.name)
            self.names[each.asname or each.name.partition(".")[0]] = (
                each.name if each.asname else each.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node):
        for each in node.names:
            whole = f"{node.module}.{each.name}"
            self._module(node, whole)
            self.names[each.asname or each.name] = whole

    def _dotted(self, node):
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        return self.names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"

    def visit_Call(self, node):
        name, keywords = self._dotted(node.func), {each.arg: each.value for each in node.keywords}
        wrong = None
        if name in ("torch.load", "torch.serialization.load"):
            if not _is(keywords.get("weights_only"), True) or "pickle_module" in keywords:
                wrong = "torch.load"
        elif name == "numpy.load":
            if "allow_pickle" in keywords and not _is(keywords["allow_pickle"], False) or len(node.args) > 2:
                wrong = "numpy.load"
        elif name not in HARMLESS:
            if re.match(r"os\.(exec|spawn|posix_spawn)", name):
                wrong = "os.exec"
            wrong = next((each for each in CALLS if name == each or name.startswith(f"{each}.")), wrong)
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            wrong = node.func.attr
        if "shell" in keywords and not _is(keywords["shell"], False):
            wrong = "shell=True"
        if wrong:
            self.found.append((node.lineno, wrong))
        self._words(node, [*node.args])
        self.generic_visit(node)

    def visit_List(self, node):
        self._words(node, node.elts)
        self.generic_visit(node)

    visit_Tuple = visit_List

    def _words(self, node, elements):
        """A shell that is given text to run."""
        words = [each.value if isinstance(each, ast.Constant) else None for each in elements]
        for place, (word, text) in enumerate(zip(words, [*words, None][1:], strict=True)):
            called = any(isinstance(w, str) and w.rpartition("/")[2] in SHELLS for w in words[:place])
            if called and isinstance(word, str) and re.fullmatch(r"-[a-z]*c", word) and not isinstance(text, str):
                self.found.append((node.lineno, "shell"))


def _is(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def dangerous(source):
    visitor = Calls()
    visitor.visit(ast.parse(source))
    return visitor.found


def sources(suffix):
    """Files of the project with an ending; those of tests are left out, as they attack."""
    apart = {"venv", "data", "dump", "exp", "downloads", "smoke", "__pycache__"}
    for top in ("speechlvm", "utils", "tools", "egs"):
        for folder, folders, names in os.walk(ROOT / top):
            folders[:] = [name for name in folders if top == "speechlvm" or name not in apart]
            yield from (Path(folder, name) for name in names if name.endswith(suffix))


def test_python_runs_nothing_that_it_reads():
    files = list(sources(".py"))
    assert len(files) > 80
    found = {
        (str(path.relative_to(ROOT)), what): line
        for path in files
        for line, what in dangerous(path.read_text(encoding="utf-8"))
    }
    new = {f"{path}:{found[path, what]}: {what}" for path, what in found.keys() - REASONS.keys()}
    assert new == set(), "give it up, or say in REASONS why it is harmless"
    assert REASONS.keys() - found.keys() == set(), "reasons for what is no longer there"


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\ntorch.load('x', weights_only=safe)",
        "import torch\ntorch.load('x', weights_only=True, pickle_module=p)",
        "import torch as t\nt.load('x')",
        "from torch import load as read\nread('x')",
        "from torch.serialization import add_safe_globals\nadd_safe_globals([X])",
        "import torch\ntorch.jit.load('x')",
        "import torch\ntorch.hub.load('x', 'y')",
        "import torch.distributed as dist\ndist.broadcast_object_list(x)",
        "import yaml\nyaml.load(x, Loader=yaml.Loader)",
        "from yaml import unsafe_load\nunsafe_load(x)",
        "import yaml\nyaml.safe_load(x)",  # takes keys twice, and aliases
        "import pickle",
        "from pickle import loads",
        "import joblib",
        "from xml.etree import ElementTree",
        "from xml.dom import minidom",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "import numpy as np\nnp.load(x, None, True)",
        "import os\nos.system('x')",
        "from os import popen\npopen('x')",
        "import os\nos.execvp('x', [])",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import subprocess\nsubprocess.run(['bash', '-c', x])",
        "import subprocess\nsubprocess.run(('/bin/sh', '-euc', x))",
        "import os\nos.execlp('bash', 'bash', '-c', x)",
        "eval(x)",
        "exec(x)",
        "__import__(x)",
        "from importlib import import_module\nimport_module(x)",
        "import shutil\nshutil.unpack_archive(x)",
        "import tarfile",
        "archive.extractall(x)",
        "import kaldiio\nkaldiio.load_scp(x)",
        "import kaldiio\nkaldiio.ReadHelper(x)",
        "def f():\n    def g():\n        import marshal",
    ],
)
def test_the_gate_of_python_shuts(source):
    assert dangerous(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x', map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(x)\nnp.load(x, allow_pickle=False)",
        "import yaml\nyaml.safe_dump(x)",
        "import re\nre.compile(x)",
        "model.eval()",
        "import subprocess\nsubprocess.run(['git', '-c', x], shell=False)",
        "import subprocess\nsubprocess.run(['sh', '-c', 'exit 127'])",
    ],
)
def test_the_gate_of_python_opens(source):
    assert dangerous(source) == []


def test_the_loader_of_yaml_is_a_safe_one():
    assert issubclass(settings._StrictLoader, yaml.SafeLoader)
    assert settings._StrictLoader.yaml_constructors == yaml.SafeLoader.yaml_constructors
    text = (ROOT / "speechlvm/utils/settings.py").read_text(encoding="utf-8")
    assert re.findall(r"yaml\.(?:\w*load\w*)\(.*", text) == [
        "yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)"
    ]


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


def shell_faults(text):
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        code = re.sub(r"(?<!\S)#.*", "", line)
        for what, pattern in SHELL_GATES.items():
            if re.search(pattern, code):
                faults.append((number, what))
        for expression in ARITHMETIC.findall(code):
            names = set(re.findall(r"[A-Za-z_]\w*", re.sub(r"\$\{#\w+\}|\$\((?!\().*?\)|10#|\d+", " ", expression)))
            if names - NUMBERS:
                faults.append((number, f"arithmetic with {sorted(names - NUMBERS)}"))
        if re.search(r"printf\s+-v\s+\"?\$", code):
            faults.append((number, "a variable that is named by another"))
    return faults


def test_shell_scripts_run_no_text():
    files = list(sources(".sh"))
    assert len(files) > 40
    found = [
        f"{path.relative_to(ROOT)}:{number}: {what}"
        for path in files
        for number, what in shell_faults(path.read_text(encoding="utf-8"))
        if (str(path.relative_to(ROOT)), what) != (PARSER, "a variable that is named by another")
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'eval "$x"',
        "x=1; eval $y",
        '. "${file}"',
        "source <(cat x)",
        'if true; then . "$1"; fi',
        ". $(cat x)",
        'bash -c "$x"',
        "sh -euc x",
        "find . -exec x {} +",
        "ls | xargs rm",
        "local -i n=$x",
        "let n=x",
        '[[ "$x" -eq 1 ]]',
        "echo $((x + 1))",
        "for ((k = 0; k < x; k++)); do",
        'printf -v "${name}" x',
    ],
)
def test_the_gate_of_the_shell_shuts(line):
    assert shell_faults(line)


@pytest.mark.parametrize(
    "line",
    [
        ". ./db.sh",
        ". ../../utils/parse_options.sh",
        '. "${_utils}/jobs.sh"',
        "# eval in a comment",
        '[ "${x}" -eq 1 ]',
        "for ((i = 0; i < 3; i++)); do",
        "echo $((SECONDS - began))",
    ],
)
def test_the_gate_of_the_shell_opens(line):
    assert shell_faults(line) == []
