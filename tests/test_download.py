"""The downloader against a server on this machine: right, wrong, cut, slow and absent answers."""

from __future__ import annotations

import errno
import gzip
import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest
import requests

from pecrs_lib.data import download
from pecrs_lib.data.archive import safe_unzip
from pecrs_lib.data.download import (
    DATASETS,
    DownloadError,
    RemoteFile,
    describe_sources,
    fetch,
    git_blob_id,
    verify,
)
from pecrs_lib.data.schema import DataError

GOOD = b"dialog_id\tspeaker\ttext\n" * 20_000  # 460 kB: several chunks
BLOB = hashlib.sha1(b"blob %d\0" % len(GOOD) + GOOD).hexdigest()
FILE = RemoteFile("toy", "toy.tsv", "owner/repo", "c0ffee", "data/toy.tsv", BLOB, "none stated")


class Server(ThreadingHTTPServer):
    """Answers by the first folder of the address; `hits` lists what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.both = threading.Barrier(2)  # two requests at once before either gets its content
        self.stop = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.hits.append(self.path)
        kind = self.path.split("/")[1]
        if kind == "absent":
            self.send_error(404)
            return
        body = b"<html>please log in</html>" if kind == "wrong" else GOOD
        if kind == "both":
            self.server.both.wait(30)
        if kind == "mute":
            self.server.stop.wait(60)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind in ("cut", "stall"):
            body = body[: len(body) // 2]
        self.wfile.write(body)
        if kind == "stall":
            self.wfile.flush()
            self.server.stop.wait(60)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.stop.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("PECRS_MIRRORS", "file:///nowhere/{name}")  # never the real network
    monkeypatch.delenv("PECRS_DATA", raising=False)
    monkeypatch.setattr(download, "TIMEOUT_S", (1.0, 1.0))


@pytest.fixture
def mirrors(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(*kinds: str) -> None:
        urls = [f"{server.url}/{kind}/{{repo}}/{{commit}}/{{path}}" for kind in kinds]
        monkeypatch.setenv("PECRS_MIRRORS", " ; ".join(urls))

    return use


def files_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- the registry ---------------------------------------------------------------------------


def test_registry_is_pinned_and_unambiguous() -> None:
    assert list(DATASETS) == ["redial", "inspired", "inspired-pecrs", "redial-pecrs", "llm-answers"]
    assert [len(files) for files in DATASETS.values()] == [1, 4, 4, 3, 7]
    files = [file for files in DATASETS.values() for file in files]
    assert all(len(file.commit) == 40 and int(file.commit, 16) for file in files)
    assert all(len(file.blob) == 40 and int(file.blob, 16) for file in files)
    assert len({file.blob for file in files}) == len(files) == 19
    assert len({(file.dataset, file.name.casefold()) for file in files}) == len(files)
    assert {file.name for file in DATASETS["llm-answers"]} == {
        "gpt-4.jsonl",
        "gpt-3.5-turbo.jsonl",
        "vicuna.jsonl",
        "baize.jsonl",
        "test.jsonl",
        "entity2id.json",
        "item_ids.json",
    }


def test_urls_of_the_built_in_mirrors() -> None:
    file = DATASETS["inspired"][1]
    home = "782d7c1845d11f75d2542809c7f2a51b63ef0304"
    assert [file.url(mirror) for mirror in download.MIRRORS] == [
        f"https://raw.githubusercontent.com/sweetpeach/Inspired/{home}/data/dialog_data/dev.tsv",
        f"https://github.com/sweetpeach/Inspired/raw/{home}/data/dialog_data/dev.tsv",
    ]


def test_describe_sources_names_terms_and_origin() -> None:
    rows = describe_sources()
    assert len(rows) == 19
    assert rows[0]["name"] == "redial_dataset.zip" and rows[0]["terms"] == "CC BY 4.0"
    assert all(row["source"].startswith("https://github.com/") for row in rows)


# --- git blob ids ---------------------------------------------------------------------------


def test_git_blob_id_of_known_contents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert git_blob_id(path) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's empty blob
    path.write_bytes(b"hello\n")
    assert git_blob_id(str(path)) == "ce013625030ba8dba906f756967f9e9ca394464a"
    path.write_bytes(GOOD)
    assert git_blob_id(path) == BLOB


REAL = {
    "inspired/dev.tsv": "inspired/dev.tsv",
    "inspired/test.tsv": "inspired/test.tsv",
    "inspired/pecrs/train_data_processed": "inspired-pecrs/train_data_processed",
    "inspired/pecrs/dev_data_processed": "inspired-pecrs/dev_data_processed",
    "inspired/pecrs/test_data_processed": "inspired-pecrs/test_data_processed",
    "redial/movie_db": "redial-pecrs/movie_db",
    "llm_responses/inspired_test.jsonl": "llm-answers/test.jsonl",
    "llm_responses/inspired_entity2id.json": "llm-answers/entity2id.json",
    "llm_responses/inspired_item_ids.json": "llm-answers/item_ids.json",
    "llm_responses/inspired_gpt-4.jsonl.gz": "llm-answers/gpt-4.jsonl",
    "llm_responses/inspired_gpt-3.5-turbo.jsonl.gz": "llm-answers/gpt-3.5-turbo.jsonl",
    "llm_responses/inspired_vicuna.jsonl.gz": "llm-answers/vicuna.jsonl",
    "llm_responses/inspired_baize.jsonl.gz": "llm-answers/baize.jsonl",
}


@pytest.mark.parametrize("copy", REAL)
def test_real_files_have_the_pinned_ids(
    copy: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (shared_data / copy).read_bytes()
    mirror = tmp_path / "mirror" / REAL[copy]
    mirror.parent.mkdir(parents=True)
    mirror.write_bytes(gzip.decompress(content) if copy.endswith(".gz") else content)
    monkeypatch.setenv("PECRS_MIRRORS", f"{tmp_path.as_uri()}/mirror/{{dataset}}/{{name}}")
    (path,) = fetch(REAL[copy], tmp_path / "cache").values()
    assert path == tmp_path / "cache" / REAL[copy]
    assert path.read_bytes() == mirror.read_bytes()
    name = path.name
    assert dict(verify(REAL[copy].split("/")[0], tmp_path / "cache"))[name] == "ok"


# --- fetch ----------------------------------------------------------------------------------


def test_fetch_once_then_from_the_cache(
    server: Server, mirrors: Callable[..., None], tmp_path: Path
) -> None:
    mirrors("good")
    assert verify(FILE, tmp_path) == [("toy.tsv", "missing")]
    assert fetch(FILE, tmp_path, progress=False) == {"toy.tsv": tmp_path / "toy" / "toy.tsv"}
    assert (tmp_path / "toy/toy.tsv").read_bytes() == GOOD
    assert server.hits == ["/good/owner/repo/c0ffee/data/toy.tsv"]
    assert verify(FILE, tmp_path) == [("toy.tsv", "ok")]
    fetch(FILE, tmp_path, progress=False)
    assert len(server.hits) == 1
    assert files_under(tmp_path) == ["toy/toy.tsv"]


def test_progress_bar_only_on_request(
    mirrors: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mirrors("good")
    fetch(FILE, tmp_path / "a", progress=False)
    assert capfd.readouterr() == ("", "")
    fetch(FILE, tmp_path / "b")
    out, err = capfd.readouterr()
    assert out == "" and "460k/460k" in err


def test_damaged_file_is_replaced(mirrors: Callable[..., None], tmp_path: Path) -> None:
    place = tmp_path / "toy/toy.tsv"
    place.parent.mkdir()
    place.write_bytes(GOOD.replace(b"\n", b"\r\n"))  # what an editor on Windows may do
    assert verify(FILE, tmp_path) == [("toy.tsv", "damaged")]
    mirrors("good")
    fetch(FILE, tmp_path, progress=False)
    assert place.read_bytes() == GOOD


def test_damaged_file_is_removed_when_no_mirror_helps(
    mirrors: Callable[..., None], tmp_path: Path
) -> None:
    place = tmp_path / "toy/toy.tsv"
    place.parent.mkdir()
    place.write_bytes(GOOD[:-1])
    mirrors("absent")
    with pytest.raises(DownloadError, match="had the wrong content and was removed"):
        fetch(FILE, tmp_path, progress=False)
    assert files_under(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wrong", "sent other content"),
        ("cut", "broke off"),
        ("absent", "the server answered 404"),
        ("mute", "no answer in time"),
        ("stall", "no connection, or it broke off|no answer in time"),
    ],
)
def test_bad_answer_leaves_nothing_and_next_mirror_helps(
    kind: str,
    words: str,
    server: Server,
    mirrors: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", (0.3, 0.3))
    mirrors(kind)
    with pytest.raises(DownloadError, match=words) as caught:
        fetch(FILE, tmp_path, progress=False)
    assert f"to {tmp_path / 'toy' / 'toy.tsv'}" in str(caught.value)
    assert files_under(tmp_path) == []
    mirrors(kind, "good")
    assert fetch(FILE, tmp_path, progress=False)["toy.tsv"].read_bytes() == GOOD
    assert files_under(tmp_path) == ["toy/toy.tsv"]
    assert [hit.split("/")[1] for hit in server.hits] == [kind, kind, "good"]


def test_offline_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:  # bound, not listening: connections are refused
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PECRS_MIRRORS", f"http://127.0.0.1:{free.getsockname()[1]}/{{path}}")
        with pytest.raises(DownloadError) as caught:
            fetch("inspired", tmp_path, progress=False)
    message = str(caught.value)
    assert "could not download inspired/train.tsv" in message
    assert "no connection" in message
    for file in DATASETS["inspired"]:  # everything to bring by hand, in one message
        assert f"{file.url()}\n    to {tmp_path / 'inspired' / file.name}" in message
    assert "works without a network" in message
    assert not any(word in message for word in ("Traceback", "HTTPConnectionPool", "0x"))


def test_hand_placed_file_needs_no_network(tmp_path: Path) -> None:
    place = tmp_path / "toy/toy.tsv"
    place.parent.mkdir()
    place.write_bytes(GOOD)
    assert fetch(FILE, tmp_path) == {"toy.tsv": place}


def test_interrupt_inside_the_download_leaves_nothing(
    mirrors: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object, url: str, output_file: Path, pooch: object) -> None:
        output_file.write_bytes(GOOD[:100])
        raise KeyboardInterrupt

    mirrors("good")
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(FILE, tmp_path, progress=False)
    assert files_under(tmp_path) == []


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from pecrs_lib.data.download import RemoteFile, fetch
fetch(RemoteFile("toy", "toy.tsv", "owner/repo", "c0ffee", "data/toy.tsv", sys.argv[1], ""),
      sys.argv[2], progress=False)
"""


