"""What the tests of the server share: tiny runs, trained once, and a server of one."""

import os

import httpx
import openai
import page_stand_in
import pytest
from browsing import open_browser
from running import LIMITS, running, train_tiny


@pytest.fixture(scope="session")
def language_run(tmp_path_factory):
    os.environ["PURELM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return train_tiny(tmp_path_factory.mktemp("language"), steps=1)


@pytest.fixture(scope="session")
def server(language_run):
    with running(language_run) as found:
        yield found


@pytest.fixture(scope="session")
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


@pytest.fixture(scope="session")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def app():
    """A server that says exactly what a test of the page wants."""
    return page_stand_in.make_stand_in()


@pytest.fixture(scope="module")
def url(app):
    with page_stand_in.serving(app) as address:
        yield address


@pytest.fixture
def limits():
    return LIMITS
