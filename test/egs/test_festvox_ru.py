"""festvox-ru: what its preparation reads and refuses, and where stage 0 gets it from."""

import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from imitations.festvox_ru import TEXTS, VOICE, make, package
from programs import call, load

from speechlvm.data.audio import write_wav
from speechlvm.data.kaldi.directory import load_data_dir

RECIPE = Path(__file__).resolve().parents[2] / "egs/festvox_ru"
SETS = {"train": ["ru_0002", "ru_0004", "ru_0013"], "valid": ["ru_0005"], "test": ["ru_0001"]}
WAV, LAB, TEXT = f"{VOICE}/wav/ru_0004.wav", f"{VOICE}/lab/ru_0004.lab", f"{VOICE}/etc/txt.done.data"

prepare = load(RECIPE / "local/prepare.py")
unpack = load(RECIPE / "local/unpack.py")


@pytest.fixture
def corpus(tmp_path) -> Path:
    return make(tmp_path / "corpus of mine")


def run(corpus: Path, out: Path, *arguments: str):
    return call(prepare.main, "--corpus", corpus, "--out", out, *arguments)


def test_what_is_written(corpus, tmp_path):
    done = run(corpus, tmp_path)
    assert done.returncode == 0, done.stderr
    expected = "5 utterances, 83 labels, 21000 frames; the whole corpus (version 0.5+dfsg-6) has 620 utterances, "
    assert done.stderr == f"warning: {corpus / VOICE}: {expected}54372 labels, 95532626 frames\n"
    assert done.stdout.splitlines()[2].endswith("1 speaker (1 m), 1 of them also in train")
    data = {name: load_data_dir(tmp_path / name) for name in SETS}
    assert {name: part.utterances for name, part in data.items()} == SETS
    assert all(part.spk2gender == {"ru": "m"} for part in data.values())
    assert data["train"].text["ru_0002"] == TEXTS["ru_0002"]
    test = data["test"]
    assert test.text == {"ru_0001": "Мелкие кольца волос, падали на лоб."}
    assert test.num_samples == {"ru_0001": 4000} and test.wav["ru_0001"] == corpus / VOICE / "wav/ru_0001.wav"
    phones = test.phones["ru_0001"]
    assert phones[:3] == [(0, 192, "pau"), (192, 352, "ru_m"), (352, 512, "ru_ee")]
    assert phones[-2:] == [(2272, 2432, "ru_aa"), (2432, 4000, "pau")]  # two pauses, and up to the end


def test_a_tenth_each_is_held_out_by_hash():
    uses = prepare.divide(f"ru_{number:04d}" for number in range(620))
    assert Counter(uses.values()) == {"train": 496, "valid": 62, "test": 62}
    assert uses == prepare.divide(reversed(uses))
    numbers = [int(name[3:]) for name, use in uses.items() if use == "test"]
    assert min(numbers) < 62 and max(numbers) > 558 and 250 < sum(numbers) / 62 < 370


@pytest.mark.parametrize("part", ["", "usr/share", VOICE, f"{VOICE}/wav"])
def test_the_voice_is_found(corpus, tmp_path, part):
    assert run(corpus / part, tmp_path).returncode == 0


