"""Mosquitto's directives by what a client can see of them, with Mosquitto's own clients where one can show it."""

import os
import stat

import pytest

from broker import Broker, free_port, wait_until
from clients import MosquittoSub, mosquitto_pub
from test_server import start_broker_with
from wire import CONNACK, PUBLISH, V5, V31, V311, Will, Wire, connect

pytestmark = pytest.mark.sol


class At:
    """Where a real client connects to: another listener of a running broker."""

    def __init__(self, port: int):
        self.host, self.port, self.address = "127.0.0.1", port, ("127.0.0.1", port)

    def client(self, client_id: str = "", version: int = V5, **options) -> Wire:
        w = Wire(self.address, version)
        w.connect(client_id, **options)
        return w


def start(start_broker, *listeners: str, more: str = "") -> tuple[Broker, list[At]]:
    """A broker with a listener for each text, which follows its `listener` line, and what is said of all in `more`."""
    ports = [free_port() for _ in listeners]
    blocks = [f"listener {port} 127.0.0.1\n{text}\n" for port, text in zip(ports, listeners)]
    text = f"{more}\n{''.join(blocks)}metrics off\n"
    return start_broker_with(start_broker, ports[0], text), [At(port) for port in ports]


OPEN = "allow_anonymous true"


def test_each_listener_has_its_own_terms(start_broker):
    """max_qos, max_topic_alias, accept_protocol_versions and listener_allow_anonymous hold where they stand."""
    _, (first, second, third) = start(
        start_broker,
        "max_qos 1\nmax_topic_alias 3\nmax_topic_alias_broker 1",
        "accept_protocol_versions 4",
        "listener_allow_anonymous false",
        more=OPEN,
    )
    with Wire(first.address, V5) as w:
        connack = w.connect("a")
        assert (connack.properties["maximum_qos"], connack.properties["topic_alias_maximum"]) == (1, 3)
    with Wire(second.address, V311) as w:
        w.connect("b")
    with Wire(second.address, V5) as w:
        w.connect("b", expect=0x84)
    with Wire(second.address, V31) as w:
        w.connect("b", expect=1)
    with Wire(third.address, V5) as w:
        w.connect("c", expect=0x87)


def test_security_of_each_listener_alone(start_broker):
    """per_listener_settings: what stands below one listener does not hold at the other."""
    _, (first, second) = start(
        start_broker,
        "allow_anonymous true\nallow_zero_length_clientid false\nauto_id_prefix one-",
        "allow_anonymous true\nauto_id_prefix two-",
        more="per_listener_settings true",
    )
    with Wire(first.address, V5) as w:
        w.connect("", expect=0x85)
    with Wire(second.address, V5) as w:
        assert w.connect("").properties["assigned_client_identifier"].startswith("two-")


def test_mount_point_with_real_clients(start_broker):
    """Clients of the mounted listener see their topics without what stands before them, and nobody else's."""
    _, (outside, inside) = start(start_broker, "", "mount_point house/one/", more=OPEN)
    with MosquittoSub(inside, "-t", "#", "-q", "1") as within, MosquittoSub(outside, "-t", "#", "-q", "1") as all_:
        mosquitto_pub(inside, "-t", "lamp", "-m", "on", "-q", "1")
        got = all_.take()
        assert (got.topic, got.payload) == ("house/one/lamp", b"on")
        got = within.take()
        assert (got.topic, got.payload) == ("lamp", b"on")
        mosquitto_pub(outside, "-t", "house/two/lamp", "-m", "no", "-q", "1")
        mosquitto_pub(outside, "-t", "house/one/door", "-m", "shut", "-q", "1")
        got = within.take()
        assert (got.topic, got.payload) == ("door", b"shut")
    mosquitto_pub(inside, "-t", "kept", "-m", "r", "-q", "1", "-r")
    with MosquittoSub(inside, "-t", "kept") as again:
        got = again.take()
        assert (got.topic, got.payload, got.retain) == ("kept", b"r", True)


def test_client_identifiers_from_users_and_with_a_beginning(start_broker):
    """use_username_as_clientid takes the user's Session whatever the client calls itself; clientid_prefixes keeps others out."""
    _, (named, plain) = start(
        start_broker, "use_username_as_clientid true", "", more=f"{OPEN}\nclientid_prefixes ann"
    )
    with Wire(named.address, V5) as one, Wire(named.address, V5) as two:
        one.connect("x", username="ann")
        two.connect("y", username="ann")
        one.expect_disconnect(0x8E)
    with Wire(named.address, V5) as w:
        w.connect("x", expect=0x87)
    with Wire(plain.address, V5) as w:
        w.connect("bob", expect=0x87)
    with plain.client("anna") as w:
        w.ping()


def test_connections_of_a_listener_and_of_all(start_broker):
    """max_connections is its listener's, global_max_connections everybody's."""
    _, (first, second) = start(start_broker, "max_connections 1", "", more=f"{OPEN}\nglobal_max_connections 2")
    with first.client("a"):
        with Wire(first.address, V5) as w:
            w.connect("b", expect=0x97)
        with second.client("c"):
            with Wire(second.address, V5) as w:
                w.connect("d", expect=0x97)
        wait_until(lambda: refused(second) == 0, "place for another")


