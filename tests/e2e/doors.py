"""Clients that are free to misbehave below MQTT: WebSocket by its bytes, and TLS of which each record can be touched."""

import socket
import ssl
import struct
import time

from wire import TIMEOUT

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def request(path="/mqtt", key=KEY, version="13", more="") -> bytes:
    """A request for a WebSocket; `None` leaves a header out."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Protocol: mqtt"]
    lines += [f"Sec-WebSocket-Key: {key}"] if key else []
    lines += [f"Sec-WebSocket-Version: {version}"] if version else []
    return ("\r\n".join(lines) + "\r\n" + more + "\r\n").encode()


def frame(first: int, payload: bytes = b"", mask: bytes | None = b"\x1a\x2b\x3c\x4d") -> bytes:
    """A frame that begins with `first`: its last bits are the opcode, 0x80 says that its message ends with it."""
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head = bytes([first, bit | len(payload)])
    elif len(payload) < 65_536:
        head = bytes([first, bit | 126]) + struct.pack("!H", len(payload))
    else:
        head = bytes([first, bit | 127]) + struct.pack("!Q", len(payload))
    if not mask:
        return head + payload
    keys = mask * (len(payload) // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(keys[: len(payload)], "big")
    return head + mask + masked.to_bytes(len(payload), "big")


class WebSocket:
    """A client of WebSocket that sends what it is told and reads the broker's frames."""

    def __init__(self, address, opening: bytes | None = None):
        self.socket = socket.create_connection(address, TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.answer = b""
        if opening is not None:
            self.send(opening)
            self.answer = self.head()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> bool:
        """False at the end of the connection, however it came."""
        try:
            data = self.socket.recv(65_536)
        except ConnectionError:
            return False
        self.buffer += data
        return bool(data)

    def head(self) -> bytes:
        """The answer's lines; all there was of it if the connection ends before."""
        while b"\r\n\r\n" not in self.buffer and self._more():
            pass
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def frame(self):
        """The next (first byte, payload); `None`: the end of the connection."""
        while True:
            if len(self.buffer) >= 2:
                length, at = self.buffer[1], 2
                assert length < 0x80, "a server does not mask"
                if length >= 126:
                    at = 4 if length == 126 else 10
                    length = int.from_bytes(self.buffer[2:at], "big") if len(self.buffer) >= at else 1 << 63
                if len(self.buffer) >= at + length:
                    first, payload = self.buffer[0], self.buffer[at : at + length]
                    self.buffer = self.buffer[at + length :]
                    return first, payload
            if not self._more():
                assert not self.buffer, f"a part of a frame at the end: {self.buffer[:100]}"
                return None

    def frames(self) -> list:
        """All that come until the end of the connection."""
        return list(iter(self.frame, None))

    def close(self) -> None:
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Tls:
    """A client of TLS whose records pass through the hands of the test. `hello` is its first flight."""

    def __init__(self, address, context: ssl.SSLContext, name="localhost"):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.socket = socket.create_connection(address, TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.hello = self.outgoing.read()

    def shake_hands(self) -> "Tls":
        self.socket.sendall(self.hello)
        self._pump(self.tls.do_handshake)
        return self

    def _pump(self, step):
        while True:
            try:
                result = step()
                self.socket.sendall(self.outgoing.read())
                return result
            except ssl.SSLWantReadError:
                self.socket.sendall(self.outgoing.read())
                data = self.socket.recv(65_536)
                if not data:
                    raise EOFError from None
                self.incoming.write(data)

    def send(self, plain: bytes) -> None:
        self.tls.write(plain)
        self.socket.sendall(self.outgoing.read())

    def recv(self, count: int = 65_536) -> bytes:
        return self._pump(lambda: self.tls.read(count))

    def end(self) -> bytes:
        """What comes, still in TLS, until the end of the connection."""
        return rest(self.socket)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def rest(sock: socket.socket) -> bytes:
    """All that comes until the end of the connection, however that comes."""
    data = b""
    while True:
        try:
            more = sock.recv(65_536)
        except ConnectionError:
            return data
        if not more:
            return data
        data += more


def drip(sock: socket.socket, data: bytes, each: float) -> float:
    """Sends byte after byte, one each so many seconds, until the connection ends; the seconds it took to end."""
    began = time.monotonic()
    sock.settimeout(each)
    for byte in data:
        try:
            sock.sendall(bytes([byte]))
            if not sock.recv(65_536):
                return time.monotonic() - began
        except TimeoutError:
            continue
        except ConnectionError:
            return time.monotonic() - began
    raise AssertionError(f"{len(data)} bytes in {time.monotonic() - began:.1f} s, and nobody minded")
