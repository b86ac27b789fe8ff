"""Bad peers: each loses its own connection, with the right Reason Code, and nobody else notices anything."""

import os
import resource
import select
import socket
import struct
import threading
import time

import pytest

import wire
from broker import wait_until
from wire import V5, V31, V311, Wire

MALFORMED, PROTOCOL_ERROR = 0x81, 0x82

# (name, bytes, Reason Code on 5.0). The bytes are sent by a connected 5.0 client.
BAD_5_0 = [
    ("packet type 0 (2.1.2)", b"\x00\x00", {MALFORMED}),
    ("PUBLISH with QoS 3 [MQTT-3.3.1-4]", b"\x36\x06\x00\x01a\x00\x01\x00", {MALFORMED}),
    ("PUBLISH QoS 0 with DUP [MQTT-3.3.1-2]", b"\x38\x04\x00\x01a\x00", {MALFORMED, PROTOCOL_ERROR}),
    ("PUBLISH with Packet Identifier 0 [MQTT-2.2.1-3]", b"\x32\x06\x00\x01a\x00\x00\x00", {MALFORMED, PROTOCOL_ERROR}),
    ("PUBLISH with a wildcard in its topic [MQTT-3.3.2-2]", wire.publish("a/#", version=V5), {0x90}),
    ("PUBLISH with an empty topic and no alias", wire.publish("", version=V5), {PROTOCOL_ERROR}),
    ("PUBLISH with U+0000 in its topic [MQTT-1.5.4-2]", wire.publish("a\0b", version=V5), {MALFORMED, 0x90}),
    ("PUBLISH with broken UTF-8 [MQTT-1.5.4-1]", wire.publish(b"\xc3\x28", version=V5), {MALFORMED, 0x90}),
    ("PUBLISH with a surrogate [MQTT-1.5.4-1]", wire.publish(b"\xed\xa0\x80", version=V5), {MALFORMED, 0x90}),
    ("PUBLISH cut inside its topic", b"\x30\x03\x00\x05a", {MALFORMED}),
    ("SUBSCRIBE with wrong flags [MQTT-3.8.1-1]", b"\x80\x07\x00\x01\x00\x00\x01a\x00", {MALFORMED}),
    ("SUBSCRIBE without a filter [MQTT-3.8.3-2]", b"\x82\x03\x00\x01\x00", {MALFORMED, PROTOCOL_ERROR}),
    ("SUBSCRIBE with QoS 3 (3.8.3.1)", wire.subscribe([("a", 3)], version=V5), {MALFORMED, PROTOCOL_ERROR}),
    ("SUBSCRIBE with reserved option bits [MQTT-3.8.3-5]", wire.subscribe([("a", 0x40)], version=V5), {MALFORMED}),
    ("SUBSCRIBE with Retain Handling 3 (3.8.3.1)", wire.subscribe([("a", 0x30)], version=V5), {MALFORMED, PROTOCOL_ERROR}),
    ("SUBSCRIBE with identifier 0 (3.8.2.1.2)", b"\x82\x09\x00\x01\x02\x0b\x00\x00\x01a\x00", {PROTOCOL_ERROR}),
    ("SUBSCRIBE with Packet Identifier 0", wire.subscribe([("a", 0)], 0, V5), {MALFORMED, PROTOCOL_ERROR}),
    ("UNSUBSCRIBE without a filter [MQTT-3.10.3-2]", b"\xa2\x03\x00\x01\x00", {MALFORMED, PROTOCOL_ERROR}),
    ("PUBREL with wrong flags [MQTT-3.6.1-1]", b"\x60\x02\x00\x01", {MALFORMED}),
    ("PUBACK with flags [MQTT-2.1.3-1]", b"\x41\x02\x00\x01", {MALFORMED}),
    ("PUBACK with an unknown Reason Code", b"\x40\x03\x00\x01\x55", {MALFORMED, PROTOCOL_ERROR}),
    ("PINGREQ with a body", b"\xc0\x01\x00", {MALFORMED}),
    ("a Remaining Length of five bytes (1.5.5)", b"\x30\xff\xff\xff\xff\x01", {MALFORMED}),
    ("a property that PUBLISH does not have", b"\x30\x09\x00\x01a\x05\x11\x00\x00\x00\x00", {MALFORMED, PROTOCOL_ERROR}),
    ("an unknown property", b"\x30\x06\x00\x01a\x02\x7f\x00", {MALFORMED}),
    ("a property twice", b"\x30\x08\x00\x01a\x04\x01\x00\x01\x00", {PROTOCOL_ERROR, MALFORMED}),
    ("a Property Length beyond the packet", b"\x30\x06\x00\x01a\x09\x01\x00", {MALFORMED}),
    ("CONNACK from a client", b"\x20\x03\x00\x00\x00", {MALFORMED, PROTOCOL_ERROR}),
    ("SUBACK from a client", b"\x90\x04\x00\x01\x00\x00", {MALFORMED, PROTOCOL_ERROR}),
    ("PINGRESP from a client", b"\xd0\x00", {MALFORMED, PROTOCOL_ERROR}),
    ("a second CONNECT [MQTT-3.1.0-2]", wire.connect("again", V5), {PROTOCOL_ERROR}),
]

