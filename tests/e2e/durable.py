"""A broker that keeps what is durable, and that a test ends, kills and starts again on the same directory and port."""

import os
import pathlib
import select
import time

import wire
from broker import SHARDS, Broker, as_root, wait_until
from wire import PUBCOMP, PUBREL, V5, V31, Packet, Wire

MODES = ("os", "fsync")


class Durable(Broker):
    """A broker in Mosquitto's language whose journal is in `data`; by default it lets in everybody."""

    def __init__(self, directory: pathlib.Path, config: str = "", args=(), mode="os", shards: int = SHARDS, data=None, **options):
        self.data = data or directory / "data"
        self.data.mkdir(exist_ok=True)
        self.mode, self.shards, self.config = mode, shards, config
        super().__init__(directory, config, args, **options)

    def _config_text(self, config: str) -> str:
        given = {line.split(" ")[0] for line in config.splitlines()}
        defaults = {"allow_anonymous": "true", "metrics": "off", "sys_interval": "0", "log_type": "all"}
        own = [f"{name} {value}" for name, value in defaults.items() if name not in given]
        own += [f"persistence {self.mode}", f"persistence_location {self.data}", f"listener {self.port} {self.host}"]
        return "\n".join([*own, config, ""])

    def _command(self, args) -> list[str]:
        self.args = args
        return super()._command(("--shards", str(self.shards), *args))

    def _wait_until_accepting(self) -> None:
        """That it says so: a connection may be taken by what is left of the one before it, for some ten milliseconds."""

        def greets():
            assert self.alive(), f"{self.command} ended early:\n{self.log()}"
            return "data directory: " in self.log()

        try:
            wait_until(greets, "banner", timeout=30)
        except AssertionError:
            self.stop()
            raise
        super()._wait_until_accepting()

    @property
    def segments(self) -> list[pathlib.Path]:
        return sorted((self.data / "sol-journal").glob("*.seg"))

    def kill(self) -> None:
        """As a crash would end it: nothing is written, nothing is said."""
        self.process.kill()
        self.process.wait()

    def again(self, config: str | None = None, shards: int | None = None, mode: str | None = None) -> None:
        """Starts it on the same directory and port. What is not given stays as it was."""
        assert not self.alive(), "it still runs"
        self.config = self.config if config is None else config
        self.shards, self.mode = shards or self.shards, mode or self.mode
        self.config_file.write_text(as_root(self._config_text(self.config)))
        self.command = self._command(self.args)
        start_on_its_port(self._start)

    def restart(self, how: str = "kill", **changes) -> None:
        """Ends it by SIGKILL or by SIGTERM ("stop"), and starts it again."""
        self.end(how)
        self.again(**changes)

    def end(self, how: str) -> None:
        if how == "kill":
            self.kill()
        else:
            assert self.terminate() == 0, self.log()

    def begin_and_kill(self, seconds: float, shards: int) -> None:
        """Starts it, and kills it before it may have come far."""
        self.shards, self.command = shards, self._command(self.args)
        self._spawn()
        select.select([], [], [], seconds)
        self.kill()


def start_on_its_port(start) -> None:
    """After SIGKILL the system may take some ten milliseconds to give a port back, and the lock of a file."""
    deadline = time.monotonic() + wire.TIMEOUT
    while True:
        try:
            return start()
        except AssertionError as error:
            if "in use" not in str(error) or time.monotonic() > deadline:
                raise


class Member:
    """A client with a durable Session: connects, and is back after a restart, with the same Client Identifier and options."""

    def __init__(self, broker: Broker, client_id: str, version: int = V5, expiry: int = 3600, receive_maximum=None, **options):
        self.broker, self.client_id, self.version, self.options = broker, client_id, version, options
        if version == V5:
            options.setdefault("properties_", {})["session_expiry_interval"] = expiry
        if receive_maximum:
            options["properties_"]["receive_maximum"] = receive_maximum
        self.wire = self._connect()

    def _connect(self) -> Wire:
        return self.broker.client(self.client_id, self.version, clean=False, **self.options)

    def back(self) -> Wire:
        """A new connection, after the old one was lost. The Session is there, or it fails."""
        self.wire.close()
        self.wire = self._connect()
        assert self.wire.connack.session_present or self.version == V31, f"the Session of {self.client_id} is gone"
        return self.wire


def flush(broker: Broker, w: Wire, topic: str) -> list[Packet]:
    """All that is there for a client that has a QoS 2 Subscription to `topic`, acknowledged to the end; a last message
    to that topic, which is not among it, is how it knows that nothing more comes. A PUBREL that is sent again, because
    its PUBCOMP was under way when the broker died, is answered."""
    with broker.client(f"flush-{os.getpid()}-{time.monotonic_ns()}", V5) as pub:
        assert pub.publish(topic, b"the last", 2).reason == 0
    got = []
    while True:
        p = w.recv()
        if p.kind == PUBREL:
            w.send(wire.ack(PUBCOMP, p.packet_id))
            continue
        w.stash.insert(0, p)
        if (p := w.take()).payload == b"the last":
            w.ping()  # what was sent has been taken
            return got
        got.append(p)


def until(moment: float) -> None:
    """Time that has to pass, because it is what is tested."""
    wait_until(lambda: time.time() >= moment, "moment", 60)
