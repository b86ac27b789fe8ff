"""`sol store`: what looks at, copies, saves and fills the journal, with brokers on what it leaves behind."""

import base64
import json
import os
import pathlib
import shutil
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import wire
from broker import Broker, Listening, sol_bin, wait_until
from clients import MosquittoSub, mosquitto_pub
from wire import PUBCOMP, PUBLISH, PUBREC, PUBREL, TIMEOUT, V5, Will, ack

pytestmark = pytest.mark.sol

DURABLE = {"clean": False, "properties_": {"session_expiry_interval": 3600}}


def store(*args, check: int = 0) -> subprocess.CompletedProcess:
    command = [sol_bin(), "store", *map(str, args)]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    assert done.returncode == check, (command, done.returncode, done.stdout, done.stderr)
    return done


def sentence(*args, check: int) -> str:
    """What a tool says that fails: one line, and nothing of a stack."""
    (line,) = store(*args, check=check).stderr.decode().splitlines()
    return line.removeprefix("sol: error: ")


def durable(directory: pathlib.Path) -> str:
    directory.mkdir(mode=0o700, exist_ok=True)
    return f"persistence os\npersistence_location {directory}"


def records(file: pathlib.Path) -> list[dict]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0]["format"] == "sol-store" and lines[0]["version"] == 1
    return [line for line in lines[1:] if not is_own(line)]


def is_own(record: dict) -> bool:
    return record["record"] == "message" and record["topic"].startswith(("$SYS", "$SOL"))


def fill(broker: Broker) -> None:
    """A Session with queued messages, a Subscription, a Will and a half-finished QoS 2 exchange; a retained message."""
    with broker.client("sub", V5, **DURABLE, will=Will("gone", b"\xff\0", 1)) as sub:
        # Without a replay: one that is open when the copy is made begins anew.
        sub.subscribe(("q/#", 2 | 2 << 4), properties_={"subscription_identifier": 7})
        sub.disconnect()
    pub = broker.client("pub", V5, **DURABLE)
    pub.publish("q/retained", b"\x00\xfe", 1, 1, retain=True)
    for n in range(20):
        pub.publish("q/one", b"%d" % n, 1 + n % 2, 2 + n, properties_={"user_property": [("n", str(n))]})
    pub.send(wire.publish("q/held", b"held", 2, 99, version=V5))
    assert pub.expect(PUBREC).packet_id == 99
    pub.close()


def drained(broker: Broker) -> list[tuple]:
    """All that the Session gets, in the order of each QoS; and the half-finished exchange ends."""
    with broker.client("pub", V5, **DURABLE) as pub, broker.client("sub", V5, **DURABLE) as sub:
        assert pub.connack.session_present and sub.connack.session_present
        # An identifier that is still taken: the repeated PUBLISH brings nothing new.
        pub.send(wire.publish("q/held", b"held", 2, 99, dup=True, version=V5))
        assert pub.expect(PUBREC).reason == 0
        pub.send(ack(PUBREL, 99))
        assert pub.expect(PUBCOMP).reason == 0
        pub.publish("q/end", b"", 1, 100)
        pub.publish("q/end", b"", 2, 101)
        got = []
        while [p.topic for p in got].count("q/end") < 2:
            got.append(sub.take())
        told = [(p.topic, p.payload, p.qos, sorted(p.properties.items(), key=str)) for p in got if p.topic != "q/end"]
        return sorted(told, key=lambda message: message[2])


def queue() -> list[tuple]:
    found = [("q/retained", b"\x00\xfe", 1)] + [("q/one", b"%d" % n, 1 + n % 2) for n in range(20)]
    return sorted([*found, ("q/held", b"held", 2)], key=lambda message: message[2])


