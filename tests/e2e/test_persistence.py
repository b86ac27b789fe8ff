"""What survives: a stop, and a kill -9, in both modes, on one and on several shards."""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

import wire
from broker import Listening, free_port, sol_bin
from clients import MosquittoSub, Paho, mosquitto_pub
from durable import Durable, Member, flush, until
from hostile import cpu_seconds
from wire import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, V5, V31, V311, Will, Wire

pytestmark = pytest.mark.sol


START_MAX = 5
"""Seconds of processor time at most until a broker with much to read has begun."""

CASES = [("os", 1, "kill", V311), ("os", 3, "kill", V5), ("fsync", 1, "kill", V5), ("fsync", 3, "kill", V31), ("os", 3, "stop", V5)]


@pytest.fixture(params=CASES, ids="{0[0]}-{0[1]}-{0[2]}-v{0[3]}".format)
def case(request):
    """Mode, shards, how it ends and the version that clients speak."""
    return request.param


@pytest.fixture
def kept(case, start_broker):
    return start_broker(cls=Durable, mode=case[0], shards=case[1])


@pytest.fixture
def how(case):
    return case[2]


@pytest.fixture
def version(case):
    return case[3]


def many_records(count: int, queued: int) -> Iterator[str]:
    """The lines of a store with so many Sessions, each with a Subscription, and retained messages; the last Session is owed
    `queued` messages."""
    yield json.dumps({"format": "sol-store", "version": 1, "seeds": ["0123456789abcdef"] * 4, "listeners": []})
    message = {"record": "message", "qos": 1, "origin": "0" * 16, "payload": "eA=="}
    for n in range(1, count + 1):
        session = f"0-{n}"
        yield json.dumps({"record": "session", "id": session, "client_id": f"c{n}", "session_expiry_interval": 4294967295})
        subscription = {"session": session, "filter": f"own/{n}/#", "qos": 1, "retain_handling": 0}
        yield json.dumps({"record": "subscription", "id": f"0-{count + n}", **subscription})
        body = f"0-{2 * count + n}"
        yield json.dumps({**message, "id": body, "topic": f"r/{n % 100}/{n}", "retain": True})
        yield json.dumps({"record": "retained", "id": f"0-{3 * count + n}", "message": body})
    for n in range(1, queued + 1):
        body = f"0-{4 * count + 2 * n}"
        yield json.dumps({**message, "id": body, "topic": f"own/{count}/{n}"})
        reference = {"session": f"0-{count}", "message": body, "qos": 1, "state": "queued"}
        yield json.dumps({"record": "reference", "id": f"0-{4 * count + 2 * n + 1}", **reference})


@pytest.fixture
def one(start_broker):
    """A broker with a journal, where the mode makes no difference."""
    return start_broker(cls=Durable, shards=3)


either_way = pytest.mark.parametrize("how", ["kill", "stop"])


def retained(broker, topic_filter: str) -> dict:
    """What a new Subscription gets at once: (QoS, payload) by topic."""
    with broker.client("", V5) as w:
        w.publish("the-last", b"", 1, retain=True)
        w.publish("the-last", b"x", 1, retain=True)
        w.subscribe((topic_filter, 2), ("the-last", 1))  # replayed in this order
        got = {}
        while (p := w.take()).topic != "the-last":
            assert p.retain and p.topic not in got, p
            got[p.topic] = (p.qos, p.payload)
        return got


# --- Retained messages -----------------------------------------------------------------------------------------------


def test_retained_messages_survive(kept, how):
    """A retained message is there after a restart as it was set or replaced last, with QoS and properties, and stays away
    once it was cleared [MQTT-3.3.1-5, 3.3.1-6]."""
    with kept.client("", V5) as pub:
        more = {"content_type": "text/x", "user_property": [("a", "b")], "response_topic": "r", "correlation_data": b"c"}
        pub.publish("r/all", b"x", 1, retain=True, properties_={**more, "payload_format_indicator": 1})
        for n in range(20):
            pub.publish("r/replaced", b"%d" % n, 1, retain=True)
        pub.publish("r/cleared", b"x", 1, retain=True)
        pub.publish("r/cleared", b"", 1, retain=True)
        pub.publish("r/qos2", b"2", 2, retain=True)
        pub.publish("r/qos0", b"0", 0, retain=True)
        pub.publish("r/end", b"e", 1, retain=True)
        for n in range(100):
            pub.publish(f"many/{n}", b"%d" % n, 1, retain=True)
    for shards in (kept.shards, 4 - kept.shards, 2):
        kept.restart(how, shards=shards)
        got = retained(kept, "r/#")
        assert got == {"r/all": (1, b"x"), "r/replaced": (1, b"19"), "r/qos2": (2, b"2"), "r/qos0": (0, b"0"), "r/end": (1, b"e")}
        assert retained(kept, "many/#") == {f"many/{n}": (1, b"%d" % n) for n in range(100)}
        with kept.client("", V5) as w:
            w.subscribe(("r/all", 1))
            p = w.take()
            assert p.properties == {**more, "payload_format_indicator": 1}


