"""What MQTT 5.0 adds: aliases, flow control, expiry, sharing, identifiers, limits, properties."""

import collections

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

import wire
from broker import IS_MOSQUITTO
from clients import MosquittoSub, Paho, mosquitto_pub
from wire import V5, V311


def test_properties_of_a_message_pass_unchanged(broker, name, qos):
    """Response Topic, Correlation Data, Content Type, Payload Format and User Properties in their order [MQTT-3.3.2-…]."""
    props = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": f"{name}/answer",
        "correlation_data": bytes(range(256)),
        "user_property": [("b", "1"), ("a", "2"), ("b", "1"), ("", "")],
    }
    with broker.client(name, V5) as w, broker.client(name + "s", V5) as sub:
        sub.subscribe((name, 2))
        w.publish(name, b"x", qos, properties_=props)
        assert sub.take().properties == props


def test_request_and_response_over_paho(broker, name):
    """A responder answers on the Response Topic with the Correlation Data it was given (4.10)."""
    with Paho(broker, version=V5) as requester, Paho(broker, version=V5) as responder:
        responder.subscribe(f"{name}/request", 1)
        requester.subscribe(f"{name}/response", 1)
        props = Properties(PacketTypes.PUBLISH)
        props.ResponseTopic, props.CorrelationData = f"{name}/response", b"\x00\xff"
        requester.publish(f"{name}/request", b"2+2", 1, properties=props)
        request = responder.take()
        answer = Properties(PacketTypes.PUBLISH)
        answer.CorrelationData = request.properties.CorrelationData
        responder.publish(request.properties.ResponseTopic, b"4", 1, properties=answer)
        response = requester.take()
        assert (response.payload, response.properties.CorrelationData) == (b"4", b"\x00\xff")


def test_mosquitto_clients_pass_user_properties(broker, name):
    """mosquitto_pub -D … arrives at mosquitto_sub -F %P."""
    with MosquittoSub(broker, "-t", name, "-F", "PROP\t%P\t%C\t%p", version=V5) as sub:
        args = ("-D", "publish", "user-property", "key", "value", "-D", "publish", "content-type", "kind")
        mosquitto_pub(broker, "-t", name, "-m", "x", *args, version=V5)
        assert sub.wait_for("PROP\t") == "PROP\tkey:value\tkind\tx"


# --- Topic Alias ------------------------------------------------------------------------------------------------------


def test_a_client_may_use_topic_aliases(broker, name):
    """An alias stands for its topic until it is set anew; it ends with the connection (3.3.2.3.4)."""
    with broker.client(name, V5) as w, broker.client(name + "s", V5) as sub:
        assert w.connack.properties.get("topic_alias_maximum", 0) >= 1
        sub.subscribe((f"{name}/#", 0))
        w.publish(f"{name}/a", b"1", properties_={"topic_alias": 1})
        w.publish("", b"2", properties_={"topic_alias": 1})
        w.publish(f"{name}/b", b"3", properties_={"topic_alias": 1})
        w.publish("", b"4", 1, properties_={"topic_alias": 1})
        got = [sub.take() for _ in range(4)]
        assert [(p.topic, p.payload) for p in got] == [
            (f"{name}/a", b"1"),
            (f"{name}/a", b"2"),
            (f"{name}/b", b"3"),
            (f"{name}/b", b"4"),
        ]
        assert all("topic_alias" not in p.properties for p in got), "an alias is never forwarded"
    with broker.client(name, V5) as w:
        w.send(wire.publish("", b"", version=V5, properties_={"topic_alias": 1}))
        w.expect_disconnect(0x82)


def test_a_topic_alias_out_of_range_is_refused(broker, name):
    """0 and anything above the server's Topic Alias Maximum end the connection [MQTT-3.3.2-8, -9]."""
    with broker.client(name, V5) as w:
        limit = w.connack.properties.get("topic_alias_maximum", 0)
        w.send(wire.publish("x", b"", version=V5, properties_={"topic_alias": 0}))
        assert w.expect_closed()[-1].reason in (0x81, 0x82, 0x94)
    if limit < 65535:
        with broker.client(name, V5) as w:
            w.send(wire.publish("x", b"", version=V5, properties_={"topic_alias": limit + 1}))
            w.expect_disconnect(0x94)


