"""The clients of kill9.py: each goes on after a kill as the protocol says, and complains of what it should not have seen."""

import collections
import selectors
import time

import wire
from wire import CONNACK, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, UNSUBACK, V5, V31, Closed, Will, Wire

WINDOW = 12
RETAINED_TOPICS = 12
CHURNED_FILTERS = 8
SIZES = (*(0, 1, 10, 100, 1000) * 4, 20_000, 20_000, 300_000)


def topic_of(name: str, n: int) -> str:
    return f"k/{name}/{n % 2}"


def qos_of(n: int) -> int:
    return 1 + n // 2 % 2


def payload_of(name: str, n: int, size: int) -> bytes:
    return b"%s:%d:" % (name.encode(), n) + (b"%d," % n * size)[:size]


def size_in(payload: bytes) -> int:
    return len(payload.split(b":", 2)[2])


class Actor:
    """A client with a durable Session that goes on after each kill."""

    def __init__(self, rig, name: str, version: int, receive_maximum: int | None = None):
        self.rig, self.name, self.version = rig, name, version
        self.properties = {"session_expiry_interval": 0xFFFF_FFFF} if version == V5 else None
        if receive_maximum:
            self.properties["receive_maximum"] = receive_maximum
        self.wire: Wire | None = None
        self.is_ready = self.has_session = self.may_have_session = False
        self.wanted = True
        self.pinged = False

    def violation(self, text: str) -> None:
        self.rig.violation(f"{self.name}: {text}")

    def connect(self) -> None:
        try:
            self.wire = Wire(self.rig.broker.address, self.version)
        except OSError:
            return
        self.rig.selector.register(self.wire.socket, selectors.EVENT_READ, self)
        self.may_have_session = True
        self.send(self.connect_packet())

    def connect_packet(self) -> bytes:
        return wire.connect(self.name, self.version, clean=False, properties_=self.properties)

    def lose(self) -> None:
        """The connection is gone, with or without a word."""
        if self.wire:
            self.rig.selector.unregister(self.wire.socket)
            self.wire.close()
        self.wire, self.is_ready, self.pinged = None, False, False

    def leave(self, politely: bool) -> None:
        if self.wire and politely and self.is_ready:
            self.send(wire.disconnect(self.version))
        self.lose()

    def send(self, *packets: bytes) -> None:
        try:
            if self.wire:
                self.wire.send(*packets)
        except OSError:
            pass  # whoever reads finds out, after what came before

    def read(self) -> None:
        """What has come."""
        try:
            while self.wire:
                found = self.wire._frame()
                if not found:
                    if not self.wire_has_data():
                        return
                    self.wire._fill(time.monotonic() + 1)
                    continue
                self.take(wire.parse(*found, self.version))
        except (Closed, OSError):
            self.lose()

    def wire_has_data(self) -> bool:
        return bool(self.rig.waits(self.wire.socket))

    def read_to_the_end(self) -> None:
        """What the broker had sent before it died."""
        while self.wire:
            self.wire.socket.settimeout(5)
            self.read()

    def take(self, p) -> None:
        if p.kind == CONNACK:
            if p.reason:
                return self.violation(f"CONNACK 0x{p.reason:02x}")
            if self.has_session and not p.session_present and self.version != V31:
                self.violation("the Session is gone")
            if p.session_present and not self.may_have_session:
                self.violation("a Session that nobody made")
            self.is_ready = self.has_session = True
            self.resume()
        elif p.kind == PINGRESP:
            self.pinged = False
        elif p.kind == wire.DISCONNECT:
            self.violation(f"DISCONNECT 0x{p.reason:02x}")
        else:
            self.handle(p)

    def resume(self) -> None:
        pass

    def handle(self, p) -> None:
        self.violation(f"unexpected {p}")

    def step(self) -> None:
        """Does what it does by itself."""
        if self.wanted and not self.wire:
            self.connect()

    def ping(self) -> None:
        if self.wire and self.is_ready:
            self.pinged = True
            self.send(wire.packet(0xC0))


