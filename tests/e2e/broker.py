"""Starts the broker under test on free loopback ports and ends it by its process id.

`SOL_SHARDS` says how many shards it has (2), `SOL_IO` which backend (auto). `BROKER=mosquitto` runs Debian's mosquitto
instead, to tell a wrong test from a wrong broker.
"""

import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import time

from wire import TIMEOUT, Wire

ROOT = pathlib.Path(__file__).resolve().parents[2]
IS_MOSQUITTO = os.environ.get("BROKER") == "mosquitto"
SHARDS = int(os.environ.get("SOL_SHARDS", "2"))
IO = os.environ.get("SOL_IO", "auto")


def sol_bin() -> str:
    path = pathlib.Path(os.environ.get("SOL_BIN", "target/debug/sol"))
    path = path if path.is_absolute() else ROOT / path
    assert path.exists(), f"{path} is missing: cargo build, or set SOL_BIN"
    return str(path)


def _ports():
    """Ports below those that the system gives to clients, and for each worker its own: nobody takes one in between."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 12_000 + worker % 8 * 2_000
    while True:
        yield from range(first + os.getpid() % 1_000, first + 2_000)
        yield from range(first, first + 1_000)


_next_port = _ports()


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in _next_port:
        with socket.socket(family) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable")


def wait_until(condition, what: str, timeout: float = TIMEOUT):
    """Polls for what no descriptor tells of (a file, a process list). Returns the first true value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"in {timeout} s: no {what}"
        select.select([], [], [], 0.01)


def as_root(text: str) -> str:
    """The configuration with the user that runs the tests, in the dialect where root does not stay root: nobody else can read
    what is in the tests' directories."""
    is_listeners = re.search(r"^(listener|port) ", text, re.M) and not re.search(r"^user ", text, re.M)
    return f"{text}\nuser root\n" if is_listeners and os.geteuid() == 0 else text


class Broker:
    """One running broker. `address` is the port, unless the configuration says otherwise."""

    def __init__(self, directory: pathlib.Path, config: str = "", args=(), address=None, host="127.0.0.1", **popen):
        self.directory = directory
        self.port = free_port(host)
        self.host = host
        self.address = (host, self.port) if address is None else address
        self.log_file = directory / f"broker-{self.port}.log"
        self.config_file = directory / f"broker-{self.port}.conf"
        self.config_file.write_text(as_root(self._config_text(config)))
        self.command = self._command(args)
        self._start(**popen)

    def _start(self, **popen) -> None:
        self._spawn(**popen)
        self._wait_until_accepting()

    def _spawn(self, **popen) -> None:
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.directory, **popen
            )

    def _config_text(self, config: str) -> str:
        if IS_MOSQUITTO:
            return f"listener {self.port} {self.host}\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n{config}\n"
        if "metrics" not in config:
            config = f"metrics off\n{config}"
        if isinstance(self.address, str):
            return f"unix_socket {self.address}\n{config}\n"
        return f"ip_address {self.host}\nip_port {self.port}\n{config}\n"

    def _command(self, args) -> list[str]:
        if IS_MOSQUITTO:
            binary = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
            return [binary, "-c", str(self.config_file), *args]
        threads = [] if "--shards" in args else ["--shards", str(SHARDS)]
        return [sol_bin(), "-c", str(self.config_file), "--io", IO, *threads, *args]

    def _wait_until_accepting(self) -> None:
        def accepting():
            assert self.process.poll() is None, f"{self.command} ended early:\n{self.log()}"
            try:
                Wire(self.address).close()
                return True
            except OSError:
                return False

        try:
            wait_until(accepting, f"listener at {self.address}", timeout=30)
        except AssertionError:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Waits until the log has this: it is written by a thread of its own, behind what a client hears."""
        wait_until(lambda: text in self.log(), f"{text!r} in {self.log_file}")

    def alive(self) -> bool:
        return self.process.poll() is None

    def wire(self, version: int = 4) -> Wire:
        return Wire(self.address, version)

    def client(self, client_id: str = "", version: int = 4, **options) -> Wire:
        """A raw client that has its CONNACK."""
        w = self.wire(version)
        w.connect(client_id, **options)
        return w

    def reload(self) -> None:
        """SIGHUP; returns when the log says that all is read, which it does at INFO."""
        said = "Reloading config" if IS_MOSQUITTO else "INFO reloaded"
        count = self.log().count(said)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log().count(said) > count, "reload")

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)

    def stop(self) -> None:
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class LoginsOnly(Broker):
    """A broker in Mosquitto's language that lets nobody in without a login."""

    def _config_text(self, config: str) -> str:
        return f"listener {self.port} {self.host}\n{'' if 'metrics' in config else 'metrics off'}\n{config}\n"


class Whole(Broker):
    """A broker whose configuration is in Mosquitto's language, and all of it is the test's: `PORT` stands for its own port."""

    def _config_text(self, config: str) -> str:
        return config.replace("PORT", str(self.port))


class Listening(Broker):
    """A broker whose configuration is in Mosquitto's language, which knows more."""

    def _config_text(self, config: str) -> str:
        lines = [f"listener {self.port} {self.host}", "allow_anonymous true", "log_type all"]
        lines += [] if IS_MOSQUITTO or "metrics" in config else ["metrics off"]
        return "\n".join([*lines, config, ""])
