"""Sessions: resume, queueing, takeover, expiry, Wills (3.1, 4.1, 4.4)."""

import queue
import time

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import wire
from clients import Paho
from wire import V5, V31, V311, Will


def persistent(version: int) -> dict:
    """Arguments of a client whose Session outlives its connection."""
    more = {"properties_": {"session_expiry_interval": 300}} if version == V5 else {}
    return {"version": version, "clean": False, **more}


def test_a_session_queues_while_away_and_delivers_in_order(broker, name, version, qos):
    """Messages of QoS 1 and 2 that came while the client was away arrive in order after the resume [MQTT-4.6.0-6]."""
    sub = broker.client(name, **persistent(version))
    assert not sub.connack.session_present
    sub.subscribe((f"{name}/#", qos))
    sub.disconnect()
    with broker.client(name + "p", V311) as pub:
        for n in range(50):
            pub.publish(f"{name}/a", b"%d" % n, qos, packet_id=n + 1)
        with broker.client(name, **persistent(version)) as sub:
            assert sub.connack.session_present == (version != V31), "3.1 has no Session Present flag"
            if qos:
                assert [sub.take().payload for _ in range(50)] == [b"%d" % n for n in range(50)]
            pub.publish(f"{name}/end", b"", qos, packet_id=99)
            while sub.take().topic != f"{name}/end":
                assert qos == 0, "a message more than was published"


def test_an_unclean_end_keeps_the_session(broker, name, version):
    """A cut connection leaves subscriptions and Session in place, as a DISCONNECT does [MQTT-3.1.2-5]."""
    sub = broker.client(name, **persistent(version))
    sub.subscribe((name, 1))
    sub.close()
    with broker.client(name + "p", V311) as pub:
        pub.publish(name, b"x", 1)
        with broker.client(name, **persistent(version)) as sub:
            assert sub.take().payload == b"x"


def test_clean_start_discards_the_session(broker, name, version):
    """Clean Start 1 ends the old Session: nothing queued, nothing subscribed [MQTT-3.1.2-4]."""
    sub = broker.client(name, **persistent(version))
    sub.subscribe((f"{name}/a", 1))
    sub.disconnect()
    with broker.client(name + "p", version) as pub:
        pub.publish(f"{name}/a", b"x", 1)
        with broker.client(name, version, clean=True) as sub:
            assert not sub.connack.session_present
            sub.subscribe((f"{name}/end", 0))
            pub.publish(f"{name}/a", b"y", 1, packet_id=2)
            pub.publish(f"{name}/end")
            assert sub.take().topic == f"{name}/end"


def test_a_session_of_5_0_without_expiry_ends_with_its_connection(broker, name):
    """Session Expiry Interval absent is 0: the Session ends when the connection closes (3.1.2.11.2)."""
    broker.client(name, V5, clean=False).disconnect()
    with broker.client(name, V5, clean=False) as w:
        assert not w.connack.session_present


def test_a_session_expires(broker, name):
    """A Session is gone once its Session Expiry Interval has passed (3.1.2.11.2)."""
    expiry = {"session_expiry_interval": 1}
    w = broker.client(name, V5, clean=False, properties_=expiry)
    w.disconnect()
    with broker.client(name, V5, clean=False, properties_=expiry) as w:
        assert w.connack.session_present, "it had not passed yet"
        w.subscribe((name, 1))
        w.disconnect()
    # What expires cannot be heard; so an unrelated client's Will, due well after it, is the clock.
    with broker.client(name + "w", V5) as watch:
        watch.subscribe((f"{name}/clock", 0))
        will = Will(f"{name}/clock", b"", properties={"will_delay_interval": 3})
        broker.client(name + "c", V5, will=will, properties_={"session_expiry_interval": 30}).close()
        watch.take()
    with broker.client(name, V5, clean=False, properties_=expiry) as w:
        assert not w.connack.session_present


def test_disconnect_may_change_the_session_expiry(broker, name):
    """DISCONNECT carries a new Session Expiry Interval, 0 included (3.14.2.2.2)."""
    w = broker.client(name, V5, clean=False, properties_={"session_expiry_interval": 300})
    w.disconnect(properties_={"session_expiry_interval": 0})
    with broker.client(name, V5, clean=False) as w:
        assert not w.connack.session_present


def test_disconnect_may_not_raise_a_session_expiry_of_zero(broker, name):
    """From 0 to something else is a Protocol Error (3.14.2.2.2)."""
    with broker.client(name, V5) as w:
        w.send(wire.disconnect(V5, properties_={"session_expiry_interval": 10}))
        w.expect_disconnect(0x82)


def test_unacknowledged_messages_are_sent_again_with_dup(broker, name, version):
    """On resume, and only then, PUBLISH is resent with DUP and its Packet Identifier [MQTT-4.4.0-1, 3.3.1-1]."""
    sub = broker.client(name, **persistent(version))
    sub.subscribe((name, 2))
    with broker.client(name + "p", V311) as pub:
        pub.publish(name, b"one", 1, 1)
        pub.publish(name, b"two", 2, 2)
    first = {p.payload: p for p in (sub.expect(wire.PUBLISH), sub.expect(wire.PUBLISH))}
    assert not any(p.dup for p in first.values())
    sub.close()
    with broker.client(name, **persistent(version)) as sub:
        again = [sub.expect(wire.PUBLISH), sub.expect(wire.PUBLISH)]
        assert [p.payload for p in again] == [b"one", b"two"], "in their original order"
        assert all(p.dup and p.packet_id == first[p.payload].packet_id for p in again)


