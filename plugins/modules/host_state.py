#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: Bring a role's part of a host into its state, as one document and one transaction
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
description:
  - One task describes repositories, packages, groups, users, directories, files, links and units.
  - One remote execution reads the whole state of the host. When nothing is off, or nothing but files and units, it is the only one;
    contents of more than 64 KiB travel when they are needed.
  - What is off is put right in the order of the options below. Groups and users are handed to
    M(ansible.builtin.group) and M(ansible.builtin.user).
  - Files, links and directories are rendered on the controller, validated together on a staged tree that only the validators
    see, and then installed together with fsync, or not at all.
  - Packages are installed by apt-get in one transaction, without recommended ones; no service is started by that, and no configuration file
    that somebody changed is replaced. The lists of packages are fetched when they are older than an hour, than a repository's description, or too
    old to help.
  - Units are brought into their state right after the files. The first that does not follow ends it.
  - A unit is restarted or reloaded when what it has loaded is not what lies on disk, whether this run, an earlier run that
    died, or a hand changed it.
  - A wrong document is refused before the first remote execution, by a message that names the key.
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details:
      - What cannot be known yet, such as the units of a package that is not installed, is named in RV(notes).
  diff_mode:
    support: full
    details:
      - The content of files with O(files[].secret) is never shown.
  idempotent:
    support: full
options:
  repositories:
    description: Package repositories, written as C(/etc/apt/sources.list.d/<name>.sources) with the key inside.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the file.
        type: str
        required: true
      uris:
        description: Addresses of the repository.
        type: list
        elements: str
        required: true
      suites:
        description: Suites.
        type: list
        elements: str
        required: true
      components:
        description: Components; none for a flat repository.
        type: list
        elements: str
        default: []
      types:
        description: Kinds of packages.
        type: list
        elements: str
        choices: [deb, deb-src]
        default: [deb]
      architectures:
        description: Architectures; without them the host's own.
        type: list
        elements: str
        default: []
      signed_by:
        description: Armored key, or its URL (fetched by the host; needs O(repositories[].fingerprint)), or the path of a key ring on the host.
        type: str
      fingerprint:
        description: Fingerprint that the key must have.
        type: str
      enabled:
        description: Whether apt uses the repository.
        type: bool
        default: true
  packages:
    description:
      - Packages to install, in one transaction; C(name=version) pins one, and the version may hold C(*).
      - Services of new packages do not start before their configuration is there; O(units) starts them.
      - A dpkg that was interrupted earlier is healed first; a lock of another package manager is waited for.
    type: list
    elements: str
    default: []
  packages_absent:
    description: Packages to remove; their configuration stays.
    type: list
    elements: str
    default: []
  groups:
    description: Groups.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      gid:
        description: Number; without it the next free one.
        type: int
      system:
        description: Whether a new group is a system group.
        type: bool
        default: false
  users:
    description: Users. Memberships are added, never taken away.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      group:
        description: Primary group.
        type: str
      groups:
        description: Further groups.
        type: list
        elements: str
        default: []
      home:
        description: Home directory.
        type: str
      create_home:
        description: Whether the home directory is made.
        type: bool
        default: true
      shell:
        description: Login shell.
        type: str
      system:
        description: Whether a new user is a system user.
        type: bool
        default: false
      password_lock:
        description: Whether the password is locked. Keys keep working.
        type: bool
      authorized_keys:
        description: The user's public keys, all of them. Without this option the file is left alone.
        type: list
        elements: str
  directories:
    description: Directories.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode, as a quoted octal string.
        type: str
        default: "0755"
  files:
    description: Files. Missing parent directories are made, root's and C(0755).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      template:
        description: Template, found as M(ansible.builtin.template) finds it. One of O(files[].template), O(files[].content) and O(files[].src) is needed.
        type: str
      content:
        description: The content itself.
        type: str
      src:
        description: File, found as M(ansible.builtin.copy) finds it; it may be binary.
        type: str
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode, as a quoted octal string.
        type: str
        default: "0644"
      secret:
        description: Whether the content is kept out of every output.
        type: bool
        default: false
      vars:
        description: Variables for this template only.
        type: dict
        default: {}
  links:
    description: Symbolic links.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path of the link.
        type: str
        required: true
      target:
        description: What it points to, as written.
        type: str
        required: true
  absent:
    description:
      - Paths or globs of what must not be there; what the same document wants is kept.
      - A diff shows what was in a file only where everybody on the host may read it.
    type: list
    elements: str
    default: []
  validate:
    description: Commands that must agree before anything is installed.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name for messages.
        type: str
        required: true
      command:
        description: Command and arguments. It sees the new files at their final paths.
        type: list
        elements: str
        required: true
      when_changed:
        description: Paths, directories or globs; the command runs only when one of them changes.
        type: list
        elements: str
        required: true
  units:
    description: Units of systemd.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name; without a type it is a service.
        type: str
        required: true
      enabled:
        description: Whether it starts at boot; left alone when not given.
        type: bool
      state:
        description: Whether it runs; left alone when not given.
        type: str
        choices: [started, stopped]
      masked:
        description: Whether it is masked; left alone when not given.
        type: bool
      restart_on:
        description: Paths, directories or globs that only a restart loads.
        type: list
        elements: str
        default: []
      reload_on:
        description: Paths, directories or globs that a reload loads.
        type: list
        elements: str
        default: []
  confirm:
    description:
      - Changes that could lock everybody out. Before such a file is installed, a timer is armed on the host that puts the
        previous files back; it is disarmed only by a new connection after the units have loaded the new ones.
      - Costs nothing while none of the files changes.
    type: dict
    suboptions:
      name:
        description: Name of the timer.
        type: str
        required: true
      paths:
        description: Paths, directories or globs that count as risky.
        type: list
        elements: str
        required: true
      undo:
        description: Commands that make services load what was put back.
        type: list
        elements: list
        default: []
      seconds:
        description: How long the timer waits.
        type: int
        default: 120
