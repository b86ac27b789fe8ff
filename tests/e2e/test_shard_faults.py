"""Connections that die on their way to their home shard, mailboxes that are full, descriptors that run out, and a stop in
the middle of it: nothing leaks, nothing hangs."""

import contextlib
import resource
import select
import signal
import socket
import threading
import time

import pytest

import wire
from broker import wait_until
from hostile import check_healthy, descriptors, reset, resident_kb
from sharded import Sharded
from wire import V5, V311

pytestmark = [pytest.mark.sol, pytest.mark.parametrize("shards", [1, 2, 5])]

DESCRIPTORS = 300
"""What a broker has that is to run out of them."""


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def connect_bytes(client_id: str) -> bytes:
    return wire.connect(client_id, V5, will=wire.Will("gone", b"will", 1))


PIPELINED = {
    "nothing": b"",
    "subscribe and publish": wire.subscribe([("dying/#", 1)], 1, V5) + wire.publish("dying/x", b"x", 1, 2, version=V5),
    "half a packet": wire.publish("dying/x", b"x" * 1_000, 1, 2, version=V5)[:500],
    "much": wire.publish("dying/x", b"x" * 900, 1, 2, version=V5) * 15,
    "nonsense": b"\xff" * 100,
}


def test_connections_that_die_on_their_way_home(start_broker, shards):
    """Hundreds of connections that are reset or closed right behind their CONNECT, with nothing, something whole or
    something cut off pipelined behind it: connections, Sessions, Subscriptions, charged bytes and descriptors are what
    they were."""
    b = start_broker(cls=Sharded, shards=shards)
    check_healthy(b)
    before, resident = b.at_rest(), resident_kb(b.pid)
    for turn in range(8):
        dying = []
        for n in range(60):
            w = b.wire(V5)
            w.send(connect_bytes(f"dying-{turn}-{n}"), list(PIPELINED.values())[n % len(PIPELINED)])
            dying.append((reset if n % 3 else wire.Wire.close, w))
            # At once, or when all have come.
            if turn % 2 or n == 59:
                for die, one in dying:
                    die(one)
                dying.clear()
    check_healthy(b)
    b.expect_rest(before)
    assert resident_kb(b.pid) - resident < 16 << 10


@contextlib.contextmanager
def swamped(b: Sharded, publishers: int = 2):
    """The last shard has a subscriber whose thousand filters all match what others publish without end, so that each
    message costs it much; gives that shard, and goes on while what stands inside is done."""
    target = b.shards - 1
    topic = "steep/a/b/c/d/e/f/g/h/i"
    levels = topic.split("/")
    filters = ["/".join("+" if choice >> n & 1 else level for n, level in enumerate(levels)) for choice in range(1 << len(levels))]
    subscriber = b.client(b.names(1, "swamped")[target][0], V311)
    subscriber.subscribe(*((f, 0) for f in filters))
    senders = [b.client(name, V311) for name in b.names(publishers, "swamping")[0]]
    over = threading.Event()

    def pour(w):
        batch = wire.publish(topic, b"x" * 100) * 200
        w.socket.settimeout(0.2)
        left = b""
        while not over.is_set():
            left = left or batch
            try:
                left = left[w.socket.send(left) :]
            except TimeoutError:
                pass  # it is paused, or the broker is busy
            except OSError:
                return  # the broker stops

    def drink():
        ready = select.poll()
        ready.register(subscriber.socket, select.POLLIN)
        while not over.is_set():
            with contextlib.suppress(OSError):
                if ready.poll(200) and not subscriber.socket.recv(1 << 20):
                    return

    threads = [threading.Thread(target=pour, args=(w,)) for w in senders] + [threading.Thread(target=drink)]
    for thread in threads:
        thread.start()
    try:
        if b.shards > 1:
            # Half a mailbox is the mark below which publishers are resumed, so it stays between that and the whole.
            wait_until(lambda: b.metrics()["sol_mailbox_bytes_maximum"] > 1 << 20, "full mailbox", 60)
        yield target
    finally:
        over.set()
        for thread in threads:
            thread.join()
        for w in (*senders, subscriber):
            reset(w)


