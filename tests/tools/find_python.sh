#!/bin/sh
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Print the newest Python that can make the virtual environment. As root on Debian, python3-venv is installed where it is missing.
set -eu

usable() { "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

search() {
    for minor in 13 12 11; do
        for candidate in \
            "$(command -v "python3.$minor" || :)" \
            "$HOME/.pyenv/versions/3.$minor."*/bin/"python3.$minor" \
            "/usr/bin/python3.$minor" \
            "/usr/local/bin/python3.$minor"; do
            if [ -x "$candidate" ] && usable "$candidate"; then
                echo "$candidate"
                return 0
            fi
        done
    done
    return 1
}

search && exit 0
if [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then
    {
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3 python3-venv
    } >&2
    search && exit 0
fi
echo "No Python 3.11, 3.12 or 3.13 with venv and ensurepip was found: install one (on Debian 12 and 13: apt install python3-venv)." >&2
exit 1
