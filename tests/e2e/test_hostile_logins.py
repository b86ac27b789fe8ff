"""Attacks on logins, on Sessions of others and on secrets. After each the owner of an account is served as before."""

import base64
import hashlib
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

import wire
from broker import IS_MOSQUITTO, free_port, sol_bin, wait_until
from hostile import GOOD_HASH, check_healthy, survives
from wire import TIMEOUT, V5, V31, V311

ALICE = {"username": "alice", "password": "goodpw"}
BOB = {"username": "bob", "password": "goodpw"}
# `open sesame`
OTHER_HASH = "$6$abcdefghijklmnop$ZeRt9WAWsXqI2sYEefoDhOsOt.Unaz4cnVualhcF6kzBKBCwJBzK2hHbgwR7956aV1klYIb/4UoLodpp0pCFV/"


@pytest.fixture
def passwords(tmp_path) -> pathlib.Path:
    """A password file with alice and bob, for the broker under test."""
    path = tmp_path / "passwords"
    if IS_MOSQUITTO:
        # As mosquitto_passwd writes it, with as many rounds as make a check cost what it costs in Sol.
        salt = b"saltsaltsalt"
        digest = hashlib.pbkdf2_hmac("sha512", b"goodpw", salt, 20_000)
        secret = f"$7$20000${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
        path.write_text(f"alice:{secret}\nbob:{secret}\n")
    else:
        path.write_text(f"alice:{GOOD_HASH}\nbob:{GOOD_HASH}\n")
    return path


@pytest.fixture
def guarded(start_broker, passwords):
    """A broker that lets in alice and bob and nobody else."""
    more = "user root" if IS_MOSQUITTO else "log_level DEBUG\nstats_publish_interval 1s"
    return start_broker(f"allow_anonymous false\npassword_file {passwords}\n{more}")


def attempt(broker, version: int, client_id: str = "intruder", **options) -> int:
    """The CONNACK's code of a login, which closes unless it is 0; -1 where the broker closes without one."""
    with broker.wire(version) as w:
        w.send(wire.connect(client_id, version, **options))
        try:
            code = w.expect(wire.CONNACK).reason
        except wire.Closed:
            return -1
        if code != 0:
            assert w.expect_closed() == []
        return code


def is_refused(version: int, code: int) -> bool:
    return code in ((0x86, 0x87) if version == V5 else (4, 5))


# --- Who gets in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V31, V311, V5], ids=["v31", "v311", "v5"])
def test_wrong_unknown_and_nameless_are_refused(guarded, version):
    """A wrong password, an unknown user and none at all: refused and closed, and nobody learns which users exist."""
    with survives(guarded, **ALICE):
        wrong = attempt(guarded, version, username="alice", password="badpw")
        unknown = attempt(guarded, version, username="mallory", password="goodpw")
        assert is_refused(version, wrong) and wrong == unknown
        assert is_refused(version, attempt(guarded, version))
        assert is_refused(version, attempt(guarded, version, username="", password=""))


@pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])
def test_no_password_is_no_password(guarded, version):
    """A User Name with an empty password, or with no Password field, does not get in."""
    with survives(guarded, **ALICE):
        for options in ({}, {"password": ""}, {"password": b"\0"}):
            assert is_refused(version, attempt(guarded, version, username="alice", **options)), options


@pytest.mark.differs("takes a password for the right one up to its first NUL")
@pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])
def test_passwords_are_binary_and_whole(guarded, version):
    """A beginning of the password, more than it, a NUL behind it, 10,000 bytes of it: none is the password."""
    with survives(guarded, **ALICE):
        for password in (b"goodp", b"goodpw ", b"goodpw\0", b"goodpw\0x", b"\0goodpw", b"GOODPW", b"goodpw" * 1_700):
            code = attempt(guarded, version, username="alice", password=password)
            assert is_refused(version, code), (password[:12], code)
        # More than a CONNECT may have: refused by its length.
        code = attempt(guarded, version, username="alice", password=b"goodpw" * 10_000)
        assert code == -1 or is_refused(version, code) or (version == V5 and code == 0x95), code


