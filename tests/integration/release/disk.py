# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small file system over a directory of a host: filled to its last byte or its last inode, at once or when a step has come to a point."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import shutil
import subprocess
import typing as t

from .conftest import Host, until

#: Fills the file system of a directory; at once, or when there is something by a name, or a text in a file, and while the step that works is held.
FILL = """
import glob, json, os, signal, sys

def fill(place, what, leave):
    if what == 'inodes':
        os.makedirs(place + '/many', exist_ok=True)
        for number in range(os.statvfs(place).f_favail - leave):
            open(f'{place}/many/{number}', 'w').close()
        return
    unit = os.statvfs(place).f_frsize
    with open(place + '/ballast', 'ab') as stream:
        size = os.statvfs(place).f_bavail * unit - leave
        while size >= unit:
            try:
                os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, size)
                size = os.statvfs(place).f_bavail * unit - leave
            except OSError:
                size //= 2

def there(name, text):
    return glob.glob(name) if not text else any(text in open(path).read() for path in glob.glob(name))

place, what, leave = sys.argv[1], sys.argv[2], int(sys.argv[3])
if len(sys.argv) == 4:
    fill(place, what, leave)
    raise SystemExit
while not there(*sys.argv[4:]):
    pass
pid = json.load(open('/var/lib/anchorage/alpha/step.json'))['pid']
os.kill(pid, signal.SIGSTOP)
try:
    fill(place, what, leave)
finally:
    os.kill(pid, signal.SIGCONT)
    open('/run/filled', 'w').close()
"""


WAIT = ("systemd-run", "--quiet", "--collect", "--unit=fill-the-disk")


class Disk:
    """One file system of a few megabytes, mounted over a directory whose content it takes along, there and back again."""

    def __init__(self, host: Host, place: str, file: pathlib.Path, *, mib: int, inodes: int) -> None:
        self.host, self.place, self.file, self.mib, self.inodes = host, place, file, mib, inodes
        self.loop = ""

    def mount(self) -> None:
        """Put it over the directory."""
        self._run(
            f"mkdir -p /mnt/small && {self._mount()} /mnt/small && cp -a {self.place}/. /mnt/small/ && rm -rf /mnt/small/lost+found && "
            f"mount --bind /mnt/small {self.place} && umount -l /mnt/small"
        )
        assert self.host.shell(f"stat -f -c %T {self.place}").strip() in ("ext2/ext3", "tmpfs")

    def unmount(self) -> None:
        """Take it away; what lies on it comes back to the directory below."""
        parent, name = os.path.split(self.place)
        self.free()
        self._run(
            f"mkdir -p /mnt/below && mount --bind {parent} /mnt/below && find /mnt/below/{name} -mindepth 1 -delete && "
            f"cp -a {self.place}/. /mnt/below/{name}/ && umount /mnt/below && umount -l {self.place}"
        )
        if self.loop:
            subprocess.run(["losetup", "--detach", self.loop], check=True)
        self.file.unlink(missing_ok=True)

    def _mount(self) -> str:
        """Return the command that mounts it, but for the directory: ext4 in a file of this machine where that can be had, else a tmpfs."""
        in_memory = f"mount -t tmpfs -o size={self.mib}m,nr_inodes={self.inodes},mode=0755 tmpfs"
        if os.geteuid() != 0 or not shutil.which("mkfs.ext4") or not shutil.which("losetup"):
            return in_memory
        with self.file.open("wb") as stream:
            stream.truncate(self.mib << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", "-N", str(self.inodes), str(self.file)], check=True)
        found = subprocess.run(["losetup", "--find", "--show", str(self.file)], capture_output=True, text=True, check=False)
        if found.returncode != 0:
            return in_memory
        self.loop = found.stdout.strip()
        node = f"/dev/anchorage-{os.path.basename(self.loop)}"
        number = os.stat(self.loop).st_rdev
        self._run(f"rm -f {node}; mknod -m 600 {node} b {os.major(number)} {os.minor(number)}")
        return f"mount -t ext4 {node}"

    def _run(self, script: str) -> None:
        """Run a script in the host's mount namespace, with this machine's rights to devices where it has them."""
        if os.geteuid() != 0:
            self.host.shell(script)
            return
        asked = ["docker", "inspect", "--format={{.State.Pid}}", self.host.facts["lab_container"]]
        pid = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        done = subprocess.run(["nsenter", f"--target={pid}", "--mount", "--pid", "--", "sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"

    def fill(self, what: str = "bytes", leave: int = 0) -> None:
        """Fill it now."""
        self.host.shell(f"python3 - {self.place} {what} {leave}", given=FILL)

    @contextlib.contextmanager
    def filled_at(self, pattern: str, text: str = "", *, what: str = "bytes", leave: int = 0) -> t.Iterator[None]:
        """Fill it as soon as there is something by that name, or that text in it, while a step works."""
        self.host.shell("rm -f /run/filled; cat > /run/fill.py", given=FILL)
        self.host.shell(shlex.join([*WAIT, "python3", "/run/fill.py", self.place, what, str(leave), pattern, text]))
        try:
            yield
            until(lambda: self.host.shell("ls /run/filled || true").strip() == "/run/filled", "the disk to be filled", 5)
        finally:
            self.host.shell("systemctl stop fill-the-disk.service || true")

    def free(self) -> None:
        """Make room again."""
        self.host.shell(f"rm -rf {self.place}/ballast {self.place}/many")
