#!/usr/bin/env python3
"""The broker is killed again and again while clients work; nothing that it acknowledged may be lost.

    .venv/bin/python tests/e2e/kill9.py --bin target/release/sol --rounds 300 --mode os

In each round publishers of QoS 1 and 2, subscribers (quick and slow, here and away, coming and going, members of a Shared
Subscription), one client that sets and clears retained messages and one that subscribes and unsubscribes are at work until
SIGKILL ends the broker at a random moment. It is started again on the same directory with some other number of shards
(and sometimes killed while it starts), and every client goes on as the protocol says: what is not acknowledged is sent
again, with DUP and its Packet Identifier. All have durable Sessions. Checked:

- every message arrives at every subscriber: QoS 2 once, QoS 1 once or more, each QoS of a topic in order, unchanged;
- of a Shared Subscription, at one member;
- a retained message is the one acknowledged last, or one sent after that; a Subscription is there, or is not, likewise;
- no Session is lost whose CONNACK has come; no Packet Identifier is used for two messages at a time.

The last line counts; the exit status is 1 if there was a violation. The seed gives the same choices again, not the
same moments.
"""

import argparse
import collections
import os
import pathlib
import random
import selectors
import sys
import tempfile
import time

import wire
from durable import MODES, Durable
from wire import CONNACK, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, UNSUBACK, V5, V31, V311, Closed, Wire

DRAIN_SECS = 60.0
DRAIN_EVERY = 10
WINDOW = 12
RETAINED_TOPICS = 12
CHURNED_FILTERS = 8
CONFIG = "max_queued_messages 0\nmax_inflight_messages 0"
VIOLATIONS_TOLD = 20


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
        self.send(wire.connect(self.name, self.version, clean=False, properties_=self.properties))

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
        size = self.rig.random.choice((0, 1, 10, 100, 100, 1000, 20_000))
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


class Subscriber(Actor):
    """Has one Subscription from the beginning. `habits` are what it does: ack slowly, come and go, stay away."""

    def __init__(self, rig, name: str, version: int, qos: int = 2, habits=(), share: str = "", receive_maximum=None):
        super().__init__(rig, name, version, receive_maximum)
        self.qos, self.habits, self.share = qos, habits, share
        self.received: collections.Counter = collections.Counter()
        self.latest: dict = {}
        self.open: dict[int, bytes] = {}  # QoS 2 identifiers between PUBLISH and PUBREL, with what came
        self.answers: list[bytes] = []
        self.is_subscribed = False

    def resume(self) -> None:
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
        stream = (p.topic, qos_of(n), name)
        if is_new and not self.share and self.latest.get(stream, -1) > n:
            self.violation(f"{p.topic} {p.payload[:20]} came after {self.latest[stream]}")
        self.latest[stream] = max(n, self.latest.get(stream, -1))
        return None

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


def topic_of(name: str, n: int) -> str:
    return f"k/{name}/{n % 2}"


def qos_of(n: int) -> int:
    return 1 + n // 2 % 2


def payload_of(name: str, n: int, size: int) -> bytes:
    return b"%s:%d:" % (name.encode(), n) + (b"%d," % n * size)[:size]


def size_in(payload: bytes) -> int:
    return len(payload.split(b":", 2)[2])


