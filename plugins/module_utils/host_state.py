# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine of host_state on the host: one read of everything, one transaction for files, one look at the units."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import fnmatch
import grp
import hashlib
import json
import os
import pwd
import signal
import stat
import typing as t

from . import host_manifest as manifest
from . import host_state_confirm as confirmation
from . import host_state_dpkg as dpkg
from . import host_state_repository as repositories
from . import host_state_stage as stage
from . import host_state_units as units
from .errors import AnchorageError
from .host_state_tree import Entry, Transaction, Tree, matches
from .world import Completed, World

Document = t.Mapping[str, t.Any]

STATUS = "/var/lib/dpkg/status"
UPDATES = "/var/lib/dpkg/updates"
POLICY = "/usr/sbin/policy-rc.d"
POLICY_TEXT = b"#!/bin/sh\nexit 101\n"
RECORDS = "/run/anchorage/units"
LOCK_SECONDS = 300
LISTS_SECONDS = 3600
FETCH_ATTEMPTS = 3
_FETCH_PROBLEMS = ("fetch", "404", "unable to locate", "hash sum mismatch", "was not found", "no installation candidate")
_UNIT_DIRECTORIES = ("/etc/systemd/system/", "/usr/local/lib/systemd/system/", "/run/systemd/system/", "/usr/lib/systemd/system/")


def keys_text(keys: t.Sequence[str]) -> str:
    """Return the text of an authorized_keys file."""
    return "".join(f"{line}\n" for line in ("# Managed by anchorage.vps.host_state", *keys))