def test_what_a_new_subscription_is_due_survives(kept, how):
    """Ended in the midst of the retained messages that a Subscription is due, the broker sends all of them after the restart, and
    not again after the next one [MQTT-3.3.1-9]."""
    topics = {f"many/{n}" for n in range(100)}
    with kept.client("", V5) as pub:
        for topic in topics:
            pub.publish(topic, b"x", 1, retain=True)
    sub = Member(kept, "sub", receive_maximum=5)
    sub.wire.subscribe(("many/#", 2))
    sub.wire.take()
    kept.restart(how, shards=4 - kept.shards)
    w, seen = sub.back(), set()
    while seen != topics:
        seen.add(w.take().topic)
    for n in range(4):  # a commit for each, on whatever shards they are: what came before is written by then
        w.subscribe((f"none/{n}", 1))
    kept.restart(how)
    assert flush(kept, sub.back(), "many/end") == []


@either_way
def test_a_retained_message_expires_while_the_broker_is_down(one, how):
    """The Message Expiry Interval goes on by the wall clock, and what is left of it is told [MQTT-3.3.2-6]."""
    with one.client("", V5) as pub:
        pub.publish("e/short", b"x", 1, retain=True, properties_={"message_expiry_interval": 1})
        pub.publish("e/long", b"x", 1, retain=True, properties_={"message_expiry_interval": 100})
    since = time.time()
    one.end(how)
    until(since + 2.1)
    one.again(shards=1)
    assert set(retained(one, "e/#")) == {"e/long"}
    with one.client("", V5) as w:
        w.subscribe(("e/long", 1))
        assert w.take().properties["message_expiry_interval"] in range(90, 99)