def edit(name: str, old: str, new: str):
    def change(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        assert old in text
        (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


FAULTS = {
    "ru_0004.wav: sampling rate 8000 Hz; expected 16000 Hz": lambda root: write_wav(
        root / WAV, np.ones(4200, np.int16), 8000
    ),
    "ru_0004.wav: no such file": lambda root: (root / WAV).unlink(),
    "ru_0004.lab: cannot be read (No such file or directory)": lambda root: (root / LAB).unlink(),
    "txt.done.data: no text of ru_0004": edit(TEXT, '( ru_0004 "Кто-то идёт: не он ли?" )\n', ""),
    "txt.done.data:3: expected '( ru_0001 \"text\" )'; found '( ru_0004 Кто-то": edit(TEXT, '4 "', "4 "),
    "txt.done.data:4: a second text of ru_0004": edit(TEXT, "ru_0005", "ru_0004"),
    "ru_0004.lab:1: expected '#' alone; found '0.0": edit(LAB, "#\n", ""),
    "ru_0004.lab:2: expected 'end colour phone', as '0.34200 125 pau'; found '0.01200 pau'": edit(LAB, "125 ", ""),
    "ru_0004.lab:2: expected 'end colour phone', as '0.34200 125 pau'; found 'nan 125 pau'": edit(
        LAB, "0.01200", "nan"
    ),
    "ru_0004.lab:3: 'm' ends at 0.01200 s; expected an end after 0.01200 s": edit(LAB, "0.02200", "0.01200"),
    "ru_0004.lab:18: 'pau' ends at 9.25200 s; expected an end in the audio's 0.26250 s": edit(
        LAB, "0.25200", "9.25200"
    ),
    "ru_0004.lab:3: unknown phone 'ax'; expected pau or one of the 50": edit(LAB, "125 m", "125 ax"),
    "ru_0004.lab: the last label is 'aa'; expected pau": edit(
        LAB, "125 aa\n0.16200 125 pau\n0.25200 125 pau", "125 aa"
    ),
}


@pytest.mark.parametrize(("message", "change"), FAULTS.items(), ids=FAULTS)
def test_faults_stop_with_file_and_line_and_nothing_written(corpus, tmp_path, change, message):
    change(corpus)
    done = run(corpus, tmp_path / "out")
    assert done.returncode == 1 and sum(message in line for line in done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out/train").exists()


def test_other_files_are_counted(corpus, tmp_path):
    (corpus / VOICE / "wav/ru_0001.txt").touch()
    assert "warning: files are not of an utterance and were left out: " in run(corpus, tmp_path).stderr


# Stage 0, in a copy of the recipe; where there are no other programs than these and, if a test wants it, an apt-get.
APT = """#!/bin/bash
[ "$*" = "-q download festvox-ru" ] && [ -f "${PACKAGE}" ] || { echo "E: Unable to locate package" >&2; exit 100; }
cp "${PACKAGE}" festvox-ru_1_all.deb
"""
SYSTEM = ("bash", "basename", "cp", "dirname", "mkdir", "mv", "rm", "sha256sum")


@pytest.fixture
def stage_0(tmp_path):
    recipe, programs = tmp_path / "egs/a recipe", tmp_path / "bin"
    shutil.copytree(RECIPE / "local", recipe / "local")
    (recipe / "utils").symlink_to(RECIPE / "../../utils")
    programs.mkdir()
    for name in SYSTEM:
        (programs / name).symlink_to(shutil.which(name))
    # a link would not find the packages of an environment
    (programs / "python").write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    (programs / "python").chmod(0o755)

    def run(*arguments: object, apt: str = "", dpkg: bool = False) -> tuple[subprocess.CompletedProcess, Path]:
        if apt:
            (programs / "apt-get").write_text(APT, encoding="utf-8")
            (programs / "apt-get").chmod(0o755)
        if dpkg:
            (programs / "dpkg-deb").symlink_to(shutil.which("dpkg-deb") or pytest.skip("no dpkg-deb"))
            (programs / "tar").symlink_to(shutil.which("tar"))
        words = ["bash", "local/download.sh", *map(str, arguments)]
        environment = {**os.environ, "PATH": str(programs), "PACKAGE": apt}
        return subprocess.run(words, cwd=recipe, env=environment, capture_output=True, text=True), recipe

    return run


@pytest.mark.parametrize("dpkg", [False, True], ids=["alone", "dpkg-deb"])
def test_a_package_that_is_given_is_unpacked_once(corpus, tmp_path, stage_0, dpkg):
    given = package(corpus, tmp_path / "a voice.deb")
    done, recipe = stage_0("--package", given, "--corpus", "downloads/a voice", dpkg=dpkg)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"warning: {given}: not the package of version 0.5+dfsg-6")
    unpacked = recipe / "downloads/a voice"
    assert [path.name for path in unpacked.parent.iterdir()] == ["a voice"] and given.exists()
    files = [
        sorted((p.relative_to(r), p.read_bytes()) for p in r.rglob("*.*") if p.is_file()) for r in (corpus, unpacked)
    ]
    assert files[0] == files[1] and len(files[0]) == 17
    given.unlink()
    again, _ = stage_0("--package", given, "--corpus", "downloads/a voice")
    assert (again.returncode, again.stdout, again.stderr) == (0, "corpus: downloads/a voice\n", "")


def test_without_a_package_apt_downloads_it(corpus, tmp_path, stage_0):
    done, recipe = stage_0("--corpus", "downloads/festvox-ru", apt=package(corpus, tmp_path / "x.deb"))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (recipe / "downloads").iterdir()] == ["festvox-ru"]
    assert (recipe / "downloads/festvox-ru" / WAV).read_bytes() == (corpus / WAV).read_bytes()


def test_stage_0_says_what_to_get(tmp_path, stage_0):
    damaged = tmp_path / "damaged.deb"
    damaged.write_bytes(b"!<arch>\n")
    remedy = (
        "get Debian's package festvox-ru (festvox-ru_0.5+dfsg-6_all.deb, 179 MB) and set its path: FESTVOX_RU= in db.sh"
    )
    default = ("--corpus", "downloads/festvox-ru")
    for arguments, apt, message in (
        (default, "", f"no apt-get here to download the corpus with; {remedy}"),
        (default, "none", "apt-get cannot download festvox-ru; update its lists (apt-get update), or get Debian's"),
        (("--package", "no.deb", "--corpus", "downloads/no"), "", "no file 'no.deb' (relative paths start at "),
        (("--package", damaged, "--corpus", "downloads/d"), "", f"{damaged}: damaged, or not of the type its name"),
    ):
        done, recipe = stage_0(*arguments, apt=apt)
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1], done.stderr
        assert not list((recipe / "downloads").glob("[!a]*"))


@pytest.mark.recipe
def test_the_recipe_runs(run_recipe):
    run_recipe("festvox_ru", probed=True)
