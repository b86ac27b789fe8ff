"""Logins that an HTTP hook is asked about: what it may answer, and that it lets nobody in when it does not."""

import http.server
import itertools
import json
import os
import ssl
import subprocess
import threading
import time

import pytest

import wire
from authority import Authority
from broker import LoginsOnly, Whole, free_port, wait_until
from clients import Paho, mosquitto_pub
from test_passwords import QUICK
from tokens import Issuer
from wire import TIMEOUT, V5, V311, Wire

pytestmark = pytest.mark.sol

REFUSED, UNAVAILABLE = {V5: 0x86, V311: 4}, {V5: 0x88, V311: 3}
NOT_AUTHORIZED = 0x87
_logins = itertools.count()


class Hook(http.server.ThreadingHTTPServer):
    """Answers each POST as `answer` says: a status and a body, or a function of what is asked. Keeps what it was asked."""

    daemon_threads = True

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None):
        super().__init__(("127.0.0.1", port), _Handler)
        self.asked: list[dict] = []
        self.answer = (200, {"result": "allow"})
        self.headers: dict = {}
        # Set, it has answers wait for the end of the test.
        self.hangs, self.over = False, threading.Event()
        scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"{scheme}://127.0.0.1:{self.server_port}/auth"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A client that is gone is no error here."""

    def close(self):
        self.over.set()
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(asked)
        if self.server.hangs:
            self.server.over.wait()
            return
        answer = self.server.answer(asked) if callable(self.server.answer) else self.server.answer
        status, body = answer
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hook():
    server = Hook()
    yield server
    server.close()


@pytest.fixture
def start(start_broker):
    return lambda config: start_broker(config, cls=LoginsOnly)


def code(broker, password: str | bytes = "secret", user: str | None = "ann", version: int = V5) -> int:
    """The CONNACK's code of a login."""
    with Wire(broker.address, version) as w:
        w.send(wire.connect(f"login{next(_logins)}", version, username=user, password=password))
        return w.expect(wire.CONNACK).reason


def test_allow_deny_and_ignore(start, hook):
    """Whom it allows comes in, real clients among them; whom it denies, or does not know, gets the answer of a wrong password. It
    is told who asks, and asked once for each CONNECT, never for a message."""
    broker = start(f"http_auth_url {hook.url}")
    with Paho(broker, "five", version=V5, login=("ann", "secret")) as five, Paho(
        broker, "three", version=V311, login=("bob", "secret")
    ) as three:
        five.subscribe("t", qos=1)
        for n in range(20):
            three.publish("t", str(n), qos=1)
            five.take()
        mosquitto_pub(broker, "-t", "t", "-m", "x", "-q", "1", "-u", "cid", "-P", "secret", "-i", "pub")
        assert five.take().payload == b"x"
    said = [{key: asked[key] for key in ("clientid", "username", "protocol_version")} for asked in hook.asked]
    assert said == [
        {"clientid": "five", "username": "ann", "protocol_version": 5},
        {"clientid": "three", "username": "bob", "protocol_version": 4},
        {"clientid": "pub", "username": "cid", "protocol_version": 4},
    ]
    assert hook.asked[0]["password"] == "secret" and hook.asked[0]["peerhost"] == "127.0.0.1"
    assert hook.asked[0]["peerport"] > 0 and hook.asked[0]["cert_common_name"] is None
    assert str(broker.port) in hook.asked[0]["listener"]
    for version in (V5, V311):
        for result in ("deny", "ignore"):
            hook.answer = (200, {"result": result})
            assert code(broker, version=version) == REFUSED[version]
        hook.answer = (204, b"")
        assert code(broker, version=version) == 0
    before = len(hook.asked)
    assert code(broker, b"\xff\xfe") == REFUSED[V5] and len(hook.asked) == before
    assert code(broker, password="token", user=None) == 0
    assert "secret" not in broker.log()


def test_rules_and_the_end_of_a_login(start, hook):
    """The rules that come with the answer hold for its client alone, a superuser may do everything, and expire_at ends the
    connection."""
    acl = [
        {"permission": "allow", "action": "publish", "topic": "out/${clientid}"},
        {"permission": "allow", "action": "subscribe", "topics": ["in/#"]},
        {"permission": "deny", "action": "all", "topic": "#"},
    ]
    hook.answer = lambda asked: (
        200,
        {"result": "allow", "is_superuser": True}
        if asked["username"] == "root"
        else {"result": "allow", "acl": acl, "client_attrs": {"a": "b"}, "expire_at": time.time() + 3},
    )
    broker = start(f"http_auth_url {hook.url}")
    with broker.client("root", V5, username="root", password="x") as root:
        root.subscribe("out/#")
        with broker.client("bound", V5, username="ann", password="x", keep_alive=0) as bound:
            reasons = [bound.subscribe(topic).reasons[0] for topic in ("in/x", "out/bound")]
            assert reasons == [2, NOT_AUTHORIZED]
            assert bound.publish("out/bound", b"1", 1, 1).reason in (0, 0x10)
            assert root.take().payload == b"1"
            assert bound.publish("out/root", b"1", 1, 2).reason == NOT_AUTHORIZED
            bound.expect_disconnect(NOT_AUTHORIZED)
        root.ping()


