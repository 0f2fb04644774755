"""Results as JUnit XML for CI systems: one `<testcase>` per case, candidate and check."""

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from equiv.core.headline import severity
from equiv.core.printable import printable
from equiv.core.results import CheckResult, Finding, RunResult
from equiv.report.cells import describe_finding
from equiv.report.runs.merge import MergedCase, merge_runs

FAILURE_GRADES, ERROR_GRADES, SKIPPED_GRADES = (
    ("refuted",),
    ("error",),
    ("blocked", "not run", "vacuous", "unidentifiable"),
)

NON_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not allow, not even escaped."""


def render_junit(results: Sequence[RunResult]) -> str:
    """Render one or more runs as one document, with test names like pytest ids: `batch_norm-nnx-state`.

    A refuted check is a failure, a check that raised is an error, a check without a result is skipped, with the reason.
    """
    merged = merge_runs(results)
    root = ElementTree.Element("testsuites", name="equiv")
    for label, run in zip(merged.labels, merged.runs, strict=True):
        name = _replace_non_xml(f"equiv {label}")
        suite = ElementTree.SubElement(
            root, "testsuite", name=name, timestamp=_replace_non_xml(run.started), time=f"{run.seconds:.3f}"
        )
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in sorted(run.environment.items()):
            ElementTree.SubElement(properties, "property", name=_replace_non_xml(name), value=_replace_non_xml(value))
        for wrong in run.known_miscompilations:
            ElementTree.SubElement(properties, "property", name="known miscompilation", value=_replace_non_xml(wrong))
        for entry in merged.entries:
            if entry.run is run:
                suite.extend(_check_elements(entry))
        for problem in run.problems:
            suite.append(_testcase_element("run", "problem", "error", problem, ""))
        for tag, kind in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(tag, str(len(list(suite.iter(kind)))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _check_elements(entry: MergedCase) -> Iterator[ElementTree.Element]:
    case = entry.case
    if case.problem:
        yield _testcase_element(case.name, case.name, "error", case.problem, "")
    for check in case.checks:
        name = f"{case.name}-{check.candidate}-{check.check}"
        kind = {**dict.fromkeys(FAILURE_GRADES, "failure"), **dict.fromkeys(ERROR_GRADES, "error")}.get(check.grade, "")
        kind = kind or ("skipped" if check.grade in SKIPPED_GRADES else "")
        worst = _decisive_finding(check)
        lines = describe_finding(worst, case.reference, check.candidate) if worst else []
        message = f"{worst.place}: {'; '.join(lines[:1])}" if worst and kind else check.summary
        yield _testcase_element(case.name, name, kind, message if kind else "", "\n".join(lines))


def _decisive_finding(check: CheckResult) -> Finding | None:
    decisive = [finding for finding in check.findings if finding.grade == check.grade]
    return max(decisive, key=severity, default=None)


def _testcase_element(group: str, name: str, kind: str, message: str, text: str) -> ElementTree.Element:
    element = ElementTree.Element("testcase", classname=_replace_non_xml(group), name=_replace_non_xml(name))
    if kind:
        child = ElementTree.SubElement(element, kind, message=_replace_non_xml(message))
        child.text = _replace_non_xml(text) or None
    return element


def _replace_non_xml(value: str) -> str:
    return NON_XML.sub("\N{REPLACEMENT CHARACTER}", printable(value))
