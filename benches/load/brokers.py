"""What the scripts beside it share: starting and stopping a broker, and how figures are written."""

import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import subprocess
import time


def mosquitto() -> str:
    """Debian keeps it where only root looks."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") or "mosquitto"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port: int, broker) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if broker.poll() is not None:
            raise RuntimeError(f"the broker ended with {broker.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the broker does not listen")


def stop(broker) -> None:
    broker.send_signal(signal.SIGTERM)
    try:
        broker.wait(10)
    except subprocess.TimeoutExpired:
        broker.kill()
        broker.wait()


def facts(options) -> str:
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    words = [cpu[1] if cpu else platform.machine(), f"{os.cpu_count()} cores", f"Linux {platform.release()}"]
    return f"{', '.join(words)}; {options.rounds} rounds of {options.secs} s; {time.strftime('%Y-%m-%d')}"


def figure(value, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if unit == "µs" else f"{value:,.0f}"


def ratio(above, below) -> str:
    return f"{above / below:.2f}" if above and below else "–"