"""

EXAMPLES = r"""
- name: configure | Put Redis into its state
  anchorage.vps.host_state:
    packages: [redis-server]
    files:
      - {path: /etc/redis/redis.conf, template: redis.conf.j2, group: redis, mode: "0640", secret: true}
    units:
      - {name: redis-server, enabled: true, state: started, restart_on: [/etc/redis/redis.conf]}

- name: configure | Put sites into their state, validated as a whole
  anchorage.vps.host_state:
    files:
      - {path: /etc/nginx/sites-available/shop.conf, template: site.conf.j2, vars: {site: shop}}
    links:
      - {path: /etc/nginx/sites-enabled/shop.conf, target: ../sites-available/shop.conf}
    absent: ["/etc/nginx/sites-enabled/*"]
    validate:
      - {name: nginx, command: [nginx, -t], when_changed: [/etc/nginx/]}
    units:
      - {name: nginx, enabled: true, state: started, reload_on: [/etc/nginx/]}

- name: configure | Change how the host is reached without fear
  anchorage.vps.host_state:
    files:
      - {path: /etc/ssh/sshd_config.d/10-hardening.conf, content: "PasswordAuthentication no\n"}
    validate:
      - {name: sshd, command: [sshd, -t], when_changed: [/etc/ssh/]}
    units:
      - {name: ssh, reload_on: [/etc/ssh/]}
    confirm:
      name: ssh
      paths: [/etc/ssh/]
      undo: [[systemctl, reload-or-restart, ssh.service]]
"""

RETURN = r"""
changes:
  description: What was off; C(before) and C(after) hold no content of files.
  returned: always
  type: list
  elements: dict
  sample: [{"kind": "file", "name": "/etc/redis/redis.conf", "before": {"mode": "0644"}, "after": {"mode": "0640"}}]
changed_paths:
  description: Paths of files, links and directories that changed.
  returned: always
  type: list
  elements: str
  sample: [/etc/redis/redis.conf]
notes:
  description: What an operator should know, such as what could not be predicted.
  returned: always
  type: list
  elements: str
  sample: ["not predicted: redis-server.service, which does not exist on the host yet"]
executions:
  description: How many remote executions the task needed.
  returned: always
  type: int
  sample: 1
"""
