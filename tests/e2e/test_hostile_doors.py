"""Attacks below MQTT: on WebSocket and on TLS. Each leaves a broker that is well, and other clients that notice nothing."""

import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib

import pytest

from authority import Authority
from broker import Listening, free_port
from doors import Tls, WebSocket, drip, frame, request, rest
from hostile import check_healthy, cpu_seconds, resident_kb, survives
from wire import TIMEOUT, V5, V311, Will, connect, publish, subscribe

pytestmark = pytest.mark.sol

# The first byte of a Close with which the broker ends a connection, and of a binary message.
CLOSE, BINARY, PONG = 0x88, 0x82, 0x8A
PINGREQ = b"\xc0\x00"


class Doors(Listening):
    """A plain listener for who is well, and one of each other kind."""

    def __init__(self, directory, config="", args=(), **popen):
        self.ws, self.tls = (("127.0.0.1", free_port()) for _ in range(2))
        super().__init__(directory, config, args, **popen)

    def _config_text(self, config: str) -> str:
        return super()._config_text(f"listener {self.ws[1]} 127.0.0.1\nprotocol websockets\nlistener {self.tls[1]} 127.0.0.1\n{config}")


@pytest.fixture
def start(start_broker, authority):
    """start(lines): all doors; the lines are of the listener with TLS, or of the whole broker."""
    certificate, key = authority.issue("broker")
    return lambda lines="": start_broker(f"certfile {certificate}\nkeyfile {key}\n{lines}", cls=Doors)


def trusting(authority, version=None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.cafile)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


# --- WebSocket --------------------------------------------------------------------------------------------------------


def open_web(broker, version=V311, more=b"") -> WebSocket:
    """A client with its CONNACK."""
    web = WebSocket(broker.ws, request() + frame(BINARY, connect("web", version)) + more)
    assert web.answer.startswith(b"HTTP/1.1 101 "), web.answer
    first, payload = web.frame()
    assert (first, payload[0]) == (BINARY, 0x20)
    return web


def test_frames_split_joined_and_fragmented(start):
    """WS-01 [MQTT-6.0.0-2]: packets do not care where frames and segments end, and a Ping between two fragments is answered."""
    broker = start()
    packets = connect("web") + subscribe([("t", 0)]) + publish("t", b"x" * 300)
    ways = {
        "one frame": frame(BINARY, packets),
        "a frame for each byte": b"".join(frame(BINARY, bytes([byte])) for byte in packets),
        "fragments": frame(0x02, packets[:1]) + frame(0x00, packets[1:40]) + frame(0x89, b"ping") + frame(0x80, packets[40:]),
    }
    for way, frames in ways.items():
        for step in (len(frames), 1):
            with WebSocket(broker.ws, request()) as web:
                for at in range(0, len(frames), step):
                    web.send(frames[at : at + step])
                mqtt = pongs = b""
                while not mqtt.endswith(b"x" * 300):
                    first, payload = web.frame()
                    mqtt, pongs = (mqtt + payload, pongs) if first == BINARY else (mqtt, pongs + payload)
                assert mqtt[:2] == b"\x20\x02" and pongs == (b"ping" if way == "fragments" else b""), way
    check_healthy(broker)


BROKEN_RULES = [
    ("WS-02", "without a mask", frame(BINARY, PINGREQ, mask=None), 1002),
    ("WS-03", "text", frame(0x81, PINGREQ), 1003),
    ("WS-04", "opcode 3", frame(0x83), 1002),
    ("WS-04", "opcode 11", frame(0x8B), 1002),
    ("WS-04", "a reserved bit", frame(0xA2, PINGREQ), 1002),
    ("WS-05", "2^62 bytes", b"\x82\xff" + struct.pack("!Q", 1 << 62), 1009),
    ("WS-05", "2^63 bytes", b"\x82\xff" + struct.pack("!Q", 1 << 63), 1002),
    ("WS-06", "a Ping in fragments", frame(0x09, b"x"), 1002),
    ("WS-06", "a Ping of 126 bytes", frame(0x89, b"x" * 126), 1002),
    ("WS-07", "a continuation of nothing", frame(0x80, PINGREQ), 1002),
    ("WS-07", "a message in a message", frame(0x02, PINGREQ) + frame(BINARY, PINGREQ), 1002),
]