@pytest.mark.sol
def test_control_characters_forge_no_log_line(guarded):
    """A User Name and Client Identifier with newlines, ESC and right-to-left marks: refused, and one escaped line each."""
    with survives(guarded, **ALICE):
        lines_before = len(guarded.log().splitlines())
        forged = "x\n2026-01-01T00:00:00.000Z ERROR forged\x1b[31m\u202e"
        attempt(guarded, V5, client_id=f"id{forged}", username=f"user{forged}", password="x")
        guarded.says("userx")
        new = guarded.log().splitlines()[lines_before:]
        assert not [line for line in new if line.startswith("2026-01-01T00:00:00.000Z")]
        assert "\x1b" not in guarded.log() and "\u202e" not in guarded.log()


def test_a_refused_login_leaves_no_will(guarded):
    """The Will of a CONNECT with a bad password is published by no end of its connection."""
    with survives(guarded, **ALICE):
        with guarded.client("watch", V5, **ALICE) as sub:
            sub.subscribe(("#", 0))
            for version in (V311, V5):
                will = wire.Will("w", b"of the refused", retain=True)
                attempt(guarded, version, username="alice", password="badpw", will=will)
            sub.publish("end")
            assert sub.take().topic == "end"
            sub.subscribe(("w", 0), packet_id=2)
            sub.ping()
            sub.disconnect()


def test_a_refused_login_takes_nothing_over(guarded):
    """With the Client Identifier of a client that is connected a bad login changes nothing for it or its Session."""
    with survives(guarded, **ALICE):
        owner = guarded.client("owner", V5, clean=False, properties_={"session_expiry_interval": 60}, **ALICE)
        owner.subscribe(("o", 1))
        for version in (V311, V5):
            for clean in (True, False):
                attempt(guarded, version, client_id="owner", clean=clean, username="alice", password="badpw")
        owner.publish("o", b"mine")
        assert owner.take().payload == b"mine"
        owner.close()
        with guarded.client("owner", V5, clean=False, **ALICE) as w:
            assert w.connack.session_present
            w.disconnect()


@pytest.mark.sol
def test_a_session_is_not_handed_to_another_user(guarded):
    """Bob comes by the Client Identifier of alice's durable Session: refused, and the queue is still hers."""
    durable = {"clean": False, "properties_": {"session_expiry_interval": 600}}
    with survives(guarded, **ALICE):
        with guarded.client("device", V5, **durable, **ALICE) as w:
            w.subscribe(("secret", 1))
            w.disconnect()
        with guarded.client("p", V5, **ALICE) as pub:
            pub.publish("secret", b"for alice", 1)
            pub.disconnect()
        for clean in (True, False):
            assert attempt(guarded, V5, client_id="device", clean=clean, **BOB) == 0x87
            assert attempt(guarded, V311, client_id="device", clean=clean, **BOB) == 5
        with guarded.client("device", V5, clean=False, **ALICE) as w:
            assert w.connack.session_present
            assert w.take().payload == b"for alice"
            w.disconnect()


@pytest.mark.differs("answers for an unknown user at once")
def test_the_time_of_an_answer_tells_no_user(guarded):
    """Medians of an unknown user and of a wrong password lie within three times of each other, and two milliseconds."""

    def once(user: str, n: int) -> float:
        with guarded.wire(V5) as w:
            start = time.perf_counter()
            w.send(wire.connect(f"t{n}", V5, username=user, password=f"bad{n}"))
            w.expect(wire.CONNACK)
            return time.perf_counter() - start

    with survives(guarded, **ALICE):
        wrong, unknown = [], []
        for n in range(25):
            wrong.append(once("alice", n))
            unknown.append(once(f"nobody{n}", n))
        low, high = sorted((statistics.median(wrong), statistics.median(unknown)))
        assert high < 3 * low + 0.002, f"wrong {statistics.median(wrong):.4f} s, unknown {statistics.median(unknown):.4f} s"


