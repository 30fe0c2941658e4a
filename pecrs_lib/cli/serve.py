"""``pecrs serve``: a trained model behind HTTP, for programs."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from pecrs_lib.cli.options import BackboneOption, CacheOption, CatalogueOption, OwnCheckpointOption
from pecrs_lib.cli.terminal import say, stop

if TYPE_CHECKING:  # imported when the command runs
    import uvicorn
    from fastapi import FastAPI

HOST = "127.0.0.1"
NEEDS = ("fastapi", "uvicorn", "prometheus_client")
CONNECTIONS = 512  # open at once; one more gets a 503 and none takes the memory of thousands
GRACE_S = 10  # for requests that are being answered when the server is told to end


def serve(
    checkpoint: OwnCheckpointOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; by default on this machine only.")
    ] = HOST,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")
    ] = 8000,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=64, help="Most requests in one call of the model.")
    ] = 16,
    wait_ms: Annotated[
        float,
        typer.Option(
            "--wait-ms", min=0, max=1000, help="How long a request waits for others, milliseconds."
        ),
    ] = 5,
    queue: Annotated[
        int,
        typer.Option(
            "--queue", min=1, max=500, help="Most requests that wait; one more is told to return."
        ),
    ] = 64,
    catalogue: CatalogueOption = None,
    backbone: BackboneOption = None,
    cache: CacheOption = None,
) -> None:
    """Answer dialogues over HTTP: ranked items, and a reply if asked for.

    Requests that arrive together are answered in one batched call; replies are decoded greedily.
    There is no password and no encryption: on a network, put a reverse proxy in front. Needs:
    pip install "pecrs_lib[serve]".

    \b
    POST /recommend     a dialogue; the answer is JSON
    GET  /health        whether the server can answer
    GET  /metrics       for Prometheus
    GET  /openapi.json  every field, its limits, an example

    \b
    Example:
      pecrs serve --checkpoint run --port 8000
      curl -H 'content-type: application/json' http://127.0.0.1:8000/recommend -d \\
        '{"dialogue": {"utterances": [{"role": "seeker", "text": "I loved Home Alone."}]},
          "top": 5, "reply": true}'
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDS):
        stop('serving needs FastAPI: pip install "pecrs_lib[serve]"')
    from pecrs_lib.cli.folders import find

    found = find(checkpoint, catalogue)
    listener = _bound(host, port)  # before the model is loaded, which takes a while
    with listener:
        from pecrs_lib.cli.trained import load_ready
        from pecrs_lib.serving.application import create_app
        from pecrs_lib.serving.service import Service

        ready = load_ready(found, backbone, cache)
        service = Service(ready.model, ready.catalogue, ready.v)
        app = create_app(
            service, len(ready.catalogue), batch=batch, wait_s=wait_ms / 1000, waiting=queue
        )
        if not _is_this_machine(host):
            say(f"warning: whoever can reach {host} can use this server; it asks for no password")
        address = f"[{host}]" if ":" in host else host
        say(f"listening on http://{address}:{listener.getsockname()[1]} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):  # raised again after a clean end
            server_of(app).run(sockets=[listener])


def server_of(app: FastAPI) -> uvicorn.Server:
    """A server that logs errors only, and of those no line of a request."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app, http="h11", ws="none", lifespan="on", log_config=None, log_level="error",
            access_log=False, server_header=False, limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
        )
    )  # fmt: skip


def _bound(host: str, port: int) -> socket.socket:
    """A socket with its address, not yet listening: nobody waits while the model is loaded."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        stop(f"cannot listen on {host}, port {port}: {error.strerror}; see --host and --port")
    return listener


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
