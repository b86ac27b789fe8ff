"""Several shards are one broker: whatever a client does, it cannot tell on which shard it and others are at home."""

import re
import select
import threading
import time

import pytest

import wire
from broker import IO, SHARDS, wait_until
from hostile import GOOD_HASH, check_healthy, descriptors, reset
from sharded import Sharded
from test_scram import PASSWORDS, Scram, auth, begin, challenge, login, passwd
from wire import CONNACK, DISCONNECT, PINGRESP, PUBACK, PUBLISH, SUBACK, TIMEOUT, V5, V31, V311, Will, Wire

pytestmark = pytest.mark.sol


TOLD = {"cls": Sharded, "shards": max(SHARDS, 2)}
"""Has `start_broker` start one of two shards at least, which tells where a client is at home."""


@pytest.fixture
def sharded(start_broker) -> Sharded:
    return start_broker(**TOLD)


@pytest.fixture
def passwords(tmp_path):
    path = tmp_path / "passwords"
    path.write_text(f"alice:{GOOD_HASH}\nbob:{GOOD_HASH}\n")
    path.chmod(0o600)
    return path


# --- What runs --------------------------------------------------------------------------------------------------------


def test_what_runs_is_told(start_broker):
    """The number of shards and the backend stand in the banner, in `sol_info` and in `$SYS`, the same everywhere."""
    b = start_broker("sys_interval 1", **TOLD)
    banner = wait_until(lambda: re.search(r"starts: (\d+) shards, (\w+) backend", b.log()), "banner")
    shards, backend = int(banner[1]), banner[2]
    assert shards == b.shards
    assert backend == IO or IO == "auto" and backend in ("epoll", "io_uring")
    assert any(f'backend="{backend}",shards="{shards}"' in name for name in b.metrics())
    with b.client("", V5) as w:
        w.subscribe(("$SYS/broker/backend", 0), ("$SYS/broker/shards", 0))
        told = {p.topic: p.payload.decode() for p in (w.expect(PUBLISH), w.expect(PUBLISH))}
    assert told == {"$SYS/broker/backend": backend, "$SYS/broker/shards": str(shards)}


def test_sums_are_sums(sharded):
    """Clients, Subscriptions and retained messages of all shards add up, and the most clients at a time is that of all
    shards together, not the sum of what each had at its own time."""
    names = sharded.names(2)
    most = sharded.total("sol_clients_connected_maximum")
    assert most == 1, "one after the other, on every shard"
    clients = [sharded.client(name, V5) for shard in names for name in shard]
    for w in clients:
        w.subscribe(("own", 0), ("$share/g/shared", 0))
    for n in range(20):
        clients[0].publish(f"kept/{n}", b"x", 1, retain=True)
    count = len(clients)
    for name, value in (
        ("sol_clients_connected", count),
        ("sol_clients_connected_maximum", count),
        ("sol_subscriptions", 2 * count),
        ("sol_shared_subscriptions", count),
    ):
        assert sharded.total(name) == value, name
    assert sum(sharded.clients()) == count
    for w in clients:
        w.disconnect()


def test_a_second_broker_on_the_port_is_refused(sharded, tmp_path):
    """Listeners that shards share are not shared with another process."""
    with pytest.raises(AssertionError, match="in use"):
        folder = tmp_path / "second"
        folder.mkdir()
        second_port = sharded.port

        class Second(Sharded):
            def _config_text(self, config):
                self.port, self.address = second_port, ("127.0.0.1", second_port)
                return super()._config_text(config)

            def _wait_until_accepting(self) -> None:
                code = self.process.wait(TIMEOUT)
                assert code == 0, self.log()

        second = Second(folder, shards=sharded.shards)
        second.stop()
    check_healthy(sharded)


