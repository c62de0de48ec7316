# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the guest: what is live there according to journal, proxy, PM2 and site, whether it is whole on the disk, and the client's rows."""

import glob
import hashlib
import json
import os
import subprocess
import urllib.request

APP = "alpha"
problems = []


def wrong(good, words):
    """Note what is not as it should be."""
    if not good:
        problems.append(words)
    return good


def load(path):
    """Read a JSON file."""
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def whole(tree):
    """Compare a tree with its manifest, byte for byte."""
    manifest = load(f"{tree}/.anchorage.json")
    for name, expected in manifest["files"].items():
        path = f"{tree}/{name}"
        try:
            if os.path.islink(path):
                found = f"-> {os.readlink(path)}"
            else:
                with open(path, "rb") as stream:
                    found = hashlib.sha256(stream.read()).hexdigest()
        except OSError as error:
            found = str(error)
        wrong(found == expected, f"half a release: {name} is {found[:40]} ({os.path.getsize(path) if os.path.exists(path) else 'no'} bytes)")
    return len(manifest["files"])


def processes():
    """Return the processes of the app, by the name that they were given, with their release."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as stream:
                given = dict(part.split("=", 1) for part in stream.read().decode("utf-8", "replace").split("\0") if "=" in part)
        except OSError:
            continue
        if given.get("ANCHORAGE_PROCESS", "").startswith(f"{APP}-"):
            found[given["ANCHORAGE_PROCESS"]] = given.get("ANCHORAGE_RELEASE")
    return found


def site():
    """Ask the site through the proxy which release it is."""
    request = urllib.request.Request("http://127.0.0.1/info", headers={"Host": f"{APP}.localhost"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())["release"]
    except (OSError, ValueError) as error:
        return repr(error)


def sql(query):
    """Ask the database."""
    argv = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", APP, "-c", query]
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False)
    wrong(done.returncode == 0, f"the database: {done.stderr.strip()[:200]}")
    return done.stdout.split()


journal = load(f"/var/lib/anchorage/{APP}/journal.json")
live, slot = journal["live"], journal["slot"]
home = load(f"/etc/anchorage/apps/{APP}.json")["home"]
names = {f"{APP}-server-{slot}", f"{APP}-worker-{slot}"}
wrong(journal["switch"] is None and not journal.get("unsettled"), f"a switch is neither confirmed nor taken back: {journal['switch']}")
wrong(("green" if os.path.exists(f"/var/lib/anchorage/slots/{APP}/green") else "blue") == slot, "the proxy uses the other slot")
wrong({entry["name"] for entry in load(f"/var/lib/pm2/{APP}/live.json")["apps"]} == names, "PM2 would start something else at boot")
running = processes()
wrong(running == dict.fromkeys(names, live), f"there run {running}")
answered = site()
wrong(answered == live, f"the site says {answered}")
files = whole(f"{home}/builds/{journal['releases'][live]['tree']}")
for path in glob.glob(f"{home}/releases/{live}/run/*.json"):
    wrong(os.path.getsize(path) > 0 and load(path)["env"], f"{path} is not whole")
wrong(sql(f"SELECT count(*) FROM anchorage.release WHERE id = '{live}'") == ["1"], "what runs has no mark")

print(
    json.dumps(
        {
            "live": live,
            "slot": slot,
            "newest": max(journal["releases"].values(), key=lambda entry: entry.get("staged_at", 0))["id"],
            "reached": " ".join(str(journal["history"][-1][key]) for key in ("event", "release")),
            "files": files,
            "rows": sql("SELECT name FROM stub_items"),
            "problems": problems,
        }
    )
)
