"""The binary: listeners, signals, faults of the operator, passwords, logs, metrics, statistics."""

import json
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import termios
import urllib.request

import pytest

import wire
from broker import IS_MOSQUITTO, Broker, free_port, sol_bin, wait_until
from clients import MosquittoSub, mosquitto_pub
from wire import TIMEOUT, V5, V311, Wire

# `open sesame` by SHA-512-crypt, as the old broker's passwd.py wrote it.
HASH = "$6$abcdefghijklmnop$ZeRt9WAWsXqI2sYEefoDhOsOt.Unaz4cnVualhcF6kzBKBCwJBzK2hHbgwR7956aV1klYIb/4UoLodpp0pCFV/"


def run_sol(*args: str, **options):
    return subprocess.run([sol_bin(), *args], capture_output=True, text=True, timeout=TIMEOUT, check=False, **options)


def refused(*args: str, **options) -> str:
    """Runs Sol where it must refuse to start, and returns its one sentence."""
    done = run_sol(*args, **options)
    assert done.returncode in (1, 2), done
    for word in ("panicked", "backtrace", "os error"):
        assert word not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip() and not re.search(r"\bwarn", line, re.I)]
    assert len(lines) == 1, done.stderr
    return lines[0]


# --- Listeners --------------------------------------------------------------------------------------------------------


