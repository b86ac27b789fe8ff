"""Dropped privileges, Landlock and seccomp, seen from outside; what systemd hears; and the unit that ships."""

import contextlib
import ctypes
import http.client
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

import pytest

from authority import Authority
from broker import IO, ROOT, SHARDS, Listening, free_port, sol_bin, wait_until
from clients import mosquitto_pub
from wire import TIMEOUT, Wire

pytestmark = pytest.mark.sol

IS_ROOT = os.geteuid() == 0
CLIENTS = 1_000


@pytest.fixture
def directory():
    """A directory that everybody may enter: pytest's are closed to others than root."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="sol-sandbox-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(directory):
    """start(config, …): a broker in that directory, as nobody if root starts it."""
    started = []

    def start_(config="", user="nobody", **options):
        broker = Listening(directory, f"user {user}\n{config}", **options)
        started.append(broker)
        # It listens before it is inside.
        broker.says("listening on")
        return broker

    yield start_
    for one in started:
        one.stop()


def statuses(broker):
    """What the system says of each thread."""
    tasks = pathlib.Path(f"/proc/{broker.pid}/task").iterdir()
    return [dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line) for task in tasks]


def replace(path, text):
    """As whoever renews a file does: another one is renamed over it, and can be read by all."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    new.rename(path)


