# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the tree that a release stands on: fetch, install what the lock file says, compile, and keep the result whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import posixpath
import pwd
import shutil
import stat
import tarfile
import typing as t
import urllib.request

from . import memory, room
from .app import App, Log
from .errors import AnchorageError
from .layout import PATH
from .release_plan import digest, install_command, package_manager, prune_command, satisfies
from .world import World, fsync_directory

MANIFEST = room.MANIFEST


def replace_directory(world: World, staging: str, target: str) -> None:
    """Put a directory in another one's place, which is never away: a host that goes down meanwhile starts from it."""
    aside = f"{target}.old"
    shutil.rmtree(aside, ignore_errors=True)
    if not os.path.isdir(target):
        os.rename(staging, target)
    elif world.exchange(staging, target):
        aside = staging
    else:
        os.rename(target, aside)
        os.rename(staging, target)
    fsync_directory(os.path.dirname(target))
    shutil.rmtree(aside, ignore_errors=True)


def sync_tree(app: App, path: str) -> None:
    """Bring a tree to the disk before a name points at it (a power cut after a rename otherwise leaves empty files).

    :raises AnchorageError: when the disk does not take it.
    """
    done = app.world.run(["sync", "-f", path], timeout=600)
    if done.rc != 0:
        raise AnchorageError(f"{path} cannot be written to the disk: {done.stderr.strip()[:200]}")


def make_shared(app: App) -> None:
    """Make the directories that outlive releases, and give them to the app with all that leads there from its own.

    The app may have put links in place of them, which root must not follow; whoever put one there has made what it leads to.
    """
    user = pwd.getpwnam(app.user)
    for name in app.document["shared"]:
        place = os.open(app.layout.shared, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in posixpath.normpath(name).split("/"):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o750, dir_fd=place)
                if stat.S_ISLNK(os.stat(part, dir_fd=place, follow_symlinks=False).st_mode):
                    break
                outer, place = place, os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
                os.close(outer)
                os.fchown(place, user.pw_uid, user.pw_gid)
                os.fchmod(place, 0o750)
        finally:
            os.close(place)