@pytest.mark.sol
def test_a_unix_socket_listener(start_broker, tmp_path):
    """`unix_socket PATH` listens there; a stale socket file is no obstacle."""
    path = str(tmp_path / "sol.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    b = start_broker(address=path)
    with MosquittoSub(b, "-t", "t", "-q", "1", version=V5) as sub:
        mosquitto_pub(b, "-t", "t", "-m", "x", "-q", "1")
        assert sub.take().payload == b"x"


def test_an_ipv6_listener(start_broker):
    """`ip_address ::1` listens on IPv6."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    b = start_broker(host="::1")
    with MosquittoSub(b, "-t", "t", "-q", "1") as sub:
        mosquitto_pub(b, "-t", "t", "-m", "x", "-q", "1")
        assert sub.take().payload == b"x"


@pytest.mark.sol
def test_several_listeners_are_one_broker(start_broker, tmp_path):
    """TCP over IPv4, another port and a Unix socket side by side reach the same topics."""
    second, path = free_port(), str(tmp_path / "second.sock")
    port = free_port()
    text = f"listener {port} 127.0.0.1\nlistener {second} 127.0.0.1\nlistener 0 {path}\nallow_anonymous true\nmetrics off\n"
    b = start_broker_with(start_broker, port, text)
    with b.client("a", V5) as one, Wire(second, V5) as two, Wire(path, V311) as three:
        two.connect("b"), three.connect("c")
        for w in (one, two, three):
            w.subscribe(("t", 0))
        three.publish("t", b"x")
        assert [w.take().payload for w in (one, two, three)] == [b"x"] * 3


def start_broker_with(start_broker, port: int, text: str) -> Broker:
    """A broker whose whole configuration file is `text`, with a listener on `port`."""

    class Whole(Broker):
        def _config_text(self, config: str) -> str:
            self.port, self.address = port, ("127.0.0.1", port)
            return text

    return start_broker(cls=Whole)


# --- Command line and start -------------------------------------------------------------------------------------------


@pytest.mark.sol
def test_help_and_version():
    """`-h` and `--version` print to standard output and exit 0."""
    for flag, word in (("-h", "-p"), ("--help", "-p"), ("--version", "sol")):
        done = run_sol(flag)
        assert done.returncode == 0 and word in done.stdout and not done.stderr


@pytest.mark.sol
def test_without_a_file_it_listens_on_loopback_for_anyone(start_broker, tmp_path):
    """`-a` and `-p` are all that is needed; the banner names the listener."""

    class Flags(Broker):
        def _command(self, args):
            return [sol_bin(), "-a", "127.0.0.1", "-p", str(self.port), "-v"]

    b = start_broker(cls=Flags)
    with b.client("", V5) as w:
        w.ping()
    b.says(f"listening on 127.0.0.1:{b.port}")


@pytest.mark.sol
def test_the_command_line_wins_over_the_file(start_broker):
    """`-p` beats `ip_port`, and a warning says that they differ."""
    named = free_port()

    class Moved(Broker):
        def _config_text(self, config):
            return f"ip_address 127.0.0.1\nip_port {named}\nmetrics off\n"

        def _command(self, args):
            return [sol_bin(), "-c", str(self.config_file), "-p", str(self.port)]

    b = start_broker(cls=Moved)
    wait_until(lambda: str(named) in b.log() and f"listening on 127.0.0.1:{b.port}" in b.log(), "banner")
    with pytest.raises(OSError):
        Wire(named)


@pytest.mark.sol
def test_a_port_in_use_is_one_sentence(start_broker):
    """The second broker on a port is refused, names the address and leaves the first alone."""
    b = start_broker()
    assert str(b.port) in refused("-c", str(b.config_file))
    with b.client("x", V5) as w:
        w.ping()


@pytest.mark.sol
@pytest.mark.parametrize(
    "args, word",
    [
        (["-a", "203.0.113.1", "-p", "1883"], "203.0.113.1"),
        (["-a", "no.such.host.invalid", "-p", "1883"], "no.such.host.invalid"),
        (["-c", "/no/such/file.conf"], "/no/such/file.conf"),
    ],
)
def test_a_fault_of_the_operator_is_one_sentence(args, word):
    """A bad address or a missing file: what and why in one sentence, exit code 1 or 2, no backtrace."""
    assert word in refused(*args)


@pytest.mark.sol
@pytest.mark.parametrize("flag", ["-p", "-m", "--nonsense"])
def test_a_bad_flag_is_refused(flag):
    """An unknown flag or a flag without its value exits 1 or 2."""
    assert run_sol(flag).returncode in (1, 2)


@pytest.mark.sol
@pytest.mark.parametrize(
    "text, where, word",
    [
        ("ip_address 127.0.0.1\nip_port many\n", ":2:9", "many"),
        ("ip_address 127.0.0.1\nip_port 70000\n", ":2:9", "70000"),
        ("ip_address 127.0.0.1\nmax_memory lots\n", ":2:12", "lots"),
        ("listener 1883\nlisetner 1884\n", ":2:1", "listener"),
        ("ip_address 127.0.0.1\ncafile certs/ca.crt\n", ":2", "TLS"),
        ("ip_address 127.0.0.1\nallow_anonymous false\npassword_file /no/such/passwords\n", "", "/no/such/passwords"),
    ],
)
def test_a_bad_file_is_refused_with_line_and_column(tmp_path, text, where, word):
    """What cannot be read or parsed refuses to start, with path, line, column and the word itself."""
    path = tmp_path / "bad.conf"
    path.write_text(text)
    sentence = refused("-c", str(path))
    assert word in sentence and (f"{path}{where}" in sentence)


OLD_SAMPLE = """# Keys of the old broker's own sample file.
ip_address 127.0.0.1
ip_port {port}
# unix_socket /tmp/sol.sock
log_level DEBUG
log_path {log}
max_memory 2GB
max_request_size 50MB
tcp_backlog 128
stats_publish_interval 10s
{tls}cafile certs/ca.crt
{tls}certfile certs/alaptop.crt
{tls}keyfile certs/alaptop.key
# allow_anonymous false
# password_file passwd_file
"""


@pytest.mark.sol
def test_the_old_brokers_sample_file_starts_without_its_tls_lines(start_broker, tmp_path):
    """The keys of the old sample, TLS commented out, start Sol as they stand, 50 MB packets included."""
    port = free_port()
    text = OLD_SAMPLE.format(port=port, log=tmp_path / "sol.log", tls="# ")
    b = start_broker_with(start_broker, port, text)
    with b.client("x", V5) as w:
        assert w.connack.properties["maximum_packet_size"] == 50 * 1024 * 1024
        payload = b"x" * (3 << 20)
        w.subscribe(("t", 0))
        w.publish("t", payload)
        assert w.take().payload == payload
    assert (tmp_path / "sol.log").stat().st_size > 0


@pytest.mark.sol
def test_the_old_brokers_sample_file_is_refused_without_its_certificates(tmp_path):
    """A file that asks for TLS and whose certificates are not there is refused and they are named: never plain text
    instead."""
    path = tmp_path / "sol.conf"
    path.write_text(OLD_SAMPLE.format(port=1, log=tmp_path / "sol.log", tls=""))
    sentence = refused("-c", str(path))
    assert "certs/alaptop.crt: cannot be read: " in sentence


@pytest.mark.sol
def test_each_trap_of_the_old_syntax_is_warned_about(start_broker, tmp_path):
    """Prefix keys, trailing words, `1h`, `no` for a switch and unknown keys: read as written, never in silence."""
    port = free_port()
    lines = {
        3: "ip_a 127.0.0.1",
        4: "tcp_backlog 128 # trailing",
        5: "stats_publish_interval 1h",
        6: "unheard_of 1",
        7: "allow_anonymous no",
        8: "password_file " + str(tmp_path / "passwords"),
    }
    (tmp_path / "passwords").write_text(f"alice:{HASH}\n")
    text = f"ip_port {port}\nmetrics off\n" + "".join(f"{line}\n" for line in lines.values())
    b = start_broker_with(start_broker, port, text)
    for number in range(3, 8):
        assert re.search(rf":{number}(:\d+)?:.*", b.log()), f"no warning for line {number} in:\n{b.log()}"
    with b.wire(V311) as w:
        w.connect("x", expect=5)  # `no` means no


@pytest.mark.sol
def test_check_prints_what_would_run(tmp_path):
    """`--check` reads the file, prints the configuration in force and starts nothing."""
    path = tmp_path / "sol.conf"
    path.write_text("ip_address 127.0.0.1\nip_port 1999\n")
    done = run_sol("-c", str(path), "--check")
    assert done.returncode == 0 and "1999" in done.stdout
    path.write_text("ip_address 127.0.0.1\nip_port x\n")
    assert run_sol("-c", str(path), "--check").returncode in (1, 2)


@pytest.mark.sol
def test_who_can_connect_is_said_whatever_the_log_level(start_broker):
    """Listeners, authentication and the way to open the broker are printed at log_level ERROR too."""
    b = start_broker("log_level ERROR")
    b.says("only this machine can connect")
    b.says(f"listening on 127.0.0.1:{b.port} (tcp, no encryption): anyone")


@pytest.mark.sol
def test_an_open_broker_warns(start_broker):
    """A broker that the network reaches without a password says so as a WARNING."""
    port = free_port()
    b = start_broker_with(start_broker, port, f"ip_address 0.0.0.0\nip_port {port}\nmetrics off\n")
    wait_until(lambda: re.search("WARNING everybody who reaches this machine can connect", b.log()), "warning")


@pytest.mark.sol
@pytest.mark.parametrize("line", ["pid_file /no/such/sol.pid", "metrics 203.0.113.1:9883"])
def test_a_start_that_fails_late_leaves_nothing_behind(tmp_path, line):
    """A pid file or metrics that cannot be had end the start, and the Unix socket's file goes with it."""
    path, sock = tmp_path / "sol.conf", tmp_path / "sol.sock"
    path.write_text(f"unix_socket {sock}\n{line}\n" + ("" if "metrics" in line else "metrics off\n"))
    done = run_sol("-c", str(path))
    assert done.returncode == 1 and line.split()[1] in done.stderr
    assert not sock.exists()


# --- Signals and daemon -----------------------------------------------------------------------------------------------


@pytest.mark.differs("sends no DISCONNECT")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_tells_5_0_clients_and_exits_0(start_broker, number):
    """SIGTERM and SIGINT: DISCONNECT 0x8B to 5.0 clients, everything flushed, exit code 0."""
    b = start_broker()
    with b.client("five", V5) as five, b.client("four", V311) as four, b.client("will", V5) as slow:
        five.subscribe(("t", 0))
        slow.subscribe(("t", 0))
        four.publish("t", b"x" * 200_000)
        four.ping()
        b.process.send_signal(number)
        assert five.take().payload == b"x" * 200_000
        five.expect_disconnect(0x8B)
        four.expect_disconnect(0x8B)
        assert b.process.wait(TIMEOUT) == 0
        assert slow.take().payload == b"x" * 200_000, "what was sent before the stop arrives"


@pytest.mark.sol
def test_user_signals_are_ignored_and_said_to_be(start_broker):
    """SIGUSR1 and SIGUSR2, which scripts send to mosquitto, end nothing."""
    b = start_broker("log_level INFO")
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        b.process.send_signal(number)
    wait_until(lambda: b.log().count("are ignored") == 2, "two lines")
    b.client("x", V5).disconnect()


@pytest.mark.sol
def test_a_second_sigterm_does_not_cut_the_stop_short(start_broker):
    """A supervisor that asks twice gets the same stop: DISCONNECT 0x8B and exit code 0."""
    b = start_broker()
    with b.client("x", V5) as w:
        for _ in range(3):
            b.process.send_signal(signal.SIGTERM)
        w.expect_disconnect(0x8B)
        assert b.process.wait(TIMEOUT) == 0


@pytest.mark.sol
def test_the_daemon_detaches_and_keeps_a_pid_file(tmp_path):
    """`-d` returns when the broker is up; the pid file holds its number, and is gone after SIGTERM."""
    port, pid_file, log = free_port(), tmp_path / "sol.pid", tmp_path / "sol.log"
    config = tmp_path / "sol.conf"
    config.write_text(f"ip_address 127.0.0.1\nip_port {port}\nlog_path {log}\nmetrics off\npid_file {pid_file}\n")
    done = run_sol("-d", "-v", "-c", str(config))
    assert done.returncode == 0, done.stderr
    pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "pid file"))
    try:
        with wait_until(lambda: try_connect(port), "listener") as w:
            w.connect("x")
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        parent, session = int(stat[1]), int(stat[3])
        assert session != os.getsid(0) and parent != os.getpid()
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists() or state(pid) == "Z", "end of the daemon")
    assert not pid_file.exists()
    assert log.stat().st_size > 0


