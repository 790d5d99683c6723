"""The shared stages: utils/stages.sh with the mini recipe's own scripts, and programs that only record their calls."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from programs.recipe import USUAL


def sharded(program, out, nj=1):
    if nj == 1:
        return single(program, out)
    return [f"{program} check {out}", *[f"{program} job {j} {out}" for j in range(1, nj + 1)], f"{program} merge {out}"]


def single(program, out=""):
    return [f"{program} check {out}".strip(), f"{program} {out}".strip()]


@pytest.mark.slow  # about a hundred processes, one after another
def test_all_stages_in_order(tree):
    labels = tree.recipe / "data" / "train" / "phones"
    labels.parent.mkdir(parents=True)
    labels.touch()
    sets = ("train", "valid", "test")
    options = ("--analysis_sets", " ".join(sets), "--probe_minutes", "all")
    status, out, err = tree.run("--nj", "1", *options)
    assert (status, err) == (0, "")
    experiments = ["exp/train/a/seed1", "exp/train/b/seed1"]
    expected = ["synthesise.py data/corpus", "prepare.py data", "validate"]
    for name in ("train", "valid", "test"):
        expected += sharded("dump", f"dump/pcm16/{name}")
    for e in experiments:
        expected += single("train", e)
    expected += ["codecs"]
    for directory in [
        "exp/train/squeeze",
        "exp/train/uniform",
        "exp/train/dmol",
        "exp/train/dmol_mulaw-pcm",
        "exp/train/flac",
        "exp/train/flac-cli",
        "exp/train/adaptive",
    ]:
        expected += sharded("baseline", f"{directory}/score_test")
    for e in experiments:
        expected += sharded("score", f"{e}/score_test") + sharded("score", f"{e}/score_test_mulaw-pcm")
    expected += ["likelihoods"]
    expected += single("sample", "exp/train/adaptive/samples")
    for e in experiments:
        expected += single("sample", f"{e}/samples")
    for name in sets:
        expected += sharded("spectra", f"exp/train/spectra/latents_{name}")
    for e in experiments:
        for name in sets:
            expected += sharded("latents", f"{e}/latents_{name}")
    expected += single("durations")
    for e in ["exp/train/spectra", *experiments]:
        expected += single("analyse", f"{e}/analysis")
    for e in ["exp/train/spectra", *experiments]:
        expected += sharded("probe", f"{e}/probes")
    expected += ["baseline check exp/train/flac/score_test"]
    for e in ["exp/train/adaptive", *experiments]:
        expected += single("roundtrip", f"{e}/compressed_test")
    expected += single("report", "exp/train/RESULTS.md") + single("page") * len(experiments) + ["likelihoods"]
    assert tree.summary(checks=True) == expected
    assert "no absent: its program pack is not installed" in out and not (tree.recipe / "exp/train/absent").exists()
    assert out.count("| some | 1.0 |") == 2  # the likelihoods, after stage 4 and last
    assert out.index("| some | 1.0 |") < out.index("stage 5 (") < out.rindex("| some | 1.0 |")
    assert (tree.root / "tools" / "called").exists()
    for number in range(11):
        assert f"stage {number} (" in out
    assert "log: exp/train/a/seed1/logs/train.log" in out
    assert (tree.recipe / "exp/train/a/seed1/logs/train.log").exists()


@pytest.mark.slow  # six runs of a recipe, each of many processes
def test_what_stages_6_to_8_are_asked_for(tree):
    """Statistics beyond means where they are analysed; missing labels are an error only for what is named."""
    chosen = ("--models", "a", "--stage", "6", "--stop_stage", "8")
    status, out, _ = tree.run(*chosen, "--analysis_sets", "")
    assert status == 0 and "no probes: neither phones nor text of uncut speech in data/train" in out
    calls = [call for call in tree.calls() if "--merge" not in call]
    assert {call[call.index("--out") + 1] for call in calls if call[1].endswith("latents")} == {
        "exp/train/a/seed1/latents_test"
    }
    analysed = [call for call in calls if call[1].endswith("analyse")]
    assert len(analysed) == 2  # one process for spectra, and one for each experiment
    for call in analysed:
        assert call[call.index("--analysis") + 1 : call.index("--latents")] == ["levels", "phones", "gender", "height"]
        assert "--optional" in call

    status, _, err = tree.run(*chosen, "--analyses", "gender probes", "--analysis_sets", "valid test", "--expdir", "e")
    assert (status, err) == (0, "")
    calls = [call for call in tree.calls() if "--merge" not in call]
    statistics = {}
    for call in calls:
        if call[1].endswith("latents"):
            statistics[call[call.index("--dump") + 1]] = call[call.index("--statistics") + 1 : call.index("--ngpu")]
    everything = ["mean", "std", "kl"]
    assert statistics == {
        "dump/pcm16/valid": everything,
        "dump/pcm16/test": everything,
        "dump/pcm16/train": ["mean"],
    }
    programs = {call[1].rpartition(".")[2] for call in calls}
    assert programs == {"spectra", "latents", "analyse", "probe"}
    for call in calls:
        assert "--optional" not in call
        if call[1].endswith("analyse"):
            assert call[call.index("--analysis") + 1 : call.index("--latents")] == ["gender"]
            assert call[call.index("--data") + 1 :][:2] == ["data/valid", "data/test"]

    status, out, _ = tree.run(*chosen, "--analyses", "levels")
    assert status == 0 and "no probes: not among --analyses levels" in out
    status, _, err = tree.run(
        *chosen, "--analyses", "probes", "--analysis_sets", "test", "--probe_minutes", "10 9.5", "--expdir", "f"
    )
    assert (status, err) == (0, "")
    calls = [call for call in tree.calls() if "--merge" not in call]
    probes = {"f/train/spectra/probes", "f/train/a/seed1/probes"}  # --minutes are sizes there
    shares = {call[call.index("--out") + 1]: call[call.index("--minutes") + 1] for call in calls if "--minutes" in call}
    assert shares["f/train/spectra/latents_train"] == shares["f/train/a/seed1/latents_train"] == "10"
    assert set(shares) == {f"f/train/{what}" for what in ("spectra/latents_train", "a/seed1/latents_train")} | probes

    script = tree.recipe / "run.sh"
    recipe = script.read_text(encoding="utf-8")
    script.write_text(recipe.replace("train_set=train\n", "train_set=train\nmaterial=vectors\n"), encoding="utf-8")
    status, _, err = tree.run(*chosen, "--analyses", "levels probes", "--expdir", "v")
    assert status == 1 and "--analyses probes: probes are for speech, not for vectors" in err
    script.write_text(recipe, encoding="utf-8")

    status, _, err = tree.run(*chosen, "--analyses", "durations")
    assert status == 1 and "--analyses durations: data/train/phones: no such file" in err


def test_what_is_complete_is_not_done_again(tree):
    assert tree.run("--stage", "2", "--stop_stage", "2")[0] == 0
    assert len(tree.calls(checks=True)) == 3 * (1 + 2 + 1)
    status, out, _ = tree.run("--stage", "2", "--stop_stage", "2")
    assert status == 0
    assert tree.summary(checks=True) == [f"dump check dump/pcm16/{name}" for name in ("train", "valid", "test")]
    assert out.count("  complete\n") == 3


def test_commands_in_tables_of_audio_are_run_only_if_asked_for(tree):
    for options, given in (((), False), (("--allow_pipes", "true"), True)):
        assert tree.run("--stage", "1", "--stop_stage", "2", *options)[0] == 0
        calls = [call for call in tree.calls() if call[0] == "validate" or call[1].endswith("dump")]
        calls = [call for call in calls if "--merge" not in call]
        assert len(calls) == 1 + 3 * 2 and all(("--allow_pipes" in call) == given for call in calls)
        shutil.rmtree(tree.recipe / "dump")


def test_arguments_of_training(tree):
    status, _, err = tree.run(
        "--stage", "3", "--stop-stage", "3", "--models", "a", "--tag", "wide", "--seeds", "7",
        "--train-args", "--limits.seconds 60 --data.workers 0", "--nthreads", "3",
        "--max_frames", "9000",
    )  # fmt: skip
    assert (status, err) == (0, "")
    path = tree.python.parent / "calls"
    [[asked, _], [arguments, threads]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert asked == [*arguments, "--check"]
    assert threads == "3"
    assert arguments == [
        "-m", "speechlvm.bin.train", "--config", "conf/a.yaml", "--train", "dump/pcm16/train",
        "--valid", "dump/pcm16/valid", "--out", "exp/train/a_wide/seed7", "--seed", "7", "--ngpu", "0",
        "--num_nodes", "1", "--data.max_frames", "9000", "--limits.seconds", "60", "--data.workers", "0",
    ]  # fmt: skip


def test_scores_over_further_codings_and_directories_with_blanks(tree):
    status, _, err = tree.run(
        "--stage", "4", "--stop_stage", "4", "--models", "a", "--nj", "1", "--codings", "linear",
        "--expdir", "my JOB exp", "--dumpdir", "my dump",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert tree.summary(checks=True) == [
        "codecs",
        *sharded("baseline", "my JOB exp/train/squeeze/score_test"),
        *sharded("baseline", "my JOB exp/train/uniform/score_test"),
        *sharded("baseline", "my JOB exp/train/dmol/score_test"),
        *sharded("baseline", "my JOB exp/train/dmol_linear/score_test"),
        *sharded("baseline", "my JOB exp/train/flac/score_test"),
        *sharded("baseline", "my JOB exp/train/flac-cli/score_test"),
        *sharded("baseline", "my JOB exp/train/adaptive/score_test"),
        *sharded("score", "my JOB exp/train/a/seed1/score_test"),
        *sharded("score", "my JOB exp/train/a/seed1/score_test_linear"),
        "likelihoods",
    ]


@pytest.mark.parametrize("own", [True, False])
def test_a_recipes_own_codecs_take_precedence(tree, own):
    if own:
        (tree.recipe / "conf" / "codecs.yaml").touch()
    assert tree.run("--stage", "4", "--stop_stage", "4", "--models", "a", "--nj", "1")[0] == 0
    used = "conf/codecs.yaml" if own else str(tree.root / "utils/conf/codecs.yaml")
    listed, *calls = tree.calls()
    assert listed[1:] == ["speechlvm.bin.codecs", used]
    [squeeze] = [call for call in calls if "squeeze" in call]
    assert squeeze[squeeze.index("--name") + 1 :][:3] == ["squeeze", "--codecs", used]


def test_a_malformed_list_of_codecs_stops_stage_4(tree):
    tree.behave("codecs 2")
    status, _, err = tree.run("--stage", "4", "--stop_stage", "4", "--models", "a")
    assert status == 2 and "the reason is written here" in err and len(tree.calls()) == 1


@pytest.mark.parametrize("trained", ["mulaw", "mulaw-pcm", "linear", "normalised", "mulaw8"])
def test_only_what_was_trained_on_a_lossless_coding_compresses(tree, trained):
    directory = tree.recipe / "exp/train/a/seed1"  # b was not trained
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(f"model: lstm\ncoding: {trained}\n", encoding="utf-8")
    status, out, err = tree.run("--stage", "9", "--stop_stage", "9", "--compress_utterances", "all")
    assert (status, err) == (0, "")
    calls = [call for call in tree.calls() if call[1].endswith("roundtrip")]
    words = ["--dump", "dump/pcm16/test", "--out", "exp/train/{}/compressed_test", "--utterances", "all"]
    models = {"adaptive": ["--adaptive"], "a/seed1": ["--exp", "exp/train/a/seed1"]}
    said = f"no files: trained on {trained}" in out
    assert said == (trained in ("normalised", "mulaw8"))
    expected = list(models)[: 1 if said else 2]
    assert [call[2:] for call in calls] == [
        [*models[name], *(word.format(name) for word in words)] for name in expected
    ]


def test_vectors_are_not_compressed(tree):
    script = tree.recipe / "run.sh"
    recipe = script.read_text(encoding="utf-8")
    script.write_text(recipe.replace("train_set=train\n", "train_set=train\nmaterial=vectors\n"), encoding="utf-8")
    status, out, _ = tree.run("--stage", "9", "--stop_stage", "9")
    assert (status, tree.calls()) == (0, []) and "no files: of audio only" in out


def test_a_further_set_is_dumped_and_scored_in_place_of_the_test_sets(tree, tmp_path):
    folder = tmp_path / "some where" / "mine"
    folder.mkdir(parents=True)
    chosen = ("--stage", "4", "--stop_stage", "4", "--models", "a", "--nj", "1", "--codings", "")
    status, _, err = tree.run(*chosen, "--score_dir", str(folder))
    assert (status, err) == (0, "")
    calls = tree.calls()
    [dump] = [call for call in calls if call[1].endswith("dump")]
    assert dump[2:6] == ["--data", str(folder), "--out", "dump/pcm16/mine"]
    scored = {call[call.index("--out") + 1] for call in calls if call[1].endswith(("score", "baseline"))}
    assert {"exp/train/dmol/score_mine", "exp/train/flac/score_mine", "exp/train/a/seed1/score_mine"} < scored
    assert all(out.endswith("/score_mine") for out in scored)
    for name, message in (("none", "no such directory"), ("a b", "its name is that of"), ("test", "has a set of that")):
        if name != "none":
            (tmp_path / name).mkdir()
        status, _, err = tree.run(*chosen, "--score_dir", str(tmp_path / name))
        assert (status, err.count("\n")) == (2, 1) and message in err
    assert tree.calls(checks=True) == []


def test_durations_are_drawn_of_the_sets_that_have_phones(tree):
    for name in ("train", "test"):
        (tree.recipe / "data" / name).mkdir(parents=True)
        (tree.recipe / "data" / name / "phones").touch()
    assert tree.run("--stage", "7", "--stop_stage", "7", "--analyses", "durations")[0] == 0
    (call,) = tree.calls()
    assert call[2:] == ["--data", "data/train", "data/test", "--speaker", "", "--exp", "exp/train"]


def test_tables_restrict_scores_that_need_no_network(tree):
    for stage in ("4", "9"):
        assert tree.run("--stage", stage, "--stop_stage", stage, "--tables", "T1", "--models", "c", "--nj", "1")[0] == 0
    assert tree.summary(checks=True) == [
        *sharded("baseline", "exp/train/uniform/score_test"),  # the others are in no row
        *sharded("score", "exp/train/c/seed1/score_test"),
        *sharded("score", "exp/train/c/seed1/score_test_mulaw-pcm"),
        "likelihoods",
    ]


def test_a_table_without_experiments_can_only_be_printed(tree):
    (tree.recipe / "conf" / "tables" / "T2.yaml").write_text("rows:\n  - {minimum_std: 1}\n", encoding="utf-8")
    status, _, err = tree.run("--stage", "3", "--tables", "T2", "--models", "all")
    assert (status, err.count("\n")) == (2, 1)
    assert "--tables 'T2': computed, so no system in conf/*.yaml is selected; print it with --stage 10" in err
    assert tree.run("--stage", "10", "--tables", "T2", "--models", "all")[0] == 0
    assert tree.summary() == ["report exp/train/RESULTS.md", "likelihoods"]


@pytest.mark.parametrize("trained", ["mulaw", "mulaw-pcm", "normalised", "mulaw8"])
def test_a_network_is_scored_over_further_cells_only_if_its_inputs_stay_the_same(tree, trained):
    directory = tree.recipe / "exp/train/a/seed1"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(f"model: lstm\ncoding: {trained}\n", encoding="utf-8")
    status, out, err = tree.run("--stage", "4", "--stop_stage", "4", "--models", "a", "--nj", "1")
    assert (status, err) == (0, "")
    scores = [line for line in tree.summary(checks=True) if line.startswith("score")]
    further = sharded("score", "exp/train/a/seed1/score_test_mulaw-pcm")
    assert scores == sharded("score", "exp/train/a/seed1/score_test") + (further if trained == "mulaw" else [])
    said = f"no score over the cells of mulaw-pcm: trained on {trained}" in out
    assert said == (trained in ("normalised", "mulaw8"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--models", "all"], ["a", "a_c", "b", "c"]),
        (["--models", "b c"], "bc"),
        (["--models", "all", "--tables", "T1"], "c"),
        (["--models", "a c", "--tables", "T1"], "c"),
    ],
)
def test_selection_of_systems(tree, arguments, expected):
    assert tree.run("--stage", "3", "--stop_stage", "3", *arguments)[0] == 0
    assert tree.summary() == [f"train exp/train/{model}/seed1" for model in expected]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor runs one system at a time")
def test_systems_that_use_few_processors_run_side_by_side(tree):
    tree.behave("train meet")  # one that fails does not stop the others
    status, _, err = tree.run("--stage", "3", "--stop_stage", "3", "--models", "a b c", "--nthreads", "1")
    assert status == 1 and "stage 3 (train) failed with status 1" in err
    assert sorted(tree.summary()) == [f"train exp/train/{model}/seed1" for model in "abc"]
    logs = [tree.recipe / f"exp/train/{model}/seed1/logs/train.log" for model in "abc"]
    assert all("with exit status 3" in log.read_text(encoding="utf-8") for log in logs)  # 4: they timed out


def test_some_systems_are_not_looked_at(tree):
    for model in "ab":
        directory = tree.recipe / f"exp/train/{model}/seed1"
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_text("coding: mulaw\n", encoding="utf-8")
    skip = ["--skip_analysis", "a", "--skip_compression", "b"]
    assert tree.run("--stage", "6", "--stop_stage", "9", "--nj", "1", *skip)[0] == 0
    calls = [line for line in tree.summary() if "exp/train/a/" in line or "exp/train/b/" in line]
    assert {(line.split()[0], line.split("/")[2]) for line in calls} == {
        ("latents", "b"),
        ("analyse", "b"),
        ("roundtrip", "a"),
    }


def test_smoke_is_kept_apart(tree):
    assert tree.run("--smoke", "true", "--stage", "3", "--stop_stage", "3", "--models", "a")[0] == 0
    [call] = tree.calls()
    assert call[call.index("--out") + 1] == "smoke/exp/train/a/seed1"
    assert "--limits.steps" in call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "9", "--stop_stage", "3"], "--stage 9 --stop_stage 3: stop_stage precedes stage"),
        (["--stage", "11"], "--stage '11': expected an integer from 0 to 10"),
        (["--nj", "2.5"], "--nj '2.5'"),
        (["--ngpu", "1"], "--ngpu 1: 0 GPUs are visible"),
        (["--num_nodes", "2"], "--num_nodes 2: cmd_backend=local (cmd.sh) trains on one machine"),
        (["--max_frames", "0"], "--max_frames '0': expected an integer from 1"),
        (["--models", "a nonesuch"], "unknown 'nonesuch'; expected: a a_c b c"),
        (["--tables", "Z9"], "unknown 'Z9'; expected: T1"),
        (["--models", "a", "--tables", "T1"], "--models 'a' --tables 'T1': no system in conf/*.yaml is selected"),
        (["--seeds", "1,2"], "--seeds '1,2'"),
        (["--tag", "a/b"], "--tag 'a/b'"),
        (["--models", "a b", "--tag", "c"], "--tag 'c': a_c is the name of another system"),
        (["--sample_seconds", "-1"], "--sample_seconds '-1': expected a number of seconds above 0"),
        (["--analyses", "phone"], "unknown 'phone'; expected: levels phones gender height durations probes"),
        (["--analysis_sets", "dev"], "unknown 'dev'; expected: train valid test"),
        (["--compress_utterances", "some"], "--compress_utterances 'some': expected an integer from 1 to 999999999"),
        (["--probe_minutes", "10 most"], "--probe_minutes '10 most': expected numbers of minutes above 0, or all"),
        (["--nonsense", "1"], "unknown option '--nonsense'"),
        (["leftover"], "unexpected argument 'leftover'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(tree, arguments, message):
    status, out, err = tree.run(*arguments)
    assert status == 2
    assert message in err
    assert (err.count("\n"), out) == (1, "")
    assert tree.calls() == []
    assert not (tree.root / "tools" / "called").exists()


def test_seconds_are_not_ignored_where_lengths_are_in_frames(tree):
    script = tree.recipe / "run.sh"
    text = script.read_text(encoding="utf-8")
    script.write_text(
        text.replace("train_set=train\n", "train_set=train\nsample_args=(--frames 7)\n"), encoding="utf-8"
    )
    status, _, err = tree.run("--stage", "10", "--sample_seconds", "3")
    assert status == 2 and "--sample_seconds 3: this recipe sets the length of samples in frames" in err
    assert tree.run("--stage", "10")[0] == 0


def environment_of_programs(tree, **environment):
    """What path.sh makes of this."""
    command = ["bash", "-c", 'cd "$1" && . utils/path.sh && env', "bash", tree.root]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_what_is_set_for_another_python_or_shell_is_not_seen(tree):
    other = {"PYTHONPATH": "/x", "PYTHONHOME": "/x", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    seen = environment_of_programs(tree, CDPATH=".", **other)
    assert not other.keys() & seen.keys() and seen["PATH"].startswith(f"{tree.python.parent}:{tree.root}/utils:")


def test_a_user_without_a_name_has_one(tree, tmp_path):
    (tmp_path / "id").write_text('#!/bin/sh\n[ "$1" = -u ] && echo 12345\n', encoding="utf-8")
    (tmp_path / "id").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert environment_of_programs(tree, PATH=path, LOGNAME="")["LOGNAME"] == "12345"
    assert environment_of_programs(tree, PATH=path, LOGNAME="me")["LOGNAME"] == "me"
    (tmp_path / "id").write_text("#!/bin/sh\n", encoding="utf-8")
    assert environment_of_programs(tree, PATH=path, LOGNAME="")["LOGNAME"] == ""


def test_help_needs_no_environment(tree):
    status, out, _ = tree.run("--help")
    assert status == 0
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("  --")}
    names = "stage stop_stage models nj ngpu expdir dumpdir datadir tag seeds tables analyses valid_by smoke"
    assert listed >= {f"--{name}" for name in names.split()}
    assert not (tree.root / "tools" / "called").exists()


def test_a_failure_names_stage_and_log_and_stops_after_the_other_experiments(tree):
    tree.behave("train 1")
    status, _, err = tree.run("--stage", "3", "--stop_stage", "5")
    assert status == 1
    assert "exp/train/a/seed1/logs/train.log" in err
    assert "the reason is written here" in err
    assert "stage 3 (train) failed with status 1" in err
    assert tree.summary() == ["train exp/train/a/seed1", "train exp/train/b/seed1"]


def test_a_cluster_is_given_all_experiments_at_once(tree):
    (tree.recipe / "cmd.sh").unlink()  # a recipe's own in the place of the link
    (tree.recipe / "cmd.sh").write_text("cmd_backend=slurm\n. utils/cmd.sh\n", encoding="utf-8")
    shutil.copyfile(tree.root / "utils" / "local.py", tree.root / "utils" / "slurm.py")  # the same calls, without Slurm
    tree.behave("train wait")
    process = tree.start("--stage", "3", "--stop_stage", "3", "--seeds", "1 2")
    logs = [tree.recipe / f"exp/train/{model}/seed{seed}/logs/train.log" for model in "ab" for seed in (1, 2)]
    end = time.monotonic() + 60
    while not (all(map(Path.exists, logs)) and (tree.python.parent / "calls").read_text().count("\n") == 2 * 4):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 75 and "run the same command again" in err
    assert all("# Ended at " in log.read_text(encoding="utf-8") for log in logs)

    tree.behave("train 1")
    status, _, err = tree.run("--stage", "3", "--stop_stage", "4", "--seeds", "1 2")
    assert status == 1 and err.count("the reason is written here") == 4
    assert [line for line in tree.summary() if line.startswith("score")] == []


def test_an_interrupted_program_is_no_failure(tree):
    tree.behave("score 75")
    status, _, err = tree.run("--stage", "4", "--stop_stage", "4")
    assert status == 75
    assert "stage 4 (score): interrupted; run the same command again" in err


@pytest.mark.skipif(not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), reason="only root can choose a number")
def test_the_status_of_a_program_is_kept_when_its_number_is_used_again(tree):
    script = """
        set -euo pipefail; . utils/jobs.sh; cmd_backend=local; ngpu=0; nthreads=$(getconf _NPROCESSORS_ONLN)
        start_with_room exit 3; first="${children[0]}"
        start_with_room true # takes the place of the first
        for ((i = 0; i < 1000; i++)); do
            echo $((first - 1)) >/proc/sys/kernel/ns_last_pid
            true &
            wait "$!"
            [ "$!" -ne "${first}" ] || { echo again; break; }
        done
        join || echo "$?"
    """
    done = subprocess.run(["bash", "-c", script], cwd=tree.root, capture_output=True, text=True, timeout=1200)
    assert (done.stdout, done.stderr) == ("again\n3\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_recipe_reaches_the_program(tree, number):
    tree.behave("train wait")
    process = tree.start("--stage", "3", "--stop_stage", "3")
    end = time.monotonic() + 60
    while not (tree.python.parent / "waiting").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 75
    assert "run the same command again" in err
    assert "stopping" in (tree.recipe / "exp/train/a/seed1/logs/train.log").read_text(encoding="utf-8")
    assert tree.summary() == ["train exp/train/a/seed1"]


def test_ctrl_c_on_a_terminal(tree):
    # A terminal sends its interrupt to the whole foreground process group.
    tree.behave("train wait")
    process = subprocess.Popen(
        ["bash", tree.recipe / "run.sh", *USUAL, "--stage", "3", "--stop_stage", "3"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not (tree.python.parent / "waiting").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=1200)
    assert process.returncode == 75
    assert tree.summary() == ["train exp/train/a/seed1"]