def package_json(world: World, root: str, document: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what a package says of itself.

    :raises AnchorageError: when it says nothing that could be read.
    """
    name, raw = document["name"], world.read(f"{root}/package.json")
    if raw is None:
        raise AnchorageError(
            f"The source of {name} has no package.json in '{document['source'].get('subdir') or '.'}'.",
            next_step=f"Set apps.{name}.source.subdir to the package's directory.",
        )
    try:
        return t.cast("dict[str, t.Any]", json.loads(raw))
    except ValueError as error:
        raise AnchorageError(f"package.json of {name} is not JSON: {error}.") from error


class Builder:
    """Builds one tree in a work directory of its own, never inside what serves."""

    def __init__(self, app: App, log: Log, source_id: str, tree: str) -> None:
        self.app = app
        self.log = log
        self.source_id = source_id
        self.tree = tree
        self.work = app.layout.work(tree)
        self.output = os.path.normpath(app.document["build"]["output"])
        self.manager: str | None = None
        self.manager_version = ""

    def build(self) -> None:
        """Do it."""
        try:
            with room.guarded(self.work, self.app.layout.cache):
                self._fresh_work_directory()
                with self.app.timed("fetch"):
                    self._fetch()
                manifest = self._manifest()
                self._check_engines(manifest)
                self.manager = package_manager(self.app.document["package_manager"], manifest, os.listdir(self.root))
                with self.app.timed("dependencies"):
                    key = self._install()
                with self.app.timed("build"):
                    self._compile()
                with self.app.timed("keep"):
                    self._finish(key)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    @property
    def root(self) -> str:
        """The directory of the package inside the source."""
        return os.path.normpath(f"{self.work}/{self.app.document['source'].get('subdir') or '.'}")

    def _fresh_work_directory(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        user = pwd.getpwnam(self.app.user)
        os.chown(self.work, user.pw_uid, user.pw_gid)
        os.makedirs(self.app.layout.cache, exist_ok=True)
        os.chown(self.app.layout.cache, user.pw_uid, user.pw_gid)

    def _fetch(self) -> None:
        source = self.app.document["source"]
        self.log.say(f"{self.app.name}: fetch {source['kind']} {self.source_id}")
        if source["kind"] == "git":
            self._run(["git", "clone", "--quiet", "--no-checkout", "--", source["repo"], "checkout"], name="fetch", directory=self.work, seconds=600)
            checkout = f"{self.work}/checkout"
            self._run(["git", "-C", checkout, "checkout", "--quiet", "--detach", self.source_id], name="fetch", directory=self.work, seconds=300)
            shutil.rmtree(f"{checkout}/.git")
            for name in os.listdir(checkout):
                os.rename(f"{checkout}/{name}", f"{self.work}/{name}")
            os.rmdir(checkout)
            return
        archive = self.app.layout.source(self.source_id)
        if not os.path.exists(archive) and source["kind"] == "archive":
            download(source["archive"], source["sha256"], archive)
        if not os.path.exists(archive):
            raise AnchorageError(
                f"The source {self.source_id} of {self.app.name} did not reach this host ({archive} is missing).",
                next_step="Run deploy.yml again; it sends the source when it is missing.",
            )
        unpack(archive, self.work)
        user = pwd.getpwnam(self.app.user)
        for directory, _names, files in os.walk(self.work):
            os.chown(directory, user.pw_uid, user.pw_gid)
            for name in files:
                os.chown(f"{directory}/{name}", user.pw_uid, user.pw_gid, follow_symlinks=False)

    def _manifest(self) -> dict[str, t.Any]:
        return package_json(self.app.world, self.root, self.app.document)

    def _check_engines(self, manifest: dict[str, t.Any]) -> None:
        wanted = (manifest.get("engines") or {}).get("node")
        have = self.app.node_version()
        if wanted and not satisfies(have, wanted):
            raise AnchorageError(
                f"{self.app.name} wants Node '{wanted}' (engines in package.json), this host has {have}.",
                next_step="Set nodejs_version for this host and run provision.yml.",
            )

    def _environment(self) -> dict[str, str]:
        environment = {
            "PATH": f"{self.root}/node_modules/.bin:{PATH}",
            "HOME": self.app.layout.cache,
            "LANG": "C.UTF-8",
            "CI": "true",
            "npm_config_cache": f"{self.app.layout.cache}/npm",
            "npm_config_fetch_retries": "3",
            "npm_config_update_notifier": "false",
            "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0",
        }
        if self.app.extra_ca_file:
            environment["NODE_EXTRA_CA_CERTS"] = self.app.extra_ca_file
            environment["npm_config_cafile"] = self.app.extra_ca_file
        return environment

    def _run(
        self, argv: t.Sequence[str], *, name: str, directory: str, seconds: int, env: t.Mapping[str, str] | None = None, heap_mb: int | None = None
    ) -> None:
        environment = {**self._environment(), **(env or {})}
        self.log.say(f"{self.app.name}: {' '.join(argv)}")
        watch = memory.Watch(self.app.world, self.log.command)
        # Beside the work directory, which is the user's own. What a kill leaves there goes with the rest.
        path = f"{self.work}.json"
        command = self.app.sandboxed(
            path,
            argv=argv,
            cwd=directory,
            env=environment,
            writable=[self.work, self.app.layout.cache],
            memory_mb=memory.unit_limit(heap_mb),
            timeout_seconds=seconds,
            name=name,
        )
        try:
            rc = self.app.world.stream(command, watch, timeout=seconds + 60)
        finally:
            self.app.world.remove(path)
        if rc == 0:
            return
        cause = watch.cause(rc, key=f"{name}.memory_mb", heap_mb=heap_mb, limit_seconds=seconds)
        mend = "Mend the source (the command's last lines are above) and run deploy.yml again; nothing that runs was touched."
        raise AnchorageError(
            f"'{' '.join(argv)}' of {self.app.name} failed after {watch.seconds:.0f} s with code {rc}{': ' if cause else ''}{cause}.",
            what=f"step stage of {self.app.name}",
            next_step=memory.advice(self.app.name, f"{name}.memory_mb") if "memory" in cause else mend,
            output=self.log.tail[-15:],
        )

    def _install(self) -> str | None:
        if self.manager is None:
            return None
        done = self.app.world.run([self.manager, "--version"], env={**self._environment(), "PATH": PATH}, cwd=self.root, user=self.app.user, timeout=120)
        if done.rc != 0:
            raise AnchorageError(
                f"{self.app.name} is installed by {self.manager}, which this host does not have.",
                next_step=f"Add {self.manager} to nodejs_package_managers and run provision.yml.",
            )
        self.manager_version = done.stdout.strip().splitlines()[-1]
        key = self._dependencies_key()
        kept = self.app.layout.dependencies(key)
        if os.path.isdir(f"{kept}/full/node_modules") and os.path.isdir(f"{kept}/production/node_modules"):
            began = self.app.world.monotonic()
            # Only a build command reads them here; what runs has a link to them.
            if self.app.document["build"].get("command"):
                self._link_copy(f"{kept}/full/node_modules", f"{self.root}/node_modules")
            self.log.say(f"{self.app.name}: dependencies {key} are here already ({self.app.world.monotonic() - began:.1f} s)")
        else:
            room.require(self.app.layout.home, room.to_install(self.app, self.root), f"Installing the dependencies of {self.app.name}")
            self._run(install_command(self.manager, self.manager_version), name="install", directory=self.root, seconds=1800)
        return key

    def _dependencies_key(self) -> str:
        names = ("package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", ".npmrc", ".yarnrc.yml", "pnpm-workspace.yaml")
        found = {name: hashlib.sha256(self.app.world.read(f"{self.root}/{name}") or b"").hexdigest() for name in names if os.path.exists(f"{self.root}/{name}")}
        return digest({"files": found, "node": self.app.node_version(), "manager": [self.manager, self.manager_version]})

    def _link_copy(self, source: str, target: str) -> None:
        done = self.app.world.run(["cp", "-al", source, target], timeout=600)
        if done.rc != 0:
            raise AnchorageError(f"Dependencies could not be linked into the build: {done.stderr.strip()[:300]}")
        # Files are shared between the copies and stay root's; a build tool may keep its cache in the directories.
        user = pwd.getpwnam(self.app.user)
        for directory, _names, _files in os.walk(target):
            os.chown(directory, user.pw_uid, user.pw_gid)

    def _compile(self) -> None:
        build = self.app.document["build"]
        if not build.get("command"):
            return
        env = dict(build.get("env") or {})
        memory.limit_heap(env, build.get("memory_mb"))
        self._run(build["command"], name="build", directory=self.root, seconds=build["timeout_seconds"], env=env, heap_mb=build.get("memory_mb"))
        if not os.path.isdir(f"{self.root}/{self.output}"):
            raise AnchorageError(
                f"The build of {self.app.name} ended well but left no '{self.output}'.",
                next_step=f"Set apps.{self.app.name}.build.output to the directory that the build writes.",
            )

    def _finish(self, key: str | None) -> None:
        """Take the result out of the work directory: dependencies by lock file, the tree by its id, both whole or not at all."""
        user = pwd.getpwnam(self.app.user)
        built = self.app.layout.build(self.tree)
        staging = f"{built}.new"
        shutil.rmtree(staging, ignore_errors=True)
        if key is not None:
            self._keep_dependencies(key)
        result = os.path.normpath(f"{staging}/{self.output}")
        os.makedirs(os.path.dirname(result), exist_ok=True)
        os.rename(os.path.normpath(f"{self.root}/{self.output}"), result)
        if key is not None:
            shutil.rmtree(f"{result}/node_modules", ignore_errors=True)
            os.symlink(f"{self.app.layout.dependencies(key)}/production/node_modules", f"{result}/node_modules")
        make_shared(self.app)
        for name in self.app.document["shared"]:
            inside = f"{result}/{name}"
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            if os.path.islink(inside) or os.path.isfile(inside):
                os.unlink(inside)
            else:
                shutil.rmtree(inside, ignore_errors=True)
            os.symlink(f"{self.app.layout.shared}/{name}", inside)
        for pattern in self.app.document["build"].get("directories") or []:
            for parent in glob.glob(f"{glob.escape(result)}/{os.path.dirname(pattern)}"):
                missing = f"{parent}/{os.path.basename(pattern)}"
                os.makedirs(missing, mode=0o750, exist_ok=True)
                os.chown(missing, 0, user.pw_gid)
        self._own(staging, user.pw_gid)
        manifest = {"tree": self.tree, "source": self.source_id, "dependencies": key, "files": checksums(staging)}
        self.app.world.write_atomic(f"{staging}/{MANIFEST}", json.dumps(manifest, sort_keys=True).encode(), mode=0o640, uid=0, gid=user.pw_gid)
        sync_tree(self.app, staging)
        replace_directory(self.app.world, staging, built)

    def _keep_dependencies(self, key: str) -> None:
        place = self.app.layout.dependencies(key)
        if os.path.isdir(f"{place}/production/node_modules"):
            shutil.rmtree(f"{self.root}/node_modules", ignore_errors=True)
            return
        staging = f"{place}.new"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(f"{staging}/full")
        os.makedirs(f"{staging}/production")
        modules = f"{self.root}/node_modules"
        # Where there is nothing to install, or nothing is left of it, package managers leave no directory.
        self._own_directory(modules)
        self._link_copy(modules, f"{staging}/full/node_modules")
        self._run(prune_command(t.cast(str, self.manager), self.manager_version), name="prune", directory=self.root, seconds=600)
        self._own_directory(modules)
        os.rename(modules, f"{staging}/production/node_modules")
        self._own(staging, pwd.getpwnam(self.app.user).pw_gid)
        sync_tree(self.app, staging)
        os.rename(staging, place)
        fsync_directory(os.path.dirname(place))

    def _own_directory(self, path: str) -> None:
        """Make a directory that commands of the build may read and write, unless it is there."""
        if not os.path.isdir(path):
            user = pwd.getpwnam(self.app.user)
            os.mkdir(path, mode=0o750)
            os.chown(path, user.pw_uid, user.pw_gid)

    def _own(self, path: str, gid: int) -> None:
        """The app may read its release and change nothing of it."""
        for argv in (["chown", "-R", "-h", f"root:{gid}", path], ["chmod", "-R", "u=rwX,g=rX,o=", path]):
            done = self.app.world.run(argv, timeout=600)
            if done.rc != 0:
                raise AnchorageError(f"'{' '.join(argv)}' failed: {done.stderr.strip()[:300]}")


def checksums(path: str) -> dict[str, str]:
    """Return the SHA-256 of each file below a directory; links are named, not followed."""
    found = {}
    for directory, names, files in os.walk(path):
        names.sort()
        for name in sorted(files):
            full = f"{directory}/{name}"
            if os.path.islink(full):
                found[os.path.relpath(full, path)] = f"-> {os.readlink(full)}"
                continue
            sha = hashlib.sha256()
            with open(full, "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    sha.update(block)
            found[os.path.relpath(full, path)] = sha.hexdigest()
    return found


def unpack(archive: str, target: str) -> None:
    """Unpack a tar archive; a member that would leave the directory is refused before anything is written.

    An archive whose members all lie below one directory (as forges make them) is unpacked without it.
    """
    try:
        with tarfile.open(archive) as bundle:
            members = [member for member in bundle.getmembers() if posixpath.normpath(member.name) != "."]
            for member in members:
                if not _stays(member):
                    raise AnchorageError(f"The archive {archive} holds '{member.name}', which would not stay inside the release.")
                member.name = posixpath.normpath(member.name)
            tops = {member.name.split("/", 1)[0] for member in members}
            only = next(iter(tops)) if len(tops) == 1 and all(member.isdir() or "/" in member.name for member in members) else None
            for member in members:
                if only is not None:
                    member.name = member.name[len(only) + 1 :]
                if member.name:
                    member.mode = member.mode & 0o755 | 0o600
                    bundle.extract(member, target, **({"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}))
    except (tarfile.TarError, EOFError, OSError) as error:
        if room.is_full(error):
            raise
        raise AnchorageError(f"The archive {archive} cannot be unpacked: {error}.", next_step="Remove it and run deploy.yml again.") from error


def _stays(member: tarfile.TarInfo) -> bool:
    """Tell whether a member of an archive, and what it links to, lies inside the directory that it is unpacked to."""
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return False
    if member.issym():
        return not member.linkname.startswith("/") and not posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname)).startswith("..")
    return member.isreg() or member.isdir()


def download(url: str, sha256: str, target: str) -> None:
    """Fetch an archive and keep it only if its checksum is the expected one."""
    temporary = f"{target}.part"
    sha = hashlib.sha256()
    try:
        with urllib.request.build_opener().open(url, timeout=60) as answer, open(temporary, "wb") as stream:
            for block in iter(lambda: answer.read(1 << 20), b""):
                sha.update(block)
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        if sha.hexdigest() != sha256.lower():
            raise AnchorageError(
                f"{url} has the SHA-256 {sha.hexdigest()}, the contract says {sha256}.", next_step="Check the archive, then set source.sha256."
            )
        os.rename(temporary, target)
    except OSError as error:
        if room.is_full(error):
            raise
        raise AnchorageError(f"{url} cannot be fetched: {error}.", next_step="Check the URL from this host, then run deploy.yml again.") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