# --- The way home -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V31, V311, V5])
def test_pipelined_packets_move_with_their_connection(sharded, version):
    """CONNECT, SUBSCRIBE and PUBLISH in one segment are answered in order by every home, from whichever shard accepted, and
    so they are where the segment ends in the middle of a packet."""
    for shard in sharded.names(3):
        for name in shard:
            for _ in range(4):  # the system chooses the shard that accepts, by the client's port
                data = wire.connect(name, version)
                data += wire.subscribe([(f"own/{name}", 1)], 7, version)
                data += b"".join(wire.publish(f"own/{name}", b"%d" % n, 1, n, version=version) for n in range(1, 21))
                with sharded.wire(version) as whole:
                    whole.send(data)
                    assert whole.expect(CONNACK).reason == 0
                    check_pipelined(whole)
                with sharded.wire(version) as cut:
                    at = len(data) - 30
                    cut.send(data[:at])
                    assert cut.expect(CONNACK).reason == 0
                    cut.send(data[at:])
                    check_pipelined(cut)
    assert sum(sharded.by_shard("sol_shard_connections_adopted_total")) > 0, "no connection had to move"


def check_pipelined(w: Wire) -> None:
    """What follows CONNACK: acknowledgements in order and messages in order. A message may come before the SUBACK, which
    waits for every shard to know of the Subscription (section 3.8.4)."""
    suback, acked, got = 0, [], []
    while not suback or len(acked) < 20 or len(got) < 20:
        p = w.recv()
        if p.kind == SUBACK:
            suback = p.packet_id
        elif p.kind == PUBACK:
            acked.append(p.packet_id)
        else:
            assert p.kind == PUBLISH, p
            w.send(wire.ack(PUBACK, p.packet_id))
            got.append(int(p.payload))
    assert suback == 7 and acked == got == list(range(1, 21))


def test_connections_that_die_on_their_way_leave_nothing(sharded):
    """Connections cut right behind CONNECT, SUBSCRIBE and PUBLISH: descriptors, clients and Subscriptions are what they
    were."""
    check_healthy(sharded)
    before = descriptors(sharded.pid)
    for n in range(400):
        w = sharded.wire(V5)
        w.send(wire.connect(f"gone{n}", V5), wire.subscribe([("gone/#", 1)], 1, V5), wire.publish("gone/x", b"x", version=V5))
        reset(w) if n % 2 else w.close()
    wait_until(lambda: descriptors(sharded.pid) <= before, f"return to {before} descriptors")
    wait_until(lambda: sharded.total("sol_clients_connected") == 0, "an idle broker")
    assert (sharded.total("sol_subscriptions"), sharded.total("sol_connections")) == (0, 0)
    check_healthy(sharded)


def test_of_many_with_one_name_one_is_left(sharded):
    """Thirty connections, accepted by whichever shard, name the same client at once: each is let in, and all but the last
    are told that they were taken over."""
    for name in (shard[0] for shard in sharded.names(1)):
        wires = [sharded.wire(V5) for _ in range(30)]
        for w in wires:
            w.send(wire.connect(name, V5))
        for w in wires:
            assert w.expect(CONNACK).reason == 0
        left = []
        wait_until(lambda: sharded.total("sol_clients_connected") == 1, "one client")
        for w in wires:
            w.send(wire.packet(0xC0))
        for w in wires:
            try:
                p = w.recv()
            except wire.Closed:
                p = None
            if p is not None and p.kind == DISCONNECT:
                assert p.reason == 0x8E
            elif p is not None:
                left.append(w)
        assert len(left) == 1
        for w in wires:
            w.close()
        wait_until(lambda: sharded.total("sol_clients_connected") == 0, "an idle broker")