def test_a_journal_is_looked_at_and_copied_while_it_is_used_and_moved_as_lines(start_broker, tmp_path):
    """check, stats, export and backup work beside a running broker; a broker on the backup, and one on what was exported and
    imported, has the same Sessions, queues, exchanges and retained messages as the first."""
    first = start_broker(durable(tmp_path / "first"), cls=Listening)
    fill(first)
    journal = tmp_path / "first" / "sol-journal"
    for place in (tmp_path / "first", journal):
        said = store("check", place).stdout.decode()
        assert "holes       none" in said and "tail        none" in said
    said = store("stats", journal).stdout.decode()
    assert '"sub"' in said and "Sessions" in said
    store("backup", journal, tmp_path / "copy")
    store("export", tmp_path / "first", "--out", tmp_path / "lines")
    assert (tmp_path / "lines").stat().st_mode & 0o777 == 0o600
    assert store("export", tmp_path / "first").stdout.startswith(b'{"format":"sol-store","version":1,')
    by_kind = {}
    for record in records(tmp_path / "lines"):
        by_kind.setdefault(record["record"], []).append(record)
    assert {record["client_id"] for record in by_kind["session"]} == {"sub", "pub"}
    (subscription,) = by_kind["subscription"]
    assert (subscription["filter"], subscription["qos"], subscription["subscription_identifier"]) == ("q/#", 2, 7)
    assert len(by_kind["reference"]) == 22 and len(by_kind["inbound"]) == 1
    held = [record for record in by_kind["message"] if record["topic"] == "q/held"]
    assert [base64.b64decode(record["payload"]) for record in held] == [b"held"]
    # Nothing is written where a broker is at work.
    assert "it is in use by process" in sentence("import", tmp_path / "lines", tmp_path / "first", check=75)
    assert first.alive()
    expected = drained(first)
    assert [message[:3] for message in expected] == queue()
    first.terminate()

    store("import", tmp_path / "lines", tmp_path / "second")
    for directory in (tmp_path / "copy", tmp_path / "second"):
        store("check", directory)
        again = start_broker(durable(directory), cls=Listening)
        assert drained(again) == expected
        with MosquittoSub(again, "-t", "q/retained") as sub:
            got = sub.take()
            assert (got.payload, got.retain) == (b"\x00\xfe", True)
        again.terminate()


def test_a_journal_of_several_segments_is_looked_at_and_copied_while_it_is_written(start_broker, tmp_path):
    """check and backup beside a broker that goes on writing, segment after segment: nothing is called damaged, and a broker on the
    copy has all that was acknowledged before the copy was begun."""
    broker = start_broker(durable(tmp_path / "first"), cls=Listening)
    journal = tmp_path / "first" / "sol-journal"
    acknowledged = []
    stopped = threading.Event()

    def publish() -> None:
        with broker.client("pub", V5) as pub:
            while not stopped.is_set():
                n = len(acknowledged)
                assert pub.publish(f"s/{n % 600}", b"%d:" % n + b"x" * 60_000, 1, 1, retain=True).reason in (0, 0x10)
                acknowledged.append(n)

    def has_written(segments: int) -> bool:
        return sum(path.stat().st_size > 64 for path in journal.glob("*.seg")) >= segments or publisher.done()

    with ThreadPoolExecutor() as threads:
        publisher = threads.submit(publish)
        try:
            wait_until(lambda: has_written(3), "three segments", 60)
            for n in range(3):
                said = store("check", tmp_path / "first").stdout.decode()
                assert "holes       none" in said
                before = len(acknowledged)
                store("backup", journal, tmp_path / f"copy{n}")
        finally:
            stopped.set()
        publisher.result()
    assert len(acknowledged) > before
    store("check", tmp_path / "first")
    broker.terminate()
    assert "tail        none" in store("check", tmp_path / "copy2").stdout.decode()
    copied = start_broker(durable(tmp_path / "copy2"), cls=Listening)
    with copied.client("", V5) as w:
        w.subscribe(("s/#", 1))
        found = [w.take() for _ in range(min(before, 600))]
    newest = {p.topic: int(p.payload.split(b":")[0]) for p in found}
    assert len(newest) == len(found)
    for n in acknowledged[max(0, before - 600) : before]:
        assert newest[f"s/{n % 600}"] >= n


