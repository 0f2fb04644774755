"""Render a Vega-Lite specification as a small static SVG that takes its colours from the page."""

import re
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from equiv.errors import NotRun
from equiv.report.junit import NON_XML

SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"

SVG_ATTRIBUTES = {
    "viewBox", "transform", "d", "x", "y", "x2", "y2", "width", "height", "fill", "fill-opacity", "stroke",
    "stroke-width", "stroke-dasharray", "stroke-opacity", "opacity", "text-anchor", "font-size", "font-weight",
}  # fmt: skip
"""Attributes that change the picture; the page sets fonts, roles and classes."""

SVG_DEFAULTS = {
    ("opacity", "1"), ("stroke-width", "1"), ("font-weight", "normal"), ("x2", "0"), ("y2", "0"),
    ("transform", "translate(0,0)"),
}  # fmt: skip

SVG_NUMBER = re.compile(r"-?\d+\.\d+(e-?\d+)?")

VEGA_CONFIG: dict[str, Any] = {
    "background": None,
    "font": "Liberation Sans",  # included in vl-convert, same metrics as Arial: labels keep their positions
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "symbolBaseFillColor": "currentColor",
        "symbolBaseStrokeColor": "currentColor",
        "labelFontSize": 11,
        "labelLimit": 240,
        "orient": "top",
        "columns": 3,
    },
    "header": {"labelColor": "currentColor", "titleColor": "currentColor"},
}
"""Vega configuration of all charts: no background, and colours of the page, which follow its theme."""


def render_svg(spec: dict[str, Any], title: str) -> Markup:
    """Render a chart as an inline SVG without scripts, links, fonts or fixed colours.

    Args:
        spec: Vega-Lite specification, without configuration.
        title: label for screen readers.

    Raises:
        NotRun: vl-convert-python is not installed.
    """
    try:
        import vl_convert  # starts a JavaScript engine: only where a chart is drawn
    except ModuleNotFoundError as missing:
        raise NotRun(
            "the HTML report draws its charts with vl-convert-python, which is not installed here.",
            fix="Install it: pip install 'equiv[html]'. Markdown and JUnit need nothing more.",
        ) from missing

    whole = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "config": VEGA_CONFIG, **_printable(spec)}
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(whole))
    _shrink(root)
    root.set("role", "img")
    root.set("aria-label", _printable(title))
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _printable(value: Any) -> Any:
    """Replace every character that XML does not allow."""
    if isinstance(value, str):
        return NON_XML.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {name: _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list | tuple) else value


def _shrink(element: ElementTree.Element) -> None:
    """Remove invisible elements, and round to a tenth of a pixel."""
    element.tag = element.tag.removeprefix(SVG_NAMESPACE)
    for child in list(element):
        _shrink(child)
        if _invisible(child):
            element.remove(child)
        elif child.tag == "g" and not child.attrib:
            place = list(element).index(child)
            element.remove(child)
            for offset, grandchild in enumerate(child):
                element.insert(place + offset, grandchild)
    _join_paths(element)
    kept = {name: _round_numbers(value) for name, value in element.attrib.items() if name in SVG_ATTRIBUTES}
    element.attrib.clear()
    element.attrib.update({name: value for name, value in kept.items() if (name, value) not in SVG_DEFAULTS})
    if element.tag == "svg":
        del element.attrib["width"], element.attrib["height"]


def _join_paths(element: ElementTree.Element) -> None:
    """Join neighbouring shapes of the same appearance: a map has hundreds of them."""
    before = None
    for child in list(element):
        if (
            child.tag == "path"
            and before is not None
            and _appearance(child) == _appearance(before)
            and not child.get("stroke")
        ):
            before.set("d", before.get("d", "") + child.get("d", ""))
            element.remove(child)
        else:
            before = child if child.tag == "path" else None


def _appearance(element: ElementTree.Element) -> dict[str, str]:
    return {name: value for name, value in element.attrib.items() if name != "d"}


def _invisible(element: ElementTree.Element) -> bool:
    if element.tag == "path":
        return element.get("stroke") is None and element.get("fill") is None
    if element.tag == "text":
        return not (element.text or "").strip()
    return element.tag == "g" and not len(element)


def _round_numbers(value: str) -> str:
    return value if "var(" in value else SVG_NUMBER.sub(lambda match: _tenth(float(match[0])), value)


def _tenth(number: float) -> str:
    return f"{round(number, 1) or 0.0:.1f}".removesuffix(".0")
