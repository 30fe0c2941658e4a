"""What a conversation looks like: utterances, film cards and tables as HTML.

Comes after `chat`; `chat_widget` shows it. Pure functions of what `Chat` holds. Every word that a
person, a catalogue or a model wrote is escaped here. Nothing is told by colour alone.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from pecrs_lib.chat import Answer
from pecrs_lib.data import Movie, Utterance
from pecrs_lib.recommend import Recommendation

Near = Sequence[tuple[str, float]]  # things said, with their part in percent
SHOWN = 600  # characters of an utterance
NAMES = {"seeker": "You", "recommender": "PECRS"}
STYLE = """<style>
.pecrs-chat { max-width: 960px; color: #1b1b1b; font: 15px/1.45 system-ui, sans-serif; }
.pecrs-chat .widget-html-content { font-size: 15px; line-height: 1.45; }
.pecrs-log { display: flex; flex-direction: column-reverse; max-height: 340px; min-height: 90px;
  overflow-y: auto; border: 1px solid #b5b5b5; border-radius: 8px; background: #fff; }
.pecrs-log > div { padding: 8px 14px; }
.pecrs-log p { margin: 7px 0; padding: 7px 12px; border-radius: 8px; width: fit-content;
  max-width: 82%; overflow-wrap: anywhere; color: #1b1b1b; }
.pecrs-log .seeker { background: #e9e9e9; margin-left: auto; }
.pecrs-log .recommender { border: 1px solid #8a8a8a; }
.pecrs-log b, .pecrs-note b { font-weight: 600; }
.pecrs-log .who { display: block; font-size: 12px; color: #555; }
.pecrs-log .film { font-weight: 600; text-decoration: underline; text-underline-offset: 2px; }
.pecrs-line input { font-size: 16px !important; height: 36px !important; padding: 4px 10px; }
.pecrs-line label { font-weight: 600; height: 36px !important; line-height: 36px !important; }
.pecrs-chat .jupyter-button { height: 36px; line-height: 34px; border: 1px solid #6f6f6f;
  border-radius: 6px; background: #fff; color: #1b1b1b; font-size: 14px; }
.pecrs-chat .jupyter-button.pecrs-first { background: #1f4e79; color: #fff; border-color: #1f4e79; }
.pecrs-chat .jupyter-button:focus-visible { outline: 3px solid #d55e00; outline-offset: 1px; }
.pecrs-chat .jupyter-button:disabled { opacity: .5; }
.pecrs-unknown { align-items: center; flex-wrap: wrap; }
.pecrs-unknown .widget-html, .pecrs-unknown .widget-html-content { height: auto; }
.pecrs-cards { align-items: stretch; gap: 12px; }
.pecrs-card { border: 1px solid #b5b5b5; border-radius: 8px; background: #fff; padding: 10px 14px;
  flex: 1 1 0; min-width: 0; justify-content: space-between; }
.pecrs-card .widget-html, .pecrs-card .widget-html-content { height: auto; white-space: normal; }
.pecrs-card h3 { margin: 2px 0 0; font-size: 17px; line-height: 1.25; color: #1b1b1b; }
.pecrs-card small { display: inline-block; background: #1b1b1b; color: #fff; border-radius: 4px;
  padding: 0 6px; font-size: 12px; font-weight: 400; vertical-align: 2px; }
.pecrs-card .place { font-size: 13px; color: #444; margin: 0 0 6px; }
.pecrs-card p { margin: 5px 0; font-size: 14px; line-height: 1.4; color: #1b1b1b; }
.pecrs-card .genre { display: inline-block; border: 1px solid #8a8a8a; border-radius: 10px;
  padding: 0 8px; margin: 0 4px 3px 0; font-size: 12.5px; }
.pecrs-card .why { border-top: 1px solid #d8d8d8; padding-top: 6px; }
.pecrs-card .jupyter-button { flex: 1 1 auto; width: auto; height: 32px; line-height: 30px; }
.pecrs-table { border-collapse: collapse; width: 100%; font-size: 14px; color: #1b1b1b;
  background: #fff; }
.pecrs-table caption { text-align: left; font-weight: 600; padding: 4px 0 6px; color: inherit; }
.pecrs-table th, .pecrs-table td { text-align: left; padding: 3px 9px; vertical-align: top;
  border-bottom: 1px solid #d8d8d8; background: #fff; }
.pecrs-table thead th { border-bottom: 2px solid #1b1b1b; }
.pecrs-table .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pecrs-table .second { border-left: 2px solid #1b1b1b; }
.pecrs-chat a { color: #1f4e79; }
</style>"""


def conversation(said: Sequence[Utterance], live: tuple[str, str] | None = None) -> str:
    """All that was said; `live` is a line of the seeker and as much of its reply as there is."""
    lines = [_utterance(u) for u in said]
    if live is not None:
        lines.append(_utterance(Utterance("seeker", live[0])))
        lines.append(_utterance(Utterance("recommender", live[1] or "…")))
    if not lines:
        lines.append("<p>Say what you are in the mood for. Films are recognised by capitals, year "
                     "or quotation marks: Home Alone, Up (2009), “Her”.</p>")  # fmt: skip
    busy = "true" if live else "false"
    return (
        f'<div class="pecrs-log" role="log" aria-live="polite" aria-busy="{busy}" tabindex="0" '
        f'aria-label="conversation"><div>{"".join(lines)}</div></div>'
    )


def _utterance(said: Utterance) -> str:
    text, end = "", 0
    for m in said.mentions:
        if m.start is not None and m.end is not None and m.end <= SHOWN:
            name = escape(said.text[m.start : m.end])
            text += f'{escape(said.text[end : m.start])}<span class="film">{name}</span>'
            end = m.end
    text += escape(said.text[end:SHOWN])
    if len(said.text) > SHOWN:
        text += f" … ({len(said.text):,} characters)"
    return f'<p class="{said.role}"><span class="who">{NAMES[said.role]}</span>{text}</p>'


def card(found: Recommendation, place: int, named: bool, near: Near) -> str:
    """A film: title, year, people, genres, plot, where it stands and what said is nearest to it."""
    movie = found.movie
    tag = " <small>recommended</small>" if named else ""
    rows = [
        f"<h3>{escape(movie.name)}{tag}</h3>",
        f'<p class="place">Place {place}, was {found.retrieved} · score {_signed(found.score)}</p>',
    ]
    if movie.genres:
        tags = "".join(f'<span class="genre">{escape(genre)}</span>' for genre in movie.genres)
        rows.append(f'<p aria-label="genres">{tags}</p>')
    people = (("Directed by", movie.directors), ("With", movie.actors))
    rows += [f"<p>{label} {escape(', '.join(names))}</p>" for label, names in people if names]
    if movie.plot:
        rows.append(f"<p>{escape(movie.plot)}</p>")
    if near:
        rows.append(
            f'<p class="why"><b>Nearest to it in what was said</b> (of 100): {_near(near)}</p>'
        )
    return f'<article aria-label="{escape(movie.name)}">{"".join(rows)}</article>'


def _near(near: Near) -> str:
    return ", ".join(f"{escape(name[:40])} {part:.0f}" for name, part in near)


def _signed(score: float) -> str:
    return f"{score:.2f}".replace("-", "\N{MINUS SIGN}")


def places(answer: Answer) -> str:
    """The films that ranked first before and after re-ranking, side by side."""
    after = answer.reply.ranked
    if not after:
        return ""
    place = {r.movie.id: k for k, r in enumerate(after, start=1)}
    rows = []
    for k, (old, new) in enumerate(zip(answer.retrieved, after, strict=True)):
        moved = _move(new.retrieved - k - 1)
        now = place.get(old.movie.id) or f"below {len(after)}"
        cells = [
            f'<td class="n">{old.retrieved}</td><td>{escape(old.movie.name)}</td>',
            f'<td class="n">{old.distance:.3f}</td><td class="n">{now}</td>',
            f'<td class="n second">{k + 1}</td><td>{escape(new.movie.name)}</td>',
            f'<td class="n">{_signed(new.score)}</td><td class="n">{moved}</td>',
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<table class="pecrs-table"><caption>The first films before and after re-ranking</caption>'
        '<thead><tr><th scope="col" class="n">before</th><th scope="col">film</th>'
        '<th scope="col" class="n">distance</th><th scope="col" class="n">now</th>'
        '<th scope="col" class="n second">after</th><th scope="col">film</th>'
        '<th scope="col" class="n">score</th><th scope="col" class="n">moved</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _move(up: int) -> str:
    return f"▲ {up}" if up > 0 else f"▼ {-up}" if up else "–"


def heard(answer: Answer | None) -> str:
    """What was understood of the last line beyond its words."""
    if answer is None:
        return ""
    notes = []
    if answer.cut:
        notes.append("That was long: the model read only the beginning.")
    if answer.recognised:
        notes.append(f"Recognised: {escape('; '.join(m.name for m in answer.recognised))}.")
    return f'<div class="pecrs-note" role="status">{" ".join(notes)}</div>'


def unknown(words: str, near: Sequence[Movie]) -> str:
    """Words that may mean a film, see `transcript.near_misses`; buttons for `near` follow."""
    said = f"“{escape(words[:80])}”"
    return f"{said}: did you mean" if near else f"{said} is no film I know."


def download(content: bytes) -> str:
    """A link that carries the conversation in itself: no server has to keep it."""
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<a download="conversation.jsonl" href="data:application/jsonl;base64,{data}">'
        "Export as JSON</a>"
    )