@pytest.mark.differs("never sends aliases")
def test_the_server_uses_topic_aliases_within_the_clients_maximum(broker, name):
    """Towards a client that allows aliases, a repeated topic is sent short; never above its maximum [MQTT-3.1.2-26, -27]."""
    with broker.client(name, V5, properties_={"topic_alias_maximum": 2}) as sub, broker.client("", V5) as pub:
        sub.subscribe((f"{name}/#", 0))
        topics = [f"{name}/a", f"{name}/b", f"{name}/c", f"{name}/a", f"{name}/b", f"{name}/a"]
        for topic in topics:
            pub.publish(topic)
        aliases, resolved, short = {}, [], 0
        for _ in topics:
            p = sub.take()
            alias = p.properties.get("topic_alias")
            assert alias is None or 1 <= alias <= 2
            if p.topic and alias:
                aliases[alias] = p.topic
            short += not p.topic
            resolved.append(p.topic or aliases[alias])
        assert resolved == topics and short >= 2


def test_the_server_sends_no_alias_to_a_client_that_allows_none(broker, name):
    """Topic Alias Maximum absent or 0 means none at all [MQTT-3.1.2-27]."""
    with broker.client(name, V5) as w:
        w.subscribe((name, 0))
        for _ in range(3):
            w.publish(name)
            p = w.take()
            assert p.topic == name and "topic_alias" not in p.properties


# --- Flow control -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granted", [1, 2])
@pytest.mark.differs("gives the quota back at PUBREC")
def test_the_server_keeps_to_the_clients_receive_maximum(broker, name, granted):
    """No more unacknowledged QoS 1 and 2 PUBLISH than Receive Maximum; QoS 0 passes all the same [MQTT-3.3.4-9]."""
    with broker.client(name, V5, properties_={"receive_maximum": 3}) as sub, broker.client("", V5) as pub:
        sub.subscribe((f"{name}/a", granted), (f"{name}/zero", 0))
        for n in range(10):
            pub.publish(f"{name}/a", b"%d" % n, granted, n + 1)
        held = [sub.expect(wire.PUBLISH) for _ in range(3)]
        pub.publish(f"{name}/zero", b"mark")
        assert sub.expect(wire.PUBLISH).payload == b"mark", "the quota is used up, QoS 0 needs none"
        got = [p.payload for p in held]
        for p in held:
            if granted == 1:
                sub.send(wire.ack(wire.PUBACK, p.packet_id))
            else:
                sub.send(wire.ack(wire.PUBREC, p.packet_id))
                assert sub.expect(wire.PUBREL).packet_id == p.packet_id
                sub.send(wire.ack(wire.PUBCOMP, p.packet_id))
            held.append(sub.expect(wire.PUBLISH)) if len(got) < 10 else None
            if len(got) < 10:
                got.append(held[-1].payload)
        assert got == [b"%d" % n for n in range(10)]


def test_a_pubrec_with_an_error_frees_the_quota(broker, name):
    """PUBREC of 0x80 or more ends the exchange and gives the quota back [MQTT-4.9.0-2]."""
    with broker.client(name, V5, properties_={"receive_maximum": 1}) as sub, broker.client("", V5) as pub:
        sub.subscribe((name, 2))
        pub.publish(name, b"1", 2, 1)
        pub.publish(name, b"2", 2, 2)
        first = sub.expect(wire.PUBLISH)
        sub.send(wire.packet(0x50, first.packet_id.to_bytes(2, "big") + b"\x80"))
        assert sub.expect(wire.PUBLISH).payload == b"2"


