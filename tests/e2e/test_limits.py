"""Every limit: what it does to a client of 5.0 and of 3.1.1, and the counter in which an operator sees that it was met."""

import time

import pytest

from broker import wait_until
from clients import MosquittoSub, mosquitto_pub
from sharded import Sharded
from wire import CONNACK, DISCONNECT, V5, V311, Closed, Will, Wire, connect, publish

pytestmark = pytest.mark.sol

TOLD = {"cls": Sharded, "shards": 2}


# --- What each limit says, and where it is counted --------------------------------------------------------------------


def connack(w: Wire, client_id: str = "one too many", **options):
    """The Reason Code of the CONNACK, or None where there is none but a close."""
    try:
        w.send(connect(client_id, w.version, **options))
        return w.expect(CONNACK).reason
    except (Closed, ConnectionError):
        return None


def answer(w: Wire):
    """What a connection ends with: the Reason Code of the last packet, or None."""
    seen = w.expect_closed()
    return seen[-1].reason if seen and seen[-1].kind in (CONNACK, DISCONNECT) else None


def second_client(b, w: Wire):
    with b.client("inside", V5, username="ann"):
        return connack(w, username="ann")


def session_of_an_absent(b, w: Wire):
    b.client("absent", V5, clean=False, properties_={"session_expiry_interval": 600}).close()
    wait_until(lambda: b.total("sol_clients_disconnected") == 1, "absent client")
    return connack(w)


def closed_at_once(b, w: Wire):
    """`w` has the one connection that its address may have. One that is silent is not accepted for a while."""
    w.connect("first")
    with b.wire(w.version) as other:
        return connack(other)


def large_wills(b, w: Wire):
    inside = []
    for n in range(60):
        inside.append(b.wire(w.version))
        reason = connack(inside[-1], f"will {n}", will=Will("t", b"x" * 60_000))
        if reason != 0:
            return reason
    raise AssertionError("sixty large Wills in one megabyte")


def large_packet(b, w: Wire):
    w.connect("large")
    w.send(publish("t", b"x" * 2_000, version=w.version))
    return answer(w)


def large_connect(b, w: Wire):
    """Its version is not known yet, nor how to say no in it."""
    return connack(w, "x" * 2_000)


def silence_before_connect(b, w: Wire):
    return answer(w)


def silence_after_connect(b, w: Wire):
    w.connect("silent", keep_alive=600)
    return answer(w)


def full_queue(b, w: Wire):
    """Two messages for an absent client whose queue takes one."""
    absent = b.client("absent", V311, clean=False)
    absent.subscribe(("t", 1))
    absent.disconnect()
    w.connect("publisher")
    w.publish("t", b"1", qos=1)
    return w.publish("t", b"2", qos=1, packet_id=2).reason


def full_window(b, w: Wire):
    """More exchanges of QoS 2 begun than the broker's Receive Maximum."""
    w.connect("hasty")
    for n in range(1, 258):
        w.send(publish("t", b"", 2, n, version=w.version))
    return answer(w)


# Directives, what meets the limit, how 5.0 and 3.1.1 are told (None: by the close alone), and the counter.
LIMITS = {
    "connections": ("global_max_connections 1", second_client, 0x97, 3, 'sol_connections_refused_total{limit="connections"}'),
    "connections of a listener": ("max_connections 1", second_client, 0x97, 3, 'sol_connections_refused_total{limit="connections"}'),
    "connections of a user": ("max_connections_per_user 1", second_client, 0x97, 3, 'sol_connections_refused_total{limit="user"}'),
    "… of a user at a listener": ("listener_max_connections_per_user 1", second_client, 0x97, 3, 'sol_connections_refused_total{limit="user"}'),
    "connections of an address": ("max_connections_per_address 1", closed_at_once, None, None, 'sol_connections_refused_total{limit="address"}'),
    "… of an address at a listener": ("listener_max_connections_per_address 1", closed_at_once, None, None, 'sol_connections_refused_total{limit="address"}'),
    "Sessions": ("global_max_clients 1", session_of_an_absent, 0x97, 3, 'sol_connections_refused_total{limit="clients"}'),
    "memory": ("max_memory 1MB\nmax_connect_size 100KB", large_wills, 0x97, 3, 'sol_connections_refused_total{limit="memory"}'),
    "Maximum Packet Size": ("max_packet_size 1000", large_packet, 0x95, None, "sol_packets_too_large_total"),
    "CONNECT": ("max_connect_size 1KB", large_connect, None, None, "sol_packets_too_large_total"),
    "time for CONNECT": ("connect_timeout 1", silence_before_connect, None, None, "sol_connect_timeouts_total"),
    "Keep Alive": ("max_keepalive 1", silence_after_connect, 0x8D, None, "sol_keep_alive_closed_total"),
    "queued messages": ("max_queued_messages 1", full_queue, 0x97, 0, "sol_publish_dropped_total"),
    "queued bytes": ("max_queued_bytes 1", full_queue, 0x97, 0, "sol_publish_dropped_total"),
    "Receive Maximum": ("", full_window, 0x93, None, "sol_protocol_errors_total"),
}
VERSIONS = {"5.0": V5, "3.1.1": V311}
# A 3.1.1 client has no Receive Maximum.
CASES = [(limit, v) for limit in LIMITS for v in VERSIONS if (limit, v) != ("Receive Maximum", "3.1.1")]