class Publisher(Actor):
    """Publishes, and finishes every exchange, however often it is interrupted."""

    def __init__(self, rig, name: str, version: int):
        super().__init__(rig, name, version)
        self.next = 0
        self.free = collections.deque(range(1, 4 * WINDOW))
        # Packet Identifier -> [what the next packet is, the arguments of PUBLISH]; in the order of the first sending.
        self.unfinished: dict[int, list] = {}
        self.is_paused = False

    def message(self, n: int) -> dict:
        size = self.rig.random.choice(SIZES)
        return {"topic": topic_of(self.name, n), "payload": payload_of(self.name, n, size), "qos": qos_of(n)}

    def step(self) -> None:
        super().step()
        while self.is_ready and not self.is_paused and len(self.unfinished) < WINDOW:
            packet_id, message = self.free.popleft(), self.message(self.next)
            self.next += 1
            self.unfinished[packet_id] = [PUBLISH, message]
            self.publish(packet_id, message)
            if self.rig.random.random() < 0.3:
                break

    def publish(self, packet_id: int, message: dict, dup: bool = False) -> None:
        self.rig.counts["published again" if dup else "published"] += 1
        self.send(wire.publish(**message, packet_id=packet_id, dup=dup, version=self.version))

    def resume(self) -> None:
        for packet_id, (kind, message) in self.unfinished.items():
            if kind == PUBLISH:
                self.publish(packet_id, message, dup=True)
            else:
                self.send(wire.ack(PUBREL, packet_id))

    def handle(self, p) -> None:
        exchange = self.unfinished.get(p.packet_id)
        if p.kind not in (PUBACK, PUBREC, PUBCOMP) or not exchange:
            return self.violation(f"unexpected {p}")
        # What was sent again may be answered twice, and a PUBREL for what is finished says so.
        is_expected = {PUBACK: exchange[1]["qos"] == 1, PUBREC: exchange[1]["qos"] == 2, PUBCOMP: exchange[0] == PUBREL}[p.kind]
        if not is_expected or p.reason not in (0, 0x10, 0x92):
            return self.violation(f"unexpected {p} for {exchange[1]['topic']}")
        if p.kind == PUBREC:
            exchange[0] = PUBREL
            self.accepted(exchange[1])
            return self.send(wire.ack(PUBREL, p.packet_id))
        if p.kind == PUBACK:
            self.accepted(exchange[1])
        del self.unfinished[p.packet_id]
        self.free.append(p.packet_id)

    def accepted(self, message: dict) -> None:
        self.rig.counts["acknowledged"] += 1

    def is_done(self) -> bool:
        return not self.unfinished

    def oldest(self) -> int:
        """The number of the first message that is not finished."""
        return min((int(message["payload"].split(b":", 2)[1]) for _, message in self.unfinished.values()), default=self.next)


class Retainer(Publisher):
    """Sets and clears retained messages; knows of each topic what may be there."""

    def __init__(self, rig, name: str, version: int):
        super().__init__(rig, name, version)
        # By topic: everything that was sent from the last acknowledged one on, by number.
        self.sent: dict[str, list] = collections.defaultdict(lambda: [(-1, b"")])

    def message(self, n: int) -> dict:
        number = self.rig.random.randrange(RETAINED_TOPICS)
        topic, qos = f"r/{number}", 1 + number % 2  # of one QoS, so that there is an order also in what is sent again
        payload = b"" if self.rig.random.random() < 0.3 else b"%d" % n
        self.sent[topic].append((n, payload))
        return {"topic": topic, "payload": payload, "qos": qos, "retain": True, "n": n}

    def publish(self, packet_id: int, message: dict, dup: bool = False) -> None:
        super().publish(packet_id, {k: v for k, v in message.items() if k != "n"}, dup)

    def accepted(self, message: dict) -> None:
        super().accepted(message)
        sent = self.sent[message["topic"]]
        sent[:] = [one for one in sent if one[0] >= message["n"]]

    def check(self, found: dict[str, bytes]) -> None:
        for n in range(RETAINED_TOPICS):
            topic = f"r/{n}"
            allowed = {payload for _, payload in self.sent[topic]}
            if found.get(topic, b"") not in allowed:
                self.violation(f"retained in {topic} is {found.get(topic)}, not one of {sorted(allowed)}")