class Rig:
    """The broker, its clients, and what they found."""

    def __init__(self, directory: pathlib.Path, mode: str, seed: int):
        self.random = random.Random(seed)
        self.mode, self.seed = mode, seed
        self.selector = selectors.DefaultSelector()
        self.violations: list[str] = []
        self.counts: collections.Counter = collections.Counter()
        self.is_draining = False
        self.round = 0
        self.drain_secs = DRAIN_SECS
        self.after_kill = lambda: None
        self.broker = Durable(directory, CONFIG, mode=mode, shards=self.shards())
        publishers = [Publisher(self, f"p{n}", version) for n, version in enumerate((V5, V311, V5, V31))]
        self.publishers = {one.name: one for one in publishers}
        self.floor = dict.fromkeys(self.publishers, 0)
        self.retainer, self.churner = Retainer(self, "retainer", V5), Churner(self, "churner", V5)
        self.subscribers = [
            Subscriber(self, "quick5", V5),
            Subscriber(self, "quick311", V311),
            Subscriber(self, "quick1", V5, qos=1),
            Subscriber(self, "slow", V5, habits=("slow",), receive_maximum=7),
            Subscriber(self, "away", V311, habits=("away",)),
            Subscriber(self, "flapping5", V5, habits=("flapping",)),
            Subscriber(self, "flapping31", V31, habits=("flapping", "slow")),
            *(Subscriber(self, f"share{n}", V5, share="g", habits=habits) for n, habits in enumerate(((), ("flapping",), ("away",)))),
        ]
        self.actors = [*self.subscribers, *publishers, self.retainer, self.churner]

    def shards(self) -> int:
        return self.random.choice((1, 2, 3, 4))

    def violation(self, text: str) -> None:
        self.violations.append(f"round {self.round}: {text}")

    def waits(self, sock) -> bool:
        return any(key.fd == sock.fileno() for key, _ in self.selector.select(0))

    def turn(self, timeout: float = 0.002) -> None:
        for key, _ in self.selector.select(timeout):
            if key.data.wire:
                key.data.read()
        for actor in self.actors:
            actor.step()

    def turn_until(self, condition, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not (done := condition()) and time.monotonic() < deadline:
            self.turn()
        return done

    def begin(self) -> None:
        """All Subscriptions are there before the first message."""
        for one in self.publishers.values():
            one.is_paused = True
        self.is_draining = True
        if not self.turn_until(lambda: all(s.is_subscribed for s in self.subscribers), DRAIN_SECS):
            self.violation("not all could subscribe")
        self.go_on()

    def go_on(self) -> None:
        self.is_draining = False
        for one in self.publishers.values():
            one.is_paused = False

    def kill(self) -> None:
        """At a random moment: while everybody is still coming back, or later."""
        moment = time.monotonic() + self.random.choice((0.02, 0.1, 0.1, 0.3)) * (0.2 + self.random.random())
        while time.monotonic() < moment:
            self.turn()
        self.broker.kill()
        for actor in self.actors:
            actor.read_to_the_end()
        self.after_kill()

    def again(self) -> None:
        for _ in range(2):
            if self.random.random() < 0.15:
                self.counts["killed while starting"] += 1
                self.broker.begin_and_kill(self.random.random() * 0.1, self.shards())
        self.broker.again(shards=self.shards())
        if " ERROR " in self.broker.log():
            self.violation(f"the log says: {self.broker.log()}")
        self.counts["tails cut"] += self.broker.log().count("were not whole")
        if self.random.random() < 0.5:
            self.look()

    def look(self) -> None:
        """What is retained and subscribed to, before anybody else comes."""
        with self.broker.client("", V5) as w:
            w.publish("the-last", b"x", 1, retain=True)
            w.subscribe(("r/+", 2), ("the-last", 1), packet_id=2)
            found = {}
            while (p := w.take()).topic != "the-last":
                found[p.topic] = p.payload
            self.retainer.check(found)
            reasons = {n: w.publish(f"c/{n}", b"", 1, packet_id=10 + n).reason for n in range(CHURNED_FILTERS)}
            self.churner.check({n: reason == 0 for n, reason in reasons.items()})

    def expected(self) -> list[tuple]:
        return [(name, n) for name, one in self.publishers.items() for n in range(self.floor[name], one.next)]

    def drain(self) -> None:
        """Nothing new is published, everybody is here, and all that is owed arrives."""
        self.is_draining = True
        for one in self.publishers.values():
            one.is_paused = True
        alone = [s for s in self.subscribers if not s.share]
        together = [s for s in self.subscribers if s.share]

        def shared_missing() -> list[tuple]:
            return [key for key in self.expected() if not any(s.received[key] for s in together)]

        def is_drained() -> bool:
            return all(p.is_done() for p in self.publishers.values()) and not any(s.missing() for s in alone) and not shared_missing()

        if not self.turn_until(is_drained, self.drain_secs):
            for one in self.publishers.values():
                if one.unfinished:
                    self.violation(f"{one.name} waits for answers: {list(one.unfinished.items())[:3]}")
            for one in alone:
                if one.missing():
                    self.violation(f"{one.name} lacks {len(one.missing())}: {one.missing()[:5]}")
            if shared_missing():
                self.violation(f"the Shared Subscription lacks {len(shared_missing())}: {shared_missing()[:5]}")
        self.finish(together)

    def finish(self, together) -> None:
        for s in self.subscribers:
            s.ping()
        self.turn_until(lambda: not any(s.pinged for s in self.subscribers), DRAIN_SECS)
        for name, n in self.expected():
            times = sum(s.received[name, n] for s in together)
            if qos_of(n) == 2 and times > 1:
                self.violation(f"QoS 2 message {name}:{n} came to {times} members of the Shared Subscription")
        for s in self.subscribers:
            s.received.clear()
        self.floor = {name: one.next for name, one in self.publishers.items()}
        self.go_on()

    def run(self, rounds: int) -> bool:
        self.begin()
        for self.round in range(1, rounds + 1):
            self.kill()
            self.again()
            if self.round % DRAIN_EVERY == 0 or self.round == rounds:
                self.drain()
            if len(self.violations) >= VIOLATIONS_TOLD:
                break
        for text in self.violations[:VIOLATIONS_TOLD]:
            print(text)
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        print(f"mode {self.mode}, seed {self.seed}: {self.round} kills, {counts}, {len(self.violations)} violations", flush=True)
        return not self.violations


def kill9(mode: str, rounds: int, seed: int, keep: pathlib.Path | None = None) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(keep or pathlib.Path(directory), mode, seed)
        try:
            return rig.run(rounds)
        finally:
            rig.broker.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", help="binary to start (default: SOL_BIN or target/debug/sol)")
    parser.add_argument("--mode", choices=MODES, help="one of the modes (default: both)")
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("KILL_ROUNDS", "300")), help="kills in each mode (300)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--keep", type=pathlib.Path, help="a directory for configuration, log and journal, which stay")
    options = parser.parse_args()
    if options.bin:
        os.environ["SOL_BIN"] = str(pathlib.Path(options.bin).resolve())
    modes = [options.mode] if options.mode else MODES
    clean = [kill9(mode, options.rounds, options.seed, options.keep) for mode in modes]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