@pytest.mark.parametrize("limit, version", CASES)
def test_a_limit_that_is_met_is_told_and_counted(start_broker, limit, version):
    """A client that meets a limit is told why in the words of its version, and its counter grows."""
    directives, meet, told_5, told_3, counter = LIMITS[limit]
    version = VERSIONS[version]
    if meet is full_queue and version == V5:
        counter = "sol_publish_refused_total"
    b = start_broker(directives, **TOLD)
    if meet is closed_at_once:
        # The wait for the broker has left its connection by now.
        wait_until(lambda: b.metrics()["sol_connections"] == 0, "free place")
    before = b.metrics()[counter]
    with b.wire(version) as w:
        assert meet(b, w) == (told_5 if version == V5 else told_3)
        assert b.metrics()[counter] > before


def test_a_full_journal_lets_in_no_new_session_that_lasts(start_broker, tmp_path):
    """What of a new client would be written is refused, whatever its version, and counted; a client that leaves nothing comes in."""
    data = tmp_path / "data"
    data.mkdir()
    b = start_broker(
        f"persistence os\npersistence_location {data}\npersistence_max_size 100MB\nmax_queued_messages 0", cls=Sharded, shards=2
    )
    absent = b.client("absent", V311, clean=False)
    absent.subscribe(("t", 1))
    absent.close()
    with b.client("publisher", V5) as w:
        reasons = (w.publish("t", b"x" * 500_000, qos=1).reason for _ in range(400))
        assert 0x97 in reasons
    for n, (version, told, options) in enumerate([
        (V5, 0x97, {"properties_": {"session_expiry_interval": 600}}),
        (V311, 3, {"clean": False}),
        (V5, 0x97, {"will": Will("w", b"x")}),
    ]):
        # Each shard hears of it by itself.
        wait_until(lambda: refusal(b, f"new {n}", version, options) == told, "word of it on its shard")
    before = b.total('sol_connections_refused_total{limit="journal"}')
    assert before >= 3
    assert refusal(b, "new 0", V5, {"will": Will("w", b"x")}) == 0x97
    b.client("passing", V5).close()
    assert b.total('sol_connections_refused_total{limit="journal"}') == before + 1


def refusal(b, client_id: str, version: int, options: dict):
    with b.wire(version) as w:
        return connack(w, client_id, **options)


# --- Rates ------------------------------------------------------------------------------------------------------------


def test_a_flood_is_slowed_to_max_messages_rate(start_broker):
    """mosquitto_pub sends a file's lines at once: all arrive, in order, no faster than the rate; others are not slowed."""
    rate, count = 50, 120
    b = start_broker(f"max_messages_rate {rate}\nlistener_max_messages_rate {rate}", **TOLD)
    lines = b.directory / "lines"
    lines.write_text("".join(f"{n}\n" for n in range(count)))
    with MosquittoSub(b, "-t", "flood", "-q", "1") as sub:
        begin = time.monotonic()
        with open(lines) as stdin:
            mosquitto_pub(b, "-t", "flood", "-q", "1", "-l", stdin=stdin)
        got = [sub.take().payload for _ in range(count)]
        took = time.monotonic() - begin
    assert got == [str(n).encode() for n in range(count)]
    # A tenth of a second's worth at once, and CONNECT's DISCONNECT is a packet too.
    assert took >= (count - rate / 10 - 2) / rate, took
    metrics = b.metrics()
    assert metrics["sol_rate_pauses_total"] > 0
    assert metrics["sol_publish_received_total"] == count
    assert metrics["sol_publish_dropped_total"] == 0


def test_a_large_message_is_slowed_to_max_bytes_rate(start_broker):
    """A client that sends more bytes than it may waits, though its Keep Alive is shorter than that, and is answered then."""
    b = start_broker("max_bytes_rate 8KB\nmax_keepalive 1", **TOLD)
    with b.client("slow", V5) as w, b.client("other", V5) as other:
        begin = time.monotonic()
        w.send(publish("t", b"x" * 30_000, version=V5))
        other.ping()
        assert time.monotonic() - begin < 1, "nobody else waits"
        w.ping()
        assert time.monotonic() - begin > 1.5
        assert b.total("sol_rate_pauses_total") > 0


def test_rates_of_one_listener_and_after_a_reload(start_broker):
    """What a listener says wins over what is said of all, 0 included, and SIGHUP changes it for who is there."""
    b = start_broker("max_messages_rate 1\nlistener_max_messages_rate 0", **TOLD)
    with b.client("free", V5) as w:
        for _ in range(60):
            w.ping()
        assert b.total("sol_rate_pauses_total") == 0
        b.config_file.write_text(b.config_file.read_text().replace("listener_max_messages_rate 0", ""))
        b.reload()
        w.ping()
        w.ping()
        assert b.total("sol_rate_pauses_total") > 0


