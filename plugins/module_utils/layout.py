# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things lie on a managed host. One place knows the paths of an app."""

from __future__ import annotations

import dataclasses

DOCUMENTS = "/etc/anchorage/apps"
SECRETS = "/etc/anchorage/secrets"
#: Of TLS between hosts: the fleet's authority, and with it what else the processes of apps trust.
TLS = "/etc/anchorage/tls"
AUTHORITY, TRUSTED = f"{TLS}/ca.pem", f"{TLS}/trusted.pem"
STATE = "/var/lib/anchorage"
SITES = "/etc/nginx/anchorage/sites"
COMMAND = "/usr/local/bin/anchorage"
#: What a source is called that is on its way to this host.
ARRIVING = ".incoming."
SLOTS = ("blue", "green")
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Paths of one app.

    :arg app: name of the app, which is its user too.
    :arg home: where its releases lie.
    """

    app: str
    home: str

    @property
    def state(self) -> str:
        return f"{STATE}/{self.app}"

    @property
    def journal(self) -> str:
        return f"{self.state}/journal.json"

    @property
    def lock(self) -> str:
        return f"{self.state}/lock"

    @property
    def start_lock(self) -> str:
        return f"{self.state}/lock-start"

    @property
    def step(self) -> str:
        return f"{self.state}/step.json"

    def wish(self, release: str) -> str:
        return f"{self.state}/wish-{release}.json"

    @property
    def catalog(self) -> str:
        return f"{self.state}/catalog.json"

    @property
    def restore_points(self) -> str:
        return f"{self.state}/restore"

    @property
    def logs(self) -> str:
        return f"{self.state}/log"

    @property
    def cache(self) -> str:
        return f"/var/cache/anchorage/{self.app}"

    @property
    def slot_directory(self) -> str:
        return f"{STATE}/slots/{self.app}"

    @property
    def slot_flag(self) -> str:
        return f"{self.slot_directory}/green"

    @property
    def soak_flag(self) -> str:
        return f"{self.slot_directory}/soak"

    @property
    def hold_flag(self) -> str:
        return f"{self.slot_directory}/hold"

    @property
    def site(self) -> str:
        return f"{SITES}/{self.app}.conf"

    @property
    def hold_socket(self) -> str:
        return f"{self.slot_directory}/hold.sock"

    @property
    def incoming(self) -> str:
        return f"{self.home}/incoming"

    @property
    def shared(self) -> str:
        return f"{self.home}/shared"

    @property
    def pm2_home(self) -> str:
        return f"/var/lib/pm2/{self.app}"

    @property
    def live_file(self) -> str:
        return f"{self.pm2_home}/live.json"

    @property
    def unit(self) -> str:
        return f"anchorage-{self.app}.service"

    def source(self, source_id: str) -> str:
        return f"{self.incoming}/{source_id}.tar"

    def image(self, tree: str) -> str:
        """The image of a tree as the controller sends it; removed once the Engine has it."""
        return f"{self.incoming}/{tree}.image.tar.gz"

    def work(self, tree: str) -> str:
        return f"{self.home}/work/{tree}"

    def build(self, tree: str) -> str:
        return f"{self.home}/builds/{tree}"

    def dependencies(self, key: str) -> str:
        return f"{self.home}/deps/{key}"

    def release(self, release: str) -> str:
        return f"{self.home}/releases/{release}"

    def document(self, release: str) -> str:
        return f"{self.release(release)}/document.json"
