"""Messages from publisher to subscriber, over every pair of versions and QoS, with real clients."""

import itertools
import subprocess

import pytest

import wire
from clients import MosquittoSub, Paho, mosquitto_pub
from wire import V5, V31, V311

VERSIONS = (V31, V311, V5)
VERSION_PAIRS = [pytest.param(p, s, id=f"pub{p}-sub{s}") for p, s in itertools.product(VERSIONS, VERSIONS)]


@pytest.mark.parametrize("publisher, subscriber", VERSION_PAIRS)
def test_mosquitto_clients_of_any_two_versions_talk_at_every_qos(broker, name, publisher, subscriber):
    """Versions mix on one port, and QoS is the lower of what was published and what was granted [MQTT-3.8.4-8]."""
    with MosquittoSub(broker, "-t", f"{name}/#", "-q", "2", version=subscriber) as sub:
        for qos in (0, 1, 2):
            mosquitto_pub(broker, "-t", f"{name}/{qos}", "-m", "hello", "-q", str(qos), version=publisher)
            assert sub.take() == (f"{name}/{qos}", qos, False, b"hello")


@pytest.mark.parametrize("publisher, subscriber", list(itertools.product((V311, V5), (V311, V5))))
def test_paho_clients_of_any_two_versions_talk_at_every_qos(broker, name, publisher, subscriber):
    """Every pair of published and granted QoS delivers once, at the lower of the two [MQTT-3.8.4-8]."""
    with Paho(broker, version=publisher) as pub, Paho(broker, version=subscriber) as sub:
        for granted in (0, 1, 2):
            assert sub.subscribe(f"{name}/{granted}/+", granted) == [granted]
        for granted, qos in itertools.product((0, 1, 2), (0, 1, 2)):
            pub.publish(f"{name}/{granted}/{qos}", b"%d%d" % (granted, qos), qos)
            message = sub.take()
            assert (message.topic, message.payload) == (f"{name}/{granted}/{qos}", b"%d%d" % (granted, qos))
            assert (message.qos, message.dup, message.retain) == (min(granted, qos), False, False)


@pytest.mark.parametrize("publisher, subscriber", VERSION_PAIRS)
def test_a_thousand_messages_keep_their_order(broker, name, publisher, subscriber, qos):
    """Messages of one publisher to one topic arrive in the order they were sent [MQTT-4.6.0-6]."""
    with broker.client(name + "s", subscriber) as sub, broker.client(name + "p", publisher) as pub:
        sub.subscribe((name, qos))
        for number in range(1000):
            pub.publish(name, b"%d" % number, qos, packet_id=number + 1)
            if number % 20 == 19:
                for expected in range(number - 19, number + 1):
                    assert sub.take().payload == b"%d" % expected


def test_mosquitto_pub_sends_a_file_by_lines(broker, name, qos):
    """A burst of lines from mosquitto_pub -l arrives whole and in order."""
    with MosquittoSub(broker, "-t", name, "-q", str(qos)) as sub:
        lines = b"".join(b"line %d\n" % n for n in range(500))
        command = ["mosquitto_pub", "-p", str(broker.port), "-t", name, "-q", str(qos), "-l"]
        subprocess.run(command, input=lines, timeout=30, check=True)
        assert [sub.take().payload for _ in range(500)] == [b"line %d" % n for n in range(500)]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 300_000])
def test_payloads_of_every_length_of_the_remaining_length_field_pass(broker, name, size):
    """One to three bytes of Remaining Length work at their edges (2.2.3)."""
    payload = bytes(n % 251 for n in range(size))
    with broker.client(name, V5) as w:
        w.subscribe((name, 1))
        w.send(wire.publish(name, payload, 1, 7, version=V5))
        seen = [w.recv(), w.recv()]
        assert sorted(p.kind for p in seen) == [wire.PUBLISH, wire.PUBACK]
        assert next(p for p in seen if p.kind == wire.PUBLISH).payload == payload


def test_wildcards_match_as_the_specification_says(broker, name, version):
    """`+` is one level, `#` is the rest including the parent, and neither crosses `/` (4.7.1)."""
    table = {
        f"{name}/a/b": [f"{name}/a/b", f"{name}/+/b", f"{name}/a/+", f"{name}/#", f"{name}/a/#", f"{name}/a/b/#", "+/a/b", f"{name}/+/+"],
        f"{name}/a": [f"{name}/a", f"{name}/+", f"{name}/#", f"{name}/a/#"],
        f"{name}/a/": [f"{name}/a/", f"{name}/a/+", f"{name}/a/#", f"{name}/#", f"{name}/+/", f"{name}/+/+"],
        f"{name}": [name, f"{name}/#"],
        f"{name}//x": [f"{name}//x", f"{name}/+/x", f"{name}//+", f"{name}/#", f"{name}//#", f"{name}/+/+"],
    }
    filters = sorted({f for matching in table.values() for f in matching})
    with broker.client(name + "p", version) as pub:
        for topic_filter in filters:
            with broker.client("", version) if version != V31 else broker.client(name + "s", version) as sub:
                sub.subscribe((topic_filter, 0), (f"{name}/end/mark/er", 0))
                for topic in table:
                    pub.publish(topic, b"x")
                pub.publish(f"{name}/end/mark/er", b"")
                got = []
                while (topic := sub.take().topic) != f"{name}/end/mark/er":
                    got.append(topic)
                assert got == [t for t in table if topic_filter in table[t]], topic_filter


