# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Compose project asked by its labels: what the Engine says of its containers, held against what was wanted.

Only the client C(docker) is needed, no Compose and no file of the project. Nothing of a container's environment or of its health check's
output is taken over, since both may hold secrets.
"""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import json
import re
import typing as t

from .errors import AnchorageError
from .health import FAIL, WARN, Check, Verdict, joined, judge, poll, verdict
from .world import World

Data = t.Mapping[str, t.Any]

#: Compose's own labels, https://github.com/compose-spec/compose-go/blob/main/labels
PROJECT, SERVICE, ONE_OFF = "com.docker.compose.project", "com.docker.compose.service", "com.docker.compose.oneoff"

#: Addresses that mean every interface. Without one, Docker publishes on all.
EVERYWHERE = ("", "0.0.0.0", "::")

PORT = re.compile(r"(?:(?P<address>[0-9.]+|\[[0-9a-fA-F:]+\]):)?(?P<port>[0-9]{1,5})(?:/(?P<protocol>tcp|udp|sctp))?\Z")


@dataclasses.dataclass(frozen=True)
class Published:
    """A port of the host that leads into a container."""

    address: str
    port: int
    protocol: str

    @property
    def loopback(self) -> bool:
        """Tell whether only this host can reach it."""
        return self.address not in EVERYWHERE and ipaddress.ip_address(self.address).is_loopback

    def __str__(self) -> str:
        """Return it as it is written in a Compose file."""
        address = f"[{self.address}]" if ":" in self.address else self.address or "0.0.0.0"
        return f"{address}:{self.port}/{self.protocol}"


def parse_port(text: str) -> tuple[str | None, int, str]:
    """Return address (None: any), port and protocol of an allowed port.

    :raises AnchorageError: when it is none.
    """
    found = PORT.match(text.strip())
    try:
        if found is None or not 0 < int(found["port"]) < 65536:
            raise ValueError(text)
        address = str(ipaddress.ip_address(found["address"].strip("[]"))) if found["address"] else None
    except ValueError as error:
        raise AnchorageError(f"published: {text!r} is no port.", next_step="Write it as 443, 443/udp, 127.0.0.1:5432 or [::1]:5432, in quotes.") from error
    return address, int(found["port"]), found["protocol"] or "tcp"


@dataclasses.dataclass(frozen=True)
class Container:
    """One container of the project."""

    id: str
    name: str
    service: str
    state: str
    health: str
    exit_code: int
    out_of_memory: bool
    restarts: int
    started_at: str
    image: str
    image_id: str
    network: str
    restart: str = ""
    published: tuple[Published, ...] = ()


def parse_containers(text: str) -> list[Container]:
    """Return the containers of ``docker inspect``, without those of ``docker compose run``."""
    try:
        items = json.loads(text)
        return [_container(item) for item in items if _label(item, ONE_OFF).lower() != "true"]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise AnchorageError(f"docker inspect gave no list of containers: {error}.") from error


def _label(item: Data, name: str) -> str:
    return str((item["Config"].get("Labels") or {}).get(name, ""))


def _container(item: Data) -> Container:
    state, ports = item["State"], (item.get("NetworkSettings") or {}).get("Ports") or {}
    published = {
        Published(binding.get("HostIp") or "", int(binding["HostPort"]), inside.partition("/")[2] or "tcp")
        for inside, bindings in ports.items()
        for binding in bindings or []
    }
    return Container(
        id=item["Id"],
        name=item["Name"].lstrip("/"),
        service=_label(item, SERVICE),
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status") or "none",
        exit_code=int(state.get("ExitCode") or 0),
        out_of_memory=bool(state.get("OOMKilled")),
        restarts=int(item.get("RestartCount") or 0),
        started_at=state.get("StartedAt") or "",
        image=item["Config"].get("Image") or "",
        image_id=item["Image"],
        network=(item.get("HostConfig") or {}).get("NetworkMode") or "",
        restart=((item.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "",
        published=tuple(sorted(published, key=str)),
    )


def parse_digests(text: str) -> dict[str, list[str]]:
    """Return from ``docker image inspect`` by which digests registries know an image, by its id."""
    try:
        return {item["Id"]: sorted(name.rpartition("@")[2] for name in item.get("RepoDigests") or []) for item in json.loads(text)}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise AnchorageError(f"docker image inspect gave no list of images: {error}.") from error


def seconds_of(text: str) -> float | None:
    """Return the seconds since the epoch of the Engine's time, which has nanoseconds; None where it never was."""
    try:
        moment = datetime.datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    return moment.timestamp() if moment.year > 1 else None


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One service that must be there."""

    name: str
    instances: int = 1
    completed: bool = False
    require_health: bool = False
    digest: str | None = None
    max_restarts: int | None = None
    min_uptime_seconds: float = 0


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a healthy project looks like. C(published) is None when ports are not judged."""

    services: t.Sequence[Wanted] = ()
    published: t.Sequence[str] | None = None
    unexpected: str = WARN