@pytest.mark.sol
def test_a_flood_of_wrong_logins_delays_nobody(guarded):
    """Guesses on 60 connections at a time: a client that is connected has its pings answered, and one whose login was
    right before gets in at once; what is too much hears that the server is busy."""
    with survives(guarded, grows_mb=12, **ALICE):
        with guarded.client("steady", V5, **ALICE) as steady:
            guesses = [guarded.wire(V5) for _ in range(60)]
            for n, w in enumerate(guesses):
                w.send(wire.connect(f"g{n}", V5, username=f"u{n % 7}", password=f"guess{n}"))
            start = time.monotonic()
            steady.ping()
            guarded.client("again", V5, **ALICE).disconnect()
            assert time.monotonic() - start < 1
            for w in guesses:
                assert w.expect(wire.CONNACK, timeout=60).reason in (0x86, 0x87, 0x89)
                w.close()
            steady.disconnect()


# --- Files and reload -------------------------------------------------------------------------------------------------


@pytest.mark.sol
@pytest.mark.parametrize("text", ["user\n", ":x\n", "alice:\n", "alice:goodpw\n", f"a:{GOOD_HASH}\na:{GOOD_HASH}\n", None])
def test_a_password_file_with_a_fault_refuses_to_start(tmp_path, text):
    """Malformed lines, a file that is not there: no start, and never a user without a password."""
    config, file = tmp_path / "sol.conf", tmp_path / "passwords"
    if text is not None:
        file.write_text(text)
    config.write_text(f"ip_port {free_port()}\nallow_anonymous false\npassword_file {file}\nmetrics off\n")
    done = subprocess.run([sol_bin(), "-c", config], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1 and str(file) in done.stderr, done
    assert "goodpw" not in done.stderr


@pytest.mark.sol
def test_a_revoked_user_is_gone_with_the_reload(guarded, passwords):
    """SIGHUP: who is not in the file any more, or has another password, is closed with 0x87; the others stay."""
    with guarded.client("a", V5, **ALICE) as alice, guarded.client("b", V311, **BOB) as bob:
        passwords.write_text(f"alice:{OTHER_HASH}\nbob:{GOOD_HASH}\n")
        guarded.reload()
        alice.expect_disconnect(0x87)
        bob.ping()
        assert attempt(guarded, V5, **ALICE) == 0x86
        guarded.client("a", V5, username="alice", password="open sesame").disconnect()
        passwords.write_text(f"alice:{OTHER_HASH}\n")
        guarded.reload()
        assert bob.expect_closed() == []
    check_healthy(guarded, username="alice", password="open sesame")


@pytest.mark.sol
def test_a_user_who_is_back_has_his_session_back(guarded, passwords):
    """Alice is out of the file at one SIGHUP and in it at the next: bob does not get her Session, and she has it with what
    was queued; that she is back ends no connection."""
    durable = {"clean": False, "properties_": {"session_expiry_interval": 600}}
    alone, both = f"bob:{GOOD_HASH}\n", f"alice:{GOOD_HASH}\nbob:{GOOD_HASH}\n"
    with guarded.client("device", V5, **durable, **ALICE) as w:
        w.subscribe(("secret", 1))
        w.disconnect()
    with guarded.client("p", V5, **BOB) as bob:
        bob.publish("secret", b"for alice", 1)
        for text in (alone, both):
            passwords.write_text(text)
            guarded.reload()
        for clean in (True, False):
            assert attempt(guarded, V5, client_id="device", clean=clean, **BOB) == 0x87
        with guarded.client("device", V5, **durable, **ALICE) as w:
            assert w.connack.session_present
            assert w.take().payload == b"for alice"
            w.disconnect()
        bob.ping()
    check_healthy(guarded, **ALICE)


@pytest.mark.sol
def test_a_file_without_users_keeps_the_old_ones(guarded, passwords):
    """SIGHUP while the file is empty, or has nothing but comments, as one that is just being written: an ERROR, and nobody
    is closed or kept out."""
    with survives(guarded, **ALICE), guarded.client("a", V5, **ALICE) as alice:
        for n, text in enumerate(("", "# nobody\n\n")):
            passwords.write_text(text)
            guarded.reload()
            assert guarded.log().count("no user is left in it") == n + 1
            alice.ping()
            guarded.client("b", V5, **BOB).disconnect()
            assert attempt(guarded, V5) == 0x87
        alice.disconnect()


@pytest.mark.sol
def test_a_file_that_cannot_be_read_keeps_the_old_users(guarded, passwords):
    """SIGHUP with a broken or missing password file, or a folder in its place: an ERROR, and the old users stay, alone."""
    with survives(guarded, **ALICE):
        for change in (lambda: passwords.write_text("alice\n"), passwords.unlink, passwords.mkdir):
            change()
            guarded.reload()
            assert attempt(guarded, V5) == 0x87
            assert attempt(guarded, V5, username="alice", password="") in (0x86, 0x87)
            guarded.client("a", V5, **ALICE).disconnect()
    assert guarded.log().count("ERROR not reloaded") >= 3


@pytest.mark.sol
def test_a_reload_in_a_storm_loses_nothing(start_broker, passwords):
    """SIGHUP 300 times, and SIGUSR1, SIGUSR2 and SIGPIPE among them, while QoS 1 messages flow: all arrive, in order."""
    b = start_broker(f"allow_anonymous false\npassword_file {passwords}\nlog_level ERROR")
    with survives(b, **ALICE):
        with b.client("s", V5, **ALICE) as sub, b.client("p", V5, **BOB) as pub:
            sub.subscribe(("t", 1))
            done = threading.Event()

            def signals():
                for n in range(300):
                    b.process.send_signal((signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGUSR2)[n % 5])
                    if done.wait(0.005):  # the operator's own pace
                        return

            thread = threading.Thread(target=signals)
            thread.start()
            for n in range(1_000):
                assert pub.publish("t", str(n).encode(), 1, n % 1_000 + 1).reason == 0
                assert sub.take().payload == str(n).encode()
            done.set()
            thread.join()
            for w in (sub, pub):
                w.disconnect()


# --- Secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.sol
def test_passwords_appear_nowhere(start_broker, passwords):
    """Passwords that were right or wrong, and their hashes, stand in no log, argument, environment, topic or metric, and
    a fault of the broker would write no core with them, neither a file nor to a program."""
    port = free_port()
    b = start_broker(
        f"allow_anonymous false\npassword_file {passwords}\nlog_level DEBUG\nstats_publish_interval 1s\nmetrics 127.0.0.1:{port}"
    )
    said = ""
    with b.client("watch", V5, **ALICE) as w:
        for password in ("sekrit-wrong", "goodpw-almost"):
            attempt(b, V5, username="alice", password=password)
            attempt(b, V311, username="sekrit-unknown-user", password=password)
        w.subscribe(("$SYS/#", 0), ("$SOL/#", 0), ("#", 0))
        w.publish("end")
        while (p := w.take()).topic != "end":
            said += f"{p.topic} {p.payload!r}\n"
        w.disconnect()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT) as answer:
        said += answer.read().decode()
    process = pathlib.Path(f"/proc/{b.pid}")
    said += (process / "cmdline").read_text() + (process / "environ").read_text(errors="replace")
    wait_until(lambda: b.log().count("connection refused") >= 4, "log lines")
    said += b.log()
    for secret in ("goodpw", "sekrit-wrong", GOOD_HASH, GOOD_HASH[-40:]):
        assert secret not in said, secret
    core = re.search(r"Max core file size\s+(\S+)", (process / "limits").read_text())[1]
    assert core == ("1" if sys.platform == "linux" else "0")


