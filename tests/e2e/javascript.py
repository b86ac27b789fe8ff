"""MQTT.js in Node and in Debian's headless Chromium, and the host on the other side of the broker that they talk to."""

import base64
import functools
import hashlib
import http.server
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import threading
import urllib.parse

from broker import Broker
from clients import Paho
from wire import TIMEOUT, V5

FOLDER = pathlib.Path(__file__).with_name("mqttjs")
LIBRARY = FOLDER / "node_modules" / "mqtt"
# A browser that is only just installed takes a while for its first start.
START_TIMEOUT = 120
WENT_WELL = {"equal": 100, "sessionPresent": True, "missed": "while you were away"}


class Host:
    """Sends back what clients send it, and takes their connection away when they ask for it. It speaks plain MQTT."""

    def __init__(self, broker: Broker, login=None):
        """`login`: the user and password of this host, and of its clients."""
        self.broker = broker
        self.login = dict(zip(("username", "password"), login)) if login else {}
        self.paho = Paho(broker, "host", V5, login=login)
        self.paho.client.on_message = self._answer
        self.paho.subscribe("+/out/+", 2)
        self.paho.subscribe("+/lose", 0)

    def _answer(self, client, _userdata, message) -> None:
        who, verb, *rest = message.topic.split("/")
        if verb == "out":
            client.publish(f"{who}/back/{rest[0]}", message.payload, 1)
            return
        # Whoever comes with its Client Identifier takes over; as it comes for the Session, that stays.
        with self.broker.wire(4) as other:
            other.connect(who, clean=False, **self.login)
        client.publish(f"{who}/back/0", WENT_WELL["missed"], 1)

    def close(self) -> None:
        self.paho.close()


def in_node(url: str, version: int, name: str, cafile=None) -> dict:
    """The outcome of a conversation in Node."""
    command = ["node", str(FOLDER / "node.js"), url, str(version), name, *([str(cafile)] if cafile else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return json.loads(done.stdout)


class _Pages(http.server.BaseHTTPRequestHandler):
    """The page with its scripts, and the place where it says how it went."""

    FILES = {
        "/page.html": (FOLDER / "page.html", "text/html"),
        "/conversation.js": (FOLDER / "conversation.js", "text/javascript"),
        "/mqtt.js": (LIBRARY / "dist" / "mqtt.min.js", "text/javascript"),
    }

    def __init__(self, outcomes, *args):
        self.outcomes = outcomes
        super().__init__(*args)

    def do_GET(self):
        path, kind = self.FILES.get(urllib.parse.urlsplit(self.path).path, (None, None))
        body = path.read_bytes() if path else b""
        self.send_response(200 if path else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.outcomes.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Site:
    """A web server on this machine, and so an Origin."""

    def __init__(self):
        self.outcomes: queue.Queue = queue.Queue()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Pages, self.outcomes))
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Browser:
    """Opens pages in headless Chromium, each in a profile of its own."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.program = shutil.which("chromium")

    def open(self, site: Site, trusted=(), origin=None, **query) -> object:
        """What the page of the site says of this query; or the same page at another `origin`, which tells the site. The public
        keys of the `trusted` certificates are believed."""
        if origin:
            query["tell"] = f"{site.origin}/outcome"
        url = f"{origin or site.origin}/page.html?{urllib.parse.urlencode(query)}"
        profile = self.folder / f"profile-{site.server.server_port}"
        command = [self.program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        if trusted:
            command.append(f"--ignore-certificate-errors-spki-list={','.join(map(key_digest, trusted))}")
        log = self.folder / "chromium.log"
        with open(log, "wb") as output:
            # Its processes are a group of their own, and end together.
            process = subprocess.Popen([*command, url], stdout=output, stderr=output, start_new_session=True)
        try:
            return site.outcomes.get(timeout=START_TIMEOUT)
        except queue.Empty:
            raise AssertionError(f"the page never said how it went:\n{log.read_text(errors='replace')}") from None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(TIMEOUT)


def key_digest(certificate: pathlib.Path) -> str:
    """The digest of a certificate's public key, as Chromium is told it."""
    pem = subprocess.run(
        ["openssl", "x509", "-in", str(certificate), "-noout", "-pubkey"], capture_output=True, check=True, timeout=TIMEOUT
    ).stdout
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    return base64.b64encode(hashlib.sha256(der).digest()).decode()