class Renewable(Actor):
    """One whose Session may end by Clean Start: `is_clean` says that its next one does."""

    def __init__(self, rig, name: str, version: int, receive_maximum: int | None = None):
        super().__init__(rig, name, version, receive_maximum)
        self.open: dict[int, bytes] = {}  # QoS 2 identifiers between PUBLISH and PUBREL, with what came
        self.is_subscribed = self.is_clean = False

    def connect(self) -> None:
        if self.is_clean:
            self.has_session = self.is_subscribed = False
            self.open.clear()
        super().connect()

    def connect_packet(self) -> bytes:
        return wire.connect(self.name, self.version, clean=self.is_clean, properties_=self.properties)


class Subscriber(Renewable):
    """Has one Subscription from the beginning. `habits` are what it does: ack slowly, come and go, stay away, have its Session
    ended by Clean Start, which gives back what it was owed as a member of a Shared Subscription."""

    def __init__(self, rig, name: str, version: int, qos: int = 2, habits=(), share: str = "", receive_maximum=None):
        super().__init__(rig, name, version, receive_maximum)
        self.qos, self.habits, self.share = qos, habits, share
        self.received: collections.Counter = collections.Counter()
        self.arrivals: dict = {}  # in the order of the last copy of each
        self.answers: list[bytes] = []

    def resume(self) -> None:
        self.is_clean = False
        if not self.is_subscribed:
            topic_filter = f"$share/{self.share}/k/#" if self.share else "k/#"
            self.send(wire.subscribe([(topic_filter, self.qos)], 1, self.version))

    def lose(self) -> None:
        self.answers.clear()
        super().lose()

    def handle(self, p) -> None:
        match p.kind:
            case 9:
                self.is_subscribed = True
                return None
            case 3:
                self.on_publish(p)
            case 6:
                self.open.pop(p.packet_id, None)
                self.answer(wire.ack(PUBCOMP, p.packet_id))
            case _:
                self.violation(f"unexpected {p}")
        return None

    def on_publish(self, p) -> None:
        if p.qos == 2:
            if p.packet_id in self.open:
                if self.open[p.packet_id] != p.payload or not p.dup:
                    self.violation(f"Packet Identifier {p.packet_id} of {self.open[p.packet_id][:20]} is {p.payload[:20]}'s too")
            else:
                self.open[p.packet_id] = p.payload
                self.deliver(p)
            self.answer(wire.ack(PUBREC, p.packet_id))
        else:
            self.deliver(p)
            self.answer(wire.ack(PUBACK, p.packet_id))

    def deliver(self, p) -> None:
        self.rig.counts["delivered"] += 1
        name, number, _ = p.payload.split(b":", 2)
        name, n = name.decode(), int(number)
        publisher = self.rig.publishers.get(name)
        if not publisher or n >= publisher.next or p.topic != topic_of(name, n):
            return self.violation(f"{p.topic} {p.payload[:20]} was never published")
        if p.payload != payload_of(name, n, size_in(p.payload)):
            self.violation(f"{p.topic} {p.payload[:20]} came changed")
        if p.qos != min(self.qos, qos_of(n)):
            self.violation(f"{p.payload[:20]} came with QoS {p.qos}")
        is_new = n >= self.rig.floor[name] and not self.received[name, n]
        if not is_new:
            self.rig.counts["delivered again"] += 1
            if p.qos == 2:
                self.violation(f"QoS 2 message {p.payload[:20]} came again")
        self.received[name, n] += 1
        if n >= self.rig.floor[name]:
            self.arrivals.pop((name, n), None)
            self.arrivals[name, n] = None
        return None

    def check_order(self) -> None:
        """The last copies are in the order of publishing, among those of one publisher, topic and QoS (4.6): what was not
        acknowledged when the broker died is all sent again, after what may have been taken of it."""
        latest: dict = {}
        for name, n in self.arrivals:
            stream = (topic_of(name, n), qos_of(n))
            if latest.setdefault(stream, n) > n:
                self.violation(f"{stream[0]}, QoS {stream[1]}: {n} came after {latest[stream]}")
            latest[stream] = n
        self.arrivals.clear()

    def answer(self, packet: bytes) -> None:
        if "slow" in self.habits and not self.rig.is_draining:
            self.answers.append(packet)
        else:
            self.send(*self.answers, packet)
            self.answers.clear()

    def step(self) -> None:
        chance = self.rig.random.random()
        if self.rig.is_draining:
            self.wanted = True
        elif "away" in self.habits:
            self.wanted = False
        elif "flapping" in self.habits and chance < 0.02:
            self.wanted = not self.wanted
        elif "renewing" in self.habits and chance < 0.01 and self.is_subscribed:
            self.is_clean = True
            self.lose()
        if self.wire and not self.wanted:
            self.leave(politely=chance < 0.01)
        super().step()
        if self.answers and (chance > 0.8 or self.rig.is_draining):
            self.send(*self.answers)
            self.answers.clear()

    def missing(self) -> list[tuple]:
        """What it has not, and should."""
        return [key for key in self.rig.expected() if not self.received[key]]