# ---- judging ---------------------------------------------------------------------------------------------------------


def judge_service(wanted: Wanted, found: t.Sequence[Container], now: float) -> Check:
    """Judge number, state, health, restarts and age of a service's containers."""
    wrong = []
    for item in found:
        fault = _fault_of_job(item) if wanted.completed else _fault(wanted, item, now)
        if fault:
            wrong.append(f"{item.name} {fault}")
    if wanted.completed and not found:
        wrong.append(f"no container of {wanted.name} is left, so nobody knows how it ended")
    elif not wanted.completed and len(found) != wanted.instances:
        wrong.insert(0, f"{len(found) or 'no'} container{'s' if len(found) > 1 else ''} of {wanted.name}, wanted {wanted.instances}")
    facts = [
        {"name": item.name, "state": item.state, "health": item.health, "exit_code": item.exit_code, "restarts": item.restarts, "started_at": item.started_at}
        for item in found
    ]
    evidence = {"wanted": 1 if wanted.completed else wanted.instances, "containers": facts}
    advice = f"docker logs --tail 50 {found[0].name}" if found else "docker compose ps --all"
    return judge(f"service:{wanted.name}", not wrong, evidence=evidence, cause="; ".join(wrong), advice=advice)


def _fault_of_job(item: Container) -> str:
    if item.state == "exited" and item.exit_code == 0:
        return ""
    return f"is {item.state}, and should have ended" if item.state != "exited" else _ended(item)


def _ended(item: Container) -> str:
    return f"ended with code {item.exit_code}{' for want of memory' if item.out_of_memory else ''}"


def _fault(wanted: Wanted, item: Container, now: float) -> str:
    if item.state == "restarting":
        return f"{_ended(item)} and is started again and again ({item.restarts} times)"
    if item.state in ("exited", "dead"):
        return _ended(item)
    if item.state != "running":
        return f"is {item.state}"
    if item.health == "unhealthy":
        return "runs, and its own health check fails"
    if item.health == "starting":
        return "runs, and its health check has not succeeded yet"
    if item.health == "none" and wanted.require_health:
        return "has no health check"
    if wanted.max_restarts is not None and item.restarts > wanted.max_restarts:
        return f"was restarted {item.restarts} times, wanted at most {wanted.max_restarts}"
    started = seconds_of(item.started_at)
    if wanted.min_uptime_seconds and (started is None or now - started < wanted.min_uptime_seconds):
        return f"has been up for {max(0.0, now - (started or now)):.0f} s only, wanted {wanted.min_uptime_seconds:g} s"
    return ""