def test_connections_above_max_connect_rate_wait(start_broker):
    """Sixty clients at once with twenty a second: nobody is refused, and it takes as long as it must."""
    b = start_broker("max_connect_rate 20", **TOLD)
    begin = time.monotonic()
    wires = [b.wire(V5) for _ in range(60)]
    for n, w in enumerate(wires):
        w.send(connect(f"c{n}", V5))
    assert all(w.expect(CONNACK, 30).reason == 0 for w in wires)
    assert time.monotonic() - begin >= (60 - 4 - 3) / 20
    assert b.total("sol_accept_waits_total") > 0
    for w in wires:
        w.close()


# --- Addresses and users ----------------------------------------------------------------------------------------------


def test_a_thousand_connections_of_one_address(start_broker):
    """Ten of a thousand are served; the rest are closed unread, counted, and cost twenty lines of the log a second. Another
    address comes in meanwhile, and this one does when a place is free."""
    b = start_broker("max_connections_per_address 10", **TOLD)
    wait_until(lambda: b.metrics()["sol_connections"] == 0, "free place")
    inside = [b.client(f"c{n}", V5) for n in range(10)]
    for n in range(990):
        with b.wire(V5) as w:
            assert connack(w, f"late {n}") is None
    metrics = b.metrics()
    assert metrics['sol_connections_refused_total{limit="address"}'] == 990
    assert metrics["sol_clients_connected"] == 10
    assert b.log().count("closed: its address has as many connections as it may have") < 990
    with Wire(b.address, V5, source="127.0.0.2") as w:
        w.connect("elsewhere")
    for w in inside:
        w.ping()
    inside.pop().disconnect()

    def comes_in() -> bool:
        with b.wire(V5) as w:
            return connack(w, "next") == 0

    wait_until(comes_in, "place for another")
    for w in inside:
        w.close()


def test_a_user_has_a_number_of_connections(start_broker):
    """Thirty at once of one user, whatever their homes: as many as may be are in; one that leaves makes room."""
    b = start_broker("max_connections_per_user 3", **TOLD)
    wires = [b.wire(V5) for _ in range(30)]
    for n, w in enumerate(wires):
        w.send(connect(f"c{n}", V5, username="ann"))
    reasons = [w.expect(CONNACK).reason for w in wires]
    assert sorted(set(reasons)) == [0, 0x97] and reasons.count(0) == 3, reasons
    with b.client("bob", V5, username="bob"), b.client("nobody", V5):
        inside = reasons.index(0)
        # A takeover needs no place.
        again = b.client(f"c{inside}", V5, username="ann")
        again.disconnect()
        b.client("later", V5, username="ann").close()
    for w in wires:
        w.close()


# --- Memory -----------------------------------------------------------------------------------------------------------


def test_levels_of_memory(start_broker):
    """From four fifths of max_memory on nothing new that lasts is taken on, from nine tenths on nothing is queued that can be
    refused; each level has its line in the log, its number in $SYS and the metrics, and goes by itself."""
    b = start_broker("max_memory 8MB\nlog_type all\nsys_interval 1", **TOLD)

    def level() -> int:
        return b.total("sol_memory_level")

    absent = b.client("absent", V311, clean=False)
    absent.subscribe(("queue", 1))
    absent.disconnect()
    watcher = b.client("watcher", V5)
    watcher.subscribe(("$SYS/broker/memory/level", 0))
    lasting = {"clean": False, "properties_": {"session_expiry_interval": 600}}
    with b.client("publisher", V5) as w:
        kept = 0
        while w.publish(f"kept/{kept}", b"x" * 50_000, qos=1, retain=True).reason != 0x97:
            kept += 1
            assert kept < 200
        assert level() == 1
        with b.wire(V5) as late:
            assert connack(late, "late", **lasting) == 0x97
        assert w.publish("kept/0", b"y" * 50_000, qos=1, retain=True).reason in (0, 0x10)
        queued = 0
        while w.publish("queue", b"x" * 50_000, qos=1).reason != 0x97:
            queued += 1
            assert queued < 100
        assert queued > 0 and level() == 2
        while watcher.take().payload != b"2":
            pass
        # Whoever comes for what is his gets in, and makes room.
        with b.client("absent", V311, clean=False) as absent:
            for _ in range(queued):
                absent.take()
            absent.ping()
        for n in range(kept):
            w.publish(f"kept/{n}", b"", qos=1, retain=True)
        wait_until(lambda: level() == 0, "plenty of memory")
        with b.wire(V5) as late:
            assert connack(late, "late", **lasting) == 0
    log = b.log()
    for line in ("four fifths of max_memory", "nine tenths of max_memory", "memory is plenty again"):
        assert log.count(line) >= 1, log
