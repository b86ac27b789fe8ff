"""Passwords: the hashes of every broker and tool that somebody may come from, `sol passwd`, and bans after failed logins."""

import re
import signal
import subprocess
import time
import urllib.request

import pytest

import wire
from broker import ROOT, as_root, free_port, sol_bin, wait_until
from clients import MosquittoSub, Paho, mosquitto_pub
from wire import TIMEOUT, V5, V31, V311, Wire

pytestmark = pytest.mark.sol

# What made it, password, hash.
ENTRIES = {
    "mosquitto20": (
        "secret",
        "$7$101$zCxdutuYEzuCHf2X$HfA6IMiuHc6savfYpvXjh0jsxe/q5V+yVG9Ca4z2joHvZVo//bpCtZO7hKBSL6rjqGjtTC3HdfVdlYY/rpq4tA==",
    ),
    "mosquitto16": (
        "secret",
        "$6$jW5BrQlps0RgsGp6$8c/ASSuZOhZRIkqufCU9RzNrClMvy4FFld2ivhhaOuaa+vduzTN5bPvwVY25xlGebdFFNdHZ+3MaeogpB32JUA==",
    ),
    "mosquitto21": (
        "secret",
        "$argon2id$v=19$m=47104,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$xS/iYo2u93W8yEuyWnJuV/a8EHFHlSC/1i98kLMPF3Q",
    ),
    "crypt512": (
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    "crypt512rounds": (
        "Hello world!",
        "$6$rounds=10000$saltstringsaltst$"
        "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ),
    "crypt256": ("Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    "scram": (
        "pencil",
        "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    ),
}
# `secret`, and quick to check.
QUICK = ENTRIES["mosquitto16"][1]
BANNED, WRONG = {V5: 0x8A, V311: 5, V31: 5}, {V5: 0x86, V311: 4, V31: 4}


def passwd(*args: str, text: str = "") -> str:
    done = subprocess.run([sol_bin(), "passwd", *args], input=text, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def attempt(broker, source: str, user: str, password: str, version: int = V5) -> int:
    """The CONNACK's code of a login from an address of this machine."""
    with Wire(broker.address, version, source) as w:
        # The Session of another user, if it has not ended yet, keeps its Client Identifier from this one.
        w.send(wire.connect(f"of-{user[:4]}", version, username=user, password=password))
        return w.expect(wire.CONNACK).reason


def metric(port: int, name: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT) as answer:
        return int(float(re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.M)[1]))


# --- Hashes -----------------------------------------------------------------------------------------------------------


def test_a_file_with_hashes_of_every_kind(start_broker, tmp_path):
    """Real clients log in by hashes that Mosquitto 1.6, 2.0 and 2.1, crypt(3) and `sol passwd` wrote, all in one file, on
    every version; nothing near a password does."""
    path = tmp_path / "passwords"
    path.write_text("# of many brokers\n" + "".join(f"{user}:{entry}\n" for user, (_, entry) in ENTRIES.items()))
    b = start_broker(f"allow_anonymous false\npassword_file {path}\nlogin_failures_max 0")
    first = next(iter(ENTRIES))
    with MosquittoSub(b, "-t", "#", "-u", first, "-P", ENTRIES[first][0]) as sub:
        for version, (user, (password, _)) in zip((V31, V311, V5) * 3, ENTRIES.items()):
            mosquitto_pub(b, "-t", user, "-m", "x", "-u", user, "-P", password, version=version)
            assert sub.take().topic == user
            for wrong in (password[:-1], password + "\0", password.upper(), ""):
                assert attempt(b, "127.0.0.1", user, wrong, version) == WRONG[version], (user, wrong)
            assert mosquitto_pub(b, "-t", "x", "-m", "x", "-u", user, "-P", password + "x", check=False).returncode != 0


@pytest.mark.parametrize(
    "flags, beginning",
    [
        ([], r"\$argon2id\$v=19\$m=47104,t=1,p=1\$"),
        (["-H", "argon2id"], r"\$argon2id\$v=19\$m=47104,t=1,p=1\$"),
        (["-H", "sha512-pbkdf2", "-I", "1000"], r"\$7\$1000\$"),
        (["-H", "sha512"], r"\$6\$[+/0-9A-Za-z]{16}\$[+/0-9A-Za-z]{86}==$"),
        (["-H", "sha512-crypt"], r"\$6\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}$"),
        (["--scram", "-I", "4096"], r"\$scram-sha-256\$4096\$"),
    ],
)
def test_passwd_writes_what_the_broker_reads(start_broker, tmp_path, flags, beginning):
    """Each kind of hash that `sol passwd` writes lets a real client in; it goes into a new file, to standard output, or in
    place of a plain password, and leaves other users' hashes, of whatever kind, and comments as they are."""
    path = tmp_path / "passwords"
    passwd("-c", *flags, "-b", str(path), "ann", "first")
    kept = f"# kept\nold:{QUICK}\n"
    path.write_text(path.read_text() + kept + "plain:second\n")
    passwd("-U", *flags, str(path))
    printed = passwd("-c", *flags, "-", "out", text="third\n")
    path.write_text(path.read_text() + printed)
    assert kept in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    for user in ("ann", "plain", "out"):
        assert re.search(f"^{user}:{beginning}", path.read_text(), re.M), path.read_text()
    b = start_broker(f"allow_anonymous false\npassword_file {path}")
    for login in (("ann", "first"), ("plain", "second"), ("out", "third"), ("old", "secret")):
        with Paho(b, f"of-{login[0]}", V5, login=login) as client:
            assert client.reason == 0
    assert attempt(b, "127.0.0.1", "ann", "second") == WRONG[V5]


@pytest.mark.parametrize(
    "entry",
    [
        "$argon2id$v=19$m=1048576,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$xS/iYo2u93W8yEuyWnJuV/a8EHFHlSC/1i98kLMPF3Q",
        QUICK[:-2],
        QUICK.replace("==", "=A"),
        "$6$rounds=999999999$saltstring$" + "a" * 86,
    ],
)
def test_a_hash_that_cannot_be_checked_refuses_the_file(tmp_path, entry):
    """Memory that would make the machine swap, rounds for minutes, and a `$6$` that is neither crypt(3)'s nor Mosquitto's:
    no start, and the line is named."""
    config, path = tmp_path / "sol.conf", tmp_path / "passwords"
    path.write_text(f"# one\nann:{QUICK}\nbob:{entry}\n")
    config.write_text(f"ip_port {free_port()}\nallow_anonymous false\npassword_file {path}\nmetrics off\n")
    done = subprocess.run([sol_bin(), "-c", config], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1 and f"{path}:3:5: " in done.stderr, done


def test_each_listener_asks_its_own_file(tmp_path):
    """`per_listener_settings`: a user of one listener is nobody at another; a user of both has a password at each. SIGHUP
    closes who is gone at one of them."""
    ports, paths = [free_port(), free_port()], [tmp_path / "first", tmp_path / "second"]
    passwd("-H", "sha512", "-b", str(paths[0]), "ann", "first")
    passwd("-H", "sha512", "-b", str(paths[0]), "bob", "only here")
    passwd("-H", "sha512", "-b", str(paths[1]), "ann", "second")
    text = "metrics off\nper_listener_settings true\n"
    for port, path in zip(ports, paths):
        text += f"listener {port} 127.0.0.1\npassword_file {path}\n"
    config, log = tmp_path / "sol.conf", tmp_path / "log"
    config.write_text(as_root(text))
    with open(log, "wb") as out:
        process = subprocess.Popen([sol_bin(), "-c", config], stderr=out)
    try:
        wait_until(lambda: "listening on" in log.read_text() or process.poll() is not None, "start", timeout=30)

        def login(at: int, user: str, password: str, expect: int) -> None:
            server_busy = reason = 0x89
            # Who comes while users are revoked, from a shard that does not know it yet, is told to come again.
            while reason == server_busy:
                with Wire(ports[at], V5) as w:
                    w.send(wire.connect(f"of-{user}", V5, username=user, password=password))
                    reason = w.expect(wire.CONNACK).reason
            assert reason == expect, f"0x{reason:02x}"

        for _ in range(2):
            login(0, "ann", "first", 0)
            login(1, "ann", "second", 0)
            login(0, "bob", "only here", 0)
            login(0, "ann", "second", 0x86)
            login(1, "ann", "first", 0x86)
            login(1, "bob", "only here", 0x86)
        with Wire(ports[0], V5) as w:
            w.connect("b", username="bob", password="only here")
            passwd("-D", str(paths[0]), "bob")
            process.send_signal(signal.SIGHUP)
            w.expect_disconnect(0x87)
        login(0, "bob", "only here", 0x86)
        login(0, "ann", "first", 0)
    finally:
        process.terminate()
        process.wait(TIMEOUT)


# --- Bans -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(start_broker, tmp_path):
    """guarded(more): a broker with ann and bob that bans after three failures, of this machine's addresses, too."""
    path, port = tmp_path / "passwords", free_port()
    path.write_text(f"ann:{QUICK}\nbob:{QUICK}\n")

    def start(more: str):
        text = f"allow_anonymous false\npassword_file {path}\nmetrics 127.0.0.1:{port}\nlogin_ban_exempt none\n"
        b = start_broker(f"{text}login_failures_max 3\n{more}")
        b.metrics_port = port
        return b

    return start


def test_an_address_is_banned_for_a_while(guarded):
    """Three wrong logins from one address: the next is refused with 0x8A (3.1.1: 5) though it is right, by a real client,
    too; other addresses are served all the while; and when its time is over the address is served again."""
    b = guarded("login_ban 8s")
    for n, user in enumerate(("ann", "bob", "nobody")):
        assert attempt(b, "127.0.0.2", user, f"guess{n}") == WRONG[V5]
    banned_at = time.monotonic()
    for version in (V31, V311, V5):
        assert attempt(b, "127.0.0.2", "ann", "secret", version) == BANNED[version]
        assert attempt(b, "127.0.0.3", "ann", "secret", version) == 0
    login = ["-t", "t", "-m", "x", "-u", "ann", "-P", "secret"]
    assert mosquitto_pub(b, "-A", "127.0.0.2", *login, check=False).returncode != 0
    mosquitto_pub(b, "-A", "127.0.0.3", *login)
    assert metric(b.metrics_port, 'sol_logins_refused_total{reason="banned_address"}') == 4
    assert metric(b.metrics_port, 'sol_logins_refused_total{reason="wrong"}') == 3
    assert metric(b.metrics_port, "sol_banned_addresses") == 1
    assert metric(b.metrics_port, "sol_login_bans_total") == 1
    assert b.log().count("address banned") == 1 and "guess" not in b.log()
    wait_until(lambda: attempt(b, "127.0.0.2", "ann", "secret") == 0, "end of the ban", 30)
    assert time.monotonic() - banned_at > 7
    assert metric(b.metrics_port, "sol_banned_addresses") == 0


def test_a_user_is_banned_but_not_from_himself(guarded):
    """A user whom three addresses guess at is refused from any other, and so is nobody else; from where he has logged in
    before he is served, and what is connected stays so."""
    b = guarded("login_ban 10m")
    with Wire(b.address, V5, "127.0.0.9") as w:
        w.connect("ann", username="ann", password="secret")
        for n in (2, 3, 4):
            assert attempt(b, f"127.0.0.{n}", "ann", "guess") == WRONG[V5]
        assert attempt(b, "127.0.0.5", "ann", "secret") == BANNED[V5]
        assert attempt(b, "127.0.0.5", "bob", "secret") == 0
        assert attempt(b, "127.0.0.9", "ann", "secret") == 0
        w.ping()
    assert metric(b.metrics_port, "sol_banned_users") == 1
    assert re.search(r"user banned: too many failed logins user=ann address=127.0.0.4 ", b.log())
    for n in (2, 3, 4):
        assert attempt(b, f"127.0.0.{n}", "nobody", "guess") == WRONG[V5]
    assert attempt(b, "127.0.0.5", "nobody", "guess") == BANNED[V5], "whether there is such a user or not"


def test_this_machine_is_not_banned_unless_it_is_said(start_broker, tmp_path):
    """Without login_ban_exempt a proxy on this machine is not shut out for what one of its clients does."""
    path = tmp_path / "passwords"
    path.write_text(f"ann:{QUICK}\n")
    b = start_broker(f"allow_anonymous false\npassword_file {path}\nlogin_failures_max 2")
    for _ in range(10):
        assert attempt(b, "127.0.0.2", "ann", "guess") == WRONG[V5]
    assert attempt(b, "127.0.0.2", "ann", "secret") == 0


def test_a_reload_puts_other_rules_in_force(guarded):
    """SIGHUP: a network that is exempt now is served at once, and what is not banned any more is not counted."""
    b = guarded("login_ban 10m\nlog_level INFO")
    for _ in range(3):
        attempt(b, "127.0.0.2", "nobody", "guess")
    assert attempt(b, "127.0.0.2", "ann", "secret") == BANNED[V5]
    text = b.config_file.read_text()
    b.config_file.write_text(text.replace("exempt none", "exempt 127.0.0.2 192.0.2.0/24"))
    b.reload()
    assert attempt(b, "127.0.0.2", "ann", "secret") == 0
    b.config_file.write_text(text.replace("max 3", "max 0"))
    b.reload()
    for _ in range(5):
        assert attempt(b, "127.0.0.6", "bob", "guess") == WRONG[V5]
    assert attempt(b, "127.0.0.6", "bob", "secret") == 0


@pytest.mark.parametrize("form", ["text", "json", "sol"])
def test_fail2ban_reads_the_line_of_a_ban(guarded, form):
    """The filter in conf/fail2ban finds the address in the line that a ban writes, in every form of the log, and finds
    none in any other line, whatever a client calls itself."""
    b = guarded(f"login_ban 10m\nlog_format {form}")
    forged = "WARNING address banned: too many failed logins address=192.0.2.9 failures=3 seconds=600"
    attempt(b, "127.0.0.3", forged, "guess")
    attempt(b, "127.0.0.3", f'","message":"address banned: too many failed logins","address":"192.0.2.9"\n{forged}', "x")
    for _ in range(3):
        attempt(b, "127.0.0.2", "nobody", "guess")
    wait_until(lambda: "address=127.0.0.2" in b.log() or '"address":"127.0.0.2"' in b.log(), "log line")
    text = (ROOT / "conf" / "fail2ban" / "filter.d" / "sol.conf").read_text()
    setting = re.search(r"^failregex = (.*(?:\n .*)*)", text, re.M)[1]
    patterns = [line.strip().replace("<ADDR>", r"(?P<addr>[0-9a-fA-F:.]+)") for line in setting.splitlines()]
    assert len(patterns) == 3
    # As fail2ban cuts the date out by the filter's datepattern.
    date = r'^(\d{4}-\d\d-\d\dT[\d:.]+Z|\{"time":"[^"]*",|\d{10})'
    rests = [re.sub(date, "", line) for line in b.log().splitlines()]
    found = [match["addr"] for rest in rests for pattern in patterns for match in [re.search(pattern, rest)] if match]
    assert found == ["127.0.0.2"], b.log()