class Churner(Actor):
    """Subscribes and unsubscribes; knows of each filter what may be so."""

    def __init__(self, rig, name: str, version: int):
        super().__init__(rig, name, version)
        self.acknowledged = dict.fromkeys(range(CHURNED_FILTERS), False)
        self.pending: tuple | None = None  # (subscribes?, filters)
        self.packet_id = 1

    def step(self) -> None:
        super().step()
        if self.is_ready and not self.pending:
            filters = self.rig.random.sample(range(CHURNED_FILTERS), self.rig.random.randrange(1, 4))
            self.pending = (self.rig.random.random() < 0.5, filters)
            self.ask()

    def ask(self) -> None:
        self.packet_id = self.packet_id % 1000 + 1
        subscribes, filters = self.pending
        if subscribes:
            pairs = [(f"c/{n}", self.rig.random.randrange(3)) for n in filters]
            self.send(wire.subscribe(pairs, self.packet_id, self.version))
        else:
            self.send(wire.unsubscribe([f"c/{n}" for n in filters], self.packet_id, self.version))

    def resume(self) -> None:
        if self.pending:
            self.ask()

    def handle(self, p) -> None:
        if p.kind in (SUBACK, UNSUBACK) and self.pending and p.packet_id == self.packet_id:
            subscribes, filters = self.pending
            self.acknowledged.update(dict.fromkeys(filters, subscribes))
            self.pending = None
            self.rig.counts["subscriptions changed"] += 1
        elif p.kind == PUBLISH:
            if p.qos:
                self.send(wire.ack(PUBACK if p.qos == 1 else PUBREC, p.packet_id))
        elif p.kind == PUBREL:
            self.send(wire.ack(PUBCOMP, p.packet_id))
        else:
            self.violation(f"unexpected {p}")

    def check(self, found: dict[int, bool]) -> None:
        subscribes, filters = self.pending or (None, ())
        for n, is_there in found.items():
            allowed = {self.acknowledged[n], subscribes if n in filters else self.acknowledged[n]}
            if is_there not in allowed:
                self.violation(f"c/{n} is {'' if is_there else 'not '}subscribed to")


