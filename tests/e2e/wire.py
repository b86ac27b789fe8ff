"""A raw MQTT client: the bytes, written here a second time and independently of the broker's codec.

Tests use it where paho or mosquitto_sub would hide what is on the wire: malformed packets, Packet Identifiers, DUP
flags, the order of packets, one byte per segment. It keeps no state and helps with nothing: what a test does not send
is not sent.
"""

import select
import socket
import struct
import time
from dataclasses import dataclass, field

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15

V31, V311, V5 = 3, 4, 5

TIMEOUT = 10.0
"""Seconds after which something awaited counts as missing. Generous: it is only ever used up by a failure."""

# Property name -> (identifier, type), section 2.2.2.2 of MQTT 5.0.
PROPERTIES = {
    "payload_format_indicator": (0x01, "byte"),
    "message_expiry_interval": (0x02, "u32"),
    "content_type": (0x03, "str"),
    "response_topic": (0x08, "str"),
    "correlation_data": (0x09, "bin"),
    "subscription_identifier": (0x0B, "varint"),
    "session_expiry_interval": (0x11, "u32"),
    "assigned_client_identifier": (0x12, "str"),
    "server_keep_alive": (0x13, "u16"),
    "authentication_method": (0x15, "str"),
    "authentication_data": (0x16, "bin"),
    "request_problem_information": (0x17, "byte"),
    "will_delay_interval": (0x18, "u32"),
    "request_response_information": (0x19, "byte"),
    "response_information": (0x1A, "str"),
    "server_reference": (0x1C, "str"),
    "reason_string": (0x1F, "str"),
    "receive_maximum": (0x21, "u16"),
    "topic_alias_maximum": (0x22, "u16"),
    "topic_alias": (0x23, "u16"),
    "maximum_qos": (0x24, "byte"),
    "retain_available": (0x25, "byte"),
    "user_property": (0x26, "pair"),
    "maximum_packet_size": (0x27, "u32"),
    "wildcard_subscription_available": (0x28, "byte"),
    "subscription_identifier_available": (0x29, "byte"),
    "shared_subscription_available": (0x2A, "byte"),
}
NAMES = {number: (name, kind) for name, (number, kind) in PROPERTIES.items()}
REPEATABLE = ("user_property", "subscription_identifier")


# --- Encoding --------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def utf8(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("!H", len(data)) + data


def packet(first_byte: int, body: bytes = b"") -> bytes:
    return bytes([first_byte]) + varint(len(body)) + body


def properties(values: dict | None) -> bytes:
    """Encodes `{name: value}`; a list stands for a property that occurs several times."""
    out = b""
    for name, value in (values or {}).items():
        number, kind = PROPERTIES[name]
        for one in value if isinstance(value, list) else [value]:
            out += varint(number) + _property_value(kind, one)
    return varint(len(out)) + out


def _property_value(kind: str, value) -> bytes:
    match kind:
        case "byte":
            return bytes([value])
        case "u16":
            return struct.pack("!H", value)
        case "u32":
            return struct.pack("!I", value)
        case "varint":
            return varint(value)
        case "pair":
            return utf8(value[0]) + utf8(value[1])
        case _:
            return utf8(value)


@dataclass
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: dict | None = None


def connect(
    client_id: str = "",
    version: int = V311,
    clean: bool = True,
    keep_alive: int = 60,
    properties_: dict | None = None,
    will: Will | None = None,
    username: str | None = None,
    password: str | bytes | None = None,
    flags: int | None = None,
) -> bytes:
    bits = 0x02 if clean else 0
    if will:
        bits |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
    if username is not None:
        bits |= 0x80
    if password is not None:
        bits |= 0x40
    name = "MQIsdp" if version == V31 else "MQTT"
    body = utf8(name) + bytes([version, bits if flags is None else flags]) + struct.pack("!H", keep_alive)
    if version == V5:
        body += properties(properties_)
    body += utf8(client_id)
    if will:
        body += properties(will.properties) if version == V5 else b""
        body += utf8(will.topic) + utf8(will.payload)
    body += utf8(username) if username is not None else b""
    body += utf8(password) if password is not None else b""
    return packet(0x10, body)


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    qos: int = 0,
    packet_id: int = 1,
    retain: bool = False,
    dup: bool = False,
    version: int = V311,
    properties_: dict | None = None,
) -> bytes:
    body = utf8(topic)
    if qos:
        body += struct.pack("!H", packet_id)
    if version == V5:
        body += properties(properties_)
    return packet(0x30 | (0x08 if dup else 0) | qos << 1 | (0x01 if retain else 0), body + payload)


def subscribe(filters, packet_id: int = 1, version: int = V311, properties_: dict | None = None) -> bytes:
    """`filters` is a list of (Topic Filter, Subscription Options byte)."""
    body = struct.pack("!H", packet_id)
    if version == V5:
        body += properties(properties_)
    for topic_filter, options in filters:
        body += utf8(topic_filter) + bytes([options])
    return packet(0x82, body)