@pytest.mark.sol
def test_a_daemon_whose_log_goes_to_standard_output_is_ready(tmp_path):
    """`-d` exits 0 although log lines are written to the stream that its readiness is told through."""
    port, pid_file = free_port(), tmp_path / "sol.pid"
    config = tmp_path / "sol.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stdout\nlog_type all\nmetrics off\npid_file {pid_file}\n"
    )
    done = run_sol("-d", "-c", str(config))
    pid = int(pid_file.read_text())
    try:
        assert done.returncode == 0, done.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists() or state(pid) == "Z", "end of the daemon")


@pytest.mark.sol
def test_a_daemon_that_cannot_start_says_so(start_broker, tmp_path):
    """With `-d` too, a port in use is told to the shell that started it."""
    b = start_broker()
    assert str(b.port) in refused("-d", "-c", str(b.config_file))


def try_connect(port: int):
    try:
        return Wire(port, V5)
    except OSError:
        return None


def state(pid: int) -> str:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


# --- Login ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(start_broker, tmp_path):
    """A broker that knows alice by the hash above and nobody else."""
    (tmp_path / "passwords").write_text(f"alice:{HASH}\n")
    return start_broker(f"allow_anonymous false\npassword_file {tmp_path}/passwords\nlog_level DEBUG")