@pytest.mark.parametrize("row, what, frames, code", BROKEN_RULES, ids=[f"{row} {what}" for row, what, *_ in BROKEN_RULES])
def test_a_frame_that_breaks_a_rule(start, row, what, frames, code):
    """WS-02 to WS-07: the broker closes at once with the code that the specification has for it, and takes nothing behind it."""
    broker = start()
    with survives(broker), open_web(broker) as web:
        web.send(frames + frame(BINARY, publish("never", b"x", retain=True)))
        assert web.frames()[-1] == (CLOSE, struct.pack("!H", code))
    with broker.client("asks", V5) as asks:
        asks.subscribe("never")
        asks.ping()


@pytest.mark.parametrize("version", [V311, V5])
def test_a_malformed_packet_in_a_frame(start, version):
    """WS-08: it ends its connection as it does elsewhere, on 5.0 with DISCONNECT, and then comes the Close of WebSocket."""
    broker = start()
    malformed = b"\x30\x02\x00\x09"  # its Topic Name is longer than it
    with survives(broker), open_web(broker, version) as web:
        web.send(frame(BINARY, malformed))
        *mqtt, close = web.frames()
        assert close[0] == CLOSE
        assert [payload[0] for _, payload in mqtt] == ([0xE0] if version == V5 else [])


@pytest.mark.parametrize(
    "opening, status",
    [
        (request(key=None), 400),
        (request(key="dGhlIHNhbXBsZSBub25jZQ"), 400),
        (request(version="99"), 426),
        (request(version=None), 426),
        (request(more="".join(f"X-{n}: y\r\n" for n in range(300))), 431),
        (request(more=f"X-Long: {'y' * 100_000}\r\n"), 431),
        (b"GET /" + b"a" * 100_000, 414),
        (request(more="Origin: https://evil.example\r\n"), 403),
    ],
    ids=["no key", "a short key", "version 99", "no version", "300 headers", "a header of 100 kB", "a line of 100 kB", "Origin"],
)
def test_requests_that_are_refused(start, opening, status):
    """WS-09, WS-10, WS-11, OP-10: each is answered with its status and closed, and nothing is kept of it. Who sends on after
    that may see the connection reset before the answer."""
    broker = start(f"listener {(door := free_port())} 127.0.0.1\nprotocol websockets\nwebsockets_origin https://good.example")
    with survives(broker):
        web = WebSocket(("127.0.0.1", door))
        try:
            web.send(opening)
        except ConnectionError:
            pass
        answer = web.head()
        if len(opening) < 10_000 or answer:
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
        assert status != 426 or b"\r\nSec-WebSocket-Version: 13" in answer
        rest(web.socket)
        web.close()


def test_a_thousand_pings(start):
    """WS-12: each segment's last one is answered, so that answers are never more than was sent, and MQTT goes on."""
    broker = start()
    with survives(broker), open_web(broker) as web:
        web.send(b"".join(frame(0x89, struct.pack("!I", n)) for n in range(1_000)) + frame(BINARY, PINGREQ))
        pongs = []
        while (got := web.frame()) != (BINARY, b"\xd0\x00"):
            assert got[0] == PONG
            pongs.append(struct.unpack("!I", got[1])[0])
        # Without waiting for it, MQTT may be answered before the last Pong of its turn.
        while not pongs or pongs[-1] < 999:
            pongs.append(struct.unpack("!I", web.frame()[1])[0])
        assert pongs == sorted(set(pongs)) and pongs[-1] == 999


