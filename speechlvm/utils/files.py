"""Atomic writes, and marks of complete stages. Does not import torch."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from speechlvm.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np

DONE, SKIPPED = "done.json", "skipped.json"


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", size: int = 0) -> Iterator[IO]:
    """Open a temporary file that becomes `path` only when the block ends well and its bytes are on disk.

    Args:
        path: file to write.
        mode: "w" or "wb".
        size: lower bound of its size in bytes, if known; for the message about a full disk.

    Raises:
        UserError: the disk is full, a file-size limit is hit, or permission is denied; `path` is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(path, temporary, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            encoding = None if "b" in mode else "utf-8"
            with open(temporary, mode, encoding=encoding) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
            sync_directory(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Make a temporary directory that becomes `path` only when the block ends well; `atomic_write` fills it.

    Raises:
        UserError: `path` exists, the disk is full, or permission is denied.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    remove_leftovers_of(path)
    try:
        with disk_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            if os.path.lexists(path):
                raise UserError(f"{path}: already exists; move it, or choose another name")
            os.rename(temporary, path)
            sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove, at any depth, temporary files of killed processes (`atomic_write`, `atomic_directory`)."""
    _remove_left(list(Path(directory).rglob(".*.tmp")))


def remove_leftovers_of(path: Path) -> None:
    """Remove temporary files of killed processes that were writing this file or directory."""
    _remove_left(list(Path(path).parent.glob(f".{glob.escape(Path(path).name)}.*.tmp")))


def _remove_left(paths: Iterable[Path]) -> None:
    for path in paths:
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _is_alive(int(process)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    with contextlib.suppress(OSError):  # it may be a zombie
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return status.rpartition(")")[2].split()[0] != "Z"
    return True


@contextlib.contextmanager
def disk_errors(path: Path, written: Path | None = None, size: int = 0) -> Iterator[None]:
    """Turn a full disk, a size limit or a missing permission at `path` into one line that says what to do.

    Args:
        path: file that is being written.
        written: temporary file with the data written so far, which is removed after an error; None if there is none.
        size: lower bound of the bytes needed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_space(path, error, written, size) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another directory") from error
        raise


def _no_space(path: Path, error: OSError, written: Path | None, size: int) -> UserError:
    file_system = os.statvfs(existing_parent(path))
    done = taken = 0
    if written is not None and written.exists():
        status = written.stat()
        done, taken = status.st_size, status.st_blocks * 512
    needed = max(size, done + (1 if done else file_system.f_frsize))
    free = f"{file_system.f_bavail * file_system.f_frsize + taken} bytes are free"
    if error.errno == errno.EFBIG:
        free = f"{resource.getrlimit(resource.RLIMIT_FSIZE)[0]} bytes are allowed (ulimit -f), {free}"
    elif file_system.f_files and not file_system.f_favail:
        free += ", but no inodes"
    return UserError(
        f"{path}: {error.strerror} while writing; at least {needed} bytes are needed, {free}; free some space and run "
        "the same command again (no complete results were lost)"
    )


def check_space(path: Path, needed: int, what: str = "", present: int = 0) -> None:
    """Check that there is enough disk space before a long write.

    Args:
        path: file or directory to write.
        needed: bytes in total.
        what: what needs them, for the message.
        present: bytes already written.

    Raises:
        UserError: not enough free space.
    """
    free = shutil.disk_usage(existing_parent(path)).free
    if free < needed - present:
        subject, about = (f"{path}: {what}", "about ") if what else (str(path), "")
        raise UserError(
            f"{subject}: {about}{needed - present} bytes are needed and {free} are free; free some space, or choose "
            "another directory"
        )


def bytes_in(directory: Path) -> int:
    """Total size of all files in a directory, at any depth; 0 if the directory does not exist."""
    return sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())


def files_below(
    root: Path,
    again: Callable[[Path], object] = lambda folder: None,
    enter: Callable[[Path], bool] = lambda folder: True,
) -> Iterator[Path]:
    """All files in a directory at any depth, in a fixed order; links are followed, no directory is searched twice.

    Use it both to read files and to detect changes, so that no change is missed.

    Args:
        root: the directory.
        again: called with each directory that a link leads back to.
        enter: whether to search a directory below `root`.

    Raises:
        UserError: a directory cannot be searched.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be searched ({error.strerror}); check its permissions")

    searched: set[tuple[int, int]] = set()
    for home, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(home)
        if (status.st_dev, status.st_ino) in searched:
            again(Path(home))
            folders.clear()
            continue
        searched.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in sorted(folders) if enter(Path(home, name))]
        yield from (Path(home, name) for name in sorted(names))


def version_of(path: Path) -> list:
    """Size, modification time and link target (if any) of a file: they change when it is replaced."""
    status, place = os.stat(path), os.path.realpath(path)
    return [status.st_size, status.st_mtime_ns, *([place] if place != str(path) else [])]


def existing_parent(path: Path) -> Path:
    """The nearest ancestor that exists."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return path


def sync_directory(path: Path) -> None:
    """Make a rename in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with sorted keys and indentation; floats keep all digits."""
    with atomic_write(path) as stream:
        json.dump(value, stream, indent=2, sort_keys=True, allow_nan=False)
        stream.write("\n")


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write bytes atomically; libraries write to memory first, as their own errors would hide a full disk."""
    with atomic_write(path, "wb", size=len(data)) as stream:
        stream.write(data)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: missing or malformed.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; run the stage that writes it") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); remove it and run the stage again") from error


def write_array(path: Path, values: np.ndarray) -> None:
    """Write a .npy file atomically, without pickled objects."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file's bytes, in hexadecimal.

    Raises:
        UserError: missing.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; run the stage that writes it") from error


def hash_value(value: Any) -> str:
    """Short SHA-256 of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def is_done(directory: Path, inputs: dict[str, Any], mark: str = DONE) -> bool:
    """Whether `directory` holds the complete results of exactly these inputs (settings and content hashes).

    With the mark `SKIPPED`: whether exactly these inputs are known to produce no results.
    """
    try:
        return json.loads((Path(directory) / mark).read_text(encoding="utf-8")) == json.loads(json.dumps(inputs))
    except (OSError, ValueError, RecursionError):
        return False


def check_complete(directory: Path, otherwise: str) -> None:
    """Check that the results in a directory are complete.

    Raises:
        UserError: they are not; the message ends with `otherwise`.
    """
    if not (Path(directory) / DONE).exists():
        raise UserError(f"{directory}: {otherwise}")


def mark_done(directory: Path, inputs: dict[str, Any], mark: str = DONE) -> None:
    """Record that `directory` is complete or, with `SKIPPED`, that it stays empty; the last write of a stage.

    Also removes temporary files of killed processes.
    """
    _remove_left(list(Path(directory).glob(".*.tmp")))
    write_json(Path(directory) / mark, inputs)


def invalidate(directory: Path) -> None:
    """Remove results in `directory` that can no longer be computed from the data."""
    for name in (DONE, "result.json"):
        (Path(directory) / name).unlink(missing_ok=True)


def mark_undone(directory: Path) -> None:
    """Remove the mark before results in `directory` change."""
    (Path(directory) / DONE).unlink(missing_ok=True)
