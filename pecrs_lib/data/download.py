"""Get the original data sets from their public homes: pinned, checked, cached.

Comes before the readers of this package, which take the paths that `fetch` returns; nothing else
in the library uses the network but `servers.py`, which asks the server its caller names. A file
lies at ``<cache>/<data set>/<name>``; the cache is the argument `cache_dir`, else the environment
variable ``PECRS_DATA``, else the user's cache folder.

The files sit on GitHub at fixed commits, where a file has a git blob id computed from its content
(Pro Git, chapter "Git Objects"). It gets its final name only once that id is right, so any mirror
will do. ``PECRS_MIRRORS`` replaces the mirrors: https, http or file URLs separated by semicolons,
with fields of `RemoteFile` in braces; the word ``default`` stands for the built-in list, as in
``file:///srv/course/{dataset}/{name};default``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pooch
import requests

from pecrs_lib.data.archive import DownloadError, local_trouble
from pecrs_lib.data.schema import DataError

StrPath = str | Path
State = Literal["ok", "missing", "damaged"]

MIRRORS = (
    "https://raw.githubusercontent.com/{repo}/{commit}/{path}",
    "https://github.com/{repo}/raw/{commit}/{path}",
)
TIMEOUT_S = (10.0, 30.0)  # to connect, and between two pieces: slow class-room networks pass


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file at one commit of a public GitHub repository."""

    dataset: str
    name: str  # in the cache
    repository: str  # owner/name
    commit: str
    path: str  # inside the repository
    blob: str  # git blob id
    terms: str  # as its publisher states them

    def url(self, template: str = MIRRORS[-1]) -> str:
        """The URL a mirror template gives for this file; ``{repo}`` is short for repository."""
        try:
            return template.format(repo=self.repository, **asdict(self))
        except (LookupError, AttributeError, ValueError) as error:
            raise DataError(f"PECRS_MIRRORS: {template!r} has a bad field: {error}") from error


_ANSWERS = "/general/intermediate/inspired/extracted.jsonl"
# data set, repository@commit, terms; then its files: git blob id, path
_PINNED = f"""
redial ReDialData/website@27ae7ac0c212af62ca6b873cd5f08a469eda411e CC BY 4.0
  ea92d9c739ea95537fa6a193ae863ac86df62f63 redial_dataset.zip
inspired sweetpeach/Inspired@782d7c1845d11f75d2542809c7f2a51b63ef0304 none stated
  e6044150da12d630d9cd5d40ca2ec36c498f20a6 data/dialog_data/train.tsv
  df159b0cccd3477e0eb480ed3f522ac33f1b31e8 data/dialog_data/dev.tsv
  a0668367840b76e530cb15d7a0827987123a5fe8 data/dialog_data/test.tsv
  5e68608a0d1aee3ca107275aed0de1751e3cb382 data/movie_database.tsv
inspired-pecrs Ravoxsg/efficient_unified_crs@9b80ac87a4dcd94d34617ab3cdbe9a1291734e2e none stated
  b368c11278f1cb49afde72420d368f247ae02066 data/INSPIRED/train_data_processed
  d03c710212824cf4b1e6f3b6990071faee09710b data/INSPIRED/dev_data_processed
  7e44d05609e568edc22b7f3909b7b758f584e8cd data/INSPIRED/test_data_processed
  e482e387822df076d3fa15bc6b5ab62f38b38761 data/INSPIRED/movie_db
redial-pecrs Ravoxsg/efficient_unified_crs@9b80ac87a4dcd94d34617ab3cdbe9a1291734e2e none stated
  82014a81884770cd413b2ef3d88e3b5d35d0b2c5 data/REDIAL/train_data_processed
  ffc83b2ac2d4d670cae66d6a12e81c4db7cfe1bc data/REDIAL/test_data_processed
  a7a62e9bdb59dd6dbb8c1e85a79142f4a8fc6fd7 data/REDIAL/movie_db
llm-answers AaronHeee/LLMs-as-Zero-Shot-Conversational-RecSys@\
5a52caa19cd514f8d39811483c41e43107d5927f research data of arXiv 2308.10053
  988fdbfdbb22d0a94df2d42ce1df71147cc7b734 src/gpt-4{_ANSWERS}
  7fdf6078081768a18821228d1ccc1ac3c70e172c src/gpt-3.5-turbo{_ANSWERS}
  ebdd7295eba6b7ac8535d7b930e995923608427f src/vicuna{_ANSWERS}
  bf350a0c1eb633b8dc7f9390932ea6312515254c src/baize{_ANSWERS}
  20da99112cb1c3a198f8893bdb145c528a8c7c96 data/inspired/test.jsonl
  ba07022f0a4c0cf1a06612bf63741233658ecd0a data/inspired/entity2id.json
  48c1f95a6b82f7e6b257b36ec361f78accfcc649 data/inspired/item_ids.json
"""


def _registry() -> dict[str, list[RemoteFile]]:
    sets: dict[str, list[RemoteFile]] = {}
    for line in _PINNED.strip().splitlines():
        if not line.startswith(" "):
            dataset, home, terms = line.split(maxsplit=2)
            repository, commit = home.split("@")
            continue
        blob, path = line.split()
        name = path.replace(_ANSWERS, ".jsonl").split("/")[-1]  # answers: the model's name
        file = RemoteFile(dataset, name, repository, commit, path, blob, terms)
        sets.setdefault(dataset, []).append(file)
    return sets