def judge_image(wanted: Wanted, found: t.Sequence[Container], digests: t.Mapping[str, t.Collection[str]]) -> Check:
    """Judge whether all containers of a service run one image, and the wanted one.

    :arg digests: by the image's id the digests that registries know it by.
    """
    ids = sorted({item.image_id for item in found})
    known = {image: sorted({image, *digests.get(image, ())}) for image in ids}
    wrong = [f"{wanted.name} runs {len(ids)} different images"] if len(ids) > 1 else []
    if wanted.digest:
        wrong += [
            f"{item.name} runs {item.image} ({item.image_id[:19]}), not the image {wanted.digest[:19]}"
            for item in found
            if wanted.digest not in known[item.image_id]
        ]
    evidence = {"wanted": wanted.digest, "digests": known}
    severity = FAIL if wanted.digest else WARN
    advice = f"docker image inspect {found[0].image}" if found else ""
    return judge(f"image:{wanted.name}", not wrong, evidence=evidence, cause="; ".join(wrong), advice=advice, severity=severity)


def judge_published(allowed: t.Sequence[str], found: t.Sequence[Container]) -> Check:
    """Judge the ports that the Engine publishes. It opens them before the firewall of the host is asked."""
    rules = [parse_port(text) for text in allowed]

    def permitted(port: Published) -> bool:
        return port.loopback or any(rule[1:] == (port.port, port.protocol) and rule[0] in (None, port.address) for rule in rules)

    open_ports = [(item, port) for item in found for port in item.published]
    wrong = [f"{item.name} publishes {port}" for item, port in open_ports if not permitted(port)]
    hidden = [item.name for item in found if item.network == "host" and item.state == "running"]
    evidence = {"allowed": [*allowed], "published": sorted({str(port) for _item, port in open_ports}), "host_network": hidden}
    if wrong or not hidden:
        cause = f"{', '.join(wrong)}, which nobody allowed; Docker opens it past the host's firewall"
        return judge("published", not wrong, evidence=evidence, cause=cause, advice="ports: of that service, best 127.0.0.1:PORT:PORT or none")
    cause = f"{', '.join(hidden)} use{'s' if len(hidden) == 1 else ''} the host's own network, so the ports cannot be told from here"
    return Check("published", WARN, evidence, cause, "host_health with allowed_ports")


# ---- asking ----------------------------------------------------------------------------------------------------------


