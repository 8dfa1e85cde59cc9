"""A server on loopback, and a client within the process."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi.testclient import TestClient

from dewey_embed import Dewey
from dewey_embed.serve.app import create_app
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings
from tests.model.random_folders import make_folder


@contextmanager
def running(app):
    """The address of an app that uvicorn serves on loopback within the block."""
    # asyncio turns off delays of small packets only where the protocol is named.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def mini():
    return Dewey.load(dtype="float32")


@pytest.fixture(scope="session")
def live_server(mini):
    """The address of a server of the embedded default."""
    with running(create_app(Server(mini, {}, ServeSettings()))) as url:
        yield url


@pytest.fixture(scope="session")
def mean_model(tmp_path_factory):
    """A small Sentence Transformers folder with mean pooling, prompts and a short limit."""
    folder = tmp_path_factory.mktemp("models") / "mean"
    make_folder(folder, 28)
    return Dewey.load(folder, dtype="float32")


def client_of(model):
    app = create_app(Server(model, {}, ServeSettings()))
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture(scope="session")
def mini_client(mini):
    with client_of(mini) as client:
        yield client


@pytest.fixture(scope="session")
def mean_client(mean_model):
    with client_of(mean_model) as client:
        yield client


@pytest.fixture(params=["mini", "mean"])
def served(request):
    """A client of a server, and its model."""
    names = {"mini": ("mini_client", "mini"), "mean": ("mean_client", "mean_model")}
    return tuple(map(request.getfixturevalue, names[request.param]))
