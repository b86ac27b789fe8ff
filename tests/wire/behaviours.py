"""The cases that need more than a list of steps: many connections, withheld acknowledgements, seeded noise, clocks.

Each is a function that gets a `runner.Context` and fails by an assertion. What its decorator says is what the case files
say in their `@` lines.
"""

import random
import time

import wire
from runner import Late, shown
from suite import LABELS, Case, size_of, statements_of
from wire import CONNACK, PINGREQ, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, V5, V31, V311, Closed

CASES: list[Case] = []

PING, PONG = b"\xc0\x00", b"\xd0\x00"
ALL = (V31, V311, V5)
BOTH = (V311, V5)


def case(group: str, name: str, row: str, proves: str = "", versions=BOTH, memory: str = ""):
    def add(function):
        for version in versions:
            label = LABELS[version]
            bound = size_of(memory) if memory else None
            CASES.append(
                Case(f"{name}@{label}", group, version, row, statements_of(proves, label), memory=bound, run=function)
            )
        return function

    return add


# --- Helpers ---------------------------------------------------------------------------------------------------------


def told_and_closed(context, peer, *codes: int) -> list[bytes]:
    """The connection ends: on 5.0 with CONNACK or DISCONNECT and one of these codes, on 3.x without. What came before."""
    expected = f"expected close {'|'.join(f'{code:02x}' for code in codes)}"
    try:
        packets = peer.until_end(context.runner.close_seconds)
    except Late:
        raise AssertionError(f"{expected}: came nothing, and the connection is open") from None
    if context.version != V5:
        return packets
    last = packets[-1] if packets else b""
    code = last[3 if last[:1] == b"\x20" else 2 :][:1]
    assert last[:1] in (b"\x20", b"\xe0") and code and code[0] in codes, f"{expected}: came {shown(packets, True)}"
    return packets[:-1]


def until_pong(peer) -> list:
    """Everything that the broker had to say: the packets before its answer to a PINGREQ."""
    peer.push(PING)
    found = []
    while (packet := peer.recv()).kind != wire.PINGRESP:
        found.append(packet)
    return found


def pong_seconds(peer) -> float:
    began = time.monotonic()
    peer.ping()
    return time.monotonic() - began


def best_of(tries: int, measure) -> float:
    """The shortest of several measurements: the machine may be busy, the broker may not be slow."""
    return min(measure() for _ in range(tries))


def fill(publisher, topic: str, count: int, qos: int = 1) -> None:
    """Publishes 0, 1, 2 … and awaits what acknowledges the last."""
    for n in range(count):
        publisher.push(wire.publish(topic, str(n).encode(), qos, n + 1, version=publisher.version))
    for n in range(count):
        answer = publisher.expect(PUBACK if qos == 1 else PUBREC)
        assert answer.packet_id == n + 1, f"acknowledged {answer.packet_id}, not {n + 1}"
    if qos == 2:
        # Not earlier: a PUBCOMP waits for no PUBREC of another message.
        for n in range(count):
            publisher.push(wire.ack(PUBREL, n + 1))
        for _ in range(count):
            publisher.expect(PUBCOMP)


