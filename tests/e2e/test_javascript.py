"""MQTT.js in Node and in a browser: through every door that it can take, and with the Origin of its page."""

import os
import shutil

import pytest

from broker import Listening, free_port
from javascript import FOLDER, LIBRARY, WENT_WELL, Browser, Host, Site, in_node
from wire import V5, V311

pytestmark = pytest.mark.sol

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])


@pytest.fixture
def doors(start_broker, authority):
    """A broker with a door of each kind, by the scheme of its URL; `mqtt` is that of the host."""
    certificate, key = authority.issue("broker")
    ports = {scheme: free_port() for scheme in ("mqtts", "ws", "wss")}
    encrypted = f"certfile {certificate}\nkeyfile {key}"
    broker = start_broker(
        f"listener {ports['mqtts']} 127.0.0.1\n{encrypted}\n"
        f"listener {ports['ws']} 127.0.0.1\nprotocol websockets\n"
        f"listener {ports['wss']} 127.0.0.1\nprotocol websockets\n{encrypted}",
        cls=Listening,
    )
    host = Host(broker)
    yield {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in {"mqtt": broker.port, **ports}.items()}
    host.close()


@pytest.fixture
def site():
    assert LIBRARY.exists(), f"MQTT.js is missing (npm --prefix {FOLDER} ci)"
    one = Site()
    yield one
    one.close()


@pytest.fixture
def browser(tmp_path):
    if os.environ.get("SOL_NO_CHROMIUM"):
        pytest.skip("tests/run found no Chromium, and says so")
    assert shutil.which("chromium"), "chromium is missing (apt-get install chromium)"
    return Browser(tmp_path)


@VERSIONS
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
def test_mqttjs_in_node(doors, authority, scheme, version):
    """MQTT.js has a hundred messages of 1 B to 200 KiB echoed through each door, and finds its Session when it comes
    again."""
    cafile = authority.cafile if scheme in ("mqtts", "wss") else None
    assert in_node(doors[scheme], version, f"node-{scheme}", cafile) == WENT_WELL


@VERSIONS
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_mqttjs_in_a_browser(doors, authority, site, browser, scheme, version):
    """The same in a page that Chromium has opened, by WebSocket with and without TLS."""
    trusted = [authority.folder / "broker.crt"]
    assert browser.open(site, trusted, talk=doors[scheme], version=version, id=f"page-{scheme}") == WENT_WELL


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_page_that_the_broker_serves_itself(start_broker, authority, site, browser, tmp_path, scheme):
    """A page with MQTT.js is put into http_dir and opened, and talks to the same listener, by whose Origin alone it is let
    in."""
    www, port = tmp_path / "www", free_port()
    www.mkdir()
    for name in ("page.html", "conversation.js"):
        shutil.copy(FOLDER / name, www)
    shutil.copy(LIBRARY / "dist" / "mqtt.min.js", www / "mqtt.js")
    certificate, key = authority.issue("broker")
    encrypted = f"certfile {certificate}\nkeyfile {key}" if scheme == "https" else ""
    origin = f"{scheme}://127.0.0.1:{port}"
    broker = start_broker(
        f"listener {port} 127.0.0.1\nprotocol websockets\nhttp_dir {www}\nwebsockets_origin {origin}\n{encrypted}",
        cls=Listening,
    )
    host = Host(broker)
    door = origin.replace("http", "ws", 1)
    said = browser.open(site, [authority.folder / "broker.crt"], origin, talk=door, version=V5, id=f"page-{scheme}")
    assert said == WENT_WELL
    host.close()


def test_a_page_of_another_origin_is_refused(start_broker, site, browser):
    """Where websockets_origin is set, a page of that origin comes in, and one of another does not: nobody's pages act for
    him at a broker that his browser can reach."""
    other, port = Site(), free_port()
    door = f"ws://127.0.0.1:{port}"
    broker = start_broker(
        f"listener {port} 127.0.0.1\nprotocol websockets\nwebsockets_origin {site.origin}", cls=Listening
    )
    assert browser.open(site, open=door) is True
    assert browser.open(other, open=door) is False
    broker.says("Pages of this origin may not connect")
    other.close()