def test_connections_of_every_address_of_a_listener(start_broker):
    """A listener on every interface has one max_connections: who comes over IPv4 takes a place from who comes over IPv6."""
    port = free_port()
    text = f"listener {port}\nmax_connections 4\n{OPEN}\nmetrics off\n"
    start_broker_with(start_broker, port, text)
    addresses = [("127.0.0.1", port), ("::1", port)]
    clients = [Wire(addresses[n % 2], V5) for n in range(4)]
    for n, w in enumerate(clients):
        w.connect(f"c{n}")
    for n, address in enumerate(addresses):
        with Wire(address, V5) as w:
            w.connect(f"over{n}", expect=0x97)
    clients[0].close()

    def comes_in() -> bool:
        with Wire(addresses[1], V5) as w:
            w.send(connect("later", V5))
            return w.expect(CONNACK).reason == 0

    wait_until(comes_in, "place for another")
    for w in clients:
        w.close()


def test_a_listener_that_is_gone_lets_nobody_in(start_broker):
    """A listener that is taken out of the file is closed to everybody from SIGHUP on, and the log says what is left to do;
    who is there stays. Put back, it is open again."""
    b, (first, second) = start(start_broker, "", "max_qos 1", more=OPEN)
    whole = b.config_file.read_text()
    block = f"listener {second.port} 127.0.0.1\nmax_qos 1\n"
    assert block in whole
    with second.client("there") as there:
        b.config_file.write_text(whole.replace(block, ""))
        b.reload()
        b.says(f"needs a restart: 127.0.0.1:{second.port} is not in the file any more")
        with Wire(second.address, V5) as w:
            w.connect("new", expect=0x87)
        first.client("new").close()
        there.ping()
    b.config_file.write_text(whole)
    b.reload()
    second.client("back").close()


def refused(at: At) -> int:
    with Wire(at.address, V5) as w:
        w.send(connect("e", V5))
        return w.expect(CONNACK).reason


def test_limits_of_messages(start_broker):
    """message_size_limit drops and tells, upgrade_outgoing_qos raises, max_inflight_messages and max_inflight_bytes wait,
    retain_expiry_interval ends what is retained."""
    _, (at,) = start(
        start_broker,
        "",
        more=f"{OPEN}\nmessage_size_limit 4\nupgrade_outgoing_qos true\nmax_inflight_messages 2\nretain_expiry_interval 1",
    )
    with at.client("from") as source, at.client("to") as to:
        to.subscribe(("t", 1))
        assert source.publish("t", b"12345", qos=1).reason == 0x97
        for n in range(3):
            source.publish("t", b"%d" % n)
        got = [to.recv(), to.recv()]
        assert [p.kind for p in got] == [PUBLISH, PUBLISH] and [p.qos for p in got] == [1, 1]
        to.ping()
    with at.client("from") as source, at.client("late") as late:
        source.publish("kept", b"x", qos=1, retain=True)
        late.subscribe(("kept", 0))
        assert 0 < late.take().properties["message_expiry_interval"] <= 60


def test_a_will_below_a_mount_point(start_broker):
    """A client that vanishes leaves its Will below its listener's mount point."""
    _, (outside, inside) = start(start_broker, "", "mount_point in/", more=OPEN)
    with outside.client("watcher") as watcher:
        watcher.subscribe(("in/gone", 0))
        w = inside.client("mortal", will=Will("gone", b"x"))
        w.close()
        assert watcher.take().payload == b"x"


def test_included_files_and_connection_messages(start_broker, tmp_path):
    """include_dir reads what ends in .conf; connection_messages false keeps clients out of the log."""
    included = tmp_path / "conf.d"
    included.mkdir()
    second = free_port()
    (included / "b.conf").write_text(f"listener {second} 127.0.0.1\n")
    (included / "a.conf").write_text("connection_messages false\nlog_type all\n")
    (included / "not.txt").write_text("frobnicate\n")
    b, (first,) = start(start_broker, "", more=f"{OPEN}\ninclude_dir {included}")
    for at in (first, At(second)):
        with at.client("somebody") as w:
            w.ping()
            w.disconnect()
    assert b.terminate() == 0
    assert "somebody" not in b.log()


def test_the_log_as_messages(start_broker):
    """log_dest topic publishes each line under its level's letter; none is retained."""
    b, (at,) = start(start_broker, "", more=f"{OPEN}\nlog_dest topic\nlog_dest stderr\nlog_timestamp false")
    for _ in range(2):
        with at.client("watcher") as watcher:
            watcher.subscribe("$SYS/broker/log/#")
            b.reload()
            line = watcher.take()
            while not line.payload.startswith(b"INFO reloaded"):
                assert not line.retain, line
                line = watcher.take()
            assert (line.topic, line.retain) == ("$SYS/broker/log/I", False)


def test_a_unix_socket_has_its_mode(start_broker, tmp_path):
    """unix_socket_mode is the mode of the socket's file."""
    path = tmp_path / "s.sock"
    _, (first,) = start(start_broker, "", more=f"{OPEN}\nlistener 0 {path}\nunix_socket_mode 0620")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o620
    with first.client("a") as w:
        w.ping()


def test_socket_domain_and_interface(start_broker):
    """A name with addresses of both families is bound at one of them alone; an interface is bound where Linux lets us."""
    port = free_port()
    text = f"listener {port} localhost\nsocket_domain ipv4\nbind_interface lo\n{OPEN}\nmetrics off\n"
    b = start_broker_with(start_broker, port, text)
    with b.client("a", V5) as w:
        w.ping()
    with pytest.raises(OSError):
        Wire(("::1", port)).close()
