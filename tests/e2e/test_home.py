"""A home installation of Mosquitto, moved over as it is: Debian's mosquitto.conf with its include_dir, TLS on 8883, plain MQTT on
1883 for this machine, WSS on 9001, a password file with the hashes of Mosquitto 2.0 and 2.1, and an ACL file.

The files lie in home/ as they would in /etc/mosquitto; only places and ports are others here."""

import os
import pathlib
import shutil
import subprocess

import pytest

from broker import IO, SHARDS, Broker, free_port, sol_bin, wait_until
from clients import MosquittoSub, Paho, mosquitto_pub
from javascript import WENT_WELL, Host, in_node
from wire import TIMEOUT, V5, V311

pytestmark = pytest.mark.sol

FILES = pathlib.Path(__file__).with_name("home")
PASSWORDS = {
    "homeassistant": "kitchen-sink",
    "zigbee2mqtt": "coordinator",
    "dashboard": "wall-panel",
    "plug": "socket-7",
}


class Home(Broker):
    """The broker of a home, in a folder that stands for the root of its file system."""

    def __init__(self, directory, config="", args=(), authority=None, **popen):
        self.etc = directory / "etc" / "mosquitto"
        shutil.copytree(FILES, self.etc)
        for folder in ("run", "var/lib", "var/log"):
            (directory / folder / "mosquitto").mkdir(parents=True)
        for folder in ("certs", "ca_certificates"):
            (self.etc / folder).mkdir()
        certificate, key = authority.issue("server")
        shutil.copy(certificate, self.etc / "certs")
        shutil.copy(key, self.etc / "certs")
        shutil.copy(authority.cafile, self.etc / "ca_certificates")
        for name in ("passwd", "acl"):
            (self.etc / name).chmod(0o600)
        self.tls, self.wss = free_port(), free_port()
        super().__init__(directory, config, args, **popen)

    def _config_text(self, _config):
        ports = {"1883": self.port, "8883": self.tls, "9001": self.wss}
        for path in [self.etc / "mosquitto.conf", *self.etc.glob("conf.d/*.conf")]:
            text = path.read_text()
            for place in ("/etc/mosquitto", "/var/lib/mosquitto", "/var/log/mosquitto", "/run/mosquitto"):
                text = text.replace(f" {place}", f" {self.directory}{place}")
            for old, new in ports.items():
                text = text.replace(f"listener {old}", f"listener {new}")
            if path.name == "mosquitto.conf" and os.geteuid() == 0:
                # Another user could not enter the folder that stands for the root.
                text += "\nuser root\n"
            path.write_text(text)
        return ""

    def _command(self, args):
        return [sol_bin(), "-c", str(self.etc / "mosquitto.conf"), "--io", IO, "--shards", str(SHARDS), "--metrics", "off", *args]


@pytest.fixture
def home(start_broker, authority):
    return start_broker(cls=Home, authority=authority)


def login(user: str) -> list[str]:
    return ["-u", user, "-P", PASSWORDS[user]]


def test_it_starts_and_says_what_differs(home, tmp_path):
    """It runs unchanged, and keeps on disk what it acknowledges: the banner says where. What has no effect is said by `sol check`,
    by file and line."""
    log = tmp_path / "var/log/mosquitto/mosquitto.log"
    journal = tmp_path / "var/lib/mosquitto/sol-journal"
    wait_until(lambda: log.exists() and "data directory: " in log.read_text(), "line of the log")
    assert f"data directory: {journal} (persistence fsync: what is acknowledged survives a power cut)" in log.read_text()
    assert any(path.suffix == ".seg" for path in journal.iterdir())
    assert (tmp_path / "run/mosquitto/mosquitto.pid").read_text().strip() == str(home.pid)
    done = subprocess.run(
        [sol_bin(), "check", "-c", home.etc / "mosquitto.conf"], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    warnings = [line.rsplit("etc/mosquitto/", 1)[1] for line in done.stderr.splitlines()]
    assert [warning.split(": ")[0] for warning in warnings] == ["conf.d/limits.conf:1"]


def test_everybody_has_what_is_theirs(home, authority):
    """Users log in by hashes of both kinds, through TLS and on this machine, and have their topics and no others."""
    tls = ["-p", str(home.tls), "--cafile", str(authority.cafile)]
    with (
        MosquittoSub(home, *login("homeassistant"), "-t", "#", "-q", "1", version=V5) as everything,
        MosquittoSub(home, *tls, *login("dashboard"), "-t", "home/#", "-q", "1") as panel,
    ):
        mosquitto_pub(home, *tls, *login("plug"), "-q", "1", "-t", "devices/plug/power", "-m", "17")
        assert everything.take().topic == "devices/plug/power"
        for topic in ("devices/other/power", "home/alarm/code"):
            mosquitto_pub(home, *tls, *login("plug"), "-q", "1", "-t", topic, "-m", "refused")
        mosquitto_pub(home, *tls, *login("plug"), "-i", "plug-7", "-q", "1", "-t", "clients/plug-7/status", "-m", "on")
        assert everything.take().topic == "clients/plug-7/status"
        mosquitto_pub(home, *login("zigbee2mqtt"), "-q", "1", "-t", "zigbee2mqtt/bridge/state", "-m", "online", "-r")
        assert everything.take().topic == "zigbee2mqtt/bridge/state"
        mosquitto_pub(home, *login("homeassistant"), "-q", "1", "-t", "home/alarm/code", "-m", "1234")
        mosquitto_pub(home, *login("homeassistant"), "-q", "1", "-t", "home/light", "-m", "on")
        assert [everything.take().topic, everything.take().topic] == ["home/alarm/code", "home/light"]
        assert panel.take().topic == "home/light", "the code is not the panel's"
    with MosquittoSub(home, *login("homeassistant"), "-t", "zigbee2mqtt/#") as late:
        assert late.take() == ("zigbee2mqtt/bridge/state", 0, True, b"online")
    for stranger in ([], ["-u", "plug", "-P", "wrong"], ["-u", "nobody", "-P", "socket-7"]):
        assert mosquitto_pub(home, *tls, *stranger, "-t", "t", "-m", "x", check=False).returncode != 0
    assert mosquitto_pub(home, "-p", str(home.tls), *login("plug"), "-t", "t", "-m", "x", check=False).returncode != 0


class At:
    """Where paho connects to."""

    def __init__(self, port: int):
        self.host, self.port = "127.0.0.1", port


@pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])
def test_browsers_come_by_wss(home, authority, version):
    """The dashboard talks WSS: paho's, and MQTT.js with a hundred messages and a lost connection."""
    options = {"transport": "websockets", "tls": authority.cafile, "login": ("dashboard", PASSWORDS["dashboard"])}
    with Paho(At(home.wss), "panel", version, **options) as panel:
        panel.subscribe("home/#", 1)
        mosquitto_pub(home, *login("homeassistant"), "-q", "1", "-t", "home/door", "-m", "open")
        assert panel.take().payload == b"open"
        panel.publish("home/light/set", b"off", 1)
        assert panel.take().topic == "home/light/set"
    owner = ("homeassistant", PASSWORDS["homeassistant"])
    host = Host(home, owner)
    url = f"wss://{':'.join(owner)}@127.0.0.1:{home.wss}"
    assert in_node(url, version, "page", authority.cafile) == WENT_WELL
    host.close()
