# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only object of the engine that touches clock, processes and files. Tests hand in another one."""

from __future__ import annotations

# pylint: disable=ansible-bad-function  # the engine runs without Ansible on the host, where there is no run_command
import contextlib
import ctypes
import errno
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import typing as t


class Completed(t.NamedTuple):
    """What a finished command left behind."""

    rc: int
    stdout: str
    stderr: str


#: Of renameat2(2), which Python does not know: paths count from the working directory; both names stay, and change what they name.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def fsync_directory(path: str) -> None:
    """Make names that were created, renamed or removed in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class World:
    """Clock, processes and files of the machine this runs on."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""
        return time.monotonic()

    def machine(self) -> str:
        """Return what the kernel calls this kind of machine."""
        return os.uname().machine

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def run(
        self,
        argv: t.Sequence[str],
        *,
        input: str | None = None,
        env: t.Mapping[str, str] | None = None,
        timeout: float | None = None,
        cwd: str | None = None,
        user: str | None = None,
    ) -> Completed:
        """Run a command without a shell and return what it left.

        :arg input: text for its standard input; without it the input is closed, so nothing can prompt.
        :arg env: its whole environment; without it the present one.
        :arg timeout: seconds after which its process group is killed; the return code is then 124.
        :arg user: run as this user, without its login environment.
        """
        command = list(argv)
        if user is not None and pwd.getpwnam(user).pw_uid != os.geteuid():
            command = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--init-groups", "--", *command]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if env is None else dict(env),
                cwd=cwd,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return Completed(127, "", f"{command[0]}: {error.strerror}")
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            return Completed(124, stdout, f"{stderr}\nkilled after {timeout:g} s")
        return Completed(process.returncode, stdout, stderr)

    def converse(self, argv: t.Sequence[str], *, env: t.Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a command that is talked to line by line; the caller ends it."""
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            text=True,
            bufsize=1,
        )

    def output(self, argv: t.Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command with closed input whose output is read as bytes; the caller ends it, best as a context."""
        return subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def stream(self, argv: t.Sequence[str], on_line: t.Callable[[str], None], *, timeout: float | None = None) -> int:
        """Run a command with closed input, hand on its lines as they come (errors too), and return its code.

        :arg timeout: seconds after which its process group is killed; the return code is then 124.
        """
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        late = threading.Event()

        def kill() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = None if timeout is None else threading.Timer(timeout, kill)
        if timer is not None:
            timer.start()
        try:
            for line in t.cast("t.IO[str]", process.stdout):
                on_line(line.rstrip("\n"))
            rc = process.wait()
        finally:
            if timer is not None:
                timer.cancel()
        return 124 if late.is_set() else rc

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""
        try:
            with open(path, "rb") as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write_atomic(self, path: str, data: bytes, *, mode: int, uid: int | None = None, gid: int | None = None) -> None:
        """Replace a file so that a crash or a power cut leaves the old bytes or the new ones, never a mix."""
        directory = os.path.dirname(path) or "."
        handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=directory)
        try:
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(stream.fileno(), mode)
                if uid is not None or gid is not None:
                    os.fchown(stream.fileno(), -1 if uid is None else uid, -1 if gid is None else gid)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        fsync_directory(directory)

    def commit_file(self, temporary: str, path: str, *, mode: int) -> int:
        """Give a finished file its name so that it survives a power cut. Returns its size in bytes."""
        with open(temporary, "rb") as stream:
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        os.replace(temporary, path)
        fsync_directory(os.path.dirname(path))
        return size

    def exchange(self, one: str, other: str) -> bool:
        """Let two directories change their names in one step, so that neither is ever missing. Returns False where the file system cannot."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
            return True
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
            return False
        raise OSError(code, os.strerror(code), other)

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def remove_for_good(self, path: str) -> None:
        """Remove a file so that a power cut does not bring it back."""
        self.remove(path)
        fsync_directory(os.path.dirname(path))

    def remove_tree(self, path: str) -> None:
        """Remove a directory with all that is in it; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

    def glob(self, pattern: str) -> list[str]:
        """Return the sorted paths that a shell pattern finds."""
        return sorted(glob.glob(pattern))

    def make_directory(self, path: str, *, mode: int) -> None:
        """Make a directory and those above it. A new one survives a power cut, if the one above was there."""
        fresh = not os.path.isdir(path)
        os.makedirs(path, mode=mode, exist_ok=True)
        if fresh:
            fsync_directory(os.path.dirname(path))

    def size(self, path: str) -> int:
        """Return a file's size in bytes; 0 where there is none."""
        try:
            return os.stat(path).st_size
        except OSError:
            return 0

    def read_part(self, path: str, offset: int, limit: int) -> bytes:
        """Return at most so many bytes of a file from an offset on; none where there is no file."""
        try:
            with open(path, "rb") as stream:
                stream.seek(offset)
                return stream.read(limit)
        except (FileNotFoundError, NotADirectoryError):
            return b""

    def free_bytes(self, path: str) -> int:
        """Return what root may still write to a file system."""
        found = os.statvfs(path)
        return found.f_bfree * found.f_frsize

    def exists(self, path: str) -> bool:
        """Tell whether a path exists (a dangling link does not)."""
        return os.path.exists(path)

    def modified(self, path: str) -> float | None:
        """Return when a file was written last, or None where there is none."""
        try:
            return os.lstat(path).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory; none where there is no directory."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def readlink(self, path: str) -> str | None:
        """Return where a link points, or None where there is no link."""
        try:
            return os.readlink(path)
        except OSError:
            return None
