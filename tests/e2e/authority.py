"""Certificates that openssl makes for a test."""

import subprocess

from wire import TIMEOUT


class Authority:
    """An authority of openssl's, in a folder of its own."""

    def __init__(self, folder, name="authority"):
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "index.txt").write_text("")
        (self.folder / "crlnumber").write_text("01\n")
        (self.folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=a\n[a]\ndatabase={self.folder}/index.txt\ncrlnumber={self.folder}/crlnumber\n"
            "default_md=sha256\ndefault_crl_days=30\n"
        )
        self.run("req", "-x509", *self.key("ca"), "-out", "ca.crt", "-days", "30", "-subj", f"/CN={name}",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.cafile = self.folder / "ca.crt"

    def run(self, *args):
        done = subprocess.run(["openssl", *args], cwd=self.folder, capture_output=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr.decode()

    @staticmethod
    def key(name, algorithm=("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")):
        return "-newkey", *algorithm, "-nodes", "-keyout", f"{name}.key"

    def issue(self, name, subject=None, algorithm=None, days="30"):
        """The paths of a certificate and its key."""
        key = self.key(name, algorithm) if algorithm else self.key(name)
        (self.folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self.run("req", *key, "-out", f"{name}.csr", "-subj", subject or f"/CN={name}")
        self.run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                 "-out", f"{name}.crt", "-days", days, "-extfile", f"{name}.ext")
        (self.folder / f"{name}.key").chmod(0o600)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def revoke(self, *names):
        """The path of a list with these certificates."""
        for name in names:
            self.run("ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.crt", "-revoke", f"{name}.crt")
        self.run("ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.crt", "-gencrl", "-out", "crl.pem")
        return self.folder / "crl.pem"
