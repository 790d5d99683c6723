"""Programs that know how much they will write refuse before they begin, in one line, and lose nothing."""

import shutil

import pytest

from speechlvm.bin import dump, latents, score, spectra, train
from speechlvm.data.audio import write_wav
from speechlvm.data.kaldi.directory import DataDirectory, write_data_dir
from speechlvm.utils.errors import UserError

LENGTHS = [6000, 4000]


def run(program, *arguments):
    return program.main([str(argument) for argument in arguments])


@pytest.fixture
def commands(tmp_path, make_dump, tiny_config, speech_like):
    """Program -> its arguments, but for --out."""
    for i, length in enumerate(LENGTHS):
        write_wav(tmp_path / f"s{i}.wav", speech_like(length, i), 16000)
    names = [f"s{i}" for i in range(len(LENGTHS))]
    wav = {name: tmp_path / f"{name}.wav" for name in names}
    data = DataDirectory(dict(zip(names, names, strict=True)), wav, num_samples=dict(zip(names, LENGTHS, strict=True)))
    write_data_dir(data, tmp_path / "data")
    sets = ["--train", make_dump("train", LENGTHS), "--valid", make_dump("valid", LENGTHS)]
    config = tiny_config(("steps: 12", "steps: 1"))
    run(train, "--config", config, *sets, "--out", tmp_path / "exp")
    return {
        dump: ["--data", tmp_path / "data"],
        train: ["--config", config, *sets],
        score: ["--exp", tmp_path / "exp", "--dump", sets[1]],
        latents: ["--exp", tmp_path / "exp", "--dump", sets[1]],
        spectra: ["--dump", sets[1]],
    }


def test_what_does_not_fit_is_refused_before_it_is_begun(commands, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    for program, arguments in commands.items():
        out = tmp_path / "out" / program.__name__
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(UserError, match=rf"^{out}.*: about \d+ bytes are needed and 1000 are free") as caught:
            run(program, *arguments, "--out", out)
        needed = int(str(caught.value).split("about ")[1].split()[0])
        assert not (out / "done.json").exists() and not list(out.rglob("*.ark")) and not list(out.rglob("*.pt"))
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=needed: usage._replace(free=free))
        run(program, *arguments, "--out", out)
        written = sum(path.stat().st_size for path in out.rglob("*") if path.suffix in (".ark", ".npy", ".pt", ".json"))
        assert written / 5 < needed < 5 * written + 10000, program
