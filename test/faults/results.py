"""What a finished step must give again to the bit, and whether the files of an unfinished one are whole.

Not compared, because they hold times: logs (`logs/`, `*.log`), TensorBoard's events (`tb/`), `lock`; of checkpoints the
seconds of training, and so their SHA-256 in best.json; the seconds in history.jsonl and of compression. All else is
compared byte by byte; a checkpoint by each of its tensors and values.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

TEMPORARY = re.compile(r"\..*\.(tmp|old)")
CLOCKS = {"seconds", "sha256", "encode_seconds", "decode_seconds"}


def _left_out(path: Path) -> bool:
    folders = set(path.parts[:-1])
    return bool(folders & {"logs", "tb", "q"}) or path.suffix == ".log" or path.name == "lock"


def files(work: Path) -> dict[str, Path]:
    """Files that count, by their place in `work`; temporary ones too."""
    found = {path.relative_to(work): path for path in sorted(work.rglob("*")) if path.is_file()}
    return {str(name): path for name, path in found.items() if not _left_out(name)}


def _temporary(name: str) -> bool:
    return any(TEMPORARY.fullmatch(part) for part in Path(name).parts)


def _progressing(name: str) -> bool:
    """Whether a file has other contents while a step goes on than before and after it."""
    return "/checkpoints/" in name or name.endswith("history.jsonl")


def digest(name: str, path: Path) -> str:
    """Of what must be the same again.

    Raises:
        Exception: a checkpoint, or what tells of it, is not whole.
    """
    data = path.read_bytes()
    if name.endswith(".pt"):
        return _digest_of(_load(data))
    if ("/checkpoints/" in name or "/compressed_" in name) and name.endswith(".json"):
        return _digest_of(json.loads(data))
    if name.endswith("history.jsonl"):
        return _digest_of([json.loads(line) for line in data.splitlines()])
    return hashlib.sha256(data).hexdigest()


def digests(work: Path) -> dict[str, str]:
    """Digest of each file."""
    return {name: digest(name, path) for name, path in files(work).items()}


def _load(data: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _digest_of(value: Any) -> str:
    total = hashlib.sha256()
    _feed(total, value)
    return total.hexdigest()


def _feed(total: Any, value: Any) -> None:
    import torch

    if isinstance(value, dict):
        for key in sorted(value, key=str):
            if key not in CLOCKS:
                total.update(f"<{key}>".encode())
                _feed(total, value[key])
    elif isinstance(value, (list, tuple)):
        total.update(f"[{len(value)}]".encode())
        for item in value:
            _feed(total, item)
    elif isinstance(value, torch.Tensor):
        total.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    else:
        total.update(repr(value).encode())


def differences(expected: dict[str, str], work: Path) -> list[str]:
    """One line for each file that differs, is missing, or should not be there."""
    found = []
    there = files(work)
    for name, path in there.items():
        if _temporary(name):
            found.append(f"{name}: left behind")
        elif name not in expected:
            found.append(f"{name}: not among the undisturbed results")
        else:
            try:
                if digest(name, path) != expected[name]:
                    found.append(f"{name}: other contents than undisturbed")
            except Exception as error:
                found.append(f"{name}: not whole ({error!r})")
    return found + [f"{name}: missing" for name in expected if name not in there]


def partial(work: Path, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line for each file under its final name that is neither as before, nor as after, nor whole."""
    found = []
    for name, path in files(work).items():
        if _temporary(name):
            continue
        try:
            known = {before.get(name), after.get(name)} - {None}
            if digest(name, path) in known:
                continue
            if known and not _progressing(name):
                found.append(f"{name}: neither the old nor the new contents")
            else:
                _open(path)
        except Exception as error:
            found.append(f"{name}: not whole ({error!r})")
    return found


def _open(path: Path) -> None:
    """Read a whole file by its kind.

    Raises:
        Exception: it is not whole.
    """
    data = path.read_bytes()
    if path.suffix == ".json":
        value = json.loads(data)
        if path.parent.name == "checkpoints":
            weights = path.parent / f"step-{value['step']:08d}.pt"
            if hashlib.sha256(weights.read_bytes()).hexdigest() != value["sha256"]:
                raise ValueError(f"{weights.name} is another one")
    elif path.suffix == ".npy":
        import numpy as np

        np.load(io.BytesIO(data), allow_pickle=False)
    elif path.suffix == ".png":
        from PIL import Image

        Image.open(io.BytesIO(data)).load()
    elif path.suffix == ".wav":
        import soundfile

        soundfile.read(io.BytesIO(data))
    elif path.suffix == ".pdf" and not data.rstrip().endswith(b"%%EOF"):
        raise ValueError("no end of PDF")
    elif path.suffix == ".html" and not data.rstrip().endswith(b"</html>"):
        raise ValueError("no end of HTML")
    elif path.suffix not in (".json", ".npy", ".png", ".wav", ".pdf", ".html", ".pt", ".jsonl"):
        raise ValueError("of a kind that is never written but at the end")
