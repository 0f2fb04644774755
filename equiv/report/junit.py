"""Runs as JUnit XML, for a CI that reads it: one test case per case, candidate and check."""

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from equiv.core.headline import severity
from equiv.core.results import CheckResult, Finding, RunResult
from equiv.report.cells import values
from equiv.report.runs.merge import Entry, merge

FAILED, BROKEN, SKIPPED = ("refuted",), ("error",), ("blocked", "not run", "vacuous", "unidentifiable")


NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def junit(results: Sequence[RunResult]) -> str:
    """One document for one or more runs; ids as pytest has them, `batch_norm-nnx-state`.

    What is refuted is a failure, what raised is an error, what is not run is skipped, with its reason.
    """
    merged = merge(results)
    root = ElementTree.Element("testsuites", name="equiv")
    for label, run in zip(merged.labels, merged.runs, strict=True):
        suite = ElementTree.SubElement(
            root, "testsuite", name=f"equiv {label}", timestamp=run.started, time=f"{run.seconds:.3f}"
        )
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in sorted(run.environment.items()):
            ElementTree.SubElement(properties, "property", name=_text(name), value=_text(value))
        for entry in merged.entries:
            if entry.run is run:
                suite.extend(_cases(entry))
        for problem in run.problems:
            suite.append(_case("run", "problem", "error", problem, ""))
        for tag, kind in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(tag, str(len(list(suite.iter(kind)))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _cases(entry: Entry) -> Iterator[ElementTree.Element]:
    case = entry.case
    if case.problem:
        yield _case(case.name, case.name, "error", case.problem, "")
    for check in case.checks:
        name = f"{case.name}-{check.candidate}-{check.check}"
        kind = {**dict.fromkeys(FAILED, "failure"), **dict.fromkeys(BROKEN, "error")}.get(check.grade, "")
        kind = kind or ("skipped" if check.grade in SKIPPED else "")
        worst = _worst(check)
        lines = values(worst, case.reference, check.candidate) if worst else []
        message = f"{worst.place}: {'; '.join(lines[:1])}" if worst and kind else check.summary
        yield _case(case.name, name, kind, message if kind else "", "\n".join(lines))


def _worst(check: CheckResult) -> Finding | None:
    decisive = [finding for finding in check.findings if finding.grade == check.grade]
    return max(decisive, key=severity, default=None)


def _case(group: str, name: str, kind: str, message: str, text: str) -> ElementTree.Element:
    element = ElementTree.Element("testcase", classname=_text(group), name=_text(name))
    if kind:
        told = ElementTree.SubElement(element, kind, message=_text(message))
        told.text = _text(text) or None
    return element


def _text(value: str) -> str:
    return NO_XML.sub("\N{REPLACEMENT CHARACTER}", value)
