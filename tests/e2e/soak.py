#!/usr/bin/env python3
"""The soak: many paho clients of mixed versions and QoS publish for a while; every message must arrive once, in order.

    .venv/bin/python tests/e2e/soak.py --bin target/release/sol --clients 1000 --seconds 60

Client n speaks version n % 3, publishes to its own topic at QoS n // 3 % 3 and is subscribed to its neighbour's topic,
so every topic has one publisher and one subscriber, usually of other versions. One client also publishes to a topic
that all are subscribed to. No client reconnects; so QoS 1 may not duplicate here either, and as nobody is slow, QoS 0
may not be lost. A few processes share the clients, each with one select loop.
"""

import argparse
import collections
import multiprocessing
import pathlib
import selectors
import sys
import tempfile
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

import broker as e2e

VERSIONS = (3, 4, 5)
DRAIN_SECS = 60.0
BROADCAST = "soak/all"


class Soaker:
    """One client: its paho object, what it sent and what it got."""

    def __init__(self, number: int, total: int, selector, port: int):
        self.number, self.source = number, (number + 1) % total
        self.qos = number // 3 % 3
        self.selector, self.events = selector, 0
        self.sent = self.broadcasts = self.ready = self.unacked = 0
        self.got: list[int] = []
        self.got_all: list[int] = []
        self.failures: list[str] = []
        version = VERSIONS[number % 3]
        self.client = paho.Client(CallbackAPIVersion.VERSION2, f"soak{number}", protocol=version)
        self.client.max_queued_messages_set(0)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish
        self.client.on_disconnect = lambda _c, _u, _f, reason, _p: self.failures.append(f"disconnected: {reason}")
        self.client.on_socket_open = lambda _c, _u, s: self._watch(s, selectors.EVENT_READ)
        self.client.on_socket_close = lambda _c, _u, s: self._watch(s, 0)
        self.client.on_socket_register_write = lambda _c, _u, s: self._watch(s, selectors.EVENT_READ | selectors.EVENT_WRITE)
        self.client.on_socket_unregister_write = lambda _c, _u, s: self._watch(s, selectors.EVENT_READ)
        self.client.connect("127.0.0.1", port, keepalive=60)

    def _watch(self, sock, events: int) -> None:
        if self.events == 0 and events:
            self.selector.register(sock, events, self)
        elif self.events and not events:
            self.selector.unregister(sock)
        elif events != self.events:
            self.selector.modify(sock, events, self)
        self.events = events

    def _on_connect(self, client, _userdata, _flags, reason, _properties) -> None:
        if reason != 0:
            self.failures.append(f"CONNACK {reason}")
        client.subscribe([(f"soak/{self.source}", self.number % 2 + 1), (BROADCAST, self.number % 3)])

    def _on_subscribe(self, _client, _userdata, _mid, reasons, _properties) -> None:
        self.ready = 1
        if any(r.is_failure for r in reasons):
            self.failures.append(f"SUBACK {reasons}")

    def _on_message(self, _client, _userdata, message) -> None:
        (self.got_all if message.topic == BROADCAST else self.got).append(int(message.payload))

    def _on_publish(self, _client, _userdata, _mid, _reason, _properties) -> None:
        self.unacked -= 1

    def publish(self) -> None:
        self.unacked += 1
        self.client.publish(f"soak/{self.number}", b"%d" % self.sent, self.qos)
        self.sent += 1

    def broadcast(self) -> None:
        self.unacked += 1
        self.client.publish(BROADCAST, b"%d" % self.broadcasts, 2)
        self.broadcasts += 1


