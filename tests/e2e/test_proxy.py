"""The PROXY protocol: real clients behind a proxy that says where they are, and those who only claim to be one."""

import contextlib
import re
import socket
import ssl
import struct
import subprocess
import threading

import pytest

from authority import Authority
from broker import Listening, free_port, sol_bin, wait_until
from clients import Paho, mosquitto_pub
from test_passwords import QUICK, metric
from test_tls import client
from wire import TIMEOUT, V5, V311, Wire, connect

pytestmark = pytest.mark.sol

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT = "198.51.100.7"


def line(address=CLIENT, port=50123):
    family = 6 if ":" in address else 4
    return f"PROXY TCP{family} {address} {'::1' if family == 6 else '192.0.2.1'} {port} 1883\r\n".encode()


def value(kind, data):
    return struct.pack("!BH", kind, len(data)) + data


def ssl_value(name=None, flags=1, verify=0):
    names = b"" if name is None else value(0x22, name.encode())
    return value(0x20, struct.pack("!BI", flags, verify) + value(0x21, b"TLSv1.3") + names)


def binary(address=CLIENT, port=50123, values=b"", command=0x21):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ends = socket.inet_pton(family, address) * 2 + struct.pack("!HH", port, 1883)
    body = ends + values
    return SIGNATURE + struct.pack("!BBH", command, 0x21 if family == socket.AF_INET6 else 0x11, len(body)) + body


