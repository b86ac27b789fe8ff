"""What every attack is followed by: a healthy client still gets a QoS 1 message through, and nothing has leaked."""

import contextlib
import os
import pathlib
import re
import resource
import select
import socket
import struct
import time

from broker import Broker, wait_until
from wire import V5, Wire

# Descriptors of the tests' own: several hundred sockets are open at a time.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(20_000, _hard), _hard))

# `goodpw` by SHA-512-crypt, as `sol passwd -H sha512-crypt` writes it.
GOOD_HASH = "$6$saltsaltsaltsalt$2OzR4IdzfhYfVYrRHsppJaW2UUjEN.gGAare0j4SRU5b3P2MK8EfUdE6WYnCZULZwPnjeXr2JfDvKPXCDKSqI0"


def resident_kb(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def peak_kb(pid: int) -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_healthy(broker: Broker, **login) -> None:
    """A client that behaves gets a QoS 1 message through."""
    with broker.client("healthy-s", V5, **login) as sub, broker.client("healthy-p", V5, **login) as pub:
        sub.subscribe(("healthy", 1))
        pub.publish("healthy", b"still here", 1)
        assert sub.take().payload == b"still here"
        for w in (sub, pub):
            w.disconnect()


@contextlib.contextmanager
def survives(broker: Broker, grows_mb: float = 8, **login):
    """What stands inside must leave the broker alive, its descriptors as many as before, and its resident memory at most
    `grows_mb` larger."""
    check_healthy(broker, **login)
    pid, before, open_before = broker.pid, resident_kb(broker.pid), descriptors(broker.pid)
    yield
    check_healthy(broker, **login)
    wait_until(lambda: descriptors(pid) <= open_before, f"return to {open_before} descriptors")
    grown = resident_kb(pid) - before
    assert grown < grows_mb * 1024, f"{grown} kB more resident"


def reset(w: Wire) -> None:
    """Cuts a connection by RST."""
    w.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    w.close()


def narrow(broker: Broker, version: int = V5) -> Wire:
    """A connection whose receive buffer is as small as the kernel allows."""
    w = Wire.__new__(Wire)
    w.version, w.buffer, w.stash, w.connack = version, b"", [], None
    w.socket = socket.socket()
    w.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    w.socket.settimeout(10)
    w.socket.connect(broker.address)
    return w


def pour(w: Wire, data: bytes, seconds: float, limit: int) -> int:
    """Sends as much of `data`, again and again, as the broker takes in this time; never reads."""
    w.socket.setblocking(False)
    writable = select.poll()
    writable.register(w.socket, select.POLLOUT)
    sent, at, end = 0, 0, time.monotonic() + seconds
    while sent < limit and time.monotonic() < end:
        try:
            taken = w.socket.send(data[at:])
            at = (at + taken) % len(data)
            sent += taken
        except BlockingIOError:
            writable.poll(max(0, 1000 * (end - time.monotonic())))
        except OSError:
            break  # the broker has had enough
    return sent


def closed_after(sockets: dict, start: float, timeout: float) -> dict:
    """When each of these was closed, in seconds since `start`: `sockets` maps names to `Wire`s. What came before the end
    is appended to the Wire's buffer."""
    left, times = dict(sockets), {}
    while left and time.monotonic() - start < timeout:
        ready, _, _ = select.select([w.socket for w in left.values()], [], [], 0.05)
        for name, w in list(left.items()):
            if w.socket in ready:
                try:
                    data = w.socket.recv(65536)
                except OSError:
                    data = b""
                w.buffer += data
                if not data:
                    times[name] = time.monotonic() - start
                    del left[name]
    return times
