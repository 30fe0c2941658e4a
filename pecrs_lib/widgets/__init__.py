"""Controls around the pictures: a `Panel` draws a figure anew when one of its controls is let go.

The top of the flow beside `cli`; needs ipywidgets. Each function here puts controls on a function
that stands alone, so the notebooks show the same picture above the widget. A mistake in what the
reader enters appears as a sentence in the panel, and the last picture stays.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as ipw
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pecrs_lib import figures
from pecrs_lib.context import SPECIAL_TOKENS, history_window
from pecrs_lib.data.schema import Catalogue, Dialogue, Utterance
from pecrs_lib.figures import diagrams
from pecrs_lib.losses import retrieval_loss
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack, visible
from pecrs_lib.recommend import Recommendation, recommend

WIDE = ipw.Layout(width="640px")
STYLE = {"description_width": "190px"}


class Panel(ipw.VBox):
    """Controls, a message and a picture.

    Args:
        draw: takes the values of the controls by name and returns the Figure, or the Figure and
            HTML to show below it.
        controls: ipywidgets with a `value`.
        alt: what the picture shows, for screen readers.
    """

    def __init__(
        self, draw: Callable[..., Figure | tuple[Figure, str]], alt: str, **controls: ipw.Widget
    ) -> None:
        self.draw, self.controls = draw, controls
        self.message, self.below = ipw.HTML(), ipw.HTML()
        self.picture, self.alt = ipw.HTML(), alt
        for control in controls.values():
            control.observe(lambda change: self.refresh(), names="value")
        super().__init__([*controls.values(), self.message, self.picture, self.below])
        self.refresh()

    def refresh(self) -> None:
        """Draw with the present values; say what is wrong where that fails."""
        try:
            drawn = self.draw(**{name: c.value for name, c in self.controls.items()})
        except Exception as error:  # whatever it is, the reader sees it here and not in a log
            self.message.value = problem_of(error)
            return
        figure, below = drawn if isinstance(drawn, tuple) else (drawn, "")
        self.message.value, self.below.value = "", below
        data = base64.b64encode(figures.png(figure)).decode("ascii")
        source = f'src="data:image/png;base64,{data}"'
        self.picture.value = f'<img alt="{self.alt}" {source} style="max-width: 100%">'


def problem_of(error: Exception) -> str:
    """The error as a sentence in HTML."""
    text = str(error).replace("&", "&amp;").replace("<", "&lt;")
    return f"<b>That does not work:</b> {text or type(error).__name__}"


def slider(description: str, options: Sequence[Any], value: Any) -> ipw.SelectionSlider:
    """A slider over given values that reports when it is let go; arrow keys move it."""
    return ipw.SelectionSlider(
        options=options, value=value, description=description, continuous_update=False,
        style=STYLE, layout=WIDE,
    )  # fmt: skip


def float_slider(description: str, low: float, high: float, value: float) -> ipw.FloatSlider:
    """A slider from low to high in a hundred steps."""
    return ipw.FloatSlider(
        value=value, min=low, max=high, step=(high - low) / 100, description=description,
        continuous_update=False, style=STYLE, layout=WIDE,
    )  # fmt: skip


# -- the token inspector ------------------------------------------------------------------------


def trunk_figure(text: str, model: PECRS, catalogue: Catalogue) -> Figure:
    """The tokens of a seeker's utterance as the model reads it."""
    tok = model.backbone.tokenizer
    history = Dialogue("typed", (Utterance("seeker", text),))
    window = history_window(history, catalogue, tok, **model.window_limits)
    special = dict(zip(tok.special_ids, SPECIAL_TOKENS, strict=True))
    words = [
        special.get(t) or tok.tokenizer.convert_ids_to_tokens(t) for t in window.token.tolist()
    ]
    speaker = len(tok.speaker["seeker"])
    kinds = [
        "marker" if t in special else "speaker" if 0 < k <= speaker else "word"
        for k, t in enumerate(window.token.tolist())
    ]
    return diagrams.token_strip(words, kinds)


def trunk_mask_figure(text: str, model: PECRS, catalogue: Catalogue) -> Figure:
    """The attention mask of the same utterance."""
    history = Dialogue("typed", (Utterance("seeker", text),))
    window = history_window(history, catalogue, model.backbone.tokenizer, **model.window_limits)
    layout = pack([window]).layout
    return diagrams.mask_figure(visible(layout, layout)[0, 0])


def token_inspector(model: PECRS, catalogue: Catalogue) -> Panel:
    """Type an utterance, see its tokens or its mask."""

    def draw(text: str, show: str) -> Figure:
        picture = trunk_figure if show == "tokens" else trunk_mask_figure
        return picture(text, model, catalogue)

    typed = ipw.Text(
        value="I loved Up and anything with robots", description="seeker says",
        continuous_update=False, style=STYLE, layout=WIDE,
    )  # fmt: skip
    show = ipw.ToggleButtons(options=["tokens", "mask"], description="show", style=STYLE)
    return Panel(draw, "tokens of the utterance, or who attends to whom", text=typed, show=show)


