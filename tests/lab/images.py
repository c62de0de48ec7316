# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host image of a Debian release: from a registry where one answers, else from Debian's packages alone."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

from . import engine
from .errors import LabError
from .options import SUITES

RECIPE = pathlib.Path(__file__).parent / "image"
WORLD = pathlib.Path(__file__).parent / "world"
CONTAINERS = pathlib.Path(__file__).parent / "containers"
#: Stand-ins for the images of a Compose app, by their target in the recipe.
STAND_INS = {"node": "lab/node:20", "postgres": "lab/postgres:17", "redis": "lab/redis:8"}
COMPONENTS = pathlib.Path(__file__).parent / "components"
#: Stand-ins for the images of components, by their target in the recipe.
COMPONENT_STAND_INS = {
    "keycloak": "lab/keycloak:1", "cerbos": "lab/cerbos:1", "s3": "lab/s3:1", "btcpay": "lab/btcpay:1", "nbxplorer": "lab/nbxplorer:1",
    "bitcoin": "lab/bitcoin:1", "pgbouncer": "lab/pgbouncer:1",
}  # fmt: skip
COMPOSE = "lab/compose:2"
MACHINE_CA = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "sudo", "ca-certificates", "iproute2", "procps",
)  # fmt: skip


def recipe_digest(recipe: pathlib.Path, start: str, machine_ca: bytes = b"") -> str:
    """Digest of all that decides what the image holds, apart from Debian itself."""
    digest = hashlib.sha256()
    for path in sorted(p for p in recipe.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(recipe)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    digest.update(start.encode() + b"\0" + machine_ca)
    return digest.hexdigest()[:12]


def say(words: str) -> None:
    """Tell the person who waits."""
    print(f"lab: {words}", file=sys.stderr, flush=True)


def base(suite: str) -> str:
    """Return the image a release starts from, made once."""
    own = f"anchorage-lab-base:{suite}"
    for known in (own, f"debian:{suite}"):
        if engine.answers("image", "inspect", known):
            return known
    if engine.answers("manifest", "inspect", f"debian:{suite}", timeout=10):
        engine.docker("pull", "--quiet", f"debian:{suite}")
        return f"debian:{suite}"
    if not engine.is_root_debian():
        raise LabError(f"No image registry answers for debian:{suite}, and only root on Debian can make it with mmdebstrap.")
    if not shutil.which("mmdebstrap"):
        engine.install("mmdebstrap")
    say(f"making {own} with mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="anchorage-lab-") as place:
        tar = pathlib.Path(place) / "host.tar"
        done = subprocess.run(["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(tar)], capture_output=True, check=False)
        if done.returncode:
            raise LabError(f"mmdebstrap {suite} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
        engine.docker("import", str(tar), own)
    return own


@engine.one_at_a_time()
def ensure(suite: str) -> str:
    """Return the host image of a release; made where it is missing, found at once where it is not."""
    machine_ca = MACHINE_CA.read_bytes() if MACHINE_CA.exists() else b""
    image = f"anchorage-lab-host:{suite}-{recipe_digest(RECIPE, ' '.join(PACKAGES), machine_ca)}"
    if engine.answers("image", "inspect", image):
        return image
    start = base(suite)
    say(f"making {image} from {start}")
    with tempfile.TemporaryDirectory(prefix="anchorage-lab-") as place:
        context = pathlib.Path(place) / "context"
        shutil.copytree(RECIPE, context)
        (context / "files/usr/local/lib/lab/machine-ca.pem").write_bytes(machine_ca)
        arguments = [f"--build-arg=BASE={start}", f"--build-arg=PACKAGES={' '.join(PACKAGES)}"]
        engine.docker("build", "--quiet", *arguments, "--tag", image, str(context))
    return image


@engine.one_at_a_time()
def ensure_world() -> str:
    """Return the image of the outside world, a layer on the newest release's host image."""
    start = ensure(SUITES[0])
    image = f"anchorage-lab-world:{recipe_digest(WORLD, start)}"
    if not engine.answers("image", "inspect", image):
        say(f"making {image}")
        engine.docker("build", "--quiet", f"--build-arg=BASE={start}", "--tag", image, str(WORLD))
    return image


@engine.one_at_a_time()
def ensure_stand_ins() -> list[str]:
    """Return the names of the stand-ins for the official images that apps in containers are made of; made where they are missing."""
    machine_ca = MACHINE_CA.read_bytes() if MACHINE_CA.exists() else b""
    start = base(SUITES[0])
    mark = f"anchorage-lab-stand-ins:{recipe_digest(CONTAINERS, start, machine_ca)}"
    if not engine.answers("image", "inspect", mark, *STAND_INS.values()):
        say(f"making {', '.join(STAND_INS.values())} from {start}")
        with tempfile.TemporaryDirectory(prefix="anchorage-lab-") as place:
            context = pathlib.Path(place) / "context"
            shutil.copytree(CONTAINERS, context)
            shutil.copy(RECIPE / "files/usr/local/lib/lab/trust_machine.py", context)
            (context / "machine-ca.pem").write_bytes(machine_ca)
            for target, name in STAND_INS.items():
                engine.docker("build", "--quiet", f"--build-arg=BASE={start}", f"--target={target}", "--tag", name, str(context))
        engine.docker("tag", STAND_INS["node"], mark)
    return [*STAND_INS.values()]


@engine.one_at_a_time()
def ensure_component_stand_ins() -> list[str]:
    """Return the names of the stand-ins for the images of components; made where they are missing, with a Compose 2 that needs no plugin here."""
    start = engine.inspect("image", ensure_stand_ins()[0])[0]["Id"]
    mark = f"anchorage-lab-components:{recipe_digest(COMPONENTS, start)}"
    wanted = {**COMPONENT_STAND_INS, "compose": COMPOSE}
    if not engine.answers("image", "inspect", mark, *wanted.values()):
        say(f"making {', '.join(wanted.values())}")
        for target, name in wanted.items():
            engine.docker("build", "--quiet", f"--build-arg=NODE={STAND_INS['node']}", f"--target={target}", "--tag", name, str(COMPONENTS))
        engine.docker("tag", COMPOSE, mark)
    return [*COMPONENT_STAND_INS.values()]


def give(container: str) -> None:
    """Leave with a host that has the stand-ins, as if a registry had given them. The Engine comes with them; its settings do not."""
    wanted = [*ensure_stand_ins(), *ensure_component_stand_ins()]
    if engine.answers("exec", container, "docker", "image", "inspect", *wanted):
        return
    settle(container)
    install = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends docker.io docker-cli"
    engine.docker("exec", container, "sh", "-c", install)
    hand_over(container, *wanted)


def settle(container: str) -> None:
    """Tell the Engine of a host, before it starts, that some settings of the kernel are read-only in a host that is a container itself."""
    unit = "[Service]\nEnvironment=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1 container=docker\n"
    place = "/etc/systemd/system/docker.service.d"
    engine.docker("exec", "-i", container, "sh", "-c", f"mkdir -p {place} && cat > {place}/lab.conf && systemctl daemon-reload", text=unit)


def hand_over(container: str, *names: str) -> None:
    """Put images into the Engine that runs inside a host."""
    with subprocess.Popen(["docker", "save", *names], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as given:
        done = subprocess.run(["docker", "exec", "-i", container, "docker", "load", "--quiet"], stdin=given.stdout, capture_output=True, check=False)
    if given.returncode or done.returncode:
        raise LabError(f"The images {', '.join(names)} did not reach {container}: {done.stderr.decode(errors='replace').strip()[-300:]}")
