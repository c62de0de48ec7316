# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts of a run as one page of HTML that needs nothing else: no script, no font, no image, no network.

It is read on a phone at night and printed for an audit, so it has a dark form and one for paper, and no verdict is told by colour alone.
"""

from __future__ import annotations

import datetime
import html
import json
import typing as t

Data = dict[str, t.Any]

GREEN, AMBER, RED = "green", "amber", "red"
GRADES = (GREEN, AMBER, RED)
WORDS = {GREEN: "All is well", AMBER: "It works, and something will need you", RED: "Something does not work"}
SIGNS = {GREEN: "✓", AMBER: "!", RED: "✕"}

#: Runs that are shown and kept.
KEEP = 60
EVIDENCE = 600

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2026; --soft: #5b6470; --line: #d9dee5; --card: #f6f8fa;
  --green: #17703a; --amber: #8a5a00; --red: #b3261e; --on: #fff; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --ink: #e7eaee; --soft: #9aa4b1; --line: #323a45; --card: #1c2129;
  --green: #5fcf8b; --amber: #f0b44c; --red: #ff8a80; --on: #14171c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; line-height: 1.25; } h2 { margin: 2rem 0 .5rem; font-size: 1.1rem; overflow-wrap: anywhere; }
p { margin: .25rem 0; } .soft { color: var(--soft); font-size: .875rem; }
.top { display: flex; gap: .75rem; align-items: center; }
.sign { flex: none; display: inline-flex; align-items: center; justify-content: center; width: 1.5rem; height: 1.5rem; border-radius: 50%;
  color: var(--on); font-weight: 700; font-size: .9rem; line-height: 1; }
.top .sign { width: 2.5rem; height: 2.5rem; font-size: 1.4rem; }
.green .sign, .sign.green, .run.green { background: var(--green); } .amber .sign, .sign.amber, .run.amber { background: var(--amber); }
.red .sign, .sign.red, .run.red { background: var(--red); }
ul { list-style: none; margin: 0; padding: 0; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
li { display: flex; gap: .75rem; padding: .6rem .75rem; } li + li { border-top: 1px solid var(--line); } li.red, li.amber { background: var(--card); }
.body { min-width: 0; flex: 1; } .name { font-weight: 600; overflow-wrap: anywhere; } .said { overflow-wrap: anywhere; }
.grade { font-size: .75rem; font-weight: 600; text-transform: uppercase; letter-spacing: .04em; margin-left: .4rem; }
.green .grade { color: var(--green); } .amber .grade { color: var(--amber); } .red .grade { color: var(--red); }
summary { cursor: pointer; color: var(--soft); font-size: .875rem; } dl { margin: .4rem 0 0; font-size: .8125rem; }
dt { font-weight: 600; margin-top: .3rem; } dd { margin: 0; overflow-wrap: anywhere; color: var(--soft); font-family: ui-monospace, monospace; }
.runs { display: flex; flex-wrap: wrap; gap: 3px; margin-top: .5rem; }
.run { width: .8rem; height: 1.6rem; border-radius: 2px; display: inline-flex; align-items: center; justify-content: center;
  color: var(--on); font-size: .6rem; font-weight: 700; }
a { color: inherit; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } summary { display: none; } li, h2 { break-inside: avoid; break-after: auto; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def text(value: t.Any) -> str:
    """Return something as text that HTML takes as it is."""
    return html.escape(str(value), quote=True)


def worst(grades: t.Iterable[str]) -> str:
    """Return the worst of some verdicts."""
    return max(grades, key=GRADES.index, default=GREEN)


def when(at: float) -> str:
    """Return a time as people read it, in UTC, since whoever reads it may be anywhere."""
    return datetime.datetime.fromtimestamp(at, tz=datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def run_of(hosts: t.Mapping[str, t.Sequence[Data]], at: float) -> Data:
    """Return what the history keeps of a run."""
    amiss = [f"{host}: {item['name']}" for host, items in hosts.items() for item in items if item["grade"] != GREEN]
    return {"at": at, "grade": worst(item["grade"] for items in hosts.values() for item in items), "amiss": amiss}


def history(known: t.Any, run: Data) -> list[Data]:
    """Return the history with one run more; what is no history is begun anew."""
    runs = [item for item in known if isinstance(item, dict) and item.get("grade") in GRADES and "at" in item] if isinstance(known, list) else []
    return [*runs, run][-KEEP:]


def _evidence(check: Data) -> str:
    plain = json.dumps(check.get("evidence") or {}, ensure_ascii=False, sort_keys=True)
    cut = plain if len(plain) <= EVIDENCE else f"{plain[:EVIDENCE]} …"
    said = f"{check['cause']} " if check.get("cause") else ""
    return f"<dt>{text(check['name'])}: {text(check['verdict'])}</dt><dd>{text(said + cut)}</dd>"


def _item(item: Data) -> str:
    grade = item["grade"]
    said = item.get("message") or item["summary"]
    checks = "".join(_evidence(check) for check in item.get("checks") or [])
    more = f"<details><summary>Evidence</summary><dl>{checks}</dl></details>" if checks else ""
    sign = f'<span class="sign" aria-hidden="true">{SIGNS[grade]}</span>'
    head = f'<div class="name">{text(item["name"])}<span class="grade">{grade}</span></div>'
    return f'<li class="{grade}">{sign}<div class="body">{head}<div class="said">{text(said)}</div>{more}</div></li>'


def _host(name: str, items: t.Sequence[Data]) -> str:
    ordered = sorted(items, key=lambda item: -GRADES.index(item["grade"]))
    return f"<h2>{text(name)}</h2><ul>{''.join(map(_item, ordered))}</ul>"


def _run(run: Data) -> str:
    told = f"{when(run['at'])}: {run['grade']}" + (f" ({', '.join(run.get('amiss') or [])})" if run.get("amiss") else "")
    sign = "" if run["grade"] == GREEN else SIGNS[run["grade"]]
    return f'<span class="run {run["grade"]}" role="img" aria-label="{text(told)}" title="{text(told)}">{sign}</span>'


def _counted(items: t.Sequence[Data]) -> str:
    parts = [f"{count} {grade}" for grade in reversed(GRADES) if (count := sum(item["grade"] == grade for item in items))]
    return ", ".join(parts) or "nothing was asked"


def page(hosts: t.Mapping[str, t.Sequence[Data]], *, urls: t.Sequence[Data], runs: t.Sequence[Data], at: float) -> str:
    """Return the page.

    :arg hosts: for each host its verdicts, each with C(name), C(grade), C(summary), C(message) and C(checks).
    :arg urls: the public addresses of the apps, each with C(name) and C(url).
    :arg runs: the history, this run at its end.
    """
    items = [item for found in hosts.values() for item in found]
    grade = worst(item["grade"] for item in items)
    title = f"{WORDS[grade]}: {', '.join(hosts) or 'no host'}"
    links = "".join(f'<p>{text(app["name"])}: <a href="{text(app["url"])}">{text(app["url"])}</a></p>' for app in urls)
    past = f'<h2>The last {len(runs)} runs</h2><div class="runs">{"".join(map(_run, runs))}</div>' if len(runs) > 1 else ""
    body = "".join(_host(name, found) for name, found in sorted(hosts.items(), key=lambda pair: -GRADES.index(worst(item["grade"] for item in pair[1]))))
    head = (
        f'<header class="{grade}"><div class="top"><span class="sign" aria-hidden="true">{SIGNS[grade]}</span><div><h1>{text(WORDS[grade])}</h1>'
        f'<p class="soft">{when(at)} · {_counted(items)}</p></div></div>{links}</header>'
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>{head}<main>{body}{past}</main></body></html>\n"
    )