@pytest.mark.differs("answers 0x97")
def test_a_client_that_exceeds_the_servers_receive_maximum_is_cut(broker, name):
    """More than the server's Receive Maximum of unfinished QoS 2 is 0x93 [MQTT-3.3.4-7]."""
    with broker.client(name, V5) as w:
        limit = w.connack.properties.get("receive_maximum", 65535)
        if limit == 65535:  # all Packet Identifiers: it cannot be exceeded
            return
        w.send(*(wire.publish(name, b"", 2, n + 1, version=V5) for n in range(limit + 1)))
        w.expect_disconnect(0x93)


# --- Expiry -----------------------------------------------------------------------------------------------------------


def test_a_queued_message_expires(broker, name):
    """A message whose Message Expiry Interval passed while it waited is not delivered [MQTT-3.3.2-5]."""
    keep = {"session_expiry_interval": 300}
    sub = broker.client(name, V5, clean=False, properties_=keep)
    sub.subscribe((f"{name}/#", 1))
    sub.disconnect()
    with broker.client("", V5) as w:
        w.publish(f"{name}/short", b"", 1, 1, properties_={"message_expiry_interval": 1})
        w.publish(f"{name}/long", b"", 1, 2, properties_={"message_expiry_interval": 100})
        w.publish(f"{name}/r/short", b"r", 1, 3, retain=True, properties_={"message_expiry_interval": 1})
        wait_by_will(broker, name, w, 3)
        w.subscribe((f"{name}/r/#", 0))
        w.ping()
    with broker.client(name, V5, clean=False, properties_=keep) as sub:
        p = sub.take()
        assert p.topic == f"{name}/long"
        assert 90 <= p.properties["message_expiry_interval"] <= 98, "what is left is forwarded [MQTT-3.3.2-6]"
        sub.ping()


def wait_by_will(broker, name, watch, seconds: int) -> None:
    """Lets time pass on the broker's own clock: a Will with this delay is the alarm."""
    watch.subscribe((f"{name}!alarm", 0))
    will = wire.Will(f"{name}!alarm", b"", properties={"will_delay_interval": seconds})
    broker.client(name + "!c", V5, will=will, properties_={"session_expiry_interval": 60}).close()
    assert watch.take().topic == f"{name}!alarm"
    watch.unsubscribe(f"{name}!alarm")


# --- Subscriptions ----------------------------------------------------------------------------------------------------


def test_overlapping_subscriptions_yield_every_identifier(broker, name):
    """Identifiers of all matching Subscriptions arrive, on one copy or on several [MQTT-3.3.4-2…5]."""
    with broker.client(name, V5) as sub, broker.client("", V5) as pub:
        for number, topic_filter in ((1, f"{name}/#"), (268_435_455, f"{name}/+"), (300, f"{name}/a")):
            sub.subscribe((topic_filter, number % 3), properties_={"subscription_identifier": number})
        sub.subscribe((f"{name}/+/end", 0))
        pub.publish(f"{name}/a", b"x", 2)
        pub.publish(f"{name}/b/end")
        ids, qos = collections.Counter(), []
        while (p := sub.take()).topic != f"{name}/b/end":
            ids.update(p.properties.get("subscription_identifier", []))
            qos.append(p.qos)
        assert ids == {1: 1, 268_435_455: 1, 300: 1}
        assert max(qos) == 1, "the highest QoS granted [MQTT-3.3.4-2]"


@pytest.mark.differs("lets it pass")
def test_a_subscription_identifier_is_not_forwarded(broker, name):
    """A PUBLISH from a client with a Subscription Identifier is a Protocol Error [MQTT-3.3.4-6]."""
    with broker.client(name, V5) as w:
        w.send(wire.publish(name, b"", version=V5, properties_={"subscription_identifier": 1}))
        seen = w.expect_closed()
        assert seen[-1].kind == wire.DISCONNECT and seen[-1].reason in (0x81, 0x82)


