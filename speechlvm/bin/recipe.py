"""What a recipe must contain to be run by the shared stages and read by others; each lack is one line.

A recipe is a folder of egs/ (see egs/TEMPLATE). Its settings are what run.sh has set when it comes to the stages
(utils/print_settings.sh), so that what is checked is what they get.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from speechlvm.utils.errors import ConfigError, UserError

# fmt: off
FILES = {
    "run.sh": "its settings, then the shared stages",
    "cmd.sh": "how jobs are run",
    "path.sh": "the environment of its programs",
    "db.sh": "where the corpus lies",
    "local/download.sh": "stage 0: gets the corpus, or says where to get it",
    "local/data.sh": "stage 1: makes the data directories",
    "README.md": "what it needs, its sets, its options, how long it takes",
}
# fmt: on
SOURCED = {"run.sh": ("options", "parse_options", "stages"), "cmd.sh": ("cmd",), "path.sh": ("path",)}
SETTINGS = ("train_set", "valid_set", "test_sets", "material")
HOOKS = {"local/download.sh": "download_args", "local/data.sh": "data_args"}
MADE_BY_RUNS = ("data", "dump", "downloads", "corpus", "logs", "smoke", "__pycache__")
TEXTS = (".sh", ".py", ".yaml", ".md", ".txt")
SHELL_LINES = 250
TO_FILL_IN = "FILL IN"
MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:home|Users|root|mnt|media|scratch|work)/[\w.]")
SECONDS = 60


@dataclass(frozen=True)
class Recipe:
    """A folder of egs/ and what its programs say about themselves."""

    root: Path
    baselines: frozenset[str]

    def text(self, name: str) -> str:
        """Contents of a file, empty if it is not there."""
        path = self.root / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def bash(self, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
        """Runs bash on some words; a time limit counts as status 124."""
        command = ["bash", *words]
        environment = {**os.environ, **environment}
        try:
            return subprocess.run(
                command, cwd=cwd or self.root, env=environment, capture_output=True, text=True, timeout=SECONDS,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"not done after {SECONDS} s")

    @cached_property
    def settings(self) -> dict[str, list[str]]:
        """What run.sh sets for the stages without options; empty if it does not get there."""
        values: dict[str, list[str]] = {}
        probe = (self.root / "../../utils/print_settings.sh").resolve()
        for entry in self.bash("run.sh", BASH_ENV=str(probe)).stdout.split("\0")[:-1]:
            name, _, value = entry.partition("=")
            values.setdefault(name, []).append(value)
        return values

    @cached_property
    def help(self) -> subprocess.CompletedProcess:
        """What run.sh --help says, called from another directory."""
        return self.bash(str(self.root / "run.sh"), "--help", cwd=Path("/"))

    def setting(self, name: str) -> str:
        """A setting of run.sh that is one text."""
        return self.settings.get(name, [""])[0]


def options_of(help_text: str) -> dict[str, str]:
    """Names and explanations in what --help prints."""
    return dict(re.findall(r"^  --([a-z][a-z0-9_]*) +(.*) \(.*\)$", help_text, re.M))


def lacks(root: Path, baselines: Collection[str]) -> list[str]:
    """Everything that a recipe lacks, one line each: ``file:line: what was found; what to do``.

    Args:
        root: the recipe.
        baselines: names of scores of audio that need no configuration.

    Raises:
        UserError: no such folder.
    """
    if not Path(root).is_dir():
        raise UserError(f"{root}: no such folder; give a recipe, for instance egs/timit")
    recipe = Recipe(Path(os.path.abspath(root)), frozenset(baselines))
    checks = (_files, _shell, _run, _hooks, _programs, _experiments, _readme, _texts)
    return [f"{root}/{lack}" for check in checks for lack in check(recipe)]


def _files(recipe: Recipe) -> Iterator[str]:
    for name, meaning in FILES.items():
        if not (recipe.root / name).is_file():
            yield f"{name}: missing ({meaning}); copy it from egs/TEMPLATE"
    for folder, meaning in (("conf", "a system"), ("conf/tables", "a table")):
        if not list(recipe.root.glob(f"{folder}/*.yaml")):
            yield f"{folder}: no *.yaml; write at least one, for {meaning}"


def _shell(recipe: Recipe) -> Iterator[str]:
    for path in sorted([*recipe.root.glob("*.sh"), *recipe.root.glob("local/*.sh")]):
        name = str(path.relative_to(recipe.root))
        text = recipe.text(name)
        done = recipe.bash("-n", name)
        if done.returncode:
            yield f"{name}: not valid bash: {_first_line(done.stderr)}"
        if name in ("cmd.sh", "path.sh", "db.sh"):
            if not text.startswith("# shellcheck shell=bash"):
                yield f"{name}:1: expected '# shellcheck shell=bash', as it is sourced"
        elif not text.startswith("#!/usr/bin/env bash\n") or "\nset -euo pipefail\n" not in text:
            yield f"{name}:1: expected '#!/usr/bin/env bash' first and 'set -euo pipefail' below"
        if (count := len(text.splitlines())) > SHELL_LINES:
            yield f"{name}: {count} lines; expected at most {SHELL_LINES}; shell is for settings and calls"
    for name, sources in SOURCED.items():
        places = [recipe.text(name).find(f"\n. ../../utils/{source}.sh\n") for source in sources]
        for source, place in zip(sources, places, strict=True):
            if place < 0 and recipe.text(name):
                yield f"{name}: does not source ../../utils/{source}.sh; add the line '. ../../utils/{source}.sh'"
        if -1 not in places and places != sorted(places):
            yield f"{name}: sources {', '.join(sources)} in another order; expected this one"
    if re.search(r"^[A-Z_]+=", recipe.text("db.sh"), re.M) and "\n. ./db.sh\n" not in recipe.text("run.sh"):
        yield "run.sh: does not source db.sh, which sets something; add the line '. ./db.sh' before the options"


def _run(recipe: Recipe) -> Iterator[str]:
    if not recipe.text("run.sh"):
        return
    if recipe.help.returncode:
        yield f"run.sh: --help, called from another directory, fails: {_first_line(recipe.help.stderr)}"
        return
    options = options_of(recipe.help.stdout)
    for name, explanation in options.items():
        if not explanation.strip():
            yield f"run.sh: --help says nothing of --{name}; write a comment behind its default"
    if "data_root" not in options and re.search(r"^[A-Z_]+=", recipe.text("db.sh"), re.M):
        yield 'run.sh: no option --data_root, which all recipes with a corpus share; add data_root=""'
    if not recipe.settings:
        yield "run.sh: does not get as far as the stages without options; run it to see why"
        return
    for name in SETTINGS[:3]:
        if not recipe.setting(name).strip():
            yield f"run.sh: {name} is not set; set it before the stages"
    sets = [word for name in SETTINGS[:3] for word in recipe.setting(name).split()]
    for name in sorted({name for name in sets if sets.count(name) > 1}):
        yield f"run.sh: set '{name}' is used twice; nothing may be trained on and tested on"
    if recipe.setting("material") not in ("", "pcm16", "vectors"):
        yield f"run.sh: material is '{recipe.setting('material')}'; expected pcm16 or vectors"


def _hooks(recipe: Recipe) -> Iterator[str]:
    for script, array in HOOKS.items():
        if not recipe.text(script):
            continue
        done = recipe.bash(script, "--help")
        if done.returncode:
            yield f"{script}: --help fails: {_first_line(done.stderr)}"
            continue
        known = options_of(done.stdout)
        for word in recipe.settings.get(array, []):
            name = word.removeprefix("--").partition("=")[0].replace("-", "_")
            if re.fullmatch(r"--[a-z][a-z0-9_-]*(=.*)?", word) and name not in known:
                yield f"{script}: does not take {word}, which {array} of run.sh has; give it a default there"


def _programs(recipe: Recipe) -> Iterator[str]:
    for path in sorted(recipe.root.glob("local/*.py")):
        try:
            ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            yield f"{path.relative_to(recipe.root)}:{line}: not valid Python: {getattr(error, 'msg', error)}"


def _experiments(recipe: Recipe) -> Iterator[str]:
    from speechlvm.coding import CONTINUOUS
    from speechlvm.experiment.config import load_experiment
    from speechlvm.reporting.tables import load_tables

    configs = {}
    for path in sorted(recipe.root.glob("conf/*.yaml")):
        name = str(path.relative_to(recipe.root))
        if not re.match(r"# \w", recipe.text(name)):
            yield f"{name}:1: expected a comment that says which row of which table this is"
        try:
            configs[path.stem] = load_experiment(path)
        except ConfigError as error:
            yield str(error).replace(f"{recipe.root}{os.sep}", "")
            continue
        if recipe.setting("material") == "vectors" and configs[path.stem].coding != CONTINUOUS:
            yield f"{name}: coding {configs[path.stem].coding}; expected {CONTINUOUS}, as the material is vectors"
    try:
        tables = load_tables(recipe.root / "conf/tables")
    except ConfigError as error:
        yield str(error).replace(f"{recipe.root}{os.sep}", "")
        return
    yield from _rows(recipe, configs, tables)


def _rows(recipe: Recipe, configs: dict, tables: list) -> Iterator[str]:
    from speechlvm.experiment.load import SAME_INPUTS

    baselines = () if recipe.setting("material") == "vectors" else recipe.baselines
    for table in tables:
        name = f"conf/tables/{table.table}.yaml"
        for unknown in set(table.sets) - table.frames_per_utterance.keys():
            if not re.search(rf"\b{re.escape(unknown)}\b", recipe.text("run.sh")):
                yield f"{name}: set '{unknown}' is not in run.sh; expected one of its test_sets"
        for row in table.rows:
            if row.experiment is None or row.root or row.experiment in baselines:
                continue
            config = configs.get(row.experiment)
            if config is None:
                if not (recipe.root / f"conf/{row.experiment}.yaml").is_file():
                    yield f"{name}: no conf/{row.experiment}.yaml for the row {row.system} {row.configuration}".rstrip()
                continue
            same = [group for group in SAME_INPUTS if config.coding in group]
            if table.coding not in {config.coding}.union(*same):
                yield f"{name}: coding {table.coding}, but conf/{row.experiment}.yaml has {config.coding}"
            if row.distribution not in (None, config.distribution):
                yield f"{name}: {row.distribution}, but conf/{row.experiment}.yaml has {config.distribution}"
    shown = {row.experiment for table in tables for row in table.rows}
    for experiment in sorted(configs.keys() - shown):
        yield f"conf/{experiment}.yaml: in no table; give it a row in one of conf/tables/*.yaml"


def _readme(recipe: Recipe) -> Iterator[str]:
    text = recipe.text("README.md")
    if not text:
        return
    plain = text.replace("_", "-")
    if not re.match(r"# \S", text):
        yield "README.md:1: expected a title, '# Name'"
    if "bash run.sh" not in text:
        yield "README.md: does not say how to run it; show the command, 'bash run.sh ...'"
    for name in [word for setting in SETTINGS[:3] for word in recipe.setting(setting).split()]:
        if name.replace("_", "-") not in plain:
            yield f"README.md: does not mention the set '{name}'; say what it is and how it was drawn"
    shared = recipe.root / "../../utils/options.sh"
    common = set(re.findall(r"^([a-z_]+)=", shared.read_text(encoding="utf-8"), re.M)) if shared.is_file() else set()
    own = options_of(recipe.help.stdout).keys() - common - {"data_root"}
    for name in sorted(own):
        if f"--{name.replace('_', '-')}" not in plain:
            yield f"README.md: does not mention the option --{name}; say what it does"
    if not re.search(r"\b(hours?|min(utes?)?|h|s|seconds?)\b", text):
        yield "README.md: no word on time; say how long a run takes on which hardware"


def _texts(recipe: Recipe) -> Iterator[str]:
    for path in sorted(recipe.root.rglob("*")):
        name = path.relative_to(recipe.root)
        made = name.parts[0] in MADE_BY_RUNS or name.parts[0].startswith("exp") or name.name == "RESULTS.md"
        if made or "__pycache__" in name.parts or not path.is_file() or path.suffix not in TEXTS:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if TO_FILL_IN in line:
                yield f"{name}:{number}: '{TO_FILL_IN}' is still there; do what the line says and remove the mark"
            if MACHINE_PATH.search(line):
                yield f"{name}:{number}: path of one machine; make it an option or an entry of db.sh"


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0]
