"""Read results schema 1: renamed keys, and texts that are types since schema 2.

Schema 1 kept what is now data in sentences: first differences in `source`, rewrites in `note`, and trials of the probes
as findings told apart by the first word of `place`.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from equiv.core.first_difference import SourceLine
from equiv.core.output_name import BEGIN, STEP, TRAINING, OutputKind, OutputName, ProgramName
from equiv.core.results import TrialKind

JsonObject = dict[str, Any]


RENAMED_KEYS = {
    "case": {"starts": "initial_values", "left_over": "unmapped_leaves", "text": "source_digest", "probes": "trials"},
    "check": {"walk": "intermediates"},
    "initial value": {"p": "p_value"},
    "faults": {"fits_nowhere": "not_applicable"},
    "timing": {"naive": "back_to_back"},
}
"""Object to its old and new keys."""


TRIAL_PREFIXES: dict[str, tuple[TrialKind, str]] = {
    "moving ": ("moved", ""),
    "swapping ": ("swapped", " and "),
    "tampering with ": ("mutated proof", ", "),
    "lengthening ": ("longer batch", ", "),
    "environment": ("environment", ""),
}
"""How the place of a trial begins, to its kind and what its subjects are joined by; no subject has a blank comma."""


EQUATION_PATTERN = re.compile(
    r"(?P<primitive>\S+)(?: at (?P<place>.*?))?(?: with (?P<inputs>.*?))?(?:, called at (?P<call>.*))?", re.DOTALL
)
"""One equation of `source` after the name of its port; the place is a line, and ` in ` and the name stack."""


INTERMEDIATE_PATTERN = re.compile(
    r"(?P<primitive>\S+)(?P<backward> on the way back| in the backward pass)?(?: in (?P<module>.*))?", re.DOTALL
)


NUMBER_PATTERN = re.compile(r"[-+]?(\d[\d.e+-]*|inf|nan)")


def upgrade_results(run: JsonObject) -> JsonObject:
    """Return a run of schema 1, as plain JSON values, in the form of schema 2; all else stays as it is.

    Raises:
        AttributeError, KeyError, TypeError: a value is not of the kind that schema 1 has there.
    """
    return {**run, "schema": 2, "cases": [_upgrade_case(case) for case in run.get("cases", [])]}


def _upgrade_case(old: JsonObject) -> JsonObject:
    case = _rename_keys("case", old)
    if "trials" in case:
        case["trials"] = [upgrade_trial(finding) for finding in case["trials"]]
    if "initial_values" in case:
        case["initial_values"] = [_rename_keys("initial value", one) for one in case["initial_values"]]
    if "checks" in case:
        leaves = frozenset(leaf["leaf"] for leaf in case.get("leaves", []))
        case["checks"] = [_upgrade_check(check, case.get("reference", ""), leaves) for check in case["checks"]]
    if case.get("faults"):
        case["faults"] = _upgrade_faults(case["faults"])
    if case.get("costs"):
        timings = [_rename_keys("timing", one) for one in case["costs"].get("timings", [])]
        case["costs"] = {**case["costs"], "timings": timings}
    return case


def _rename_keys(kind: str, old: Mapping[str, Any]) -> JsonObject:
    return {RENAMED_KEYS[kind].get(key, key): value for key, value in old.items()}


def upgrade_trial(finding: Mapping[str, Any]) -> JsonObject:
    """Return the trial that a finding of schema 1 was.

    Raises:
        KeyError: its place is that of no trial.
    """
    place = finding["place"]
    prefix = next((prefix for prefix in TRIAL_PREFIXES if place.startswith(prefix)), place)
    kind, joint = TRIAL_PREFIXES[prefix]
    subject = place.removeprefix(prefix)
    return {
        "kind": kind,
        "subject": subject.split(joint) if joint else [subject] if subject else [],
        "detected": finding["grade"] == "exact",
        "ratio": finding.get("ratio"),
        "note": finding.get("note", ""),
    }


def _upgrade_check(old: JsonObject, reference: str, leaves: frozenset[str]) -> JsonObject:
    check = _rename_keys("check", old)
    ports = reference, check.get("candidate", "")
    check["findings"] = [_upgrade_finding(finding, ports, leaves) for finding in check.get("findings", [])]
    check["intermediates"] = [_upgrade_intermediate(one) for one in check.get("intermediates", [])]
    return check


def _upgrade_finding(old: JsonObject, ports: tuple[str, str], leaves: frozenset[str]) -> JsonObject:
    finding = {key: value for key, value in old.items() if key != "source"}
    finding["first_differences"] = parse_first_differences(old.get("source", ""), ports)
    place = old["place"]
    if place.startswith("leaf "):
        finding["structure"] = place.removeprefix("leaf ")
    elif name := parse_output_name(place, leaves):
        finding["output"] = msgspec.to_builtins(name)
    note, also, modulo = old.get("note", "").partition("; proved the same function modulo ")
    if old.get("grade") == "proved modulo":
        finding |= {"note": "", "rewrites": note.split("; ")}
    elif also:
        finding |= {"note": note, "rewrites": modulo.split(", ")}
    return finding


def parse_output_name(place: str, leaves: frozenset[str]) -> OutputName | None:
    """Parse `after training, eval __call__: state a/mean`; None for what is no output of a program.

    Args:
        place: as schema 1 wrote it.
        leaves: canonical names of the case's leaves, by which what belongs to a leaf is known.
    """
    later = place.startswith("after training, ")
    first, colon, text = place.removeprefix("after training, ").partition(": ")
    kind, _, method = first.partition(" ")
    programs = {"train": TRAINING, "begin": BEGIN, "step": STEP}
    program = programs.get(first) or (ProgramName(kind, method) if kind in CALL_KINDS and method else None)
    if not colon or program is None:
        return None
    for word, found in OUTPUT_WORDS.items():
        if text == word or text.startswith((f"{word}/", f"{word} ")):
            path, leaf = _split_leaf(text[len(word) + 1 :], leaves)
            return OutputName(program, found, path, leaf, later)
    if text == "loss" and not program.is_training:
        return OutputName(program, "loss", after_training=later)
    path, leaf = _split_leaf(text, leaves)
    return OutputName(program, "leaf" if not path else "optimizer" if leaf else "bookkeeping", path, leaf, later)


OUTPUT_WORDS: dict[str, OutputKind] = {
    "state": "state",
    "gradient": "gradient",
    "step output": "output",
    "output": "output",
    "draw": "draw",
    "random": "random",
}
"""How the name of an output begins, to its kind; of training, all else is in the carry."""

CALL_KINDS = ("call", "eval", "train", "gradient")
"""Kinds of programs whose name has a method."""


def _split_leaf(text: str, leaves: frozenset[str]) -> tuple[str, str]:
    """Split `opt_state/0/mu/a/kernel` into what is before the leaf, and the leaf that it ends with, if any."""
    starts = (0, *(found.end() for found in re.finditer("/", text)))
    return next(((text[:start], text[start:]) for start in starts if text[start:] in leaves), (text, ""))


def _upgrade_intermediate(old: JsonObject) -> JsonObject:
    point = {key: value for key, value in old.items() if key not in ("name", "where")}
    found = INTERMEDIATE_PATTERN.fullmatch(old["name"])
    primitive, module = (found["primitive"], found["module"]) if found else (old["name"], "")
    point |= {"primitive": primitive, "module_path": module or "", "backward": bool(found and found["backward"])}
    return point | {"location": _location(old.get("where", ""))}


def _upgrade_faults(old: JsonObject) -> JsonObject:
    """Rename keys, and the outcome `noticed`; mutants in `missed` have other outcomes."""
    rows = [
        {**row, "outcomes": {"killed" if name == "noticed" else name: count for name, count in row["outcomes"].items()}}
        for row in old.get("rows", [])
    ]
    return {**_rename_keys("faults", old), "rows": rows}


def parse_first_differences(source: str, ports: tuple[str, str]) -> list[JsonObject]:
    """Parse `first different: PORT EQUATION; PORT EQUATION`, one equation per port that has one."""
    ours = "|".join(map(re.escape, ports))
    parts = re.split(rf"(?:^|; )({ours}) (?=\S)", source.removeprefix("first different: "))
    return [_parse_equation(port, text) for port, text in zip(parts[1::2], parts[2::2], strict=True)]


def _parse_equation(port: str, text: str) -> JsonObject:
    found = EQUATION_PATTERN.fullmatch(text)
    if found is None:
        return {"port": port, "primitive": text}
    place, inside, stack = (found["place"] or "").partition(") in ")
    inputs = found["inputs"].split(", ") if found["inputs"] else []
    return {
        "port": port,
        "primitive": found["primitive"],
        "operands": [item for item in inputs if not NUMBER_PATTERN.fullmatch(item)],
        "constants": [item for item in inputs if NUMBER_PATTERN.fullmatch(item)],
        "location": _location(f"{place})" if inside else place),
        "call_site": _location(found["call"] or ""),
        "name_stack": stack,
    }


def _location(text: str) -> JsonObject | None:
    line = SourceLine.parse(text)
    return vars(line) if line else None
