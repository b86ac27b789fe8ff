"""Logins by JSON Web Tokens as clients see them: each algorithm, the chain with a password file, rights, expiry, reload."""

import itertools
import subprocess
import time

import pytest

import wire
from broker import Broker, free_port, sol_bin
from clients import MosquittoSub, Paho, mosquitto_pub
from test_passwords import QUICK
from tokens import Issuer, base64url
from wire import TIMEOUT, V5, V311, Wire

pytestmark = pytest.mark.sol

REFUSED = {V5: 0x86, V311: 4}
NOT_AUTHORIZED = 0x87
# A Session is its user's: each login has its own, or would meet the one before, which may not be gone yet.
_logins = itertools.count()


class Closed(Broker):
    """A broker in Mosquitto's dialect that lets nobody in without a login."""

    def _config_text(self, config: str) -> str:
        return f"listener {self.port} {self.host}\nmetrics off\n{config}\n"


@pytest.fixture
def issuer(tmp_path):
    return Issuer("HS256", tmp_path)


@pytest.fixture
def start(start_broker):
    return lambda config: start_broker(config, cls=Closed)


def code(broker, password: str, user: str | None = "whoever", version: int = V5) -> int:
    """The CONNACK's code of a login."""
    with Wire(broker.address, version) as w:
        w.send(wire.connect(f"login{next(_logins)}", version, username=user, password=password))
        return w.expect(wire.CONNACK).reason


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_each_algorithm_with_real_clients(start, tmp_path, algorithm):
    """paho and mosquitto_pub log in with a token as their password, whatever their user name; with somebody else's, or none,
    they do not."""
    issuer, other = Issuer(algorithm, tmp_path), Issuer(algorithm, tmp_path, "other")
    broker = start(f"jwt_key_file {algorithm} {issuer.key}")
    with Paho(broker, "five", version=V5, login=("x", issuer.token("ann"))) as five:
        five.subscribe("#", qos=1)
        with Paho(broker, "three", version=V311, login=("ann", issuer.token("bob"))) as three:
            three.publish("t", "1", qos=1)
            assert five.take().payload == b"1"
        mosquitto_pub(broker, "-t", "t", "-m", "2", "-q", "1", "-u", "y", "-P", issuer.token("cid"))
        assert five.take().payload == b"2"
    for version in (V5, V311):
        for password in (other.token("ann"), "secret", ""):
            assert code(broker, password, version=version) == REFUSED[version]
    assert code(broker, issuer.token("ann"), user=None) == 0


def test_forged_and_stale_tokens(start, tmp_path, issuer):
    """What a client makes up of a header lets nobody in; neither does a genuine token that is late, early, endless or for
    somebody else."""
    public = Issuer("RS256", tmp_path, "rsa")
    broker = start(f"jwt_key_file RS256 {public.key}\njwt_key_file HS256 {issuer.key}\njwt_audience sol")
    good = {"aud": ["other", "sol"]}
    assert code(broker, issuer.token(**good)) == 0
    confused = Issuer("HS256", tmp_path, "confused")
    confused.secret = public.key.read_bytes()
    front = issuer.token(**good).rsplit(".", 1)[0]
    none = base64url(b'{"alg":"none"}') + "." + front.split(".")[1]
    for token in (
        f"{none}.",
        f"{front}.",
        confused.token(**good),
        issuer.token(header={"kid": 1}, **good),
        issuer.token(header={"alg": "RS256"}, **good),
        issuer.token(header={"crit": ["x"], "x": 1}, **good),
        issuer.token(seconds=-1, **good),
        issuer.token(nbf=time.time() + 3_600, **good),
        issuer.token(exp=None, **good),
        issuer.token(sub=None, **good),
        issuer.token(aud="other"),
        issuer.token(acl={"publish": ["#"]}, **good),
        issuer.token(padding="x" * 60_000, **good)[:15_000],
    ):
        assert code(broker, token) == REFUSED[V5], token[:60]
    log = broker.log()
    assert "it has expired" in log and "its aud is another" in log
    assert issuer.secret.decode() not in log and front.split(".")[1] not in log


def test_rights_of_a_token(start, issuer):
    """What a token allows is its client's alone and in place of the ACL file; with a wildcard in its name nobody gets
    anything by it."""
    acl = issuer.key.with_suffix(".acl")
    acl.write_text("user ann\ntopic readwrite #\n")
    acl.chmod(0o600)
    broker = start(f"jwt_key_file HS256 {issuer.key}\nacl_file {acl}")
    rules = {"pub": ["out/${clientid}"], "sub": ["in/${clientid}/#", "all"]}
    free = issuer.token("ann")
    with Paho(broker, "free", version=V5, login=("", free)) as free:
        free.subscribe("#", qos=1)
        with Paho(broker, "bound", version=V5, login=("", issuer.token("ann", acl=rules))) as bound:
            assert [bound.subscribe(t)[0] for t in ("in/bound/x", "in/free/x", "all", "out/bound")] == [0, 0x87, 0, 0x87]
            assert bound.subscribe("#")[0] == 0
            bound.publish("out/free", "no", qos=1)
            bound.publish("out/bound", "yes", qos=1)
            assert free.take().topic == "out/bound"
            free.publish("out/bound", "hidden", qos=1)
            free.publish("in/bound/y", "seen", qos=1)
            assert bound.take().topic == "in/bound/y"
        for name in ("+", "#", "bound/x"):
            with Paho(broker, name, version=V5, login=("", issuer.token("ann", acl=rules))) as sly:
                assert [sly.subscribe(t)[0] for t in ("in/#", "#", "all")] == [0x87] * 3


