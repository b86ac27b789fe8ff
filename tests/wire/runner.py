"""Runs cases against a broker, one after the other, and looks after each whether the others are still served."""

import dataclasses
import itertools
import os
import pathlib
import socket
import struct
import time

import suite
import wire
from notation import Pattern, encode
from suite import Case, Step
from wire import CONNACK, DISCONNECT, V5, Closed, Wire

ANSWER_SECONDS = 10.0
"""After which a packet that must come counts as missing. Only failures use it up."""
CLOSE_SECONDS = 1.0
"""After which a connection that must be closed counts as open."""
GROWTH_BYTES_MAX = 16 << 20
"""How much more memory a broker may hold at the end of a group than at its beginning."""

PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


class Failed(Exception):
    """A case that did not go as it should: what was expected and what came."""


class Late(Exception):
    """Nothing came in time."""


@dataclasses.dataclass
class Result:
    case: str
    group: str
    row: str
    ok: bool
    came: str = ""


class Peer(Wire):
    """A connection of a case: whole packets as bytes."""

    def __init__(self, address, version: int):
        super().__init__(address, version)
        self.accepted = False

    def push(self, data: bytes) -> None:
        """Sends as much as the broker takes: it may have closed in the middle, which is for the next step to see."""
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def next(self, seconds: float) -> bytes | None:
        """The next packet, or `None` at the end of the connection."""
        deadline = time.monotonic() + seconds
        while True:
            found = self._frame()
            if found:
                packet = wire.packet(*found)
                self.accepted |= packet[0] == 0x20 and len(packet) > 3 and found[1][1] == 0
                return packet
            try:
                self._fill(deadline)
            except AssertionError:
                raise Late from None
            except (Closed, OSError):
                return None

    def until_end(self, seconds: float) -> list[bytes]:
        """All packets up to the end of the connection."""
        found, deadline = [], time.monotonic() + seconds
        while (packet := self.next(deadline - time.monotonic())) is not None:
            found.append(packet)
        return found

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Context:
    """What a case has: its version, names of its own, and connections that end with it."""

    def __init__(self, runner: "Runner", case: Case, token: str):
        self.runner, self.case, self.version, self.token = runner, case, case.version, token
        self.names = {"t": token}
        self.variables: dict[str, bytes] = {}
        self.peers: dict[str, Peer] = {}
        self.unnamed = itertools.count()

    def open(self, name: str | None = None, version: int | None = None) -> Peer:
        peer = Peer(self.runner.address, version or self.version)
        self.peers[name or f"#{next(self.unnamed)}"] = peer
        return peer

    def connect(self, client_id: str | None = None, name: str | None = None, version=None, **options) -> Peer:
        """A connection that was let in; `options` are those of `wire.connect`."""
        peer = self.open(name, version)
        client_id = f"{self.token}{name or next(self.unnamed)}" if client_id is None else client_id
        peer.connect(client_id, **options)
        peer.accepted = True
        return peer

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()