def test_takeover_at_a_shard_whose_mailbox_is_full(start_broker, shards):
    """A client comes again and again, through whichever shard, while the mailbox of its home shard is full: it is let in
    each time, its connection before is told 0x8E, and when it is over nothing is left [MQTT-3.1.4-3]."""
    b = start_broker(cls=Sharded, shards=shards)
    check_healthy(b)
    name = b.names(1, "comes-again")[-1][0]
    before = b.at_rest()
    with swamped(b):
        latest = b.client(name, V5)
        for _ in range(10):
            following = b.wire(V5)
            following.send(wire.connect(name, V5), wire.subscribe([("again", 1)], 1, V5))
            connack = following.expect(wire.CONNACK, 60)
            assert (connack.reason, connack.session_present) == (0, False)
            assert following.expect(wire.SUBACK, 60).reasons == [1]
            latest.expect_disconnect(0x8E, 60)
            latest.close()
            latest = following
        latest.send(wire.packet(0xC0))
        latest.expect(wire.PINGRESP, 60)
        reset(latest)
    check_healthy(b)
    b.expect_rest(before)


def crowd(b: Sharded, count: int) -> list[socket.socket]:
    """So many connections that are begun at once, each with a CONNECT and something pipelined as soon as the kernel takes
    it; comes back when the broker has no descriptor left for those that it has not accepted."""
    sockets, waiting, ready = [], {}, select.poll()
    hello = [connect_bytes(f"crowd-{n}") + PIPELINED["subscribe and publish"] for n in range(count)]
    for n in range(count):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(b.address)
        sockets.append(s)
        try:
            s.send(hello[n])
        except OSError:  # not yet
            waiting[s.fileno()] = n
            ready.register(s, select.POLLOUT)
    deadline = time.monotonic() + 60
    while descriptors(b.pid) < DESCRIPTORS - 2:
        assert time.monotonic() < deadline, "the broker always had enough"
        for descriptor, _ in ready.poll(50):
            ready.unregister(descriptor)
            with contextlib.suppress(OSError):
                sockets[waiting[descriptor]].send(hello[waiting[descriptor]])
    return sockets


def leave(sockets: list[socket.socket]) -> None:
    for n, s in enumerate(sockets):
        if n % 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        s.close()


def test_ten_thousand_connections_and_no_descriptors(start_broker, shards):
    """10,000 connections arrive at a broker that has 300 descriptors: it serves whom it can and rests, and when they have
    gone everybody is served again and nothing is left of them."""
    b = start_broker(cls=Sharded, shards=shards, preexec_fn=few_descriptors)
    check_healthy(b)
    before, resident = b.at_rest(), resident_kb(b.pid)
    leave(crowd(b, 10_000))
    b.expect_rest(before)
    check_healthy(b)
    assert b.metrics()["sol_accept_pauses_total"] > 0
    assert resident_kb(b.pid) - resident < 16 << 10


def test_sigterm_in_the_middle_of_all_that(start_broker, shards):
    """SIGTERM while a mailbox is full, a client takes itself over, connections die on their way and descriptors have run
    out: the broker ends in ten seconds, with exit code 0."""
    b = start_broker(cls=Sharded, shards=shards, preexec_fn=few_descriptors)
    name = b.names(1, "comes-again")[-1][0]
    with swamped(b):
        latest = [b.client(name, V5) for _ in range(3)]
        sockets = crowd(b, 2_000)
        leave(sockets[:500])
        begin = time.monotonic()
        b.process.send_signal(signal.SIGTERM)
        assert b.process.wait(10) == 0, b.log()[-2000:]
        print(f"ended in {time.monotonic() - begin:.2f} s")
        leave(sockets[500:])
        for w in latest:
            w.close()
