"""The explorer as a page of its own: a notebook of one cell, served by Voila.

Each visit has a process of its own, a kernel, which ends when its page is closed. Voila lets a page
send what its widgets send, and no code.
"""

import ipaddress
import json
import logging
import os
import socket
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import tgdt_mini
from tgdt_mini.app.explorer import Explorer
from tgdt_mini.files.check import whole_number
from tgdt_mini.files.paths import shipped
from tgdt_mini.files.whole import write_whole
from tgdt_mini.runs.retriever import Retriever
from tgdt_mini.runs.samples import sample_captions
from tgdt_mini.search.gallery import Gallery

TITLE = "TGDT mini explorer"
ON_SCENES, ON_PHOTOGRAPHS = "a yellow star above a pink square", "a woman smiles"
LARGEST = 2**27  # bytes of a picture that a visitor sends
IDLE = 1800  # seconds after which a visit that was left is over
PING = 30_000  # milliseconds between two signs of life; Jupyter warns of a longer patience
WIDGETS = [
    "@jupyter-widgets/jupyterlab-manager",
    "@voila-dashboards/widgets-manager8",
    "anywidget",
]
# the page loads nothing from elsewhere, and can send nothing there
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


def opened(model: str | None = None, gallery: str | None = None, **options: str) -> Explorer:
    """An explorer of a gallery of pictures, as the options of the command name them.

    model: a name or a folder; by default what made the gallery, or else "scenes". gallery: a folder
    that the command index wrote; by default the model's own or, of "photographs", the samples.
    options: of `Retriever.from_pretrained`. ValueError that names what is missing.
    """
    if model is None:
        model = Gallery.load(gallery).source if gallery else None
    captions, samples = [], shipped() / "photographs"
    show_samples = gallery is None and model == "photographs"
    if show_samples:
        gallery, captions = str(samples / "gallery"), sample_captions()[0]
    retriever = Retriever.from_pretrained(model or "scenes", gallery=gallery, **options)
    if retriever.gallery is None:
        raise ValueError(f"{model} has no gallery; name one that index made: --gallery FOLDER")
    if show_samples:  # its items are names of files
        items = [str(samples / item) for item in retriever.gallery.items]
        retriever.gallery = replace(retriever.gallery, items=items)
    query = ON_PHOTOGRAPHS if retriever.knows_photographs else ON_SCENES
    return Explorer(query, retriever, captions)


def page(**options: str) -> None:
    """Show the explorer with the options of `opened`: what the served notebook runs."""
    from IPython.display import display

    from tgdt_mini.app.widget import Panel

    display(Panel(opened(**options), LARGEST))


def serve(options: dict, host: str = "127.0.0.1", port: int = 8866, browser: bool = True) -> None:
    """Serve the page until somebody stops it. options: of `opened`, as JSON values.

    port: 0 takes any free one. browser: open the page. ModuleNotFoundError without Voila;
    ValueError for a host that is not here, and for a port that is in use.
    """
    from tornado.websocket import WebSocketClosedError
    from voila.app import Voila

    def worth_telling(record):  # that a visitor has closed the page is no error
        return not (record.exc_info and isinstance(record.exc_info[1], WebSocketClosedError))

    logging.getLogger("asyncio").addFilter(worth_telling)
    port = free_port(host, port)
    here = is_loopback(host)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    own = str(Path(tgdt_mini.__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="tgdt-mini-") as folder:
        notebook = Path(folder) / f"{TITLE}.ipynb"
        write_whole(notebook, json.dumps(notebook_of(options)))
        server = Voila()
        server.initialize([str(notebook)])
        server.ip, server.port, server.port_retries = host, port, 0
        server.open_browser = browser
        server.log_level = "ERROR"
        server.tornado_settings = {
            "websocket_max_message_size": LARGEST + 2**20,  # and what is said of it
            "ws_ping_timeout": PING,
            "headers": {"Content-Security-Policy": POLICY},
            # else a page of another site could reach this one under a name of its own
            "allow_remote_access": not here,
        }
        server.voila_configuration.extension_allowlist = WIDGETS  # others need all of JupyterLab
        server.voila_configuration.prelaunch_hook = give_token
        server.config.MappingKernelManager.cull_idle_timeout = IDLE
        if os.name != "nt":  # kernels are spoken to through files, which are this user's alone
            server.config.KernelManager.transport = "ipc"
        print(f"the explorer is at {address} until Ctrl-C", flush=True)
        server.start()


def give_token(handler, notebook, cwd) -> None:
    """Give a page the token that its last message needs: the one that ends its kernel.

    Reading it sets the cookie that Voila's page sends back. Voila itself never reads it, and would
    refuse the message.
    """
    _ = handler.xsrf_token


def free_port(host: str, port: int) -> int:
    """The port, or for 0 a free one. ValueError if nothing can listen there."""
    port = whole_number("port", port, 0, 65535)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with closing(socket.socket(family, socket.SOCK_STREAM)) as listener:
            if os.name != "nt":  # where it would allow a port that is in use
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            return listener.getsockname()[1]
    except OSError as error:
        why = f"{host}, port {port}, cannot be served ({error.strerror or error})"
        raise ValueError(f"{why}; give another --port, 0 for any, or another --host") from None


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def notebook_of(options: dict) -> dict:
    """A notebook, as JSON values, whose one cell shows the page. options: JSON values."""
    cell = f"from tgdt_mini.app.server import page\n\npage(**{options!r})"
    return {
        "cells": [
            {
                "cell_type": "code",
                "id": "explorer",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": cell,
            }
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