def unsubscribe(filters, packet_id: int = 1, version: int = V311) -> bytes:
    body = struct.pack("!H", packet_id)
    if version == V5:
        body += properties(None)
    return packet(0xA2, body + b"".join(utf8(f) for f in filters))


def ack(kind: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP in the short form, which is the same in all versions."""
    return packet(kind << 4 | (0x02 if kind == PUBREL else 0), struct.pack("!H", packet_id))


def disconnect(version: int = V311, reason: int = 0, properties_: dict | None = None) -> bytes:
    if version != V5 or (reason == 0 and not properties_):
        return packet(0xE0)
    return packet(0xE0, bytes([reason]) + properties(properties_))


# --- Decoding --------------------------------------------------------------------------------------------------------


@dataclass
class Packet:
    """A packet from the server. Fields that its kind does not have keep their defaults."""

    kind: int
    flags: int
    body: bytes
    topic: str = ""
    payload: bytes = b""
    packet_id: int = 0
    reason: int = 0
    reasons: list = field(default_factory=list)
    session_present: bool = False
    properties: dict = field(default_factory=dict)

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def dup(self) -> bool:
        return bool(self.flags & 8)

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.data), f"the server's packet is cut short: {self.data.hex()}"
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return struct.unpack("!H", self.take(2))[0]

    def u32(self) -> int:
        return struct.unpack("!I", self.take(4))[0]

    def binary(self) -> bytes:
        return self.take(self.u16())

    def text(self) -> str:
        return self.binary().decode()

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def properties(self) -> dict:
        end = self.varint() + self.at
        out: dict = {}
        while self.at < end:
            name, kind = NAMES[self.varint()]
            value = {
                "byte": self.u8,
                "u16": self.u16,
                "u32": self.u32,
                "varint": self.varint,
                "str": self.text,
                "bin": self.binary,
                "pair": lambda: (self.text(), self.text()),
            }[kind]()
            if name in REPEATABLE:
                out.setdefault(name, []).append(value)
            else:
                assert name not in out, f"the server sent {name} twice"
                out[name] = value
        assert self.at == end, "the server's Property Length is wrong"
        return out


def parse(first_byte: int, body: bytes, version: int) -> Packet:
    p = Packet(first_byte >> 4, first_byte & 0x0F, body)
    r = _Reader(body)
    v5 = version == V5
    match p.kind:
        case 2:
            p.session_present, p.reason = bool(r.u8() & 1), r.u8()
            p.properties = r.properties() if v5 else {}
        case 3:
            p.topic = r.text()
            p.packet_id = r.u16() if p.qos else 0
            p.properties = r.properties() if v5 else {}
            p.payload = r.rest()
        case 4 | 5 | 6 | 7:
            p.packet_id = r.u16()
            _reason_and_properties(p, r, v5)
        case 9 | 11:
            p.packet_id = r.u16()
            p.properties = r.properties() if v5 else {}
            p.reasons = list(r.rest())
        case 14 | 15:
            _reason_and_properties(p, r, v5)
    assert r.at == len(body), f"the server sent {len(body) - r.at} trailing bytes: {first_byte:02x} {body.hex()}"
    return p


def _reason_and_properties(p: Packet, r: _Reader, v5: bool) -> None:
    if v5 and r.at < len(r.data):
        p.reason = r.u8()
        if r.at < len(r.data):
            p.properties = r.properties()


# --- The client ------------------------------------------------------------------------------------------------------


class Closed(Exception):
    """The server closed the connection where a packet was awaited."""


class Wire:
    """One connection. Every wait has a deadline and fails by assertion or `Closed`."""

    def __init__(self, address, version: int = V311, source: str | None = None):
        """`address` is a port on 127.0.0.1, a (host, port) pair or the path of a Unix socket; `source` is where it connects
        from."""
        self.version = version
        if isinstance(address, int):
            address = ("127.0.0.1", address)
        if isinstance(address, tuple):
            self.socket = socket.create_connection(address, TIMEOUT, (source, 0) if source else None)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT)
            self.socket.connect(address)
        self.buffer = b""
        self.stash: list[Packet] = []  # packets that came while `take` waited for its PUBREL, or `subscribe` for its SUBACK
        self.connack: Packet | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Cuts the connection without DISCONNECT."""
        self.socket.close()

    def send(self, *data: bytes) -> None:
        self.socket.sendall(b"".join(data))

    def recv(self, timeout: float = TIMEOUT) -> Packet:
        if self.stash:
            return self.stash.pop(0)
        return self._recv_new(time.monotonic() + timeout)

    def _recv_new(self, deadline: float) -> Packet:
        while True:
            found = self._frame()
            if found:
                return parse(*found, self.version)
            self._fill(deadline)

    def _frame(self):
        value, shift = 0, 0
        for at in range(1, min(len(self.buffer), 5)):
            value |= (self.buffer[at] & 0x7F) << shift
            shift += 7
            if self.buffer[at] < 0x80:
                end = at + 1 + value
                if len(self.buffer) < end:
                    return None
                first, body = self.buffer[0], self.buffer[at + 1 : end]
                self.buffer = self.buffer[end:]
                return first, body
        return None

    def _fill(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        poll = select.poll()  # select() knows no descriptor above 1,023
        poll.register(self.socket, select.POLLIN)
        if left <= 0 or not poll.poll(left * 1000):
            raise AssertionError(f"nothing came in time (unfinished: {self.buffer[:64].hex()})")
        try:
            data = self.socket.recv(262144)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed
        self.buffer += data

    def expect(self, kind: int, timeout: float = TIMEOUT) -> Packet:
        p = self.recv(timeout)
        assert p.kind == kind, f"expected a packet of kind {kind}, got {p}"
        return p

    def expect_closed(self, timeout: float = TIMEOUT) -> list[Packet]:
        """Reads until the server closes and returns the packets that came before."""
        seen, deadline = [], time.monotonic() + timeout
        while True:
            try:
                seen.append(self.recv(deadline - time.monotonic()))
            except Closed:
                return seen

    def expect_disconnect(self, reason: int, timeout: float = TIMEOUT) -> None:
        """Expects the connection to end: on 5.0 with DISCONNECT and this Reason Code, on 3.x by the close alone."""
        seen = self.expect_closed(timeout)
        if self.version == V5:
            assert seen and seen[-1].kind == DISCONNECT, f"closed without DISCONNECT, after {seen}"
            assert seen[-1].reason == reason, f"DISCONNECT 0x{seen[-1].reason:02x} instead of 0x{reason:02x}"
        else:
            assert all(p.kind != DISCONNECT for p in seen), "3.x servers do not send DISCONNECT"

    # Shorthands that send one packet and await its answer.

    def connect(self, client_id: str = "", expect: int = 0, **options) -> Packet:
        self.send(connect(client_id, self.version, **options))
        self.connack = self.expect(CONNACK)
        assert self.connack.reason == expect, f"CONNACK 0x{self.connack.reason:02x}, not 0x{expect:02x}"
        return self.connack

    def subscribe(self, *filters, packet_id: int = 1, properties_: dict | None = None) -> Packet:
        """Each filter is a Topic Filter (QoS 2 is asked for) or a pair with its Subscription Options byte."""
        pairs = [(f, 2) if isinstance(f, str) else f for f in filters]
        self.send(subscribe(pairs, packet_id, self.version, properties_))
        answer = self._await_suback()
        assert answer.packet_id == packet_id and len(answer.reasons) == len(pairs), answer
        return answer

    def _await_suback(self, timeout: float = TIMEOUT) -> Packet:
        """Messages may come before it (section 3.8.4): they are kept for `recv`."""
        deadline = time.monotonic() + timeout
        while (p := self._recv_new(deadline)).kind == PUBLISH:
            self.stash.append(p)
        assert p.kind == SUBACK, f"expected SUBACK, got {p}"
        return p

    def unsubscribe(self, *filters, packet_id: int = 1) -> Packet:
        self.send(unsubscribe(filters, packet_id, self.version))
        answer = self.expect(UNSUBACK)
        assert answer.packet_id == packet_id, answer
        return answer

    def publish(self, topic, payload: bytes = b"", qos: int = 0, packet_id: int = 1, **options) -> Packet | None:
        """Publishes and, for QoS 1 and 2, runs the exchange; returns PUBACK or PUBREC."""
        self.send(publish(topic, payload, qos, packet_id, version=self.version, **options))
        if qos == 0:
            return None
        first = self.expect(PUBACK if qos == 1 else PUBREC)
        assert first.packet_id == packet_id, first
        if qos == 2 and first.reason < 0x80:
            self.send(ack(PUBREL, packet_id))
            assert self.expect(PUBCOMP).packet_id == packet_id
        return first

    def take(self, timeout: float = TIMEOUT) -> Packet:
        """Receives one PUBLISH and acknowledges it to the end."""
        p = self.expect(PUBLISH, timeout)
        if p.qos == 1:
            self.send(ack(PUBACK, p.packet_id))
        elif p.qos == 2:
            self.send(ack(PUBREC, p.packet_id))
            self._await_pubrel(p.packet_id, time.monotonic() + timeout)
            self.send(ack(PUBCOMP, p.packet_id))
        return p

    def _await_pubrel(self, packet_id: int, deadline: float) -> None:
        while True:
            p = self._recv_new(deadline)
            if p.kind == PUBREL and p.packet_id == packet_id:
                return
            self.stash.append(p)

    def ping(self) -> None:
        self.send(packet(0xC0))
        self.expect(PINGRESP)

    def disconnect(self, reason: int = 0, **options) -> None:
        self.send(disconnect(self.version, reason, **options))
        self.expect_closed()
        self.close()