@pytest.mark.sol
@pytest.mark.parametrize("version", [V311, V5])
def test_login_with_a_crypt_hash(guarded, version):
    """`$6$` hashes of the old broker let the right password in and nothing else."""
    wrong = 0x86 if version == V5 else 4
    anonymous = (0x86, 0x87) if version == V5 else (4, 5)
    with guarded.wire(version) as w:
        w.connect("a", username="alice", password="open sesame")
        w.ping()
    for user, password in (("alice", "open sesam"), ("alice", ""), ("alice", HASH), ("bob", "open sesame"), ("", "")):
        with guarded.wire(version) as w:
            w.send(wire.connect("a", version, username=user, password=password))
            assert w.expect(wire.CONNACK).reason in (wrong, *anonymous)
            w.expect_closed()
    with guarded.wire(version) as w:
        w.send(wire.connect("a", version))
        assert w.expect(wire.CONNACK).reason in anonymous
        w.expect_closed()


@pytest.mark.sol
def test_nothing_pipelined_behind_a_failed_login_is_served(guarded):
    """SUBSCRIBE and PUBLISH sent with a CONNECT that is refused have no effect [MQTT-3.1.4-6]."""
    with guarded.client("s", V5, username="alice", password="open sesame") as sub:
        sub.subscribe(("#", 0))
        with guarded.wire(V311) as w:
            w.send(
                wire.connect("evil", username="alice", password="wrong"),
                wire.subscribe([("#", 0)]),
                wire.publish("t", b"x"),
            )
            seen = w.expect_closed()
            assert [p.kind for p in seen] == [wire.CONNACK] and seen[0].reason != 0
        sub.publish("end")
        assert sub.take().topic == "end"


