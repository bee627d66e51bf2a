"""What all tests share: one thread, as in production, and the folder of real data; at the end, services."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from servers import Broker

import postgres_server
import stores
from learner.model import Shape

torch.set_num_threads(1)
settings.register_profile("belated", deadline=None, derandomize=True)
settings.load_profile("belated")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real logs, named by BELATED_DATA."""
    folder = os.environ.get("BELATED_DATA")
    if not folder:
        pytest.skip("needs real logs: set BELATED_DATA to their folder (see CONTRIBUTING.md)")
    return Path(folder)


@pytest.fixture(scope="module")
def few_buckets() -> Iterator[None]:
    """Models of 4,096 hashed values: as all others, and written to disk in a moment. For tests that commit often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.learning.Shape", partial(Shape, buckets=4096))
        patch.setattr("stream.loop.Shape", partial(Shape, buckets=4096))
        yield


# Kafka ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def kafka_script() -> Path:
    """What starts a broker, named by BELATED_KAFKA_SCRIPT."""
    script = os.environ.get("BELATED_KAFKA_SCRIPT")
    if not script:
        pytest.skip(
            "needs a broker of its own: set BELATED_KAFKA_SCRIPT to a script that starts one (see CONTRIBUTING.md)"
        )
    return Path(script)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    """host:port of a broker: BELATED_BROKER, else one that is started for the session."""
    if running := os.environ.get("BELATED_BROKER"):
        yield running
        return
    if not os.environ.get("BELATED_KAFKA_SCRIPT"):
        pytest.skip("needs a broker: set BELATED_BROKER=host:port, or BELATED_KAFKA_SCRIPT to a script that starts one")
    broker = Broker(request.getfixturevalue("kafka_script"), tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker.server
    broker.kill()


# PostgreSQL: one server a session, a schema of its own for each store


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a database on a server, see `postgres_server`; skips where there is none."""
    with postgres_server.serving() as url:
        yield url


@pytest.fixture
def schema(postgres: str) -> Iterator[str]:
    """URL of an empty store on PostgreSQL."""
    with postgres_server.schema(postgres) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty store, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    url: str = request.getfixturevalue("schema")
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def open_store(request: pytest.FixtureRequest) -> Iterator[stores.Open]:
    """Opens empty stores for what is never committed, on each database in turn."""
    with ExitStack() as stack:
        urls = ["sqlite://"] * 2
        if request.param == "postgresql":
            server = request.getfixturevalue("postgres")
            urls = [stack.enter_context(postgres_server.schema(server)) for _ in urls]
        yield stack.enter_context(stores.opening(*urls))
