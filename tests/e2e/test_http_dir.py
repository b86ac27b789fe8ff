"""`http_dir`: files for browsers beside WebSocket, asked for with Python's http.client, with curl, and with bytes."""

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request

import pytest

from broker import Listening, free_port
from doors import WebSocket, frame, request
from hostile import check_healthy, survives
from wire import TIMEOUT, connect

pytestmark = pytest.mark.sol

LARGE = 8 << 20
BINARY = 0x82


@pytest.fixture
def www(tmp_path_factory):
    """A directory with a page, and a secret beside it; not in the directory of the broker's file, which it may read."""
    beside = tmp_path_factory.mktemp("srv")
    www = beside / "www"
    (www / "js").mkdir(parents=True)
    (www / "docs").mkdir()
    (www / "index.html").write_text("<h1>Hello</h1>")
    (www / "js" / "app.js").write_text("let x = 1;")
    (www / "docs" / "index.html").write_text("docs")
    (www / "large.bin").write_bytes(os.urandom(1 << 16) * (LARGE >> 16))
    (beside / "secret").write_text("secret")
    (www / "out").symlink_to("../secret")
    (www / ".hidden").write_text("secret")
    return www


class Serving(Listening):
    """A plain listener for who is well, and one with files of each kind."""

    def __init__(self, directory, config="", args=(), **popen):
        self.ports = {scheme: free_port() for scheme in ("http", "https")}
        self.certificate, self.key, self.www = popen.pop("certificate"), popen.pop("key"), popen.pop("www")
        super().__init__(directory, config, args, **popen)

    def _config_text(self, config: str) -> str:
        files = f"protocol websockets\nhttp_dir {self.www}"
        return super()._config_text(
            f"listener {self.ports['http']} 127.0.0.1\n{files}\n"
            f"listener {self.ports['https']} 127.0.0.1\n{files}\ncertfile {self.certificate}\nkeyfile {self.key}\n{config}"
        )


@pytest.fixture
def broker(start_broker, authority, www):
    certificate, key = authority.issue("broker")
    broker = start_broker(cls=Serving, certificate=certificate, key=key, www=www)
    # It listens before it has read them.
    broker.says("listening on")
    return broker


@pytest.fixture(params=["http", "https"])
def open_(request, broker, authority):
    """Opens a connection of http.client to the listener of a kind."""
    port = broker.ports[request.param]
    if request.param == "http":
        return lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    context = ssl.create_default_context(cafile=authority.cafile)
    return lambda: http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT, context=context)