DATASETS = _registry()


def git_blob_id(path: StrPath) -> str:
    """The id git gives this content: SHA-1 of ``blob <size in bytes>\\0`` and the bytes."""
    with Path(path).open("rb") as stream:
        header = b"blob %d\0" % os.fstat(stream.fileno()).st_size
        start = hashlib.sha1(header, usedforsecurity=False)
        return hashlib.file_digest(stream, lambda: start).hexdigest()


def fetch(
    dataset_or_file: str | RemoteFile, cache_dir: StrPath | None = None, progress: bool = True
) -> dict[str, Path]:
    """Paths by name of a data set (``"inspired"``) or of one file (``"inspired/dev.tsv"``).

    Downloads what is missing or damaged. Raises `DataError` for an unknown name and
    `DownloadError` when no mirror gives the right content or the cache cannot be used.
    """
    places = _places(dataset_or_file, cache_dir)
    for file, place in places.items():
        try:
            before = _state(file, place)
            failures = [] if before == "ok" else _download(file, place, progress)
            # Another process may have brought the file meanwhile: look before giving up.
            if failures and _state(file, place) != "ok":
                if before == "damaged":
                    place.unlink(missing_ok=True)
                    failures.append(f"{place}: had the wrong content and was removed")
                raise DownloadError(_advice(file, failures, places))
        except OSError as error:
            raise DownloadError(local_trouble(error, place.parent)) from error
    return {file.name: place for file, place in places.items()}


def verify(dataset: str | RemoteFile, cache_dir: StrPath | None = None) -> list[tuple[str, State]]:
    """Name and state of each file of a data set in the cache; never touches the network."""
    return [(file.name, _state(file, place)) for file, place in _places(dataset, cache_dir).items()]


def describe_sources() -> list[dict[str, str]]:
    """A table row per file: dataset, name, terms, source. No publisher states the sizes."""
    return [
        {"dataset": dataset, "name": file.name, "terms": file.terms, "source": file.url()}
        for dataset, files in DATASETS.items()
        for file in files
    ]


def _places(wanted: str | RemoteFile, cache_dir: StrPath | None) -> dict[RemoteFile, Path]:
    if isinstance(wanted, RemoteFile):
        files = [wanted]
    else:
        dataset, _, name = wanted.partition("/")
        files = [file for file in DATASETS.get(dataset, []) if name in ("", file.name)]
    if not files:
        raise DataError(f"unknown data set or file {wanted!r}; known: {', '.join(DATASETS)}")
    root = Path(cache_dir or os.environ.get("PECRS_DATA") or pooch.os_cache("pecrs_lib"))
    return {file: root.expanduser() / file.dataset / file.name for file in files}


def _state(file: RemoteFile, place: Path) -> State:
    if not place.exists():
        return "missing"
    return "ok" if place.is_file() and git_blob_id(place) == file.blob else "damaged"


def _download(file: RemoteFile, place: Path, progress: bool) -> list[str]:
    """Empty once the checked file is in place; else why each mirror failed."""
    given = [part.strip() for part in os.environ.get("PECRS_MIRRORS", "").split(";")]
    named = [part for part in given if part] or ["default"]
    mirrors = [t for part in named for t in (MIRRORS if part == "default" else [part])]
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{file.name}.{uuid.uuid4().hex}.part")  # one per process and thread
    failures = []
    for url in map(file.url, mirrors):
        try:
            _get(url, part, progress)
            if (found := git_blob_id(part)) == file.blob:
                part.replace(place)
                return []
            failures.append(f"{url}: sent other content (git blob id {found}, not {file.blob})")
        except requests.RequestException as error:
            failures.append(f"{url}: {_reason(error)}")
        finally:
            part.unlink(missing_ok=True)
    return failures


def _get(url: str, part: Path, progress: bool) -> None:
    address = urlsplit(url)
    if address.scheme != "file":
        # identity: so that Content-Length is the length of the file
        options = {"timeout": TIMEOUT_S, "headers": {"Accept-Encoding": "identity"}}
        pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 16, **options)(url, part, None)
    elif (source := Path(url2pathname(address.path))).is_file():
        shutil.copyfile(source, part)
    else:
        raise requests.RequestException("no such file")


def _reason(error: requests.RequestException) -> str:
    """One line; the library's own messages are dumps of nested objects."""
    if error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return f"no connection, or it broke off ({type(error).__name__})"
    return "no answer in time" if isinstance(error, requests.Timeout) else str(error)


def _advice(file: RemoteFile, failures: list[str], places: dict[RemoteFile, Path]) -> str:
    absent = [(f.url(), place) for f, place in places.items() if _state(f, place) != "ok"]
    return (
        f"could not download {file.dataset}/{file.name}:\n  "
        + "\n  ".join(failures)
        + "\nIf this computer has no network, fetch by hand on another one and copy:\n  "
        + "\n  ".join(f"{url}\n    to {place}" for url, place in absent)
        + "\nEverything bundled with this project works without a network."
    )