class Worker:
    """One process: its clients and their loop. Talks with the parent over `pipe`."""

    def __init__(self, numbers: range, options, port: int, pipe):
        self.options, self.pipe = options, pipe
        self.selector = selectors.DefaultSelector()
        self.misc_due = 0.0
        self.clients = []
        for number in numbers:
            self.clients.append(Soaker(number, options.clients, self.selector, port))
            self.turn(0)
        self.turn_until(lambda: all(c.ready for c in self.clients), DRAIN_SECS)

    def turn(self, timeout: float) -> None:
        for key, events in self.selector.select(timeout):
            client = key.data.client
            if events & selectors.EVENT_READ:
                client.loop_read()
            if events & selectors.EVENT_WRITE:
                client.loop_write()
        if time.monotonic() > self.misc_due:
            self.misc_due = time.monotonic() + 1
            for c in self.clients:
                c.client.loop_misc()

    def turn_until(self, condition, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self.turn(0.05)

    def publish_for(self, seconds: float) -> None:
        """Publishes at an even pace, in turn over all clients of this process."""
        pace = len(self.clients) / self.options.clients * self.options.rate
        start, done, last_broadcast = time.monotonic(), 0, -1
        while (now := time.monotonic() - start) < seconds:
            while done < now * pace:
                self.clients[done % len(self.clients)].publish()
                done += 1
            if self.clients[0].number == 0 and int(now) > last_broadcast:
                last_broadcast = int(now)
                self.clients[0].broadcast()
            self.turn(0.01)

    def drain(self, sent: dict, broadcasts: int) -> None:
        def complete() -> bool:
            return all(len(c.got) >= sent[c.source] and len(c.got_all) >= broadcasts and not c.unacked for c in self.clients)

        self.turn_until(complete, DRAIN_SECS)
        self.turn_until(lambda: False, 1.0)  # a duplicate would come late

    def findings(self, sent: dict, broadcasts: int) -> dict:
        totals, faults = collections.Counter(), []
        for c in self.clients:
            for got, expected, what in ((c.got, sent[c.source], f"soak/{c.source}"), (c.got_all, broadcasts, BROADCAST)):
                doubled = len(got) - len(set(got))
                lost = expected - len(set(got))
                totals.update(received=len(got), lost=lost, doubled=doubled, disordered=int(got != sorted(got)))
                if got != list(range(expected)):
                    faults.append(f"client {c.number}, {what}: {lost} lost, {doubled} doubled of {expected}")
            totals.update(unacknowledged=c.unacked, failures=len(c.failures))
            faults += [f"client {c.number}: {text}" for text in c.failures]
        return {"totals": totals, "faults": faults}


def work(numbers: range, options, port: int, pipe) -> None:
    worker = Worker(numbers, options, port, pipe)
    pipe.send(sum(c.ready for c in worker.clients))
    pipe.recv()
    worker.publish_for(options.seconds)
    pipe.send({c.number: (c.sent, c.broadcasts) for c in worker.clients})
    while not pipe.poll():
        worker.turn(0.02)
    sent, broadcasts = pipe.recv()
    worker.drain(sent, broadcasts)
    pipe.send(worker.findings(sent, broadcasts))
    while not pipe.poll():  # nobody leaves while others still wait for their messages
        worker.turn(0.02)


def soak(options, port: int) -> bool:
    edges = [options.clients * n // options.processes for n in range(options.processes + 1)]
    pipes, processes = [], []
    for first, last in zip(edges, edges[1:]):
        ours, theirs = multiprocessing.Pipe()
        pipes.append(ours)
        processes.append(multiprocessing.Process(target=work, args=(range(first, last), options, port, theirs)))
        processes[-1].start()
    ready = sum(p.recv() for p in pipes)
    print(f"{ready} of {options.clients} clients are connected and subscribed", flush=True)
    for p in pipes:
        p.send("go")
    counts: dict = {}
    for p in pipes:
        counts.update(p.recv())
    sent = {number: count for number, (count, _) in counts.items()}
    broadcasts = counts[0][1]
    for p in pipes:
        p.send((sent, broadcasts))
    totals, faults = collections.Counter(), []
    for p in pipes:
        found = p.recv()
        totals.update(found["totals"])
        faults += found["faults"]
    for p, process in zip(pipes, processes):
        p.send("stop")
        process.join(10)
    for fault in faults[:20]:
        print(fault)
    expected = sum(sent.values()) + broadcasts * options.clients
    print(
        f"{options.clients} clients, {options.seconds:g} s: {sum(sent.values()) + broadcasts} published, "
        f"{expected} deliveries expected, {totals['received']} received, {totals['lost']} lost, "
        f"{totals['doubled']} doubled, {totals['disordered']} streams out of order, "
        f"{totals['unacknowledged']} unacknowledged, {totals['failures']} connections failed"
    )
    return ready == options.clients and not faults and not totals["unacknowledged"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", help="binary to start (default: SOL_BIN or target/debug/sol)")
    parser.add_argument("--port", type=int, help="use the broker that listens there instead of starting one")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1000, help="messages per second, all clients together")
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()
    if options.port:
        return 0 if soak(options, options.port) else 1
    if options.bin:
        e2e.os.environ["SOL_BIN"] = str(pathlib.Path(options.bin).resolve())
    with tempfile.TemporaryDirectory() as directory:
        broker = e2e.Broker(pathlib.Path(directory))
        try:
            clean = soak(options, broker.port)
            return 0 if clean and broker.alive() and broker.terminate() == 0 else 1
        finally:
            broker.stop()


if __name__ == "__main__":
    sys.exit(main())