class Runner:
    def __init__(self, host: str, port: int, pid: int | None = None, close_seconds: float = CLOSE_SECONDS):
        self.address = (host, port)
        self.pid = pid
        self.close_seconds = close_seconds
        self.run_id = f"{os.getpid() & 0xFFFF:04x}"
        self.healthy: Healthy | None = None
        self.limits: dict = {}

    def run(self, cases: list[Case], tell=lambda result: None) -> list[Result]:
        results, numbers = [], itertools.count()
        for group, members in itertools.groupby(cases, key=lambda case: case.group):
            before = self.resident()
            for case in members:
                results.append(self.one(case, f"{self.run_id}{next(numbers):04x}"))
                tell(results[-1])
            if self.pid:
                grown = self.resident() - before
                came = f"expected at most {GROWTH_BYTES_MAX >> 10} KiB more resident memory, came {grown >> 10} KiB"
                ok = grown <= GROWTH_BYTES_MAX
                results.append(Result(f"memory@{group}", group, "", ok, "" if ok else came))
                tell(results[-1])
        if self.healthy:
            self.healthy.close()
        return results

    def one(self, case: Case, token: str) -> Result:
        context = Context(self, case, token)
        try:
            self.look_at_healthy()
            before = self.resident()
            try:
                self.play(context, case)
                if case.memory and self.resident() - before > case.memory:
                    raise Failed(f"expected no growth beyond {case.memory} bytes, came {self.resident() - before}")
            finally:
                context.close()
            self.look_at_healthy()
        except Closed:
            return Result(case.name, case.group, case.row, False, "came the end of the connection")
        except Late:
            return Result(case.name, case.group, case.row, False, "came nothing")
        except (Failed, AssertionError, OSError, ValueError, KeyError) as error:
            self.healthy = None
            return Result(case.name, case.group, case.row, False, f"{error}" or type(error).__name__)
        return Result(case.name, case.group, case.row, True)

    def look_at_healthy(self) -> None:
        if self.healthy is None:
            self.healthy = Healthy(self)
            self.limits = self.healthy.limits
        self.healthy.check()

    def resident(self) -> int:
        """The broker's resident memory in bytes; 0 where nobody said which process it is."""
        if not self.pid:
            return 0
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        line = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0 kB")
        return int(line.split()[1]) << 10

    def play(self, context: Context, case: Case) -> None:
        if case.run:
            case.run(context)
            return
        if case.connected:
            context.connect(name="c")
        else:
            context.open("c")
        for number, step in enumerate(case.steps, 1):
            try:
                self.step(context, step)
            except (Failed, AssertionError, Closed, OSError) as error:
                what = "the end of the connection" if isinstance(error, Closed) else error
                who = "" if step.who in ("c", "") else step.who
                raise Failed(f"step {number}, {who}{step.verb} {step.text}: {what}") from None

    def step(self, context: Context, step: Step) -> None:
        peer = context.peers.get(step.who)
        match step.verb:
            case ">" | ">>":
                data = encode(step.nodes, context.version, context.names, context.variables)
                for at in range(len(data)) if step.verb == ">>" else [slice(None)]:
                    peer.push(data[at] if isinstance(at, slice) else data[at : at + 1])
            case "<":
                self.expect(context, peer, step)
            case "<~":
                self.skip_to(context, peer, step)
            case command:
                COMMANDS[command](context, *step.text.split())

    def expect(self, context: Context, peer: Peer, step: Step) -> None:
        kinds = {kind for kind, _ in step.nodes}
        if kinds == {"all"}:
            return self.expect_all(context, peer, step.nodes[0][1])
        if "alive" in kinds:
            peer.push(PINGREQ)
        closes = kinds & {"close", "refuse", "gone"}
        seconds = self.close_seconds if closes and kinds == closes else ANSWER_SECONDS
        try:
            first = peer.next(seconds)
        except Late:
            raise Failed("came nothing, and the connection is open") from None
        for kind, detail in step.nodes:
            if kind == "alive" and first == PINGRESP:
                return
            if kind == "packet" and first is not None:
                taken = Pattern(detail, context.version, context.names, context.variables).matches(first)
                if taken is not None:
                    context.variables.update(taken)
                    return
        if not closes:
            raise Failed(f"came {shown([first] if first else [], first is None)}")
        packets, ended = ([] if first is None else [first]), True
        if first is not None:
            try:
                packets += peer.until_end(self.close_seconds)
            except Late:
                ended = False
        if not ended or not any(ends(kind, detail, peer, packets) for kind, detail in step.nodes):
            raise Failed(f"came {shown(packets, ended)}")

    def next_after(self, peer: Peer, seen: list):
        """Awaits one more packet, and adds it to those that were `seen`."""
        try:
            packet = peer.next(ANSWER_SECONDS)
        except Late:
            raise Failed(f"came {shown(seen, False)}") from None
        if packet is None:
            raise Failed(f"came {shown(seen, True)}")
        seen.append(packet)
        return packet

    def expect_all(self, context: Context, peer: Peer, wanted: list) -> None:
        """Awaits as many packets as there are patterns, in any order."""
        left = [Pattern(nodes, context.version, context.names, context.variables) for nodes in wanted]
        seen = []
        while left:
            packet = self.next_after(peer, seen)
            for pattern in left:
                taken = pattern.matches(packet)
                if taken is not None:
                    context.variables.update(taken)
                    left.remove(pattern)
                    break
            else:
                raise Failed(f"came {shown(seen, False)}")

    def skip_to(self, context: Context, peer: Peer, step: Step) -> None:
        """Awaits a packet, whatever comes before it."""
        pattern, *unwanted = (Pattern(nodes, context.version, context.names, context.variables) for _, nodes in step.nodes)
        seen = []
        while True:
            packet = self.next_after(peer, seen)
            taken = pattern.matches(packet)
            if taken is not None:
                context.variables.update(taken)
                return
            if any(one.matches(packet) is not None for one in unwanted):
                raise Failed(f"came {shown(seen, False)}")