@pytest.mark.sol
def test_a_failed_login_is_logged_with_who_and_why(guarded):
    """Peer address, Client Identifier (escaped) and reason stand in the log, on one line; the password never does."""
    with guarded.wire(V311) as w:
        local = w.socket.getsockname()[1]
        w.send(wire.connect("evil\nid", username="alice", password="sekrit-word"))
        w.expect_closed()
    guarded.says("evil")
    line = next(line for line in guarded.log().splitlines() if "evil" in line)
    assert f"127.0.0.1:{local}" in line and "id" in line
    assert "sekrit-word" not in guarded.log()


@pytest.mark.sol
def test_protocol_errors_are_logged_with_who_and_why(start_broker):
    """A malformed packet leaves a line with peer address, Client Identifier and reason."""
    b = start_broker("log_level DEBUG")
    with b.client("culprit", V5) as w:
        local = w.socket.getsockname()[1]
        w.send(b"\x36\x06\x00\x01a\x00\x01\x00")
        w.expect_closed()
    wait_until(lambda: any("culprit" in l and f":{local}" in l for l in b.log().splitlines()), "log line")


# --- Logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.sol
def test_the_log_is_reopened_on_sighup(start_broker, tmp_path):
    """After a rename SIGHUP starts a new file, and the broker goes on."""
    log = tmp_path / "sol.log"
    b = start_broker(f"log_path {log}\nlog_level DEBUG")
    with b.client("before", V5):
        wait_until(lambda: "before" in log.read_text(), "first line")
        log.rename(tmp_path / "sol.log.1")
        b.process.send_signal(signal.SIGHUP)
        wait_until(log.exists, "new file")
        with b.client("behind", V5) as w:
            w.ping()
        wait_until(lambda: "behind" in log.read_text(), "line in the new file")
    assert "behind" not in (tmp_path / "sol.log.1").read_text()


@pytest.mark.sol
@pytest.mark.parametrize("form", ["json", "sol", "text"])
def test_log_formats(start_broker, tmp_path, form):
    """`log_format`: JSON lines, `<epoch seconds> <message>` as the old broker wrote, or text for people."""
    log = tmp_path / "sol.log"
    b = start_broker(f"log_path {log}\nlog_level DEBUG\nlog_format {form}")
    with b.client("someone", V5):
        wait_until(lambda: "someone" in log.read_text(), "line")
    b.terminate()
    lines = log.read_text().splitlines()
    assert lines
    for line in lines:
        if form == "json":
            assert isinstance(json.loads(line), dict)
        elif form == "sol":
            assert re.match(r"\d{10} .", line) and len(line) <= 11 + 120 + 3


