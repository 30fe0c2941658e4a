"""What was tried to break the package, how often, and what happened: `docs/reliability.md`.

    python -m experiments.reliability [--kills 20] [--profile nightly] [--page] [--newest REPORT]

Runs the tests that say what they try (fixture `tried` of tests/conftest.py), keeps their report in
data/results/reliability.json, and writes the page from it and from the load test's report
(`tests.benchmarks.load_serve`). With --page it only writes the page, with --newest it first keeps
what `make test-newest` found (its JUnit report). Exit status 1: a test failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pecrs_lib.reproduction.runs import machine, write_run

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "data" / "results" / "reliability.json"
LOAD = ROOT / "data" / "results" / "serve_load.json"
NEWEST = ROOT / "data" / "results" / "newest.json"
PAGE = ROOT / "docs" / "reliability.md"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pandas")
TESTS = (
    "tests/faults", "tests/properties", "tests/test_security.py", "tests/test_large_inputs.py",
    "tests/test_download.py", "tests/test_serve.py", "tests/test_training.py",
    "tests/test_readers.py", "tests/test_context.py",
)  # fmt: skip
TEXT = """# Reliability

What was tried to break the package, how often, and what happened. `make reliability` runs it all
again and writes this page; `make test` runs the same tests with fewer cases.

{summary}

| area | what was tried | how often | what happened |
| --- | --- | --- | --- |
{rows}

{others}

## What to rely on

- **Files.** A file or checkpoint appears under its final name once it is complete, or not at all.
  Checkpoints carry `SHA256SUMS`, which is checked before they are read (`sha256sum -c SHA256SUMS`
  checks them by hand); item caches end in their checksum and are made anew when it is wrong.
- **Numbers.** The same seed gives the same numbers, bit for bit, on the same machine with the same
  versions and number of threads, in one process on CPU, also after an interruption. Another number
  of threads or processes, another CPU or a GPU changes the order of sums, and so the last digits;
  so does a batch of another size when a server answers several people at once. With
  `refresh_items` a run is the same only if it stopped between epochs.
- **A loss or gradient that is no number** stops the training before it reaches the weights;
  `nonfinite.json` in the folder of the run has the ids of the dialogues.
- **Code of others** is never run: pickles with globals are refused, `trust_remote_code` is not
  used, and nothing calls `eval` or `exec`. An index of `pecrs_lib.index` is for files you trust.
- **The network** is used by `pecrs data download`, by the client of a language model's server, and
  when a backbone is named that is neither bundled nor a folder (`transformers` downloads it).
- **Control tokens** have ids that the tokenizer does not know, so `[REC]` in a text is text.

## Supply chain

`constraints.txt` holds the versions that everything here was run with. `make test-newest` makes a
second environment with the newest versions that `pyproject.toml` allows and runs the tests of the
core there; CI does so too, with torch as in `constraints.txt` (its newest build brings gigabytes).
{newest}

`make audit` asks for known vulnerabilities of the versions in `constraints.txt` and fails where it
can look nothing up, as it could not where this page was made: run it before you put a server of
this package on a network.
"""


def tried(report: Path) -> dict[str, Any]:
    """What a JUnit report says: the rows of the table, and the outcomes of all tests by file."""
    rows: list[list[Any]] = []
    files: dict[str, Counter[str]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        ends = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        end = next((ends[part.tag] for part in case if part.tag in ends), "passed")
        name = "/".join(case.get("classname", "").split(".")[: 3 if ".faults" in str(case.get(
            "classname")) or ".properties" in str(case.get("classname")) else 2])  # fmt: skip
        files.setdefault(f"{name}.py", Counter())[end] += 1
        for row in (p.get("value", "") for p in case.iter("property") if p.get("name") == "tried"):
            rows.append([*json.loads(row), end])
    return {"rows": rows, "tests": {name: dict(n) for name, n in sorted(files.items())}}


def run(kills: int, profile: str) -> dict[str, Any]:
    """Run the tests; their report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = [f"--junitxml={report}", f"--kills={kills}", f"--hypothesis-profile={profile}"]
        command = [sys.executable, "-m", "pytest", *TESTS, *options, "-n2", "--dist=worksteal"]
        subprocess.run(command, cwd=ROOT)
        found = tried(report)
    return {"kills": kills, "profile": profile, **machine(), **found}


def newest(report: Path) -> dict[str, Any]:
    """What was tested with the newest versions: them, and the outcomes of its tests."""
    total: Counter[str] = Counter()
    for counts in tried(report)["tests"].values():
        total.update(counts)
    versions = {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {"versions": versions, "tests": dict(total), **machine()}


def load_row(load: Mapping[str, Any]) -> list[Any]:
    """The row of the load test."""
    memory, files = load["memory_mib"], load["open_files"]
    happened = (
        f"{load['wrong_answers']} answers of another's dialogue, "
        f"{sum(load['unexpected'].values())} unexpected statuses; memory "
        f"{memory['growth_first_to_last_third']:+.1f} MiB from the first third to the last, open "
        f"files {files['before']:.0f} before and {files['after']:.0f} after"
    )
    what = (
        f"`pecrs serve` for {load['seconds']:.0f} s: well-formed, malformed, oversize, slow, "
        "half-closed and broken requests at once"
    )
    return ["Serving", what, load["requests"], happened, "failed" if load["faults"] else "passed"]


def page(report: Mapping[str, Any], load: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    rows = [*report["rows"], load_row(load)]
    order = list(dict.fromkeys(row[0] for row in rows))
    lines = [
        f"| {area} | {what} | {times:,} | {happened if end == 'passed' else f'**{end}**'} |"
        for area, what, times, happened, end in sorted(rows, key=lambda row: order.index(row[0]))
    ]
    total: Counter[str] = Counter()
    for counts in report["tests"].values():
        total.update(counts)
    ends = ", ".join(f"{total[end]} {end}" for end in ("passed", "failed", "skipped"))
    summary = (
        f"Last run: commit {report['commit']}, torch {report['torch']}, {report['hardware']}; "
        f"{sum(total.values())} tests, {ends}; {report['kills']} kills, profile "
        f"`{report['profile']}` of hypothesis. The load test: commit {load['commit']}."
    )
    named = ", ".join(f"`{name}` ({sum(n.values())})" for name, n in report["tests"].items())
    others = f"The tests behind it, with many that have no row here: {named}."
    versions = ", ".join(f"{name} {number}" for name, number in new["versions"].items())
    counts = ", ".join(f"{number} {end}" for end, number in sorted(new["tests"].items()))
    newest = f"Last time, at commit {new['commit']}: {versions}; {counts}."
    return TEXT.format(summary=summary, rows="\n".join(lines), others=others, newest=newest)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="trainings to kill")
    parser.add_argument("--profile", default="nightly", choices=("ci", "nightly"))
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--newest", type=Path, help="report of `make test-newest`")
    args = parser.parse_args()
    if args.newest:
        write_run(newest(args.newest), NEWEST)
    elif not args.page:
        write_run(run(args.kills, args.profile), RESULT)
    report, load, new = (json.loads(p.read_text(encoding="utf-8")) for p in (RESULT, LOAD, NEWEST))
    PAGE.write_text(page(report, load, new), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    sys.exit(any("failed" in counts for counts in report["tests"].values()))


if __name__ == "__main__":
    main()