class Prober:
    """Asks again and again, and notices a container that was restarted in between."""

    def __init__(self, project: str, wanted: Expectation, world: World, executable: str) -> None:
        self.project = project
        self.wanted = wanted
        self.world = world
        self.executable = executable
        self.before: dict[str, tuple[str, int, str]] = {}
        self.found: list[Container] = []
        self.digests: dict[str, list[str]] = {}

    def __call__(self, seconds: float) -> list[Check]:
        """Ask once and judge."""
        end = self.world.monotonic() + seconds
        try:
            self.found = self._containers(end)
            self._learn_digests(end)
        except AnchorageError as error:
            self.found = []
            return [Check("engine", FAIL, {"project": self.project}, error.message.rstrip("."), (error.next_step or "").rstrip("."))]
        checks = [judge("engine", True, evidence={"project": self.project, "containers": len(self.found)})]
        if not self.wanted.services:
            cause = f"there is no container of the project {self.project}"
            checks.append(judge("project", bool(self.found), evidence={"containers": len(self.found)}, cause=cause, advice="docker compose ls --all"))
        for wanted in self.wanted.services or self._all():
            found = [item for item in self.found if item.service == wanted.name]
            checks.append(judge_service(wanted, found, self.world.now()))
            if found:
                checks.append(judge_image(wanted, found, self.digests))
        if self.wanted.published is not None:
            checks.append(judge_published(self.wanted.published, self.found))
        return [*checks, *self._strangers(), *self._steady()]

    def _all(self) -> list[Wanted]:
        """Without a list, every service that is there must be well; what has ended in good order was a job, unless it was to be started again."""
        groups = {name: [item for item in self.found if item.service == name] for name in sorted({item.service for item in self.found})}
        return [
            Wanted(name, instances=len(group), completed=not any(_fault_of_job(item) or item.restart in ("always", "unless-stopped") for item in group))
            for name, group in groups.items()
        ]

    def _docker(self, end: float, *argv: str, missing: bool = False) -> str:
        """Ask the Engine.

        :arg missing: whether something may have gone since it was listed; the rest is answered then.
        """
        done = self.world.run([self.executable, *argv], timeout=max(0.1, end - self.world.monotonic()))
        said = done.stderr.strip()  # what inspect prints holds environments
        if done.rc == 0 or (missing and "no such" in said.lower() and done.stdout.strip().startswith("[")):
            return done.stdout
        if done.rc == 127:
            raise AnchorageError(f"The program {self.executable} cannot be run.", next_step="Install Docker's client, or name its path in executable.")
        if done.rc == 124:
            raise AnchorageError(f"docker {argv[0]} gave no answer in time.", next_step="systemctl status docker; journalctl -u docker -n 50")
        if "permission denied" in said.lower():
            raise AnchorageError("This user may not talk to the Docker Engine.", next_step="Run this as root.")
        raise AnchorageError(f"The Docker Engine did not answer: {said[-200:] or f'code {done.rc}'}.", next_step="systemctl status docker; docker info")

    def _containers(self, end: float) -> list[Container]:
        label = f"label={PROJECT}={self.project}"
        ids = self._docker(end, "ps", "--all", "--no-trunc", "--quiet", "--filter", label).split()
        return sorted(parse_containers(self._docker(end, "inspect", "--type", "container", *ids, missing=True)), key=lambda item: item.name) if ids else []

    def _learn_digests(self, end: float) -> None:
        """Ask for the digests that somebody wants to know of, each image once."""
        services = {wanted.name for wanted in self.wanted.services if wanted.digest}
        images = sorted({item.image_id for item in self.found if item.service in services} - set(self.digests))
        if images:
            self.digests.update(parse_digests(self._docker(end, "image", "inspect", *images, missing=True)))

    def _strangers(self) -> list[Check]:
        if not self.wanted.services:
            return []
        names = sorted({item.service for item in self.found} - {wanted.name for wanted in self.wanted.services})
        cause = f"the project {self.project} also has {', '.join(names)}"
        advice = "docker compose up --detach --remove-orphans, if they are leftovers"
        return [judge("unexpected", not names, evidence={"names": names}, cause=cause, advice=advice, severity=self.wanted.unexpected)]

    def _steady(self) -> list[Check]:
        jobs = {wanted.name for wanted in self.wanted.services if wanted.completed}
        now = {item.name: (item.id, item.restarts, item.started_at) for item in self.found if item.service not in jobs}
        changed = sorted(name for name, seen in now.items() if name in self.before and self.before[name] != seen)
        first, self.before = not self.before, now
        if first:
            return []
        cause = f"{', '.join(changed)} was restarted or made anew between two looks"
        return [judge("restarts", not changed, evidence={"changed": changed}, cause=cause, advice=f"docker events --filter label={PROJECT}={self.project}")]


def check(
    project: str,
    wanted: Expectation,
    *,
    world: World,
    executable: str = "docker",
    timeout_seconds: float = 10.0,
    deadline_seconds: float = 20.0,
    interval_seconds: float = 1.0,
    successes: int = 1,
) -> Verdict:
    """Ask until it is proven or the deadline is over."""
    for text in wanted.published or []:
        parse_port(text)
    prober = Prober(project, wanted, world, executable)
    watch = poll(
        lambda seconds: prober(min(seconds, timeout_seconds)),
        world=world,
        deadline_seconds=deadline_seconds,
        interval_seconds=interval_seconds,
        successes=successes,
    )
    seen = [
        {
            "name": item.name,
            "service": item.service,
            "state": item.state,
            "health": item.health,
            "restarts": item.restarts,
            "image": item.image,
            "digest": (prober.digests.get(item.image_id) or [item.image_id])[0],
            "published": [str(port) for port in item.published],
        }
        for item in prober.found
    ]
    good = joined((f"{item.name} {item.health if item.health != 'none' else item.state}" for item in prober.found), ", ")
    return verdict(f"Compose project {project}", watch, good=good, extra={"containers": seen})