def test_a_takeover_while_the_home_is_flooded(sharded):
    """The mailbox of a client's home is kept full by publishers of all other shards, and the client is taken over again and
    again, with its Session: no QoS 1 message of its own is lost, none comes after a later one, and all are answered."""
    names = sharded.names(3)
    target, home = names[0][0], 0
    sink = sharded.client(names[home][1], V5)
    sink.subscribe(("flood", 0))
    floods = [sharded.client(shard[2], V5) for shard in names[1:]]
    sender = sharded.client(names[-1][1], V5)
    stopping = threading.Event()

    def drain():
        poll = select.poll()
        poll.register(sink.socket, select.POLLIN)
        while not stopping.is_set():
            if poll.poll(100):
                sink.socket.recv(1 << 20)

    def flood(w):
        data = wire.publish("flood", b"x" * 16_000, version=V5) * 16
        poll = select.poll()
        poll.register(w.socket, select.POLLOUT)
        w.socket.setblocking(False)
        at = 0
        while not stopping.is_set():
            if poll.poll(100):
                at = (at + w.socket.send(data[at:])) % len(data)

    threads = [threading.Thread(target=drain), *(threading.Thread(target=flood, args=(w,)) for w in floods)]
    for thread in threads:
        thread.start()
    try:
        resume = {"clean": False, "properties_": {"session_expiry_interval": 600}}
        current = sharded.client(target, V5, **resume)
        current.subscribe(("own", 1))
        got = []
        for n in range(1, 41):
            sender.send(wire.publish("own", b"%d" % n, 1, n, version=V5))
            following = sharded.client(target, V5, **resume)
            assert following.connack.session_present
            assert sender.expect(PUBACK).packet_id == n
            current.close()
            current = following
            got.append(int(current.take().payload))
            current.ping()  # its PUBACK is no longer on the way
        assert got == list(range(1, 41))
        current.disconnect()
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    for w in (sink, sender, *floods):
        w.close()
    check_healthy(sharded)


# --- Messages between shards ------------------------------------------------------------------------------------------


def test_a_subscription_holds_for_all_shards_when_it_is_acknowledged(sharded):
    """On SUBACK a client of another shard publishes at once: the message comes, every time."""
    names = sharded.names(1)
    clients = [sharded.client(shard[0], V5) for shard in names]
    for n in range(200):
        subscriber, publisher = clients[n % len(clients)], clients[(n + 1) % len(clients)]
        subscriber.subscribe((f"round/{n}", n % 2))
        publisher.publish(f"round/{n}", b"%d" % n)
        assert subscriber.take().payload == b"%d" % n
        subscriber.unsubscribe(f"round/{n}")


def test_each_message_reaches_one_member_of_a_group(sharded):
    """Members on every shard, publishers on every shard: each message comes to exactly one member, every member gets some,
    and what a member left unacknowledged goes to the others."""
    names = sharded.names(3)
    members = [sharded.client(name, V5) for shard in names for name in shard[:2]]
    for w in members:
        w.subscribe(("$share/g/work", 1))
    publishers = [sharded.client(shard[2], V5) for shard in names]
    total = 40 * len(members)
    for n in range(total):
        w = publishers[n % len(publishers)]
        assert w.publish("work", b"%d" % n, 1, n % 60_000 + 1).reason == 0
    leaver = members.pop()
    got = collect(members, total, leave=leaver)
    assert sorted(got) == list(range(total)), "each once"


def collect(members: list[Wire], total: int, leave: Wire) -> list[int]:
    """What the members get, each message acknowledged; `leave` acknowledges nothing and vanishes first."""
    assert leave.expect(PUBLISH).qos == 1, "it had its share"
    reset(leave)
    got, shares = [], [0] * len(members)
    poll = select.poll()
    places = {w.socket.fileno(): n for n, w in enumerate(members)}
    for w in members:
        poll.register(w.socket, select.POLLIN)
    while len(got) < total:
        ready = poll.poll(TIMEOUT * 1000)
        assert ready, f"{len(got)} of {total} came"
        for descriptor, _ in ready:
            n = places[descriptor]
            w = members[n]
            w._fill(time.monotonic() + TIMEOUT)
            while frame := w._frame():
                p = wire.parse(*frame, V5)
                assert p.kind == PUBLISH, p
                w.send(wire.ack(PUBACK, p.packet_id))
                got.append(int(p.payload))
                shares[n] += 1
    assert all(shares), shares
    for w in members:
        w.ping()  # nothing more came before the answer
    return got


def test_retained_messages_are_the_same_from_everywhere(sharded):
    """What any client has set is replayed to a client of any shard as soon as it is acknowledged; what is cleared is not; a
    wildcard finds the messages of all shards."""
    names = sharded.names(2)
    setters = [sharded.client(shard[0], V5) for shard in names]
    readers = [sharded.client(shard[1], V5) for shard in names]
    for n in range(60):
        setter, reader = setters[n % len(setters)], readers[(n + 1) % len(readers)]
        setter.publish(f"kept/{n}", b"%d" % n, 1, retain=True)
        reader.subscribe((f"kept/{n}", 1))
        p = reader.take()
        assert (p.topic, p.payload, p.retain) == (f"kept/{n}", b"%d" % n, True)
        reader.unsubscribe(f"kept/{n}")
    for n in range(0, 60, 2):
        setters[(n + 1) % len(setters)].publish(f"kept/{n}", b"", 1, retain=True)
    for reader in readers:
        reader.subscribe(("kept/+", 1))
        assert sorted(int(reader.take().payload) for _ in range(30)) == list(range(1, 60, 2))
        reader.ping()
    assert sharded.total("sol_messages_retained") >= 30


