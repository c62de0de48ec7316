# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trust what the machine trusts: certificates of its bundle that Debian does not know become local ones of this image."""

from __future__ import annotations

import base64
import hashlib
import pathlib
import re
import subprocess

MACHINE = pathlib.Path("/usr/local/lib/lab/machine-ca.pem")
KNOWN = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
LOCAL = pathlib.Path("/usr/local/share/ca-certificates")


def certificates(path):
    """Map each certificate's digest to its PEM text."""
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", path.read_text(), re.DOTALL)
    return {hashlib.sha256(base64.b64decode(block)).hexdigest(): f"-----BEGIN CERTIFICATE-----{block}-----END CERTIFICATE-----\n" for block in blocks}


if MACHINE.exists():
    known = certificates(KNOWN)
    for digest, pem in certificates(MACHINE).items():
        if digest not in known:
            (LOCAL / f"machine-{digest[:16]}.crt").write_text(pem)
    MACHINE.unlink()
    subprocess.run(["/usr/sbin/update-ca-certificates"], check=True)