BAD_3 = [
    ("packet type 0", b"\x00\x00"),
    ("packet type 15", b"\xf0\x00"),
    ("PUBLISH with QoS 3 [MQTT-3.3.1-4]", b"\x36\x05\x00\x01a\x00\x01"),
    ("PUBLISH with Packet Identifier 0 [MQTT-2.3.1-1]", b"\x32\x05\x00\x01a\x00\x00"),
    ("PUBLISH with a wildcard in its topic [MQTT-3.3.2-2]", wire.publish("a/+")),
    ("PUBLISH with an empty topic [MQTT-4.7.3-1]", wire.publish("")),
    ("PUBLISH with U+0000 in its topic [MQTT-1.5.3-2]", wire.publish("a\0b")),
    ("PUBLISH with broken UTF-8 [MQTT-1.5.3-1]", wire.publish(b"\xff")),
    ("SUBSCRIBE with wrong flags [MQTT-3.8.1-1]", b"\x80\x06\x00\x01\x00\x01a\x00"),
    ("SUBSCRIBE without a filter [MQTT-3.8.3-3]", b"\x82\x02\x00\x01"),
    ("SUBSCRIBE with QoS 3 [MQTT-3-8.3-4]", wire.subscribe([("a", 3)])),
    ("SUBSCRIBE with an empty filter [MQTT-4.7.3-1]", wire.subscribe([("", 0)])),
    ("SUBSCRIBE with # in the middle [MQTT-4.7.1-2]", wire.subscribe([("a/#/b", 0)])),
    ("SUBSCRIBE with + in a level [MQTT-4.7.1-3]", wire.subscribe([("a+", 0)])),
    ("UNSUBSCRIBE without a filter [MQTT-3.10.3-2]", b"\xa2\x02\x00\x01"),
    ("PUBREL with wrong flags [MQTT-3.6.1-1]", b"\x60\x02\x00\x01"),
    ("a Remaining Length of five bytes (2.2.3)", b"\x30\xff\xff\xff\xff\x01"),
    ("CONNACK from a client", b"\x20\x02\x00\x00"),
    ("a second CONNECT [MQTT-3.1.0-2]", wire.connect("again")),
    ("PUBLISH cut inside its topic", b"\x30\x03\x00\x05a"),
]


@pytest.fixture
def witness(broker):
    """A healthy client; its traffic must go on, on the same connection, after whatever the test did."""
    with broker.client("witness", V5) as w:
        w.subscribe(("witness/t", 1))
        yield w
        w.send(wire.publish("witness/t", b"still here", 1, 1, version=V5))
        seen = [w.recv(), w.recv()]
        assert sorted(p.kind for p in seen) == [wire.PUBLISH, wire.PUBACK]