def child(cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, BLOB, str(cache)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process on Windows")
def test_ctrl_c_in_a_real_process_leaves_nothing(
    mirrors: Callable[..., None], tmp_path: Path
) -> None:
    mirrors("stall")
    with child(tmp_path) as process:
        limit = time.monotonic() + 60
        while not any(path.stat().st_size for path in tmp_path.glob("toy/.*.part")):
            assert time.monotonic() < limit and process.poll() is None
            time.sleep(0.01)
        assert files_under(tmp_path) != ["toy/toy.tsv"]  # half a file, under another name
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert files_under(tmp_path) == []


def test_two_processes_at_once(
    server: Server, mirrors: Callable[..., None], tmp_path: Path
) -> None:
    mirrors("both")
    with child(tmp_path) as one, child(tmp_path) as other:
        assert one.communicate(timeout=60)[1] == other.communicate(timeout=60)[1] == ""
    assert len(server.hits) == 2  # both were under way at once
    assert (tmp_path / "toy/toy.tsv").read_bytes() == GOOD
    assert files_under(tmp_path) == ["toy/toy.tsv"]


def test_many_threads_at_once(mirrors: Callable[..., None], tmp_path: Path) -> None:
    mirrors("good")
    place = tmp_path / "toy/toy.tsv"
    place.parent.mkdir()
    place.write_bytes(b"damaged")
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: fetch(FILE, tmp_path, progress=False), range(8)):
            assert found["toy.tsv"].read_bytes() == GOOD  # also while others still download
    assert files_under(tmp_path) == ["toy/toy.tsv"]


