"""Attacks on what a broker has of time, memory, connections and descriptors, beyond single packets.

After each of them a healthy client is served, descriptors have come back, and resident memory has not grown by more than
`survives` allows. `tests/hostile/index.tsv` says which attack is met where.
"""

import pathlib
import resource
import select
import signal
import socket
import threading
import time

import pytest

import wire
from broker import wait_until
from hostile import GOOD_HASH, check_healthy, closed_after, cpu_seconds, descriptors, narrow, peak_kb, pour, reset, resident_kb, survives
from wire import V5, V31, V311

# --- Silence ----------------------------------------------------------------------------------------------------------


@pytest.mark.differs("looks every five seconds, and closes without DISCONNECT")
def test_silent_clients_are_closed_in_time_and_told(broker, name):
    """Keep Alive 1 and not a word: each is closed between 1.5 and 3.5 seconds, 5.0 with 0x8D [MQTT-3.1.2-22]."""
    with survives(broker):
        start = time.monotonic()
        clients = {(n, v): broker.client(f"{name}{n}", v, keep_alive=1) for n, v in enumerate([V31, V311, V5, V5] * 2)}
        times = closed_after(clients, start, 9)
        for w in clients.values():
            w.close()
        assert len(times) == 8 and all(1.3 < t < 3.6 for t in times.values()), times
        for (_, version), w in clients.items():
            told = w.buffer[:3] in (b"\xe0\x01\x8d", b"\xe0\x02\x8d")
            assert told == (version == V5), (version, w.buffer)


@pytest.mark.differs("waits for 90 seconds")
def test_peers_that_never_send_connect_are_closed(broker):
    """Five sockets that say nothing are closed in five seconds and what the kernel holds them back."""
    with survives(broker):
        silent = {n: broker.wire() for n in range(5)}
        times = closed_after(silent, time.monotonic(), 12)
        for w in silent.values():
            w.close()
        assert len(times) == 5 and all(t < 8 for t in times.values()), times


@pytest.mark.differs("waits for 90 seconds, and each byte begins them anew")
def test_a_dripped_connect_has_one_deadline(broker):
    """CONNECT at a byte a second: five seconds for all of it, however the bytes drip, and whichever came last."""
    dripped = wire.connect("dripped", V5, properties_={"user_property": ("a", "b" * 200)})
    with survives(broker):
        drips = {n: broker.wire(V5) for n in range(3)}
        start, done = time.monotonic(), threading.Event()

        def drip():
            for at in range(len(dripped)):
                for w in drips.values():
                    try:
                        w.socket.send(dripped[at : at + 1])
                    except OSError:
                        pass
                if done.wait(0.9):  # the attacker's own pace
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        times = closed_after(drips, start, 9)
        done.set()
        thread.join()
        for w in drips.values():
            w.close()
        assert len(times) == 3 and all(4 < t < 7 for t in times.values()), times


@pytest.mark.sol
def test_a_keep_alive_of_a_day_is_cut_down(start_broker):
    """max_keepalive 1: clients that ask for 65,535 seconds or for no limit are judged by it, in every version."""
    b = start_broker("max_keepalive 1")
    with survives(b):
        start, clients = time.monotonic(), {}
        for version in (V31, V311, V5):
            for asked in (0, 65_535):
                w = clients[version, asked] = b.client(f"c{version}-{asked}", version, keep_alive=asked)
                granted = w.connack.properties.get("server_keep_alive")
                assert granted == (1 if version == V5 else None)
        times = closed_after(clients, start, 9)
        for w in clients.values():
            w.close()
        assert len(times) == 6 and all(1.3 < t < 3.6 for t in times.values()), times