@pytest.mark.differs("other codes, or lets it pass")
@pytest.mark.parametrize("data, reasons", [pytest.param(d, r, id=n) for n, d, r in BAD_5_0])
def test_a_bad_packet_ends_a_5_0_connection_with_its_reason(broker, name, witness, data, reasons):
    """DISCONNECT with the right Reason Code, then close [MQTT-4.13.1-1, -2]."""
    with broker.client(name, V5) as w:
        w.send(data)
        seen = w.expect_closed()
        assert seen and seen[-1].kind == wire.DISCONNECT, f"closed without DISCONNECT, after {seen}"
        assert seen[-1].reason in reasons, f"0x{seen[-1].reason:02x}"


@pytest.mark.differs("lets some pass")
@pytest.mark.parametrize("old", [V31, V311], ids=["v31", "v311"])
@pytest.mark.parametrize("data", [pytest.param(d, id=n) for n, d in BAD_3])
def test_a_bad_packet_ends_a_3_x_connection(broker, name, witness, data, old):
    """3.x: the connection is closed without any packet [MQTT-4.8.0-1]."""
    with broker.client(name, old) as w:
        w.send(data)
        assert w.expect_closed() == []


def connect_body(name=b"MQTT", level=4, flags=2, rest=b"\x00\x3c\x00\x01a") -> bytes:
    return wire.packet(0x10, wire.utf8(name) + bytes([level, flags]) + rest)


@pytest.mark.differs("lets some pass")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(connect_body(name=b"HTTP"), id="another protocol name [MQTT-3.1.2-1]"),
        pytest.param(connect_body(flags=3), id="the reserved flag [MQTT-3.1.2-3]"),
        pytest.param(connect_body(flags=0x0A), id="Will QoS without Will [MQTT-3.1.2-13]"),
        pytest.param(connect_body(flags=0x22), id="Will Retain without Will [MQTT-3.1.2-15]"),
        pytest.param(connect_body(flags=0x1E, rest=b"\x00\x3c\x00\x01a\x00\x01w\x00\x00"), id="Will QoS 3 [MQTT-3.1.2-14]"),
        pytest.param(connect_body(flags=0x42, rest=b"\x00\x3c\x00\x01a\x00\x01p"), id="password without user [MQTT-3.1.2-22]"),
        pytest.param(connect_body(rest=b"\x00\x3c\x00\x09a"), id="cut inside the Client Identifier"),
        pytest.param(connect_body(rest=b"\x00\x3c\x00\x01abcd"), id="trailing bytes"),
        pytest.param(b"\x12" + connect_body()[1:], id="wrong flags in the Fixed Header"),
        pytest.param(wire.publish("a", b"x"), id="PUBLISH before CONNECT [MQTT-3.1.0-1]"),
        pytest.param(wire.subscribe([("a", 0)]), id="SUBSCRIBE before CONNECT [MQTT-3.1.0-1]"),
        pytest.param(b"\xc0\x00", id="PINGREQ before CONNECT"),
        pytest.param(b"\xe0\x00", id="DISCONNECT before CONNECT"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(509), id="TLS"),
        pytest.param(bytes(1000), id="zeroes"),
        pytest.param(b"\xff" * 1000, id="ones"),
    ],
)
def test_a_bad_first_packet_ends_the_connection(broker, witness, data):
    """Whatever comes first and is no good CONNECT closes that connection and never reaches CONNACK 0."""
    with broker.wire(V311) as w:
        w.send(data)
        assert not any(p.kind == wire.CONNACK and p.reason == 0 for p in w.expect_closed())


