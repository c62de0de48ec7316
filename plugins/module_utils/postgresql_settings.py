# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL is told: settings from memory and from the user, split by what a change of them costs."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from .encoders import postgresql_setting
from .errors import AnchorageError
from .postgresql_replication import ROLE as REPLICATION_ROLE
from .postgresql_replication import slot_name

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")
# pg_settings.context = 'postmaster' in 14 to 18. A name missing here is still noticed: the server reports it as pending.
_RESTART = """
archive_mode autovacuum_freeze_max_age autovacuum_max_workers autovacuum_multixact_freeze_max_age autovacuum_worker_slots bonjour bonjour_name
cluster_name commit_timestamp_buffers config_file data_directory data_sync_retry debug_io_direct dynamic_shared_memory_type event_source
external_pid_file hba_file hot_standby huge_page_size huge_pages ident_file ignore_invalid_pages io_max_combine_limit io_max_concurrency io_method
jit_provider listen_addresses logging_collector max_active_replication_origins max_connections max_files_per_process
max_locks_per_transaction max_logical_replication_workers max_notify_queue_pages max_pred_locks_per_transaction max_prepared_transactions
max_replication_slots max_wal_senders max_worker_processes min_dynamic_shared_memory multixact_member_buffers multixact_offset_buffers
notify_buffers old_snapshot_threshold port recovery_target recovery_target_action recovery_target_inclusive recovery_target_lsn
recovery_target_name recovery_target_time recovery_target_timeline recovery_target_xid reserved_connections serializable_buffers
shared_buffers shared_memory_type shared_preload_libraries subtransaction_buffers superuser_reserved_connections
trace_connection_negotiation track_activity_query_size track_commit_timestamp transaction_buffers unix_socket_directories
unix_socket_group unix_socket_permissions wal_buffers wal_decode_buffer_size wal_level wal_log_hints pg_stat_statements.max
"""
RESTART = frozenset(_RESTART.split())
STATEMENTS = "pg_stat_statements"


def _between(low: int, value: float, high: int) -> int:
    return int(max(low, min(value, high)))