def test_compression_is_not_taken(start):
    """WS-13: the extension is not agreed on, and a compressed bomb is a frame with a reserved bit, which nobody unpacks."""
    broker = start()
    offer = request(more="Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
    bomb = zlib.compress(bytes(64 << 20))[2:-4]
    with survives(broker), WebSocket(broker.ws, offer + frame(BINARY, connect("web"))) as web:
        assert web.answer.startswith(b"HTTP/1.1 101 ") and b"extensions" not in web.answer.lower()
        web.frame()
        web.send(frame(0xC2, bomb)[:4_000])
        assert web.frames()[-1] == (CLOSE, struct.pack("!H", 1002))


def test_an_upgrade_that_drips(start):
    """OP-11: the request has as long as a CONNECT has, however steadily its bytes come; so has what follows it."""
    broker = start("connect_timeout 1")
    with survives(broker):
        for opening in (b"", request()):
            with WebSocket(broker.ws) as web:
                if opening:
                    web.send(opening)
                    web.head()
                slowly = frame(BINARY, connect("x" * 200)) if opening else request(more=f"X: {'y' * 1000}\r\n")
                assert drip(web.socket, slowly, 0.05) < 10


def test_frames_of_a_byte(start):
    """OP-12: a packet of which each byte has a frame is taken as it comes: nothing is held for a frame, and time grows with
    the bytes alone."""
    broker = start()
    packet = publish("t", os.urandom(100_000), 1, packet_id=7)
    frames = b"".join(frame(BINARY, packet[at : at + 1]) for at in range(len(packet)))
    with survives(broker), broker.client("reads", V5) as reads, open_web(broker) as web:
        reads.subscribe("t")
        before = cpu_seconds(broker.pid)
        web.send(frames)
        assert web.frame() == (BINARY, b"\x40\x02\x00\x07")
        assert reads.take().payload == packet[-100_000:]
        # A hundred thousand frames; each that cost the length of the packet would take minutes.
        assert cpu_seconds(broker.pid) - before < 5


# --- TLS --------------------------------------------------------------------------------------------------------------


def open_tls(broker, authority, version=None, packet=None) -> Tls:
    """A client with its CONNACK."""
    tls = Tls(broker.tls, trusting(authority, version)).shake_hands()
    tls.send(packet or connect("tls", V311))
    assert tls.recv()[:4] == b"\x20\x02\x00\x00"
    return tls


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@VERSIONS
def test_records_that_are_too_large(start, authority, version):
    """TL-04: a record of 65,535 bytes ends its connection, before the handshake and after it, before its bytes have come."""
    broker = start()
    with survives(broker):
        for begin in (lambda: Tls(broker.tls, trusting(authority)), lambda: open_tls(broker, authority, version)):
            with begin() as tls:
                kind = b"\x17" if tls.tls.version() else b"\x16"
                tls.socket.sendall(kind + b"\x03\x03\xff\xff" + os.urandom(100))
                tls.end()


def test_a_hello_that_drips(start, authority):
    """TL-06: the handshake has as long as a CONNECT has, together with it, however steadily its bytes come."""
    broker = start("connect_timeout 1")
    with survives(broker), Tls(broker.tls, trusting(authority)) as tls:
        assert drip(tls.socket, tls.hello, 0.05) < 10
    with survives(broker), Tls(broker.tls, trusting(authority)).shake_hands() as tls:
        assert drip(tls.socket, b"\x17\x03\x03\x10\x00" + os.urandom(4_096), 0.05) < 10


def test_handshakes_do_not_slow_who_is_there(start, authority):
    """OP-03, TL-06: while crowds begin handshakes, as fast as they can and as slowly as they may, who is connected is served:
    each of its messages comes back before the next flood is over."""
    broker = start()
    slow = [Tls(broker.tls, trusting(authority)) for _ in range(50)]
    for one in slow:
        one.socket.sendall(one.hello[:100])
    hello, stop, begun = slow[0].hello, threading.Event(), [0, 0]

    def flood(which):
        while not stop.is_set():
            with socket.create_connection(broker.tls, TIMEOUT) as peer:
                peer.sendall(hello)
                begun[which] += 1

    threads = [threading.Thread(target=flood, args=(which,)) for which in range(2)]
    with broker.client("pub", V5) as pub, broker.client("sub", V5) as sub:
        sub.subscribe(("t", 1))
        for thread in threads:
            thread.start()
        try:
            slowest, during = 0.0, []
            for n in range(200):
                before = time.monotonic()
                pub.publish("t", b"%d" % n, 1)
                assert sub.take().payload == b"%d" % n
                slowest = max(slowest, time.monotonic() - before)
                during.append(sum(begun))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    # The flood went on all the while; a turn that served it first would have taken all of it.
    assert during[-1] > during[0] + 20, during[-1]
    assert slowest < 2, f"a message took {slowest:.1f} s"
    for one in slow:
        one.close()
    check_healthy(broker)


def s_client(broker, authority, *args):
    """openssl's own client, that takes commands by letters."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.tls[1]}", "-CAfile", str(authority.cafile), *args]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def await_line(process, text: bytes) -> bytes:
    seen = b""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"s_client never said {text}: {seen[-2000:]}")


def test_renegotiation_is_refused(start, authority):
    """OP-01: a client of TLS 1.2 that asks for another handshake is told that there is none."""
    broker = start()
    with survives(broker):
        process = s_client(broker, authority, "-tls1_2")
        await_line(process, b"Extended master secret")
        process.stdin.write(b"R\n")
        process.stdin.flush()
        try:
            said = process.communicate(timeout=TIMEOUT)[0]
        finally:
            process.kill()
        assert b"no renegotiation" in said, said


def test_keys_that_change_all_the_time(start, authority):
    """OP-02: a client may ask for new keys between its messages, and each time they are there; one that does nothing but ask is
    ended, and nothing piles up of its answers."""
    broker = start()
    with survives(broker):
        process = s_client(broker, authority, "-tls1_3")
        await_line(process, b"Verify return code")

        def say(data):
            process.stdin.write(data)
            process.stdin.flush()

        def await_bytes(wanted):
            got = b""
            while wanted not in got:
                more = process.stdout.read1(4_096)
                assert more, got
                got += more

        try:
            say(connect("keys"))
            await_bytes(b"\x20\x02\x00\x00")
            for packet_id in range(1, 6):
                for _ in range(20):
                    say(b"K\n")
                    await_line(process, b"KEYUPDATE")
                say(publish("t", b"x", 1, packet_id))
                await_bytes(b"\x40\x02\x00" + bytes([packet_id]))
            asked = 0
            try:
                while asked < 200:
                    say(b"K\n")
                    await_line(process, b"KEYUPDATE")
                    asked += 1
            except (BrokenPipeError, AssertionError):
                pass
            assert asked < 200
        finally:
            process.kill()
            process.communicate()


@VERSIONS
def test_an_end_without_close_notify(start, authority, version):
    """OP-07: the end of the socket is the end of the connection, once: its Will is published, and nobody goes round in
    circles."""
    broker = start()
    with survives(broker), broker.client("heir", V5) as heir:
        heir.subscribe(("will", 1))
        will = connect("tls", V311, will=Will("will", b"it is gone", 1))
        with open_tls(broker, authority, version, will) as tls:
            tls.socket.shutdown(socket.SHUT_WR)
            assert heir.take().payload == b"it is gone"
            tls.end()
        before = cpu_seconds(broker.pid)
        for _ in range(20):
            heir.ping()
        assert cpu_seconds(broker.pid) - before < 0.5


def vector(size: int, body: bytes) -> bytes:
    return len(body).to_bytes(size, "big") + body


def hello(*extensions: tuple[int, bytes], ciphers=b"\x13\x01") -> bytes:
    """A ClientHello in as many records as it needs (RFC 8446, section 4.1.2)."""
    listed = b"".join(struct.pack("!H", kind) + vector(2, body) for kind, body in extensions)
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, ciphers) + b"\x01\x00" + vector(2, listed)
    message = b"\x01" + vector(3, body)
    parts = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
    return b"".join(b"\x16\x03\x01" + vector(2, part) for part in parts)


ODD = {
    "an extension of 65,000 bytes": hello((0xFAFA, bytes(65_000))),
    "ten thousand empty extensions": hello(*((n, b"") for n in range(10_000))),
    "the same extension twice": hello((43, b"\x02\x03\x04"), (43, b"\x02\x03\x04")),
    "ALPN of empty names": hello((16, vector(2, vector(1, b"") * 50))),
    "ALPN that is cut": hello((16, b"\x00\xff\x04mq")),
    "a server's name of control characters": hello((0, vector(2, b"\x00" + vector(2, b"\x00\r\n\x1b[2J")))),
    "a server's name of 60,000 bytes": hello((0, vector(2, b"\x00" + vector(2, b"a" * 60_000)))),
    "no ciphers": hello(ciphers=b""),
    "ciphers of nobody": hello(ciphers=bytes(range(2, 254)) * 100),
    "an odd number of bytes of ciphers": hello(ciphers=b"\x13\x01\x13"),
    "a key share of another group's length": hello((51, vector(2, b"\x00\x1d" + vector(2, bytes(9_000))))),
    "a message in records of no bytes": b"\x16\x03\x01\x00\x00" * 5_000,
    "noise": b"\x16\x03\x01\x40\x00" + os.urandom(16_384),
}


@pytest.mark.parametrize("first", ODD.values(), ids=ODD.keys())
def test_odd_hellos(start, first):
    """OP-08: whatever stands in a ClientHello that makes no sense, its connection is closed, and all that was held of it is
    gone."""
    broker = start("connect_timeout 2")
    with survives(broker):
        peer = socket.create_connection(broker.tls, TIMEOUT)
        try:
            peer.sendall(first)
            answer = rest(peer)
        except ConnectionError:
            answer = b""
        # An alert, or nothing: never a handshake.
        assert answer[:1] in (b"", b"\x15"), answer[:50]
        peer.close()
    assert "\x1b" not in broker.log()


def test_protocols_that_are_not_spoken(start, authority):
    """OP-08: who insists on another protocol by ALPN is told so by an alert."""
    broker = start()
    context = trusting(authority)
    context.set_alpn_protocols(["h2", "x" * 200])
    with survives(broker), pytest.raises(ssl.SSLError, match="no application protocol"):
        Tls(broker.tls, context).shake_hands()


def chain_of(authority, length: int):
    """A client's certificate below so many authorities, with all of them behind it in its file."""
    folder, issuer, between = authority.folder, "ca", []
    for n in range(length):
        name = f"between{n}"
        authority.run("req", *authority.key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "ca.ext").write_text("basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n")
        authority.run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key",
                      "-CAcreateserial", "-out", f"{name}.crt", "-days", "30", "-extfile", "ca.ext")  # fmt: skip
        issuer = name
        between.insert(0, (folder / f"{name}.crt").read_text())
    authority.run("req", *authority.key("deep"), "-out", "deep.csr", "-subj", "/CN=deep")
    (folder / "deep.ext").write_text("subjectAltName=DNS:localhost\n")
    authority.run("x509", "-req", "-in", "deep.csr", "-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key", "-CAcreateserial",
                  "-out", "deep.crt", "-days", "30", "-extfile", "deep.ext")  # fmt: skip
    (folder / "deep.pem").write_text((folder / "deep.crt").read_text() + "".join(between))
    return folder / "deep.pem", folder / "deep.key"