@pytest.mark.sol
def test_a_dead_standard_error_loses_no_line_of_the_file(tmp_path):
    """Nobody reads standard error any more: the file gets every line, and none is said to be lost."""
    port, log = free_port(), tmp_path / "sol.log"
    config = tmp_path / "sol.conf"
    config.write_text(f"ip_address 127.0.0.1\nip_port {port}\nlog_level DEBUG\nlog_path {log}\nmetrics off\n")
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([sol_bin(), "-c", str(config)], stderr=writing, stdin=subprocess.DEVNULL)
    os.close(writing)
    try:
        for name in ("first", "second"):
            with wait_until(lambda: try_connect(port), "listener") as w:
                w.connect(name)
            wait_until(lambda: f"client={name}" in log.read_text(), f"line of {name}")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert "lost here" not in log.read_text()
    assert log.read_text().count("standard error is gone") == 1


@pytest.mark.sol
def test_a_flood_of_bad_peers_does_not_flood_the_log(start_broker, tmp_path):
    """A kind of line that peers cause is written 20 times a second; how many more there were is written too."""
    log = tmp_path / "sol.log"
    b = start_broker(f"log_path {log}\nlog_level WARNING")
    for _ in range(300):
        with b.wire() as w:
            w.send(b"GET / HTTP/1.1\r\n\r\n")
            w.expect_closed()
    b.terminate()
    lines = [line for line in log.read_text().splitlines() if "not MQTT" in line]
    more = [int(m[1]) for line in lines if (m := re.search(r"(\d+) more: ", line))]
    assert more and len(lines) - len(more) + sum(more) == 300
    assert len(lines) < 200


# --- Reload -----------------------------------------------------------------------------------------------------------


def reload_with(b, before: str, after: str) -> None:
    """Changes the file and sends SIGHUP; returns when the broker has taken it."""
    b.config_file.write_text(b.config_file.read_text().replace(before, after))
    b.reload()


@pytest.mark.sol
def test_sighup_changes_who_may_connect(start_broker, tmp_path):
    """allow_anonymous and password_file take effect on SIGHUP, in both directions; who is connected stays."""
    (tmp_path / "passwords").write_text(f"alice:{HASH}\n")
    b = start_broker("log_level INFO\nallow_anonymous true")
    with b.client("before", V5) as before:
        reload_with(b, "allow_anonymous true", f"allow_anonymous false\npassword_file {tmp_path}/passwords")
        with b.wire(V5) as w:
            w.connect("x", expect=0x87)
        with b.wire(V5) as w:
            w.connect("x", username="alice", password="wrong", expect=0x86)
        b.client("x", V5, username="alice", password="open sesame").disconnect()
        before.ping()
    reload_with(b, "allow_anonymous false", "allow_anonymous true")
    b.client("x", V5).disconnect()


@pytest.mark.sol
def test_sighup_says_what_needs_a_restart(start_broker, tmp_path):
    """A directive that cannot change at run time is named; warnings of the file are told again."""
    b = start_broker("log_level INFO\nlog_format text")
    reload_with(b, "log_format text", f"log_format json\nlog_path {tmp_path}/other.log\nunheard_of 1")
    for name in ("log_format", "log_path"):
        b.says(f"needs a restart: {name}")
    assert "unheard_of" in b.log() and "needs a restart: ip_port" not in b.log()


@pytest.mark.sol
def test_a_file_that_does_not_parse_changes_nothing(start_broker):
    """On SIGHUP a broken file, or a password file that is not there, is an ERROR and leaves the old rules in force."""
    b = start_broker("log_level INFO\nallow_anonymous true")
    reload_with(b, "allow_anonymous true", "allow_anonymous false\nmax_memory lots")
    assert re.search("ERROR not reloaded, the old stays in force: .*lots", b.log())
    b.client("x", V5).disconnect()
    reload_with(b, "max_memory lots", "password_file /no/such/passwords")
    assert re.search("ERROR not reloaded, the old stays in force: .*/no/such/passwords", b.log())
    b.client("x", V5).disconnect()


