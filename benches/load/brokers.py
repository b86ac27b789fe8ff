"""What the scripts beside it share: starting and stopping a broker, and how figures are written."""

import contextlib
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Units of which there are parts.
FRACTIONS = ("µs", "s", "syncs", "records", "share")


def mosquitto() -> str:
    """Debian keeps it where only root looks."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") or "mosquitto"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def open_files() -> None:
    """Connections are counted in tens of thousands here; the limit is inherited by broker and load."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def wait_for(port: int, broker, patience: float = 20) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if broker.poll() is not None:
            raise RuntimeError(f"the broker ended with {broker.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the broker does not listen")


def stop(broker, patience: float = 10) -> None:
    broker.send_signal(signal.SIGTERM)
    try:
        broker.wait(patience)
    except subprocess.TimeoutExpired:
        broker.kill()
        broker.wait()


@contextlib.contextmanager
def running(command: list[str], port: int, cores: str, log: pathlib.Path, patience: float = 20):
    """A broker on these cores that listens; it is stopped at the end."""
    with open(log, "wb") as output:
        broker = subprocess.Popen(["taskset", "-c", cores, *command], stdout=output, stderr=output, cwd=ROOT)
    try:
        wait_for(port, broker, patience)
        yield broker
    finally:
        stop(broker, patience)


def load(command: list[str], patience: float = 300) -> dict:
    """What a load generator of this repository says, in its one line of JSON."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"the load ended with {done.returncode}")
    return json.loads(done.stdout)


def facts(options) -> str:
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    words = [cpu[1] if cpu else platform.machine(), f"{os.cpu_count()} cores", f"Linux {platform.release()}"]
    return f"{', '.join(words)}; {options.rounds} rounds of {options.secs} s; {time.strftime('%Y-%m-%d')}"


def figure(value, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if unit in FRACTIONS and value < 1000 else f"{value:,.0f}"


def ratio(above, below) -> str:
    return f"{above / below:.2f}" if above and below else "–"


def markdown(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
