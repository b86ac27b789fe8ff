"""The disk behind the journal fails (EIO): the broker says so, and what it has acknowledged is kept."""

import contextlib
import errno
import itertools
import os
import pathlib
import re
import subprocess

import pytest

import wire
from broker import wait_until
from durable import Durable, Member, flush, start_on_its_port
from faulty_disk import FaultyDisk, NotHere
from wire import DISCONNECT, PUBACK, PUBCOMP, PUBREC, PUBREL, TIMEOUT, V5, Closed

pytestmark = pytest.mark.sol

EIO = os.strerror(errno.EIO)
IO_ERROR = 74
MESSAGE = 60_000

BEFORE = [b"before %d" % n for n in range(10)]
HALF = b"has its PUBREC"
AFTER = [b"after %d" % n for n in range(10)]


class OnFaultyDisk(Durable):
    """A broker whose journal's disk fails when it is told to."""

    def __init__(self, directory: pathlib.Path, *args, **options):
        self.disk = FaultyDisk(directory / "data" / "sol-journal")
        super().__init__(directory, *args, **options)

    def _spawn(self) -> None:
        with open(self.log_file, "wb") as log:
            options = {"stdout": log, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "cwd": self.directory}
            try:
                self.process = self.disk.start(self.command, **options)
            except NotHere as why:
                pytest.skip(str(why))

    @property
    def journal(self) -> pathlib.Path:
        return self.disk.directory

    def starts(self) -> bool:
        """Whether it comes to serve, or ends before. (That its port is still in use is no end.)"""

        def comes_or_ends() -> bool:
            self._spawn()
            wait_until(lambda: "data directory: " in self.log() or not self.alive(), "start or end", timeout=30)
            assert " is in use" not in self.log().splitlines()[-1], self.log()
            return "data directory: " in self.log()

        return start_on_its_port(comes_or_ends)

    def has_failed(self, why: str) -> None:
        """It ends with the exit code and the sentence that are promised, which stands once in the log and once at its end."""
        assert self.process.wait(TIMEOUT) == IO_ERROR, self.log()
        sentence = f"the journal in {self.journal} has failed, and nothing is acknowledged any more: "
        assert self.log().endswith("\n")
        told = [line for line in self.log().splitlines() if sentence in line]
        assert len(told) == 2 and " ERROR " in told[0], self.log()
        assert re.fullmatch(f"sol: error: {re.escape(sentence)}{why}: {EIO}", told[1]), told[1]
        assert self.log().count(" ERROR ") == 1 and "os error" not in self.log() and "panicked" not in self.log()

    def has_not_started(self) -> str:
        """It has ended with the exit code and the one sentence that are promised: what that says of the journal. (Of the broker
        before it the system may still have the port.)"""
        assert self.process.wait(TIMEOUT) == IO_ERROR, self.log()
        said = [line for line in self.log().splitlines() if " INFO " not in line and "the port is in use" not in line]
        assert len(said) == 1, self.log()
        found = re.fullmatch(f"sol: error: the journal in {self.journal} cannot be used: (cannot .+): {EIO}", said[0])
        assert found, said[0]
        return found[1]


@pytest.fixture
def start(start_broker):
    """start(config, mode, shards): a broker on a disk that may fail."""
    return lambda config="", **options: start_broker(config, cls=OnFaultyDisk, **options)


