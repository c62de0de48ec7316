# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the command C(anchorage): one reproducible zip archive of the engine's modules that Python runs as it is."""

from __future__ import annotations

import io
import typing as t
import zipfile

ROOT = "anchorage_engine"
EPOCH = (1980, 1, 1, 0, 0, 0)

#: The modules of the engine. They import the standard library and each other only.
MEMBERS = (
    "admin_user",
    "app",
    "app_health",
    "backup_command",
    "backup_compare",
    "backup_dump",
    "backup_gate",
    "backup_list",
    "backup_probe",
    "backup_proof",
    "backup_proof_files",
    "backup_proofs",
    "backup_report",
    "backup_results",
    "backup_run",
    "backup_settings",
    "catalog",
    "certificates",
    "command",
    "compose_probe",
    "compose_project",
    "compose_runtime",
    "database",
    "dead_man",
    "diagnosis",
    "dockerfile",
    "drain",
    "encoders",
    "engine",
    "errors",
    "forecast",
    "golive",
    "health",
    "health_notice",
    "hold",
    "host_manifest",
    "host_probe",
    "host_state_tree",
    "http_probe",
    "image_build",
    "image_context",
    "journal",
    "layout",
    "local_cluster",
    "lock_waits",
    "masking",
    "memory",
    "migration_lock",
    "migrations",
    "pm2",
    "pm2_runtime",
    "postgresql_objects",
    "postgresql_probe",
    "postgresql_scram",
    "preview",
    "prober",
    "processes",
    "pruning",
    "recovery",
    "redis_probe",
    "refusals",
    "rehearsal",
    "release_plan",
    "restore",
    "restore_apps",
    "restore_cluster",
    "restore_command",
    "restore_compare",
    "restore_database",
    "restore_files",
    "restore_journal",
    "restore_plan",
    "restore_point",
    "restore_source",
    "rollback",
    "room",
    "runtime",
    "runtimes",
    "scratch_cluster",
    "sessions",
    "slots",
    "soak",
    "step_activate",
    "step_migrate",
    "step_stage",
    "tls_probe",
    "tree_build",
    "worker_probe",
    "world",
)

MAIN = f"import sys\n\nfrom {ROOT}.command import main\n\nsys.exit(main())\n"


def build(read: t.Callable[[str], bytes]) -> bytes:
    """Return the archive; the same modules give the same bytes.

    :arg read: returns a module's source by its name.
    """
    files = {"__main__.py": MAIN.encode(), f"{ROOT}/__init__.py": b""}
    for member in MEMBERS:
        files[f"{ROOT}/{member}.py"] = read(member)
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/python3 -I\n")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return buffer.getvalue()
