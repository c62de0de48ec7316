# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of the lab as a real machine: its files become the disk of a QEMU guest, whose power can be cut.

A container shares the kernel of the machine, so what it wrote is never lost. A guest has a kernel and a page cache of its own, and both end with
the QEMU process. It keeps the ports and keys of the lab's host, so the lab's inventory and known_hosts go for it too.
"""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import time

import yaml

from ..lab import engine, images, options
from ..lab.errors import LabError
from ..lab.lab import ROOT, Lab

RECIPE = pathlib.Path(__file__).parent / "image"
HOST = "vps"
BOOT_SECONDS = 900
MEMORY_MB = 4096
DISK_GB = 8

#: The guest yields to whatever else is measured on this machine: its processor is a program that takes all it gets.
WEIGHT = 128

KERNEL = """
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends linux-image-cloud-amd64 initramfs-tools zstd
"""

#: What makes the files of a container those of a machine.
MACHINE = """
set -eu
cd /vm/root
rm -f etc/systemd/system/service.d/lab.conf .dockerenv etc/resolv.conf
echo '/dev/vda / ext4 defaults 0 1' > etc/fstab
echo vps > etc/hostname
printf '127.0.0.1 localhost vps\\n::1 localhost\\n' > etc/hosts
echo 'nameserver 10.0.2.3' > etc/resolv.conf
printf '[Match]\\nName=eth0\\n[Network]\\nDHCP=ipv4\\n' > etc/systemd/network/eth0.network
mkdir -p etc/systemd/system/multi-user.target.wants
ln -sf /lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/systemd-networkd.service
cp boot/vmlinuz-* /vm/vmlinuz
cp boot/initrd.img-* /vm/initrd
"""


class Guest:
    """One guest.

    :arg lab: the lab whose host it is.
    """

    def __init__(self, lab: str) -> None:
        self.lab = Lab(lab)
        self.place = ROOT / ".cache" / "powercut" / lab
        self.name = f"{options.container(lab, HOST)}-guest"

    # -- making it

    @staticmethod
    def program() -> str:
        """Return the image that has QEMU, made where it is missing."""
        base = images.base(options.SUITES[0])
        image = f"anchorage-lab-qemu:{hashlib.sha256((base + (RECIPE / 'Dockerfile').read_text()).encode()).hexdigest()[:12]}"
        if not engine.answers("image", "inspect", image):
            images.say(f"making {image}")
            engine.docker("build", "--quiet", f"--build-arg=BASE={base}", "--tag", image, str(RECIPE))
        return image

    def _beside(self, script: str) -> None:
        """Run a script where the disk is made, as root of the machine that has QEMU."""
        engine.docker("run", "--rm", "--interactive", f"--volume={self.place}:/vm", self.program(), "sh", "-euc", script)

    @property
    def disk(self) -> pathlib.Path:
        """The file that is the guest's disk."""
        return self.place / "disk.raw"

    def make(self) -> None:
        """Make the disk from the lab's host, which has to be up and provisioned; it is stopped by this, in order."""
        self.place.mkdir(parents=True, exist_ok=True)
        container = options.container(self.lab.name, HOST)
        images.say("installing a kernel")
        engine.docker("exec", container, "sh", "-euc", KERNEL)
        engine.docker("stop", "--time=40", container)
        images.say("copying the host's files to a disk")
        engine.docker("export", f"--output={self.place}/root.tar", container)
        self._beside("rm -rf /vm/root && mkdir /vm/root && tar --numeric-owner --xattrs -xf /vm/root.tar -C /vm/root && rm /vm/root.tar")
        self._beside(MACHINE)
        self._beside(f"rm -f /vm/disk.new && truncate -s {DISK_GB}G /vm/disk.new && mke2fs -q -t ext4 -L root -d /vm/root /vm/disk.new && rm -rf /vm/root")
        (self.place / "disk.new").rename(self.disk)

    # -- its power

    @property
    def ports(self) -> dict[str, int]:
        """The ports outside, by those inside."""
        hosts = yaml.safe_load((self.lab.directory / "hosts.yml").read_text())["all"]["children"]["lab"]["hosts"]
        return hosts[HOST]["lab_ports"]

    def start(self) -> None:
        """Turn it on."""
        engine.answers("rm", "--force", self.name)
        publish = [f"--publish=127.0.0.1:{outside}:{inside}" for inside, outside in self.ports.items()]
        forward = ",".join(f"hostfwd=tcp::{inside}-:{inside}" for inside in self.ports)
        engine.docker(
            "run", "--detach", "--name", self.name, f"--network={options.network(self.lab.name)}", f"--volume={self.place}:/vm", *publish,
            f"--cpu-shares={WEIGHT}", self.program(),
            "qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", "qemu64", "-m", str(MEMORY_MB), "-nographic", "-no-reboot",
            "-kernel", "/vm/vmlinuz", "-initrd", "/vm/initrd", "-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet",
            "-drive", "file=/vm/disk.raw,if=virtio,format=raw,cache=writeback", "-device", "virtio-rng-pci",
            "-netdev", f"user,id=n,{forward}", "-device", "virtio-net-pci,netdev=n",
        )  # fmt: skip

    def cut(self) -> None:
        """Cut the power: QEMU is killed, and with it whatever the guest had not brought to its disk."""
        engine.docker("kill", "--signal=KILL", self.name)

    def image(self, number: int) -> pathlib.Path:
        """Return where the disk lies that a cut left."""
        return self.place / f"cut-{number}.raw"

    def freeze(self, number: int) -> None:
        """Keep the disk as a cut at this moment would leave it, and go on.

        QEMU is stopped between two of its writes and its file copied. A kill would leave the very same bytes: what the guest had not brought to its
        disk is in the memory of QEMU, and what QEMU has written is the kernel's.
        """
        engine.docker("pause", self.name)
        try:
            subprocess.run(["cp", "--sparse=always", str(self.disk), str(self.image(number))], check=True)
        finally:
            engine.docker("unpause", self.name)

    def take(self, number: int) -> None:
        """Let the disk be the one that a cut left. The guest is off."""
        self.image(number).replace(self.disk)

    def down(self) -> None:
        """Remove it, and its lab."""
        self.off()
        self.lab.down()
        self._beside("rm -rf /vm/*")

    def off(self) -> None:
        """Turn it off in order."""
        if self.is_on():
            self.shell("systemctl poweroff", check=False)
            subprocess.run(["docker", "wait", self.name], capture_output=True, timeout=120, check=False)
        engine.answers("rm", "--force", self.name)

    def is_on(self) -> bool:
        """Whether QEMU runs."""
        return engine.docker("ps", "--quiet", f"--filter=name=^{self.name}$").strip() != ""

    def wait(self) -> float:
        """Come back when it lets us in and systemd has started all; return how long that took."""
        began = time.monotonic()
        while True:
            done = self._ssh("systemctl is-system-running --wait || true", timeout=BOOT_SECONDS)
            if done.stdout.strip() in ("running", "degraded"):
                return time.monotonic() - began
            if time.monotonic() - began > BOOT_SECONDS:
                raise LabError(f"The guest does not come up: {done.stdout.strip()} {done.stderr.strip()[-300:]}")
            time.sleep(1)

    # -- looking into it

    def _ssh(self, script: str, *, given: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = self.lab.ssh({"ports": self.ports, "user": "root"}, script)
        try:
            return subprocess.run(
                command, input=given, stdin=None if given is not None else subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 255, "", "no answer")

    def shell(self, script: str, *, check: bool = True, given: str | None = None) -> str:
        """Run a shell script as root and return what it printed."""
        done = self._ssh(script, given=given)
        if check and done.returncode:
            raise LabError(f"{script[:100]}: {done.returncode} {done.stdout[-300:]}{done.stderr[-300:]}")
        return done.stdout
