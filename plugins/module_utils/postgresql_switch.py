# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a promotion does on the hosts of a database: stop the primary so that nothing is lost, let the replica take over, hand on who comes late.

Every step looks first whether it was done already, so that a promotion that was cut off is gone on with. The former primary is stopped as a standby: it
does not start at boot, and whoever starts it gets a replica, so at no moment do two hosts write.
"""

from __future__ import annotations

import json
import pwd
import typing as t

from .encoders import sql_literal
from .errors import AnchorageError
from .layout import AUTHORITY
from .local_cluster import LocalCluster
from .postgresql_pool import UNIT as POOL_UNIT
from .postgresql_pool import settings as pool_settings
from .postgresql_replication import CLUSTER, FORWARD, PREFIX, RECORD, ROLE, STANDBY, ask, bytes_of, cluster_of, control, look
from .world import World, fsync_directory

Data = dict[str, t.Any]

#: The same before PgBouncer, where there is one.
POOL_FORWARD = f"{FORWARD}-pool"

#: Who comes to the primary while it is stopped waits: the kernel of the client asks again after one second, three and seven.
TABLE = "inet anchorage_promotion"
PROXY = "/lib/systemd/systemd-socket-proxyd"
UNITS = "/etc/systemd/system"
SHUT = "shut down"

#: Seconds: a clean stop, what is left to replay while nobody can write, a base backup of a large database, and the first connection of a replica.
STOP, REPLAY, COPY, CONNECT = 120.0, 30.0, 12 * 3600.0, 60.0
PAUSE = 0.05

SOCKET = """\
# Written by promote.yml: who still comes to this host finds the new primary. promote.yml takes it away when nobody does.
[Socket]
ListenStream={port}
Backlog=4096

[Install]
WantedBy=sockets.target
"""
SERVICE = """\
# Written by promote.yml
[Unit]
Requires={name}.socket

