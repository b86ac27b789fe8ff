"""Logins by JSON Web Tokens as clients see them: each algorithm, the chain with a password file, rights, expiry, reload."""

import itertools
import json
import re
import shutil
import subprocess
import time

import pytest

import wire
from authority import Authority
from broker import ROOT, LoginsOnly, Whole, free_port, sol_bin
from clients import MosquittoSub, Paho, mosquitto_pub
from test_passwords import QUICK
from test_scram import Scram, begin
from tokens import Issuer, base64url
from wire import TIMEOUT, V5, V311, Wire

pytestmark = pytest.mark.sol

REFUSED = {V5: 0x86, V311: 4}
NOT_AUTHORIZED = 0x87
# A Session is its user's: each login has its own, or would meet the one before, which may not be gone yet.
_logins = itertools.count()


@pytest.fixture
def issuer(tmp_path):
    return Issuer("HS256", tmp_path)


@pytest.fixture
def start(start_broker):
    return lambda config: start_broker(config, cls=LoginsOnly)


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
    # A thread of its own writes it.
    broker.says("its login has expired")


def test_a_chain_with_a_password_file(start, issuer, tmp_path):
    """A password file alone is what it always was; with tokens beside it, each lets its own in, in either order, and a token
    is good beside any User Name, so that nobody finds out by one who is in the file."""
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
        assert code(broker, issuer.token("cid"), "ann") == code(broker, issuer.token("cid"), "nobody") == 0
        broker.stop()


def test_each_listener_has_its_own(start_broker, issuer, tmp_path):
    """With per_listener_settings a token is good where its key is, and nowhere else."""
    users = tmp_path / "users"
    users.write_text(f"ann:{QUICK}\n")
    users.chmod(0o600)
    port = free_port()

    broker = start_broker(
        f"metrics off\nper_listener_settings true\nlistener PORT 127.0.0.1\njwt_key_file HS256 {issuer.key}\n"
        f"listener {port} 127.0.0.1\npassword_file {users}\n",
        cls=Whole,
    )
    token = issuer.token("bob")
    assert (code(broker, token, "bob"), code(broker, "secret", "ann")) == (0, REFUSED[V5])
    broker.address = ("127.0.0.1", port)
    assert (code(broker, token, "bob"), code(broker, "secret", "ann")) == (REFUSED[V5], 0)
    assert code(broker, token, None) == NOT_AUTHORIZED


def test_keys_are_read_again(start, issuer, tmp_path):
    """SIGHUP puts other keys in force: a file that is broken leaves the old ones, one key more ends nothing, and with the key
    that is gone the connections of tokens go, in either version, and come back by what holds now."""
    broker = start(f"jwt_key_file HS256 {issuer.key}")
    other = Issuer("HS256", tmp_path, "other")
    lines = broker.config_file.read_text()
    with broker.client("old", V5, username="", password=issuer.token()) as old:
        issuer.key.write_bytes(b"short")
        broker.reload()
        assert code(broker, issuer.token()) == 0
        broker.says("a secret of HS256 has 32 bytes at least")
        issuer.key.write_bytes(issuer.secret)
        broker.config_file.write_text(f"{lines}jwt_key_file HS256 {other.key}\n")
        broker.reload()
        assert code(broker, issuer.token()) == code(broker, other.token()) == 0
        with broker.client("three", V311, username="", password=issuer.token("three")) as three:
            with broker.client("new", V5, username="", password=other.token("new")) as new:
                old.ping()
                three.ping()
                broker.config_file.write_text(lines.replace(str(issuer.key), str(other.key)))
                broker.reload()
                old.expect_disconnect(NOT_AUTHORIZED)
                three.expect_disconnect(NOT_AUTHORIZED)
                new.expect_disconnect(NOT_AUTHORIZED)
        assert code(broker, issuer.token()) == REFUSED[V5]
        assert code(broker, other.token()) == 0
    broker.says("what let it in has changed or is gone")


def test_tokens_are_taken_no_more(start, issuer, tmp_path):
    """With its lines taken out, a listener ends what came in by tokens and takes no more, and what came in by a password
    stays; with tokens in place of the password file, nobody of that file gets in, by SCRAM neither."""
    users = tmp_path / "users"
    users.write_text(f"ann:{QUICK}\n")
    users.chmod(0o600)
    broker = start(f"password_file {users}\njwt_key_file HS256 {issuer.key}")
    lines = broker.config_file.read_text()
    with broker.client("pw", V5, username="ann", password="secret") as by_password:
        with broker.client("jwt", V5, username="ann", password=issuer.token("ann")) as by_token:
            broker.config_file.write_text(re.sub("jwt_key_file.*", "", lines))
            broker.reload()
            by_token.expect_disconnect(NOT_AUTHORIZED)
        assert code(broker, issuer.token("bob")) == REFUSED[V5]
        by_password.ping()
    with Wire(broker.address, V5) as w:
        begin(w, "scram", Scram("ann", "secret").first())
        assert w.recv().kind == wire.AUTH
    broker.config_file.write_text(re.sub("password_file.*", "", lines))
    broker.reload()
    assert (code(broker, "secret", "ann"), code(broker, issuer.token("ann"))) == (REFUSED[V5], 0)
    with Wire(broker.address, V5) as w:
        begin(w, "scram", Scram("ann", "secret").first())
        assert w.expect(wire.CONNACK).reason == 0x8C