def test_a_hundred_thousand_sessions_come_back(start_broker, tmp_path):
    """A broker with as many Sessions, Subscriptions and retained messages begins in seconds, and all of them are there: a Session
    is owed its messages in order, a Subscription gets what is published to it, a wildcard all that is retained below it."""
    count, queued = 100_000, 500
    (tmp_path / "lines").write_text("\n".join(many_records(count, queued)) + "\n")
    subprocess.run([sol_bin(), "store", "import", tmp_path / "lines", tmp_path / "data"], check=True, timeout=60)
    broker = start_broker("max_queued_messages 0", cls=Durable, data=tmp_path / "data", shards=2)
    assert cpu_seconds(broker.pid) < START_MAX
    with broker.client("probe", V5) as w:
        w.subscribe(("r/7/#", 1))
        assert {w.take().topic for _ in range(count // 100)} == {f"r/7/{n}" for n in range(7, count, 100)}
        for n in (1, count // 2):
            assert w.publish(f"own/{n}/live", b"x", 1).reason == 0
    for n, expected in ((1, ["live"]), (count // 2, ["live"]), (count, [str(n) for n in range(1, queued + 1)])):
        w = broker.client(f"c{n}", V5, clean=False)
        assert w.connack.session_present
        assert [w.take().topic for _ in expected] == [f"own/{n}/{last}" for last in expected]


@either_way
def test_mosquitto_clients_find_what_they_left(one, how):
    """mosquitto_pub's retained message and mosquitto_sub's Session are there after the restart."""
    with MosquittoSub(one, "-i", "msub", "-c", "-q", "1", "-t", "m/#"):
        pass
    # Not where the Session would get it: it may leave before its replay has ended, which would begin anew.
    mosquitto_pub(one, "-t", "kept/retained", "-m", "kept", "-r", "-q", "1")
    mosquitto_pub(one, "-t", "m/queued", "-m", "waits", "-q", "2")
    one.restart(how, shards=2)
    with MosquittoSub(one, "-i", "msub", "-c", "-q", "1", "-t", "none") as sub:
        queued = [line for line in sub.seen if line.startswith("MSG")] or [sub.wait_for("MSG\t")]
        assert [line.split("\t")[1] for line in queued] == ["m/queued"]
    with MosquittoSub(one, "-q", "1", "-t", "kept/#") as sub:
        assert sub.take() == ("kept/retained", 1, True, b"kept")


# --- Sessions and Subscriptions --------------------------------------------------------------------------------------


def test_subscriptions_survive_with_options_and_identifiers(kept, how):
    """Maximum QoS, No Local, Retain As Published and the Subscription Identifiers of each Subscription are kept
    [MQTT-3.8.3-3, 3.8.3-4], and an UNSUBSCRIBE that was acknowledged is too."""
    sub = Member(kept, "sub")
    sub.wire.subscribe(("s/plain", 0x00 | 1), properties_={"subscription_identifier": 7})
    sub.wire.subscribe(("s/#", 0x08 | 2), packet_id=2, properties_={"subscription_identifier": 268_435_455})
    sub.wire.subscribe(("s/zero", 0), packet_id=3)
    sub.wire.subscribe(("own", 0x04 | 1), packet_id=4)
    sub.wire.subscribe(("gone", 1), packet_id=5)
    sub.wire.subscribe(("changed", 0), packet_id=6)
    sub.wire.subscribe(("changed", 0x08 | 1), packet_id=7, properties_={"subscription_identifier": 9})
    sub.wire.unsubscribe("gone", packet_id=8)
    for shards in (kept.shards, 2):
        kept.restart(how, shards=shards)
        w = sub.back()
        with kept.client("", V5) as pub:
            for topic in ("gone", "s/plain", "s/zero", "own", "changed"):
                pub.publish(topic, b"x", 2, retain=topic == "changed")
            pub.publish("changed", b"", 1, retain=True)
        came = flush(kept, w, "s/end")
        got = {p.topic: p for p in came if p.payload}
        assert len(came) == len(got) + 1, "each once, and the empty one"
        assert set(got) == {"s/plain", "s/zero", "own", "changed"}
        assert sorted(got["s/plain"].properties["subscription_identifier"]) == [7, 268_435_455]
        assert got["s/zero"].properties["subscription_identifier"] == [268_435_455] and got["s/zero"].qos == 2
        assert got["own"].qos == 1 and not got["own"].retain and got["own"].properties == {}
        assert got["changed"].retain and got["changed"].properties["subscription_identifier"] == [9]
        w.publish("own", b"mine", 1)
        assert flush(kept, w, "s/end") == [], "No Local, after the restart too"


def test_overlapping_answer(kept):
    """What a client subscribes to after the restart replaces what it had before: one Subscription, not two [MQTT-3.8.4-3]."""
    sub = Member(kept, "sub")
    sub.wire.subscribe(("o/a", 1))
    kept.restart()
    w = sub.back()
    w.subscribe(("o/a", 2), ("o/end", 2))
    with kept.client("", V311) as pub:
        pub.publish("o/a", b"x", 2)
    assert [(p.topic, p.qos) for p in flush(kept, w, "o/end")] == [("o/a", 2)]
    w.unsubscribe("o/a", packet_id=2)
    with kept.client("", V311) as pub:
        pub.publish("o/a", b"x", 2)
    assert flush(kept, w, "o/end") == []
    kept.restart()
    w = sub.back()
    with kept.client("", V311) as pub:
        pub.publish("o/a", b"x", 2)
    assert flush(kept, w, "o/end") == []


def test_shared_subscriptions_survive(kept, how):
    """The members of a Shared Subscription are its members after the restart: each message goes to one of them, and waits for
    one while all are away [MQTT-4.8.2-4]."""
    members = [Member(kept, f"member{n}") for n in range(3)]
    for member in members:
        member.wire.subscribe(("$share/g/t/#", 1), ("end", 2))
    kept.restart(how, shards=2)
    with kept.client("", V5) as pub:
        for n in range(30):
            assert pub.publish("t/a", b"away %d" % n, 1).reason == 0
    kept.restart(how, shards=3)
    wires = [member.back() for member in members]
    with kept.client("", V5) as pub:
        for n in range(30):
            assert pub.publish("t/a", b"here %d" % n, 1).reason == 0
        pub.publish("end", b"", 2)
    got = []
    for w in wires:
        while (p := w.take()).topic != "end":
            got.append(p.payload)
    assert sorted(got) == sorted(b"%s %d" % (when, n) for when in (b"away", b"here") for n in range(30))


def test_a_lost_member_gives_back_what_it_was_owed(kept, how):
    """What waits for a member of a Shared Subscription whose Session ends after the restart goes to another member: what was
    queued, and QoS 1 that it had not acknowledged [MQTT-4.8.2-4]."""
    lost = Member(kept, "lost", receive_maximum=3)
    lost.wire.subscribe(("$share/g/t/#", 2))
    with kept.client("", V5) as pub:
        for n in range(10):
            assert pub.publish("t/a", b"%d" % n, 1).reason == 0
        begun = [lost.wire.expect(PUBLISH).payload for _ in range(3)]
        assert begun == [b"0", b"1", b"2"]
        lost.wire.close()
        other = Member(kept, "other")
        other.wire.subscribe(("$share/g/t/#", 2), ("end", 2))
        other.wire.close()
        pub.publish("sync", b"", 1, retain=True)
    kept.restart(how, shards=2)
    kept.client("lost", V5, clean=True).close()
    got = {p.payload for p in flush(kept, other.back(), "end")}
    assert got == {b"%d" % n for n in range(10)}


def test_sessions_with_clean_start_leave_nothing(kept, how):
    """A Session that ends with its connection leaves neither Subscriptions nor messages, and one that a Clean Start has ended
    stays ended [MQTT-3.1.2-4]."""
    for version in (V31, V311, V5):
        w = kept.client(f"clean{version}", version)
        w.subscribe((f"c/{version}", 1))
        w.close()
        Member(kept, f"was{version}", version).wire.subscribe((f"c/{version}", 1))
        kept.client(f"was{version}", version, clean=True)
    ended = Member(kept, "ended")
    ended.wire.subscribe(("c/ended", 1))
    ended.wire.disconnect(properties_={"session_expiry_interval": 0})
    with kept.client("", V5) as pub:
        pub.publish("c/sync", b"x", 1, retain=True)  # nothing acknowledges the end of a Session but what is kept after it
    kept.restart(how, shards=2)
    with kept.client("", V5) as pub:
        for topic in ("c/3", "c/4", "c/5", "c/ended"):
            assert pub.publish(topic, b"x", 1).reason == 0x10, "no matching subscribers"
    for name in ("clean", "was"):
        for version in (V31, V311, V5):
            with kept.client(f"{name}{version}", version, clean=False) as w:
                assert not w.connack.session_present
    with kept.client("ended", V5, clean=False) as w:
        assert not w.connack.session_present


def left_of(broker, topic: str) -> tuple[int, int]:
    """How many Sessions, and how many messages of this topic, the journal has for them: what an operator is shown."""
    command = [sol_bin(), "store", "export", broker.data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=wire.TIMEOUT, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    messages = {record["id"] for record in records if record["record"] == "message" and record["topic"] == topic}
    references = sum(record["record"] == "reference" and record.get("message") in messages for record in records)
    return sum(record["record"] == "session" for record in records), references


def test_a_session_with_much_to_forget_is_gone_at_once(kept, how):
    """Once the CONNACK of a Clean Start that makes a lasting Session has come, the old one is gone, whatever was queued for it, though
    the broker is ended at that very moment; what is left of it goes at the next start, and a second one has nothing left to do."""
    sub = Member(kept, "sub")
    sub.wire.subscribe(("much/#", 1))
    sub.wire.close()
    with kept.client("", V5) as pub:
        for first in range(0, 1000, 20):
            pub.send(*(wire.publish("much/a", b"x", 1, n + 1, version=V5) for n in range(first, first + 20)))
            assert [pub.expect(PUBACK).reason for _ in range(20)] == [0] * 20
    assert left_of(kept, "much/a") == (1, 1000)
    kept.client("sub", V5, clean=True, properties_=sub.options["properties_"])
    kept.end(how)
    for shards in (2, 3):
        kept.again(shards=shards)
        assert " ERROR " not in kept.log()
        with kept.client("", V5) as pub:
            assert pub.publish("much/a", b"x", 1).reason == 0x10
            # Acknowledged once it is kept, and so is what was cleared away before it.
            pub.publish("much/end", str(shards).encode(), 1, retain=True)
        kept.end(how)
        assert left_of(kept, "much/a") == (1, 0)
    kept.again()
    with kept.client("sub", V5, clean=False) as w:
        assert w.connack.session_present
        w.subscribe(("much/end", 1))
        assert (w.take().payload, w.stash) == (b"3", []), "nothing of the old one comes"


def test_a_client_may_come_back_with_another_version(kept, version):
    """The Session is its Client Identifier's, whichever version of the protocol made it and takes it up."""
    sub = Member(kept, "sub", version)
    sub.wire.subscribe(("v/a", 1), ("v/end", 2))
    sub.wire.close()
    with kept.client("", V311) as pub:
        pub.publish("v/a", b"x", 1)
    for other in (V5, V311, V31):
        kept.restart()
        sub.version, sub.options = other, {"properties_": {"session_expiry_interval": 3600}} if other == V5 else {}
        got = flush(kept, sub.back(), "v/end")
        assert [p.payload for p in got] == [b"x"]
        with kept.client("", V311) as pub:
            sub.wire.close()
            pub.publish("v/a", b"x", 1)


@either_way
def test_sessions_expire_by_the_wall_clock(one, how):
    """The Session Expiry Interval runs on while the broker is down: from the disconnection, or from the restart for who was
    connected at the crash (3.1.2.11.2). It is never shorter than promised."""
    for name, expiry in (("short", 2), ("long", 60), ("forever", 0xFFFF_FFFF)):
        member = Member(one, name, expiry=expiry)
        member.wire.subscribe(("x", 1))
        member.wire.disconnect()
    since = time.time()
    connected = Member(one, "connected", expiry=2)
    one.end(how)
    until(since + 3.1)
    one.again(shards=1)
    with one.client("connected", V5, clean=False) as w:
        assert w.connack.session_present == (how == "kill"), "its time begins at the restart if it was connected at the crash"
    connected.wire.close()
    for name in ("short", "long", "forever"):
        with one.client(name, V5, clean=False) as w:
            assert w.connack.session_present == (name != "short"), name
    with one.client("", V5) as pub:
        assert pub.publish("x", b"x", 1).reason == 0x10, "those that were there are taken over and end with their connections"


def test_an_expiry_goes_on_after_the_restart(one):
    """A Session whose interval was not over at the restart ends when it is."""
    member = Member(one, "short", expiry=3)
    member.wire.subscribe(("x", 1))
    member.wire.disconnect()
    one.restart()
    with one.client("", V5) as pub:
        assert pub.publish("x", b"x", 1).reason == 0
        until(time.time() + 4)
        assert pub.publish("x", b"x", 1).reason == 0x10
    one.restart()
    with one.client("short", V5, clean=False) as w:
        assert not w.connack.session_present


# --- Messages to a Session -------------------------------------------------------------------------------------------


def test_queued_messages_survive_in_order(kept, how, version):
    """What was acknowledged while its Session was away arrives after the restart, all of it, each QoS in order
    [MQTT-4.6.0-6], and before what came after it."""
    sub = Member(kept, "sub", version)
    sub.wire.subscribe(("q/#", 2))
    sub.wire.close()
    with kept.client("", V5) as pub:
        for n in range(200):
            pub.publish("q/a", b"%d" % n, 1 + n % 2, packet_id=n + 1)
    kept.restart(how, shards=2)
    with kept.client("", V5) as pub:
        for n in range(200, 300):
            pub.publish("q/a", b"%d" % n, 1 + n % 2, packet_id=n + 1)
    kept.restart(how, shards=3)
    got = flush(kept, sub.back(), "q/end")
    for qos in (1, 2):  # a QoS 2 PUBLISH waits for the journal, so one of QoS 1 may overtake it
        assert [p.payload for p in got if p.qos == qos] == [b"%d" % n for n in range(300) if 1 + n % 2 == qos]
    kept.restart(how, shards=1)
    assert flush(kept, sub.back(), "q/end") == [], "what was acknowledged is gone"


@either_way
def test_messages_keep_their_properties_and_their_expiry(one, how):
    """Properties come back as they were, with the Subscription Identifiers, and the Message Expiry Interval less the time that
    has passed, the broker's down time with it; what has expired meanwhile is not delivered [MQTT-3.3.2-5, 3.3.2-6]."""
    sub = Member(one, "sub")
    sub.wire.subscribe(("p/#", 2), properties_={"subscription_identifier": 5})
    sub.wire.subscribe(("p/+", 2), packet_id=2, properties_={"subscription_identifier": 6})
    sub.wire.disconnect()
    more = {
        "content_type": "c/t",
        "response_topic": "r/t",
        "correlation_data": b"\x00\xff",
        "user_property": [("k", "v"), ("k", "w")],
        "payload_format_indicator": 1,
    }
    with one.client("", V5) as pub:
        pub.publish("p/a", b"short", 1, properties_={"message_expiry_interval": 1})
        pub.publish("p/a", b"long", 2, properties_={**more, "message_expiry_interval": 100})
    since = time.time()
    one.end(how)
    until(since + 2.1)
    one.again()
    got = flush(one, sub.back(), "p/end")
    assert [p.payload for p in got] == [b"long"]
    left = got[0].properties.pop("message_expiry_interval")
    assert left in range(90, 99)
    assert sorted(got[0].properties.pop("subscription_identifier")) == [5, 6]
    assert got[0].properties == more


def test_unacknowledged_messages_are_resent_with_dup_and_their_identifiers(kept, how, version):
    """Whatever was on its way is sent again with DUP and its old Packet Identifier, in order, and new messages get others
    [MQTT-4.4.0-1, 3.3.1-1]."""
    sub = Member(kept, "sub", version)
    sub.wire.subscribe(("i/#", 2))
    with kept.client("", V5) as pub:
        for n in range(12):
            pub.publish("i/a", b"%d" % n, 1 + n % 2, packet_id=n + 1)
        first = [sub.wire.expect(PUBLISH) for _ in range(12)]
        assert len({p.packet_id for p in first}) == 12
        # One in the middle of either QoS is finished: that leaves holes.
        sub.wire.send(wire.ack(PUBACK, first[4].packet_id), wire.ack(PUBREC, first[5].packet_id))
        assert sub.wire.expect(PUBREL).packet_id == first[5].packet_id
        sub.wire.send(wire.ack(PUBCOMP, first[5].packet_id))
        sub.wire.ping()
        pub.publish("i/a", b"12", 1)  # whatever comes after it has been written
        pub.publish("i/a", b"13", 2)
    kept.restart(how, shards=2)
    w = sub.back()
    again = [w.expect(PUBLISH) for _ in range(12)]
    left = [p for p in first if p not in (first[4], first[5])]
    assert [(p.payload, p.packet_id) for p in again[:10]] == [(p.payload, p.packet_id) for p in left]
    assert all(p.dup for p in again[:10])
    assert [p.payload for p in again[10:]] == [b"12", b"13"]
    with kept.client("", V5) as pub:
        for n in range(14, 20):
            pub.publish("i/a", b"%d" % n, 1 + n % 2, packet_id=n + 1)
    later = [w.expect(PUBLISH) for _ in range(6)]
    ids = [p.packet_id for p in again + later]
    assert len(set(ids)) == len(ids), "no Packet Identifier is in use twice [MQTT-2.2.1-4]"
    assert not any(p.dup for p in later)


# --- QoS 2, interrupted at each step ---------------------------------------------------------------------------------


class Exchange:
    """A QoS 2 publish from `pub` to `sub`, of which a test interrupts one half."""

    def __init__(self, broker, version: int):
        self.broker = broker
        self.sub = Member(broker, "sub", version)
        self.sub.wire.subscribe(("x/#", 2))
        self.pub = Member(broker, "pub", version)
        self.packet_id = 777

    def publish(self, payload: bytes = b"once", dup: bool = False) -> bytes:
        return wire.publish("x/a", payload, 2, self.packet_id, dup=dup, version=self.pub.version)

    def both_back(self) -> None:
        self.pub.back()
        self.sub.back()

    def received(self) -> list[bytes]:
        return [p.payload for p in flush(self.broker, self.sub.wire, "x/end")]


@pytest.fixture
def exchange(kept, version):
    return Exchange(kept, version)


def test_a_publish_without_its_pubrec_is_repeated_and_arrives_once(kept, exchange, how):
    """The PUBLISH was sent and its PUBREC is lost: the repeat with DUP completes it, exactly once [MQTT-4.3.3-2, 4.3.3-10]."""
    e = exchange
    e.sub.wire.close()
    e.pub.wire.send(e.publish())
    if how == "kill":
        # The broker has it for certain, and has answered; the client knows nothing of it.
        e.pub.wire.expect(PUBREC)
    for shards in (2, 3):
        kept.restart(how, shards=shards)
        e.pub.back().send(e.publish(dup=True))
        assert e.pub.wire.expect(PUBREC).reason == 0
    e.pub.wire.send(wire.ack(PUBREL, e.packet_id))
    e.pub.wire.expect(PUBCOMP)
    e.sub.back()
    assert e.received() == [b"once"]


def test_a_killed_publish_that_nobody_acknowledged_arrives_once(kept, exchange):
    """Whether the broker had taken it or not when it was killed: the repeat is delivered once in all."""
    e = exchange
    e.pub.wire.send(e.publish())
    kept.restart(shards=2)
    e.both_back()
    e.pub.wire.send(e.publish(dup=True))
    e.pub.wire.expect(PUBREC)
    e.pub.wire.send(wire.ack(PUBREL, e.packet_id))
    e.pub.wire.expect(PUBCOMP)
    assert e.received() == [b"once"]


def test_a_pubrel_after_the_restart_is_answered(kept, exchange, how):
    """PUBREC came, PUBREL is sent after the restart: PUBCOMP, one delivery, and the identifier is free again
    [MQTT-4.3.3-11, 4.3.3-12]."""
    e = exchange
    e.pub.wire.send(e.publish())
    e.pub.wire.expect(PUBREC)
    kept.restart(how, shards=2)
    e.both_back()
    e.pub.wire.send(wire.ack(PUBREL, e.packet_id))
    assert e.pub.wire.expect(PUBCOMP).reason == 0
    e.pub.wire.send(e.publish(b"another"))
    assert e.pub.wire.expect(PUBREC).reason == 0
    e.pub.wire.send(wire.ack(PUBREL, e.packet_id))
    assert e.pub.wire.expect(PUBCOMP).reason == 0
    assert e.received() == [b"once", b"another"]


def test_a_pubrel_without_its_pubcomp_is_repeated(kept, exchange, how):
    """PUBREL was sent and PUBCOMP is lost: it is answered again, and nothing is delivered again."""
    e = exchange
    e.pub.wire.send(e.publish())
    e.pub.wire.expect(PUBREC)
    e.pub.wire.send(wire.ack(PUBREL, e.packet_id))
    kept.restart(how, shards=2)
    e.both_back()
    e.pub.wire.send(wire.ack(PUBREL, e.packet_id))
    assert e.pub.wire.expect(PUBCOMP).reason in (0, 0x92)
    assert e.received() == [b"once"]


def test_an_identifier_is_free_once_pubcomp_came(kept, exchange, how):
    """After PUBCOMP the same Packet Identifier is another message, across the restart too: it is not taken for a repeat."""
    e = exchange
    e.pub.wire.publish("x/a", b"first", 2, e.packet_id)
    kept.restart(how, shards=2)
    e.both_back()
    e.pub.wire.publish("x/a", b"second", 2, e.packet_id)
    assert e.received() == [b"first", b"second"]


def test_a_delivery_without_its_pubrec_is_repeated(kept, exchange, how):
    """The subscriber got the PUBLISH and the broker not its PUBREC: the same message with the same identifier and DUP."""
    e = exchange
    e.pub.wire.publish("x/a", b"once", 2, e.packet_id)
    first = e.sub.wire.expect(PUBLISH)
    kept.restart(how, shards=2)
    w = e.sub.back()
    again = w.expect(PUBLISH)
    assert (again.packet_id, again.payload, again.dup) == (first.packet_id, b"once", True)
    w.send(wire.ack(PUBREC, again.packet_id))
    assert w.expect(PUBREL).packet_id == first.packet_id
    w.send(wire.ack(PUBCOMP, again.packet_id))
    assert e.received() == []


def test_a_delivery_after_its_pubrel_is_never_a_publish_again(kept, exchange, how):
    """Once PUBREL was sent the message is the receiver's: after the restart comes PUBREL, never the PUBLISH [MQTT-4.3.3-6]."""
    e = exchange
    e.pub.wire.publish("x/a", b"once", 2, e.packet_id)
    first = e.sub.wire.expect(PUBLISH)
    e.sub.wire.send(wire.ack(PUBREC, first.packet_id))
    assert e.sub.wire.expect(PUBREL).packet_id == first.packet_id
    for shards in (2, 3):
        kept.restart(how, shards=shards)
        assert e.sub.back().expect(PUBREL).packet_id == first.packet_id
    e.sub.wire.send(wire.ack(PUBCOMP, first.packet_id))
    assert e.received() == []
    kept.restart(how)
    e.sub.back()
    assert e.received() == []


def test_a_delivery_whose_pubrec_is_under_way_is_finished(kept, exchange, how):
    """PUBREC was sent and nobody knows whether it came: either step is taken up again, and both end well."""
    e = exchange
    e.pub.wire.publish("x/a", b"once", 2, e.packet_id)
    first = e.sub.wire.expect(PUBLISH)
    e.sub.wire.send(wire.ack(PUBREC, first.packet_id))
    kept.restart(how, shards=2)
    w = e.sub.back()
    p = w.recv()
    assert p.packet_id == first.packet_id and p.kind in (PUBLISH, PUBREL)
    if p.kind == PUBLISH:
        assert p.dup and p.payload == b"once"
        w.send(wire.ack(PUBREC, p.packet_id))
        p = w.expect(PUBREL)
    w.send(wire.ack(PUBCOMP, p.packet_id))
    assert e.received() == []


# --- Wills -----------------------------------------------------------------------------------------------------------


def test_wills_of_the_connected_are_published_after_a_crash(kept):
    """Who was connected when the broker died gets its Will published: at the restart, or when its Will Delay Interval has passed
    since then [MQTT-3.1.2-8, 3.1.3-9]. It reaches durable Subscriptions, is retained where it says so, and comes once."""
    sub = Member(kept, "sub")
    sub.wire.subscribe(("w/+", 2))
    for version in (V31, V311, V5):
        kept.client(f"will{version}", version, will=Will(f"w/{version}", b"gone", 1, retain=version == V311))
    durable = {"session_expiry_interval": 60}
    later = Will("w/later", b"later", 2, properties={"will_delay_interval": 2, "content_type": "c"})
    kept.client("later", V5, will=later, properties_=durable)
    never = Will("w/never", b"never", 2, properties={"will_delay_interval": 2})
    spared = Member(kept, "spared", will=never)
    kept.client("left", V5, will=Will("w/left", b"", 1)).disconnect()
    with kept.client("", V5) as pub:
        pub.publish("w", b"x", 1, retain=True)  # nothing acknowledges a DISCONNECT but what is kept after it
    kept.restart(shards=2)
    began = time.monotonic()
    spared.back()  # it is here before its delay has passed
    w = sub.back()
    assert {w.take().topic for _ in range(3)} == {"w/3", "w/4", "w/5"}
    p = w.take()
    assert (p.topic, p.payload, p.qos, p.properties) == ("w/later", b"later", 2, {"content_type": "c"})
    assert time.monotonic() - began > 1
    kept.restart(shards=3)
    w = sub.back()
    assert {p.topic for p in flush(kept, w, "w/end")} == set(), "each was published once, and is forgotten"
    assert retained(kept, "w/+") == {"w/4": (1, b"gone")}
    with kept.client("will5", V5, clean=False) as w:
        assert not w.connack.session_present


def test_a_will_that_was_due_while_the_broker_was_down_is_published(one):
    """A Will Delay Interval that had begun before the crash ends by the wall clock, also while nobody is there to see."""
    sub = Member(one, "sub")
    sub.wire.subscribe(("w/+", 2))
    will = Will("w/due", b"due", 2, properties={"will_delay_interval": 2})
    one.client("gone", V5, will=will, properties_={"session_expiry_interval": 60}).close()
    since = time.time()
    with one.client("", V5) as pub:
        pub.publish("w/clock", b"", 2)  # the broker has seen the close by now, or does at the latest with the restart
    one.kill()
    until(since + 3.1)
    one.again(shards=2)
    w = sub.back()
    assert [w.take().topic for _ in range(2)] == ["w/clock", "w/due"]
    one.restart()
    assert flush(one, sub.back(), "w/end") == []


def test_a_will_is_published_on_a_stop_once(kept):
    """A stop publishes the Wills of who is connected, as it is the broker that ends the connections; not again at the start."""
    sub = Member(kept, "sub")
    sub.wire.subscribe(("w/+", 2))
    sub.wire.close()
    kept.client("gone", V311, will=Will("w/a", b"x", 2))
    kept.restart("stop", shards=2)
    got = flush(kept, sub.back(), "w/end")
    assert [p.topic for p in got] == ["w/a"]
    kept.restart("stop")
    assert flush(kept, sub.back(), "w/end") == []


# --- Rights ----------------------------------------------------------------------------------------------------------


def test_restored_sessions_keep_their_user(start_broker, tmp_path):
    """A Session belongs to the user who made it, after the restart too; and what it gets is what that user may read."""
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    for user in ("anna", "bert"):
        create = ["-c"] if user == "anna" else []
        subprocess.run([sol_bin(), "passwd", *create, "-b", passwords, user, "secret"], check=True, capture_output=True)
    acl.write_text("user anna\ntopic readwrite a/#\nuser bert\ntopic readwrite b/#\ntopic write a/#\n")
    acl.chmod(0o600)
    config = f"allow_anonymous false\npassword_file {passwords}\nacl_file {acl}"
    broker = start_broker(config, cls=Durable, shards=2)
    sub = Member(broker, "sub", username="anna", password="secret")
    sub.wire.subscribe(("#", 1), ("a/end", 1))
    sub.wire.close()
    bert = {"username": "bert", "password": "secret"}
    with broker.client("", V311, **bert) as pub:
        pub.publish("b/x", b"", 1)
        pub.publish("a/x", b"1", 1)
    broker.restart(shards=3)
    with broker.client("", V311, **bert) as pub:
        pub.publish("b/x", b"", 1)
        pub.publish("a/x", b"2", 1)
        pub.publish("a/end", b"", 1)
    broker.wire(V5).connect("sub", 0x87, clean=False, **bert)
    w = sub.back()
    assert [w.take().payload for _ in range(3)] == [b"1", b"2", b""]


def test_restored_sessions_get_what_their_user_may_read(start_broker, tmp_path):
    """What is queued for a restored Session is judged by its user's rights, as they are after the restart."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\n")
    acl.chmod(0o644)
    broker = start_broker(f"acl_file {acl}", cls=Durable, shards=2)
    sub = Member(broker, "sub")
    sub.wire.subscribe(("#", 1))
    sub.wire.close()
    with broker.client("", V311) as pub:
        for topic in ("a/x", "b/x", "a/y"):
            pub.publish(topic, b"", 1, retain=True)
    broker.kill()
    acl.write_text("topic readwrite a/#\n")
    broker.again(shards=3)
    assert [p.topic for p in flush(broker, sub.back(), "a/end")] == ["a/x", "a/y"]


def test_restored_sessions_keep_their_listener(start_broker, tmp_path):
    """Which listener's rules hold for a Session is known after the restart too, wherever the listener stands in the file."""
    ports = [free_port(), free_port()]
    for port, topics in zip(ports, ("a/#", "b/#")):
        (tmp_path / f"acl{port}").write_text(f"topic readwrite {topics}\ntopic readwrite end\n")
        (tmp_path / f"acl{port}").chmod(0o644)

    def config(order) -> str:
        lines = (f"listener {port} 127.0.0.1\nallow_anonymous true\nacl_file {tmp_path}/acl{port}" for port in order)
        return "per_listener_settings true\n" + "\n".join(lines)

    broker = start_broker(config(ports), cls=Durable, shards=2)
    for port in ports:
        with Wire(port, V5) as w:
            w.connect(f"sub{port}", clean=False, properties_={"session_expiry_interval": 60})
            w.subscribe(("#", 1))
    broker.restart(config=config(reversed(ports)), shards=3)
    for port, topic in zip(ports, ("a/x", "b/x")):
        with Wire(port, V5) as pub:
            pub.connect("")
            assert pub.publish(topic, b"", 1).reason == 0
            assert pub.publish("a/y" if topic == "b/x" else "b/y", b"", 1).reason == 0x87
    broker.restart(config=config(ports), shards=1)
    for port, topic in zip(ports, ("a/x", "b/x")):
        with Wire(port, V5) as w, Wire(port, V5) as pub:
            w.connect(f"sub{port}", clean=False)
            pub.connect("")
            pub.publish("end", b"", 1)
            assert [w.take().topic for _ in range(2)] == [topic, "end"]
            w.disconnect()


# --- What is kept where ----------------------------------------------------------------------------------------------


@either_way
def test_without_persistence_nothing_is_left(start_broker, how):
    """`persistence none` leaves neither files nor state, and the banner says so."""
    broker = start_broker(cls=Durable, mode="none", shards=2)
    broker.says("data directory: none, everything is in memory and ends with the process")
    sub = Member(broker, "sub")
    sub.wire.subscribe(("a", 1))
    with broker.client("", V5) as pub:
        pub.publish("a", b"x", 1, retain=True)
    broker.restart(how)
    assert list(broker.data.iterdir()) == []
    with broker.client("sub", V5, clean=False) as w:
        assert not w.connack.session_present
    assert retained(broker, "+") == {}


@pytest.mark.parametrize(
    "mode, said",
    [
        ("os", "(persistence os: what is acknowledged survives the process, and a power cut but for the last second)"),
        ("fsync", "(persistence fsync: what is acknowledged survives a power cut)"),
        ("true", "(persistence fsync: what is acknowledged survives a power cut)"),
    ],
)
def test_the_banner_says_what_is_promised(start_broker, mode, said):
    """Directory and promise of the mode stand in one line of the banner."""
    broker = start_broker(cls=Durable, mode=mode)
    line = next(line for line in broker.log().splitlines() if "data directory:" in line)
    assert line.endswith(f"data directory: {broker.data}/sol-journal {said}")


def test_a_directory_alone_means_os(start_broker, tmp_path):
    """With `persistence_location` and nothing else, mode `os` is what one gets; none of it is world readable."""
    data = tmp_path / "here"
    data.mkdir()
    broker = start_broker(f"persistence_location {data}\nmetrics off", cls=Listening)
    broker.says(f"data directory: {data}/sol-journal (persistence os:")
    assert (data / "sol-journal").stat().st_mode & 0o077 == 0


def test_modes_may_change(start_broker):
    """What one mode has kept is there in the other."""
    broker = start_broker(cls=Durable, mode="os")
    Member(broker, "sub").wire.subscribe(("a", 1))
    for n, mode in enumerate(("fsync", "os", "fsync")):
        with broker.client("", V5) as pub:
            assert pub.publish("a", b"%d" % n, 1).reason == 0
        broker.restart("kill", mode=mode)
    with broker.client("sub", V5, clean=False) as w:
        assert [w.take().payload for _ in range(3)] == [b"0", b"1", b"2"]


def test_paho_goes_on_where_it_was(one):
    """A paho client reconnects by itself after a kill -9, and what it published and was owed meanwhile arrives."""
    with Paho(one, "paho", V311, clean=False) as sub:
        assert sub.subscribe("p/#", 2) == [2]
        with Paho(one, "other", V311, clean=False) as pub:
            pub.client.reconnect_delay_set(1, 1)
            sub.client.reconnect_delay_set(1, 1)
            for n in range(50):
                pub.publish("p/a", b"%d" % n, 2)
            infos = [pub.client.publish("p/a", b"%d" % n, 2) for n in range(50, 100)]
            one.restart(shards=2)
            for info in infos:
                info.wait_for_publish(wire.TIMEOUT)
            assert [sub.take().payload for _ in range(100)] == [b"%d" % n for n in range(100)]
            assert sub.messages.empty()
