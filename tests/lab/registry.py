# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's docker-registry on a host of the lab, and images as a project's own CI makes them."""

from __future__ import annotations

from .images import STAND_INS

DOCKERFILE = f"""FROM {STAND_INS["node"]}
WORKDIR /app
COPY . .
RUN node build.js && chmod -R a+rX /app
WORKDIR /app/dist
USER 65534:65534
CMD ["node", "server.js"]
"""


def serve(address: str, *, users: str = "") -> str:
    """Return the shell script that lets it answer.

    :arg address: where it listens.
    :arg users: the command that prints who may come, for htpasswd; everybody may without it.
    """
    auth = "\nauth: {htpasswd: {realm: lab, path: /srv/registry/users}}" if users else ""
    # Debian's own unit, which would take another port, is there only where its package has just brought it.
    return f"""
set -e
export DEBIAN_FRONTEND=noninteractive
dpkg -s docker-registry >/dev/null 2>&1 || apt-get install -qy --no-install-recommends docker-registry >/dev/null
systemctl disable --now --quiet docker-registry.service 2>/dev/null || true
mkdir -p /srv/registry
{f"{users} > /srv/registry/users" if users else ":"}
cat > /srv/registry/config.yml <<'CONFIG'
version: 0.1
storage: {{filesystem: {{rootdirectory: /srv/registry/data}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"}}{auth}
CONFIG
systemctl is-active --quiet registry || systemd-run --quiet --unit=registry docker-registry serve /srv/registry/config.yml
"""