def test_a_pubrel_is_sent_again_on_resume(broker, name, version):
    """After PUBREC, resume repeats PUBREL, not PUBLISH [MQTT-4.4.0-1]."""
    sub = broker.client(name, **persistent(version))
    sub.subscribe((name, 2))
    with broker.client(name + "p", V311) as pub:
        pub.publish(name, b"x", 2)
    delivery = sub.expect(wire.PUBLISH)
    sub.send(wire.ack(wire.PUBREC, delivery.packet_id))
    sub.expect(wire.PUBREL)
    sub.close()
    with broker.client(name, **persistent(version)) as sub:
        assert sub.expect(wire.PUBREL).packet_id == delivery.packet_id
        sub.send(wire.ack(wire.PUBCOMP, delivery.packet_id))
        sub.ping()


def test_qos_2_is_deduplicated_across_connections(broker, name, version):
    """An inbound Packet Identifier outlives the connection: the repeat after resume is not delivered twice [MQTT-4.3.3-10]."""
    with broker.client(name + "s", V311) as sub:
        sub.subscribe((f"{name}/#", 0))
        pub = broker.client(name, **persistent(version))
        pub.send(wire.publish(f"{name}/a", b"x", 2, 9, version=version))
        pub.expect(wire.PUBREC)
        pub.close()
        with broker.client(name, **persistent(version)) as pub:
            pub.send(wire.publish(f"{name}/a", b"x", 2, 9, dup=True, version=version))
            assert pub.expect(wire.PUBREC).packet_id == 9
            pub.send(wire.ack(wire.PUBREL, 9))
            pub.expect(wire.PUBCOMP)
            pub.publish(f"{name}/end")
        assert [sub.take().topic, sub.take().topic] == [f"{name}/a", f"{name}/end"]


@pytest.mark.differs("closes without DISCONNECT")
def test_takeover_ends_the_old_connection(broker, name, version):
    """A second CONNECT with the Client Identifier closes the first; 5.0 hears 0x8E [MQTT-3.1.4-3]."""
    with broker.client(name, version) as old, broker.client(name, version) as new:
        old.expect_disconnect(0x8E)
        new.ping()


@pytest.mark.differs("closes without DISCONNECT")
@pytest.mark.parametrize("newer", [V311, V5])
@pytest.mark.parametrize("older", [V311, V5])
def test_takeover_keeps_the_session_across_versions(broker, name, older, newer):
    """The Session moves to the new connection with its subscriptions, whatever the two versions."""
    with broker.client(name, **persistent(older)) as old:
        old.subscribe((name, 1))
        with broker.client(name, **persistent(newer)) as new:
            assert new.connack.session_present
            old.expect_disconnect(0x8E)
            with broker.client(name + "p", V311) as pub:
                pub.publish(name, b"x", 1)
            assert new.take().payload == b"x"


@pytest.mark.differs("closes without DISCONNECT")
def test_the_server_assigns_a_client_identifier(broker):
    """An empty Client Identifier gets one, which 5.0 clients are told [MQTT-3.1.3-6, -3.2.2-16]."""
    with broker.client("", V5) as one, broker.client("", V5) as two:
        ids = [w.connack.properties["assigned_client_identifier"] for w in (one, two)]
        assert ids[0] and ids[0] != ids[1]
        with broker.client(ids[0], V5):
            one.expect_disconnect(0x8E)
            two.ping()


def test_an_empty_client_identifier_needs_a_clean_session(broker):
    """3.1.1: an empty identifier with Clean Session 0 is refused with 2 [MQTT-3.1.3-8]; 5.0 may have it."""
    with broker.wire(V311) as w:
        w.connect("", clean=False, expect=2)
        w.expect_closed()


# --- Will -------------------------------------------------------------------------------------------------------------


def test_a_will_is_published_when_the_connection_is_cut(broker, name, version, qos):
    """The Will is published at its QoS, whole, bytes of zero included [MQTT-3.1.2-8]."""
    with broker.client(name + "s", version) as sub:
        sub.subscribe((name, 2))
        broker.client(name, version, will=Will(name, b"a\0b\0", qos)).close()
        p = sub.take()
        assert (p.payload, p.qos, p.retain) == (b"a\0b\0", qos, False)


def test_a_retained_will_is_stored_when_it_is_published_and_not_before(broker, name, version):
    """Will Retain makes it a retained message at that moment [MQTT-3.1.2-15, -17]."""
    w = broker.client(name, version, will=Will(f"{name}/will", b"gone", 1, retain=True))
    with broker.client(name + "a", version) as early:
        early.subscribe((f"{name}/#", 0))
        early.publish(f"{name}/end")
        assert early.take().topic == f"{name}/end", "nothing is retained while the client lives"
        w.close()
        assert early.take().payload == b"gone"
    with broker.client(name + "l", version) as late:
        late.subscribe((f"{name}/#", 0))
        p = late.take()
        assert (p.payload, p.retain) == (b"gone", True)


