"""The negative-sampling explorer as a picture and as a widget.

The top of the flow: `explorer` has the numbers, `widgets` the controls. The picture answers at once
from a grid of runs made beforehand; *Train live* really trains the chosen setting and draws its
point beside them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pecrs_lib.figures import axes_of
from pecrs_lib.widgets import Panel, problem_of, slider
from pecrs_lib.widgets.explorer import (
    Cancelled,
    Outputs,
    Setting,
    nearest_run,
    ranks,
    recall,
    train_heads,
)

ALL = "all"


def _name(m: int | None) -> str:
    return ALL if m is None else str(m)


def _option(m: int | None) -> int | tuple[str, None]:
    return ("whole catalogue", None) if m is None else m


def explorer_figure(
    grid: dict[str, Any],
    cost: dict[str, Any],
    setting: Setting,
    *,
    share_over_tasks: bool = True,
    k: int = 50,
    live: Sequence[tuple[Setting, dict[str, dict[str, float]]]] = (),
) -> Figure:
    """Recall over M_train, cost over M_train, and M_train × M_inference with the reader's point.

    Args:
        grid, cost: the files of `experiments.explorer`.
        live: settings trained live, with what `explorer.recall` said.
    """
    here = nearest_run(grid["runs"], setting)
    chosen = here["setting"]
    fixed = ("temperature", "share_over_batch", "popular")
    same = [r for r in grid["runs"] if all(r["setting"][n] == chosen[n] for n in fixed)]
    names = [_name(run["setting"]["negatives"]) for run in same]
    column = min(grid["candidates"], key=lambda c: abs(np.log(c / setting.candidates)))
    figure, (left, middle, right) = axes_of(3, (13.0, 3.9))

    cells = [run["recall"][str(column)][f"R@{k}"] for run in same]
    value = np.array([c["value"] for c in cells])
    spread = np.array([[c["value"] - c["low"], c["high"] - c["value"]] for c in cells]).T.clip(0)
    left.errorbar(
        names, value, yerr=spread, fmt="o-", color="0.35", capsize=3, label="95 % interval"
    )
    for number, (other, found) in enumerate(live):
        c = found[f"R@{k}"]
        left.errorbar(
            _name(other.negatives), c["value"],
            yerr=[[c["value"] - c["low"]], [c["high"] - c["value"]]], fmt="D", ms=9,
            color="#d55e00", capsize=5, label="trained live" if not number else None,
        )  # fmt: skip
    left.set(xlabel="M_train (negatives)", ylabel=f"Recall@{k} (%)",
             title=f"temperature {chosen['temperature']:g}, M_inference {column}")  # fmt: skip
    left.legend(fontsize=9)

    batch = chosen["share_over_batch"]
    for tasks, line in ((True, "o-"), (False, "s--")):
        rows = [
            r for r in cost["rows"]
            if r["share_over_batch"] == batch and r["share_over_tasks"] == tasks
        ]  # fmt: skip
        middle.plot(
            [str(r["negatives"]) for r in rows], [r["seconds"] for r in rows], line,
            color="#d55e00" if tasks == share_over_tasks else "0.6",
            label=f"{'shared' if tasks else 'not shared'} over tasks",
        )  # fmt: skip
        for r in rows if tasks == share_over_tasks else ():
            middle.annotate(
                f"{r['peak_gib']:.1f} GiB", (str(r["negatives"]), r["seconds"]), fontsize=9,
                xytext=(8, -12), textcoords="offset points",
            )  # fmt: skip
    middle.set(xlabel="M_train (negatives)", ylabel="seconds a step, one core", ylim=(0, None),
               title="cost of the whole model (memory beside it)")  # fmt: skip
    middle.margins(x=0.25)
    middle.legend(fontsize=9)

    table = [[run["recall"][str(c)][f"R@{k}"]["value"] for c in grid["candidates"]] for run in same]
    sns.heatmap(
        np.array(table), annot=True, fmt=".0f", cmap="Greys", cbar=False, ax=right,
        vmin=0, vmax=130, xticklabels=grid["candidates"], yticklabels=names,
    )  # fmt: skip
    right.grid(visible=False)
    right.set(xlabel="M_inference (re-ranked)", ylabel="M_train", title=f"Recall@{k} (%)")
    place = grid["candidates"].index(column), names.index(_name(chosen["negatives"]))
    right.add_patch(Rectangle(place, 1, 1, fill=False, ec="#d55e00", lw=3))
    return figure


class Explorer(ipw.VBox):
    """Sliders over the grid, and a button that trains.

    Attributes:
        panel: controls and picture.
        train, cancel: the buttons; `bar` and `status` show what goes on.
        live: what was trained live so far.
    """

    def __init__(
        self, outputs: Outputs, grid: dict[str, Any], cost: dict[str, Any], epochs: int = 8
    ) -> None:
        self.outputs, self.grid, self.cost, self.epochs = outputs, grid, cost, epochs
        self.live: list[tuple[Setting, dict[str, dict[str, float]]]] = []
        self.worker: threading.Thread | None = None
        self._stop = threading.Event()
        n = len(outputs.item)
        tried = dict.fromkeys(run["setting"]["negatives"] for run in grid["runs"])
        self.panel = Panel(
            self._draw, "recall and cost over M_train, recall over M_train and M_inference",
            negatives=slider("M_train (negatives)", [*map(_option, tried), 1024], 16),
            candidates=slider("M_inference", grid["candidates"], 100),
            temperature=slider("temperature", [0.03, 0.1, 0.3], 0.1),
            share_over_batch=self._box("share negatives over the batch", True),
            share_over_tasks=self._box("share negatives over the tasks", True),
            popular=self._box("draw negatives by popularity", False),
            k=slider("recall at", [1, 10, 50], 50),
        )  # fmt: skip
        self.train = ipw.Button(
            description="Train live", icon="play", tooltip=f"train on {len(outputs.query)} points",
        )  # fmt: skip
        self.cancel = ipw.Button(description="Cancel", icon="stop", disabled=True)
        self.bar = ipw.FloatProgress(min=0, max=1, layout=ipw.Layout(width="300px"))
        self.status = ipw.HTML(f"{n} films; press Train live to add a point")
        self.train.on_click(lambda button: self.start())
        self.cancel.on_click(lambda button: self._stop.set())
        row = ipw.HBox([self.train, self.cancel, self.bar])
        super().__init__([self.panel, row, self.status])

    @staticmethod
    def _box(description: str, value: bool) -> ipw.Checkbox:
        return ipw.Checkbox(value=value, description=description, layout=ipw.Layout(width="420px"))

    def setting(self, **values: Any) -> Setting:
        """The knobs as they stand, or some other values of them."""
        values = values or {name: c.value for name, c in self.panel.controls.items()}
        names = ("negatives", "candidates", "temperature", "share_over_batch", "popular")
        return Setting(**{name: values[name] for name in names})

    def _draw(self, k: int, share_over_tasks: bool, **values: Any) -> Figure:
        setting = self.setting(**values)
        if (problem := setting.problem(len(self.outputs.item))) is not None:
            raise ValueError(problem)
        return explorer_figure(
            self.grid, self.cost, setting, share_over_tasks=share_over_tasks, k=k, live=self.live
        )

    def start(self) -> None:
        """Train the present setting in the background; while one runs, nothing starts."""
        if self.worker is not None and self.worker.is_alive():
            return
        setting = self.setting()
        self._stop.clear()
        self.train.disabled, self.cancel.disabled = True, False
        self.status.value = f"training with M_train = {_name(setting.negatives)} …"
        self.worker = threading.Thread(target=self._run, args=(setting,), daemon=True)
        self.worker.start()

    def _run(self, setting: Setting) -> None:
        def progress(share: float) -> bool:
            if share - self.bar.value > 0.02 or share in (0.0, 1.0):
                self.bar.value = share
            return self._stop.is_set()

        try:
            self.bar.value = 0
            trained = train_heads(self.outputs, setting, epochs=self.epochs, progress=progress)
            found = recall(ranks(trained, self.outputs, setting.candidates), self.outputs)
            self.live = [*self.live, (setting, found)]
            cells = ", ".join(
                f"{name} {c['value']:.1f} [{c['low']:.1f}, {c['high']:.1f}]"
                for name, c in found.items()
            )
            self.status.value = f"M_train = {_name(setting.negatives)}: {cells}"
            self.panel.refresh()
        except Cancelled:
            self.status.value = "cancelled; nothing was changed"
        except Exception as error:  # shown here: a thread's trace would end in the server's log
            self.status.value = problem_of(error)
        finally:
            self.train.disabled, self.cancel.disabled = False, True