def test_no_local(broker, name):
    """A client does not hear itself where it asked so; others do [MQTT-3.8.3-3]."""
    with broker.client(name, V5) as me, broker.client("", V5) as other:
        me.subscribe((f"{name}/a", 0x04 | 1), (f"{name}/end", 0))
        other.subscribe((f"{name}/a", 0))
        me.publish(f"{name}/a", b"mine", 1)
        me.publish(f"{name}/end")
        assert me.take().topic == f"{name}/end"
        assert other.take().payload == b"mine"
        other.publish(f"{name}/a", b"theirs")
        assert me.take().payload == b"theirs"


def test_no_local_over_paho(broker, name):
    """The same through paho's SubscribeOptions."""
    with Paho(broker, version=V5) as me:
        me.subscribe([(f"{name}/a", SubscribeOptions(qos=1, noLocal=True)), (f"{name}/end", SubscribeOptions(qos=1))])
        me.publish(f"{name}/a", b"", 1)
        me.publish(f"{name}/end", b"", 1)
        assert me.take().topic == f"{name}/end"


@pytest.mark.differs("lets it pass")
def test_no_local_on_a_shared_subscription_is_a_protocol_error(broker, name):
    """[MQTT-3.8.3-4]"""
    with broker.client(name, V5) as w:
        w.send(wire.subscribe([(f"$share/g/{name}", 0x04)], 1, V5))
        w.expect_disconnect(0x82)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("version", [V311, V5])