# --- Limits -----------------------------------------------------------------------------------------------------------

OWN = "listener {port} 127.0.0.1\nallow_anonymous true\nmetrics off\nlog_dest none\n"
SOL = "ip_address 127.0.0.1\nip_port {port}\nmetrics off\nlog_level ERROR\n"
LIMITS = {
    OWN: {
        "max_packet_size": ("0", "1", "128", "268435455"),
        "memory_limit": ("0", "1", "1MB", "18446744073709551615"),
        "max_connections": ("-1", "0", "1", "4294967295"),
        "max_inflight_messages": ("0", "1", "65535"),
        "max_queued_messages": ("0", "1", "4294967295"),
        "max_queued_bytes": ("0", "1", "18446744073709551615"),
        "max_keepalive": ("0", "1", "65535"),
        "max_qos": ("0", "1", "2", "3"),
        "max_topic_alias": ("0", "1", "65535"),
        "persistent_client_expiration": ("0h", "1h", "4294967295y"),
        "max_connect_size": ("0", "1", "16KB", "268435455"),
        "connect_timeout": ("0", "1", "3600", "3601"),
        "sys_interval": ("0", "1", "86400"),
        "max_messages_rate": ("0", "1", "4294967295"),
        "max_bytes_rate": ("0", "1", "4096", "4294967295"),
        "max_connect_rate": ("0", "10", "4294967295"),
        "max_connections_per_address": ("0", "3", "4294967295"),
        "max_connections_per_user": ("0", "1", "4294967295"),
        "global_max_clients": ("-1", "3", "4294967295"),
    },
    SOL: {
        "max_request_size": ("0", "1", "128", "268435455"),
        "max_memory": ("0", "1", "1MB", "18446744073709551615"),
        "tcp_backlog": ("0", "1", "4096", "4294967295"),
        "stats_publish_interval": ("0", "1", "4294967295"),
        "max_connections": ("-1", "0", "1"),
        "max_keepalive": ("0", "1", "65535"),
    },
}
# What these values say is that nobody, or nothing above QoS 0, is served.
SERVES_NOBODY = {("max_connections", "0")}
NO_QOS_1 = {("max_qos", "0")}


