"""Retained messages (3.3.1.3) and the Subscription Options that concern them (3.8.3.1)."""

import pytest

import wire
from clients import MosquittoSub, Paho, mosquitto_pub
from wire import V5, V311

REPLAY = 5000


def test_a_retained_message_reaches_a_later_subscriber(broker, name, version):
    """The last retained message of a topic is sent to a new subscription, with RETAIN set [MQTT-3.3.1-6]."""
    mosquitto_pub(broker, "-t", f"{name}/a", "-m", "old", "-r", version=version)
    mosquitto_pub(broker, "-t", f"{name}/a", "-m", "new", "-r", "-q", "1", version=version)
    with MosquittoSub(broker, "-t", f"{name}/+", "-q", "2", version=version) as sub:
        assert sub.take() == (f"{name}/a", 1, True, b"new")


def test_an_empty_retained_message_clears_and_is_not_kept(broker, name, version):
    """A zero-byte payload removes the retained message [MQTT-3.3.1-10] and is not stored [MQTT-3.3.1-11]."""
    with broker.client(name + "p", version) as pub, broker.client(name + "s", version) as live:
        live.subscribe((f"{name}/#", 0))
        pub.publish(f"{name}/a", b"x", 1, retain=True)
        pub.publish(f"{name}/a", b"", 1, retain=True)
        pub.publish(f"{name}/b", b"y", 1, retain=True)
        assert [(p.topic, p.payload, p.retain) for p in (live.take(), live.take(), live.take())] == [
            (f"{name}/a", b"x", False),
            (f"{name}/a", b"", False),
            (f"{name}/b", b"y", False),
        ]
        with broker.client(name + "l", version) as later:
            later.subscribe((f"{name}/#", 0))
            assert later.take().topic == f"{name}/b"


def test_a_message_without_retain_leaves_the_retained_one(broker, name, version):
    """RETAIN 0 neither removes nor replaces a retained message [MQTT-3.3.1-8]."""
    with broker.client(name, version) as w:
        w.publish(name, b"kept", 1, retain=True)
        w.publish(name, b"passing", 1)
        w.subscribe((name, 0))
        assert w.take().payload == b"kept"


@pytest.mark.parametrize("topic_filter", ["{}/#", "{}/+/t", "{}/+/#"])
def test_a_wildcard_replays_thousands_of_retained_messages_whole(broker, name, topic_filter, qos):
    """Every retained message that matches is replayed once: no truncation, whatever the Receive Maximum."""
    with broker.client(name + "p", V5) as pub:
        for start in range(0, REPLAY, 20):
            pub.send(
                *(
                    wire.publish(f"{name}/{n}/t", b"%d" % n, 1, n - start + 1, retain=True, version=V5)
                    for n in range(start, start + 20)
                )
            )
            for _ in range(20):
                pub.expect(wire.PUBACK)
        with broker.client(name + "s", V5, properties_={"receive_maximum": 7}) as sub:
            sub.subscribe((topic_filter.format(name), qos))
            got = {}
            while len(got) < REPLAY:
                p = sub.take()
                assert p.retain and p.topic not in got and p.qos == min(qos, 1)
                got[p.topic] = p.payload
            assert got == {f"{name}/{n}/t": b"%d" % n for n in range(REPLAY)}
        for start in range(0, REPLAY, 1000):
            pub.send(*(wire.publish(f"{name}/{n}/t", b"", retain=True, version=V5) for n in range(start, start + 1000)))
        pub.ping()


def test_retain_handling(broker, name):
    """0 replays at every SUBSCRIBE, 1 only where the subscription is new, 2 never [MQTT-3.3.1-9…11]."""
    with broker.client(name, V5) as w:
        w.publish(f"{name}/a", b"r", 1, retain=True)
        w.publish(f"{name}-end", b"e", 1, retain=True)

        def replayed(options: int) -> bool:
            """Replays come in order of their Subscriptions: what is not there before the second one's never comes."""
            w.subscribe((f"{name}/#", options))
            w.subscribe((f"{name}-end", 0))
            seen = [w.take().topic]
            while seen[-1] != f"{name}-end":
                seen.append(w.take().topic)
            assert seen in ([f"{name}-end"], [f"{name}/a", f"{name}-end"])
            return len(seen) == 2

        assert replayed(0x00) and replayed(0x00)
        assert not replayed(0x10), "1: the subscription exists already"
        assert not replayed(0x20)
        w.unsubscribe(f"{name}/#")
        assert not replayed(0x20), "2: not even when new"
        w.unsubscribe(f"{name}/#")
        assert replayed(0x10), "1: the subscription is new"


def test_retain_as_published(broker, name):
    """A live message keeps its RETAIN flag only with Retain As Published [MQTT-3.3.1-12, -13]."""
    with broker.client(name + "p", V5) as pub:
        for options, expected in ((0x00, False), (0x08, True)):
            with broker.client(name + "s", V5) as sub:
                sub.subscribe((name, options | 0x20))
                pub.publish(name, b"x", retain=True)
                assert sub.take().retain is expected
                pub.publish(name, b"y")
                assert sub.take().retain is False


def test_a_retained_message_keeps_its_properties(broker, name):
    """Properties of the Application Message are stored with it [MQTT-3.3.2-…]."""
    props = {
        "content_type": "text/plain",
        "response_topic": "answer/here",
        "correlation_data": b"\x00\x01",
        "payload_format_indicator": 1,
        "user_property": [("a", "1"), ("a", "2")],
    }
    with broker.client(name, V5) as w:
        w.publish(name, b"x", 1, retain=True, properties_=props)
        w.subscribe((name, 1))
        assert w.take().properties == props


def test_retained_messages_reach_paho(broker, name):
    """paho sees retain=True on the replay and False on the live copy."""
    with Paho(broker, version=V5) as pub, Paho(broker, version=V311) as sub:
        pub.publish(name, b"r", 1, retain=True)
        sub.subscribe(name, 1)
        assert sub.take().retain is True
        pub.publish(name, b"r2", 1, retain=True)
        assert sub.take().retain is False


def test_dollar_topics_are_not_replayed_to_a_leading_wildcard(broker, name):
    """The retained replay follows the same `$` rule as live messages [MQTT-4.7.2-1]."""
    with broker.client(name, V5) as w:
        w.publish(f"{name}/r", b"x", 1, retain=True)
        w.subscribe(("+/r", 0), ("+/broker/uptime", 0), ("#", 0))
        w.publish(f"{name}/end")
        seen = []
        while not seen or seen[-1] != f"{name}/end":
            seen.append(w.take().topic)
        assert all(not topic.startswith("$") for topic in seen)
