"""The cases: read from cases/*.txt, and from behaviours.py where a case needs more than a list of steps.

`load()` is all there is for a reader of the suite; README.md describes the format.
"""

import dataclasses
import importlib
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE)]

import notation  # noqa: E402  (found by the line above)
import wire  # noqa: E402  (the codec of the end-to-end tests)
from notation import Malformed  # noqa: E402
from wire import V5, V31, V311  # noqa: E402

VERSIONS = {"3.1": V31, "3.1.1": V311, "5.0": V5}
LABELS = {value: label for label, value in VERSIONS.items()}

DIRECTIVES = ("row", "for", "proves", "start", "memory", "only")
NAME = re.compile(r"[a-z0-9][a-z0-9-]*$")
STEP = re.compile(r"(?:^|(?<=\s))(?:([a-z]\w*)?(>>|>|<~|<)|!(\w+))(?=\s|$)")
STATEMENT = re.compile(r"MQTT-\d+\.\d+(?:\.\d+)?-\d+")
STATEMENTS = re.compile(rf"\s*{STATEMENT.pattern}(?:,\s*{STATEMENT.pattern})*\s*")
SIZES = {"K": 1 << 10, "M": 1 << 20}


@dataclasses.dataclass(frozen=True)
class Step:
    """`verb` is ">" (send), ">>" (send byte by byte), "<" (expect), "<~" (skip until) or the word of a `!` command."""

    verb: str
    who: str
    text: str
    nodes: tuple = ()


@dataclasses.dataclass
class Case:
    """One case in one protocol version."""

    name: str
    group: str
    version: int
    row: str
    statements: tuple[str, ...]
    connected: bool = True
    memory: int | None = None
    steps: tuple[Step, ...] = ()
    run: object = None
    """What runs it instead of steps: a function of behaviours.py."""


def load() -> list[Case]:
    """Every case, in the order in which they run."""
    cases = []
    for file in sorted((HERE / "cases").glob("*.txt")):
        cases += read_file(file)
    cases += importlib.import_module("behaviours").CASES
    cases.sort(key=lambda case: case.group)
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Malformed(f"two cases of one name: {', '.join(sorted(twice))}")
    return cases


def read_file(file: pathlib.Path) -> list[Case]:
    cases, defaults, block, first = [], {}, [], 0
    for number, line in enumerate([*file.read_text().splitlines(), "#"], 1):
        text = line.strip()
        if line[:1] in (" ", "\t") and text:
            block.append(text)
            continue
        try:
            if block:
                cases += case_of(block, defaults, file.stem)
        except (Malformed, ValueError, KeyError) as error:
            raise Malformed(f"{file.name}:{first}: {error}") from None
        block, first = [], number
        if text.startswith("="):
            defaults = {}
        elif text.startswith("@"):
            word, _, value = text[1:].partition(" ")
            if word not in DIRECTIVES:
                raise Malformed(f"{file.name}:{number}: there is no @{word}")
            defaults[word] = value.strip()
        elif text and not text.startswith("#"):
            block = [text]
    return cases


def case_of(block: list[str], defaults: dict, group: str) -> list[Case]:
    """One block is one case for each version that it is for."""
    own, lines = dict(defaults), []
    name, _, first = block[0].partition(" ")
    for line in [first.strip(), *block[1:]]:
        if line.startswith("@") and line[1:].split(" ")[0] in DIRECTIVES:
            word, _, value = line[1:].partition(" ")
            own[word] = value.strip()
        elif not line.startswith("#"):
            lines.append(line)
    if not NAME.match(name):
        raise Malformed(f"{name!r} is no name")
    steps = steps_of("\n".join(lines))
    return [
        Case(
            name=f"{name}@{label}",
            group=group,
            version=VERSIONS[label],
            row=own.get("row", ""),
            statements=statements_of(own.get("proves", ""), label),
            connected=own.get("start", "connected") == "connected",
            memory=size_of(own["memory"]) if "memory" in own else None,
            steps=steps,
        )
        for label in own.get("for", "3.1.1 5.0").split()
    ]


def size_of(text: str) -> int:
    return int(text[:-1]) * SIZES[text[-1]]


def statements_of(claim: str, label: str) -> tuple[str, ...]:
    """`5.0: MQTT-2.1.3-1; 3.1.1: MQTT-2.2.2-2`, as far as it is about this version."""
    found = []
    for part in claim.split(";"):
        version, _, ids = part.strip().partition(":")
        if part.strip() and (version not in VERSIONS or not STATEMENTS.fullmatch(ids)):
            raise Malformed(f"not understood: {part.strip()!r}")
        if version == label:
            found += [f"{version} {id}" for id in STATEMENT.findall(ids)]
    return tuple(found)


def steps_of(text: str) -> tuple[Step, ...]:
    starts = list(STEP.finditer(text))
    if not starts or text[: starts[0].start()].strip():
        raise Malformed(f"no step at the beginning of {text[:40]!r}")
    steps = []
    for at, start in enumerate(starts):
        end = starts[at + 1].start() if at + 1 < len(starts) else len(text)
        who, verb, command = start.groups()
        words = " ".join(text[start.end() : end].split())
        if command:
            steps.append(Step(command, "", words))
        elif verb in (">", ">>"):
            steps.append(Step(verb, who or "c", words, tuple(notation.read(words))))
        else:
            steps.append(Step(verb, who or "c", words, tuple(alternatives(words))))
    return tuple(steps)


def alternatives(text: str) -> list[tuple[str, object]]:
    """What may come: ("close", [codes]), ("refuse", [(3.x, 5.0)]), ("alive", None) or ("packet", nodes); any of them.
    Or ("all", [nodes]): all of these packets; or ("packet", nodes) and ("not", nodes), which may not come before it."""
    if " and " in text:
        return [("all", [notation.read(part) for part in re.split(r"\s+and\s+", text)])]
    if " not " in text:
        wanted, unwanted = text.split(" not ")
        return [("packet", notation.read(wanted)), ("not", notation.read(unwanted))]
    found = []
    for part in re.split(r"\s+or\s+", text):
        word, _, rest = part.partition(" ")
        if word == "close":
            found.append(("close", rest.split("|") if rest else []))
        elif word == "refuse":
            found.append(("refuse", [tuple(pair.split("/")) for pair in rest.split("|")]))
        elif word in ("alive", "gone"):
            found.append((word, None))
        else:
            found.append(("packet", notation.read(part)))
    return found
