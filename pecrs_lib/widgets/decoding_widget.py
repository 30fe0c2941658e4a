"""Decoding strategies on a dialogue of the reader's choice: next token, replies, metrics.

The top of the flow: `decoding` has the strategies, `generation` the replies, `widgets` the knobs.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from pecrs_lib.context import DialogueTokenizer
from pecrs_lib.data.schema import Catalogue, Dialogue
from pecrs_lib.decoding import BEAMS, GREEDY, diverse, nucleus, top_k
from pecrs_lib.generation import respond
from pecrs_lib.metrics import distinct_n, rouge
from pecrs_lib.model import PECRS
from pecrs_lib.widgets import STYLE, WIDE, Panel, float_slider, slider
from pecrs_lib.widgets.next_token import likeliest, next_token_figure, next_token_logits, truncated

KINDS = ("greedy", "beam search", "diverse beam search", "top-k sampling", "nucleus sampling")
TRIES = 6  # shown next to each other


def arguments_of(
    kind: str, *, temperature: float, k: int, p: float, penalty: float, beams: int = 1
) -> dict[str, Any]:
    """The arguments of `generation.respond` for one of `KINDS`; what it has no use for is ignored.

    Raises:
        ValueError: no such kind.
    """
    if kind == "greedy":
        return GREEDY
    if kind == "beam search":
        return {"do_sample": False, "num_beams": BEAMS}
    if kind == "diverse beam search":
        return diverse(penalty)
    if kind == "top-k sampling":
        return top_k(k, temperature=temperature, num_beams=beams)
    if kind == "nucleus sampling":
        return nucleus(p, temperature=temperature, num_beams=beams)
    raise ValueError(f"a strategy is one of {', '.join(KINDS)}, got {kind!r}")


def label(kind: str, arguments: Mapping[str, Any], seed: int) -> str:
    """A setting in words, without what changes nothing."""
    names = {"top_k": "k", "top_p": "p", "temperature": "temperature", "num_beams": "beams",
             "diversity_penalty": "penalty"}  # fmt: skip
    nothing = {"top_k": 0, "temperature": 1.0, "num_beams": 1}
    told = [
        f"{names[n]} = {x:g}" for n, x in arguments.items() if n in names and nothing.get(n) != x
    ]
    return ", ".join([kind, *told, *([f"seed {seed}"] if arguments.get("do_sample") else [])])


def turns_of(dialogue: Dialogue) -> list[int]:
    """The recommender's turns of a dialogue that something was said before."""
    return [t for t, u in enumerate(dialogue.utterances) if t and u.role == "recommender"]


def tried(
    model: PECRS,
    dialogue: Dialogue,
    turn: int,
    catalogue: Catalogue,
    v: Tensor,
    settings: Mapping[str, dict[str, Any]],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """A turn of a dialogue answered under each setting: replies and metrics next to each other.

    Args:
        turn: index of the recommender's utterance to replace.
        settings: name -> arguments of `generation.respond`.

    Returns:
        a row per setting: the reply, ROUGE-1 in percent against the true utterance, words, Dist@2
        per n-gram of this one reply, milliseconds.
    """
    tok: DialogueTokenizer = model.backbone.tokenizer
    (true,) = tok.encode_texts([dialogue.utterances[turn]], catalogue)
    history = Dialogue(dialogue.id, dialogue.utterances[:turn])
    rows = []
    for name, arguments in settings.items():
        started = time.perf_counter()
        (reply,) = respond(model, [history], catalogue, v, top=2, seed=seed, **arguments)
        rows.append({
            "strategy": name, "reply": reply.text,
            "ROUGE-1": round(rouge([reply.raw], [tok.decode(true)])["rouge1"], 1),
            "words": len(reply.raw.split()),
            "Dist@2": round(distinct_n([reply.raw], 2, per="ngram"), 2),
            "ms": round(1000 * (time.perf_counter() - started)),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("strategy")


def decoding_widget(
    model: PECRS, catalogue: Catalogue, v: Tensor, dialogues: Sequence[Dialogue]
) -> Panel:
    """Choose a dialogue, a strategy and its numbers; compare with what you chose before."""
    seen: dict[str, pd.DataFrame] = {}
    at: list[tuple[Dialogue, int]] = []

    def draw(
        turn: tuple[Dialogue, int], kind: str, temperature: float, k: int, p: float,
        penalty: float, beams: int, begun: str, seed: int,
    ) -> tuple[Figure, str]:  # fmt: skip
        dialogue, t = turn
        if at != [turn]:
            seen.clear()
            at[:] = [turn]
        arguments = arguments_of(
            kind, temperature=temperature, k=k, p=p, penalty=penalty, beams=beams
        )
        name = label(kind, arguments, seed)
        if name not in seen:
            seen[name] = tried(model, dialogue, t, catalogue, v, {name: arguments}, seed=seed)
        history = Dialogue(dialogue.id, dialogue.utterances[:t])
        logits = next_token_logits(model, history, catalogue, v, said=begun)
        cut = {key: x for key, x in arguments.items() if key in ("temperature", "top_k", "top_p")}
        words, ids = likeliest(logits, model.backbone.tokenizer)
        drawn = truncated(logits, **cut) if cut else (logits == logits.max()).float()
        figure = next_token_figure(words, logits.softmax(-1)[ids].tolist(), drawn[ids].tolist())
        rows = pd.concat(list(seen.values())[-TRIES:])
        return figure, said_before(history) + rows.to_html(escape=True)

    turns = [(d, t) for d in dialogues for t in turns_of(d)]
    if not turns:
        raise ValueError("none of the dialogues has a turn of the recommender to replace")
    options = [(f"dialogue {d.id}, turn {t + 1}", (d, t)) for d, t in turns]
    begun = ipw.Text(
        value="", description="the reply begins", placeholder="nothing yet",
        continuous_update=False, style=STYLE, layout=WIDE,
    )  # fmt: skip
    return Panel(
        draw, "probabilities of the next token, of the model and as sampling draws",
        turn=ipw.Dropdown(options=options, description="reply to", style=STYLE, layout=WIDE),
        kind=ipw.Dropdown(options=KINDS, description="strategy", style=STYLE, layout=WIDE),
        temperature=float_slider("temperature", 0.1, 2.1, 1.0),
        k=slider("k", [1, 5, 25, 50, 75, 200], 50),
        p=slider("p", [0.5, 0.8, 0.9, 0.95, 0.99], 0.95),
        penalty=slider("diversity penalty", [0.0, 0.5, 1.0, 1.5], 1.0),
        beams=slider("beams while sampling", [1, 2, 4], 1),
        begun=begun,
        seed=slider("seed", list(range(5)), 0),
    )  # fmt: skip


def said_before(history: Dialogue, last: int = 3) -> str:
    """The end of a dialogue as HTML."""
    lines = [f"<i>{u.role}:</i> {html.escape(u.text)}" for u in history.utterances[-last:]]
    return "<p>" + "<br>".join(lines) + "</p>"
