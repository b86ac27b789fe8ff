"""`sol init` as somebody new to it would use it: what it prints is done, with real clients."""

import re
import shlex
import signal
import subprocess

import pytest

from authority import Authority
from broker import Broker, free_port, sol_bin, wait_until
from clients import MosquittoSub, mosquitto_pub
from wire import TIMEOUT

pytestmark = pytest.mark.sol


def sol(*args, cwd, stdin=""):
    return subprocess.run(
        [sol_bin(), *map(str, args)], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


class Started(Broker):
    """A broker with the sol.conf of a folder, whose ports alone are others: those belong to the machine."""

    def __init__(self, directory, config="", args=(), **popen):
        text = (directory / "sol.conf").read_text()
        self.plain_port = free_port()
        self.conf = text.replace("listener 1883 ", f"listener {self.plain_port} ")
        super().__init__(directory, config, args, **popen)

    def _config_text(self, _config):
        changed = self.conf.replace("listener 8883\n", f"listener {self.port}\n") + "metrics off\n"
        assert changed.count(f"listener {self.port}\n") == 1 and f"listener {self.plain_port} 127" in changed
        return changed


@pytest.fixture
def start(request):
    def start_(directory):
        broker = Started(directory)
        request.addfinalizer(broker.stop)
        return broker

    return start_


def printed_commands(text: str, port: int) -> list[list[str]]:
    """The commands for mosquitto_sub and mosquitto_pub that were printed, but for the port."""
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("  mosquitto_")]
    assert [line[0] for line in lines] == ["mosquitto_sub", "mosquitto_pub"], text
    return [[str(port) if word == "8883" else word for word in line] for line in lines]