@pytest.mark.parametrize("version", [V5, V311])
def test_a_token_ends_its_connection(start, issuer, version):
    """When a token expires its connection ends, with 0x87 where that can be said, and its Will is published."""
    broker = start(f"jwt_key_file HS256 {issuer.key}")
    with broker.client("watcher", V5, username="w", password=issuer.token("watcher")) as watcher:
        watcher.subscribe("will")
        began = time.monotonic()
        will = wire.Will("will", b"gone")
        with broker.client("c", version, username="", password=issuer.token(seconds=2), will=will, keep_alive=0) as w:
            w.ping()
            w.expect_disconnect(NOT_AUTHORIZED)
        assert 1 < time.monotonic() - began < 2 + TIMEOUT
        assert watcher.take().payload == b"gone"
        watcher.ping()
    assert "its login has expired" in broker.log()


def test_a_chain_with_a_password_file(start, issuer, tmp_path):
    """A password file alone is what it always was; with tokens beside it, each lets its own in, in either order, and who is in
    the password file is judged by that where it comes first."""
    users = tmp_path / "users"
    users.write_text(f"ann:{QUICK}\n")
    users.chmod(0o600)
    for order in ("", "auth_order password_file jwt", "auth_order jwt password_file"):
        broker = start(f"password_file {users}\njwt_key_file HS256 {issuer.key}\n{order}")
        for version in (V5, V311):
            assert code(broker, "secret", "ann", version) == 0
            assert code(broker, "wrong", "ann", version) == REFUSED[version]
            assert code(broker, "secret", "bob", version) == REFUSED[version]
            assert code(broker, issuer.token("bob"), "bob", version) == 0
        first = REFUSED[V5] if "jwt password" not in order else 0
        assert code(broker, issuer.token("ann"), "ann") == first
        broker.stop()


def test_each_listener_has_its_own(start_broker, issuer, tmp_path):
    """With per_listener_settings a token is good where its key is, and nowhere else."""
    users = tmp_path / "users"
    users.write_text(f"ann:{QUICK}\n")
    users.chmod(0o600)
    port = free_port()

    class Two(Broker):
        def _config_text(self, config: str) -> str:
            return (
                f"metrics off\nper_listener_settings true\nlistener {self.port} 127.0.0.1\njwt_key_file HS256 {issuer.key}\n"
                f"listener {port} 127.0.0.1\npassword_file {users}\n"
            )

    broker = start_broker(cls=Two)
    token = issuer.token("bob")
    assert (code(broker, token, "bob"), code(broker, "secret", "ann")) == (0, REFUSED[V5])
    broker.address = ("127.0.0.1", port)
    assert (code(broker, token, "bob"), code(broker, "secret", "ann")) == (REFUSED[V5], 0)
    assert code(broker, token, None) == NOT_AUTHORIZED


def test_keys_are_read_again(start, issuer, tmp_path):
    """SIGHUP puts other keys in force for those who come; a file that is broken leaves the old ones."""
    broker = start(f"jwt_key_file HS256 {issuer.key}")
    other = Issuer("HS256", tmp_path, "other")
    with broker.client("old", V5, username="", password=issuer.token()) as old:
        issuer.key.write_bytes(b"short")
        broker.reload()
        assert code(broker, issuer.token()) == 0
        issuer.key.write_bytes(other.secret)
        broker.reload()
        assert code(broker, issuer.token()) == REFUSED[V5]
        assert code(broker, other.token()) == 0
        old.ping()
    assert "a secret of HS256 has 32 bytes at least" in broker.log()


def test_key_files_are_judged_at_the_start(tmp_path, issuer):
    """A key file that is missing or is no key refuses to start, with a sentence; a secret that others may read is warned about;
    `sol check` prints what is in force."""
    config = tmp_path / "sol.conf"

    def run(text: str, *command: str):
        config.write_text(f"listener {free_port()} 127.0.0.1\nmetrics off\n{text}\n")
        return subprocess.run(
            [sol_bin(), *command, "-c", str(config)], capture_output=True, text=True, timeout=TIMEOUT
        )

    for text, part in (
        (f"jwt_key_file HS256 {tmp_path}/none", "jwt_key_file cannot be read"),
        (f"jwt_key_file RS256 {issuer.key}", "there is no public key in PEM in it"),
        ("jwt_audience x", "`jwt_audience` has no effect without jwt_key_file"),
        (f"jwt_key_file none {issuer.key}", "is none of HS256, RS256, ES256, EdDSA, JWKS"),
    ):
        done = run(text)
        assert done.returncode != 0 and part in done.stderr, done
    done = run(f"jwt_key_file HS256 {issuer.key}\njwt_issuer me", "check")
    assert done.returncode == 0 and f"jwt_key_file HS256 {issuer.key}\n" in done.stdout and "jwt_issuer me" in done.stdout
    issuer.key.chmod(0o644)


def test_a_secret_that_others_may_read(start, issuer):
    """A secret that every user of the machine may read is warned about, with what to run."""
    issuer.key.chmod(0o644)
    assert "chmod o-rwx" in start(f"jwt_key_file HS256 {issuer.key}").log()


def test_a_session_is_its_tokens_users(start, issuer):
    """A Session belongs to the user whom the token names, whatever user name the client gives."""
    broker = start(f"jwt_key_file HS256 {issuer.key}")
    with MosquittoSub(broker, "-u", "x", "-P", issuer.token("ann"), "-i", "device", "-t", "t", "-c"):
        with Wire(broker.address, V5) as w:
            w.connect("device", NOT_AUTHORIZED, username="ann", password=issuer.token("bob"))
        with Wire(broker.address, V5) as w:
            w.connect("other", 0, username="ann", password=issuer.token("bob"))