@pytest.mark.sol
def test_a_longer_keep_alive_than_granted_is_answered_with_server_keep_alive(start_broker):
    """max_keepalive: CONNACK carries Server Keep Alive where the client asked for more or for none [MQTT-3.1.2-21]."""
    port = free_port()
    text = f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_keepalive 30\nmetrics off\n"
    b = start_broker_with(start_broker, port, text)
    for asked, told in ((600, 30), (0, 30), (20, None), (30, None)):
        with b.client("x", V5, keep_alive=asked) as w:
            assert w.connack.properties.get("server_keep_alive") == told, asked


# --- Statistics -------------------------------------------------------------------------------------------------------

SOL_TOPICS = {
    "$SOL/broker/uptime": r"\d+",
    "$SOL/broker/uptime/sol": r"\d+\.\d{4}",
    "$SOL/broker/clients/connected": r"\d+",
    "$SOL/broker/clients/disconnected": r"\d+",
    "$SOL/broker/bytes/sent": r"\d+",
    "$SOL/broker/bytes/received": r"\d+",
    "$SOL/broker/messages/sent": r"\d+",
    "$SOL/broker/messages/received": r"\d+",
    "$SOL/broker/memory/used": r"\d+",
}


@pytest.mark.sol
def test_the_sol_topics_are_published_with_and_without_the_slash(start_broker):
    """Every `$SOL` topic of the old broker, its silent ones filled, retained, and its `$SYS` counterpart."""
    b = start_broker("stats_publish_interval 1s")
    with b.client("watch", V311) as w:
        w.subscribe(("$SOL/#", 0), ("$SYS/#", 0))
        wanted = {name + slash for name in SOL_TOPICS for slash in ("", "/")} | {"$SYS/broker/uptime", "$SYS/broker/version"}
        seen = {}
        while not wanted <= set(seen):
            p = w.take()
            seen[p.topic] = p.payload.decode()
        for name, pattern in SOL_TOPICS.items():
            assert re.fullmatch(pattern, seen[name]), (name, seen[name])
    with b.client("late", V5) as w:
        w.subscribe(("$SOL/broker/uptime", 0))
        assert w.take().retain, "retained: a late subscriber need not wait"


def test_clients_may_not_publish_statistics(broker, name):
    """A PUBLISH to `$SOL/…` or `$SYS/…` changes nothing: 5.0 hears 0x87, 3.x is acknowledged or cut."""
    for topic in ("$SYS/broker/uptime", "$SOL/broker/uptime"):
        if IS_MOSQUITTO:
            break
        with broker.client(name, V5) as w:
            assert w.publish(topic, b"forged", 1, 1).reason == 0x87
            w.subscribe((topic, 0), ("$SYS/x", 0), ("$SOL/x", 0), (f"{name}/end", 0))
            w.publish("$SYS/x", b"forged", retain=True)
            w.publish("$SOL/x", b"forged", retain=True)
            w.publish(f"{name}/end")
            while (p := w.take()).topic != f"{name}/end":
                assert p.payload != b"forged"


@pytest.mark.sol
def test_metrics_count_what_happens(start_broker):
    """The Prometheus text is served on loopback and its numbers follow the traffic."""
    port = free_port()
    b = start_broker(f"metrics 127.0.0.1:{port}")
    b.says("memory limit")

    def scrape() -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT) as answer:
            assert answer.status == 200
            text = answer.read().decode()
        return {m[1]: float(m[2]) for m in re.finditer(r"^([a-z_0-9]+(?:\{[^}]*\})?) ([0-9.e+-]+)$", text, re.M)}

    before = scrape()
    with b.client("x", V5) as w:
        w.subscribe(("t", 0))
        for _ in range(100):
            w.publish("t", b"x")
        for _ in range(100):
            w.take()
        after = scrape()
        for name in ("sol_publish_received_total", "sol_publish_sent_total"):
            assert after[name] - before[name] >= 100, name
        assert after["sol_clients_connected"] == before["sol_clients_connected"] + 1
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=TIMEOUT) as answer:
        assert answer.status == 200


