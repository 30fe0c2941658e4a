"""What the package must not do: run code of others, or talk to the network behind one's back."""

from __future__ import annotations

import ast
import os
import pickle
import socket
import subprocess
import sys

import pytest
import torch

from pecrs_lib.data import DataError, read_catalogue, read_dialogues
from tests.conftest import NetworkBlockedError
from tests.test_package import PATHS, TREES, modules

AREA = "Security"
RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load",
             "pickle.loads", "marshal.loads", "yaml.load", "joblib.load", "dill.load"}  # fmt: skip
NETWORK = {"requests", "urllib.request", "http.client", "socket", "pooch", "aiohttp", "httpx",
           "urllib3", "ftplib", "smtplib", "huggingface_hub"}  # fmt: skip
MAY_USE_IT = {
    "pecrs_lib.data.download",  # downloads
    "pecrs_lib.zero_shot.servers",  # the live LLM client
    "pecrs_lib.cli.serve",  # binds the port that it serves on
    "pecrs_lib.cli.page",
    "pecrs_lib.cli.trained",  # silences the log of huggingface_hub
}


def calls(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call)]


def dangers(tree):
    """Calls by which a file or a person could have code run, with their lines."""
    found = [(ast.unparse(c.func), c.lineno) for c in calls(tree)
             if ast.unparse(c.func) in RUNS_CODE]  # fmt: skip
    for c in calls(tree):
        given = {k.arg: ast.unparse(k.value) for k in c.keywords}
        found += [(name, c.lineno) for name in ("trust_remote_code", "shell") if name in given]
        if ast.unparse(c.func) == "torch.load" and given.get("weights_only") != "True":
            found.append(("torch.load", c.lineno))
        if ast.unparse(c.func) == "np.load" and given.get("allow_pickle") != "False":
            found.append(("np.load", c.lineno))
    return found


def test_the_search_finds_what_it_looks_for():
    for line in (
        "eval(x)", "exec(x)", "f(trust_remote_code=True)", "torch.load(x)", "np.load(x)",
        "pickle.load(f)", "torch.load(x, weights_only=False)", "run(x, shell=True)",
    ):  # fmt: skip
        assert dangers(ast.parse(line)), line
    assert not dangers(ast.parse("model.eval(); torch.load(x, weights_only=True)"))


@modules
def test_no_module_runs_code_of_others(name):
    assert dangers(TREES[name]) == []


@modules
def test_only_these_modules_know_of_the_network(name):
    imported = {
        alias for n in ast.walk(TREES[name])
        for alias in (
            [a.name for a in n.names] if isinstance(n, ast.Import)
            else [n.module or ""] if isinstance(n, ast.ImportFrom) else []
        )
    }  # fmt: skip
    if name not in MAY_USE_IT:
        assert not imported & NETWORK


def test_what_was_searched(tried):
    tried("eval, exec, pickle, shell, trust_remote_code in a module", len(PATHS), "none")
    tried("imports of network modules", len(PATHS), f"only in {len(MAY_USE_IT)} that are for it")


class Harmful:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_pickles_with_globals_are_refused(tmp_path, tried):
    mark = tmp_path / "was-run"
    path = tmp_path / "movie_db"
    contents = [{1: Harmful(mark)}, [("SEEKER", [("A: x", [Harmful(mark)])])], Harmful(mark)]
    count = 0
    for content in contents:
        for save in (lambda c: torch.save(c, path), lambda c: path.write_bytes(pickle.dumps(c))):
            save(content)
            for read in (read_catalogue, lambda p: read_dialogues(p, "pecrs")):
                with pytest.raises(DataError, match="movie_db"):
                    read(path)
                count += 1
    assert not mark.exists()
    tried("a pickle that would run a command, as movie_db or dialogues", count, "refused, not run")


def test_the_network_is_blocked_in_tests(tried):
    with pytest.raises(NetworkBlockedError), socket.socket() as wire:
        wire.connect(("192.0.2.1", 80))  # RFC 5737: an address of nobody
    with pytest.raises(NetworkBlockedError):
        socket.getaddrinfo("example.org", 80)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    with pytest.raises(NetworkBlockedError), socket.socket(type=socket.SOCK_DGRAM) as wire:
        wire.sendto(b"x", ("192.0.2.1", 53))
    tried("network in every test but through loopback", 1, "blocked: no test needs it")


WHOLE_WAY = """
import sys, warnings
warnings.simplefilter("ignore")
from tests.conftest import block_network
block_network()
from pathlib import Path
from tests.faults.worker import train
print(len(train({"out": sys.argv[1], "config": {"epochs": 1}}, sys.argv[2])["history"]))
"""


def test_training_needs_no_network(tiny_backbone, tmp_path):
    """In a process of its own without the variables that keep libraries off the network."""
    calm = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    command = [sys.executable, "-c", WHOLE_WAY, str(tmp_path), tiny_backbone]
    done = subprocess.run(command, env=calm, capture_output=True, text=True)
    assert done.stdout.split() == ["1"], done.stderr[-2000:]


def test_the_same_seed_gives_the_same_numbers_in_two_processes(tiny_backbone, tmp_path, tried):
    found = []
    for k in range(2):
        code = (
            "import sys, json; from tests.faults.worker import train; "
            "print(json.dumps(train({'out': sys.argv[1]}, sys.argv[2])))"
        )
        command = [sys.executable, "-c", code, str(tmp_path / str(k)), tiny_backbone]
        calm = os.environ | {"PYTHONHASHSEED": str(k + 1)}
        done = subprocess.run(command, env=calm, capture_output=True, text=True, check=True)
        found.append(done.stdout)
    assert '"history"' in found[0] and found[0] == found[1]
    tried("same seed, same machine, two processes", 2, "the same metrics and weights, bit for bit")
