"""The page of what was tried is made from its report, and a failure would show in it."""

from __future__ import annotations

import json

from experiments.reliability import LOAD, NEWEST, PAGE, RESULT, newest, page, tried

REPORT = """<testsuites><testsuite><testcase classname="tests.faults.test_x" name="a"><properties>
<property name="tried" value="[&quot;Faults&quot;, &quot;w&quot;, 2, &quot;held&quot;]"/>
</properties></testcase>
<testcase classname="tests.test_y" name="b"><properties>
<property name="tried" value="[&quot;Other&quot;, &quot;v&quot;, 3, &quot;held&quot;]"/>
</properties><failure>no</failure></testcase>
<testcase classname="tests.test_y" name="c"><skipped/></testcase></testsuite></testsuites>"""


def test_a_report_becomes_rows_and_failures_show(tmp_path):
    (tmp_path / "r.xml").write_text(REPORT)
    found = tried(tmp_path / "r.xml")
    assert found["rows"] == [
        ["Faults", "w", 2, "held", "passed"],
        ["Other", "v", 3, "held", "failed"],
    ]
    assert found["tests"] == {
        "tests/faults/test_x.py": {"passed": 1}, "tests/test_y.py": {"failed": 1, "skipped": 1},
    }  # fmt: skip
    about = {"kills": 1, "profile": "ci", "commit": "c", "torch": "t", "hardware": "h"}
    new = newest(tmp_path / "r.xml")
    assert new["tests"] == {"passed": 1, "failed": 1, "skipped": 1} and "torch" in new["versions"]
    text = page(found | about, json.loads(LOAD.read_text(encoding="utf-8")), new)
    assert f"torch {new['versions']['torch']}" in text
    assert "| Faults | w | 2 | held |" in text and "| Other | v | 3 | **failed** |" in text
    assert "1 passed, 1 failed, 1 skipped" in text


def test_the_page_is_that_of_the_report():
    files = [json.loads(p.read_text(encoding="utf-8")) for p in (RESULT, LOAD, NEWEST)]
    assert PAGE.read_text(encoding="utf-8") == page(*files)
    report, _, new = files
    assert new["tests"]["passed"] > 500 and "failed" not in new["tests"]
    assert all(end == "passed" for *_, end in report["rows"])
    assert sum(times for area, _, times, *_ in report["rows"]) > 500