[Service]
ExecStart={proxy} --connections-max=4096 {target}:{port}
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
"""


def hold_rules(ports: t.Sequence[int], peers: t.Iterable[str]) -> str:
    """Return the rules that let nobody new come to the database, except its other hosts. They are gone after a restart."""
    names = {"ip": [peer for peer in peers if ":" not in peer], "ip6": [peer for peer in peers if ":" in peer]}
    accept = "".join(f"        {family} saddr {{ {', '.join(members)} }} accept\n" for family, members in names.items() if members)
    return (
        f"table {TABLE}\ndelete table {TABLE}\n\ntable {TABLE} {{\n    chain input {{\n        type filter hook input priority filter - 10; policy accept;\n"
        f"{accept}        tcp dport {{ {', '.join(map(str, ports))} }} ct state new drop\n    }}\n}}\n"
    )


class Switch:
    """The cluster of this host, in a promotion."""

    def __init__(self, world: World, cluster: LocalCluster) -> None:
        self.world = world
        self.cluster = cluster

    @classmethod
    def here(cls, world: World, version: str = "") -> Switch:
        """Return that of this host.

        :raises AnchorageError: when there is no cluster.
        """
        cluster = cluster_of(world, version)
        if cluster is None:
            raise AnchorageError("There is no PostgreSQL cluster on this host.", next_step="Run provision.yml first.")
        return cls(world, cluster)

    # ---- the primary that goes -----------------------------------------------------------------------------------------

    def fence(self, *, to: str, peers: t.Sequence[str]) -> Data:
        """Stop the primary for good, with all that it ever acknowledged handed to its replicas. Returns where its WAL ends.

        :arg to: the host that takes over, for whoever reads the record.
        :arg peers: addresses of the other database hosts, which go on reaching it until it has stopped.
        """
        state = look(self.world, version=self.cluster.version)
        done = state["fenced"] and not state["running"] and state["was"] == SHUT
        if not done:
            if state["in_recovery"]:
                raise AnchorageError("This host is a replica, so it cannot be stopped as a primary.", what="stopping the primary")
            # What is written now need not be written while all wait.
            if state["running"]:
                self._sql("CHECKPOINT", "writing a checkpoint", timeout=600)
            if not state["fenced"]:
                self._record(to)
            self._start_conf("manual")
            self._signal(True)
            self._nft(hold_rules([port for _name, port in self._fronts()], peers))
            # It lets transactions end that are under way, and does not come back at the next boot, since its port is taken then.
            if self._pool_port():
                self._systemctl("disable", "--now", POOL_UNIT)
            self._systemctl("stop", self.cluster.unit, seconds=STOP)
        found = control(self.cluster)
        if found["was"] != SHUT:
            raise AnchorageError(
                f"The primary did not stop cleanly: its control file says '{found['was']}'. What it wrote last may not have reached the replica.",
                what="stopping the primary",
            )
        began = json.loads(self.world.read(RECORD) or b"{}").get("at") or self.world.now()
        return {"changed": not done, "lsn": found["checkpoint"], "timeline": found["timeline"], "began_at": began}

    def unfence(self) -> Data:
        """Make the primary that was stopped serve again. It is the caller's to know that nobody has taken over."""
        self._signal(False)
        self._start_conf("auto")
        self._systemctl("start", self.cluster.unit, seconds=STOP)
        self._until(lambda: look(self.world)["running"], CONNECT, "the primary to answer again")
        if self._pool_port():
            self._systemctl("enable", "--now", POOL_UNIT)
        self._let_in()
        self.world.remove(RECORD)
        return {"changed": True}

    # ---- the replica that takes over -----------------------------------------------------------------------------------

    def promote(self, *, lsn: str, slots: t.Sequence[str]) -> Data:
        """Make this replica the primary as soon as it has replayed all that the former one wrote.

        :arg lsn: where the WAL of the former primary ends; its last record begins there.
        :arg slots: of the hosts that are going to follow, so that nothing they need is removed before they come.
        """
        state = look(self.world, version=self.cluster.version)
        if not state["running"]:
            raise AnchorageError(f"The replica does not answer: {state['answer']}.", what="promoting the replica")
        if not state["in_recovery"]:
            return {"changed": False, "position": state["position"]}
        end = bytes_of(lsn)
        self._until(lambda: bytes_of(self._sql("SELECT pg_last_wal_replay_lsn()", "asking for what was replayed")) > end, REPLAY, f"the replay of {lsn}")
        for slot in slots:
            self._sql(
                f"SELECT pg_create_physical_replication_slot({sql_literal(slot)}, true)"
                f" WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {sql_literal(slot)})",
                f"making the slot {slot}",
            )
        if self._sql("SELECT pg_promote(true, 60)", "promoting", timeout=90) != "t":
            raise AnchorageError("PostgreSQL did not become a primary within 60 s.", what="promoting the replica")
        return {"changed": True, "position": look(self.world)["position"]}

    # ---- the former primary --------------------------------------------------------------------------------------------

    def forward(self, *, address: str, port: int) -> Data:
        """Hand on to the new primary who still comes to this host, at this boot and at the next."""
        target = f"[{address}]" if ":" in address else address
        files: dict[str, str] = {}
        for name, here in self._fronts():
            files[f"{UNITS}/{name}.socket"] = SOCKET.format(port=here)
            # PgBouncer has the same port on all hosts of a database.
            files[f"{UNITS}/{name}.service"] = SERVICE.format(name=name, proxy=PROXY, target=target, port=port if name == FORWARD else here)
        sockets = [f"{name}.socket" for name, _port in self._fronts()]
        changed = any(self.world.read(path) != text.encode() for path, text in files.items()) or not all(map(self._active, sockets))
        if changed:
            for path, text in files.items():
                self.world.write_atomic(path, text.encode(), mode=0o644)
            self._systemctl("daemon-reload")
            self._systemctl("enable", "--now", *sockets)
        self._let_in()
        return {"changed": changed}

    def release(self) -> Data:
        """End that this host hands on, and let it be a replica. PostgreSQL and PgBouncer start with the settings that provisioning gives them."""
        units = [f"{name}.{kind}" for name in (FORWARD, POOL_FORWARD) for kind in ("socket", "service")]
        known = [name for name in units if self.world.exists(f"{UNITS}/{name}")]
        if known:
            self._systemctl("disable", "--now", *known)
            for name in known:
                self.world.remove(f"{UNITS}/{name}")
            self._systemctl("daemon-reload")
        self._let_in()
        self._start_conf("auto")
        changed = bool(known) or self.world.exists(RECORD)
        self.world.remove(RECORD)
        return {"changed": changed}

    # ---- a replica -----------------------------------------------------------------------------------------------------

    def follow(self, *, address: str, port: int, slot: str, passfile: str, name: str, rebuild: bool, check: bool) -> Data:
        """Make this host a replica, by a copy of the primary where it is none yet; one that is a replica is left alone.

        :arg rebuild: whether its data may be replaced. Without it, data that are anybody's stop this.
        :raises AnchorageError: when there are data, or the primary cannot be copied.
        """
        state = look(self.world, version=self.cluster.version)
        if state["running"] and state["in_recovery"] and not rebuild:
            dropped = self._drop_former_slots(state, check)
            return {"changed": bool(dropped), "built": False, "dropped": dropped}
        if state["data"] and not rebuild and not (state["running"] and state["empty"] and not state["in_recovery"]):
            raise AnchorageError(
                "This host is to be a replica, and "
                + (f"its server does not start: {state['answer']}" if state["standby"] else "has data of its own, which nobody allowed to replace")
                + ".",
                live="nothing was changed on it",
                next_step=f"Read journalctl -u {self.cluster.unit}. To replace its data by a copy of the primary: -e postgresql_rebuild_replica={name}",
            )
        if not check:
            self._build(address, port, slot, passfile)
        return {"changed": True, "built": True, "dropped": []}

    def _build(self, address: str, port: int, slot: str, passfile: str) -> None:
        """Copy the primary beside the present data, then let the two change places."""
        new, data = f"{self.cluster.data}.anchorage-new", self.cluster.data
        self.world.remove_tree(new)
        argv = [f"{self.cluster.programs}/pg_basebackup", f"--pgdata={new}", f"--slot={slot}", "--wal-method=stream", "--checkpoint=fast", "--no-password"]
        environment = {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "PGHOST": address,
            "PGPORT": str(port),
            "PGUSER": ROLE,
            **({"PGSSLMODE": "verify-full", "PGSSLROOTCERT": AUTHORITY} if self.world.exists(AUTHORITY) else {"PGSSLMODE": "require"}),
            "PGPASSFILE": passfile,
            "PGAPPNAME": f"{slot}-copy",
            "PGCONNECT_TIMEOUT": "10",
        }
        done = self.world.run(argv, env=environment, cwd="/", timeout=COPY, user="postgres")
        if done.rc != 0:
            self.world.remove_tree(new)
            raise AnchorageError(
                f"The primary at {address} could not be copied: {done.stderr.strip()[-400:] or done.rc}.",
                what="making the replica",
                live="nothing was changed on this host; the primary serves",
                next_step="Mend it and run provision.yml again.",
            )
        self._signal(True, new)
        self._systemctl("stop", self.cluster.unit, seconds=STOP)
        if not self.world.exists(data):
            raise AnchorageError(f"{data} is not there.", what="making the replica")
        if not self.world.exchange(new, data):
            raise AnchorageError(f"The file system below {data} cannot exchange two directories.", what="making the replica")
        fsync_directory(data.rpartition("/")[0])
        self._systemctl("start", self.cluster.unit, seconds=STOP)
        self.world.remove_tree(new)
        self._until(lambda: (found := look(self.world))["running"] and found["receiving"], CONNECT, f"the replica to stream from {address}")

    def _drop_former_slots(self, state: Data, check: bool) -> list[str]:
        """Drop the slots of the time when this host was the primary: nobody comes for what they keep."""
        left = [slot["name"] for slot in state["slots"] if slot["name"].startswith(PREFIX) and not slot["active"]]
        for slot in left if not check else []:
            self._sql(f"SELECT pg_drop_replication_slot({sql_literal(slot)})", f"dropping the slot {slot}")
        return left

    # ---- small things --------------------------------------------------------------------------------------------------

    def _pool_port(self) -> int:
        return int(pool_settings(self.world).get("port") or 0)

    def _fronts(self) -> list[tuple[str, int]]:
        """Return where clients come to on this host, by the name of what hands them on."""
        pool = self._pool_port()
        return [(FORWARD, self.cluster.port), *([(POOL_FORWARD, pool)] if pool else [])]

    def _sql(self, sql: str, what: str, *, timeout: float = 30) -> str:
        done = ask(self.cluster, sql, timeout=timeout)
        if done.rc != 0:
            raise AnchorageError(f"PostgreSQL refused: {done.stderr.strip()[:300] or done.rc}.", what=what)
        return done.stdout.strip()

    def _systemctl(self, *words: str, seconds: float = 60.0) -> None:
        done = self.world.run(["systemctl", *words], timeout=seconds)
        if done.rc != 0:
            raise AnchorageError(f"systemctl {' '.join(words)} failed: {done.stderr.strip()[:300] or done.rc}.", next_step=f"journalctl -u {words[-1]}")

    def _active(self, unit: str) -> bool:
        return self.world.run(["systemctl", "is-active", "--quiet", unit], timeout=30).rc == 0

    def _nft(self, rules: str) -> None:
        done = self.world.run(["nft", "-f", "-"], input=rules, timeout=20)
        # A host without a firewall refuses connections instead of letting them wait.
        if done.rc not in (0, 127):
            raise AnchorageError(f"The firewall did not take the rule: {done.stderr.strip()[:300] or done.rc}.", what="letting connections wait")

    def _let_in(self) -> None:
        # Replaced by an empty one first, so that it may be deleted whether it was there or not.
        self._nft(f"table {TABLE}\ndelete table {TABLE}\n")

    def _record(self, to: str) -> None:
        self.world.write_atomic(RECORD, (json.dumps({"to": to, "at": round(self.world.now(), 3)}) + "\n").encode(), mode=0o600)

    def _signal(self, wanted: bool, data: str = "") -> None:
        path = f"{data or self.cluster.data}/{STANDBY}"
        if wanted:
            owner = pwd.getpwnam("postgres")
            self.world.write_atomic(path, b"", mode=0o600, uid=owner.pw_uid, gid=owner.pw_gid)
        elif self.world.exists(path):
            self.world.remove_for_good(path)

    def _start_conf(self, how: str) -> None:
        """Say whether Debian starts the cluster at boot; whoever starts it by name may."""
        text = f"# Written by Anchorage: {'a promotion has stopped this cluster' if how != 'auto' else 'started at boot'}\n{how}\n"
        path = f"/etc/postgresql/{self.cluster.version}/{CLUSTER}/start.conf"
        if how != "auto" or b"manual" in (self.world.read(path) or b""):
            self.world.write_atomic(path, text.encode(), mode=0o644)

    def _until(self, good: t.Callable[[], bool], seconds: float, what: str) -> None:
        end = self.world.monotonic() + seconds
        while not good():
            if self.world.monotonic() >= end:
                raise AnchorageError(f"Waited {seconds:.0f} s for {what}.", what="the promotion", next_step="Read /var/log/postgresql on both hosts.")
            self.world.sleep(PAUSE)
