"""A structured report as a page or as plain text, from its content tree.

Nothing of a report is ever markup: text becomes part of a page only through ``element``, which escapes it, and the
page's policy lets nothing run or load. A value is set apart from its surroundings (``bdi``), so that writing from right
to left, or a control character that claims it, can not reorder what stands beside it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Final

from wetread.core.dicom.attributes import Attributes
from wetread.gateway.report_head import Head, head
from wetread.gateway.report_tree import Code, ContentItem, Reference, content_tree, evidence

Link = Callable[[str, str, str], str]
"""(study, series, instance) to the address of its rendered form."""

_UNSPEAKABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters and what is no character: a terminal would obey them, a page may not hold them."""
_REORDERING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_LINES: Final = re.compile(r"\r\n?")

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --soft: #777; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem 1.5rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0 1rem; }
h2, h3, h4, h5, h6 { font-size: 1.05rem; margin: 1.25rem 0 0.25rem; }
h2 { border-bottom: 1px solid var(--line); font-size: 1.2rem; }
dl { display: grid; gap: 0.1rem 1rem; grid-template-columns: max-content 1fr; margin: 0 0 1.5rem; }
dt, .soft { color: var(--soft); }
dd { margin: 0; }
ul { list-style: none; margin: 0; padding-left: 1.25rem; }
section { border-left: 2px solid var(--line); margin: 0.5rem 0; padding-left: 1rem; }
main > section { border: 0; padding: 0; }
li { margin: 0.15rem 0; }
.soft { font-size: 0.8rem; font-weight: normal; }
.value { font-weight: 600; white-space: pre-wrap; }
.context > .value { font-weight: normal; }
.prose { display: block; font-weight: normal; }
.statement { border: 2px solid #b45309; border-radius: 4px; margin: 0 0 1rem; padding: 0.5rem 0.75rem; }
:target { outline: 2px solid #2563eb; outline-offset: 4px; }
footer { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 0.5rem; }
@media print { body { max-width: none; padding: 0; } a { color: inherit; } }
"""  # noqa: E501 - a rule to a line

POLICY: Final = (
    "default-src 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; sandbox allow-downloads"
)
"""Content-Security-Policy of a page: its own style, and nothing else; a link may lead to a document that is saved."""

_RELATIONS: Final[Mapping[str, str]] = {
    "HAS OBS CONTEXT": "observation context",
    "HAS ACQ CONTEXT": "acquisition context",
    "HAS CONCEPT MOD": "concept modifier",
    "HAS PROPERTIES": "property",
}
_CONTEXT: Final = frozenset({"HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD"})

_FOOT: Final = "Shown as text from the stored DICOM object; the object itself is what counts."


class Markup(str):
    """Text that may be put into a page as it is."""

    __slots__ = ()


def element(name: str, *content: str, **attributes: str) -> Markup:
    """Return an element; content that is not Markup is text, and is escaped like the attribute values."""
    given = "".join(f' {key.rstrip("_")}="{_escaped(value)}"' for key, value in attributes.items())
    inner = "".join(each if isinstance(each, Markup) else _escaped(each) for each in content)
    return Markup(f"<{name}{given}>{inner}</{name}>")


def _escaped(value: str) -> str:
    return escape(clean(value), quote=True)


def clean(value: str) -> str:
    """Return *value* with line feeds for line ends and U+FFFD for control characters."""
    return _UNSPEAKABLE.sub("\ufffd", _LINES.sub("\n", value))


def page(data: Attributes, link: Link) -> bytes:
    """Return the report as an HTML page in UTF-8, without scripts. Raises PayloadTooLarge."""
    root = content_tree(data)
    return _Page(head(data, root), root, evidence(data), link).html().encode()


class _Page:
    def __init__(self, top: Head, root: ContentItem, known: Mapping[str, tuple[str, str]], link: Link) -> None:
        self._head = top
        self._root = root
        self._known = known
        self._link = link
        self._targets = _by_position(root)

    def html(self) -> str:
        top = self._head
        facts = [piece for label, value in top.facts for piece in (element("dt", label), self._said("dd", value))]
        warning = [element("p", top.statement, class_="statement", role="note")] if top.statement else []
        body = element(
            "body",
            element("header", *warning, element("h1", self._said("bdi", top.title)), element("dl", *facts)),
            element("main", self._content(self._root)),
            element("footer", element("p", f"{_FOOT} SOP Instance UID {top.sop_uid}", class_="soft")),
        )
        head_of_page = element(
            "head",
            Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", top.title),
            Markup(f"<style>{_STYLE}</style>"),
        )
        return f"<!DOCTYPE html>\n{element('html', head_of_page, body, lang='en')}\n"

    def _content(self, root: ContentItem) -> Markup:
        if not root.children:
            return element("p", "The report has no content.", class_="soft")
        return element("section", self._children(root, 2))

    def _children(self, item: ContentItem, level: int) -> Markup:
        return element("ul", *(self._item(child, level) for child in item.children)) if item.children else Markup("")

    def _item(self, item: ContentItem, level: int) -> Markup:
        below = self._children(item, level + 1)
        if item.value_type == "CONTAINER":
            name = Markup("".join((*self._name(item), *self._seen(item))))
            inner = element("section", *([element(f"h{min(level, 6)}", name)] if name else []), below)
        else:
            inner = Markup("".join((*self._name(item), *self._value(item), *self._seen(item), below)))
        context = {"class_": "context"} if item.relationship in _CONTEXT else {}
        return element("li", inner, id=f"item-{item.position}", **context)

    def _name(self, item: ContentItem) -> Iterator[Markup]:
        relation = _relation(item)
        if relation:
            yield element("span", relation, class_="soft")
        if item.name is None:
            return
        yield self._said("bdi", item.name.meaning or item.name.value)
        yield self._code(item.name)
        if item.value_type != "CONTAINER":
            yield Markup(": ")

    def _value(self, item: ContentItem) -> Iterator[Markup]:
        if item.target:
            target = self._targets.get(item.target)
            words = "" if target is None or target.name is None else f" {target.name.meaning}"
            yield element("a", f"item {item.target}{words}", href=f"#item-{item.target}")
        prose = item.value_type == "TEXT" and ("\n" in clean(item.value) or len(item.value) > 80)
        if item.value:
            yield self._said("bdi", item.value, class_="value prose" if prose else "value")
        if item.code is not None:
            yield self._code(item.code, meaning=item.value_type == "NUM")
        for reference in item.references:
            yield self._reference(reference)

    def _reference(self, reference: Reference) -> Markup:
        what = f"{reference.sop_class}{', ' if reference.parts else ''}{reference.parts}"
        where = self._known.get(reference.sop_uid)
        shown = self._said("bdi", what, class_="value")
        if where is not None:
            shown = element("a", shown, href=self._link(*where, reference.sop_uid), rel="noreferrer")
        return Markup(shown + element("span", f" {reference.sop_uid} ", class_="soft"))

    def _seen(self, item: ContentItem) -> Iterator[Markup]:
        if item.observed:
            yield element("span", f" observed {item.observed}", class_="soft")

    def _code(self, code: Code, *, meaning: bool = False) -> Markup:
        return element("span", f" [{_code_text(code, meaning=meaning)}]", class_="soft")

    @staticmethod
    def _said(name: str, value: str, **attributes: str) -> Markup:
        return element(name, value, dir="auto", **attributes)


def _code_text(code: Code, *, meaning: bool) -> str:
    return ", ".join(filter(None, (code.value, code.scheme, code.meaning if meaning else "")))


def _relation(item: ContentItem) -> str:
    """Return the relationship to the parent in words; none for what it simply contains (PS3.3 table C.17.3-8)."""
    if item.relationship in ("CONTAINS", ""):
        return ""
    return f"{_RELATIONS.get(item.relationship, item.relationship.lower())} "


def _by_position(root: ContentItem) -> dict[str, ContentItem]:
    found = {root.position: root}
    for child in root.children:
        found |= _by_position(child)
    return found


def plain(data: Attributes) -> bytes:
    """Return the report as plain text in UTF-8: a line for each content item, indented. Raises PayloadTooLarge."""
    root = content_tree(data)
    top = head(data, root)
    width = max((len(label) for label, _ in top.facts), default=0) + 2
    title = _inert(top.title)
    lines = [title, "=" * len(title), ""]
    lines += [top.statement, ""] if top.statement else []
    lines += [f"{label + ':':{width}}{_hanging(value, width)}" for label, value in top.facts]
    lines.append("")
    lines += [line for child in root.children for line in _lines(child, 0)] or ["The report has no content."]
    lines += ["", f"{_FOOT} SOP Instance UID {_inert(top.sop_uid)}", ""]
    return "\n".join(lines).encode()


def _lines(item: ContentItem, depth: int) -> Iterator[str]:
    name = (
        "" if item.name is None else f"{item.name.meaning or item.name.value} [{_code_text(item.name, meaning=False)}]"
    )
    told = [f"see item {item.target}"] if item.target else []
    told += [item.value] if item.value else []
    if item.code is not None:
        told.append(f"[{_code_text(item.code, meaning=item.value_type == 'NUM')}]")
    told += ["; ".join(", ".join(filter(None, (r.sop_class, r.parts, r.sop_uid))) for r in item.references)]
    told += [f"(observed {item.observed})"] if item.observed else []
    start = "  " * depth + f"{item.position} "
    said = " ".join(filter(None, told))
    written = _relation(item) + name + (": " if name and said else "") + said
    yield start + _hanging(written, len(start) + 2)
    for child in item.children:
        yield from _lines(child, depth + 1)


def _hanging(value: str, width: int) -> str:
    """Return *value* with further lines indented: none of them passes for a line of the report itself."""
    return f"\n{' ' * width}".join(_inert(value).split("\n"))


def _inert(value: str) -> str:
    """Return text that a terminal neither obeys nor reorders."""
    return _REORDERING.sub("\ufffd", clean(value))