class Exchange:
    """A subscriber that is away, a publisher of QoS 1 and one of QoS 2; all three have a Session that is kept. What is
    acknowledged is known, and what is not."""

    def __init__(self, broker):
        self.broker = broker
        self.subscriber = Member(broker, "subscriber")
        self.subscriber.wire.subscribe(("of/#", 2))
        self.subscriber.wire.close()
        self.publishers = {qos: Member(broker, f"publisher-{qos}") for qos in (1, 2)}
        for qos, publisher in self.publishers.items():
            for payload in BEFORE:
                assert publisher.wire.publish(f"of/{qos}", payload, qos).reason == 0
        self.publishers[2].wire.send(wire.publish("of/2", HALF, 2, 99, version=V5))
        assert self.publishers[2].wire.expect(PUBREC).packet_id == 99

    def publish(self) -> None:
        """More of both, whose acknowledgements nobody awaits."""
        for qos, publisher in self.publishers.items():
            publisher.wire.send(*self._unanswered(qos))

    @staticmethod
    def _unanswered(qos: int, dup: bool = False) -> list[bytes]:
        topic = f"of/{qos}"
        return [wire.publish(topic, payload, qos, 100 + n, dup=dup, version=V5) for n, payload in enumerate(AFTER)]

    def is_silent(self) -> None:
        """The broker has read all of it, still serves, and has acknowledged nothing."""
        for publisher in self.publishers.values():
            publisher.wire.ping()

    def ends_silently(self) -> None:
        for publisher in self.publishers.values():
            assert [p for p in publisher.wire.expect_closed() if p.kind != DISCONNECT] == []

    def again(self) -> None:
        """The publishers are back after a restart, and go on where they were, as they have to."""
        for qos, publisher in self.publishers.items():
            w = publisher.back()
            w.send(*self._unanswered(qos, dup=True))
            answers = [w.expect(PUBACK if qos == 1 else PUBREC) for _ in AFTER]
            assert [p.packet_id for p in answers] == [100 + n for n in range(len(AFTER))]
            if qos == 2:
                identifiers = [99, *(p.packet_id for p in answers)]
                w.send(*(wire.ack(PUBREL, identifier) for identifier in identifiers))
                completed = [w.expect(PUBCOMP) for _ in identifiers]
                assert [(p.packet_id, p.reason) for p in completed] == [(identifier, 0) for identifier in identifiers]

    def is_whole(self) -> None:
        """The subscriber gets all of it: in order, and what is of QoS 2 exactly once."""
        got = flush(self.broker, self.subscriber.back(), "of/0")
        once = [p.payload for p in got if p.topic == "of/1"]
        twice = once[len(BEFORE) :]
        assert once[: len(BEFORE)] == BEFORE
        assert twice in (AFTER, AFTER + AFTER), "what was not acknowledged was kept as a whole, or not at all"
        assert [p.payload for p in got if p.topic == "of/2"] == [*BEFORE, HALF, *AFTER]


def acknowledged(packets) -> list[int]:
    assert {p.kind for p in packets} <= {PUBACK, DISCONNECT}
    return [p.packet_id for p in packets if p.kind == PUBACK]


def until_pong(w) -> list:
    w.send(wire.packet(0xC0))
    return list(iter(w.recv, wire.Packet(wire.PINGRESP, 0, b"")))


# --- While it runs ---------------------------------------------------------------------------------------------------

FAILURES = [
    ("fsync", 1, "fdatasync", "sync"),
    ("fsync", 3, "fdatasync", "sync"),
    ("fsync", 3, "pwrite64", "write"),
    ("os", 1, "pwrite64", "write"),
    ("os", 3, "pwrite64", "write"),
]


@pytest.mark.parametrize(("mode", "shards", "call", "doing"), FAILURES, ids=lambda value: str(value))
def test_nothing_is_acknowledged_once_the_disk_has_failed(start, mode, shards, call, doing):
    """What waits for a write, or for a sync, that fails is not acknowledged, nor is what comes behind it. All that was is there
    after a restart, in order; and what was not is taken again, of QoS 2 no second time."""
    broker = start("max_queued_messages 0", mode=mode, shards=shards)
    exchange = Exchange(broker)
    fault = broker.disk.fail(call, is_held=True)
    exchange.publish()
    assert fault.reached.wait(TIMEOUT)
    exchange.is_silent()
    fault.let_go()
    exchange.ends_silently()
    broker.has_failed(f"cannot {doing} {broker.segments[0].name}")
    broker.again()
    exchange.again()
    exchange.is_whole()


def test_a_sync_beside_that_fails_ends_it_too(start):
    """In mode `os` acknowledgements do not wait for the sync that is made once a second. When it fails there are no more of them,
    and all that were sent before stand."""
    broker = start("max_queued_messages 0", shards=3)
    exchange = Exchange(broker)
    fault = broker.disk.fail("fdatasync", is_held=True)
    w = exchange.publishers[1].wire
    for payload in AFTER:
        assert w.publish("of/1", payload, 1).reason == 0
        assert fault.reached.wait(TIMEOUT), "there is something to sync"
    fault.let_go()
    taken = [*BEFORE, *AFTER]
    with contextlib.suppress(Closed, ConnectionError):
        for n in itertools.count():
            w.send(wire.publish("of/1", b"%d" % n, 1, version=V5))
            if (p := w.recv()).kind == DISCONNECT:
                break
            assert (p.kind, p.reason) == (PUBACK, 0)
            taken.append(b"%d" % n)
    broker.has_failed(f"cannot sync {broker.segments[0].name}")
    broker.again()
    got = [p.payload for p in flush(broker, exchange.subscriber.back(), "of/0") if p.topic == "of/1"]
    assert got in (taken, [*taken, b"%d" % n]), "the last one was written, or was not"