def test_silent_sockets_keep_nobody_out(broker):
    """With 150 sockets that say nothing and 150 in the middle of CONNECT a client still has its CONNACK in a second."""
    with survives(broker):
        crowd = [broker.wire() for _ in range(300)]
        for w in crowd[::2]:
            w.send(wire.connect("never")[:7])
        start = time.monotonic()
        with broker.client("honest", V5) as w:
            assert time.monotonic() - start < 1
            w.disconnect()
        for w in crowd:
            w.close()


# --- Peers that do not read -------------------------------------------------------------------------------------------


@pytest.mark.sol
@pytest.mark.parametrize("what", ["pubacks", "pingresps", "subacks"])
def test_answers_that_nobody_reads_are_bounded(start_broker, what):
    """A client that asks and never reads the answers is read no more or cut, and costs a bounded amount of memory."""
    b = start_broker()
    batch = {
        "pubacks": b"".join(wire.publish("t", b"x", 1, n, version=V5) for n in range(1, 2_000)),
        "pingresps": wire.packet(0xC0) * 20_000,
        "subacks": wire.subscribe([(f"f/{n}", 1) for n in range(500)], 1, V5),
    }[what]
    with survives(b, grows_mb=16):
        w = narrow(b)
        w.connect("deaf")
        with b.client("other", V5) as other:
            sent = pour(w, batch, 2, 64 << 20)
            assert sent > 100_000
            start = time.monotonic()
            other.ping()
            assert time.monotonic() - start < 1
            assert peak_kb(b.pid) < 64 * 1024
            other.disconnect()
        w.close()


@pytest.mark.sol
def test_a_replay_that_nobody_reads_is_paged(start_broker):
    """20,000 retained messages towards a subscriber that does not read cost no copy of them; when it reads, it gets all."""
    b = start_broker()
    with b.client("p") as pub:
        pub.send(*(wire.publish(f"r/{n}", b"x" * 100, retain=True) for n in range(20_000)))
        pub.ping()
        with survives(b, grows_mb=6):
            w = narrow(b)
            w.connect("slow")
            w.send(wire.subscribe([("r/#", 0)], 1, V5))
            for _ in range(20):
                pub.ping()
            assert resident_kb(b.pid)
            assert w.expect(wire.SUBACK).reasons == [0]
            topics = {w.expect(wire.PUBLISH).topic for _ in range(20_000)}
            assert len(topics) == 20_000
            w.close()
        pub.disconnect()


# --- Volume -----------------------------------------------------------------------------------------------------------


@pytest.mark.sol
def test_a_large_packet_in_pieces_delays_nobody(start_broker):
    """4 MiB in pieces: a ping of somebody else takes less than a second meanwhile, and the message arrives whole."""
    b = start_broker("max_request_size 8MB\nlog_level ERROR")
    payload = bytes(range(256)) * (16 << 10)
    with survives(b, grows_mb=24):
        with b.client("s", V5) as sub, b.client("p", V5) as pub, b.client("o", V5) as other:
            sub.subscribe(("large", 1))
            data = wire.publish("large", payload, 1, 1, version=V5)
            for at in range(0, len(data), 65_483):
                pub.send(data[at : at + 65_483])
                start = time.monotonic()
                other.ping()
                assert time.monotonic() - start < 1
            assert pub.expect(wire.PUBACK).reason == 0
            assert sub.take().payload == payload
            for w in (sub, pub, other):
                w.disconnect()


def test_subscriptions_that_come_and_go_leave_nothing(broker, name):
    """3,000 pairs of SUBSCRIBE and UNSUBSCRIBE, with filters that are never the same, leave no memory behind."""
    with survives(broker):
        with broker.client(name, V5) as w:
            for n in range(0, 3_000, 100):
                for k in range(n, n + 100):
                    w.send(
                        wire.subscribe([(f"{name}/{k}/+/#", 1)], 1, V5),
                        wire.unsubscribe([f"{name}/{k}/+/#"], 2, V5),
                    )
                # A SUBACK waits for every shard to know of the Subscription, an UNSUBACK for nobody.
                kinds = [w.recv().kind for _ in range(200)]
                assert kinds.count(wire.SUBACK) == kinds.count(wire.UNSUBACK) == 100
            w.disconnect()