def test_chains_of_certificates(start, authority, tmp_path):
    """OP-09: a chain of two authorities is followed; one of forty, and one of a hundred that lead nowhere, are refused without
    much being computed or held."""
    broker = start(f"cafile {authority.cafile}\nrequire_certificate true")

    def comes_in(identity) -> bool:
        context = trusting(authority)
        context.load_cert_chain(*identity)
        try:
            with Tls(broker.tls, context).shake_hands() as tls:
                tls.send(connect("deep", V311))
                return tls.recv()[:4] == b"\x20\x02\x00\x00"
        except (ssl.SSLError, EOFError, ConnectionError):
            return False

    good = chain_of(authority, 2)
    other = Authority(tmp_path, "other")
    deep = chain_of(other, 12)
    nowhere = other.folder / "nowhere.pem"
    leaf, *between = re.findall(r"-----BEGIN.+?END CERTIFICATE-----\n", deep[0].read_text(), re.S)
    nowhere.write_text(leaf + "".join(between * 9))
    with survives(broker):
        assert comes_in(good)
        before = cpu_seconds(broker.pid)
        assert not comes_in(deep) and not comes_in((nowhere, deep[1]))
        assert cpu_seconds(broker.pid) - before < 2
        broker.says("certificate")
    assert resident_kb(broker.pid) < 100_000