def ends(kind: str, detail, peer: Peer, packets: list[bytes]) -> bool:
    """Whether a connection that ended after these packets ended as it should."""
    if kind == "gone":
        return True
    if kind == "refuse":
        code = [pair[peer.version == V5] for pair in detail]
        return len(packets) == 1 and packets[0][0] == 0x20 and reason(packets[0]) in code
    if kind != "close":
        return False
    if peer.version != V5 or not detail:
        return not packets
    last = DISCONNECT if peer.accepted else CONNACK
    if detail == ["any"]:
        return len(packets) <= 1 and all(p[0] >> 4 == last and reason(p) >= "80" for p in packets)
    return len(packets) == 1 and packets[0][0] >> 4 == last and reason(packets[0]) in detail


def reason(packet: bytes) -> str:
    """The Reason Code of a CONNACK or DISCONNECT."""
    at = 3 if packet[0] >> 4 == CONNACK else 2
    return f"{packet[at]:02x}" if len(packet) > at else "00"


def shown(packets: list[bytes], ended: bool) -> str:
    words = [packet[:48].hex(" ") + (" ..." if len(packet) > 48 else "") for packet in packets[:6]]
    if len(packets) > 6:
        words.append(f"and {len(packets) - 6} more")
    return ", ".join([*words, "close"] if ended else [*words, "and the connection is open"])


class Healthy:
    """Two clients that behave: after every case the one still gets what the other publishes at QoS 1."""

    def __init__(self, runner: Runner):
        self.topic = f"healthy/{runner.run_id}"
        self.subscriber = Wire(runner.address, wire.V311)
        self.subscriber.connect(f"{runner.run_id}healthy-sub", keep_alive=0)
        self.subscriber.subscribe((self.topic, 1))
        self.publisher = Wire(runner.address, V5)
        self.limits = self.publisher.connect(f"{runner.run_id}healthy-pub", keep_alive=0).properties
        self.numbers = itertools.count(1)

    def check(self) -> None:
        number = next(self.numbers) % 0xFFFF + 1
        payload = str(number).encode()
        try:
            self.publisher.publish(self.topic, payload, qos=1, packet_id=number)
            got = self.subscriber.take(ANSWER_SECONDS)
        except (AssertionError, Closed, OSError) as error:
            raise Failed(f"the healthy clients suffer: {error or 'their connection ended'}") from None
        if (got.topic, got.payload, got.qos) != (self.topic, payload, 1):
            raise Failed(f"the healthy subscriber got {got.topic} {got.payload!r} at QoS {got.qos}")

    def close(self) -> None:
        self.subscriber.close()
        self.publisher.close()


# --- The commands of case files --------------------------------------------------------------------------------------


def command_open(context: Context, name: str) -> None:
    context.open(name)


def command_connect(context: Context, name: str, *options: str) -> None:
    """`clean=0 keep=0 expiry=100 rm=5 id=x will=topic,payload,qos,retain delay=5`"""
    values = dict(option.split("=", 1) for option in options)
    values = {key: value.replace("{t}", context.token) for key, value in values.items()}
    properties = {
        long: int(values[short])
        for short, long in (
            ("expiry", "session_expiry_interval"),
            ("rm", "receive_maximum"),
            ("mps", "maximum_packet_size"),
            ("aliases", "topic_alias_maximum"),
            ("problem", "request_problem_information"),
        )
        if short in values
    }
    will = None
    if "will" in values:
        topic, payload, qos, retain = (values["will"].split(",") + ["0", "0"])[:4]
        delay = {"will_delay_interval": int(values["delay"])} if "delay" in values else None
        will = wire.Will(topic, payload.encode(), int(qos), retain == "1", delay)
    context.connect(
        values.get("id"),
        name,
        clean=values.get("clean", "1") == "1",
        keep_alive=int(values.get("keep", "60")),
        properties_=properties,
        will=will,
    )


def command_end(context: Context, name: str) -> None:
    context.peers[name].close()


def command_reset(context: Context, name: str) -> None:
    context.peers[name].reset()


def command_shut(context: Context, name: str) -> None:
    context.peers[name].socket.shutdown(socket.SHUT_WR)


COMMANDS = {
    "open": command_open,
    "connect": command_connect,
    "end": command_end,
    "reset": command_reset,
    "shut": command_shut,
}


def write_report(path: str, results: list[Result]) -> None:
    """A line for each case: name, `ok` or `FAIL`, what came, row, group; tabs between."""
    with open(path, "w", encoding="utf-8") as file:
        for result in results:
            came = " ".join(result.came.split())
            print(result.case, "ok" if result.ok else "FAIL", came, result.row, result.group, sep="\t", file=file)


def select(pattern: str | None) -> list[Case]:
    """The cases whose name, group or row holds the pattern."""
    cases = suite.load()
    return [c for c in cases if not pattern or any(pattern in text for text in (c.name, c.group, c.row))]