def test_file_brought_by_another_process_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_the_race(file: RemoteFile, place: Path, progress: bool) -> list[str]:
        place.parent.mkdir()
        place.write_bytes(GOOD)
        return ["no connection"]

    monkeypatch.setattr(download, "_download", lose_the_race)
    assert fetch(FILE, tmp_path)["toy.tsv"].read_bytes() == GOOD


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_trouble_with_the_cache_is_one_clear_line(
    number: int,
    server: Server,
    mirrors: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trouble(url: str, part: Path, progress: bool) -> None:
        part.write_bytes(b"half")
        raise OSError(number, "as the system says it", str(part))

    mirrors("good", "good")
    monkeypatch.setattr(download, "_get", trouble)
    with pytest.raises(DownloadError, match=r"cannot use .*as the system says it.*PECRS_DATA") as e:
        fetch(FILE, tmp_path, progress=False)
    assert "\n" not in str(e.value)
    assert files_under(tmp_path) == []


def test_full_disk_while_copying_names_the_cache_not_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, part: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(part))

    (tmp_path / "toy.tsv").write_bytes(GOOD)
    monkeypatch.setenv("PECRS_MIRRORS", f"{tmp_path.as_uri()}/{{name}}")
    monkeypatch.setattr(download.shutil, "copyfile", full)
    with pytest.raises(DownloadError, match=r"cannot use .*cache.*: No space left"):
        fetch(FILE, tmp_path / "cache")


