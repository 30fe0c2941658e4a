"""Files that are there whole or not at all, and folders that know when they were changed.

Stands below the readers and everything that writes: a run that is killed, or meets a full disk,
leaves under a final name what was there before. A folder of several files carries the checksums of
all of them, in the format of `sha256sum`; `check_sums` names the file that is not what it was.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pecrs_lib.data.schema import DataError

SUMS = "SHA256SUMS"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end, or is removed.

    Raises:
        OSError: of the kind and number that the system reports, naming `path`.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # its own, if two run at once
    try:
        yield partial
        on_disk(partial)
        partial.replace(path)
    except OSError as error:
        raise cannot_write(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def cannot_write(error: OSError, path: Path) -> OSError:
    """The same error with the file and what to do; what stood there before is as it was."""
    why = error.strerror or str(error)
    advice = f"cannot be written ({why}): free some space or choose another folder"
    return OSError(error.errno, advice, str(path))


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file by `whole_file`, text as UTF-8; a device or a pipe is written to as it is."""
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with whole_file(path) as partial:
        partial.write_bytes(data)


def on_disk(path: Path) -> None:
    """Wait until the disk has a file, so that no loss of power comes between it and its name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def allocate(path: Path, size: int) -> None:
    """A new file of `size` bytes, all of them reserved on the disk.

    A file that is written to as a memory map and only said to be so large ends the process, without
    an error, when the disk is full.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """The checksums of all files under a folder, as its file ``SHA256SUMS``."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    lines = [f"{sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in files]
    write_whole(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> None:
    """Compare a folder with its checksums; one without them (of an older version) passes.

    Raises:
        DataError: a file is missing or has other content, or the list itself is damaged.
    """
    path = folder / SUMS
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1):
        digest, _, name = line.partition("  ")
        parts = Path(name).parts
        if len(digest) != 64 or not parts or ".." in parts or Path(name).is_absolute():
            raise DataError("not a line of checksums", path=path, line=number)
        file = folder / name
        if not file.is_file() or sha256(file) != digest:
            state = "has other content than when it was saved" if file.is_file() else "is missing"
            raise DataError(f"the file {state} (see {SUMS})", path=file)