def test_a_filter_that_starts_with_a_wildcard_does_not_match_dollar_topics(broker, name):
    """`#` and `+/…` pass over topics that begin with `$` [MQTT-4.7.2-1]."""
    with broker.client(name, V5) as w:
        w.subscribe(("#", 0), ("+/broker/#", 0))
        w.publish(f"{name}/end")
        while (p := w.take()).topic != f"{name}/end":
            assert not p.topic.startswith("$"), p.topic


def test_unsubscribe_ends_delivery(broker, name, version):
    """After UNSUBACK nothing more of that Topic Filter is delivered [MQTT-3.10.4-2]."""
    with broker.client(name + "s", version) as sub, broker.client(name + "p", version) as pub:
        sub.subscribe((f"{name}/a", 0), (f"{name}/end", 0))
        pub.publish(f"{name}/a", b"1")
        assert sub.take().payload == b"1"
        answer = sub.unsubscribe(f"{name}/a", f"{name}/never")
        assert answer.reasons == ([0x00, 0x11] if version == V5 else [])
        pub.publish(f"{name}/a", b"2")
        pub.publish(f"{name}/end")
        assert sub.take().topic == f"{name}/end"


def test_a_second_subscription_to_a_filter_replaces_the_first(broker, name, version):
    """SUBSCRIBE with the same Topic Filter replaces QoS and sends no message twice [MQTT-3.8.4-3]."""
    with broker.client(name + "s", version) as sub, broker.client(name + "p", version) as pub:
        sub.subscribe((name, 0))
        assert sub.subscribe((name, 2)).reasons == [2]
        pub.publish(name, b"1", 2)
        assert sub.take().qos == 2
        pub.publish(name, b"2", 2)
        assert sub.take().payload == b"2"


def test_suback_answers_each_filter_in_order(broker, name, version):
    """One Reason Code per Topic Filter, in their order [MQTT-3.8.4-6]."""
    with broker.client(name, version) as w:
        assert w.subscribe((f"{name}/2", 2), (f"{name}/0", 0), (f"{name}/1", 1)).reasons == [2, 0, 1]


def test_qos_2_is_deduplicated_by_packet_identifier(broker, name, version):
    """A PUBLISH repeated with DUP before PUBREL is not delivered again [MQTT-4.3.3-10]."""
    with broker.client(name + "s", version) as sub, broker.client(name + "p", version) as pub:
        sub.subscribe((f"{name}/#", 0))
        pub.send(wire.publish(f"{name}/a", b"once", 2, 5, version=version))
        pub.expect(wire.PUBREC)
        pub.send(wire.publish(f"{name}/a", b"once", 2, 5, dup=True, version=version))
        pub.expect(wire.PUBREC)
        pub.send(wire.ack(wire.PUBREL, 5))
        assert pub.expect(wire.PUBCOMP).packet_id == 5
        pub.publish(f"{name}/end")
        assert [sub.take().topic, sub.take().topic] == [f"{name}/a", f"{name}/end"]


@pytest.mark.differs("answers 0x00")
def test_pubrel_of_an_unknown_identifier_is_completed(broker, name):
    """PUBREL without its PUBLISH gets PUBCOMP, on 5.0 with 0x92 (3.7.2.1): a lost PUBCOMP must be recoverable."""
    with broker.client(name, V311) as w:
        w.send(wire.ack(wire.PUBREL, 99))
        assert w.expect(wire.PUBCOMP).packet_id == 99
    with broker.client(name, V5) as w:
        w.send(wire.ack(wire.PUBREL, 99))
        answer = w.expect(wire.PUBCOMP)
        assert (answer.packet_id, answer.reason) == (99, 0x92)


def test_packet_identifiers_are_reused_after_the_whole_range(broker, name):
    """More than 65,535 QoS 1 messages pass in one Session: identifiers wrap and are never 0 [MQTT-2.2.1-3]."""
    with broker.client(name, V311) as w:
        w.subscribe((name, 1))
        total, batch, seen = 66_000, 100, 0
        for start in range(0, total, batch):
            ids = range(start % 65000 + 1, start % 65000 + 1 + batch)
            w.send(*(wire.publish(name, b"x", 1, n) for n in ids))
            acks = []
            deliveries, answers = 0, 0
            while deliveries < batch or answers < batch:
                p = w.recv()
                if p.kind == wire.PUBLISH:
                    assert p.packet_id != 0
                    acks.append(wire.ack(wire.PUBACK, p.packet_id))
                    deliveries += 1
                    w.send(acks[-1])
                else:
                    answers += 1
            seen += deliveries
        assert seen == total


def test_no_matching_subscribers_is_told_to_5_0_publishers(broker, name):
    """PUBACK and PUBREC may carry 0x10 where nobody is subscribed (3.4.2.1, 3.5.2.1); never a failure code."""
    with broker.client(name, V5) as w:
        assert w.publish(name, b"x", 1, 1).reason in (0x00, 0x10)
        assert w.publish(name, b"x", 2, 2).reason in (0x00, 0x10)