class Engine:
    """Reads and changes the host that it runs on."""

    def __init__(self, world: World, tree: Tree, *, fetch: t.Callable[..., t.Any], records: str = RECORDS, root: str = "") -> None:
        """Take hold of a host.

        :arg fetch: opens a URL, as ``open_url`` of Ansible does.
        """
        self.world = world
        self.tree = tree
        self.fetch = fetch
        self.records = records
        self.root = root
        self.manifest = root + manifest.FILES
        self.notes: list[str] = []

    # What is wanted, as entries of the tree

    def _key_entries(self, document: Document, contents: dict[str, bytes]) -> list[Entry]:
        entries: list[Entry] = []
        for user in document["users"]:
            if user.get("authorized_keys") is None:
                continue
            try:
                known = pwd.getpwnam(user["name"])
                home, group = known.pw_dir, _group_name(known.pw_gid)
            except KeyError:
                home, group = user.get("home") or f"/home/{user['name']}", user.get("group") or user["name"]
            owner = {"owner": user["name"], "group": group, "home": home, "secret": False}
            content = keys_text(user["authorized_keys"]).encode()
            path = f"{home}/.ssh/authorized_keys"
            contents[path] = content
            entries.append({"kind": "directory", "path": f"{home}/.ssh", "mode": "0700", **owner})
            entries.append({"kind": "file", "path": path, "mode": "0600", "sha256": hashlib.sha256(content).hexdigest(), **owner})
        return entries

    def entries(self, document: Document, contents: dict[str, bytes]) -> list[Entry]:
        """Return everything of the document that lies in the tree; what it generates itself is put into ``contents``."""
        keys = self._key_entries(document, contents)
        wanted = [entry["path"] for kind in ("directories", "files", "links") for entry in document[kind]]
        wanted += [entry["path"] for entry in keys]
        return [
            *({"kind": "absent", "path": path, "secret": self.tree.is_private(path)} for path in self.tree.removable(document["absent"], wanted)),
            *({"kind": "directory", "secret": False, **entry} for entry in document["directories"]),
            *keys,
            *({"kind": "file", **entry} for entry in document["files"]),
            *({"kind": "link", "secret": False, **entry} for entry in document["links"]),
        ]

    def _repository_entries(self, document: Document, contents: dict[str, bytes], *, fetch: bool) -> list[Entry]:
        entries = []
        for repository in document["repositories"]:
            path = repositories.sources_path(repository["name"])
            on_disk = self.tree.text(path)
            text = repositories.wanted_sources(repository, on_disk)
            if text is None and fetch:
                text = repositories.render_sources(repository, self._fetched_key(repository))
            if text is None:
                text = repositories.render_sources(repository, None) + f"Signed-By: (the key is fetched from {repository['signed_by']})\n"
            content = text.encode()
            contents[path] = content
            entries.append(
                {
                    "kind": "file",
                    "path": path,
                    "owner": "root",
                    "group": "root",
                    "mode": "0644",
                    "secret": False,
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            )
        return entries

    def _fetched_key(self, repository: t.Mapping[str, t.Any]) -> str:
        url = repository["signed_by"].strip()
        try:
            with contextlib.closing(self.fetch(url, timeout=30)) as answer:
                raw = answer.read(1 << 20)
        except (OSError, ValueError) as error:
            raise AnchorageError(
                f"repositories: the key of {repository['name']} could not be read from {url}: {error}",
                live="no repository was changed",
                next_step="check the address and the way to it from the host, or give the key itself in signed_by",
            ) from error
        return repositories.checked_key(raw, repository["fingerprint"], f"repository {repository['name']}")

    # Reading

    def read(self, document: Document, *, check: bool = False, texts: bool = False, offered: t.Mapping[str, str] | None = None) -> dict[str, t.Any]:
        """Return what is off.

        :arg check: predict only; nothing is remembered and units are judged as if the files were already there.
        :arg texts: give the present text of files that will change, for a diff.
        :arg offered: contents of the files, as apply() takes them: where nothing but files and units is off, that is put right at once.
        :returns: with C(applied), what apply() returned, in that case.
        """
        answer: dict[str, t.Any] = {
            "packages": self._packages(document),
            "groups": self._groups(document),
            "users": self._users(document),
        }
        contents: dict[str, bytes] = {}
        sources = self._repository_entries(document, contents, fetch=False)
        answer["repositories"] = self._changes(sources, texts, contents)
        entries = self.entries(document, contents)
        answer["tree"] = self._changes(entries, texts, contents)
        answer["strays"] = self.tree.strays(entries)
        answer["units"] = self._units(document, [change["path"] for change in answer["tree"]] if check else [])
        if not check:
            self._remember(document, answer["units"], {})
            off = {change["path"] for change in (*answer["tree"], *answer["repositories"])}
            manifest.remember(self.world, [entry for entry in (*sources, *entries) if entry["path"] not in off], path=self.manifest)
            named = [entry["path"] for entry in entries if entry["kind"] != "absent"]
            manifest.forget(self.world, document["absent"], named, lambda path: self.tree.observe(path, digest=False) is None, path=self.manifest)
        answer["validators"] = [entry["name"] for entry in self._validators(document, [change["path"] for change in answer["tree"]])]
        if document["confirm"] is not None:
            answer["confirm"] = confirmation.state(document["confirm"]["name"], self.world)
        answer["notes"] = self.notes
        if offered is not None and not check and self._is_small(answer):
            answer["applied"] = self.apply(document, offered, act=True)
        return answer

    @staticmethod
    def _is_small(answer: t.Mapping[str, t.Any]) -> bool:
        """Tell whether files or units are off, and nothing that other modules have to do first."""
        packages, unit_state = answer["packages"], answer["units"]
        before = (
            any(packages.get(key) for key in ("missing", "present", "broken", "policy_left")) or answer["repositories"] or answer["groups"] or answer["users"]
        )
        off = answer["tree"] or answer["strays"] or unit_state["daemon_reload"] or unit_state["off"] or unit_state["unknown"]
        return bool(off) and not before and answer.get("confirm") != "pending"

    def _packages(self, document: Document) -> dict[str, t.Any]:
        if not document["packages"] and not document["packages_absent"] and not document["repositories"]:
            return {"missing": {}, "present": {}, "broken": []}
        known = dpkg.parse_status((self.world.read(self.root + STATUS) or b"").decode("utf-8", "replace"))
        broken = dpkg.broken(known)
        if not broken and [name for name in self.world.listdir(self.root + UPDATES) if name.isdigit()]:
            broken = ["(dpkg's own journal)"]
        return {
            "missing": dpkg.missing(known, document["packages"]),
            "present": dpkg.present(known, document["packages_absent"]),
            "broken": broken,
            "policy_left": self.world.read(self.root + POLICY) == POLICY_TEXT,
            "lists_old": self._lists_old(),
        }

    def _lists_old(self) -> bool:
        """Tell whether a repository was described after the lists were last fetched (an earlier run may have died between)."""

        def newest(paths: t.Iterable[str]) -> float:
            times = [os.stat(path).st_mtime for path in paths if os.path.exists(path)]
            return max(times, default=0.0)

        base = f"{self.root}/etc/apt"
        sources = [f"{base}/sources.list.d/{name}" for name in self.world.listdir(f"{base}/sources.list.d")]
        lists = f"{self.root}/var/lib/apt"
        return newest([f"{base}/sources.list", *sources]) > newest([f"{lists}/periodic/update-success-stamp", f"{lists}/lists/partial"])

    @staticmethod
    def _groups(document: Document) -> list[dict[str, t.Any]]:
        off = []
        for wanted in document["groups"]:
            try:
                gid = grp.getgrnam(wanted["name"]).gr_gid
            except KeyError:
                off.append({"name": wanted["name"], "before": None, "after": "present"})
                continue
            if wanted["gid"] is not None and wanted["gid"] != gid:
                off.append({"name": wanted["name"], "before": {"gid": gid}, "after": {"gid": wanted["gid"]}})
        return off

    def _users(self, document: Document) -> list[dict[str, t.Any]]:
        off = []
        for wanted in document["users"]:
            try:
                known = pwd.getpwnam(wanted["name"])
            except KeyError:
                off.append({"name": wanted["name"], "before": None, "after": "present"})
                continue
            before: dict[str, t.Any] = {}
            after: dict[str, t.Any] = {}
            group = _group_name(known.pw_gid)
            for key, is_now in (("group", group), ("home", known.pw_dir), ("shell", known.pw_shell)):
                if wanted[key] and wanted[key] != is_now:
                    before[key], after[key] = is_now, wanted[key]
            member = {entry.gr_name for entry in grp.getgrall() if wanted["name"] in entry.gr_mem} | {group}
            if set(wanted["groups"]) - member:
                before["groups"], after["groups"] = sorted(member), sorted(member | set(wanted["groups"]))
            if wanted["create_home"] and not os.path.isdir(known.pw_dir):
                before["create_home"], after["create_home"] = False, True
            if wanted["password_lock"] is not None:
                locked = self._locked(wanted["name"])
                if locked != wanted["password_lock"]:
                    before["password_lock"], after["password_lock"] = locked, wanted["password_lock"]
            if after:
                off.append({"name": wanted["name"], "before": before, "after": after})
        return off

    def _locked(self, name: str) -> bool:
        for line in (self.world.read("/etc/shadow") or b"").decode("utf-8", "replace").splitlines():
            user, _colon, rest = line.partition(":")
            if user == name:
                return rest.startswith(("!", "*"))
        return False

    def _changes(self, entries: t.Sequence[Entry], texts: bool, contents: t.Mapping[str, bytes]) -> list[dict[str, t.Any]]:
        changes = []
        for entry in entries:
            off = self.tree.off(entry)
            if off is None:
                continue
            change = {"kind": entry["kind"], "path": entry["path"], "secret": entry["secret"], **off}
            if texts and entry["kind"] in ("file", "absent") and not entry["secret"]:
                change["text"] = self.tree.text(entry["path"])
                if entry["path"] in contents:
                    change["new_text"] = contents[entry["path"]].decode("utf-8", "replace")
            changes.append(change)
        return changes

    # Units

    def _show(self, names: t.Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        done = self.world.run(["systemctl", "show", f"--property={','.join(units.PROPERTIES)}", "--", *names], timeout=60)
        if done.rc != 0:
            raise AnchorageError(f"systemctl show failed: {(done.stderr or done.stdout).strip()}", next_step="see whether systemd runs on the host")
        return units.parse_show(done.stdout, names)

    def _on_disk(self, patterns: t.Iterable[str]) -> units.Files:
        files: units.Files = {}
        for path in sorted({path for pattern in patterns for path in self.tree.expand(pattern)}):
            real = self.tree.real(path)
            try:
                status = os.stat(real)
                if not stat.S_ISREG(status.st_mode):
                    continue
                newest = max(status.st_mtime, os.lstat(real).st_mtime)
                files[path] = [self.tree.digest(path), newest]
            except OSError:
                if os.path.islink(real):
                    files[path] = [f"dangling {os.readlink(real)}", os.lstat(real).st_mtime]
        return files

    def _record(self, name: str) -> dict[str, t.Any] | None:
        raw = self.world.read(f"{self.records}/{name}.json")
        try:
            record = json.loads(raw) if raw else None
        except ValueError:
            return None
        return record if isinstance(record, dict) else None

    def _units(self, document: Document, planned: t.Sequence[str]) -> dict[str, t.Any]:
        shown = self._show([unit["name"] for unit in document["units"]])
        off, unknown, remember = [], [], []
        reload_needed = any(properties.get("NeedDaemonReload") == "yes" for properties in shown.values())
        for unit in document["units"]:
            properties = shown.get(unit["name"], {})
            if properties.get("LoadState") == "not-found":
                if unit["enabled"] or unit["state"] == "started" or unit["masked"]:
                    unknown.append(unit["name"])
                continue
            if units.skipped(properties) and (unit["state"] == "started" or unit["restart_on"] or unit["reload_on"]):
                note = f"{unit['name']} is skipped by its own conditions on this host"
                self.notes += [note] if note not in self.notes else []
            since = self.world.now() - self.world.monotonic() + float(properties.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
            record = self._record(unit["name"])
            old: dict[str, list[str]] = {}
            for key in ("restart", "reload"):
                patterns = unit[f"{key}_on"]
                loaded = units.loaded_by(record, properties, key)
                old[key] = units.stale(self._on_disk(patterns), loaded, since) if patterns else []
                old[key] += [path for path in planned if path not in old[key] and any(matches(pattern, path) for pattern in patterns)]
            change = units.plan(unit, properties, old["restart"], old["reload"])
            if change is not None:
                off.append({"name": unit["name"], **change})
            elif properties.get("ActiveState") == "active" and units.loaded_by(record, properties, "restart") is None:
                remember.append(unit["name"])
        return {"off": off, "unknown": unknown, "daemon_reload": reload_needed, "remember": remember}

    def _remember(self, document: Document, seen: t.Mapping[str, t.Any], acted: t.Mapping[str, str]) -> None:
        """Record what running units have loaded. The records are volatile: they end with the boot, as the units do."""
        names = [*seen.get("remember", []), *acted]
        wanted = [unit for unit in document["units"] if unit["name"] in names and (unit["restart_on"] or unit["reload_on"])]
        if not wanted:
            return
        os.makedirs(self.records, mode=0o700, exist_ok=True)
        shown = self._show([unit["name"] for unit in wanted])
        for unit in wanted:
            properties = shown.get(unit["name"], {})
            if properties.get("ActiveState") != "active":
                continue
            record: dict[str, t.Any] = {"invocation": properties.get("InvocationID", "")}
            for key in ("restart", "reload"):
                record[key] = {path: found[0] for path, found in self._on_disk(unit[f"{key}_on"]).items()}
            if acted.get(unit["name"]) == "reloaded":
                kept = units.loaded_by(self._record(unit["name"]), properties, "restart")
                record["restart"] = record["restart"] if kept is None else dict(kept)
            self.world.write_atomic(f"{self.records}/{unit['name']}.json", json.dumps(record).encode(), mode=0o600)

    def _forget(self, document: Document, paths: t.Sequence[str]) -> None:
        """Mark in the records what is about to change, so that no unit passes for having loaded it, whatever happens next."""
        for unit in document["units"]:
            record = self._record(unit["name"])
            if record is None:
                continue
            marked = False
            for key in ("restart", "reload"):
                touched = [path for path in paths if any(matches(pattern, path) for pattern in unit[f"{key}_on"])]
                record.setdefault(key, {}).update(dict.fromkeys(touched, "changed"))
                marked = marked or bool(touched)
            if marked:
                self.world.write_atomic(f"{self.records}/{unit['name']}.json", json.dumps(record).encode(), mode=0o600)

    # Acting

    def heal(self) -> dict[str, t.Any]:
        """Finish what an interrupted dpkg left, once no other package manager runs."""
        known = dpkg.parse_status((self.world.read(STATUS) or b"").decode("utf-8", "replace"))
        before = dpkg.broken(known)
        with _frontend_lock(self.world):
            if self.world.read(POLICY) == POLICY_TEXT:
                os.unlink(POLICY)
            left = [name for name in self.world.listdir(UPDATES) if name.isdigit()]
            known = dpkg.parse_status((self.world.read(STATUS) or b"").decode("utf-8", "replace"))
            if not left and not dpkg.broken(known):
                return {"changed": False, "before": before}
            first = self.world.run(
                ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C", "DPKG_FRONTEND_LOCKED": "1"},
                timeout=1800,
            )
        second = self._apt("--fix-broken", "install")
        known = dpkg.parse_status((self.world.read(STATUS) or b"").decode("utf-8", "replace"))
        if second.rc != 0 or dpkg.broken(known):
            output = (second.stderr or second.stdout or first.stderr).strip()[-2000:]
            raise AnchorageError(
                f"dpkg was interrupted earlier and could not be healed: {output}",
                what="dpkg --configure -a, then apt-get -f install",
                next_step=f"repair {', '.join(dpkg.broken(known)) or 'the packages'} by hand, then run it again",
            )
        return {"changed": True, "before": before}

    def packages(self, missing: t.Sequence[str], unwanted: t.Sequence[str], *, refresh: bool) -> dict[str, t.Any]:
        """Install and remove packages, each kind in one transaction; no service is started by it.

        :arg missing: names, or C(name=version) where the version may hold wildcards.
        :arg refresh: whether the lists of packages must be fetched anew, however old they are.
        """
        before = self.world.read(self.root + POLICY)
        self.world.write_atomic(self.root + POLICY, POLICY_TEXT, mode=0o755)
        try:
            with _signals_raise():
                if missing:
                    self._install_packages(missing, refresh=refresh)
                if unwanted:
                    done = self._apt("remove", *unwanted)
                    if done.rc != 0:
                        raise self._apt_failed("removed", unwanted, done.stderr)
        finally:
            if before in (None, POLICY_TEXT):
                self.world.remove(self.root + POLICY)
            else:
                self.world.write_atomic(self.root + POLICY, t.cast(bytes, before), mode=0o755)
        return {"changed": True}

    def _install_packages(self, missing: t.Sequence[str], *, refresh: bool) -> None:
        complaint = self._fetch_lists() if refresh or self._lists_age() > LISTS_SECONDS else None
        done = self._apt("--no-install-recommends", "install", *map(self._exact, missing))
        stale = any(word in done.stderr.lower() for word in _FETCH_PROBLEMS)
        if done.rc != 0 and stale and complaint is None:
            complaint = self._fetch_lists()
            done = self._apt("--no-install-recommends", "install", *map(self._exact, missing))
        if done.rc != 0:
            raise self._apt_failed("installed", missing, f"{done.stderr}{complaint or ''}")

    def _apt(self, *arguments: str) -> Completed:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_MODE": "l", "LC_ALL": "C"}
        options = [f"DPkg::Lock::Timeout={LOCK_SECONDS}", "Dpkg::Options::=--force-confdef", "Dpkg::Options::=--force-confold"]
        return self.world.run(
            ["apt-get", "--quiet", "--yes", *(word for option in options for word in ("-o", option)), *arguments], env=environment, timeout=1800
        )

    def _fetch_lists(self) -> str | None:
        """Fetch the lists of packages. Returns what apt complained of; another repository's fault need not keep ours from working."""
        deadline = self.world.monotonic() + LOCK_SECONDS
        for attempt in range(1, 1000):
            done = self._apt("-o", "APT::Update::Error-Mode=any", "update")
            if done.rc == 0:
                return None
            locked = "could not get lock" in done.stderr.lower()
            if self.world.monotonic() > deadline or (attempt >= FETCH_ATTEMPTS and not locked):
                break
            self.world.sleep(2)
        return done.stderr

    def _lists_age(self) -> float:
        """Return how many seconds ago the lists were fetched; for ever where there are none."""
        lists = f"{self.root}/var/lib/apt/lists"
        times = [os.stat(f"{lists}/{name}").st_mtime for name in self.world.listdir(lists) if name.endswith(("_InRelease", "_Release"))]
        stamp = f"{self.root}/var/lib/apt/periodic/update-success-stamp"
        if times and os.path.exists(stamp):
            times.append(os.stat(stamp).st_mtime)
        return self.world.now() - max(times) if times else float("inf")

    def _exact(self, wish: str) -> str:
        """Return a wish with the newest version that fits its wildcards; apt-get itself takes exact ones."""
        name, _equals, version = wish.partition("=")
        if not any(letter in version for letter in "*?["):
            return wish
        done = self.world.run(["apt-cache", "madison", name], timeout=120)
        found = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.count("|") >= 2]
        return next((f"{name}={candidate}" for candidate in found if fnmatch.fnmatchcase(candidate, version)), wish)

    @staticmethod
    def _apt_failed(verb: str, names: t.Sequence[str], stderr: str) -> AnchorageError:
        lines = [line for line in stderr.splitlines() if line.startswith(("E:", "W:"))] or stderr.strip().splitlines()[-3:]
        return AnchorageError(
            f"apt-get: {', '.join(names)} could not be {verb}: {' '.join(lines)[-1500:]}",
            live="what was installed before",
            next_step="correct packages or repositories as apt says, then run it again",
        )

    def repositories(self, document: Document) -> dict[str, t.Any]:
        """Write the repositories' files, keys fetched and checked first."""
        contents: dict[str, bytes] = {}
        entries = self._repository_entries(document, contents, fetch=True)
        changes = self._changes(entries, False, contents)
        self._install([entry for entry in entries if entry["path"] in {change["path"] for change in changes}], contents, [])
        manifest.remember(self.world, entries, path=self.manifest)
        return {"changes": changes}

    def _validators(self, document: Document, paths: t.Sequence[str]) -> list[dict[str, t.Any]]:
        return [entry for entry in document["validate"] if any(matches(pattern, path) for pattern in entry["when_changed"] for path in paths)]

    def apply(self, document: Document, encoded: t.Mapping[str, str], *, act: bool = False, check: bool = False) -> dict[str, t.Any]:
        """Bring the tree into its state: validated together, installed together, or left as it was.

        :arg encoded: path to base64 of the files that were off when the host was read.
        :arg act: bring the units into theirs afterwards, unless that must be confirmed by a new connection.
        :arg check: stop after the validation.
        """
        contents = {path: base64.b64decode(text) for path, text in encoded.items()}
        entries = self.entries(document, contents)
        changes = self._changes(entries, False, contents)
        paths = [change["path"] for change in changes]
        off = [entry for entry in entries if entry["path"] in paths]
        validators = self._validators(document, paths)
        fallback = self._validate(off, contents, validators, check=check)
        if check:
            return {"changes": changes, "notes": self.notes}
        confirm = document["confirm"]
        risky = [path for path in paths if confirm is not None and any(matches(pattern, path) for pattern in confirm["paths"])]
        if risky:
            confirmation.arm(confirm, risky, self.world)
        for stray in self.tree.strays(entries):
            _remove_stray(self.tree.real(stray))
        self._forget(document, paths)
        try:
            self._install(off, contents, validators if fallback else [])
        except BaseException:
            if risky:
                confirmation.disarm(confirm["name"], self.world)
            raise
        manifest.remember(self.world, entries, path=self.manifest)
        reloaded = any(path.startswith(_UNIT_DIRECTORIES) for path in paths) or self._units(document, [])["daemon_reload"]
        if reloaded:
            done = self.world.run(["systemctl", "daemon-reload"], timeout=120)
            if done.rc != 0:
                raise AnchorageError(f"systemctl daemon-reload failed: {done.stderr.strip()}", live="the new files are installed")
        answer = {"changes": changes, "daemon_reload": reloaded, "armed": bool(risky)}
        answer.update(self.act(document, settle=True) if act and not risky else {})
        return {**answer, "notes": self.notes}

    def act(self, document: Document, *, settle: bool) -> dict[str, t.Any]:
        """Bring the units into their state, one after the other; the first that does not follow ends it.

        :arg settle: then see that they run, and remember what they have loaded.
        :returns: C(acted), what was done in order, and C(failure), None where all is well.
        """
        seen = self._units(document, [])
        acted: list[dict[str, t.Any]] = []
        try:
            if seen["unknown"]:
                raise AnchorageError(
                    f"host_state: the unit {seen['unknown'][0]} does not exist on the host",
                    live="packages and files are as described",
                    next_step="correct units, or name the package or file that brings the unit",
                )
            for unit in seen["off"]:
                self._command(unit)
                acted.append(unit)
            if settle and acted:
                self.settle(document, done_to(acted), confirmed=False)
        except AnchorageError as error:
            log = error.details.get("log")
            return {"acted": acted, "failure": {"msg": error.text(), "error": error.as_dict(), **({"log": log} if log else {})}}
        return {"acted": acted, "failure": None}

    def _command(self, unit: t.Mapping[str, t.Any]) -> None:
        for command in units.commands(unit["name"], unit["after"]):
            done = self.world.run(command)
            if done.rc != 0:
                raise AnchorageError(
                    f"host_state: systemctl {command[3]} {unit['name']} failed: {' '.join((done.stderr or done.stdout).split())[:600]}",
                    live="the new files are installed; the unit is not as described",
                    next_step=f"read `journalctl -u {unit['name']}` on the host",
                    log=self.log(unit["name"])["log"],
                )

    def _validate(self, off: t.Sequence[Entry], contents: t.Mapping[str, bytes], validators: list[dict[str, t.Any]], *, check: bool) -> bool:
        """Validate on a staged tree; return whether that could not be done here."""
        if not off or not validators:
            return False
        try:
            failed = stage.validate_staged(off, contents, validators)
        except stage.Unstageable as error:
            if check:
                names = ", ".join(validator["name"] for validator in validators)
                self.notes.append(f"not predicted: {names}, because no staged tree can be made on this host ({error})")
            return True
        self._judge(failed)
        return False

    @staticmethod
    def _judge(failed: t.Sequence[dict[str, t.Any]]) -> None:
        if not failed:
            return
        first = failed[0]
        raise AnchorageError(
            f"validate: {first['name']} refuses the new files (rc {first['rc']}): {first['output']}",
            what=" ".join(first["command"]),
            live="every file is as it was",
            next_step="correct what the message names, then run it again",
            validators=[entry["name"] for entry in failed],
        )

    def _install(self, off: t.Sequence[Entry], contents: t.Mapping[str, bytes], validators: list[dict[str, t.Any]]) -> None:
        if not off:
            return
        transaction = Transaction(self.tree)
        with _signals_raise():
            try:
                transaction.prepare(off, contents)
                transaction.install(off)
                self._judge(stage.run_validators(validators, self.world))
            except BaseException as error:
                transaction.undo()
                if isinstance(error, OSError):
                    raise AnchorageError(f"the files could not be installed: {error}", live="every file is as it was") from error
                raise
            transaction.commit()

    def settle(self, document: Document, acted: t.Mapping[str, str], *, confirmed: bool) -> dict[str, t.Any]:
        """Confirm, remember what the units have loaded now, and see that they still run.

        :arg acted: unit to what was done to it, as done_to() returns it.
        """
        names = [name for name, verb in acted.items() if verb in ("started", "restarted", "reloaded")]
        shown = self._show(names)
        dead = {name: shown[name] for name in names if shown[name].get("ActiveState") == "failed"}
        if dead:
            name = sorted(dead)[0]
            raise AnchorageError(
                f"{name} was {acted[name]} and has failed since ({dead[name].get('Result', 'no result')})",
                live="the new files are installed; the unit does not run",
                next_step=f"read `journalctl -u {name}` on the host",
                log=self.log(name)["log"],
            )
        if confirmed:
            confirmation.disarm(document["confirm"]["name"], self.world)
        seen = self._units(document, [])
        self._remember(document, seen, acted)
        return {"units": seen}

    def log(self, name: str) -> dict[str, t.Any]:
        """Return the last words of a unit."""
        done = self.world.run(["journalctl", "--unit", name, "--lines", "15", "--no-pager", "--output", "cat"], timeout=30)
        return {"log": done.stdout.strip()[-2000:]}

    def go_back(self, document: Document) -> dict[str, t.Any]:
        """Put the risky files back now, if that has not happened yet."""
        name = document["confirm"]["name"]
        if confirmation.state(name, self.world) == "pending":
            confirmation.go_back(name, self.world)
        return {"confirm": confirmation.state(name, self.world)}


def done_to(acted: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, str]:
    """Return what was done, by unit, as settle() wants to know it."""
    return {unit["name"]: unit["after"].get("state", "described") for unit in acted}


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _remove_stray(path: str) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        os.unlink(path)


@contextlib.contextmanager
def _signals_raise() -> t.Iterator[None]:
    """Turn the signals of a dying controller into an exception, so that the transaction goes back."""

    def stop(number: int, _frame: t.Any) -> None:
        raise SystemExit(f"stopped by signal {number}")

    caught = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _frontend_lock(world: World) -> t.Iterator[None]:
    """Hold the lock that apt and dpkg take, waiting for whoever has it."""
    deadline = world.monotonic() + LOCK_SECONDS
    with open("/var/lib/dpkg/lock-frontend", "a", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if world.monotonic() > deadline:
                    raise AnchorageError(
                        f"another package manager has held dpkg's lock for {LOCK_SECONDS} s",
                        next_step="see what it is with `fuser -v /var/lib/dpkg/lock-frontend`",
                    ) from error
                world.sleep(1)
        yield