def passwd(directory, name, *users):
    path = directory / name
    for index, user in enumerate(users):
        flags = ["-c"] if index == 0 and not path.exists() else []
        done = subprocess.run([sol_bin(), "passwd", *flags, "-H", "sha512", "-b", path, user, user], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    path.chmod(0o644)
    return path


def test_every_thread_is_nobody_and_confined(start):
    """Root becomes the user that is named, with that user's groups and no capability, and every thread is inside of the
    sandbox: no new privileges, and a filter of system calls."""
    broker = start()
    found = statuses(broker)
    assert len(found) > SHARDS
    for status in found:
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
        if IS_ROOT:
            assert status["Uid"].split() == ["65534"] * 4 and status["Gid"].split() == ["65534"] * 4, status
            assert status["Groups"].split() == ["65534"] and int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0, status
    said = re.search(r"runs as .*; sandbox: .*", broker.log()).group()
    assert said.startswith("runs as user nobody" if IS_ROOT else "runs as the user"), said
    assert "Landlock" in said and said.endswith("seccomp"), said


@pytest.mark.skipif(not IS_ROOT, reason="there are no privileges to drop")
def test_what_only_root_reads_is_not_served(start, directory):
    """Files for browsers are read by the user that root has become: what that cannot read is named, and nobody gets it, neither at
    the start nor at SIGHUP, which reads what has changed."""
    www, port = directory / "www", free_port()
    www.mkdir(mode=0o755)
    for name, mode in (("index.html", 0o644), ("secret.html", 0o600)):
        (www / name).write_text(name)
        (www / name).chmod(mode)
    broker = start(f"listener {port} 127.0.0.1\nprotocol websockets\nhttp_dir {www}")

    def get(path):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    assert (get("/"), get("/secret.html")[0]) == ((200, b"index.html"), 404)
    broker.says(f"{www}/secret.html is not served: Permission denied")
    replace(www / "index.html", "new")
    broker.reload()
    assert (get("/"), get("/secret.html")[0]) == ((200, b"new"), 404)


def test_nobody_is_named(start, directory):
    """Where no user is named root does not stay root, and its log belongs to whom it became: it is opened anew at SIGHUP."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    logs = directory / "log"
    logs.mkdir()
    logs.chmod(0o777)
    log = logs / "sol.log"
    broker = start(f"log_dest file {log}\nlog_dest stderr", user="nobody")
    broker.config_file.write_text(broker.config_file.read_text().replace("user nobody\n", ""))
    broker.stop()
    log.unlink()
    port = broker.port
    process = subprocess.Popen([sol_bin(), "-c", broker.config_file, "--io", IO], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.exists() and "listening on" in log.read_text(), "greeting")
        user = int(pathlib.Path(f"/proc/{process.pid}/status").read_text().split("Uid:\t")[1].split()[0])
        assert user != 0 and log.stat().st_uid == user
        log.rename(logs / "sol.log.1")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: log.exists() and "reloaded" in log.read_text(), "new log")
        assert log.stat().st_uid == user and "listening on" not in log.read_text()
        Wire(port).close()
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def _is_closed(port):
    try:
        Wire(port).close()
        return False
    except OSError:
        return True


def test_a_reload_inside_reads_what_was_replaced(start, directory):
    """SIGHUP reads password, ACL and certificate files from inside of the sandbox, although others were renamed over them, and
    opens a rotated log anew."""
    logs = directory / "log"
    logs.mkdir(mode=0o777)
    logs.chmod(0o777)
    authority = Authority(directory)
    authority.folder.chmod(0o755)
    (certificate, key), (next_certificate, next_key) = authority.issue("broker"), authority.issue("next")
    for file in (certificate, key, next_certificate, next_key):
        file.chmod(0o644)
    users = passwd(directory, "users", "ann")
    acl = directory / "acl"
    replace(acl, "pattern readwrite a\n")
    port = free_port()
    broker = start(
        f"log_dest file {logs}/sol.log\nlog_dest stderr\npassword_file {users}\nacl_file {acl}\n"
        f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}"
    )
    (logs / "sol.log").rename(logs / "sol.log.1")
    users.write_text("")
    passwd(directory, "users", "bob")
    replace(acl, "pattern readwrite b\n")
    next_certificate.rename(certificate)
    next_key.rename(key)
    broker.reload()
    wait_until(lambda: (logs / "sol.log").exists(), "new log")
    broker.wire().connect("c", expect=4, username="ann", password=b"ann")
    client = broker.client("d", username="bob", password=b"bob")
    assert client.subscribe(("b", 0)).reasons == [0]
    client.publish("b", b"x")
    assert client.recv().payload == b"x"
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-showcerts"],
        input=b"", capture_output=True, timeout=TIMEOUT, check=False,
    )
    assert b"CN = next" in shown.stdout or b"CN=next" in shown.stdout, shown.stdout
    assert "not reloaded" not in broker.log() and "No such" not in broker.log()


def test_another_directory_needs_a_restart(start, directory):
    """A file in a directory that the configuration did not name at the start cannot be read later: it is said so by name, and
    the old users stay."""
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (directory / "here").mkdir(mode=0o755)
    users, others = passwd(directory / "here", "users", "ann"), passwd(elsewhere, "users", "bob")
    broker = start(f"password_file {users}")
    # The configuration's own directory is open, with all below it.
    outside = pathlib.Path(tempfile.mkdtemp(prefix="sol-outside-"))
    try:
        outside.chmod(0o755)
        moved = outside / "users"
        shutil.copy(others, moved)
        broker.config_file.write_text(broker.config_file.read_text().replace(str(users), str(moved)))
        broker.reload()
        log = broker.log()
        assert f"needs a restart: the sandbox is closed around the directories of the start, and {outside} is none" in log
        assert re.search(rf"not reloaded, the old stays in force: {moved}: password_file cannot be read as uid \d+: Permission denied", log), log
        broker.client("c", username="ann", password=b"ann").close()
    finally:
        shutil.rmtree(outside)


@pytest.mark.parametrize("io", ["epoll", "io_uring"])
def test_a_thousand_clients(directory, io):
    """A thousand clients are served from inside of the sandbox, on either backend, each its own message."""
    port = free_port()
    config = directory / "sol.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser nobody\nmetrics off\nsandbox required\n")
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([sol_bin(), "-c", config, "--io", io, "--shards", str(SHARDS)], stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or not _is_closed(port), "listener")
        said = (directory / "log").read_text()
        if process.poll() is not None and io == "io_uring" and os.environ.get("SOL_TEST_IO_URING") != "1":
            assert "cannot start with io_uring" in said
            return
        assert process.poll() is None, said
        clients = [Wire(port) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            client.connect(f"c{number}")
            assert client.subscribe((f"t/{number}", 0)).reasons == [0]
        for number, client in enumerate(clients):
            clients[-1 - number].publish(f"t/{number}", str(number).encode())
        for number, client in enumerate(clients):
            assert client.recv().payload == str(number).encode()
        for client in clients:
            client.close()
    finally:
        process.terminate()
        assert process.wait(TIMEOUT) == 0


def lacking(*calls):
    """Has a process live in a kernel that lacks these system calls, and so the sandbox that is made by them."""
    libc = ctypes.CDLL(None, use_errno=True)
    load, equal, give = 0x20, 0x15, 0x06
    code = [struct.pack("HBBI", load, 0, 0, 0)]
    for call in calls:
        code += [struct.pack("HBBI", equal, 0, 1, call), struct.pack("HBBI", give, 0, 0, 0x00050000 | 38)]
    code.append(struct.pack("HBBI", give, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(b"".join(code))
    head = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(program)))

    def enter():
        # PR_SET_NO_NEW_PRIVS, and PR_SET_SECCOMP with SECCOMP_MODE_FILTER.
        assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, head, 0, 0) == 0

    enter.kept = program
    return enter


LANDLOCK = 444
SECCOMP = {"x86_64": 317, "aarch64": 277}[platform.machine()]


@pytest.mark.parametrize(
    "call, said",
    [
        (LANDLOCK, "sandbox: no Landlock (this kernel lacks it: Linux 5.13 and later have it), seccomp"),
        (SECCOMP, "sandbox: Landlock, no seccomp ("),
    ],
    ids=["landlock", "seccomp"],
)
def test_a_kernel_that_lacks_it(start, directory, call, said):
    """Where the kernel lacks a part of the sandbox, `on` starts with the rest and says what is missing; `required` does not
    start; `off` has none of it and says so."""
    broker = start(preexec_fn=lacking(call))
    broker.says(said)
    broker.stop()
    config = broker.config_file
    config.write_text(config.read_text() + "sandbox required\n")
    done = subprocess.run([sol_bin(), "-c", config], capture_output=True, text=True, timeout=TIMEOUT, check=False, preexec_fn=lacking(call))
    assert done.returncode == 1
    assert re.search(r"error: no sandbox for (files|system calls): .*; `sandbox on` starts without", done.stderr), done.stderr
    broker = start("sandbox off")
    broker.says("; sandbox: off")
    assert all(status["Seccomp"] == "0" for status in statuses(broker))


def test_a_user_that_there_is_not(directory):
    """A user that the system does not know refuses to start, with its line."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    config = directory / "sol.conf"
    config.write_text(f"listener {free_port()} 127.0.0.1\nallow_anonymous true\nuser no-such-user\n")
    done = subprocess.run([sol_bin(), "-c", config], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1
    assert f"{config}:3: `user`: there is no user `no-such-user` in /etc/passwd" in done.stderr


def test_what_root_alone_can_read_is_said(start, directory):
    """A file that was read as root, and that the user cannot read again at SIGHUP, is named at the start."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    users = passwd(directory, "users", "ann")
    users.chmod(0o600)
    broker = start(f"password_file {users}")
    broker.says(f"SIGHUP will not be able to read {users}: Permission denied")
    broker.client("c", username="ann", password=b"ann").close()


def test_an_authority_that_cannot_be_read_is_a_fault(start, directory):
    """An entry of capath that the user cannot read is named at the start; at SIGHUP it is a fault, the authorities of before stay
    in force, and clients whose authority it is go on to be let in."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    authority = Authority(directory)
    certificate, key = authority.issue("broker")
    crt, own = authority.issue("client")
    for path in (authority.folder, directory):
        path.chmod(0o755)
    for path in (certificate, key):
        path.chmod(0o644)
    cas = directory / "cas"
    cas.mkdir(mode=0o755)
    shutil.copy(authority.cafile, cas / "ca.pem")
    (cas / "ca.pem").chmod(0o600)
    port = free_port()
    broker = start(f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\ncapath {cas}\nrequire_certificate true")
    broker.says(f"SIGHUP will not be able to read {cas}/ca.pem: Permission denied")
    broker.process.send_signal(signal.SIGHUP)
    said = f"not reloaded, the old stays in force: {cas}/ca.pem: cannot be read: Permission denied"
    broker.says(said)
    broker.port = port
    tls = ["--cafile", authority.cafile, "--cert", crt, "--key", own]
    mosquitto_pub(broker, "-i", "c", "-t", "t", "-m", "x", "-q", "1", *tls)


def test_what_cannot_be_made_or_removed_is_said(start, directory):
    """A log in a directory that the user cannot write to is told at the start with what to do, since a rotation would end it; so
    are, at the end, a pid file and a Unix socket that stay behind."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    closed = directory / "closed"
    closed.mkdir(mode=0o755)
    broker = start(
        f"log_dest file {closed}/sol.log\nlog_dest stderr\npid_file {closed}/sol.pid\nlistener 0 {closed}/sol.sock"
    )
    assert (closed / "sol.log").stat().st_uid == 65534
    broker.says(f"SIGHUP will not be able to make {closed}/sol.log anew once it has been renamed: uid 65534 may not write to {closed}")
    assert broker.terminate() == 0
    broker.says(f"pid file {closed}/sol.pid stays behind: it cannot be removed: Permission denied")
    broker.says(f"the socket {closed}/sol.sock stays behind: it cannot be removed")


def test_a_user_without_a_name(start):
    """A number that no file lists is a user, too: containers have such. Its group is that of its number, and it has no other."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    broker = start(user="54321")
    for status in statuses(broker):
        assert status["Uid"].split() == status["Gid"].split() == ["54321"] * 4 and status["Groups"].split() == ["54321"], status


def test_a_root_that_cannot_change(directory):
    """Root without the capabilities to become another user, as in some containers, is told so, and what to say to stay root."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    config = directory / "sol.conf"
    config.write_text(f"listener {free_port()} 127.0.0.1\nallow_anonymous true\nuser nobody\nmetrics off\n")
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-setuid,-setgid", "--inh-caps", "-setuid,-setgid", sol_bin(), "-c", config],
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )
    assert done.returncode == 1
    assert "cannot become user nobody: root lacks the capabilities CAP_SETUID and CAP_SETGID" in done.stderr, done.stderr
    assert "`user root` stays root" in done.stderr


def test_systemd_is_told(start, directory):
    """Whoever asks for it by sd_notify(3) hears that the broker is ready, alive, reading again, ready again, and that it
    stops: in this order, from inside of the sandbox."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        path = str(directory / "notify")
        supervisor.bind(path)
        os.chmod(path, 0o777)
        supervisor.settimeout(TIMEOUT)
        broker = start(env={**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"})

        def next_word():
            while (word := supervisor.recv(4096).decode()) == "WATCHDOG=1":
                pass
            return word

        assert next_word() == "READY=1"
        assert supervisor.recv(4096) == b"WATCHDOG=1"
        broker.process.send_signal(signal.SIGHUP)
        assert [next_word(), next_word()] == ["RELOADING=1", "READY=1"]
        broker.process.send_signal(signal.SIGTERM)
        assert next_word() == "STOPPING=1"


def test_the_unit(tmp_path):
    """The unit that ships is one that systemd understands in every line, and is exposed to 1.5 at most of its own ten."""
    unit = ROOT / "conf" / "sol.service"
    run = lambda *args: subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    judged = run("--offline=true", "security", unit)
    assert judged.returncode == 0 and judged.stderr == "", judged.stderr
    exposure = float(re.search(r"Overall exposure level for sol.service: ([\d.]+)", judged.stdout).group(1))
    assert exposure <= 1.5, judged.stdout
    here = tmp_path / "sol.service"
    here.write_text(unit.read_text().replace("/usr/local/bin/sol", sol_bin()))
    verified = run("verify", here)
    assert verified.returncode == 0 and verified.stderr == "", verified.stderr