# -- the loss playground ------------------------------------------------------------------------


def loss_figure(positive: float, negative: float, temperature: float) -> Figure:
    """A query at 0°, the target and one negative at given angles: distances and the loss."""
    angle = torch.deg2rad(torch.tensor([0.0, positive, negative]))
    at = torch.stack([angle.cos(), angle.sin()], 1)
    distance = (at[0] - at[1:]).norm(dim=1)[None]
    loss = retrieval_loss(distance, temperature, 1).item()
    figure, (left, right) = figures.axes_of(2, (8.4, 3.6))
    names = ("query", "target", "negative")
    for (x, y), name, line in zip(at.tolist(), names, ("-", "--", ":"), strict=True):
        left.plot([0, x], [0, y], line, color="black", lw=2)
        side = "right" if name == "negative" else "left"
        left.text(1.1 * x, 1.1 * y, name, ha=side, va="center", fontsize=9)
    for x, y in at[1:].tolist():
        left.plot([1, x], [0, y], color="0.6", lw=1)
    left.set(xlim=(-1.3, 1.5), ylim=(-1.3, 1.3), aspect="equal", title="directions and chords")
    d, n = distance[0].tolist()
    bars = right.bar(
        ["distance to\ntarget", "distance to\nnegative", "loss (nats)"], [d, n, loss],
        color=["#7f9fc8", "#7f9fc8", "#e6a04b"], hatch=["", "//", ""],
    )  # fmt: skip
    right.bar_label(bars, fmt="%.2f")
    right.margins(y=0.15)
    return figure


def loss_playground() -> Panel:
    """Turn target and negative around the query; see distances and the loss of Eq 3."""
    return Panel(
        loss_figure, "two chords from the query and the retrieval loss",
        positive=float_slider("angle of the target (°)", 0, 180, 40),
        negative=float_slider("angle of the negative (°)", 0, 180, 100),
        temperature=slider("temperature", [0.03, 0.1, 0.3, 1.0], 0.1),
    )  # fmt: skip


# -- the balance of the three losses ------------------------------------------------------------


def balance_figure(
    history: Sequence[dict[str, float]], alpha: float, beta: float, gamma: float
) -> Figure:
    """What each loss adds to the joint one (Eq 8), epoch by epoch of a real run."""
    weights = {"recall": alpha, "rerank": beta, "gen": gamma}
    shares = {}
    for row in history:
        parts = {name: w * row[name] for name, w in weights.items()}
        total = sum(parts.values()) or 1.0
        shares[f"epoch {row['epoch']:g}"] = {
            f"{name} × {weights[name]:g}": 100 * part / total for name, part in parts.items()
        }
    return figures.bands_figure(shares, "share of the joint loss (%)")


def balance(history: Sequence[dict[str, float]]) -> Panel:
    """Move α, β and γ and see which loss speaks loudest."""

    def draw(alpha: float, beta: float, gamma: float) -> Figure:
        if alpha == beta == gamma == 0:
            raise ValueError("with three weights of 0 there is nothing to train")
        return balance_figure(history, alpha, beta, gamma)

    return Panel(
        draw, "share of each loss in the joint loss",
        alpha=float_slider("α, retrieval", 0, 1, 0.15),
        beta=float_slider("β, re-ranking", 0, 1, 0.85),
        gamma=float_slider("γ, response", 0, 1, 1.0),
    )  # fmt: skip


# -- why this film ------------------------------------------------------------------------------


def why_figure(ranked: Sequence[Recommendation]) -> Figure:
    """Places before and after re-ranking, a line per film, and the scores."""
    figure, ax = figures.axes_of(size=(7.6, 0.9 + 0.36 * len(ranked)))
    last = max([r.retrieved for r in ranked] + [len(ranked)])
    for place, r in enumerate(ranked, start=1):
        ax.plot([0, 1], [r.retrieved, place], "o-", color="0.25" if place == 1 else "0.6")
        ax.text(1.04, place, f"{r.movie.name}   r = {r.score:.2f}", va="center", fontsize=9)
        ax.text(-0.04, r.retrieved, f"{r.distance:.2f}", va="center", ha="right", fontsize=9)
    ax.set_xticks([0, 1], ["retrieved\n(distance)", "re-ranked"])
    ax.grid(visible=False)
    ax.set(xlim=(-0.25, 2.4), ylim=(last + 0.7, 0.3), ylabel="place")
    return figure


def why_this_film(model: PECRS, catalogue: Catalogue, v: Tensor) -> Panel:
    """Type what the seeker says; see what was retrieved and what re-ranking made of it."""

    def draw(text: str, top: int) -> Figure:
        history = Dialogue("typed", (Utterance("seeker", text),))
        return why_figure(recommend(model, [history], catalogue, v, top=top, candidates=50)[0])

    typed = ipw.Text(
        value="Something scary, please, but no ghosts.", description="seeker says",
        continuous_update=False, style=STYLE, layout=WIDE,
    )  # fmt: skip
    return Panel(
        draw, "places before and after re-ranking", text=typed, top=slider("films", [5, 10, 15], 10)
    )
