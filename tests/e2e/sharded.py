"""Brokers with several shards, what they say of themselves, and the probe that is built beside them."""

import os
import pathlib
import socket
import subprocess

from broker import Broker, free_port, sol_bin, wait_until
from hostile import descriptors
from wire import V5

IS_LONG = os.environ.get("LONG") == "1"
"""The long tier: as many rounds and seconds as were promised, instead of as few as show something."""

REST = (
    "sol_clients_connected",
    "sol_clients_disconnected",
    "sol_connections",
    "sol_connections_unauthenticated",
    "sol_subscriptions",
    "sol_shared_subscriptions",
    "sol_messages_stored",
    "sol_memory_bytes",
    "sol_mailbox_bytes",
)
"""What a broker has as much of at rest as before anybody came."""


class Sharded(Broker):
    """A broker with so many shards that tells its metrics."""

    def __init__(self, directory: pathlib.Path, config: str = "", args=(), shards: int = 1, **options):
        self.shards = shards
        self.metrics_port = free_port()
        super().__init__(directory, config, ("--shards", str(shards), *args), **options)

    def _config_text(self, config: str) -> str:
        # Unless somebody wants them, $SOL and $SYS are not published: what is stored at rest stays the same.
        defaults = {"allow_anonymous": "true", "sys_interval": "0"}
        given = {line.split(" ")[0] for line in config.splitlines()}
        own = [f"{name} {value}" for name, value in defaults.items() if name not in given]
        own += [f"listener {self.port} {self.host}", f"metrics 127.0.0.1:{self.metrics_port}"]
        return "\n".join([*own, config, ""])

    def metrics(self) -> dict[str, float]:
        """All of them. A broker that is too busy to tell, or does not tell yet, is asked again."""

        def ask():
            try:
                with socket.create_connection(("127.0.0.1", self.metrics_port), timeout=10) as s:
                    s.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                    text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
            except OSError:
                return None
            return text if text.startswith("HTTP/1.1 200") else None

        rows = (line.rsplit(" ", 1) for line in wait_until(ask, "answer of the metrics", 30).splitlines() if line.startswith("sol_"))
        return {name: float(value) for name, value in rows}

    def total(self, name: str) -> int:
        """One of them, of all shards together."""
        return int(self.metrics()[name])

    def by_shard(self, name: str) -> list[int]:
        """One of them that each shard has."""
        metrics = self.metrics()
        return [int(metrics[f'{name}{{shard="{n}"}}']) for n in range(self.shards)]

    def clients(self) -> list[int]:
        """Clients connected, by shard."""
        return self.by_shard("sol_shard_clients_connected")

    def amounts(self) -> dict[str, float]:
        """Of what there is as much at rest as before."""
        metrics = self.metrics()
        return {"descriptors": descriptors(self.pid), **{name: metrics[name] for name in REST}}

    def at_rest(self) -> dict[str, float]:
        """What there is when nothing is under way: no mail, nobody who comes or goes, and the same when asked again."""
        last: dict[str, float] = {}

        def settled():
            nonlocal last
            before, last = last, self.amounts()
            is_idle = last["sol_mailbox_bytes"] == 0 and last["sol_connections"] == last["sol_clients_connected"]
            return is_idle and last == before

        wait_until(settled, "rest", 30)
        return last

    def expect_rest(self, before: dict[str, float]) -> None:
        """Everything is as it was."""
        try:
            wait_until(lambda: self.amounts() == before, "rest", 30)
        except AssertionError:
            now = self.amounts()
            raise AssertionError({name: (before[name], now[name]) for name in before if before[name] != now[name]}) from None

    def names(self, count: int, prefix: str = "n") -> list[list[str]]:
        """So many Client Identifiers at home on each shard: there is one client more there when such a one comes. Nobody
        else may come or go meanwhile."""
        found: list[list[str]] = [[] for _ in range(self.shards)]
        before = self.clients()
        for n in range(100 * count * self.shards):
            name = f"{prefix}{n}"
            with self.client(name, V5) as w:
                home = [now - then for now, then in zip(self.clients(), before)].index(1)
                w.disconnect()
            wait_until(lambda: self.clients() == before, "departure")
            if len(found[home]) < count:
                found[home].append(name)
            if all(len(names) == count for names in found):
                return found
        raise AssertionError("a shard is without homes")


def probe(command: str, broker: Sharded, **options) -> dict[str, int]:
    """Runs the probe against a broker; what it found."""
    binary = pathlib.Path(os.environ.get("SOL_PROBE", pathlib.Path(sol_bin()).parent / "sol-probe"))
    assert binary.exists(), f"{binary} is missing: cargo build -p sol-probe, or set SOL_PROBE"
    given = {"broker": f"127.0.0.1:{broker.port}", "metrics": f"127.0.0.1:{broker.metrics_port}", **options}
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([binary, command, *flags], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}{done.stdout}\n{broker.log()[-2000:]}"
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}