class Proxy:
    """Brings connections to a broker, a header before each of them."""

    def __init__(self, address, header):
        self.broker, self.header = address, header
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.host, self.port = self.listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.broker)
                far.sendall(self.header)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    @staticmethod
    def _copy(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()


@pytest.fixture
def proxy():
    opened = []

    def open_(broker, header):
        opened.append(Proxy(broker.address, header))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def logged(broker, pattern):
    """Waits for a line: it is written by a thread of its own."""
    wait_until(lambda: re.search(pattern, broker.log()), f"line like {pattern}")


def introduced(broker, header, version=V311):
    wire = Wire(broker.address, version)
    wire.send(header)
    return wire


@pytest.mark.parametrize(
    "version, header, said",
    [
        (1, line(), f"{CLIENT}:50123"),
        (1, line("2001:db8::7"), "[2001:db8::7]:50123"),
        (1, b"PROXY UNKNOWN\r\n", "127.0.0.1:"),
        (2, binary(), f"{CLIENT}:50123"),
        (2, binary("2001:db8::7"), "[2001:db8::7]:50123"),
        (2, binary(values=value(2, b"mqtt.example") + value(4, b"\0" * 40)), f"{CLIENT}:50123"),
        (2, binary(command=0x20), "127.0.0.1:"),
        (2, SIGNATURE + b"\x21\x31\x00\xd8" + b"/" * 216, "unix"),
    ],
    ids=["v1", "v1-ipv6", "v1-unknown", "v2", "v2-ipv6", "v2-values", "v2-local", "v2-unix"],
)
@pytest.mark.parametrize("step", [1, 1000], ids=["drip", "whole"])
def test_the_log_has_the_clients_address(start_broker, version, header, said, step):
    """A header of each form, in one segment with CONNECT or in single bytes, has the client served, and it is its address that
    the log has; where the header tells of none, the proxy's own."""
    broker = start_broker(f"enable_proxy_protocol {version}\nproxy_protocol_from 127.0.0.1", cls=_Behind)
    data = header + connect("behind", V311)
    with Wire(broker.address) as wire:
        for at in range(0, len(data), step):
            wire.send(data[at : at + step])
        assert wire.recv().reason == 0
        wire.ping()
    logged(broker, rf"connected peer={re.escape(said)}\S* client=behind")


class _Behind(Listening):
    """A broker that nobody reaches without a header, so that to wait for it is to be refused by it."""


@pytest.mark.parametrize(
    "version, sent",
    [
        (1, connect("bare", V311)),
        (1, binary()),
        (1, b"PROXY TCP4 198.51.100.7 192.0.2.1 70000 1883\r\n"),
        (1, b"PROXY TCP4 " + b"1" * 200),
        (2, line()),
        (2, b"GET / HTTP/1.1\r\n\r\n"),
        (2, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (2, binary(command=0x22)),
        (2, binary()[:14] + b"\x00\x0b" + binary()[16:27]),
        (2, binary(values=b"\x02\xff\xff")),
        (2, binary(values=b"\x20\x00\x03\x01\x00\x00")),
        (2, binary(values=value(0x20, b"\x01\0\0\0\0" + b"\x22\xff\xff"))),
        (2, SIGNATURE + b"\x21\x11\xff\xff"),
    ],
    ids=["mqtt", "v2", "port", "long", "v1", "http", "tls", "command", "short", "overrun", "cut", "inner", "huge"],
)
def test_malformed_headers(start_broker, version, sent):
    """A connection without a header, with one of the other version, or with one that is malformed in any part is closed without
    an answer, with a line that says why, and counted."""
    port = free_port()
    broker = start_broker(f"enable_proxy_protocol {version}\nproxy_protocol_from 127.0.0.1\nmetrics 127.0.0.1:{port}", cls=_Behind)
    logged(broker, "metrics on")
    before = metric(port, "sol_proxy_refused_total")
    with Wire(broker.address) as wire:
        wire.send(sent)
        assert wire.expect_closed() == []
    assert metric(port, "sol_proxy_refused_total") == before + 1
    logged(broker, r"WARNING closed: .*PROXY.* peer=127.0.0.1:\d+")
    with introduced(broker, line() if version == 1 else binary()) as wire:
        wire.connect("after")


def test_nobody_else_is_believed(start_broker):
    """From an address that is not among the proxies a header is worth nothing: the connection is closed; a listener that others
    than this machine reach has to name its proxies."""
    broker = start_broker("enable_proxy_protocol 1\nproxy_protocol_from 127.0.0.0/31", cls=_Behind)
    with Wire(broker.address, V311, "127.0.0.9") as wire:
        with contextlib.suppress(OSError):
            wire.send(line() + connect("spoof", V311))
        assert wire.expect_closed() == []
    logged(broker, "closed: it is not among the proxies of proxy_protocol_from peer=127.0.0.9")
    assert "client=spoof" not in broker.log()
    config = broker.config_file
    config.write_text("listener 0 0.0.0.0\nallow_anonymous true\nenable_proxy_protocol 1\n".replace("listener 0", f"listener {free_port()}"))
    done = subprocess.run([sol_bin(), "check", "-c", config], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1 and "`enable_proxy_protocol` needs proxy_protocol_from" in done.stderr


def test_bans_are_of_the_clients_address(start_broker, tmp_path):
    """Who guesses through a proxy is banned by his own address, in a line that fail2ban reads; others who come through the same
    proxy are served."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"ann:{QUICK}\n")
    broker = start_broker(
        f"enable_proxy_protocol 2\nproxy_protocol_from 127.0.0.1\npassword_file {passwords}\nlogin_failures_max 3\nlogin_ban 10m",
        cls=_Behind,
    )

    def attempt(address, user, password):
        with introduced(broker, binary(address), V5) as wire:
            wire.send(connect("", V5, username=user, password=password))
            return wire.recv().reason

    for n in range(3):
        assert attempt(CLIENT, f"guess{n}", b"guess") == 0x86
    assert attempt(CLIENT, "ann", b"secret") == 0x8A
    assert attempt("198.51.100.8", "ann", b"secret") == 0
    logged(broker, f"address banned: too many failed logins address={CLIENT} ")


@pytest.mark.parametrize("exempt", ["", "login_ban_exempt none"], ids=["loopback", "none"])
def test_who_is_not_named_is_not_banned(start_broker, tmp_path, exempt):
    """Whom a proxy does not name has no address that could be banned, least of all the proxy's: all that fail together ban
    nobody who comes after. Whom it names as being on its own machine is banned like anybody."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"ann:{QUICK}\n")
    broker = start_broker(
        f"enable_proxy_protocol 2\nproxy_protocol_from 127.0.0.1\npassword_file {passwords}\nlogin_failures_max 3\n"
        f"login_ban 10m\n{exempt}",
        cls=_Behind,
    )

    def attempt(header, user, password):
        with introduced(broker, header, V5) as wire:
            wire.send(connect("", V5, username=user, password=password))
            return wire.recv().reason

    local = binary(command=0x20)
    assert [attempt(local, f"guess{n}", b"guess") for n in range(9)] == [0x86] * 9
    assert attempt(local, "ann", b"secret") == 0
    assert attempt(binary(), "ann", b"secret") == 0
    for address in ("127.0.0.1", "::1"):
        assert [attempt(binary(address), f"guess{n}", b"guess") for n in range(3)] == [0x86] * 3
        assert attempt(binary(address), "ann", b"secret") == 0x8A
        logged(broker, f"address banned: too many failed logins address={address} " if "." in address else "address banned")
    assert attempt(local, "ann", b"secret") == 0


def test_who_came_to_the_proxy_by_tls(start_broker):
    """proxy_protocol_v2_require_tls lets in whose way to the proxy was encrypted, and nobody else."""
    broker = start_broker(
        "enable_proxy_protocol 2\nproxy_protocol_from 127.0.0.1\nproxy_protocol_v2_require_tls true", cls=_Behind
    )
    for header in (binary(), binary(values=ssl_value(flags=2)), binary(command=0x20, values=ssl_value())):
        with introduced(broker, header + connect("c", V311)) as wire:
            assert wire.expect_closed() == []
    with introduced(broker, binary(values=ssl_value())) as wire:
        wire.connect("c")
    logged(broker, "closed: it has not come to its proxy by TLS")


def test_a_certificate_that_the_proxy_has_seen(start_broker):
    """use_identity_as_username takes the Common Name that the proxy has verified; who has none, or an unverified one, is
    refused."""
    broker = start_broker(
        "enable_proxy_protocol 2\nproxy_protocol_from 127.0.0.1\nuse_identity_as_username true", cls=_Behind
    )
    with introduced(broker, binary(values=ssl_value("ann", 3)), V5) as wire:
        wire.connect("named")
    logged(broker, "client=named user=ann")
    for values in (b"", ssl_value(), ssl_value("ann", 1), ssl_value("ann", 3, verify=1)):
        with introduced(broker, binary(values=values), V5) as wire:
            wire.send(connect("unnamed", V5))
            assert wire.recv().reason in (0x86, 0x87)


def test_tls_behind_the_header(start_broker, tmp_path, proxy):
    """The TLS of a real client may go through the proxy to the broker: the header comes before it."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("broker")
    broker = start_broker(
        f"enable_proxy_protocol 1\nproxy_protocol_from 127.0.0.1\ncertfile {certificate}\nkeyfile {key}", cls=_Behind
    )
    through = proxy(broker, line())
    mosquitto_pub(through, "-i", "real", "-t", "t", "-m", "x", "-q", "1", *client(authority))
    logged(broker, f"connected peer={CLIENT}:50123 client=real")
    # Header and ClientHello in one segment, as a proxy that waits for data sends them.
    context = ssl.create_default_context(cafile=authority.cafile)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(broker.address, TIMEOUT) as far:
        far.settimeout(TIMEOUT)
        pending = line(port=50124)

        def until(step):
            nonlocal pending
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    far.sendall(pending + outgoing.read())
                    pending = b""
                    incoming.write(far.recv(65536))

        until(tls.do_handshake)
        tls.write(connect("coalesced", V311))
        assert until(lambda: tls.read(4)) == b"\x20\x02\x00\x00"
    logged(broker, f"connected peer={CLIENT}:50124 client=coalesced")


def test_websocket_behind_the_header(start_broker, proxy):
    """A WebSocket begins behind the header, too."""
    broker = start_broker(
        "protocol websockets\nenable_proxy_protocol 2\nproxy_protocol_from 127.0.0.1", cls=_Behind
    )
    through = proxy(broker, binary())
    paho = Paho(through, "browser", transport="websockets")
    try:
        paho.subscribe("t", 1)
        paho.publish("t", b"x", 1)
        assert paho.take().payload == b"x"
    finally:
        paho.close()
    logged(broker, f"connected peer={CLIENT}:50123 client=browser")