@pytest.mark.parametrize("version", [V5, V311])
def test_what_is_no_answer_lets_nobody_in(start, hook, version):
    """Garbage, another status, a redirection, too much, and an answer that does not end: the client hears that the service is
    not there, and a redirection is not followed. When it answers again, it is asked again."""
    broker = start(f"http_auth_url {hook.url}\nhttp_auth_timeout 1s")
    elsewhere = Hook()
    try:
        hook.headers = {"location": elsewhere.url}
        for answer in (
            (200, b"allow"),
            (200, {"result": "yes"}),
            (200, b'{"result":"allow","padding":"' + b"x" * 100_000 + b'"}'),
            (302, {"result": "allow"}),
            (307, {"result": "allow"}),
            (401, {"result": "allow"}),
            (500, b""),
        ):
            hook.answer = answer
            asked = len(hook.asked)
            # For a second after no answer it is not asked.
            wait_until(lambda: code(broker, version=version) == UNAVAILABLE[version] and len(hook.asked) > asked, "question")
        assert not elsewhere.asked
        hook.answer = (200, {"result": "allow"})
        wait_until(lambda: code(broker, version=version) == 0, "login")
        wait_until(lambda: "does not answer" in broker.log() and "answers again" in broker.log(), "lines of the log")
    finally:
        elsewhere.close()


def test_a_hook_that_is_dead_or_hangs(start_broker, hook, tmp_path):
    """A hook that hangs, or is not there, lets nobody in, and no password of another listener waits for it; nor is anybody
    banned for it."""
    users = tmp_path / "users"
    users.write_text(f"ann:{QUICK}\n")
    users.chmod(0o600)
    port = free_port()

    broker = start_broker(
        f"metrics off\nlogin_ban_exempt none\nlogin_failures_max 3\nper_listener_settings true\n"
        f"listener PORT 127.0.0.1\nhttp_auth_url {hook.url}\nhttp_auth_timeout 3s\n"
        f"listener {port} 127.0.0.1\npassword_file {users}\n",
        cls=Whole,
    )
    hook.hangs = True
    waiting = []
    for n in range(20):
        w = Wire(broker.address, V5)
        w.send(wire.connect(f"w{n}", V5, username="ann", password="x"))
        waiting.append(w)
    wait_until(lambda: len(hook.asked) == 4, "four questions at a time")
    with Wire(("127.0.0.1", port), V5) as w:
        began = time.monotonic()
        w.connect("c", 0, username="ann", password="secret")
        assert time.monotonic() - began < 2, "while the hook hangs"
    for w in waiting:
        assert w.expect(wire.CONNACK, 3 * TIMEOUT).reason == UNAVAILABLE[V5]
        w.close()
    hook.close()
    for _ in range(10):
        assert code(broker) == UNAVAILABLE[V5]
    broker.address = ("127.0.0.1", port)
    assert code(broker) == 0
    assert "banned" not in broker.log()


def test_denials_ban(start, hook):
    """What it denies counts as a failed login, as a wrong password does."""
    broker = start(f"http_auth_url {hook.url}\nlogin_ban_exempt none\nlogin_failures_max 3")
    hook.answer = (200, {"result": "deny"})
    assert [code(broker, user=f"u{n}") for n in range(5)] == [0x86, 0x86, 0x86, 0x8A, 0x8A]
    assert len(hook.asked) == 3


def test_answers_are_remembered(start, hook):
    """With http_auth_cache who was let in is let in again without a question, by the same password alone; who was not is asked
    about each time; a reload forgets."""
    broker = start(f"http_auth_url {hook.url}\nhttp_auth_cache 1h\nuse_username_as_clientid true")

    def login(password: str) -> int:
        with Wire(broker.address, V5) as w:
            w.send(wire.connect("me", V5, username="ann", password=password))
            return w.expect(wire.CONNACK).reason

    assert [login("a"), login("a"), len(hook.asked)] == [0, 0, 1]
    hook.answer = (200, {"result": "deny"})
    assert [login("b"), login("b"), login("a"), len(hook.asked)] == [0x86, 0x86, 0, 3]
    broker.reload()
    assert [login("a"), len(hook.asked)] == [0x86, 4]