@pytest.mark.sol
@pytest.mark.parametrize("form", [OWN, SOL], ids=["listener", "sol"])
def test_every_limit_at_its_ends_serves_or_refuses_to_start(tmp_path, form):
    """0, 1 and the largest value of every limit: the broker starts and serves a QoS 1 message, or refuses with a line;
    no value switches something off by accident."""
    for key, values in LIMITS[form].items():
        for value in values:
            port, config = free_port(), tmp_path / "limit.conf"
            config.write_text(form.format(port=port) + f"{key} {value}\n")
            process = subprocess.Popen([sol_bin(), "-c", config], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
            try:
                serves(process, port, key, value)
            finally:
                if process.poll() is None:
                    process.terminate()
                _, said = process.communicate(timeout=TIMEOUT)
            assert process.returncode in (0, 1), (key, value, said)
            if process.returncode == 1:
                assert f"{config}:" in said.decode(), (key, value, said)
            assert b"panicked" not in said, (key, value, said)


def serves(process, port: int, key: str, value: str) -> None:
    def listening():
        if process.poll() is not None:
            return "ended"
        try:
            return wire.Wire(port, V5)
        except OSError:
            return None

    w = wait_until(listening, f"start with {key} {value}")
    if w == "ended":
        return
    with w:
        w.send(wire.connect("c", V5))
        connack = w.expect(wire.CONNACK)
        assert (connack.reason == 0) == ((key, value) not in SERVES_NOBODY), (key, value, connack)
        if connack.reason != 0:
            return
        level = 0 if (key, value) in NO_QOS_1 else 1
        w.subscribe(("t", level))
        w.send(wire.publish("t", b"served", level, 1, version=V5))
        kinds = {w.recv().kind for _ in range(1 + level)}
        assert wire.PUBLISH in kinds, (key, value)
        w.disconnect()


@pytest.mark.sol
def test_health_tells_a_broker_that_stands_still(start_broker):
    """/healthz answers 200 while the shards answer, and nothing good once they do not."""
    port = free_port()
    b = start_broker(f"metrics 127.0.0.1:{port}")
    b.says("memory limit")
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=TIMEOUT).status == 200
    os.kill(b.pid, signal.SIGSTOP)
    try:
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
    finally:
        os.kill(b.pid, signal.SIGCONT)
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=TIMEOUT).status == 200