def test_a_shared_subscription_gives_each_message_to_one_member(broker, name, version, qos, count):
    """One copy per group and message, each member a part; other groups and plain Subscriptions get their own (4.8.2)."""
    members = [broker.client(f"{name}{n}", version) for n in range(count)]
    everything = [b"%d" % n for n in range(24)]
    with broker.client(name + "o", version) as other, broker.client(name + "l", version) as plain:
        for m in members:
            m.subscribe((f"$share/g/{name}/#", qos), (f"{name}!end", 0))
        other.subscribe((f"$share/h/{name}/#", qos))
        plain.subscribe((f"{name}/#", qos))
        with broker.client(name + "p", version) as pub:
            for n, payload in enumerate(everything):
                pub.publish(f"{name}/a", payload, qos, n + 1)
            assert [other.take().payload for _ in everything] == everything
            assert [plain.take().payload for _ in everything] == everything
            pub.publish(f"{name}!end")
        got = [until_end(m, f"{name}!end") for m in members]
        assert sorted(p for part in got for p in part) == sorted(everything)
        assert all(len(part) >= 24 // count // 2 for part in got), f"every member takes its part: {got}"
    for m in members:
        m.close()


def until_end(w, topic: str) -> list[bytes]:
    got = []
    while (p := w.take()).topic != topic:
        got.append(p.payload)
    return got


@pytest.mark.differs("keeps messages with a member that is gone")
def test_a_shared_message_of_a_lost_member_goes_to_another(broker, name):
    """QoS 1 that a member took and never acknowledged is given to another when its Session ends (4.8.2)."""
    lost, stays = broker.client(name + "1", V5), broker.client(name + "2", V5)
    with stays, broker.client("", V5) as pub:
        for m in (lost, stays):
            m.subscribe((f"$share/g/{name}", 1))
        for n in range(10):
            pub.publish(name, b"%d" % n, 1, n + 1)
        assert lost.expect(wire.PUBLISH).qos == 1
        lost.close()
        assert {stays.take().payload for _ in range(10)} == {b"%d" % n for n in range(10)}


def test_unsubscribe_leaves_a_shared_subscription(broker, name):
    """UNSUBSCRIBE of `$share/…` removes exactly that member."""
    with broker.client(name + "1", V5) as one, broker.client(name + "2", V5) as two:
        one.subscribe((f"$share/g/{name}", 0), (f"{name}/end", 0))
        two.subscribe((f"$share/g/{name}", 0))
        assert one.unsubscribe(f"$share/g/{name}").reasons == [0]
        for n in range(4):
            two.publish(name, b"%d" % n)
        two.publish(f"{name}/end")
        assert [two.take().payload for _ in range(4)] == [b"%d" % n for n in range(4)]
        assert one.take().topic == f"{name}/end"


@pytest.mark.differs("sends them")
def test_retained_messages_are_not_sent_to_shared_subscriptions(broker, name):
    """(4.8.2)"""
    with broker.client(name, V5) as w:
        w.publish(f"{name}/r", b"x", 1, retain=True)
        w.subscribe((f"$share/g/{name}/r", 1), (f"{name}/end", 0))
        w.publish(f"{name}/end")
        assert w.take().topic == f"{name}/end"


# --- Sizes ------------------------------------------------------------------------------------------------------------


def test_the_server_keeps_to_the_clients_maximum_packet_size(broker, name):
    """A message too large for the client is dropped for it and delivery goes on [MQTT-3.1.2-24, -25]."""
    with broker.client(name, V5, properties_={"maximum_packet_size": 100}) as sub, broker.client("", V5) as pub:
        sub.subscribe((name, 1))
        pub.publish(name, b"x" * 200, 1, 1)
        pub.publish(name, b"y" * 20, 1, 2)
        assert sub.take().payload == b"y" * 20


@pytest.mark.differs("counts the limit without the Fixed Header")
def test_a_packet_above_the_servers_maximum_is_refused(start_broker):
    """CONNACK tells the maximum; a larger packet ends the connection with 0x95, one of that size passes [MQTT-3.2.2-15]."""
    b = start_broker("max_packet_size 4096" if IS_MOSQUITTO else "max_request_size 4096")
    with b.client("big", V5) as w:
        limit = w.connack.properties["maximum_packet_size"]
        assert limit == 4096
        overhead = len(wire.publish("t", b"", version=V5)) + 1  # a second byte of Remaining Length
        w.subscribe(("t", 0))
        w.publish("t", b"x" * (limit - overhead))
        assert len(w.take().payload) == limit - overhead
        w.send(wire.publish("t", b"x" * (limit - overhead + 1), version=V5))
        w.expect_disconnect(0x95)
    with b.client("big", V311) as w:
        w.send(wire.publish("t", b"x" * limit))
        w.expect_closed()


@pytest.mark.sol
def test_the_size_limit_is_known_from_the_fixed_header(start_broker):
    """The refusal comes before the body: five bytes that announce 256 MiB are enough."""
    b = start_broker("max_request_size 4096")
    with b.client("big", V5) as w:
        w.send(b"\x30\xff\xff\xff\x7f")
        w.expect_disconnect(0x95)


# --- Capabilities -----------------------------------------------------------------------------------------------------


def test_connack_tells_the_truth(broker):
    """What CONNACK denies is refused and what it does not deny works (3.2.2.3)."""
    with broker.client("", V5) as w:
        props = w.connack.properties
        for name in ("retain_available", "wildcard_subscription_available"):
            assert props.get(name, 1) == 1
        assert props.get("subscription_identifier_available", 1) == 1
        assert props.get("shared_subscription_available", 1) == 1
        assert "maximum_qos" not in props, "absent means 2; the value 2 is not allowed [MQTT-3.2.2-9]"
        assert "response_information" not in props or isinstance(props["response_information"], str)


def test_auth_methods_are_refused(broker, name):
    """An Authentication Method that is not known: CONNECT with it gets 0x8C (4.12)."""
    with broker.wire(V5) as w:
        w.connect(name, expect=0x8C, properties_={"authentication_method": "SCRAM-SHA-1", "authentication_data": b"x"})
        w.expect_closed()


@pytest.mark.differs("closes with another code")
def test_an_auth_packet_out_of_turn_is_a_protocol_error(broker, name):
    """AUTH without an Authentication Method in CONNECT is a Protocol Error [MQTT-4.12.1-1]."""
    with broker.client(name, V5) as w:
        w.send(wire.packet(0xF0, b"\x19" + wire.properties({"authentication_method": "x"})))
        w.expect_disconnect(0x82)