def test_a_chain_with_all(start, hook, tmp_path):
    """In a chain the hook is asked last, or where auth_order says; whom it ignores the next one judges."""
    users, issuer = tmp_path / "users", Issuer("HS256", tmp_path)
    users.write_text(f"ann:{QUICK}\n")
    users.chmod(0o600)
    base = f"password_file {users}\njwt_key_file HS256 {issuer.key}\nhttp_auth_url {hook.url}\n"
    broker = start(base)
    assert [code(broker), code(broker, issuer.token("bob"), "bob"), len(hook.asked)] == [0, 0, 0]
    assert [code(broker, "wrong"), len(hook.asked)] == [0x86, 0]
    assert [code(broker, "x", "cid"), len(hook.asked)] == [0, 1]
    broker.stop()
    broker = start(f"{base}auth_order http password_file jwt")
    hook.answer = lambda asked: (200, {"result": "allow" if asked["username"] == "cid" else "ignore"})
    assert [code(broker, "x", "cid"), code(broker), code(broker, "wrong")] == [0, 0, 0x86]
    assert code(broker, issuer.token("bob"), "bob") == 0
    assert len(hook.asked) == 5


def test_https(start, start_broker, tmp_path):
    """Over https its certificate is checked against http_auth_cafile, or without one against those that the system trusts, also
    after SIGHUP from inside of the sandbox; one of somebody else lets nobody in."""

    def certificate(name: str):
        key, crt = tmp_path / f"{name}.key", tmp_path / f"{name}.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
            + ["-keyout", str(key), "-out", str(crt), "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
            + ["-addext", "basicConstraints=critical,CA:FALSE"],
            check=True,
            capture_output=True,
            timeout=120,
        )
        return key, crt

    key, crt = certificate("hook")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    hook = Hook(tls=context)
    try:
        broker = start(f"http_auth_url {hook.url}\nhttp_auth_cafile {crt}")
        assert code(broker) == 0
        broker.stop()
        broker = start(f"http_auth_url {hook.url}\nhttp_auth_cafile {certificate('other')[1]}")
        assert code(broker) == UNAVAILABLE[V5] and len(hook.asked) == 1
        broker.stop()
        trusted = tmp_path / "trusted"
        trusted.mkdir()
        (trusted / "all.pem").write_text(crt.read_text())
        for name, path in (("SSL_CERT_FILE", trusted / "all.pem"), ("SSL_CERT_DIR", trusted)):
            system = {key: value for key, value in os.environ.items() if not key.startswith("SSL_CERT_")}
            broker = start_broker(f"http_auth_url {hook.url}", cls=LoginsOnly, env={**system, name: str(path)})
            assert code(broker) == 0
            broker.reload()
            assert code(broker) == 0
            (trusted / "all.pem").write_text(certificate("another")[1].read_text())
            broker.reload()
            assert code(broker) == UNAVAILABLE[V5]
            (trusted / "all.pem").write_text(crt.read_text())
            broker.stop()
        assert len(hook.asked) == 5
    finally:
        hook.close()


def test_the_certificate_is_told(start, hook, tmp_path):
    """Of a client that shows a certificate the hook hears the Common Name, and of one that shows none that there is none."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("broker")
    port = free_port()
    broker = start(
        f"http_auth_url {hook.url}\nlistener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n"
        f"cafile {authority.cafile}\nrequire_certificate true"
    )
    broker.port = port
    crt, own = authority.issue("meter 7", "/O=Works/CN=meter 7")
    login = ["-u", "ann", "-P", "secret", "--cafile", authority.cafile]
    mosquitto_pub(broker, "-i", "c", "-t", "t", "-m", "x", "-q", "1", *login, "--cert", crt, "--key", own)
    assert [asked["cert_common_name"] for asked in hook.asked] == ["meter 7"]


def test_who_is_behind_a_proxy(start, hook):
    """Of a client behind a proxy the hook hears where it is, and nothing where the proxy does not say so."""
    broker = start(f"http_auth_url {hook.url}\nenable_proxy_protocol 1\nproxy_protocol_from 127.0.0.1")
    for header, host, peer_port in (
        (b"PROXY TCP4 198.51.100.7 192.0.2.1 50123 1883\r\n", "198.51.100.7", 50123),
        (b"PROXY UNKNOWN\r\n", None, None),
    ):
        with Wire(broker.address, V5) as client:
            client.send(header + wire.connect("c", V5, username="ann", password="x"))
            assert client.recv().reason == 0
        assert (hook.asked[-1]["peerhost"], hook.asked[-1]["peerport"]) == (host, peer_port)