@pytest.mark.parametrize("call", ["fallocate", "pwrite64", "fdatasync", "fsync"])
@pytest.mark.parametrize("mode", ["os", "fsync"])
def test_a_next_segment_that_cannot_be_made_ends_it(start, mode, call):
    """An error where room is made ahead is no full disk: nobody is told to wait. It ends as with any other, and the segment that
    was begun is not there."""
    broker = start("max_queued_messages 0", mode=mode, shards=1)
    subscriber = Member(broker, "subscriber")
    subscriber.wire.subscribe(("of/#", 1))
    subscriber.wire.close()
    there = wait_until(lambda: len(broker.segments) == 3 and broker.segments, "two segments ahead")
    new = f"{int(there[-1].stem, 16) + 1:016x}.seg"
    fault = broker.disk.fail(call, "sol-journal" if call == "fsync" else new, is_held=True)
    payloads = {n: b"%d:" % n + b"x" * MESSAGE for n in range(1, 301)}
    with broker.client() as w:
        for n, payload in payloads.items():
            w.send(wire.publish("of/0", payload, 1, n))
        assert fault.reached.wait(TIMEOUT)
        w.send(wire.publish("of/0", b"behind it", 1, 1000))
        seen = until_pong(w)
        fault.let_go()
        taken = acknowledged(seen + w.expect_closed())
    assert 200 < len(taken) and taken == list(payloads)[: len(taken)]
    broker.has_failed(f"cannot make {new}")
    assert broker.segments == there
    broker.again()
    got = [p.payload for p in flush(broker, subscriber.back(), "of/1")]
    assert got[: len(taken)] == [payloads[n] for n in taken]


@pytest.mark.parametrize("mode", ["os", "fsync"])
def test_a_stop_that_cannot_keep_all_says_so(start, mode):
    """SIGTERM ends it in order, but not with 0 where the journal could not be closed: in mode `os` the last second may be lost
    then if the power goes out."""
    broker = start("max_queued_messages 0", mode=mode, shards=3)
    exchange = Exchange(broker)
    broker.disk.fail("fdatasync")
    assert broker.terminate() == IO_ERROR
    broker.has_failed(f"cannot sync {broker.segments[0].name}")
    broker.again()
    exchange.again()
    exchange.is_whole()


# --- When it starts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "doing"), [("fdatasync", "sync"), ("pwrite64", "write")])
def test_a_disk_that_still_fails_lets_nobody_start(start, call, doing):
    """What a failed sync was to write is written anew by the next start; as long as that cannot be done there is none, and when it
    can nothing is lost."""
    broker = start("max_queued_messages 0", mode="fsync", shards=3)
    exchange = Exchange(broker)
    broker.disk.fail(call, is_lasting=True)
    exchange.publish()
    exchange.ends_silently()
    broker.has_failed(f"cannot {doing} {broker.segments[0].name}")
    for _ in range(2):
        assert not broker.starts()
        assert broker.has_not_started() in [f"cannot continue {path.name}" for path in broker.segments]
    broker.disk.mend()
    broker.again()
    exchange.again()
    exchange.is_whole()


def contents(broker) -> dict[str, bytes]:
    """All files but the one that has the process id."""
    return {path.name: path.read_bytes() for path in broker.journal.iterdir() if path.name != "LOCK"}


def starts_that_fail(broker, call: str, name: str) -> list[str]:
    """Starts it with the first such call failing, then the second, until none of them is needed to start: what each has said."""
    said = []
    for skip in range(100):
        broker.disk.mend()
        fault = broker.disk.fail(call, name, skip)
        if broker.starts():
            broker.disk.mend()
            broker.kill()
            return said
        assert fault.reached.is_set()
        said.append(broker.has_not_started())
    raise AssertionError("there is no end to it")


STARTS = [
    ("getdents64", "sol-journal", "cannot read the directory"),
    ("pread64", "*.seg", "cannot (read|continue) {segment}"),
    ("pwrite64", "*.seg", "cannot (continue|write) {segment}"),
    ("fdatasync", "*.seg", "cannot (continue|sync) {segment}"),
    ("fsync", "sol-journal", "cannot sync the directory"),
]


@pytest.mark.parametrize(("call", "name", "sentence"), STARTS, ids=[call for call, *_ in STARTS])
def test_a_start_that_fails_says_at_what_and_changes_nothing(start, call, name, sentence):
    """Whichever call of a start fails: there is none, the sentence says what could not be done and with which file, and all bytes
    that were there are. (Once all is read, a frame may have come behind them that says that it is durable.)"""
    broker = start("max_queued_messages 0", shards=3)
    exchange = Exchange(broker)
    broker.kill()
    before = contents(broker)
    said = starts_that_fail(broker, call, name)
    segments = "|".join(path.name for path in broker.segments)
    assert said and all(re.fullmatch(sentence.format(segment=f"({segments})"), one) for one in said), said
    after = contents(broker)
    assert after.keys() == before.keys() and all(after[name].startswith(before[name]) for name in before)
    broker.again()
    exchange.again()
    exchange.is_whole()