def test_wills_reach_every_shard(sharded):
    """The Will of a client that vanishes comes to subscribers on all shards, once; that of one that says DISCONNECT, or is
    back before its delay has passed, does not."""
    names = sharded.names(2)
    readers = [sharded.client(shard[0], V5) for shard in names]
    for reader in readers:
        reader.subscribe(("will/#", 1))
    for shard in names:
        name = shard[1]
        will = Will(f"will/{name}", b"gone", 1)
        reset(sharded.client(name, V5, will=will))
        for reader in readers:
            p = reader.take()
            assert (p.topic, p.payload) == (f"will/{name}", b"gone")
        sharded.client(name, V5, will=will).disconnect()
        stays = {"clean": False, "properties_": {"session_expiry_interval": 600}}
        late = Will(f"will/{name}", b"late", 1, properties={"will_delay_interval": 300})
        reset(sharded.client(name, V5, will=late, **stays))
        wait_until(lambda: sharded.total("sol_clients_connected") == len(readers), "its end")
        back = sharded.client(name, V5, clean=False)
        assert back.connack.session_present
        back.disconnect()
        for reader in readers:
            reader.ping()


# --- Who may come in --------------------------------------------------------------------------------------------------


def test_logins_are_judged_where_they_come_in_and_move_then(start_broker, passwords, tmp_path):
    """Passwords and SCRAM, for clients of every home: the right ones get in with what they sent behind CONNECT, the wrong
    ones are refused."""
    passwd("--scram", "--iterations", "4096", str(passwords), "jürgen", text=PASSWORDS["jürgen"] + "\n")
    b = start_broker(f"allow_anonymous false\npassword_file {passwords}", **TOLD)
    for n in range(8 * b.shards):
        name = f"client{n}"
        with b.wire(V5) as w:
            w.send(
                wire.connect(name, V5, username="alice", password="goodpw"),
                wire.subscribe([("own", 1)], 7, V5),
                wire.publish("own", b"x", 1, 1, version=V5),
            )
            assert w.expect(CONNACK).reason == 0
            assert sorted(w.recv().kind for _ in range(3)) == [PUBLISH, PUBACK, SUBACK]
        with b.wire(V5) as w:
            w.connect(name, username="alice", password="wrong", expect=0x86)
        with b.wire(V5) as w:
            login(w, f"scram{n}", Scram("jürgen", PASSWORDS["jürgen"]))
            w.subscribe(("scram", 1))
            w.publish("scram", b"x", 0)
            assert w.take().payload == b"x"
        with b.wire(V5) as w:
            scram = Scram("jürgen", "no")
            begin(w, f"scram{n}", scram.first())
            w.send(auth(0x18, scram.last(challenge(w))))
            assert w.expect(CONNACK).reason == 0x87
    assert sum(b.by_shard("sol_shard_connections_adopted_total")) > 0
    assert b.total("sol_clients_connected") <= 8 * b.shards


def test_a_revoked_user_goes_on_every_shard(start_broker, passwords):
    """SIGHUP with alice out of the file: her connections end with 0x87 on all shards, bob's stay, and she does not come in
    again."""
    b = start_broker(f"allow_anonymous false\npassword_file {passwords}", **TOLD)
    users = {"alice": [], "bob": []}
    for user, wires in users.items():
        for n in range(6 * b.shards):
            wires.append(b.client(f"{user}{n}", V5, username=user, password="goodpw"))
    assert all(b.clients())
    passwords.write_text(f"bob:{GOOD_HASH}\n")
    b.reload()
    for w in users["alice"]:
        w.expect_disconnect(0x87)
    for w in users["bob"]:
        w.ping()
    with b.wire(V5) as w:
        w.connect("alice0", username="alice", password="goodpw", expect=0x86)


