"""Values of options and of configurations stay data: whatever they are, no shell runs them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAYLOADS = ("a[$(touch canary)]", "`touch canary`", "x; touch canary", "x\ntouch canary\n", "*")
EVERYTHING = "x$(touch canary)`touch canary`;touch canary|touch canary&a[$(touch canary)]'\"\\ * ~"


def canaries(tree):
    return [path for path in tree.root.rglob("canary*") if path.is_file()]


def options():
    """Names of all options of a recipe."""
    text = (ROOT / "utils/options.sh").read_text(encoding="utf-8")
    return re.findall(r"(?m)^([a-z][a-z0-9_]*)=", text)


FREE = {"train_args", "probe_args", "skip_phones", "datadir", "dumpdir", "expdir", "results"}  # take any text


def test_options_refuse_invalid_values(tree):
    for option in sorted(set(options()) - FREE):
        for payload in PAYLOADS if option in ("nj", "tag", "models") else PAYLOADS[:1]:
            status, _, error = tree.run("--stage", "3", "--stop_stage", "3", f"--{option}={payload}")
            assert status == 2 and error.startswith("run.sh: "), (option, payload, status, error)
    assert canaries(tree) == []


def test_options_that_take_any_text_hand_it_on(tree):
    words = ["--models", "a", "--nj", "1", *(f"--{name}={EVERYTHING} {name}" for name in sorted(FREE))]
    given = []
    stages = {"2": [], "3": [], "7": ["--analyses", "phones"], "8": ["--analyses", "probes"], "10": []}
    for stage, more in stages.items():
        status, _, error = tree.run(*words, *more, "--stage", stage, "--stop_stage", stage)
        assert status == 0, error
        given += [word for call in tree.calls() for word in call]
    assert canaries(tree) == []
    for word in EVERYTHING.split():
        assert given.count(word) >= 3  # --train_args, --skip_phones and --probe_args are words
    for name in ("datadir", "dumpdir", "expdir", "results"):
        assert any(f"{EVERYTHING} {name}" in word for word in given), name


def test_names_and_contents_of_configurations(tree):
    names = [
        f"{before}touch${{IFS}}canary{after}" for before, after in (("$(", ")"), ("`", "`"), ("a;", ""), ("a[$(", ")]"))
    ]
    for name in names:
        (tree.recipe / f"conf/{name}.yaml").write_text("model: !!python/object/apply:os.mkdir [canary]\n")
        (tree.recipe / f"conf/tables/{name}.yaml").write_text(f"rows:\n  - {{experiment: {name}}}\n")
    status, _, error = tree.run("--models", "all", "--stage", "3", "--stop_stage", "3")
    assert status == 0, error
    configs = {call[call.index("--config") + 1] for call in tree.calls()}
    assert {f"conf/{name}.yaml" for name in names} < configs
    status, _, error = tree.run("--tables", names[0], "--stage", "3", "--stop_stage", "3")
    assert status == 2 and "no system in conf" in error
    assert canaries(tree) == []


def test_the_environment_is_data(tree):
    hostile = "a[$(touch canary)]`touch canary`"
    names = ("speaker", "material", "dump_args", "sample_args", "SECONDS", "current", "optional", "option_files")
    tree.run("--stage", "10", **dict.fromkeys(names, hostile))
    assert canaries(tree) == []


def test_an_experiments_own_configuration(tree):
    """same_inputs of stage 4 reads the coding of what somebody may have copied there."""
    path = tree.recipe / "exp/train/a/seed1/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("coding: a[$(touch canary)]`touch canary`;touch canary\n")
    words = ["--models", "a", "--nj", "1", "--codings", "mulaw-pcm"]
    status, out, error = tree.run("--stage", "4", "--stop_stage", "4", *words)
    assert status == 0, error
    assert "no score over the cells of mulaw-pcm: trained on a[$(touch canary)]" in out
    assert canaries(tree) == []