class Renewer(Renewable):
    """Ends its Session again and again by Clean Start, and has another one: nothing of an earlier one may come back."""

    def __init__(self, rig, name: str, version: int):
        super().__init__(rig, name, version)
        self.since: dict[str, int] = {}

    def resume(self) -> None:
        self.is_clean = False
        if not self.is_subscribed:
            # What is published later may be its own, and what is sent again because it had not been taken before.
            self.since = self.since or {name: one.oldest() for name, one in self.rig.publishers.items()}
            self.send(wire.subscribe([("k/#", 2)], 1, self.version))

    def step(self) -> None:
        # Of two connections that have not been let in yet either may take over the other.
        if self.is_ready and self.is_subscribed and not self.rig.is_draining and self.rig.random.random() < 0.01:
            self.is_clean, self.since = True, {}
            self.lose()
        super().step()

    def handle(self, p) -> None:
        if p.kind == SUBACK:
            self.is_subscribed = True
        elif p.kind == PUBREL:
            self.open.pop(p.packet_id, None)
            self.send(wire.ack(PUBCOMP, p.packet_id))
        elif p.kind == PUBLISH:
            name, number, _ = p.payload.split(b":", 2)
            if int(number) < self.since.get(name.decode(), 0):
                self.violation(f"{p.payload[:20]} is from an earlier Session")
            if p.qos == 2 and self.open.setdefault(p.packet_id, p.payload) != p.payload:
                self.violation(f"Packet Identifier {p.packet_id} is used for two messages")
            self.send(wire.ack(PUBREC if p.qos == 2 else PUBACK, p.packet_id))


class Mortal(Actor):
    """Has a Will with the number of its life in it, and dies often: of each kill, by closing, or politely."""

    def __init__(self, rig, name: str, version: int):
        super().__init__(rig, name, version)
        self.properties = None
        self.life = 0
        self.may, self.must = {0}, set()
        """Lives of which a Will may be published once, and of which one has to be."""

    def connect(self) -> None:
        self.life += 1
        self.may.add(self.life)
        self.has_session = False
        super().connect()

    def connect_packet(self) -> bytes:
        will = Will(f"w/{self.name}", b"%d" % self.life, 2)
        return wire.connect(self.name, self.version, clean=True, will=will)

    def resume(self) -> None:
        self.must.add(self.life)

    def step(self) -> None:
        chance = self.rig.random.random()
        if self.is_ready and (chance < 0.02 or self.rig.is_draining):
            if chance < 0.005:
                self.must.discard(self.life)
            self.leave(politely=chance < 0.005)
        if not self.rig.is_draining:
            super().step()


class Watcher(Actor):
    """Gets the Wills, each once."""

    def __init__(self, rig, name: str, version: int):
        super().__init__(rig, name, version)
        self.is_subscribed = False
        self.open: dict[int, tuple] = {}
        self.received: collections.Counter = collections.Counter()

    def resume(self) -> None:
        if not self.is_subscribed:
            self.send(wire.subscribe([("w/#", 2)], 1, self.version))

    def handle(self, p) -> None:
        if p.kind == SUBACK:
            self.is_subscribed = True
        elif p.kind == PUBREL:
            self.open.pop(p.packet_id, None)
            self.send(wire.ack(PUBCOMP, p.packet_id))
        elif p.kind == PUBLISH:
            name, life = p.topic.removeprefix("w/"), int(p.payload)
            if p.packet_id not in self.open:
                self.open[p.packet_id] = (name, life)
                self.received[name, life] += 1
                self.rig.counts["Wills"] += 1
            elif self.open[p.packet_id] != (name, life) or not p.dup:
                self.violation(f"Packet Identifier {p.packet_id} is used for two messages")
            self.send(wire.ack(PUBREC, p.packet_id))

    def lacks(self) -> list[str]:
        return [f"Will {life} of {m.name}" for m in self.rig.mortals for life in m.must if not self.received[m.name, life]]

    def check(self) -> None:
        for (name, life), count in self.received.items():
            mortal = next(m for m in self.rig.mortals if m.name == name)
            if count > 1 or life not in mortal.may:
                self.violation(f"Will {life} of {name} came {count} times")
