# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Package repositories: their .sources files and the keys in them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import typing as t

from .errors import AnchorageError

_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END = "-----END PGP PUBLIC KEY BLOCK-----"


def sources_path(name: str) -> str:
    """Return where the repository of this name is described."""
    return f"/etc/apt/sources.list.d/{name}.sources"


def dearmor(armored: str) -> bytes:
    """Return the packets of an armored public key."""
    block = re.search(re.escape(_BEGIN) + r"(.*?)" + re.escape(_END), armored, re.DOTALL)
    if block is None:
        raise AnchorageError("the key is not an armored OpenPGP public key block")
    lines = [line.strip() for line in block.group(1).strip("\n").split("\n")]
    body = lines[lines.index("") + 1 :] if "" in lines else lines
    try:
        return base64.b64decode("".join(line for line in body if not re.fullmatch(r"=[A-Za-z0-9+/]{4}", line)), validate=True)
    except binascii.Error as error:
        raise AnchorageError(f"the armored key is damaged: {error}") from error


def armor(packets: bytes) -> str:
    """Return packets as an armored public key block (without the optional checksum)."""
    encoded = base64.b64encode(packets).decode()
    lines = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    return "\n".join([_BEGIN, "", *lines, _END]) + "\n"


def _packets(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    """Yield tag and body of each packet (RFC 9580, section 4.2; keys never use partial lengths)."""
    position = 0
    while position < len(data):
        header = data[position]
        if not header & 0x80:
            raise AnchorageError("the key is not made of OpenPGP packets")
        position += 1
        if header & 0x40:
            tag, first = header & 0x3F, data[position]
            if first < 192:
                size, width = first, 1
            elif first < 224:
                size, width = ((first - 192) << 8) + data[position + 1] + 192, 2
            elif first == 255:
                size, width = int.from_bytes(data[position + 1 : position + 5], "big"), 5
            else:
                raise AnchorageError("the key has a packet of partial length")
        else:
            tag, width = (header >> 2) & 0x0F, (1, 2, 4, 0)[header & 3]
            size = int.from_bytes(data[position : position + width], "big") if width else len(data) - position
        position += width
        if position + size > len(data):
            raise AnchorageError("the key is cut short")
        yield tag, data[position : position + size]
        position += size


def fingerprints(packets: bytes) -> list[str]:
    """Return the fingerprints of the primary keys (version 4) in a key file."""
    try:
        found = [
            hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
            for tag, body in _packets(packets)
            if tag == 6 and body[:1] == b"\x04"
        ]
    except IndexError as error:
        raise AnchorageError("the key is cut short") from error
    if not found:
        raise AnchorageError("the key file holds no OpenPGP key of version 4")
    return found


def checked_key(raw: bytes, fingerprint: str | None, where: str) -> str:
    """Return a key as armored text once it is exactly the pinned one."""
    text = raw.decode("ascii", "replace")
    packets = dearmor(text) if _BEGIN in text else raw
    found = fingerprints(packets)
    if fingerprint and found != [fingerprint]:
        raise AnchorageError(f"{where}: the key has fingerprint {', '.join(found)}, expected {fingerprint}; nothing was installed")
    return armor(packets)


def render_sources(repository: t.Mapping[str, t.Any], key: str | None) -> str:
    """Return the text of a .sources file.

    :arg key: armored key to embed, or an absolute path of a key ring on the host, or nothing.
    """
    lines = [
        "# Managed by anchorage.vps.host_state",
        f"X-Repolib-Name: {repository['name']}",
        f"Enabled: {'yes' if repository['enabled'] else 'no'}",
        f"Types: {' '.join(repository['types'])}",
        f"URIs: {' '.join(repository['uris'])}",
        f"Suites: {' '.join(repository['suites'])}",
    ]
    if repository["components"]:
        lines.append(f"Components: {' '.join(repository['components'])}")
    if repository["architectures"]:
        lines.append(f"Architectures: {' '.join(repository['architectures'])}")
    if key and key.startswith("/"):
        lines.append(f"Signed-By: {key}")
    elif key:
        lines.append("Signed-By:")
        lines += [f" {line or '.'}" for line in key.strip("\n").split("\n")]
    return "\n".join(lines) + "\n"


def embedded_key(sources: str) -> str | None:
    """Return the armored key inside a .sources file."""
    match = re.search(r"^Signed-By:[^\n]*\n((?: [^\n]*\n)+)", sources, re.MULTILINE)
    if match is None:
        return None
    return "\n".join("" if line == " ." else line[1:] for line in match.group(1).rstrip("\n").split("\n")) + "\n"


def wanted_sources(repository: t.Mapping[str, t.Any], on_disk: str | None) -> str | None:
    """Return the text the file should have, or None while its key has yet to be fetched.

    A key that comes from a URL is pinned by its fingerprint: the one on disk serves for as long as it has that fingerprint.
    """
    signed_by = repository.get("signed_by")
    where = f"repository {repository['name']}"
    if not signed_by or signed_by.startswith("/"):
        return render_sources(repository, signed_by)
    if signed_by.startswith(_BEGIN):
        return render_sources(repository, checked_key(signed_by.encode(), repository.get("fingerprint"), where))
    key = embedded_key(on_disk) if on_disk else None
    if key is None:
        return None
    try:
        return render_sources(repository, checked_key(key.encode(), repository["fingerprint"], where))
    except AnchorageError:
        return None
