"""Unpack a downloaded archive without letting it write anywhere but where it was told to.

Stands beside `download`, which fetches the archive; readers take the unpacked files.
"""

from __future__ import annotations

import shutil
import stat
import uuid
import zipfile
import zlib
from pathlib import Path

from pecrs_lib.data.schema import DataError

StrPath = str | Path


class DownloadError(RuntimeError):
    """A file could not be fetched or stored. The message says what to do about it."""


def local_trouble(error: OSError, folder: Path) -> str:
    """One line: disk full, read-only, no permission, a file where a folder belongs."""
    place = error.filename2 or error.filename or folder  # of a copy, the second is ours
    problem = f"cannot use {place}: {error.strerror or error}"
    return f"{problem}; another folder may do (for the cache: PECRS_DATA)"


def safe_unzip(path: StrPath, target: StrPath, max_bytes: int = 1_000_000_000) -> list[Path]:
    """Unpack a zip archive under `target`; the paths of its files, in the archive's order.

    Raises `DataError`, before any file reaches `target`, if a member is not a plain file, has a
    name that leads elsewhere or occurs twice, or is damaged, or if they exceed `max_bytes`.
    """
    target = Path(target)
    scratch = target / f".unzip-{uuid.uuid4().hex}"  # same file system: moving is a rename
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(archive, max_bytes)
            names = [Path(archive.extract(m, scratch)).relative_to(scratch) for m in members]
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).replace(target / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeError) as error:
        raise DataError(f"damaged or encrypted zip archive: {error}", path=path) from error
    except OSError as error:
        raise DownloadError(local_trouble(error, target)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [target / name for name in names]


def _checked_members(archive: zipfile.ZipFile, max_bytes: int) -> list[zipfile.ZipInfo]:
    path, members = archive.filename, archive.infolist()
    # A stated size may be a lie, but zipfile unpacks no more than that and then fails the checksum.
    if (total := sum(member.file_size for member in members)) > max_bytes:
        raise DataError(f"unpacks to {total} bytes, limit {max_bytes}", path=path)
    if len({member.filename.casefold() for member in members}) < len(members):
        raise DataError("two members have the same name", path=path)
    for member in members:
        name = member.filename
        kind = stat.S_IFMT(member.external_attr >> 16)  # Unix mode; 0 where the maker had none
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"{name!r} is a link or a special file", path=path)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{name!r} is not packed with deflate", path=path)
        if not name or name.startswith("/") or {*":\\"} & {*name} or ".." in name.split("/"):
            raise DataError(f"{name!r} leads outside the target", path=path)
    return [member for member in members if not member.is_dir()]