def noise(seed: int, data: bytes, start: int = 0) -> bytes:
    """The bytes with up to eight mutations behind `start`: flipped, replaced, removed, doubled or inserted."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(min(start, len(out) - 1), len(out))
        match rng.randrange(5):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at] = rng.choice([0x00, 0x7F, 0x80, 0xFF, rng.randrange(256)])
            case 2 if len(out) > 2:
                del out[at : at + rng.randint(1, 4)]
            case 3:
                out[at:at] = out[at : at + rng.randint(1, 8)]
            case _:
                out[at:at] = rng.randbytes(rng.randint(1, 4))
    return bytes(out)


def survives(context, data: bytes) -> None:
    """Sends bytes to a connection of its own and closes the sending half: the broker must let go, whatever they were."""
    peer = context.open()
    peer.push(data)
    try:
        peer.socket.shutdown(1)
    except OSError:
        pass
    peer.until_end(wire.TIMEOUT)
    peer.close()


# --- Noise -----------------------------------------------------------------------------------------------------------


@case("framing", "random-bytes", "FH-27", versions=(V311,), memory="4M")
def random_bytes(context):
    for seed in range(50):
        rng = random.Random(2700 + seed)
        survives(context, rng.randbytes(rng.choice([1, 2, 5, 40, 300, 5000])))


@case("framing", "random-bytes-behind-connect", "FH-27", versions=BOTH, memory="4M")
def random_bytes_behind_connect(context):
    for seed in range(50):
        rng = random.Random(2750 + seed)
        survives(context, wire.connect(f"{context.token}{seed}", context.version) + rng.randbytes(rng.choice([2, 20, 300])))


@case("framing", "mutated-connect", "FH-28", versions=ALL, memory="4M")
def mutated_connect(context):
    for seed in range(50):
        properties = {"session_expiry_interval": 0, "receive_maximum": 10, "user_property": [("k", "v")]}
        whole = wire.connect(
            f"{context.token}{seed}", context.version, will=wire.Will("w/t", b"gone", 1), username="user", password="pass",
            properties_=properties if context.version == V5 else None,
        )
        survives(context, noise(2800 + seed, whole))


@case("framing", "mutated-session", "FH-29", versions=ALL, memory="4M")
def mutated_session(context):
    for seed in range(60):
        version, topic = context.version, f"{context.token}/{seed}"
        hello = wire.connect(f"{context.token}{seed}", version)
        work = [
            wire.subscribe([(topic, 1), (f"{topic}/+/#", 2)], 1, version),
            wire.publish(topic, b"one", 1, 7, version=version),
            wire.publish(topic, b"two", 2, 8, version=version),
            wire.ack(PUBREC, 8), wire.ack(PUBREL, 8), wire.ack(PUBCOMP, 8), wire.ack(PUBACK, 7),
            wire.packet(PINGREQ << 4),
            wire.unsubscribe([topic], 2, version),
            wire.disconnect(version),
        ]
        survives(context, hello + noise(2900 + seed, b"".join(work)))


# --- CONNECT ---------------------------------------------------------------------------------------------------------


@case("connect", "bad-wills-200", "CN-20", versions=(V5,), memory="1M")
def bad_wills(context):
    for n in range(200):
        peer = context.open()
        section = b"\x03\x21\x00\x01" if n % 2 else b"\x02\x7f\x00"
        body = wire.utf8("MQTT") + b"\x05\x06\x00\x3c\x00" + wire.utf8("c") + section + wire.utf8("w") + wire.utf8("x")
        peer.push(wire.packet(0x10, body))
        assert not told_and_closed(context, peer, 0x81, 0x82)
        peer.close()


@case("connect", "user-properties-are-quick", "CN-22", versions=(V5,))
def user_properties_are_quick(context):
    for count in (2000, 9000):
        def answered() -> float:
            peer = context.open()
            whole = wire.connect("", V5, properties_={"user_property": [("k", "v")] * count})
            began = time.monotonic()
            peer.push(whole)
            peer.next(wire.TIMEOUT)
            taken = time.monotonic() - began
            peer.close()
            return taken

        taken = best_of(3, answered)
        assert taken < 0.25, f"{count} User Properties kept it busy for {taken:.3f} s"


@case("connect", "assigned-ids-are-told", "CN-08", "5.0: MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16", versions=(V5,))
def assigned_ids_are_told(context):
    given = [context.connect("").connack.properties.get("assigned_client_identifier") for _ in range(20)]
    assert all(given) and len(set(given)) == 20, f"assigned: {given}"


# --- PUBLISH ---------------------------------------------------------------------------------------------------------


@case("publish", "above-maximum-packet-size", "PB-18", memory="1M")
def above_maximum_packet_size(context):
    maximum = context.runner.limits.get("maximum_packet_size")
    assert maximum, "no Maximum Packet Size is announced"
    peer = context.connect()
    # The whole packet, its Fixed Header included, is one byte too large.
    peer.push(b"\x30" + wire.varint(maximum + 1 - 1 - len(wire.varint(maximum))))
    assert not told_and_closed(context, peer, 0x95)


@case("publish", "256-mib-after-connect", "PB-18", memory="1M")
def quarter_of_a_gib(context):
    peer = context.connect()
    peer.push(b"\x32\xff\xff\xff\x7f\x00\x01a\x00\x01" + bytes(4096))
    assert not told_and_closed(context, peer, 0x95)


@case("publish", "of-maximum-packet-size", "PB-18")
def of_maximum_packet_size(context):
    maximum = context.runner.limits.get("maximum_packet_size") or 1 << 20
    publisher, subscriber = context.connect(), context.connect()
    subscriber.subscribe((context.token, 0))
    empty = len(wire.publish(context.token, bytes(1 << 16), version=context.version)) - (1 << 16)
    payload = bytes(maximum - empty)
    whole = wire.publish(context.token, payload, version=context.version)
    payload = payload[: len(payload) - (len(whole) - maximum)]
    publisher.push(wire.publish(context.token, payload, version=context.version))
    assert subscriber.take().payload == payload
    publisher.ping()


@case("publish", "deep-topics-are-quick", "PB-19")
def deep_topics_are_quick(context):
    peer = context.connect()

    def answered() -> float:
        began = time.monotonic()
        other = context.connect()
        other.push(wire.publish("/" * 65535, b"", 1, 1, version=context.version))
        other.next(wire.TIMEOUT)
        return time.monotonic() - began

    taken = best_of(3, answered)
    assert taken < 0.25, f"a topic of 65,536 levels kept it busy for {taken:.3f} s"
    peer.ping()


# --- SUBSCRIBE -------------------------------------------------------------------------------------------------------


@case("subscribe", "many-deep-wildcards-are-quick", "SB-02")
def many_deep_wildcards(context):
    rng = random.Random(2)
    subscriber, publisher = context.connect(), context.connect()
    deep = ["/".join([context.token, *(rng.choice("+a") for _ in range(99))]) for _ in range(64)]
    for n in range(0, 64, 16):
        subscriber.subscribe(*((topic_filter, 0) for topic_filter in deep[n : n + 16]), packet_id=n + 1)
    topic = "/".join([context.token, *["a"] * 99])

    def answered() -> float:
        began = time.monotonic()
        publisher.publish(topic, b"x", 1)
        return time.monotonic() - began

    taken = best_of(3, answered)
    assert taken < 1, f"one message for 64 filters of 100 levels took {taken:.3f} s"
    assert all(packet.topic == topic for packet in until_pong(subscriber))


@case(
    "subscribe", "filters-2000", "SB-11",
    "5.0: MQTT-3.8.4-6, MQTT-3.8.4-5, MQTT-3.9.3-1; 3.1.1: MQTT-3.8.4-5, MQTT-3.8.4-4, MQTT-3.9.3-1",
)
def filters_2000(context):
    peer = context.connect()
    peer.push(wire.subscribe([(f"{context.token}/{n}", n % 3) for n in range(2000)], 9, context.version))
    answer = peer.expect(SUBACK)
    assert (answer.packet_id, answer.reasons) == (9, [n % 3 for n in range(2000)]), len(answer.reasons)
    peer.publish(f"{context.token}/1998", b"x")
    assert peer.take().topic == f"{context.token}/1998"


@case("subscribe", "overlapping-200", "SB-12")
def overlapping_200(context):
    subscriber, publisher = context.connect(), context.connect()
    levels = [f"l{n}" for n in range(8)]
    masks = [n for n in range(256) if n][:200]
    filters = [
        "/".join([context.token, *("+" if mask >> n & 1 else level for n, level in enumerate(levels))]) for mask in masks
    ]
    subscriber.subscribe(*((topic_filter, 0) for topic_filter in filters))
    topic = "/".join([context.token, *levels])
    taken = best_of(3, lambda: pong_after_publish(publisher, topic))
    assert taken < 0.25, f"200 overlapping filters took {taken:.3f} s"
    copies = until_pong(subscriber)
    assert 3 <= len(copies) <= 600 and all(copy.topic == topic for copy in copies), f"{len(copies)} copies of 3 messages"


def pong_after_publish(publisher, topic: str) -> float:
    began = time.monotonic()
    publisher.publish(topic, b"x", 1)
    return time.monotonic() - began


# --- QoS -------------------------------------------------------------------------------------------------------------


@case("session", "same-id-5000", "QS-06", memory="2M")
def same_id_5000(context):
    peer = context.connect()
    one = wire.publish(context.token, b"x" * 100, 2, 7, dup=True, version=context.version)
    for _ in range(50):
        peer.push(one * 100)
        try:
            for _ in range(100):
                assert peer.expect(PUBREC).packet_id == 7
        except Closed:
            return
    peer.push(wire.ack(PUBREL, 7))
    assert peer.expect(PUBCOMP).packet_id == 7


@case("session", "above-receive-maximum", "QS-07", versions=(V5,))
def above_receive_maximum(context):
    quota = context.runner.limits.get("receive_maximum", 65535)
    peer = context.connect()
    for n in range(1, quota + 3):
        peer.push(wire.publish(context.token, b"", 2, n if n < 65536 else 1, version=V5))
    taken = len(told_and_closed(context, peer, 0x93))
    assert taken == quota, f"{taken} PUBREC before it where {quota} are allowed"


@case("session", "all-of-receive-maximum", "QS-07", versions=(V5,))
def all_of_receive_maximum(context):
    quota = min(context.runner.limits.get("receive_maximum", 65535), 2000)
    peer = context.connect()
    for _ in range(2):
        for n in range(1, quota + 1):
            peer.push(wire.publish(context.token, b"", 2, n, version=V5))
        for n in range(1, quota + 1):
            assert peer.expect(PUBREC).packet_id == n
        for n in range(1, quota + 1):
            peer.push(wire.ack(PUBREL, n))
        for n in range(1, quota + 1):
            assert peer.expect(PUBCOMP).packet_id == n
    peer.ping()


@case("session", "qos2-without-pubrel-3", "QS-07", versions=(V311,), memory="4M")
def qos2_without_pubrel_on_3(context):
    # Nobody told a client of 3.1.1 how many it may have open: its identifiers bound them.
    peer = context.connect()
    for n in range(1, 1001):
        peer.push(wire.publish(context.token, b"", 2, n))
    try:
        for n in range(1, 1001):
            assert peer.expect(PUBREC).packet_id == n
    except Closed:
        return
    peer.ping()


def withheld(context, qos: int) -> None:
    quota, count = 5, 60
    subscriber = context.connect(properties_={"receive_maximum": quota})
    subscriber.subscribe((context.token, qos))
    fill(context.connect(), context.token, count, qos)
    flying, seen = [], []

    def look() -> None:
        for packet in until_pong(subscriber):
            if packet.kind == PUBLISH:
                assert packet.packet_id not in flying, f"identifier {packet.packet_id} is in flight twice"
                flying.append(packet.packet_id)
                seen.append(int(packet.payload))
        assert len(flying) <= quota, f"{len(flying)} messages in flight where {quota} are allowed"

    look()
    while flying:
        one = flying[0]
        if qos == 2:
            subscriber.push(wire.ack(PUBREC, one))
            assert subscriber.expect(PUBREL).packet_id == one
            look()
            subscriber.push(wire.ack(PUBCOMP, one))
        else:
            subscriber.push(wire.ack(PUBACK, one))
        flying.pop(0)
        look()
    assert seen == list(range(count)), f"{len(seen)} messages of {count}, or out of order"


@case("session", "acks-withheld", "QS-08", "5.0: MQTT-3.3.4-9, MQTT-4.9.0-2", versions=(V5,))
def acks_withheld(context):
    withheld(context, 1)


@case("session", "acks-withheld-qos2", "QS-08", "5.0: MQTT-3.3.4-9, MQTT-4.9.0-2", versions=(V5,))
def acks_withheld_qos2(context):
    withheld(context, 2)


@case("session", "others-are-not-held-back", "QS-08", "5.0: MQTT-3.3.4-10, MQTT-4.9.0-3", versions=(V5,))
def others_are_not_held_back(context):
    subscriber, publisher = context.connect(properties_={"receive_maximum": 1}), context.connect()
    subscriber.subscribe((f"{context.token}/+", 1))
    fill(publisher, f"{context.token}/1", 3)
    assert len(until_pong(subscriber)) == 1
    publisher.publish(f"{context.token}/0", b"zero")
    publisher.ping()
    (zero,) = until_pong(subscriber)
    assert (zero.qos, zero.payload) == (0, b"zero")
    subscriber.subscribe(("other", 0), packet_id=2)
    subscriber.unsubscribe("other", packet_id=3)


@case("session", "acks-in-reverse", "QS-09", "5.0: MQTT-2.2.1-4, MQTT-4.6.0-5; 3.1.1: MQTT-2.3.1-4, MQTT-4.6.0-6")
def acks_in_reverse(context):
    subscriber = context.connect()
    subscriber.subscribe((context.token, 1))
    fill(context.connect(), context.token, 100)
    seen = []
    while len(seen) < 100:
        window = until_pong(subscriber)
        ids = [packet.packet_id for packet in window]
        assert window and len(set(ids)) == len(ids) and 0 not in ids, f"identifiers {ids}"
        seen += [int(packet.payload) for packet in window]
        for packet_id in reversed(ids):
            subscriber.push(wire.ack(PUBACK, packet_id))
    assert seen == list(range(100))


@case("session", "ids-in-a-burst", "QS-10", "5.0: MQTT-2.2.1-4, MQTT-4.3.2-1; 3.1.1: MQTT-2.3.1-4, MQTT-4.3.2-1")
def ids_in_a_burst(context):
    subscriber, publisher = context.connect(), context.connect()
    subscriber.subscribe((context.token, 1))
    flying, seen = set(), []
    for n in range(150):
        publisher.push(wire.publish(context.token, str(n).encode(), 1, n + 1, version=context.version))
        if n % 10 == 9:
            # Every second one is acknowledged, the others stay in flight.
            for _ in range(5):
                packet = subscriber.expect(PUBLISH)
                assert packet.packet_id and packet.packet_id not in flying, packet.packet_id
                seen.append(int(packet.payload))
                flying.add(packet.packet_id)
            for packet_id in sorted(flying)[::2]:
                subscriber.push(wire.ack(PUBACK, packet_id))
                flying.discard(packet_id)
    while len(seen) < 150:
        for packet_id in list(flying):
            subscriber.push(wire.ack(PUBACK, packet_id))
        flying.clear()
        for packet in until_pong(subscriber):
            assert packet.packet_id not in flying
            flying.add(packet.packet_id)
            seen.append(int(packet.payload))
    assert seen == list(range(150))


# --- Retained messages and Wills -------------------------------------------------------------------------------------


@case("session", "retained-2000", "RT-01", "5.0: MQTT-3.3.1-6, MQTT-3.3.1-9; 3.1.1: MQTT-3.3.1-6, MQTT-3.3.1-10")
def retained_2000(context):
    publisher = context.connect()
    for n in range(2000):
        publisher.push(wire.publish(f"{context.token}/{n}", b"x" * 64, retain=True, version=context.version))
    publisher.ping()
    subscriber, other = context.connect(), context.connect()
    subscriber.push(wire.subscribe([(f"{context.token}/#", 0)], 1, context.version))
    waited = pong_seconds(other)
    assert waited < 1, f"another client's PINGREQ waited {waited:.3f} s"
    subscriber.expect(SUBACK)
    topics = set()
    while len(topics) < 2000:
        packet = subscriber.expect(PUBLISH)
        assert packet.retain and packet.topic not in topics, packet.topic
        topics.add(packet.topic)
    subscriber.ping()
    for n in range(2000):
        publisher.push(wire.publish(f"{context.token}/{n}", b"", retain=True, version=context.version))
    publisher.ping()
    late = context.connect()
    late.subscribe((f"{context.token}/#", 0))
    assert not until_pong(late)


@case("session", "delay-above-expiry", "WL-02", "5.0: MQTT-3.1.2-8", versions=(V5,))
def delay_above_expiry(context):
    subscriber = context.connect()
    subscriber.subscribe((f"{context.token}/#", 0))
    for n in range(5):
        will = wire.Will(f"{context.token}/{n}", b"gone", properties={"will_delay_interval": 600})
        peer = context.connect(will=will, properties_={"session_expiry_interval": 1})
        peer.reset()
    assert {subscriber.take().topic for _ in range(5)} == {f"{context.token}/{n}" for n in range(5)}


@case("session", "wills-of-8-kib", "WL-04", "5.0: MQTT-3.1.2-8; 3.1.1: MQTT-3.1.2-8", memory="8M")
def wills_of_8_kib(context):
    subscriber = context.connect()
    subscriber.subscribe((f"{context.token}/#", 0))
    payload = bytes(range(256)) * 32
    peers = [context.connect(will=wire.Will(f"{context.token}/{n}", payload)) for n in range(50)]
    for peer in peers:
        peer.reset()
    seen = set()
    for _ in range(50):
        packet = subscriber.take()
        assert packet.payload == payload
        seen.add(packet.topic)
    assert len(seen) == 50


# --- Sessions --------------------------------------------------------------------------------------------------------


@case("session", "takeovers-200", "SS-01", "3.1.1: MQTT-3.1.4-2")
def takeovers_200(context):
    hello = wire.connect(f"{context.token}x", context.version, clean=False)
    peers = [context.open() for _ in range(200)]
    for peer in peers:
        peer.push(hello)
    for peer in peers:
        assert peer.expect(CONNACK).reason == 0
    # Whoever still is connected answers; the others come to their end.
    alive = 0
    for peer in peers:
        peer.push(PING)
        while (packet := peer.next(wire.TIMEOUT)) not in (None, PONG):
            assert packet[0] == 0xE0 and context.version == V5 and packet[2] == 0x8E, packet.hex()
        alive += packet == PONG
    assert alive == 1, f"{alive} of 200 connections with one Client Identifier live"


def queued(context, count: int) -> list[int]:
    """What comes to a client that was away while messages were published."""
    options = {"properties_": {"session_expiry_interval": 300}} if context.version == V5 else {}
    away = context.connect(f"{context.token}x", clean=False, **options)
    away.subscribe((context.token, 1))
    away.disconnect()
    publisher = context.connect()
    for start in range(0, count, 20):
        for n in range(start, start + 20):
            publisher.push(wire.publish(context.token, str(n).encode(), 1, n % 20 + 1, version=context.version))
        for _ in range(20):
            publisher.expect(PUBACK)
    back = context.open()
    back.push(wire.connect(f"{context.token}x", context.version, clean=False, **options))
    first = back.expect(CONNACK)
    assert first.session_present, "the Session is gone"
    seen = []
    while True:
        packets = [packet for packet in until_pong(back) if packet.kind == PUBLISH]
        if not packets:
            return seen
        for packet in packets:
            seen.append(int(packet.payload))
            back.push(wire.ack(PUBACK, packet.packet_id))


@case("session", "resume-with-200", "SS-03", "5.0: MQTT-3.2.0-1, MQTT-4.5.0-1; 3.1.1: MQTT-3.1.2-5, MQTT-3.2.0-1")
def resume_with_200(context):
    seen = queued(context, 200)
    assert seen == list(range(200)), f"{len(seen)} of 200, or out of order"


@case("session", "queue-is-bounded", "SS-04", memory="8M")
def queue_is_bounded(context):
    seen = queued(context, 3000)
    assert seen == sorted(set(seen)), "out of order, or twice"
    assert seen and len(seen) <= 3000, len(seen)


@case("session", "connect-and-reset-100", "SS-07", versions=ALL, memory="2M")
def connect_and_reset(context):
    for n in range(100):
        peer = context.open()
        peer.push(wire.connect(f"{context.token}{n}", context.version))
        peer.reset()


@case("session", "reset-in-mid-subscribe", "SS-08", versions=ALL, memory="2M")
def reset_in_mid_subscribe(context):
    whole = wire.subscribe([(f"{context.token}/{n}/+/#", 1) for n in range(50)], 1, context.version)
    for n in range(60):
        peer = context.connect()
        peer.push(whole[: 1 + n * len(whole) // 60])
        peer.reset()


@case("session", "reset-behind-subscribe", "SS-08", versions=ALL, memory="2M")
def reset_behind_subscribe(context):
    whole = wire.subscribe([("#", 0), (f"{context.token}/#", 2)], 1, context.version)
    for _ in range(60):
        peer = context.connect()
        peer.push(whole)
        peer.reset()