@pytest.mark.sol
def test_queues_of_the_absent_fill_the_memory_and_no_more(start_broker):
    """200 Sessions that are away, and messages for each until the limit: 5.0 publishers hear 0x97, resident memory stays
    within the limit and a tenth, who comes to read gets in, and then publishing works again."""
    b = start_broker("max_memory 48MB\nlog_level ERROR")
    sessions = [f"away{n}" for n in range(200)]
    for session in sessions:
        w = b.client(session, V5, clean=False, properties_={"session_expiry_interval": 600})
        w.subscribe((f"q/{session}", 1))
        w.disconnect()
    with b.client("p", V5) as pub:
        number, refused = 0, 0
        while not refused:
            assert number < 4_000, "more was taken than there is memory"
            refused += pub.publish(f"q/{sessions[number % 200]}", b"x" * 32_000, 1, 1).reason == 0x97
            number += 1
        assert number > 500
        assert peak_kb(b.pid) < 48 * 1024 * 1.1 + 16 * 1024, peak_kb(b.pid)
        with b.wire(V5) as w:
            w.connect("one-more", clean=False, properties_={"session_expiry_interval": 600}, expect=0x97)
        for session in sessions[:40]:
            with b.client(session, V5, clean=False) as w:
                assert w.connack.session_present
                for _ in range((number - 1) // 200):
                    assert len(w.take().payload) == 32_000
                w.disconnect()
        assert pub.publish(f"q/{sessions[0]}", b"again", 1, 1).reason in (0x00, 0x10)
        pub.disconnect()
    assert b.alive()


@pytest.mark.sol
def test_idle_connections_cost_nothing_while_idle(start_broker):
    """1,000 idle connections: less than 4 KiB each, and no work for the processor."""
    b = start_broker("stats_publish_interval 0")
    check_healthy(b)
    before = resident_kb(b.pid)
    clients = [b.client(f"idle{n}", V5, keep_alive=600) for n in range(1_000)]
    assert resident_kb(b.pid) - before < 4_000
    busy = cpu_seconds(b.pid)
    select.select([], [], [], 2)  # two seconds in which nothing is to happen
    assert cpu_seconds(b.pid) - busy < 0.1
    for w in clients:
        w.close()
    check_healthy(b)


# --- Connections ------------------------------------------------------------------------------------------------------


def flows(name: str) -> list[list[bytes]]:
    """The packets of each flow, one after the other."""
    session = {"session_expiry_interval": 0}
    hello = wire.connect(name, V5, properties_=session, will=wire.Will(f"{name}/w", b"w"))
    return [
        [hello],
        [hello, wire.subscribe([(f"{name}/#", 2)], 1, V5), wire.publish(f"{name}/a", b"x", 2, 1, version=V5), wire.ack(wire.PUBREL, 1)],
        [hello, wire.subscribe([(f"{name}/#", 1)], 1, V5), wire.publish(f"{name}/a", b"x", 1, 1, version=V5), wire.ack(wire.PUBACK, 1)],
        [hello, wire.subscribe([(f"$share/g/{name}/#", 2)], 1, V5), wire.publish(f"{name}/a", b"x", 2, 1, version=V5), wire.ack(wire.PUBREC, 1)],
        [hello, wire.publish(f"{name}/r", b"x" * 5_000, 1, 1, True, version=V5), wire.publish(f"{name}/r", b"", retain=True, version=V5)],
        [hello, wire.unsubscribe([f"{name}/#"], 1, V5), wire.packet(0xC0), wire.disconnect(V5, 4)],
    ]


@pytest.mark.sol
def test_a_reset_in_every_state_leaks_nothing(start_broker):
    """RST after each packet, and in the middle of each packet, of every flow: descriptors, Sessions, Subscriptions and
    stored messages return to the start."""
    b = start_broker("stats_publish_interval 1s")
    watched = ("clients/total", "connections/socket/count", "subscriptions/count")

    def settled() -> bool:
        """A publication of the statistics, not a retained one, that counts the client who looks and nobody else."""
        with b.client("look", V5) as w:
            w.subscribe(*((f"$SYS/broker/{gauge}", 0) for gauge in watched))
            fresh: dict = {}
            while len(fresh) < len(watched):
                p = w.take()
                if not p.retain:
                    fresh[p.topic.removeprefix("$SYS/broker/")] = int(p.payload)
            w.disconnect()
        return fresh == {"clients/total": 1, "connections/socket/count": 1, "subscriptions/count": 3}

    wait_until(settled, "a publication that counts the one that looks")
    with survives(b):
        for n, flow in enumerate(flows("r") * 4):
            for cut in range(1, 2 * len(flow) + 1):
                whole, half = divmod(cut, 2)
                w = b.wire(V5)
                w.send(*flow[:whole])
                if half and whole < len(flow):
                    w.send(flow[whole][: len(flow[whole]) // 2])
                if n % 2 and whole:
                    w.expect(wire.CONNACK)
                reset(w)
    wait_until(settled, "return to no clients, connections and Subscriptions but the one that looks")


def test_a_fin_without_reading_is_a_close(broker, name):
    """A client that shuts down its sending side is gone: what it sent is handled, and its Will is published."""
    with survives(broker):
        with broker.client(name, V5) as sub:
            sub.subscribe((f"{name}/#", 1))
            w = broker.client(f"{name}w", V5, will=wire.Will(f"{name}/will", b"gone"))
            w.send(wire.publish(f"{name}/last", b"x", version=V5))
            w.socket.shutdown(socket.SHUT_WR)
            assert [sub.take().topic, sub.take().topic] == [f"{name}/last", f"{name}/will"]
            w.expect_closed()
            w.close()
            sub.disconnect()


@pytest.mark.sol
def test_everybody_comes_back_after_a_restart(start_broker):
    """1,000 clients that connect at once, four threads of them, are all in within seconds, and a client that was there
    keeps its Keep Alive of a second."""
    b = start_broker()
    with survives(b):
        with b.client("steady", V311, keep_alive=1) as steady:
            stop = threading.Event()

            def storm(part: int):
                crowd = [b.wire(V5) for _ in range(250)]
                for n, w in enumerate(crowd):
                    w.send(wire.connect(f"storm{part}-{n}", V5))
                for w in crowd:
                    assert w.expect(wire.CONNACK).reason == 0
                storms.append(crowd)

            storms: list = []
            start = time.monotonic()
            threads = [threading.Thread(target=storm, args=(n,)) for n in range(4)]
            for t in threads:
                t.start()
            while any(t.is_alive() for t in threads):
                steady.ping()
                stop.wait(0.2)  # the client's own pace
            assert len(storms) == 4 and time.monotonic() - start < 30
            steady.ping()
            steady.disconnect()
            for crowd in storms:
                for w in crowd:
                    w.close()


@pytest.mark.sol
def test_out_of_descriptors_the_broker_rests_and_reloads_closed(start_broker, tmp_path):
    """With no descriptor left: the listener rests instead of spinning, and SIGHUP that cannot read the file keeps the
    rules in force, never the open ones."""
    (tmp_path / "passwords").write_text(f"alice:{GOOD_HASH}\n")
    login = {"username": "alice", "password": "goodpw"}
    b = start_broker(
        f"allow_anonymous false\npassword_file {tmp_path}/passwords\nlog_level INFO",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    with b.client("first", V5, **login) as first:
        crowd = [b.wire(V5) for _ in range(200)]
        for n, w in enumerate(crowd):
            w.send(wire.connect(f"c{n}", V5, **login))
        limit = wait_until(lambda: (n := descriptors(b.pid)) >= 56 and n, "crowd inside")
        assert limit <= 64
        busy = cpu_seconds(b.pid)
        select.select([], [], [], 1)  # a second in which the listener is to rest
        assert cpu_seconds(b.pid) - busy < 0.3
        first.ping()
        count = b.log().count("INFO reloaded")
        b.process.send_signal(signal.SIGHUP)
        wait_until(lambda: b.log().count("INFO reloaded") > count, "reload")
        first.ping()
        for w in crowd:
            reset(w)
        wait_until(lambda: descriptors(b.pid) < 30, "room")
        with b.wire(V5) as w:
            w.connect("anonymous", expect=0x87)
        check_healthy(b, **login)
        first.disconnect()


@pytest.mark.sol
def test_a_suspended_broker_cuts_nobody_who_spoke(start_broker):
    """SIGSTOP for longer than everybody's Keep Alive: whoever sent PINGREQ meanwhile is still there after SIGCONT, though
    there are more of them than one turn reads; who was silent goes."""
    b = start_broker()
    with survives(b):
        crowd = [b.client(f"c{n}", V311, keep_alive=2) for n in range(1_300)]
        silent = [b.client(f"s{n}", V311, keep_alive=2) for n in range(20)]
        for w in crowd:
            w.ping()
        b.process.send_signal(signal.SIGSTOP)
        try:
            for w in crowd:
                w.send(wire.packet(0xC0))
            select.select([], [], [], 4)  # longer than one and a half Keep Alives
        finally:
            b.process.send_signal(signal.SIGCONT)
        for w in crowd:
            w.expect(wire.PINGRESP)
        for w in silent:
            assert w.expect_closed(5) == []
            w.close()
        for w in crowd:
            w.close()


@pytest.mark.sol
def test_peers_that_vanish_are_probed(start_broker):
    """An accepted connection without Keep Alive has the kernel's own probes: a peer that is gone without a word is found."""
    b = start_broker()
    with b.client("x", V5, keep_alive=0):
        rows = [row.split() for row in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        accepted = [row for row in rows if row[1].endswith(f":{b.port:04X}") and row[3] == "01"]
        # The timer's column: 02 is a probe that is due some time.
        assert accepted and all(row[5].startswith("02:") for row in accepted), accepted


def test_resident_memory_is_flat_under_mixed_load(broker, name):
    """A short soak: rounds of connections, Subscriptions, messages of every QoS, retained ones, Wills and resets. After
    the first rounds resident memory stays where it is."""
    sizes = []
    # Each shard gets more than the buffers hold that its connections share on io_uring: they are resident once used.
    first_rounds = wire.publish(f"{name}/nobody", b"x" * 2_000, version=V5) * 200
    with survives(broker, grows_mb=12):
        for round_ in range(12):
            clients = [broker.client(f"{name}{n}", V5, will=wire.Will(f"{name}/w", b"w" * 500)) for n in range(30)]
            for n, w in enumerate(clients):
                w.subscribe((f"{name}/{n}/#", 1), (f"{name}/all", 0))
            for n, w in enumerate(clients):
                for k, q in enumerate((0, 1, 2)):
                    w.send(wire.publish(f"{name}/{n}/{round_}", b"x" * 2_000, q, k + 1, retain=q == 1, version=V5))
                if round_ < 4:
                    w.send(first_rounds)
                w.send(wire.ack(wire.PUBREL, 3), wire.publish(f"{name}/{n}/{round_}", b"", retain=True, version=V5))
                w.send(wire.packet(0xC0))
            for n, w in enumerate(clients):
                while w.recv().kind != wire.PINGRESP:
                    pass
                if n % 3:
                    reset(w)
                else:
                    w.disconnect()
            sizes.append(resident_kb(broker.pid))
    assert sizes[-1] - sizes[4] < 2_048, sizes
