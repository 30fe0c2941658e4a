"""The calculator of notebook 15 as a reader uses it: every control is moved, in a real chromium.

`make test-browser` runs this; it is skipped where Playwright or chromium is missing. The screenshot
`runs/browser/calculator.png` is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from pecrs_lib.costs.estimate import Estimate
from pecrs_lib.costs.measured import read_records, share_of
from pecrs_lib.costs.shapes import MACHINES, Machine, Shape
from pecrs_lib.data import bundled
from pecrs_lib.widgets.calculator_widget import OWN, plan, plan_table
from tests.browser.serving import CHROMIUM, ROOT, SHOTS, in_lab, opened, run_all

playwright = pytest.importorskip("playwright.sync_api")
NOTEBOOK = ROOT / "notebooks" / "15_scaling_up.ipynb"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
RECORDS = read_records(bundled("results"))
A100 = MACHINES["NVIDIA A100 80 GB"]


def own(tflops: float, read_gb: float, memory_gb: float) -> Machine:
    return Machine(OWN, {"bfloat16": tflops * 1e12}, read_gb * 1e9, memory_gb * 1e9)


def share(dtype: str) -> float:
    return round(100 * share_of(RECORDS[dtype]), 1) / 100


# a control, what is entered, and which arguments of `plan` that changes
MOVES: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    ("backbone", "GPT-2 medium", {"backbone": "GPT-2 medium"}),
    ("machine", A100.name, {"machine": A100.name, "price": A100.price}),
    ("dtype", "bfloat16", {"dtype": "bfloat16", "share": share("bfloat16")}),
    ("share reached (%)", 40, {"share": 0.4}),
    ("price per hour", 2.5, {"price": 2.5}),
    ("dialogues", 5000, {"dialogues": 5000}),
    ("items", 20_000, {"items": 20_000}),
    ("M_train", 64, {"M_train": 64}),
    ("M_inference", 100, {"M_inference": 100}),
    ("epochs", 3, {"epochs": 3}),
    ("batch", 9, {"batch": 9}),
    ("devices", 4, {"devices": 4}),
    ("at once", 2, {"at_once": 2}),
    ("checkpointing", True, {"checkpointing": True}),
    ("weights shared out (FSDP)", True, {"shared": True}),
    ("backbone", OWN, {"backbone": Shape.gpt2(OWN, 12, 768)}),
    ("own: layers", 24, {"backbone": Shape.gpt2(OWN, 24, 768)}),
    ("own: D", 1024, {"backbone": Shape.gpt2(OWN, 24, 1024)}),
    ("machine", OWN, {"machine": own(100, 1000, 24), "price": 0.0}),
    ("own: peak (TFLOP/s)", 50, {"machine": own(50, 1000, 24)}),
    ("own: memory rate (GB/s)", 500, {"machine": own(50, 500, 24)}),
    ("own: memory (GB)", 2, {"machine": own(50, 500, 2)}),
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with in_lab(NOTEBOOK, tmp_path_factory.mktemp("lab")) as url:
        yield url


def numbers(found: Estimate) -> list[float]:
    return plan_table(found)["how much"].round(3).tolist()


def enter(control: Any, value: Any) -> None:
    if isinstance(value, bool):
        control.set_checked(value)
    elif isinstance(value, str):
        control.select_option(value)
    else:
        control.fill(str(value))
        control.press("Enter")


def test_every_control_changes_the_numbers_and_they_are_right(address: str) -> None:
    with opened(1600, 1400) as page:
        run_all(page, address)
        picture = page.locator("img[alt^='hours of each part']")
        picture.wait_for(timeout=400_000)
        panel = page.locator(".widget-vbox", has=picture)
        assert panel.locator("input, select").count() == len({name for name, _, _ in MOVES})

        def shown() -> list[float]:
            cells = panel.locator("table tbody tr td:nth-of-type(1)")
            return [float(text) for text in cells.all_inner_texts()]

        def becomes(found: Estimate) -> bool:
            end = time.time() + 20
            while time.time() < end:
                fits = panel.get_by_text("It fits.").count() == 1
                if shown() == numbers(found) and fits == found.fits:
                    return True
                time.sleep(0.1)
            return False

        arguments: dict[str, Any] = {"share": share("float32"), "price": 0.0}
        before = plan(RECORDS, **arguments)[0]
        assert becomes(before), "as it opens"
        for name, value, change in MOVES:
            arguments |= change
            found = plan(RECORDS, **arguments)[0]
            assert (found.fits, numbers(found)) != (before.fits, numbers(before)), name
            drawn = picture.get_attribute("src")
            enter(panel.get_by_label(name, exact=True), value)
            assert becomes(found), f"{name}: {shown()} instead of {numbers(found)}"
            if name not in ("price per hour", "own: memory rate (GB/s)"):  # the table alone
                playwright.expect(picture).not_to_have_attribute("src", drawn, timeout=20_000)
            before = found
        assert not before.fits, "the last machine is too small"
        enter(panel.get_by_label("devices", exact=True), 10)
        playwright.expect(panel).to_contain_text("leaves 1 of 10 devices idle", timeout=20_000)
        picture.scroll_into_view_if_needed()
        page.screenshot(path=SHOTS / "calculator.png")
