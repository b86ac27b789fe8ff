"""What the tests claim to prove: the tables of statements, and the tests that name them.

A Rust or Python test names statements in its doc comment, on a line of its own that ends with a full stop:

    Proves 5.0: MQTT-3.3.1-5, MQTT-3.3.1-7; 3.1.1: MQTT-3.3.1-5.

A case of the wire suite names them in its own column (see tests/wire/README.md).
"""

import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
VERSIONS = {"5.0": "mqtt-5.0.tsv", "3.1.1": "mqtt-3.1.1.tsv"}

PROVES = re.compile(r"^Proves\s+(.*)$")
STATEMENT = re.compile(r"MQTT-\d+\.\d+(?:\.\d+)?-\d+")
STATEMENTS = re.compile(rf"\s*{STATEMENT.pattern}(?:,\s*{STATEMENT.pattern})*\.?\s*")


@dataclasses.dataclass(frozen=True)
class Statement:
    version: str
    id: str
    demand: str
    binds: str

    @property
    def key(self) -> str:
        return f"{self.version} {self.id}"


@dataclasses.dataclass
class Test:
    """A test that names statements. `name` is what its binary, file or suite calls it, `kind` which runner runs it."""

    kind: str
    binary: str
    path: str
    name: str
    statements: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        return (self.kind, f"{self.binary} {self.name}".strip())


def rows(file: pathlib.Path) -> list[list[str]]:
    """The rows of a table with tabs between its columns; `#` begins a comment line."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]


def statements() -> dict[str, Statement]:
    found = (
        Statement(version, *row[:3]) for version, file in VERSIONS.items() for row in rows(HERE / file)
    )
    return {statement.key: statement for statement in found}


def parse_claim(text: str) -> tuple[str, ...]:
    """`5.0: MQTT-1-2, MQTT-3-4; 3.1.1: MQTT-5-6.` as the keys of these statements."""
    keys = []
    for part in text.split(";"):
        version, _, ids = part.strip().partition(":")
        if version not in VERSIONS or not STATEMENTS.fullmatch(ids):
            raise ValueError(f"not understood: {part.strip()!r}; write `5.0: MQTT-3.3.1-5, …; 3.1.1: …`")
        keys += [f"{version} {id}" for id in STATEMENT.findall(ids)]
    return tuple(keys)


def claims(comment: list[str], where: str) -> tuple[str, ...]:
    """What the lines of a doc comment claim. A claim may go on over several lines, up to one that ends with a stop."""
    found, claim = [], None
    for line in comment:
        started = PROVES.match(line)
        if started:
            claim = started.group(1)
        elif claim is not None:
            claim += " " + line
        if claim is not None and claim.endswith("."):
            try:
                found += parse_claim(claim)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            claim = None
    if claim is not None:
        raise ValueError(f"{where}: the line that begins with `Proves` does not end with a full stop")
    return tuple(found)


def rust_tests() -> list[Test]:
    tests = []
    for crate in ("codec", "engine", "engine/sim", "transport", "server"):
        for folder in ("src", "tests"):
            for file in sorted((ROOT / crate / folder).rglob("*.rs")):
                tests += rust_tests_of(file, crate, folder)
    return tests


def rust_tests_of(file: pathlib.Path, crate: str, folder: str) -> list[Test]:
    relative = file.relative_to(ROOT / crate / folder)
    parts = list(relative.with_suffix("").parts)
    binary = parts.pop(0) if folder == "tests" else f"sol_{pathlib.Path(crate).name}"
    modules = [part for part in parts if part not in ("lib", "main", "mod")]
    tests, comment, is_test, in_attribute = [], [], False, False
    for line in file.read_text().splitlines():
        text = line.strip()
        if text.startswith("///"):
            comment.append(text[3:].strip())
        elif in_attribute or text.startswith("#["):
            is_test = is_test or text.startswith("#[test]")
            in_attribute = not text.endswith("]")
        else:
            function = re.match(r"(?:pub )?fn (\w+)", text)
            if function and is_test:
                found = claims(comment, f"{file.relative_to(ROOT)}: {function.group(1)}")
                if found:
                    inner = ["tests"] if folder == "src" else []
                    name = "::".join([*modules, *inner, function.group(1)])
                    tests.append(Test("rust", binary, str(file.relative_to(ROOT)), name, found))
            comment, is_test = [], False
    return tests


def python_tests() -> list[Test]:
    tests = []
    for file in sorted((ROOT / "tests" / "e2e").glob("test_*.py")):
        text = file.read_text()
        for match in re.finditer(r'^def (test_\w+)\(.*?\).*?:\n    """(.*?)"""', text, re.M | re.S):
            name, docstring = match.groups()
            lines = [line.strip() for line in docstring.splitlines()]
            found = claims(lines, f"{file.relative_to(ROOT)}: {name}")
            if found:
                tests.append(Test("pytest", "", str(file.relative_to(ROOT)), f"{file.stem}::{name}", found))
    return tests


def wire_tests() -> list[Test]:
    folder = ROOT / "tests" / "wire"
    if not (folder / "suite.py").exists():
        return []
    sys.path.insert(0, str(folder))
    import suite  # the wire suite's own reader of its cases

    tests = []
    for case in suite.load():
        found = tuple(case.statements)
        if found:
            tests.append(Test("wire", "", f"tests/wire/cases/{case.group}.txt", case.name, found))
    return tests


def all_tests() -> list[Test]:
    """Every test that names a statement. An unknown statement is an error: it proves nothing."""
    known, tests = statements(), rust_tests() + python_tests() + wire_tests()
    for test in tests:
        for key in test.statements:
            if key not in known:
                raise ValueError(f"{test.path}: {test.name}: there is no statement {key}")
    return tests