def test_a_normal_disconnect_discards_the_will(broker, name, version):
    """DISCONNECT removes the Will [MQTT-3.14.4-3]."""
    with broker.client(name + "s", version) as sub:
        sub.subscribe((f"{name}/#", 0))
        broker.client(name, version, will=Will(f"{name}/will", b"x")).disconnect()
        sub.publish(f"{name}/end")
        assert sub.take().topic == f"{name}/end"


def test_disconnect_with_will_publishes_it(broker, name):
    """DISCONNECT 0x04 asks for the Will (3.14.2.1)."""
    with broker.client(name + "s", V5) as sub:
        sub.subscribe((name, 0))
        broker.client(name, V5, will=Will(name, b"x")).disconnect(0x04)
        assert sub.take().payload == b"x"


def test_a_protocol_error_publishes_the_will(broker, name, version):
    """A connection the server closes for an error fires the Will [MQTT-3.1.2-8]."""
    with broker.client(name + "s", version) as sub:
        sub.subscribe((name, 0))
        with broker.client(name, version, will=Will(name, b"x")) as w:
            w.send(wire.packet(0xF1 if version == V5 else 0xF0))
            w.expect_closed()
        assert sub.take().payload == b"x"


def test_a_takeover_publishes_the_will_of_the_old_connection(broker, name, version):
    """Taking over closes the old connection without its DISCONNECT, and so fires its Will (3.1.4)."""
    with broker.client(name + "s", version) as sub:
        sub.subscribe((name, 0))
        with broker.client(name, version, will=Will(name, b"x")), broker.client(name, version):
            assert sub.take().payload == b"x"


def test_will_delay_holds_the_will_back(broker, name):
    """Will Delay Interval: not before it has passed; a resume in time cancels it [MQTT-3.1.3-9]."""
    with broker.client(name + "s", V5) as sub:
        sub.subscribe((f"{name}/#", 0))
        delayed = Will(f"{name}/late", b"", properties={"will_delay_interval": 2})
        keep = {"session_expiry_interval": 60}
        broker.client(name + "1", V5, will=delayed, properties_=keep).close()
        cut = time.monotonic()
        cancelled = Will(f"{name}/cancelled", b"", properties={"will_delay_interval": 1})
        broker.client(name + "2", V5, will=cancelled, properties_=keep).close()
        with broker.client(name + "2", V5, clean=False, properties_=keep) as back:
            assert back.connack.session_present
            assert sub.take().topic == f"{name}/late"
            assert 1.5 < time.monotonic() - cut < 8


def test_the_end_of_the_session_fires_a_delayed_will_early(broker, name):
    """A Session that ends before the delay publishes the Will at once [MQTT-3.1.3-9]."""
    with broker.client(name + "s", V5) as sub:
        sub.subscribe((name, 0))
        will = Will(name, b"x", properties={"will_delay_interval": 600})
        broker.client(name, V5, will=will, properties_={"session_expiry_interval": 1}).close()
        assert sub.take(timeout=8).payload == b"x"


def test_will_properties_arrive_with_the_will(broker, name):
    """User Properties, Content Type, Response Topic and Correlation Data of a Will are forwarded (3.1.3.2)."""
    props = {"content_type": "t", "response_topic": "r", "correlation_data": b"c", "user_property": [("k", "v")]}
    with broker.client(name + "s", V5) as sub:
        sub.subscribe((name, 0))
        broker.client(name, V5, will=Will(name, b"x", properties={"will_delay_interval": 0, **props})).close()
        assert sub.take().properties == props


# --- The same through paho --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("version", [V311, V5])
def test_paho_resumes_a_session(broker, name, version, qos):
    """paho, 3.1.1 and 5.0: queued QoS 1 and 2 arrive after the reconnect, in order."""
    expiry = Properties(PacketTypes.CONNECT)
    expiry.SessionExpiryInterval = 300
    options = {"version": version, "clean": False, "properties": expiry if version == V5 else None}
    with Paho(broker, name, **options) as sub:
        assert not sub.flags.session_present
        sub.subscribe(f"{name}/#", 2)
    with Paho(broker) as pub:
        for n in range(10):
            pub.publish(f"{name}/t", b"%d" % n, qos)
    with Paho(broker, name, **options) as sub:
        assert sub.flags.session_present
        assert [sub.take().payload for _ in range(10)] == [b"%d" % n for n in range(10)]


@pytest.mark.differs("closes without DISCONNECT")
def test_paho_hears_why_it_was_taken_over(broker, name):
    """paho 5.0 reports Session taken over."""
    with Paho(broker, name, V5) as old:
        old.client.reconnect_delay_set(60, 60)
        with broker.client(name, V5):
            reason, _ = old.disconnected.get(timeout=wire.TIMEOUT)
            assert reason.value == 0x8E
            with pytest.raises(queue.Empty):
                old.connected.get_nowait()
