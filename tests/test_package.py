"""The package as a whole: what imports what, what may stand in it, and what may not."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import pecrs_lib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pecrs_lib"
# A module or package imports only what stands before it. `metrics` holds pure functions that
# `training` needs for validation; `pretrain` and `simulator` stand beside the flow.
FLOW = (
    "data", "transcript", "memory", "processes", "config", "metrics", "next_item", "context",
    "packing", "attention", "vocabulary", "negatives", "losses", "index", "heads", "items",
    "encoding", "backbone", "model", "item_store", "batches", "calibration", "ranking", "protocol",
    "sharding", "checkpoint", "warmstart", "devices", "optimizer", "training", "recommend",
    "decoding", "streaming", "generation", "why", "chat", "serving", "baselines", "evaluation",
    "assessment", "zero_shot", "reproduction", "rating", "documents", "pretrain", "simulator",
    "ilm", "exercises", "costs", "figures", "widgets", "pod", "cli", "__main__",
)  # fmt: skip
EXTRA = {
    "pecrs_lib.serving.service": "pydantic",
    "pecrs_lib.serving.application": "fastapi",
}  # what they need


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(p): p for p in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}
modules = pytest.mark.parametrize("name", PATHS)


def imports(name: str) -> set[str]:
    """Modules of this package that `name` imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in PATHS else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {other for other in found if other in PATHS} - {name}


def step(name: str) -> str:
    return name.split(".")[1]


def test_the_package_is_found():
    assert len(PATHS) > 20 and pecrs_lib.__version__
    assert imports("pecrs_lib.model") >= {"pecrs_lib.backbone", "pecrs_lib.losses"}


@modules
def test_nothing_imports_upward(name):
    if name == "pecrs_lib":
        assert not imports(name), "the package itself imports nothing, so parts load alone"
        return
    assert step(name) in FLOW, f"say in FLOW where {step(name)} stands in the flow"
    for other in imports(name) - {"pecrs_lib"}:
        if step(other) != step(name):
            assert FLOW.index(step(other)) < FLOW.index(step(name)), f"{name} imports {other}"


def test_no_circles_inside_a_package():
    TopologicalSorter({name: imports(name) for name in PATHS}).prepare()  # raises CycleError


def forget_the_package() -> dict[str, ModuleType]:
    """Take its modules out of `sys.modules`; other packages stay, since they take seconds."""
    return {m: sys.modules.pop(m) for m in list(sys.modules) if m.split(".")[0] == "pecrs_lib"}


@modules
def test_every_module_imports_on_its_own(name):
    if name in EXTRA:
        pytest.importorskip(EXTRA[name])
    kept = forget_the_package()
    try:
        importlib.import_module(name)
    finally:
        forget_the_package()
        sys.modules.update(kept)


@modules
def test_a_module_is_read_in_one_sitting(name):
    assert len(PATHS[name].read_text(encoding="utf-8").splitlines()) <= 300
    assert ast.get_docstring(TREES[name]), "its docstring says where it stands in the flow"


@modules
def test_the_library_neither_prints_nor_seeds(name):
    calls = {ast.unparse(n.func) for n in ast.walk(TREES[name]) if isinstance(n, ast.Call)}
    if not name.startswith("pecrs_lib.cli"):
        assert not calls & {"print", "pprint", "sys.stdout.write", "sys.stderr.write"}
    assert not calls & {"np.random.seed", "random.seed", "torch.seed", "set_seed"}
    if "torch.manual_seed" in calls:
        assert forked_seeds(TREES[name]) == [], "only inside torch.random.fork_rng()"


def forked_seeds(tree: ast.Module) -> list[int]:
    """Lines that call torch.manual_seed outside `with torch.random.fork_rng()`."""
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and any(ast.unparse(i.context_expr) == "torch.random.fork_rng()" for i in node.items)
        for inner in ast.walk(node)
    }
    return [
        n.lineno
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        and ast.unparse(n.func) == "torch.manual_seed"
        and id(n) not in inside
    ]


def test_no_path_of_somebodys_machine_stands_in_the_repository():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    homes = ["work", "home", "Users", "root", "mnt", "tmp/dev"]
    machine = re.compile(rb"(?<![\w./:~-])/(?:%s)/\w|[A-Z]:\\Users" % "|".join(homes).encode())
    assert machine.search(b"see /" + b"home/somebody/x")  # it can find one
    found = []
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        text = path.read_bytes() if path.is_file() else b""
        if b"\0" not in text[:8192]:  # text, not weights
            found += [f"{name}: {m.group().decode()}" for m in machine.finditer(text)]
    assert not found


def test_every_deviation_from_the_paper_stands_in_the_table():
    """Of modules that implement the paper; those of the related systems are in their chapters."""
    text = (ROOT / "docs" / "research.md").read_text(encoding="utf-8")
    table = text[text.index("| the paper says |") :]
    named = set(re.findall(r"`([\w/]+\.py)`", table))
    marked = {
        path.relative_to(PACKAGE).as_posix()
        for path in PATHS.values()
        if "DEVIATION:" in path.read_text(encoding="utf-8")
    }
    marked = {name for name in marked if name.split("/")[0] not in ("ilm", "pod")}
    assert marked and marked <= named
    assert all((PACKAGE / name).is_file() for name in named)


def test_a_wheel_takes_all_that_is_bundled():
    """`data.bundled` finds it there as in a clone."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = settings["tool"]["setuptools"]
    assert setuptools["package-dir"]["pecrs_lib.bundled"] == "data"
    patterns = setuptools["package-data"]["pecrs_lib.bundled"]
    taken = {path for pattern in patterns for path in (ROOT / "data").glob(pattern)}
    there = {path for path in (ROOT / "data").glob("*/**/*") if path.is_file()}
    assert there and there <= taken, there - taken