def test_cache_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(DownloadError, match=r"cannot use .*cache") as caught:
        fetch(FILE, tmp_path / "cache", progress=False)
    assert "\n" not in str(caught.value)


def test_read_only_course_folder_with_the_files_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/toy.tsv").write_bytes(GOOD)
    (tmp_path / "toy").chmod(0o555)
    monkeypatch.setenv("PECRS_DATA", str(tmp_path))
    assert fetch(FILE)["toy.tsv"] == tmp_path / "toy/toy.tsv"
    assert verify(FILE) == [("toy.tsv", "ok")]
    (tmp_path / "toy").chmod(0o755)


def test_cache_folder_argument_then_variable_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(cache: Path | None = None) -> Path:
        with pytest.raises(DownloadError) as caught:
            fetch(FILE, cache)
        return Path(str(caught.value).split("\n    to ")[1].splitlines()[0]).parents[1]

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "default" / name)
    assert folder() == tmp_path / "default/pecrs_lib"
    monkeypatch.setenv("PECRS_DATA", str(tmp_path / "variable"))
    assert folder() == tmp_path / "variable"
    assert folder(tmp_path / "argument") == tmp_path / "argument"


def test_downloaded_file_has_ordinary_permissions(
    mirrors: Callable[..., None], tmp_path: Path
) -> None:
    mirrors("good")
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert fetch(FILE, tmp_path, progress=False)["toy.tsv"].stat().st_mode == plain.stat().st_mode


def test_default_in_the_variable_stands_for_the_built_in_mirrors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(url: str, part: Path, progress: bool) -> None:
        asked.append(url.split("/")[2])
        raise requests.ConnectionError

    monkeypatch.setattr(download, "_get", note)
    hosts = {
        "": ["raw.githubusercontent.com", "github.com"],
        " https://a/{path} ; default ;": ["a", "raw.githubusercontent.com", "github.com"],
        "https://a/{path};https://b/{blob}": ["a", "b"],
    }
    for value, expected in hosts.items():
        asked.clear()
        monkeypatch.setenv("PECRS_MIRRORS", value)
        with pytest.raises(DownloadError):
            fetch(FILE, tmp_path)
        assert asked == expected


