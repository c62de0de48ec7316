# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import html.parser
import re

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.health_page import KEEP, history, page, run_of

NASTY = '</style><script>alert("1")</script> & \'"'


def item(grade, name="shop database", **more):
    check = {"name": "connect", "verdict": "ok", "evidence": {"version": "17"}, "cause": ""}
    return {"name": name, "grade": grade, "summary": f"{name} is {grade}.", "message": f"{name} is {grade}. Look next at: here.", "checks": [check], **more}


class Outline(html.parser.HTMLParser):
    """Collects what stands in a page, and sees whether every element ends."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def made(hosts, runs=(), urls=()):
    text = page(hosts, urls=urls, runs=runs, at=1_700_000_000.0)
    outline = Outline(text)
    assert outline.open == []
    return text, outline


def test_the_page_is_whole_and_needs_nothing_else():
    text, outline = made({"web1": [item("green"), item("red", "shop certificate")]}, urls=[{"name": "shop", "url": "https://shop.example.com"}])
    assert not {"script", "link", "img", "iframe"} & set(outline.tags) and "@import" not in text and "url(" not in text
    assert {value for key, value in outline.attributes if key in ("src", "href")} == {"https://shop.example.com"}
    assert ("name", "viewport") in outline.attributes and "prefers-color-scheme: dark" in text and "@media print" in text


@pytest.mark.parametrize(
    ("grades", "words"),
    [(["green"], "All is well"), (["green", "amber"], "something will need you"), (["amber", "red"], "Something does not work"), ([], "All is well")],
)
def test_its_head_says_the_worst(grades, words):
    _text, outline = made({"web1": [item(grade) for grade in grades]})
    assert words in "".join(outline.texts)


def test_what_is_worst_stands_first_and_is_said_in_words_too():
    _text, outline = made({"web1": [item("green", "a"), item("amber", "b"), item("red", "c")], "web2": [item("green", "d")]})
    said = "".join(outline.texts)
    assert said.index("c is red. Look next at: here.") < said.index("b is amber.") < said.index("a is green.") < said.index("d is green.")
    assert "1 red, 1 amber, 2 green" in said and "2023-11-14 22:13 UTC" in said


def test_nothing_that_a_host_says_becomes_html():
    hostile = item("red", NASTY, summary=NASTY, message=NASTY, checks=[{"name": NASTY, "verdict": "fail", "cause": NASTY, "evidence": {NASTY: NASTY}}])
    run = {"at": 1.0, "grade": "red", "amiss": [NASTY]}
    _text, outline = made({NASTY: [hostile]}, runs=[run, run], urls=[{"name": NASTY, "url": NASTY}])
    assert "script" not in outline.tags and outline.tags.count("style") == 1
    assert sum("<script>alert(" in text for text in outline.texts) >= 4


def test_evidence_is_shown_and_cut():
    _text, outline = made({"web1": [item("green", checks=[{"name": "x", "verdict": "ok", "evidence": {"big": "y" * 5000}, "cause": ""}])]})
    assert max(map(len, outline.texts[1:])) < 6000 and any(text.endswith(" …") for text in outline.texts)
    _text, outline = made({"web1": [item("green", checks=[])]})
    assert "details" not in outline.tags


def test_the_history_has_a_mark_for_each_run():
    runs = [{"at": 60.0 * number, "grade": grade, "amiss": []} for number, grade in enumerate(("green", "red", "green"))]
    _text, outline = made({"web1": [item("green")]}, runs=runs)
    labels = [value for key, value in outline.attributes if key == "aria-label"]
    assert labels == ["1970-01-01 00:00 UTC: green", "1970-01-01 00:01 UTC: red", "1970-01-01 00:02 UTC: green"]
    assert "The last" not in made({"web1": [item("green")]}, runs=runs[:1])[0]


def test_the_history_ends_somewhere():
    runs = []
    for number in range(KEEP + 3):
        runs = history(runs, {"at": float(number), "grade": "green", "amiss": []})
    assert len(runs) == KEEP and runs[-1]["at"] == KEEP + 2


def test_a_run_keeps_what_was_not_green():
    assert run_of({"web1": [item("green"), item("amber", "b")], "web2": [item("red", "c")]}, 5.0) == {
        "at": 5.0,
        "grade": "red",
        "amiss": ["web1: b", "web2: c"],
    }


def test_every_pair_of_colours_can_be_read():
    """WCAG 2.2, 1.4.3: text needs a contrast of at least 4.5 to 1 with what it stands on."""

    def light(colour):
        digits = "".join(char * 2 for char in colour) if len(colour) == 3 else colour
        parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one, other):
        high, low = sorted((light(one), light(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    forms = re.findall(r":root \{([^}]*)\}", page({}, urls=[], runs=[], at=0.0))
    assert len(forms) == 2
    for form in forms:
        colours = dict(re.findall(r"--(\w+): #([0-9a-f]{3,6})", form))
        for name in ("ink", "soft", "green", "amber", "red"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
            assert contrast(colours[name], colours["card"]) >= 4.5, name
        for name in ("green", "amber", "red"):
            assert contrast(colours["on"], colours[name]) >= 4.5, name