def ask(open_, path, method="GET", **headers):
    """The status of an answer, its headers, and its body."""
    connection = open_()
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_files_are_served(open_, www):
    """A page, its scripts and a large file arrive whole, with what they are; a directory is its page."""
    status, headers, body = ask(open_, "/")
    assert (status, body) == (200, b"<h1>Hello</h1>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-cache"
    assert ask(open_, "/index.html?v=2")[2] == body
    status, headers, body = ask(open_, "/js/app.js")
    assert (status, headers["Content-Type"], body) == (200, "text/javascript; charset=utf-8", b"let x = 1;")
    status, headers, body = ask(open_, "/large.bin")
    assert (status, headers["Content-Length"]) == (200, str(LARGE))
    assert body == (www / "large.bin").read_bytes()
    status, headers, _ = ask(open_, "/docs")
    assert (status, headers["Location"]) == (301, "/docs/")
    assert ask(open_, "/docs/")[2] == b"docs"


def test_a_file_that_is_known_and_a_head(open_):
    """What a browser has is not sent again, and HEAD tells what GET would send."""
    _, headers, _ = ask(open_, "/large.bin")
    status, again, body = ask(open_, "/large.bin", **{"If-None-Match": headers["ETag"]})
    assert (status, again["ETag"], body) == (304, headers["ETag"], b"")
    assert ask(open_, "/large.bin", **{"If-None-Match": '"other"'})[0] == 200
    status, told, body = ask(open_, "/large.bin", "HEAD")
    assert (status, told["Content-Length"], body) == (200, str(LARGE), b"")


@pytest.mark.parametrize(
    "path",
    [
        "/none", "/js/", "/js", "/out", "/.hidden", "/../secret", "/js/../index.html", "/%2e%2e/secret", "/..%2fsecret",
        "/%2e%2e%2fsecret", "//index.html", "//", "/./index.html", "/index.html%00", "/%00", "/%", "/%zz", "/..\\secret",
        "/%252e%252e/secret", "/index.html/", "/etc/passwd", "//etc/passwd", "/%c0%ae%c0%ae/secret",
    ],
)  # fmt: skip
def test_no_path_leads_out(open_, path):
    """Nothing is found but what is in the directory, by its own path: no dots, no escapes, no links, nothing hidden."""
    status, _, body = ask(open_, path)
    assert (status, body) == (404, b"There is no such file.\n")


def test_other_methods(open_):
    """What is no GET or HEAD is refused, and says what there is."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, headers, _ = ask(open_, "/", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD"), method


def test_a_websocket_beside_it(broker):
    """An MQTT client connects to the same listener by WebSocket, at a path that is a file too."""
    with WebSocket(("127.0.0.1", broker.ports["http"]), request() + frame(BINARY, connect("web"))) as web:
        assert web.answer.startswith(b"HTTP/1.1 101 ")
        first, payload = web.frame()
        assert (first, payload[0]) == (BINARY, 0x20)


def test_many_at_once(open_, www):
    """Twenty browsers ask for a large file at the same time, and each gets it whole."""
    wanted, got = (www / "large.bin").read_bytes(), []
    threads = [threading.Thread(target=lambda: got.append(ask(open_, "/large.bin")[2] == wanted)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT * 3)
    assert got == [True] * 20


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl(broker, authority, www):
    """curl gets files as it is called by most, over HTTP/1.0 and with a proxy's form of a request too."""
    large = (www / "large.bin").read_bytes()
    plain = f"http://127.0.0.1:{broker.ports['http']}"
    for arguments in (
        [f"{plain}/large.bin"],
        ["-0", f"{plain}/large.bin"],
        ["--compressed", f"{plain}/large.bin"],
        ["--request-target", f"{plain}/large.bin", plain],
        ["-L", "--cacert", str(authority.cafile), f"https://localhost:{broker.ports['https']}/large.bin"],
    ):
        done = subprocess.run(["curl", "-sSf", *arguments], capture_output=True, timeout=TIMEOUT * 3, check=False)
        assert done.returncode == 0 and done.stdout == large, (arguments, done.stderr)
    done = subprocess.run(
        ["curl", "-sSfL", "--path-as-is", f"{plain}/../secret"], capture_output=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 22


def test_what_is_not_served_is_told(broker, www):
    """Links that lead out, and hidden files, are named at the start; so is how much is kept in memory."""
    log = broker.log()
    assert f"{www}/out is not served: it is a link that leads out of the directory" in log
    assert f"{www}/.hidden is not served: its name begins with a dot" in log
    assert f"serves 4 files of {www}, {LARGE + 28} bytes in memory" in log


def test_sighup_reads_the_files_again(broker, open_, www):
    """Until SIGHUP the old is served, whole; from then on the new. A directory that is gone leaves the old."""
    (www / "index.html").write_text("new")
    (www / "more.txt").write_text("more")
    assert ask(open_, "/")[2] == b"<h1>Hello</h1>" and ask(open_, "/more.txt")[0] == 404
    broker.reload()
    assert ask(open_, "/")[2] == b"new" and ask(open_, "/more.txt")[2] == b"more"
    www.rename(www.with_name("away"))
    broker.reload()
    broker.says(f"not reloaded, the old stays in force: {broker.config_file}:")
    assert ask(open_, "/")[2] == b"new"
    www.with_name("away").rename(www)


def test_another_directory_in_its_place(broker, open_, www):
    """The sandbox is closed around the directory of the start: another one of its name leaves the old in force, and the log says
    what to do."""
    www.rename(www.with_name("away"))
    shutil.copytree(www.with_name("away"), www, symlinks=True)
    (www / "index.html").write_text("new")
    broker.reload()
    if "sandbox: Landlock" in broker.log():
        broker.says(f"{www} cannot be read: Permission denied")
        broker.says("`http_dir`: a directory that has taken the place of another needs a restart")
        assert ask(open_, "/")[2] == b"<h1>Hello</h1>"
    else:
        assert ask(open_, "/")[2] == b"new"


def test_a_directory_that_cannot_be_had(tmp_path, start_broker):
    """The broker does not start without its files, and `sol check` says why."""
    config = f"listener {free_port()} 127.0.0.1\nprotocol websockets\nhttp_dir {tmp_path}/none"
    with pytest.raises(AssertionError, match="`http_dir`: .*/none cannot be read: No such file or directory"):
        start_broker(config, cls=Listening)


def test_a_listener_without_files(start_broker):
    """Where there is no http_dir a browser learns that this is no web page, as ever."""
    port = free_port()
    start_broker(f"listener {port} 127.0.0.1\nprotocol websockets", cls=Listening)
    with pytest.raises(urllib.error.HTTPError, match="426"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT)


def test_readers_that_take_nothing(start_broker, authority, www):
    """Somebody who asks for a large file again and again and reads nothing costs the broker a piece of it each time, and nobody
    else notices."""
    (www / "large.bin").write_bytes(bytes(48 << 20))
    certificate, key = authority.issue("broker")
    broker = start_broker(cls=Serving, certificate=certificate, key=key, www=www)
    with survives(broker):
        sockets = [socket.create_connection(("127.0.0.1", broker.ports["http"]), TIMEOUT) for _ in range(40)]
        for one in sockets:
            one.sendall(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            assert one.recv(1) == b"H"
        check_healthy(broker)
        for one in sockets:
            one.close()


def test_requests_are_counted(start_broker, authority, www):
    """Operators see how often files are asked for."""
    certificate, key = authority.issue("broker")
    metrics = free_port()
    broker = start_broker(f"metrics 127.0.0.1:{metrics}", cls=Serving, certificate=certificate, key=key, www=www)
    for path in ("/", "/none"):
        ask(lambda: http.client.HTTPConnection("127.0.0.1", broker.ports["http"], timeout=TIMEOUT), path)
    said = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=TIMEOUT).read().decode()
    assert "\nsol_http_requests_total 2\n" in said and "\nsol_http_cut_total 0\n" in said