def test_from_nothing_to_a_message(tmp_path, start):
    """In an empty folder one command is enough: the configuration passes `sol check` without a warning, the broker starts
    with it, what was printed works as it stands, and strangers stay outside."""
    folder = tmp_path / "broker"
    done = sol("init", folder, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    password = re.search(r"^admin has the password (\S+)", done.stdout, re.M)[1]
    assert f"  {sol_bin()} -c {folder}/sol.conf\n" in done.stdout
    checked = sol("check", "-c", folder / "sol.conf", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    secret = dict.fromkeys(["acl", "ca.key", "passwd", "server.crt", "server.key", "sol.conf"], 0o600)
    assert modes == {**secret, "ca.crt": 0o644} and folder.stat().st_mode & 0o777 == 0o700

    broker = start(folder)
    sub, pub = printed_commands(done.stdout, broker.port)
    # What it subscribes to is there before the message is: -E tells when, and the message is retained for the second.
    subprocess.run([*sub, "-E"], timeout=TIMEOUT, check=True, capture_output=True)
    subprocess.run([*pub, "-r"], timeout=TIMEOUT, check=True, capture_output=True)
    got = subprocess.run([*sub, "-C", "1"], timeout=TIMEOUT, check=True, capture_output=True, text=True)
    assert got.stdout == "test/hello hello\n"

    cafile = ["--cafile", str(folder / "ca.crt")]
    for stranger in ([], ["-u", "admin", "-P", "guess"], ["-u", "eve", "-P", password]):
        done = mosquitto_pub(broker, *cafile, *stranger, "-t", "test/x", "-m", "x", check=False)
        assert done.returncode != 0, stranger
    # Without TLS only this machine is listened to, and it has to log in, too.
    local = ["-p", str(broker.plain_port)]
    assert mosquitto_pub(broker, *local, "-t", "t", "-m", "x", check=False).returncode != 0
    mosquitto_pub(broker, *local, "-u", "admin", "-P", password, "-t", "t", "-m", "x")


def test_a_second_user_has_topics_of_its_own(tmp_path, start):
    """A user that is added reads and writes below its own name and nothing else; the first user sees it all."""
    done = sol("init", ".", "--user", "alice", cwd=tmp_path, stdin="correct horse\n")
    assert done.returncode == 0 and "correct horse" not in done.stdout + done.stderr
    assert sol("passwd", "-b", tmp_path / "passwd", "bob", "battery", cwd=tmp_path).returncode == 0
    broker = start(tmp_path)
    cafile = ["--cafile", str(tmp_path / "ca.crt")]
    alice, bob = (["-u", "alice", "-P", "correct horse"], ["-u", "bob", "-P", "battery"])
    with MosquittoSub(broker, *cafile, *alice, "-t", "#", "-q", "1") as sub:
        mosquitto_pub(broker, *cafile, *bob, "-t", "users/alice/x", "-m", "refused", "-q", "1")
        mosquitto_pub(broker, *cafile, *bob, "-t", "users/bob/x", "-m", "mine", "-q", "1")
        assert sub.take().topic == "users/bob/x"


def test_a_second_time_nothing_is_written(tmp_path):
    """Twice in one folder is refused by a sentence, and all files stay; --force replaces them."""
    assert sol("init", tmp_path, cwd=tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = sol("init", tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"sol: error: \S+ is there already; --force replaces it where a sol.conf is beside it\n", done.stderr)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert sol("init", tmp_path, "--force", cwd=tmp_path).returncode == 0
    assert {path for path, text in before.items() if path.read_bytes() == text} == {tmp_path / "acl", tmp_path / "sol.conf"}


def test_a_folder_of_others_is_left_alone(tmp_path):
    """Files of these names that `sol init` has not written are not replaced, whatever is asked for: /etc has a passwd, too."""
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    done = sol("init", tmp_path, "--force", cwd=tmp_path)
    assert done.returncode == 1 and "is there already" in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("passwd", "root:x:0:0::/root:/bin/sh\n")]


@pytest.mark.parametrize("place", ["/proc/sol", "file/below", "file"])
def test_where_nothing_can_be_written(tmp_path, place):
    """A folder that cannot be made or written to is told in one sentence."""
    (tmp_path / "file").write_text("")
    done = sol("init", tmp_path / place, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"sol: error: \S+ cannot be written: [^\n]+\n", done.stderr), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_given_certificate_stays_where_it_is(tmp_path, start, authority):
    """A certificate that somebody else takes care of is named in the configuration, and no key is copied."""
    certificate, key = authority.issue("own")
    folder = tmp_path / "broker"
    done = sol("init", folder, "--cert", certificate, "--key", key, "--ca", authority.cafile, "--host", "localhost", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["acl", "passwd", "sol.conf"]
    _, pub = printed_commands(done.stdout, (broker := start(folder)).port)
    subprocess.run(pub, timeout=TIMEOUT, check=True, capture_output=True)
    foreign = Authority(tmp_path, "foreign").cafile
    assert mosquitto_pub(broker, "--cafile", str(foreign), "-t", "t", "-m", "x", check=False).returncode != 0


def test_the_certificate_can_be_renewed(tmp_path, start):
    """The command in the configuration makes another certificate of the same authority, which SIGHUP puts in force."""
    done = sol("init", tmp_path, "--host", "broker.example", cwd=tmp_path)
    broker = start(tmp_path)
    command = re.search(r"^#   (openssl req .+)$", (tmp_path / "sol.conf").read_text(), re.M)[1]
    before = (tmp_path / "server.crt").read_text()
    subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=TIMEOUT, check=True, capture_output=True)
    assert (tmp_path / "server.crt").read_text() != before
    broker.process.send_signal(signal.SIGHUP)
    wanted = subprocess.run(
        ["openssl", "x509", "-in", str(tmp_path / "server.crt"), "-noout", "-serial"],
        timeout=TIMEOUT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip

    def is_renewed():
        shown = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.port}", "-CAfile", str(tmp_path / "ca.crt"),
             "-verify_return_error", "-verify_hostname", "broker.example"],
            input="", timeout=TIMEOUT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        serial = subprocess.run(
            ["openssl", "x509", "-noout", "-serial"], input=shown, timeout=TIMEOUT, check=True, capture_output=True, text=True
        ).stdout
        return serial == wanted

    wait_until(is_renewed, "new certificate")
    _, pub = printed_commands(done.stdout, broker.port)
    subprocess.run(pub, timeout=TIMEOUT, check=True, capture_output=True)