def test_forged_tokens_keep_nobody_out(start, issuer, tmp_path):
    """Whoever forges tokens beside the User Name that all clients give is banned himself, and they are not."""
    forger = Issuer("HS256", tmp_path, "forger")
    broker = start(f"jwt_key_file HS256 {issuer.key}\nlogin_ban_exempt 127.0.0.2\nlogin_failures_max 3")
    assert [code(broker, forger.token(), "jwt") for _ in range(5)] == [0x86, 0x86, 0x86, 0x8A, 0x8A]
    broker.says("address banned")
    assert "user banned" not in broker.log()


def test_a_set_of_keys(start, issuer, tmp_path):
    """A JSON Web Key Set is a file of keys: kid chooses among them, and a key of another kind is left out with a warning."""
    other = Issuer("HS256", tmp_path, "other")
    keys = [{"kty": "oct", "kid": i.key.stem, "k": base64url(i.secret)} for i in (issuer, other)]
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [*keys, {"kty": "EC", "crv": "P-521"}]}))
    file.chmod(0o600)
    broker = start(f"jwt_key_file JWKS {file}")
    broker.says("key 3 is of no use here")
    for token, wanted in (
        (issuer.token(), 0),
        (other.token(header={"kid": "other"}), 0),
        (other.token(header={"kid": "issuer"}), REFUSED[V5]),
        (issuer.token(header={"kid": "none"}), REFUSED[V5]),
    ):
        assert code(broker, token) == wanted


def test_names_and_mount_points(start, issuer):
    """A token's user names its client where users name clients; rules are for topics as the broker knows them, with a mount
    point in front."""
    broker = start(f"jwt_key_file HS256 {issuer.key}\nuse_username_as_clientid true\nmount_point m/")
    acl = {"pub": ["m/out/${clientid}"], "sub": ["m/out/#", "bare"]}
    with broker.client("whatever", V5, username="x", password=issuer.token("ann", acl=acl)) as w:
        assert [w.subscribe(topic).reasons[0] for topic in ("out/ann", "bare", "in")] == [2, NOT_AUTHORIZED, NOT_AUTHORIZED]
        w.publish("out/ann", b"1")
        assert w.take().topic == "out/ann"
        assert w.publish("out/whatever", b"1", 1, 2).reason == NOT_AUTHORIZED


def test_the_readme_works(start, tmp_path):
    """Each listener that README shows for logins starts as it stands there, and lets in whom it says."""
    authority, issuer = Authority(tmp_path), Issuer("ES256", tmp_path)
    certificate, key = authority.issue("server")
    folder = tmp_path / "files"
    folder.mkdir()
    files = {"server.crt": certificate, "server.key": key, "issuer.pem": issuer.key, "ca.crt": authority.cafile}
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```\n(listener 8883\n.*?)```", text, re.S)
    blocks = [block for block in blocks if "jwt_key_file" in block or "http_auth_url" in block]
    assert len(blocks) == 2
    for block in blocks:
        for name, path in files.items():
            shutil.copy(path, folder / name)
            (folder / name).chmod(0o600)
            block = re.sub(rf"(?<=\s){re.escape(name)}$", str(folder / name), block, flags=re.M)
        config = folder / "sol.conf"
        config.write_text(block.replace("listener 8883", f"listener {free_port()} 127.0.0.1") + "metrics off\n")
        done = subprocess.run([sol_bin(), "check", "-c", str(config)], capture_output=True, text=True, timeout=TIMEOUT)
        assert done.returncode == 0, done
        if "jwt_key_file" in block:
            lines = re.findall("^jwt_.*", block, re.M)
            broker = start("\n".join(lines))
            assert code(broker, issuer.token(aud="sol", iss="https://login.example")) == 0
            assert code(broker, issuer.token(aud="sol", iss="https://login.example # no")) == REFUSED[V5]
            assert code(broker, issuer.token(iss="https://login.example")) == REFUSED[V5]


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
    done = run("auth_order jwt")
    assert done.returncode != 0 and "has no effect without password_file, jwt_key_file or http_auth_url" in done.stderr
    done = run(f"jwt_key_file HS256 {issuer.key}\nallow_anonymous true", "check")
    assert "clients without a user name need no password" in done.stdout + done.stderr


def test_keys_that_others_may_read_or_write(start, tmp_path, issuer):
    """A secret that every user of the machine may read, and a public key that others may write, are warned about, with what
    to run; a public key that others may read is not."""
    issuer.key.chmod(0o644)
    assert "chmod o-rwx" in start(f"jwt_key_file HS256 {issuer.key}").log()
    public = Issuer("ES256", tmp_path, "public")
    for mode, warns in ((0o644, False), (0o664, True), (0o666, True)):
        public.key.chmod(mode)
        broker = start(f"jwt_key_file ES256 {public.key}")
        assert ("chmod go-w" in broker.log()) == warns
        broker.stop()


def test_a_session_is_its_tokens_users(start, issuer):
    """A Session belongs to the user whom the token names, whatever user name the client gives."""
    broker = start(f"jwt_key_file HS256 {issuer.key}")
    with MosquittoSub(broker, "-u", "x", "-P", issuer.token("ann"), "-i", "device", "-t", "t", "-c"):
        with Wire(broker.address, V5) as w:
            w.connect("device", NOT_AUTHORIZED, username="ann", password=issuer.token("bob"))
        with Wire(broker.address, V5) as w:
            w.connect("other", 0, username="ann", password=issuer.token("bob"))