def tuned(memory_mb: int, *, max_connections: int = 100) -> dict[str, t.Any]:
    """Return the settings that follow from the memory that PostgreSQL may use."""
    if memory_mb < 128:
        raise AnchorageError(
            f"postgresql_memory_mb is {memory_mb}; PostgreSQL needs at least 128.", next_step="Give it more memory or leave postgresql_memory_mb at 0."
        )
    shared = max(32, memory_mb // 4)
    cached = memory_mb - shared
    return {
        "shared_buffers": f"{shared}MB",
        "effective_cache_size": f"{cached}MB",
        "work_mem": f"{_between(4, cached / (3 * max(1, max_connections)), 64)}MB",
        "maintenance_work_mem": f"{_between(32, memory_mb / 16, 2048)}MB",
    }


def archived(command: str, timeout_seconds: int) -> dict[str, t.Any]:
    """Return the settings of a server whose WAL is archived by a command; none where there is no command."""
    if not command:
        return {}
    if timeout_seconds < 1:
        raise AnchorageError(f"postgresql_archive_timeout_seconds is {timeout_seconds}.", next_step="Give at least 1.")
    return {"archive_mode": "on", "archive_command": command, "archive_timeout": f"{timeout_seconds}s"}


def shown(tls_file: str) -> dict[str, t.Any]:
    """Return the settings of a server that shows clients a certificate of its own; none where it keeps the one that it has.

    Key and certificate are in one file, so what a reload reads always belongs together.
    """
    return {"ssl": True, "ssl_cert_file": tls_file, "ssl_key_file": tls_file} if tls_file else {}


def _preloaded(value: t.Any) -> str:
    names = value if isinstance(value, list) else str(value).split(",")
    wanted = [str(name).strip() for name in names if str(name).strip()]
    return ", ".join(dict.fromkeys([STATEMENTS, *wanted]))


def formatted(name: str, value: t.Any) -> str:
    """Return a value as postgresql.conf writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return str(value)
    text = ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)
    return postgresql_setting(text, f"postgresql_settings.{name}")


def networks(addresses: t.Iterable[str]) -> list[str]:
    """Return addresses as networks in canonical form, each once."""
    found = []
    for address in addresses:
        try:
            found.append(str(ipaddress.ip_network(address.strip(), strict=True)))
        except ValueError as error:
            raise AnchorageError(f"postgresql_client_addresses: {error}.", next_step="Write an address or a network such as 10.0.0.0/24.") from None
    return list(dict.fromkeys(found))


def replicated(*, primary: t.Mapping[str, t.Any], replicas: t.Sequence[str], name: str, passfile: str, wal_max_mb: int) -> dict[str, t.Any]:
    """Return the settings of a primary with replicas, or of a replica; none where there is neither.

    :arg replicas: their names, on the primary.
    :arg passfile: where the replica keeps its password, so that no setting holds it.
    """
    if primary and replicas:
        raise AnchorageError("A host is a primary or a replica: postgresql_primary and postgresql_replicas are both set.", next_step="Leave one of them out.")
    if not primary and not replicas:
        return {}
    if primary and not primary.get("address"):
        raise AnchorageError("postgresql_primary has no address.", next_step="Give the address at which this host reaches its primary.")
    if wal_max_mb < 64:
        raise AnchorageError(f"postgresql_replica_wal_max_mb is {wal_max_mb}.", next_step="Give at least 64.")
    # Whatever its slot keeps for a replica that is away, so much may fill the disk.
    found: dict[str, t.Any] = {"max_slot_wal_keep_size": f"{wal_max_mb}MB"}
    if primary:
        words = {"host": primary["address"], "port": primary.get("port", 5432), "user": REPLICATION_ROLE, "passfile": passfile}
        words.update({"sslmode": "verify-full", "sslrootcert": primary["ca_file"]} if primary.get("ca_file") else {"sslmode": "require"})
        words["application_name"] = slot_name(name)
        found["primary_conninfo"] = " ".join(_conninfo(key, value) for key, value in words.items())
        found["primary_slot_name"] = slot_name(name)
    return found


def _conninfo(key: str, value: t.Any) -> str:
    """Return one word of a connection string; what would need quotes is no address and no path of ours."""
    if not re.fullmatch(r"[A-Za-z0-9_.:/%-]+", str(value)):
        raise AnchorageError(f"postgresql_primary: {key} is '{value}'.", next_step="Write a bare address or name.")
    return f"{key}={value}"


def configuration(
    settings: t.Mapping[str, t.Any], *, memory_mb: int, client_addresses: t.Sequence[str] = (), replica_addresses: t.Sequence[str] = ()
) -> dict[str, t.Any]:
    """Return the two halves of the configuration and the networks that may come from outside.

    :arg settings: what the user says; it wins over everything that is computed.
    :returns: C(restart) and C(reload), each a sorted mapping from setting to text; C(clients) and C(replicas), lists of networks.
    """
    for name in settings:
        if not _NAME.fullmatch(name):
            raise AnchorageError(f"postgresql_settings: '{name}' is no name of a setting.", next_step="Use lower-case names as SHOW ALL prints them.")
    clients, replicas = networks(client_addresses), networks(replica_addresses)
    try:
        connections = int(settings.get("max_connections", 100))
    except (TypeError, ValueError):
        raise AnchorageError("postgresql_settings.max_connections is not a number.", next_step="Give a whole number.") from None
    merged: dict[str, t.Any] = {
        "listen_addresses": "*" if clients or replicas else "localhost",
        "port": 5432,
        "max_connections": connections,
        "password_encryption": "scram-sha-256",
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        "wal_compression": True,
        "min_wal_size": "128MB",
        "max_wal_size": "2GB",
        "checkpoint_completion_target": 0.9,
        "log_min_duration_statement": 1000,
        "log_lock_waits": True,
        "log_statement": "none",
        **tuned(memory_mb, max_connections=connections),
        **settings,
    }
    merged["shared_preload_libraries"] = _preloaded(merged.get("shared_preload_libraries", ""))
    texts = {name: formatted(name, merged[name]) for name in sorted(merged)}
    return {
        "restart": {name: text for name, text in texts.items() if name in RESTART},
        "reload": {name: text for name, text in texts.items() if name not in RESTART},
        "clients": clients,
        "replicas": replicas,
    }