# --- Limits of the whole broker ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
def test_max_connections_is_exact_over_all_shards(start_broker, limit):
    """Sixty clients at once: as many as may be are let in, whatever their homes; one that leaves makes room for one of any
    shard, and a takeover needs none."""
    b = start_broker(f"max_connections {limit}", **TOLD)
    wires = [b.wire(V5) for _ in range(60)]
    for n, w in enumerate(wires):
        w.send(wire.connect(f"c{n}", V5))
    reasons = [w.expect(CONNACK).reason for w in wires]
    assert sorted(set(reasons)) == [0, 0x97] and reasons.count(0) == limit, reasons
    inside = [n for n, reason in enumerate(reasons) if reason == 0]
    again = b.client(f"c{inside[0]}", V5)
    assert wires[inside[0]].expect_closed()[-1].reason == 0x8E
    for n in range(60, 90):
        with b.wire(V5) as w:
            w.connect(f"c{n}", expect=0x97)
        again.disconnect()
        again = b.client(f"c{n}", V5)
    assert b.total("sol_clients_connected_maximum") == limit
    again.disconnect()
    for n in inside[1:]:
        wires[n].disconnect()
    wait_until(lambda: b.total("sol_clients_connected") == 0, "an idle broker")


def test_max_memory_is_one_for_all_shards(start_broker):
    """What one shard keeps fills the memory of all: a publisher on another is refused (5.0) or waits (3.1.1), and goes on
    when the first shard sets it free. The sum stays at the limit."""
    limit = 4 << 20
    b = start_broker("max_memory 4MB", **TOLD)
    names = b.names(3)
    stays = {"clean": False, "properties_": {"session_expiry_interval": 600}}
    away = b.client(names[0][0], V5, **stays)
    away.subscribe(("queued", 1))
    away.disconnect()
    elsewhere = b.client(names[1][0], V5, **stays)
    elsewhere.subscribe(("other", 1))
    elsewhere.disconnect()
    five, three, beside = b.client(names[1][1], V5), b.client(names[0][1], V311), b.client(names[0][2], V5)
    refused = 0
    for n in range(1, 200):
        refused = five.publish("queued", b"x" * 60_000, 1, n).reason
        if refused:
            break
    assert refused == 0x97
    memory = b.by_shard("sol_shard_memory_bytes")
    assert memory[0] > limit * 9 // 10 and sum(memory) < limit + (1 << 20), memory
    wait_until(lambda: five.publish("other", b"y" * 1_000, 1, 1).reason == 0x97, "a refusal on the other shard")
    wait_until(lambda: beside.publish("other", b"y" * 1_000, 1, 1).reason == 0x97, "a refusal on the first shard")
    # Whoever cannot be told goes on until all is full.
    for n in range(1, 200):
        three.send(wire.publish("queued", b"x" * 30_000, 1, n) + wire.packet(0xC0))
        if (p := three.recv()).kind == PINGRESP:
            break
        assert p.packet_id == n and three.recv().kind == PINGRESP
    memory = b.by_shard("sol_shard_memory_bytes")
    assert sum(memory) < limit + (1 << 20), memory
    gone = b.client(names[0][0], V5, clean=True)
    assert p.kind == PINGRESP and three.expect(PUBACK).packet_id == n
    # The first shard's may have heard of it before this one's.
    wait_until(lambda: five.publish("other", b"y", 1, 2).reason == 0, "room on the other shard")
    for w in (gone, five, three, beside):
        w.disconnect()


# --- The end ----------------------------------------------------------------------------------------------------------


def test_a_graceful_stop_tells_clients_of_every_shard(sharded):
    """SIGTERM while messages flow between shards: everybody is told 0x8B, and the process ends with exit code 0."""
    names = sharded.names(2)
    readers = [sharded.client(shard[0], V5) for shard in names]
    writers = [sharded.client(shard[1], V5) for shard in names]
    for w in readers:
        w.subscribe(("t", 0))
    for w in writers:
        w.send(wire.publish("t", b"x" * 100, version=V5) * 500)
    assert sharded.terminate() == 0
    for w in (*readers, *writers):
        w.expect_disconnect(0x8B)