def test_a_damaged_journal_is_named_and_what_can_be_read_is_saved(start_broker, tmp_path):
    """check tells damage with file and offset and exit code 65; salvage saves the rest, says what is missing, and a broker
    starts on that."""
    one = start_broker(durable(tmp_path / "one"), cls=Listening)
    fill(one)
    one.terminate()
    (segment,) = (tmp_path / "one" / "sol-journal").glob("*.seg")
    data = bytearray(segment.read_bytes())
    at = data.index(b"q/one")
    data[at] ^= 1
    segment.write_bytes(data)
    told = store("check", tmp_path / "one", check=65)
    assert b"is missing" in told.stdout
    said = told.stderr.decode()
    assert f"{segment.name} is damaged at offset" in said and "sol store salvage" in said
    sentence("export", tmp_path / "one", "--out", tmp_path / "lines", check=65)
    assert not (tmp_path / "lines").exists()
    before = segment.read_bytes()
    told = store("salvage", tmp_path / "one", "--out", tmp_path / "lines")
    assert f"{segment.name} is damaged at offset" in told.stderr.decode()
    assert segment.read_bytes() == before
    store("import", tmp_path / "lines", tmp_path / "two")
    two = start_broker(durable(tmp_path / "two"), cls=Listening)
    with two.client("sub", V5, **DURABLE) as sub:
        assert sub.connack.session_present
        assert sub.take().topic == "q/retained"


def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(tmp_path):
    """Each mistake has its sentence and its exit code as sysexits.h has it: no journal 66, wrong data 65, a place that is taken
    73."""
    assert "there is no journal in" in sentence("check", tmp_path, check=66)
    assert "cannot read" in sentence("import", tmp_path / "none", tmp_path / "new", check=66)
    (tmp_path / "lines").write_text('{"format":"sol-store","version":1,"seeds":["1","2","3","4"],"listeners":[]}\n{}\n')
    said = sentence("import", tmp_path / "lines", tmp_path / "new", check=65)
    assert said == f"{tmp_path}/lines:2: `record` is missing; nothing was imported"
    assert not (tmp_path / "new").exists()
    (tmp_path / "lines").write_text((tmp_path / "lines").read_text().splitlines()[0])
    store("import", tmp_path / "lines", tmp_path / "new")
    assert "is not empty" in sentence("import", tmp_path / "lines", tmp_path / "new", check=73)
    assert "is there already" in sentence("export", tmp_path / "new", "--out", tmp_path / "lines", check=73)
    assert "no database of Mosquitto's" in sentence("import-mosquitto", tmp_path / "lines", tmp_path / "db", check=65)
    (tmp_path / "zeros").write_bytes(bytes(500))
    assert "nothing in it but zeros" in sentence("import-mosquitto", tmp_path / "zeros", tmp_path / "db", check=65)
    assert not (tmp_path / "db").exists()


class DebiansMosquitto(Broker):
    """The broker whose database is to be read, on a port of its own."""

    def _config_text(self, config: str) -> str:
        return f"listener {self.port} {self.host}\nallow_anonymous true\n{config}\n"

    def _command(self, args) -> list[str]:
        binary = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        assert binary, "mosquitto is missing (apt-get install mosquitto)"
        return [binary, "-c", str(self.config_file)]


@pytest.fixture
def database(start_broker, tmp_path) -> pathlib.Path:
    """What Debian's mosquitto writes as it ends: retained, durable Sessions with Subscriptions, queued messages, and one of
    QoS 2 that its publisher has not released."""
    directory = tmp_path / "mosquitto"
    directory.mkdir(mode=0o700)
    config = f"persistence true\npersistence_location {directory}/\nuser {'root' if os.geteuid() == 0 else 'mosquitto'}"
    mosquitto = start_broker(config, cls=DebiansMosquitto)
    with mosquitto.client("five", V5, **DURABLE, username="ann") as five:
        five.subscribe(("q/#", 2), ("/slash/+", 1), properties_={"subscription_identifier": 7})
        five.disconnect()
    with mosquitto.client("three", clean=False) as three:
        three.subscribe(("#", 1))
        three.disconnect()
    mosquitto_pub(mosquitto, "-t", "q/retained", "-m", "kept", "-q", "1", "-r")
    mosquitto_pub(mosquitto, "-t", "/slash/x", "-m", "one", "-q", "1")
    pub = mosquitto.client("pub", V5, **DURABLE)
    pub.publish("q/two", b"\xff\0", 2, 5, properties_={"content_type": "bytes", "user_property": [("a", "b")]})
    pub.send(wire.publish("q/held", b"held", 2, 6, version=V5))
    assert pub.expect(PUBREC).packet_id == 6
    pub.close()
    file = directory / "mosquitto.db"
    mosquitto.terminate()
    wait_until(file.exists, "mosquitto.db")
    return file


