"""The conversation as a widget: type, read the reply as it comes, react to the films.

The top of the flow beside `explorer_widget`: `chat` holds the conversation, `chat_html` draws it.
Works wherever ipywidgets do: JupyterLab, Colab, and as a page of its own (`pecrs chat --page`).
What happens runs in the kernel's one thread, in order. A click that waited meanwhile, as the second
of a double click does, is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, get_args

import ipywidgets as ipw

from pecrs_lib.chat import WORDS, Chat, Reaction
from pecrs_lib.data import Movie
from pecrs_lib.recommend import Recommendation
from pecrs_lib.widgets import chat_html, problem_of

LABELS: dict[Reaction, str] = {"liked": "Liked", "seen": "Seen", "not for me": "Not for me"}
PAUSE = 0.3  # s after an answer; a click that arrives earlier was made before it stood there


class Card(ipw.VBox):
    """One film with its buttons; hidden while there is none."""

    def __init__(self, react: Callable[[Movie, Reaction], None]) -> None:
        self.text = ipw.HTML()
        self.movie: Movie | None = None
        self.buttons = {how: ipw.Button(description=LABELS[how]) for how in get_args(Reaction)}
        for how, button in self.buttons.items():
            button.on_click(lambda _, how=how: self.movie and react(self.movie, how))
        super().__init__([self.text, ipw.HBox([*self.buttons.values()])])
        self.add_class("pecrs-card")
        self.show(None)

    def show(self, found: Recommendation | None, **details: Any) -> None:
        """Show a film (`details` as `chat_html.card` wants them), or nothing."""
        self.movie = None if found is None else found.movie
        self.layout.display = "none" if found is None else None
        if found is not None:
            self.text.value = chat_html.card(found, **details)
            for how, button in self.buttons.items():
                button.tooltip = f"say: {WORDS[how].format(found.movie.name)}"


class ChatWidget(ipw.VBox):
    """A conversation to take part in.

    Args:
        cards: films shown with all that is known of them.

    Attributes:
        line, enter, undo, restart: the controls; `cards` and `suggestions` hold more buttons.
        talk, notes, message, table, export: what is shown.
    """

    def __init__(self, chat: Chat, cards: int = 3) -> None:
        self.chat = chat
        chat.on_text = self._stream
        self._live: tuple[str, str] | None = None  # the line being answered, and the reply so far
        self._entered = False  # Enter was pressed, its text is on the way
        self._done = -PAUSE  # when the last action ended, time.monotonic
        self.talk, self.notes, self.message, self.table, self.export = (
            ipw.HTML() for _ in range(5)
        )  # fmt: skip
        self.line = ipw.Text(
            description="You", placeholder="Something funny like Home Alone, but with robots",
            continuous_update=False, style={"description_width": "40px"},
            layout=ipw.Layout(flex="1 1 auto", width="auto", height="38px"),
        )  # fmt: skip
        self.line.add_class("pecrs-line")
        self.line.on_msg(self._key)
        self.line.observe(lambda change: self._enter(), names="value")
        self.enter = self._button("Send", self.say)
        self.enter.add_class("pecrs-first")
        self.undo = self._button("Undo", lambda: self._act(self.chat.undo))
        self.restart = self._button("Restart", lambda: self._act(self.chat.restart))
        self.suggestions = ipw.VBox()
        self.cards = ipw.HBox([Card(self.react) for _ in range(cards)])
        self.cards.add_class("pecrs-cards")
        row = ipw.HBox([self.line, self.enter, self.undo, self.restart])
        super().__init__([
            ipw.HTML(chat_html.STYLE), self.talk, row, self.message, self.notes, self.suggestions,
            self.cards, self.table, self.export,
        ])  # fmt: skip
        self.add_class("pecrs-chat")
        self._draw_talk()
        self._draw()

    def say(self) -> None:
        """Say the typed line."""
        text = self.line.value

        def do() -> None:
            self.line.value = ""
            try:
                self.chat.say(text)
            except BaseException:
                self.line.value = text
                raise

        self._act(do, text)

    def react(self, movie: Movie, how: Reaction) -> None:
        """Say of a film how it is."""
        self._act(lambda: self.chat.react(movie, how), WORDS[how].format(movie.name))

    def correct(self, words: str, movie: Movie) -> None:
        """Say the last line again with the film that was meant."""
        self._act(lambda: self.chat.correct(words, movie), f"I meant {movie.name}.")

    def _button(self, description: str, act: Callable[[], None]) -> ipw.Button:
        button = ipw.Button(description=description, layout=ipw.Layout(width="auto"))
        button.on_click(lambda _: act())
        return button

    def _key(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        """Enter. Its message comes before the one with the text, if the text has changed at all.

        Leaving the field sends the text, too, and must not say it.
        """
        if content.get("event") != "submit":
            return
        self._entered = True
        try:
            asyncio.get_running_loop().call_later(PAUSE, self._enter)
        except RuntimeError:  # no loop, no front end: the text is what it is
            self._enter()

    def _enter(self) -> None:
        if self._entered:
            self._entered = False
            self.say()

    def _act(self, do: Callable[[], object], line: str = "") -> None:
        """Do something once, and show what came of it or why nothing did."""
        if time.monotonic() - self._done < PAUSE:
            return
        if line.strip():
            self._live = (line, "")
            self._draw_talk()
        try:
            do()
            self.message.value = ""
            self._draw()
        except KeyboardInterrupt:
            self._complain("Stopped; nothing was added.")
        except Exception as error:  # shown here: nobody reads a kernel's log
            self._complain(problem_of(error))
        finally:
            self._live = None
            self._draw_talk()
            self._done = time.monotonic()

    def _complain(self, text: str) -> None:
        self.message.value = f'<div role="alert">{text}</div>'

    def _stream(self, piece: str) -> None:
        if self._live is not None:
            self._live = (self._live[0], self._live[1] + piece)
            self._draw_talk()

    def _draw_talk(self) -> None:
        self.talk.value = chat_html.conversation(self.chat.dialogue.utterances, self._live)

    def _draw(self) -> None:
        """Everything below the conversation."""
        answer = self.chat.answers[-1] if self.chat.answers else None
        ranked = answer.reply.ranked if answer else []
        shown = ranked[: len(self.cards.children)]
        near = self.chat.why([r.movie for r in shown]) if shown else []
        named = set(self.chat.dialogue.utterances[-1].items) if answer else set()
        for k, card in enumerate(self.cards.children):
            if k < len(shown):
                named_here = shown[k].movie.id in named
                card.show(shown[k], place=k + 1, named=named_here, near=near[k])
            else:
                card.show(None)
        self.notes.value = chat_html.heard(answer)
        self.table.value = chat_html.places(answer) if answer else ""
        self.export.value = chat_html.download(self.chat.export()) if answer else ""
        self._suggest(answer.unknown if answer else {})

    def _suggest(self, unknown: dict[str, list[Movie]]) -> None:
        old, rows = self.suggestions.children, []
        for words, near in list(unknown.items())[:3]:
            buttons = (self._suggestion(words, movie) for movie in near)
            rows.append(ipw.HBox([ipw.HTML(chat_html.unknown(words, near)), *buttons]))
            rows[-1].add_class("pecrs-unknown")
        self.suggestions.children = rows
        for row in old:
            for part in (*row.children, row):
                part.close()

    def _suggestion(self, words: str, movie: Movie) -> ipw.Button:
        return self._button(movie.name, lambda: self.correct(words, movie))