@pytest.mark.parametrize("template", ["https://a/{branch}", "https://a/{", "https://a/{path.x}"])
def test_bad_mirror_template(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PECRS_MIRRORS", template)
    with pytest.raises(DataError, match="PECRS_MIRRORS"):
        fetch(FILE, tmp_path)


@pytest.mark.parametrize("address", ["ftp://a/b", "no address", "http://", "file:///no/such"])
def test_useless_mirror_is_reported_and_passed_over(
    address: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PECRS_MIRRORS", address)
    with pytest.raises(DownloadError, match=address):
        fetch(FILE, tmp_path, progress=False)
    monkeypatch.setenv("PECRS_MIRRORS", f"{address};{server.url}/good/{{path}}")
    assert fetch(FILE, tmp_path, progress=False)["toy.tsv"].read_bytes() == GOOD


@pytest.mark.parametrize("name", ["inspire", "inspired/train", "", "/", "redial/../inspired"])
def test_unknown_name(name: str, tmp_path: Path) -> None:
    for call in (fetch, verify):
        with pytest.raises(DataError, match="known: redial, inspired"):
            call(name, tmp_path)
    assert files_under(tmp_path) == []


# --- safe_unzip -----------------------------------------------------------------------------


def make_zip(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def test_unzip_and_again_over_it(tmp_path: Path) -> None:
    members = {"train_data.jsonl": GOOD, "sub/": b"", "sub/test_data.jsonl": b"{}\n"}
    path = make_zip(tmp_path / "a.zip", members)
    target = tmp_path / "deep" / "target"
    for _ in range(2):
        assert safe_unzip(path, target) == [
            target / "train_data.jsonl",
            target / "sub/test_data.jsonl",
        ]
        assert files_under(target) == ["sub/test_data.jsonl", "train_data.jsonl"]
        assert (target / "train_data.jsonl").read_bytes() == GOOD
        (target / "train_data.jsonl").write_bytes(b"spoilt")
    assert [p.name for p in target.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "C:/evil", "C:evil", "..\\evil", "a\\b", "//x/evil"],
)
def test_unzip_refuses_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="leads outside") as caught:
        safe_unzip(path, tmp_path / "in" / "target")
    assert repr(name) in str(caught.value) and str(path) in str(caught.value)
    assert files_under(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("mode", [0o120777, 0o020644, 0o010644])  # link, device, pipe
def test_unzip_refuses_links_and_special_files(mode: int, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"link": b"/etc/passwd"}, mode)
    with pytest.raises(DataError, match="link or a special file"):
        safe_unzip(path, tmp_path / "target")
    assert files_under(tmp_path) == ["a.zip"]


def test_unzip_refuses_two_members_of_one_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"Data.tsv": b"1", "data.tsv": b"2"})
    with pytest.raises(DataError, match="same name"):
        safe_unzip(path, tmp_path / "target")


def test_unzip_limits_the_size(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": bytes(600_000), "b": bytes(600_000)})
    assert path.stat().st_size < 3_000
    with pytest.raises(DataError, match="unpacks to 1200000 bytes, limit 1199999"):
        safe_unzip(path, tmp_path / "target", max_bytes=1_199_999)
    assert files_under(tmp_path) == ["a.zip"]
    assert len(safe_unzip(path, tmp_path / "target", max_bytes=1_200_000)) == 2


def test_unzip_of_a_size_that_lies(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": bytes(1_000_000)})
    size = (1_000_000).to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(size) == 2  # local header and directory
    path.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="damaged"):
        safe_unzip(path, tmp_path / "target", max_bytes=100)
    assert files_under(tmp_path) == ["a.zip"]


def test_unzip_knows_deflate_only(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a", GOOD)
    with pytest.raises(DataError, match="'a' is not packed with deflate"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "target")


def test_unzip_of_damaged_archives(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"train_data.jsonl": GOOD, "b": b"text" * 9})
    content = path.read_bytes()
    middle = bytearray(content)
    middle[len(content) // 4] ^= 0xFF
    encrypted = bytearray(content)
    encrypted[content.index(b"PK\1\2") + 8] |= 1
    for bad in (b"", b"<html>", content[:-30], bytes(middle), bytes(encrypted)):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"a\.zip: damaged or encrypted"):
            safe_unzip(path, tmp_path / "target")
        assert files_under(tmp_path) == ["a.zip"]


def test_unzip_into_a_file_or_from_nothing(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": b"1"})
    (tmp_path / "target").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot use"):
        safe_unzip(path, tmp_path / "target")
    with pytest.raises(DownloadError, match=r"cannot use .*none\.zip"):
        safe_unzip(tmp_path / "none.zip", tmp_path / "other")