def as_format_5(data: bytes) -> bytes:
    """The same database as Mosquitto 1.6 would have written it: clients have neither User Name nor listener."""
    out = data[:19] + struct.pack("!I", 5)
    at = 23
    while at < len(data):
        kind, length = struct.unpack_from("!II", data, at)
        body = data[at + 8 : at + 8 + length]
        at += 8 + length
        if kind == 6:
            (id_len,) = struct.unpack_from("!H", body, 14)
            body = body[:16] + body[24 : 24 + id_len]
        out += struct.pack("!II", kind, len(body)) + body
    return out


@pytest.mark.parametrize("format_", [5, 6])
def test_a_database_of_debians_mosquitto_is_served_on(start_broker, tmp_path, database, format_):
    """What Debian's mosquitto had in its database Sol serves on: retained messages, Sessions with Subscriptions and User Name,
    queued messages with their Properties, and a QoS 2 exchange that its publisher ends here."""
    if format_ == 5:
        database.write_bytes(as_format_5(database.read_bytes()))
    said = store("import-mosquitto", database, tmp_path / "sol").stdout.decode()
    assert "3 Sessions, 3 Subscriptions" in said and "1 retained" in said, said
    store("check", tmp_path / "sol")
    store("export", tmp_path / "sol", "--out", tmp_path / "lines")
    sessions = {r["client_id"]: r for r in records(tmp_path / "lines") if r["record"] == "session"}
    assert sessions["five"].get("username") == ("ann" if format_ == 6 else None)
    # This Mosquitto may have given the others that name, too: then nobody relies on it.
    assert not any("vouched" in sessions[name] for name in ("three", "pub"))
    sol = start_broker(durable(tmp_path / "sol"), cls=Listening)
    with sol.client("pub", V5, **DURABLE) as pub:
        assert pub.connack.session_present
        pub.send(ack(PUBREL, 6))
        assert pub.expect(PUBCOMP).reason == 0
    with sol.client("five", V5, **DURABLE, username="ann") as five:
        assert five.connack.session_present
        # Those of QoS 2 wait for the disk before they leave, and may come later.
        got = sorted((five.take() for _ in range(4)), key=lambda p: p.qos)
        assert [(p.topic, p.payload, p.qos) for p in got] == [
            ("q/retained", b"kept", 1),
            ("/slash/x", b"one", 1),
            ("q/two", b"\xff\0", 2),
            ("q/held", b"held", 2),
        ]
        assert got[2].properties["content_type"] == "bytes" and got[2].properties["user_property"] == [("a", "b")]
        mosquitto_pub(sol, "-t", "q/new", "-m", "new", "-q", "1")
        assert five.expect(PUBLISH).topic == "q/new"
    with sol.client("three", clean=False) as three:
        assert three.connack.session_present
        assert [three.take().topic for _ in range(5)] == ["q/retained", "/slash/x", "q/two", "q/held", "q/new"]
    with MosquittoSub(sol, "-t", "q/retained") as sub:
        got = sub.take()
        assert (got.payload, got.retain) == (b"kept", True)


def test_a_damaged_database_is_refused_or_taken_as_far_as_it_is_sound(tmp_path, database):
    """A database that ends within a chunk is refused with the offset, and imported up to there if asked to."""
    data = database.read_bytes()
    database.write_bytes(data[:-3])
    said = sentence("import-mosquitto", database, tmp_path / "sol", check=65)
    assert "damaged at offset" in said and "--partial" in said
    assert not (tmp_path / "sol").exists()
    told = store("import-mosquitto", "--partial", database, tmp_path / "sol")
    assert b"3 Sessions" in told.stdout and b"what stands before that" in told.stderr
    store("check", tmp_path / "sol")
