"""Reports for people: the content tree, the page and the plain text (PS3.3 C.17.3, C.18; PS3.18 8.7.4)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from wetread.core.errors import PayloadTooLarge
from wetread.core.ruo import RUO_STATEMENT
from wetread.gateway import report_tree
from wetread.gateway.report_page import clean, element, page, plain
from wetread.gateway.report_tree import content_tree, date_time, person_text

Model = dict[str, dict[str, Any]]


def attribute(value: Any, vr: str = "LO") -> dict[str, Any]:
    return {"vr": vr, "Value": value if isinstance(value, list) else [value]}


def code(value: str, scheme: str, meaning: str, *, tag: str = "00080100") -> dict[str, Any]:
    item = {tag: attribute(value), "00080102": attribute(scheme), "00080104": attribute(meaning)}
    return attribute(item, "SQ")


def item(kind: str, name: str = "Thing", relationship: str = "CONTAINS", **tags: Any) -> Model:
    made = {"0040A010": attribute(relationship), "0040A040": attribute(kind), "0040A043": code("N1", "99T", name)}
    return made | {key.removeprefix("t"): value for key, value in tags.items()}


def report(*children: Model, **tags: Any) -> Model:
    return item("CONTAINER", "Report", "", t0040A730=attribute(list(children), "SQ"), **tags)


def measured(value: Any, unit: dict[str, Any]) -> dict[str, Any]:
    return attribute({"0040A30A": attribute(value, "DS"), "004008EA": unit}, "SQ")


def link(study: str, series: str, instance: str) -> str:
    return f"/s/{study}/{series}/{instance}"


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (code("mm2", "UCUM", "square millimeter"), "12 mm2"),
        (code("1", "UCUM", "no units"), "12"),
        (code("1", "UCUM", "px"), "12 px"),
        (code("{ratio}", "UCUM", "ratio"), "12 ratio"),
        (code("cm", "99T", "Length Unit"), "12 Length Unit"),
    ],
)
def test_numbers_stand_with_their_unit(unit: dict[str, Any], said: str) -> None:
    (child,) = content_tree(report(item("NUM", t0040A300=measured(12.0, unit)))).children
    assert child.value == said


def test_a_number_that_is_not_there_is_not_zero() -> None:
    unknown = code("114006", "DCM", "Measurement failure")
    children = content_tree(report(item("NUM", t0040A301=unknown, t0040A300={"vr": "SQ"}), item("NUM"))).children
    assert [child.value for child in children] == ["Measurement failure", "no value"]


@pytest.mark.parametrize("tag", ["00080100", "00080119", "00080120"])
def test_codes_are_short_long_or_urn(tag: str) -> None:
    (child,) = content_tree(report(item("CODE", t0040A168=code("C9", "SCT", "Bleed", tag=tag)))).children
    assert child.value == "Bleed"
    assert child.code is not None
    assert child.code.value == "C9"


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"Alphabetic": "Doe^Jane^M^Dr^PhD"}, "Doe, Jane M, Dr, PhD"),
        (
            {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"},
            "Hong, Gildong (洪 吉洞, 홍 길동)",
        ),
        ({"Alphabetic": "Müller^Jörg"}, "Müller, Jörg"),
        ({"Ideographic": "洪^吉洞"}, "洪 吉洞"),
        ({}, ""),
    ],
)
def test_names_as_people_write_them(stored: dict[str, str], said: str) -> None:
    assert person_text(stored) == said


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ("20260131103015.25+0100", "2026-01-31 10:30:15 +0100"),
        ("202601311030", "2026-01-31 10:30"),
        ("20260131", "2026-01-31"),
        ("2026", "2026"),
        ("<now>", "<now>"),
    ],
)
def test_times_that_cannot_be_read_stay(stored: str, said: str) -> None:
    assert date_time(stored) == said


def test_references_lead_to_what_is_evidence_and_to_items() -> None:
    known = attribute({"00081150": attribute("1.2.840.10008.5.1.4.1.1.2"), "00081155": attribute("1.2.3")}, "SQ")
    other = attribute(
        {
            "00081150": attribute("1.9"),
            "00081155": attribute("1.2.4"),
            "00081160": attribute([2, 5], "IS"),
            "0062000B": attribute(1, "US"),
        },
        "SQ",
    )
    study = {
        "0020000D": attribute("1.2"),
        "00081115": attribute({"0020000E": attribute("1.2.1"), "00081199": known}, "SQ"),
    }
    data = report(
        item("IMAGE", t00081199=known),
        item("IMAGE", t00081199=other),
        {"0040A010": attribute("INFERRED FROM"), "0040DB73": attribute([1, 2], "UL")},
        t0040A375=attribute(study, "SQ"),
    )
    shown = page(data, link).decode()
    assert re.findall(r'href="([^"]*)"', shown) == ["/s/1.2/1.2.1/1.2.3", "#item-1.2"]
    assert 'id="item-1.2"' in shown
    assert "1.9, frames 2, 5; segment 1" in shown
    written = plain(data).decode()
    assert "1.1 Thing [N1, 99T]: CT Image Storage, 1.2.3" in written
    assert "1.3 inferred from see item 1.2" in written


def test_a_reference_of_odd_uids_is_no_link() -> None:
    odd = '1.2/../../"onclick="x'
    image = attribute({"00081155": attribute(odd)}, "SQ")
    study = {
        "0020000D": attribute("1.2"),
        "00081115": attribute({"0020000E": attribute("1.2.1"), "00081199": image}, "SQ"),
    }
    shown = page(report(item("IMAGE", t00081199=image), t0040A375=attribute(study, "SQ")), link).decode()
    assert "href" not in shown
    assert "&quot;onclick=&quot;x" in shown


def test_the_statement_is_for_our_own_reports() -> None:
    for maker, ours in (("wetread", True), ("wetread ", True), ("Other Works", False)):
        data = report(item("TEXT", t0040A160=attribute("none", "UT")), t00080070=attribute(maker))
        assert (RUO_STATEMENT in page(data, link).decode()) is ours
        assert (RUO_STATEMENT in plain(data).decode()) is ours


def test_only_markup_is_put_into_a_page_as_it_is() -> None:
    inner = element("b", "1 < 2 & \"3\" 'x'", title='"><script>')
    assert inner == '<b title="&quot;&gt;&lt;script&gt;">1 &lt; 2 &amp; &quot;3&quot; &#x27;x&#x27;</b>'
    assert element("p", inner, "<b>") == f"<p>{inner}&lt;b&gt;</p>"


def test_control_characters_are_not_passed_on() -> None:
    assert clean("a\x00b\x1b[31mc\x9bd\te\r\nf\rg\ud800") == "a\ufffdb\ufffd[31mc\ufffdd\te\nf\ng\ufffd"
    data = report(item("TEXT", t0040A160=attribute("5 mm \u202ecba\u2066", "UT")))
    assert "5 mm \ufffdcba\ufffd" in plain(data).decode(), "nothing reorders a line of plain text"
    assert '<bdi dir="auto" class="value">5 mm \u202ecba\u2066</bdi>' in page(data, link).decode()


def test_a_report_without_content_says_so() -> None:
    for data in ({}, report()):
        assert "The report has no content." in page(data, link).decode()
        assert "The report has no content." in plain(data).decode()


def test_a_report_beyond_the_limit_is_refused_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_tree, "ITEM_LIMIT", 3)
    assert content_tree(report(item("DATE"), item("DATE")))
    with pytest.raises(PayloadTooLarge, match="more than 3 content items"):
        content_tree(report(item("DATE"), item("DATE"), item("DATE")))


def test_deep_reports_have_headings_that_exist() -> None:
    data = item("TEXT", t0040A160=attribute("bottom", "UT"))
    for _ in range(62):
        data = item("CONTAINER", t0040A730=attribute(data, "SQ"))
    shown = page(report(data), link).decode()
    assert set(re.findall(r"<(h\d)", shown)) == {f"h{n}" for n in range(1, 7)}
    assert shown.count("<li") == shown.count("</li>") == 63
    assert "bottom" in plain(report(data)).decode()
