#!/usr/bin/env python3
"""The broker is killed again and again while clients work; nothing that it acknowledged may be lost.

    .venv/bin/python tests/e2e/kill9.py --bin target/release/sol --rounds 300 --mode os

In each round publishers of QoS 1 and 2, subscribers (quick and slow, here and away, coming and going, members of a Shared
Subscription), one client that sets and clears retained messages and one that subscribes and unsubscribes are at work until
SIGKILL ends the broker at a random moment. It is started again on the same directory with some other number of shards
(and sometimes killed while it starts), and every client goes on as the protocol says: what is not acknowledged is sent
again, with DUP and its Packet Identifier. All have durable Sessions. Checked:

- every message arrives at every subscriber: QoS 2 once, QoS 1 once or more, each QoS of a topic in order, unchanged;
- of a Shared Subscription, at one member, also when the Session of one that was owed it ends;
- the Will of whoever was connected, or was cut off, comes once, and nothing of a Session that has ended comes back;
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

from durable import MODES, Durable
from kill9_clients import CHURNED_FILTERS, Churner, Mortal, Publisher, Renewer, Retainer, Subscriber, Watcher, qos_of
from wire import V5, V31, V311

DRAIN_SECS = 60.0
DRAIN_EVERY = 10
CONFIG = "max_queued_messages 0\nmax_inflight_messages 0"
VIOLATIONS_TOLD = 20
MEMBERS = ((), ("flapping",), ("away",))
"""Habits of the members of the Shared Subscription whose Sessions last."""


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
            *(Subscriber(self, f"share{n}", V5, share="g", habits=habits) for n, habits in enumerate(MEMBERS)),
            Subscriber(self, "staying", V5, qos=1, share="h"),
            Subscriber(self, "ending", V5, qos=1, share="h", habits=("renewing", "slow"), receive_maximum=5),
        ]
        self.mortals = [Mortal(self, f"mortal{version}", version) for version in (V31, V311, V5)]
        self.watcher = Watcher(self, "watcher", V5)
        others = [self.retainer, self.churner, Renewer(self, "renewer", V5), *self.mortals, self.watcher]
        self.actors = [*self.subscribers, *publishers, *others]

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
        if not self.turn_until(lambda: all(s.is_subscribed for s in [*self.subscribers, self.watcher]), DRAIN_SECS):
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
        self.counts["tails cut"] += self.broker.log().count("not whole, and nothing says that it was durable")
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
        groups = [[s for s in self.subscribers if s.share == share] for share in ("g", "h")]

        def shared_missing() -> list[tuple]:
            expected = self.expected()
            return [(g[0].share, *key) for g in groups for key in expected if not any(s.received[key] for s in g)]

        def is_drained() -> bool:
            is_done = all(p.is_done() for p in self.publishers.values()) and not self.watcher.lacks()
            return is_done and not any(s.missing() for s in alone) and not shared_missing()

        if not self.turn_until(is_drained, self.drain_secs):
            for one in self.publishers.values():
                if one.unfinished:
                    self.violation(f"{one.name} waits for answers: {list(one.unfinished.items())[:3]}")
            for one in alone:
                if one.missing():
                    self.violation(f"{one.name} lacks {len(one.missing())}: {one.missing()[:5]}")
            if shared_missing():
                self.violation(f"the Shared Subscriptions lack {len(shared_missing())}: {shared_missing()[:5]}")
            for what in self.watcher.lacks():
                self.violation(f"{what} was not published")
        self.finish(groups[0])

    def finish(self, together) -> None:
        for one in (*self.subscribers, self.watcher):
            one.ping()
        self.turn_until(lambda: not any(one.pinged for one in (*self.subscribers, self.watcher)), DRAIN_SECS)
        self.watcher.check()
        for name, n in self.expected():
            times = sum(s.received[name, n] for s in together)
            if qos_of(n) == 2 and times > 1:
                self.violation(f"QoS 2 message {name}:{n} came to {times} members of the Shared Subscription")
        for s in self.subscribers:
            if not s.share:
                s.check_order()
            s.received.clear()
        self.floor = {name: one.next for name, one in self.publishers.items()}
        self.go_on()

    def run(self, rounds: int) -> bool:
        self.begin()
        for self.round in range(1, rounds + 1):
            self.kill()
            self.again()
            is_last = self.round == rounds or len(self.violations) >= VIOLATIONS_TOLD
            # Before it gives up, too: what is missing says more than all that came twice.
            if is_last or self.round % DRAIN_EVERY == 0:
                self.drain()
            if is_last:
                break
        self.counts["segments"] = int(self.broker.segments[-1].stem, 16) if self.broker.segments else 0
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
