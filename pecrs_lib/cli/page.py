"""The conversation as a web page: a notebook of one cell, served by Voilà.

Used by `cli.chat`. Voilà runs the notebook anew for every visitor, so each has a conversation of
their own; it listens on this machine only.
"""

from __future__ import annotations

import importlib.util
import io
import json
import socket
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pecrs_lib.cli.terminal import say, stop

if TYPE_CHECKING:
    import ipywidgets as ipw

    from pecrs_lib.cli.folders import Found

HOST = "127.0.0.1"
# of JupyterLab's extensions a page needs no others
WIDGETS = ("@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8")


def serve(found: Found, asked: dict[str, Any], port: int) -> None:
    """Serve the page until Ctrl-C; `asked` are further arguments of `trained.load_chat`."""
    if importlib.util.find_spec("voila") is None:
        stop("--page needs Voilà: pip install voila")
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            stop(f"port {port} is taken; another one: --port {port + 1}")
    from voila.app import Voila

    asked = asked | {"checkpoint": found.folder, "catalogue": found.items}
    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder) / "PECRS.ipynb"
        notebook.write_text(json.dumps(notebook_of(asked)), encoding="utf-8")
        say(f"the chat is at http://{HOST}:{port} (Ctrl-C ends it)")
        Voila.launch_instance([
            str(notebook), "--no-browser", f"--port={port}", f"--Voila.ip={HOST}",
            "--Voila.port_retries=0", "--Voila.log_level=ERROR",
            *(f"--VoilaConfiguration.extension_allowlist={name}" for name in WIDGETS),
        ])  # fmt: skip


def notebook_of(asked: dict[str, Any]) -> dict[str, Any]:
    """The notebook: one cell that shows `chat_page`, with every path made absolute."""
    plain = {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in asked.items()}
    if plain.get("backbone") and Path(plain["backbone"]).exists():
        plain["backbone"] = str(Path(plain["backbone"]).resolve())
    source = f"from pecrs_lib.cli.page import chat_page\n\nchat_page(**{plain!r})"
    cell: dict[str, Any] = {
        "cell_type": "code", "id": "chat", "source": source, "metadata": {}, "outputs": [],
        "execution_count": None,
    }  # fmt: skip
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5
    }  # fmt: skip


def chat_page(**asked: Any) -> ipw.Widget:
    """The widget over `trained.load_chat`, or a sentence that says why there is none."""
    import ipywidgets as ipw

    from pecrs_lib.cli.folders import find
    from pecrs_lib.cli.trained import load_chat
    from pecrs_lib.widgets import problem_of
    from pecrs_lib.widgets.chat_widget import ChatWidget

    for name in ("checkpoint", "catalogue", "cache"):
        asked[name] = Path(asked[name]) if asked.get(name) else None
    try:
        with redirect_stderr(io.StringIO()):  # remarks on loading would stand in the page
            found = find(asked.pop("checkpoint"), asked.pop("catalogue"))
            return ChatWidget(load_chat(found, **asked))
    except Exception as error:  # the visitor sees no terminal
        return ipw.HTML(problem_of(error))
