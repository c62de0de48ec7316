# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings Node.js and pinned npm packages of a host to what is wanted: versioned trees, then links to them."""

from __future__ import annotations

import json
import os
import typing as t

from .errors import AnchorageError
from .node_depot import Depot
from .node_runtime import (
    check_package,
    corepack_name,
    end_of_life,
    fitting_npm,
    manifest_bins,
    newest,
    npmrc,
    parse_digest,
    platform_package,
    public_address,
    registry_name,
    release_of,
    same_digest,
    satisfies,
    verify,
    wanted_parts,
)

MARKER = ".anchorage.json"
NPM_SECONDS = 900


class Wanted(t.NamedTuple):
    """What the host's Node.js shall be."""

    source: str = "packaged"
    version: str = ""
    url: str = ""
    checksum: str = ""
    staged: str = ""
    root: str = "/opt/nodejs"
    bin_directory: str = "/usr/local/bin"
    registry: str = ""
    ca_file: str = ""
    packages: tuple[dict[str, t.Any], ...] = ()
    settings: bool = True


class ArchiveNeeded(Exception):
    """The archive lies on the controller and has to be brought first."""


class NodeHost:
    """One host's Node.js: reads what is there, installs what is missing, remembers what it did."""

    def __init__(self, depot: Depot, wanted: Wanted, *, check: bool) -> None:
        self.depot = depot
        self.wanted = wanted
        self.check = check
        self.changes: list[dict[str, str]] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.links: dict[str, str] = {}
        self.packages: list[dict[str, t.Any]] = []
        self.own_npm = ""
        self.npm_cli = ""
        self.partial = False

    def converge(self) -> dict[str, t.Any]:
        """Do what is missing and return what the host has."""
        wanted_parts(self.wanted.version)
        node = self._runtime()
        version = self._check_version(node)
        self._find_npm()
        for package in sorted(self.wanted.packages, key=lambda item: item["name"] != "npm"):
            self._package(package, node, version)
        self._settle_links()
        if self.wanted.settings:
            self._settings(node)
        return {
            "changed": bool(self.changes),
            "changes": self.changes,
            "notes": self.notes,
            "node": {"version": version, "path": node},
            "packages": self.packages,
        }

    def _change(self, kind: str, name: str, before: str, after: str) -> None:
        self.changes.append({"kind": kind, "name": name, "before": before, "after": after})

    # --- Node.js itself ---------------------------------------------------------------------------------------------

    def _runtime(self) -> str:
        """Return the path of the wanted Node.js; empty where it will only be there after a real run."""
        if self.wanted.source == "packaged":
            for path in ("/usr/bin/node", "/bin/node") if self.wanted.settings else self._search_path("node"):
                if self.depot.exists(path):
                    return path
            return ""
        tree = self._kept_tree() or self._new_tree()
        if not tree:
            return ""
        self.links["node"] = f"{tree}/bin/node"
        npm = f"{tree}/lib/node_modules/npm"
        if self.depot.exists(f"{npm}/bin/npm-cli.js"):
            self.links.update({"npm": f"{npm}/bin/npm-cli.js", "npx": f"{npm}/bin/npx-cli.js"})
        return f"{tree}/bin/node"

    def _search_path(self, name: str) -> list[str]:
        return [f"{directory}/{name}" for directory in (self.wanted.bin_directory, "/usr/local/bin", "/usr/bin", "/bin")]

    def _kept_tree(self) -> str:
        """Return the tree that is what is wanted: the present one before all others."""
        present = (self.depot.readlink(f"{self.wanted.bin_directory}/node") or "")[: -len("/bin/node")]
        others = [f"{self.wanted.root}/{name}" for name in self.depot.listdir(self.wanted.root) if not name.startswith(".")]
        trees = {tree: self._marker(tree) for tree in others}
        known = {tree: marker for tree, marker in trees.items() if marker.get("name") == "node" and self._is_wanted(marker)}
        if present in known:
            return present
        version = newest([marker["version"] for marker in known.values()], "")
        return next((tree for tree, marker in known.items() if marker["version"] == version), "")

    def _is_wanted(self, marker: dict[str, t.Any]) -> bool:
        if not satisfies(marker.get("version", ""), self.wanted.version):
            return False
        if self.wanted.checksum:
            return same_digest(marker.get("digest", ""), self.wanted.checksum)
        return self.wanted.source == marker.get("source")

    def _marker(self, tree: str) -> dict[str, t.Any]:
        try:
            found = json.loads(self.depot.read(f"{tree}/{MARKER}") or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _new_tree(self) -> str:
        """Install the wanted Node.js beside the others and return its tree."""
        wished = self.wanted.version or "of the archive"
        if self.check:
            self._change("node", self.wanted.root, "absent", wished)
            self._forecast_links("node")
            return ""
        name, url, digest = self._origin()
        if "://" not in url and not self.wanted.staged:
            raise ArchiveNeeded
        staging = self.depot.staging(self.wanted.root)
        try:
            tree = f"{staging}/tree"
            self._fetch_tree(url, digest, tree)
            version, reason = self._node_version(f"{tree}/bin/node")
            if not version:
                raise AnchorageError(
                    f"{public_address(url)} holds no bin/node that runs on this {self.depot.machine()} host: {reason}.",
                    live="nothing was installed",
                    next_step="Choose the archive for this architecture and C library, or install the library that is named.",
                )
            if not satisfies(version, self.wanted.version):
                raise AnchorageError(
                    f"{public_address(url)} holds Node.js {version}, but {self.wanted.version} is wanted.",
                    live="nothing was installed",
                    next_step="Make nodejs_version and nodejs_archive_url agree.",
                )
            self._mark(tree, {"name": "node", "version": version, "digest": digest, "source": self.wanted.source, "origin": name})
            path = f"{self.wanted.root}/{version}"
            self.depot.commit(tree, path)
        finally:
            self.depot.remove(staging)
        self._change("node", path, "absent", version)
        return path

    def _fetch_tree(self, url: str, digest: str, tree: str) -> None:
        archive = self.wanted.staged
        if not archive or "://" in url:
            archive = f"{os.path.dirname(tree)}/archive"
            self.depot.download(url, archive)
        verify(self.depot.chunks(archive), digest, what=public_address(url))
        self.depot.mkdir(tree)
        self.depot.unpack(archive, tree, strip=1)

    def _origin(self) -> tuple[str, str, str]:
        """Return name, address and digest of the archive to unpack."""
        if self.wanted.source == "archive":
            if not self.wanted.url or not self.wanted.checksum:
                raise AnchorageError("The source archive needs an address and a checksum.", next_step="Set nodejs_archive_url and nodejs_archive_sha256.")
            parse_digest(self.wanted.checksum)
            return os.path.basename(public_address(self.wanted.url)), self.wanted.url, self.wanted.checksum
        package = platform_package(self.depot.machine())
        version, url, integrity = self._registry_release(package, self.wanted.version)
        if self.wanted.checksum and not same_digest(self.wanted.checksum, integrity):
            integrity = self.wanted.checksum
        return f"{package}@{version}", url, integrity

    def _registry_release(self, package: str, version: str) -> tuple[str, str, str]:
        if not self.wanted.registry:
            raise AnchorageError(f"{package} comes from an npm registry, and none is named.", next_step="Set nodejs_registry.")
        base = self.wanted.registry.rstrip("/")
        if len(wanted_parts(version)) == 3:
            found = self.depot.document(f"{base}/{package}/{version}")
            return release_of({"versions": {version: found}}, version, package=package)
        return release_of(self.depot.document(f"{base}/{package}"), version, package=package)

    def _mark(self, tree: str, marker: dict[str, t.Any]) -> None:
        self.depot.write_atomic(f"{tree}/{MARKER}", json.dumps(marker, sort_keys=True).encode() + b"\n", mode=0o644)

    def _node_version(self, node: str) -> tuple[str, str]:
        """Return the version that a Node.js says it is, or nothing and why."""
        done = self.depot.run([node, "--version"], env={"PATH": "/usr/bin:/bin"}, timeout=30)
        if done.rc == 0:
            return done.stdout.strip().lstrip("v"), ""
        return "", (done.stderr.strip() or f"rc {done.rc}").splitlines()[-1]

    def _check_version(self, node: str) -> str:
        if not node:
            if not self.check:
                raise AnchorageError("There is no Node.js on this host.", next_step="Run the role nodejs first, and see what it says.")
            self.notes.append("not predicted: Node.js is not installed yet")
            return ""
        version, reason = self._node_version(node)
        if not version:
            raise AnchorageError(f"{node} does not run: {reason}.", next_step="Install what it misses, or take another nodejs_source.")
        if not satisfies(version, self.wanted.version):
            raise AnchorageError(
                f"{node} is Node.js {version}, but {self.wanted.version} is wanted.",
                live=f"Node.js {version} stays as it is",
                next_step="Change nodejs_version, or take another nodejs_source.",
            )
        day = end_of_life(version, self.depot.now())
        if day and self.wanted.settings:
            self.warnings.append(f"Node.js {version} has had no security updates since {day}: move to a supported major.")
        return version

    # --- npm packages -----------------------------------------------------------------------------------------------

    def _find_npm(self) -> None:
        """Find the npm that came with Node.js, and any npm that can install others."""
        packaged = ["/usr/bin/npm", "/bin/npm"] if self.wanted.source == "packaged" else []
        came = [self.links.get("npm", ""), *packaged] if self.wanted.settings else self._search_path("npm")
        self.own_npm = next((self.depot.realpath(path) for path in came if path and self.depot.exists(path)), "")
        linked = f"{self.wanted.bin_directory}/npm"
        self.npm_cli = self.own_npm or (self.depot.realpath(linked) if self.depot.exists(linked) else "")

    def _package(self, package: dict[str, t.Any], node: str, node_version: str) -> None:
        name, version, integrity = package["name"], package.get("version") or "", package.get("integrity") or ""
        if name == "npm" and not version:
            if self.own_npm:
                self.packages.append(self._described("npm", os.path.dirname(os.path.dirname(self.own_npm))))
                return
            if not node_version:
                self._change("package", f"{self.wanted.root}/tools", "absent", "an npm that fits")
                self._forecast_links(name)
                return
            version, integrity = fitting_npm(node_version)
        check_package(name, version)
        path = package.get("path") or f"{self.wanted.root}/tools/{name.lstrip('@').replace('/', '-')}-{version}"
        name = registry_name(name, version)
        inside = f"{path}/node_modules/{name}"
        if not self._is_installed(path, name, version, integrity):
            self._change("package", path, "absent", f"{name}@{version}")
            if self.check:
                if package.get("link", True):
                    self._forecast_links(package["name"])
                return
            self._install({**package, "name": name}, path, version, integrity, node)
        bins = manifest_bins(self._manifest(inside))
        if package.get("link", True):
            self.links.update({command: f"{inside}/{file}" for command, file in bins.items()})
        if name == "npm":
            self.npm_cli = f"{inside}/{bins.get('npm', 'bin/npm-cli.js')}"
        self.packages.append(self._described(name, inside))

    def _described(self, name: str, inside: str) -> dict[str, t.Any]:
        return {"name": name, "version": self._manifest(inside).get("version", ""), "path": inside}

    def _manifest(self, inside: str) -> dict[str, t.Any]:
        return json.loads(self.depot.read(f"{inside}/package.json") or b"{}")

    def _is_installed(self, path: str, name: str, version: str, integrity: str) -> bool:
        marker = self._marker(path)
        if marker.get("name") != name or marker.get("version") != version:
            return False
        return not integrity or same_digest(marker.get("digest", ""), integrity)

    def _install(self, package: dict[str, t.Any], path: str, version: str, integrity: str, node: str) -> None:
        name = package["name"]
        staging = self.depot.staging(os.path.dirname(path))
        tree = f"{staging}/tree"
        self.depot.mkdir(tree)
        try:
            if name == "npm" and self.wanted.registry:
                digest = self._unpack_npm(version, integrity, staging, tree)
            elif name == "npm" and not self.npm_cli and self._take_from_corepack(version, integrity, node, staging, tree):
                digest = integrity
            else:
                digest = self._run_npm(package, version, integrity, node, staging, tree)
            found = self._manifest(f"{tree}/node_modules/{name}")
            if found.get("version") != version:
                raise AnchorageError(f"npm installed {name} {found.get('version', 'nowhere')} where {version} was asked for.")
            for file in manifest_bins(found).values():
                self.depot.executable(f"{tree}/node_modules/{name}/{file}")
            self._mark(tree, {"name": name, "version": version, "digest": digest})
            self.depot.commit(tree, path)
        finally:
            self.depot.remove(staging)

    def _unpack_npm(self, version: str, integrity: str, staging: str, tree: str) -> str:
        """npm's tarball carries all that npm needs: no npm is needed to install it."""
        _version, url, published = self._registry_release("npm", version)
        digest = integrity or published
        self.depot.download(url, f"{staging}/archive")
        verify(self.depot.chunks(f"{staging}/archive"), digest, what=public_address(url))
        inside = f"{tree}/node_modules/npm"
        self.depot.mkdir(inside)
        self.depot.unpack(f"{staging}/archive", inside, strip=1)
        return digest

    def _take_from_corepack(self, version: str, integrity: str, node: str, staging: str, tree: str) -> bool:
        """Let corepack fetch npm, which checks a pinned digest, and take what it unpacked.

        Its cache has no documented form; returns whether npm was found in it.
        """
        environment = self._npm_environment(node, staging)
        command = [*self._npm_command("npm", version, integrity, node), "--version"]
        done = self.depot.run(command, env=environment, cwd=staging, timeout=NPM_SECONDS)
        home = environment["COREPACK_HOME"]
        found = next((path for path in (f"{home}/npm/{version}", f"{home}/v1/npm/{version}") if self.depot.exists(f"{path}/bin/npm-cli.js")), None)
        if done.rc != 0 or found is None:
            return False
        self.depot.mkdir(f"{tree}/node_modules")
        self.depot.move(found, f"{tree}/node_modules/npm")
        return True

    def _run_npm(self, package: dict[str, t.Any], version: str, integrity: str, node: str, staging: str, tree: str) -> str:
        name, lock = package["name"], package.get("lock") or ""
        manifest = {"private": True, "dependencies": {name: version}}
        self.depot.write_atomic(f"{tree}/package.json", json.dumps(manifest).encode(), mode=0o644)
        if lock:
            self.depot.write_atomic(f"{tree}/package-lock.json", lock.encode(), mode=0o644)
        command = [*self._npm_command(name, version, integrity, node), "ci" if lock else "install"]
        done = self.depot.run(command, env=self._npm_environment(node, staging), cwd=tree, timeout=NPM_SECONDS)
        if done.rc != 0:
            words = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
            raise AnchorageError(
                f"npm could not install {name} {version} (rc {done.rc}): {words}",
                live="what was installed before is untouched",
                next_step="Check the version, nodejs_registry and nodejs_extra_ca_file, then run again.",
            )
        hidden = json.loads(self.depot.read(f"{tree}/node_modules/.package-lock.json") or b"{}")
        digest = hidden.get("packages", {}).get(f"node_modules/{name}", {}).get("integrity", "")
        if integrity and not same_digest(digest, integrity):
            raise AnchorageError(
                f"The registry's {name} {version} has the integrity {digest or 'none'}, but {integrity} is pinned.",
                live="what was installed before is untouched",
                next_step="Find out why they differ before changing the pin.",
            )
        return digest

    def _npm_command(self, name: str, version: str, integrity: str, node: str) -> list[str]:
        if self.npm_cli:
            return [node, self.npm_cli]
        corepack = next((path for path in ("/usr/bin/corepack", "/usr/local/bin/corepack") if self.depot.exists(path)), "")
        if name == "npm" and corepack:
            return [corepack, corepack_name(version, integrity)]
        raise AnchorageError(
            f"{name} cannot be installed: this host has neither npm nor corepack.",
            next_step="Set nodejs_registry, from which npm is then taken.",
        )

    def _npm_environment(self, node: str, staging: str) -> dict[str, str]:
        settings = {
            "cache": f"{staging}/cache",
            "ignore_scripts": "true",
            "omit": "dev",
            "audit": "false",
            "fund": "false",
            "update_notifier": "false",
            "save_exact": "true",
            "userconfig": f"{staging}/npmrc",
            "registry": self.wanted.registry,
        }
        environment = {
            "PATH": f"{os.path.dirname(node)}:/usr/local/bin:/usr/bin:/bin",
            "HOME": staging,
            "COREPACK_HOME": f"{staging}/corepack",
            "NODE_EXTRA_CA_CERTS": self.wanted.ca_file,
            **{f"npm_config_{key}": value for key, value in settings.items()},
            **self.depot.environment(),
        }
        return {key: value for key, value in environment.items() if value}

    # --- links and settings -----------------------------------------------------------------------------------------

    def _forecast_links(self, name: str) -> None:
        self.notes.append(f"not predicted: the commands of {name}, which is not installed yet")
        self.partial = True

    def _settle_links(self) -> None:
        """Point the commands at the wanted trees; remove what points into our trees and is not wanted any more."""
        directory, ours = self.wanted.bin_directory, f"{self.wanted.root}/"
        for name in self.depot.listdir(directory):
            before = self.depot.readlink(f"{directory}/{name}") or ""
            if before.startswith(ours) and name not in self.links and not self.partial:
                self._change("link", f"{directory}/{name}", before, "absent")
                if not self.check:
                    self.depot.remove(f"{directory}/{name}")
        for name, target in self.links.items():
            path = f"{directory}/{name}"
            before = self.depot.readlink(path)
            if before == target:
                continue
            if before is None and self.depot.exists(path):
                raise AnchorageError(f"{path} is a file that this role did not make.", next_step=f"Move {path} away, then run again.")
            self._change("link", path, before or "absent", target)
            if not self.check:
                self.depot.mkdir(directory)
                self.depot.link(path, target)

    def _settings(self, node: str) -> None:
        """Write npm's settings for the whole host where this Node.js looks for them."""
        if not node:
            return
        path = f"{os.path.dirname(os.path.dirname(self.depot.realpath(node)))}/etc/npmrc"
        wanted = npmrc(self.wanted.registry, self.wanted.ca_file).encode()
        before = self.depot.read(path)
        if before == wanted or (not wanted and not (before or b"").startswith(b"; Managed by anchorage.vps.nodejs")):
            return
        self._change("file", path, "absent" if before is None else "other settings", "npm's settings" if wanted else "absent")
        if self.check:
            return
        if not wanted:
            self.depot.remove(path)
            return
        self.depot.mkdir(os.path.dirname(path))
        self.depot.write_atomic(path, wanted, mode=0o644)