# --- Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.sol
def test_max_memory_is_enforced(start_broker):
    """Under pressure 5.0 publishers of retained messages hear 0x97 and the broker neither dies nor grows beyond."""
    b = start_broker("max_memory 32MB")
    refused_count, number = 0, 0
    with b.client("greedy", V5) as w:
        while not refused_count:
            assert number < 2000, "80 MB were taken"
            answer = w.publish(f"r/{number}", b"x" * 40_000, 1, number % 1000 + 1, retain=True)
            refused_count += answer.reason == 0x97
            assert answer.reason in (0x00, 0x10, 0x97)
            number += 1
        assert number > 100
        w.ping()
        for n in range(number):
            w.publish(f"r/{n}", b"", retain=True)

        # Other shards may not have come to the deletions yet.
        def is_taken():
            return w.publish("again", b"x", 1, 1, retain=True).reason in (0x00, 0x10)

        wait_until(is_taken, "room for more after the deletions")
    status = pathlib.Path(f"/proc/{b.pid}/status").read_text()
    rss = int(re.search(r"VmHWM:\s+(\d+)", status)[1])
    assert rss < 96 * 1024, f"{rss} kB at most"


# --- sol passwd -------------------------------------------------------------------------------------------------------


@pytest.mark.sol
def test_passwd_rewrites_plain_lines_in_place(start_broker, tmp_path):
    """`sol passwd FILE` turns `user:plain` into a hash the broker takes, and leaves hashes as they are."""
    path = tmp_path / "passwords"
    path.write_text(f"alice:{HASH}\nbob:builder\n")
    done = run_sol("passwd", str(path))
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    assert f"alice:{HASH}\n" in text and "builder" not in text
    assert re.search(r"^bob:\$argon2id\$v=19\$m=47104,t=1,p=1\$[+/0-9A-Za-z]{22}\$[+/0-9A-Za-z]{43}$", text, re.M)
    b = start_broker(f"allow_anonymous false\npassword_file {path}")
    b.client("b", V5, username="bob", password="builder").disconnect()
    with b.wire(V5) as w:
        w.connect("b", username="bob", password="Builder", expect=0x86)


@pytest.mark.sol
def test_passwd_adds_changes_and_deletes_a_user(start_broker, tmp_path):
    """`sol passwd FILE USER` reads the password from standard input; `-b` from the line; `-D` deletes."""
    path = tmp_path / "passwords"

    def passwd(*args: str, text: str = "") -> None:
        done = run_sol("passwd", *args, input=text)
        assert done.returncode == 0, done.stderr

    passwd(str(path), "carol", text="first\n")
    passwd(str(path), "dave", text="other\n")
    passwd("-b", str(path), "carol", "second")
    passwd("-D", str(path), "dave")
    assert re.fullmatch(r"carol:\$argon2id\$\S+\n", path.read_text())
    assert path.stat().st_mode & 0o077 == 0, "nobody else may read it"
    b = start_broker(f"allow_anonymous false\npassword_file {path}")
    b.client("c", V5, username="carol", password="second").disconnect()
    for user, password in (("carol", "first"), ("dave", "other")):
        with b.wire(V5) as w:
            w.connect("c", username=user, password=password, expect=0x86)


@pytest.mark.sol
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_the_password_prompt_gives_the_echo_back(tmp_path, number):
    """Whoever presses Ctrl-C instead of a password can see what they type next, and no file is written."""
    leader, terminal = pty.openpty()
    process = subprocess.Popen([sol_bin(), "passwd", str(tmp_path / "passwords"), "carol"], stdin=terminal, stderr=terminal)
    try:
        wait_until(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO, "prompt without echo")
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 130
        assert termios.tcgetattr(terminal)[3] & termios.ECHO
        assert not list(tmp_path.iterdir())
    finally:
        process.kill()
        process.wait()
        os.close(leader)
        os.close(terminal)