def test_an_unknown_protocol_level_is_told(broker):
    """CONNACK 0x01 in the form of 3.1.1 [MQTT-3.1.2-2], or 0x84 in that of 5.0 to what comes after it; then close."""
    for level in (0, 2, 6, 255):
        with broker.wire(V311) as w:
            w.send(connect_body(level=level))
            assert refusal(w) in (b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00")


def refusal(w) -> bytes:
    """All bytes until the close: a refusal may come in a version's form that the client did not ask for."""
    data = b""
    while chunk := w.socket.recv(4096):
        data += chunk
    return data


@pytest.mark.differs("closes without DISCONNECT")
def test_a_second_connect_is_a_violation(broker, name, version, witness):
    """[MQTT-3.1.0-2]"""
    with broker.client(name, version) as w:
        w.send(wire.connect(name, version))
        w.expect_disconnect(PROTOCOL_ERROR)


def test_nothing_after_a_bad_packet_is_served(broker, name, witness):
    """A PUBLISH that follows the fault in the same segment has no effect."""
    with broker.client(name + "s", V5) as sub, broker.client(name, V5) as w:
        sub.subscribe((f"{name}/#", 0))
        w.send(wire.publish(f"{name}/before", version=V5), b"\x00\x00", wire.publish(f"{name}/after", version=V5))
        w.expect_closed()
        sub.publish(f"{name}/end")
        assert [sub.take().topic, sub.take().topic] == [f"{name}/before", f"{name}/end"]


def test_packets_may_come_in_one_segment(broker, name, version):
    """CONNECT, SUBSCRIBE and PUBLISH sent at once are handled in turn: a client need not wait for CONNACK [MQTT-3.1.4-…]."""
    with broker.wire(version) as w:
        w.send(
            wire.connect(name, version),
            wire.subscribe([(name, 1)], 1, version),
            wire.publish(name, b"x", 1, 2, version=version),
            wire.packet(0xC0),
        )
        kinds = [w.expect(wire.CONNACK).kind] + [w.recv().kind for _ in range(4)]
        assert sorted(kinds[1:]) == [wire.PUBLISH, wire.PUBACK, wire.SUBACK, wire.PINGRESP]


def test_packets_may_come_one_byte_per_segment(broker, name, version):
    """Every cut point of a conversation is harmless."""
    with broker.wire(version) as w:
        conversation = [
            wire.connect(name, version),
            wire.subscribe([(name, 1)], 1, version),
            wire.publish(name, b"payload", 1, 2, version=version),
            wire.packet(0xC0),
        ]
        for byte in b"".join(conversation):
            w.send(bytes([byte]))
        kinds = [w.recv().kind for _ in range(5)]
        assert sorted(kinds) == [wire.CONNACK, wire.PUBLISH, wire.PUBACK, wire.SUBACK, wire.PINGRESP]


def test_a_half_packet_then_silence_hurts_nobody(broker, name, witness):
    """A packet that never ends keeps only its own connection waiting; its close is noticed."""
    with broker.client(name, V5) as w:
        w.send(wire.publish(name, b"x" * 1000, version=V5)[:500])
    with broker.client(name, V5) as w:
        w.ping()


def test_a_reset_is_survived(broker, name, witness):
    """RST in the middle of everything (SO_LINGER 0), with deliveries under way."""
    for n in range(20):
        w = broker.client(f"{name}{n}", V5)
        w.subscribe((f"{name}/#", 0))
        w.send(*(wire.publish(f"{name}/a", b"x" * 1000, version=V5) for _ in range(50)))
        w.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        w.close()


# --- Keep Alive -------------------------------------------------------------------------------------------------------


@pytest.mark.differs("takes up to six seconds, closes without DISCONNECT")
def test_keep_alive_is_enforced(broker, name, version):
    """Silence of one and a half Keep Alives closes; 5.0 hears 0x8D [MQTT-3.1.2-22]."""
    with broker.client(name, version, keep_alive=1) as w:
        start = time.monotonic()
        w.expect_disconnect(0x8D, timeout=8)
        assert 1.4 < time.monotonic() - start < 6


def test_any_packet_keeps_a_connection_alive(broker, name):
    """PINGREQ within Keep Alive holds the connection well beyond it (3.1.2.10)."""
    with broker.client(name, V311, keep_alive=1) as w, broker.client(name + "i", V311, keep_alive=1) as idle:
        start = time.monotonic()
        while time.monotonic() - start < 3:
            w.ping()
            threading.Event().wait(0.2)  # the client's own pace, not a synchronisation
        w.ping()
        assert idle.expect_closed() == []


def test_keep_alive_zero_is_never_enforced(broker, name):
    """Keep Alive 0 turns it off: such a client outlives one that has 1 (3.1.2.10)."""
    with broker.client(name, V311, keep_alive=0) as w, broker.client(name + "1", V311, keep_alive=1) as timed:
        timed.expect_closed()
        w.ping()


# --- Resources --------------------------------------------------------------------------------------------------------


@pytest.mark.sol
def test_a_slow_consumer_hurts_nobody(broker, name):
    """A subscriber that never reads does not slow a publisher or other subscribers, and costs bounded memory."""
    with broker.client(name + "slow", V5) as slow, broker.client(name + "s", V5) as sub, broker.client("", V5) as pub:
        slow.subscribe((f"{name}/#", 0))
        sub.subscribe((f"{name}/#", 0))
        payload = os.urandom(60_000)
        start = time.monotonic()
        for n in range(2000):  # 120 MB: far above any socket buffer or watermark
            pub.publish(f"{name}/{n}", payload)
            assert sub.take().topic == f"{name}/{n}"
        assert time.monotonic() - start < 60
        with open(f"/proc/{broker.pid}/status") as status:
            rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        assert rss < 100_000, f"{rss} kB resident"


@pytest.mark.sol
def test_running_out_of_descriptors_is_survived(start_broker):
    """With no descriptor left accept pauses; who is connected is served, and when some are free it goes on."""
    b = start_broker(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    with b.client("first", V5) as first:
        first.subscribe(("t", 0))
        crowd = []
        for n in range(100):  # the kernel's backlog takes those that the broker cannot
            w = b.wire(V311)
            w.send(wire.connect(f"c{n}"))
            crowd.append(w)
        first.publish("t", b"served")
        assert first.take().payload == b"served"

        answered, waiting = 0, [w.socket for w in crowd]
        while ready := select.select(waiting, [], [], 0.5 if answered > 10 else wire.TIMEOUT)[0]:
            for w in [w for w in crowd if w.socket in ready]:
                assert w.expect(wire.CONNACK).reason == 0
                waiting.remove(w.socket)
                answered += 1
        assert 10 < answered < 64
        for w in crowd:
            w.close()
        with b.client("later", V5) as later:
            later.publish("t", b"after")
        assert first.take().payload == b"after"
    assert b.alive()


@pytest.mark.sol
def test_a_silent_peer_is_closed_within_seconds(broker, witness):
    """A peer has five seconds for its CONNECT. One that says nothing at all is kept by the kernel for a while before."""
    with broker.wire() as silent, broker.wire() as half:
        half.send(wire.connect("half")[:5])
        start = time.monotonic()
        half.expect_closed(timeout=8)
        assert time.monotonic() - start > 4
        silent.expect_closed(timeout=20)


@pytest.mark.sol
def test_a_connect_larger_than_its_limit_is_refused(broker, witness):
    """CONNECT may be 16 KiB; a larger one is refused by its Fixed Header alone."""
    with broker.wire(V5) as w:
        w.send(wire.packet(0x10, bytes(20_000))[:5])
        seen = w.expect_closed(timeout=4)
        assert not any(p.kind == wire.CONNACK and p.reason == 0 for p in seen)


def test_a_thousand_connections_come_and_go(broker, name, witness):
    """Nothing is leaked by clients that connect, subscribe and vanish."""

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{broker.pid}/fd"))

    before = descriptors()
    for n in range(1000):
        w = Wire(broker.address, V5)
        w.connect(f"{name}{n}")
        w.subscribe((f"{name}/#", 1))
        w.close()
    wait_until(lambda: descriptors() <= before + 5, "return to the descriptors of before")
