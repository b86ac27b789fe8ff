"""JSON Web Tokens, signed as their issuer would: by a secret here, by openssl with keys that were just made."""

import base64
import hashlib
import hmac
import json
import pathlib
import subprocess
import time

# A key of RSA may take a slow machine its time.
TIMEOUT = 120

OPTIONS = {
    "RS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "EdDSA": ["-algorithm", "ED25519"],
}


def _openssl(*args: str, data: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *args], input=data, capture_output=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Somebody who signs; `key` is the file that a broker checks by."""

    def __init__(self, algorithm: str, directory: pathlib.Path, name: str = "issuer"):
        self.algorithm = algorithm
        self.key = directory / f"{name}.key"
        self.private = directory / f"{name}.private"
        if algorithm == "HS256":
            self.secret = f"{name}, and enough bytes to be a secret".encode()
            self.key.write_bytes(self.secret)
        else:
            _openssl("genpkey", "-quiet", "-out", str(self.private), *OPTIONS[algorithm])
            self.key.write_bytes(_openssl("pkey", "-pubout", "-in", str(self.private)))
        self.key.chmod(0o600)

    def token(self, sub: str = "ann", seconds: float = 600, header: dict | None = None, **claims) -> str:
        head = {"alg": self.algorithm, "typ": "JWT", **(header or {})}
        body = {"sub": sub, "exp": time.time() + seconds, **claims}
        body = {name: value for name, value in body.items() if value is not None}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (head, body))
        return f"{signed}.{base64url(self._sign(signed.encode()))}"

    def _sign(self, message: bytes) -> bytes:
        if self.algorithm == "HS256":
            return hmac.new(self.secret, message, hashlib.sha256).digest()
        if self.algorithm == "EdDSA":
            path = self.private.with_suffix(".message")
            path.write_bytes(message)
            return _openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(self.private), "-in", str(path))
        signature = _openssl("dgst", "-sha256", "-sign", str(self.private), data=message)
        return signature if self.algorithm == "RS256" else _pair(signature)


def _pair(der: bytes) -> bytes:
    """The two numbers of an ECDSA signature, 32 bytes each, out of their DER."""
    numbers, at = [], 2
    for _ in range(2):
        assert der[at] == 2
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2 : at + 2 + length], "big").to_bytes(32, "big"))
        at += 2 + length
    return b"".join(numbers)
