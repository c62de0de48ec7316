# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that are broken, each in its way: the proof finds every one, says what is wrong, and leaves the live data and the target alone."""

from __future__ import annotations

import re

import pytest

from .ground import REPOSITORIES, ground_fixture, host_fixture  # noqa: F401  # pylint: disable=unused-import

DATABASE, FILES = f"{REPOSITORIES}/postgresql", f"{REPOSITORIES}/files"

#: Finds the file to break, the largest first where there are several.
BUNDLE = f"$(find {DATABASE}/backup/main/2*F/bundle -type f -printf '%s %p\\n' | sort -rn | head -1 | cut -d' ' -f2)"
SEGMENT = f"$(find {DATABASE}/archive/main/*/*/ -name '*.zst' | sort | tail -2 | head -1)"
PACK = f"$(find {FILES}/data -type f -printf '%s %p\\n' | sort -rn | head -1 | cut -d' ' -f2)"

FLIP = """python3 -c 'import sys; p = sys.argv[1]; b = bytearray(open(p, "rb").read()); b[len(b) // 2] ^= 1; open(p, "r+b").write(b)' {0}"""
TRUNCATE = "truncate -s -100 {0}"
EMPTY = "truncate -s 0 {0}"
REMOVE = "rm -f {0}"

BROKEN_DATABASE = {
    "a bit of the data is flipped": (FLIP.format(BUNDLE), "damaged|could not be restored"),
    "the data are truncated": (TRUNCATE.format(BUNDLE), "could not be restored"),
    "the data are empty": (EMPTY.format(BUNDLE), "could not be restored"),
    "the data are missing": (REMOVE.format(BUNDLE), "could not be restored"),
    "the manifest is missing": (f"rm {DATABASE}/backup/main/2*F/backup.manifest*", "manifest"),
    "the manifest is damaged": (f"for f in {DATABASE}/backup/main/2*F/backup.manifest*; do {FLIP.format('$f')}; done", "manifest"),
    "the list of backups is missing": (f"rm {DATABASE}/backup/main/backup.info*", "no backup|backup.info"),
    "the list of backups is damaged": (f"for f in {DATABASE}/backup/main/backup.info*; do {FLIP.format('$f')}; done", "backup.info"),
    "there is no backup any more": (f"rm -r {DATABASE}/backup/main", "no backup|backup.info"),
    "the whole repository is gone": (f"rm -r {DATABASE}/*", "no backup|stanza"),
    "a segment of WAL is missing": (REMOVE.format(SEGMENT), "recovery ended before configured recovery target was reached"),
    "a bit of WAL is flipped": (FLIP.format(SEGMENT), "recovery ended before configured recovery target was reached.*pgBackRest said"),
    "a segment of WAL is truncated": (TRUNCATE.format(SEGMENT), "recovery ended before configured recovery target was reached.*pgBackRest said"),
    "a segment of WAL is empty": (EMPTY.format(SEGMENT), "recovery ended before configured recovery target was reached.*pgBackRest said"),
    "the list of WAL is missing": (f"rm {DATABASE}/archive/main/archive.info*", "archive.info"),
    "the key is another one": ("sed -i 's/cipher-pass=0123/cipher-pass=3210/' /etc/pgbackrest.conf", "key"),
    "it is not encrypted as said": ("sed -i '/cipher/d' /etc/pgbackrest.conf", "cannot be read|no backup"),
    "nothing at the target may be read": (f"chown -R root: {DATABASE}; chmod -R go= {DATABASE}", "denied|cannot be read"),
}

BROKEN_FILES = {
    "a bit of a pack is flipped": (FLIP.format(PACK), "damaged"),
    "a pack is truncated": (TRUNCATE.format(PACK), "damaged"),
    "a pack is empty": (EMPTY.format(PACK), "damaged"),
    "a pack is missing": (REMOVE.format(PACK), "damaged"),
    "the index is missing": (f"rm {FILES}/index/*", "damaged"),
    "the index is damaged": (f"for f in {FILES}/index/*; do {FLIP.format('$f')}; done", "damaged"),
    "the snapshot is missing": (f"rm {FILES}/snapshots/*", "holds no snapshot of this host"),
    "the snapshot is damaged": (f"for f in {FILES}/snapshots/*; do {FLIP.format('$f')}; done", "cannot be read|damaged|no snapshot"),
    "the key is missing": (f"rm {FILES}/keys/*", "key"),
    "the key is damaged": (f"for f in {FILES}/keys/*; do {FLIP.format('$f')}; done", "key"),
    "the password is another one": ("""echo '{"key": "wrong"}' > /etc/anchorage/secrets/backup.json""", "the key of this host does not open it"),
    "the configuration is missing": (f"rm {FILES}/config", "cannot be read"),
    "the repository is gone": (f"rm -r {FILES}", "cannot be read"),
}

#: What was wrong before it was saved: what happens before the manifest's digests are made, before it is written, and before all is saved.
SAVED_BROKEN = {
    "a dump is truncated": (("", "", "os.truncate(stage + '/databases/shop.dump', 2000)"), "shop.dump is not what the manifest says"),
    "a truncated dump was taken for good": (("os.truncate(stage + '/databases/shop.dump', 200000)", "", ""), "the dump of shop cannot be restored"),
    "a dump is empty": (("os.truncate(stage + '/databases/shop.dump', 0)", "", ""), "the dump of shop cannot be restored"),
    "a dump is missing": (("", "", "os.unlink(stage + '/databases/shop.dump')"), "shop.dump is missing"),
    "a dump has fewer rows than were there": (
        ("manifest['databases']['shop']['tables']['public.item'] += 1", "", ""),
        "table public.item of shop has 20200 rows",
    ),
    "a dump lacks a table": (("manifest['databases']['shop']['tables']['public.lost'] = 0", "", ""), "table public.lost is missing"),
    "a database was left out": (("manifest['databases'].clear()", "", ""), "does not know databases/shop"),
    "Redis was left out": (("manifest['redis'].clear()", "", ""), "does not know redis/shop-jobs"),
    "the Redis data are truncated": (("os.truncate(stage + '/redis/shop-jobs.rdb', 300)", "", ""), "the Redis data of shop-jobs cannot be read"),
    "the Redis data have fewer keys": (("", "manifest['redis']['shop-jobs']['keys'] = 41", ""), "40 keys, and 41 were saved"),
    "the manifest is missing": (("", "", "os.unlink(stage + '/manifest.json')"), "no manifest.json"),
    "the manifest is no JSON": (("", "", "open(stage + '/manifest.json', 'w').write('{')"), "manifest.json is damaged"),
}

#: A restored cluster that is not what it should be: what is done to it before it is looked at.
PLANTED = {
    "a row is missing": ("DELETE FROM item WHERE id = 4242", "table public.item of shop: it has 20199 rows, and 20200 were to be there"),
    "a value differs": ('UPDATE "Od""d \'Name" SET t = \'y\'', "sampled rows are missing or differ"),
    "a table is missing": ("DROP TABLE parted_1", "table public.parted_1 of shop: it is missing"),
    "an index is damaged": ("UPDATE pg_index SET indisvalid = true WHERE false; SELECT pg_relation_filepath('item_pkey')", "pg_amcheck found damage"),
}


def of(cases):
    """Return cases as parameters that are named by what is broken."""
    return [pytest.param(*case, id=name) for name, case in cases.items()]


def wrong(found, pattern):
    """See that a proof has failed for the right reason."""
    assert found["ok"] is False, found
    assert re.search(pattern, found["cause"]), found["cause"]
    assert "0123456789abcdef" not in str(found)


def test_a_good_backup_is_proven(host):
    for job in ("database", "files"):
        found = host.prove(job)
        assert found["ok"], found["cause"]
        assert found["what"]["databases"]["shop"]["rows"] > 20000


@pytest.mark.parametrize(("breaks", "pattern"), of(BROKEN_DATABASE))
def test_a_broken_backup_of_the_database_is_found(host, breaks, pattern):
    rows = host.sql("SELECT count(*) FROM item")
    host.shell(breaks)
    wrong(host.prove("database", plant="backup_proof.ARCHIVE_SECONDS = 8"), pattern)
    assert host.sql("SELECT count(*) FROM item") == rows
    assert host.sql("SELECT pg_is_in_recovery()") == "f"


@pytest.mark.parametrize(("breaks", "pattern"), of(BROKEN_FILES))
def test_a_broken_repository_of_files_is_found(host, breaks, pattern):
    host.shell(breaks)
    wrong(host.prove("files"), pattern)


@pytest.mark.parametrize(("statements", "pattern"), of(SAVED_BROKEN))
def test_what_was_saved_broken_is_found(host, statements, pattern):
    host.files(*statements)
    wrong(host.prove("files"), pattern)


@pytest.mark.parametrize(("sql", "pattern"), of(PLANTED))
def test_a_copy_that_differs_is_found(host, sql, pattern):
    damage = (
        ""
        if "index" not in sql
        else (
            "path = self.data + '/' + self.psql('shop', \"SELECT pg_relation_filepath('item_pkey')\")\n"
            "    self.psql('shop', 'CHECKPOINT')\n"
            "    self.world.run(['systemctl', 'stop', self.unit])\n"
            "    raw = bytearray(open(path, 'rb').read())\n"
            "    raw[3 * 8192 + 4000:3 * 8192 + 8100] = bytes(reversed(raw[3 * 8192 + 4000:3 * 8192 + 8100]))\n"
            "    open(path, 'r+b').write(raw)\n"
            "    start(self, seconds)\n"
        )
    )
    plant = (
        "start = scratch_cluster.Scratch.start\n"
        "def planted(self, seconds, tcp_port=None):\n"
        "    ended = start(self, seconds)\n"
        f"    self.psql('shop', {sql!r})\n"
        f"    {damage or 'pass'}\n"
        "    return ended\n"
        "scratch_cluster.Scratch.start = planted\n"
    )
    wrong(host.prove("database", plant=plant), pattern)


def test_where_the_live_server_is_away_the_copy_is_judged_by_itself(host):
    host.shell("systemctl stop postgresql@$(ls /usr/lib/postgresql)-main")
    try:
        found = host.prove("database")
        assert found["ok"], found["cause"]
        assert found["what"]["compared"] is False
        assert found["what"]["databases"]["shop"]["newest_release"] == "shop r1"
        assert found["what"]["age_seconds"] >= 0
        # To PostgreSQL, damaged WAL looks like the end of it: nobody but the proof says that something is missing.
        host.shell(FLIP.format(SEGMENT))
        wrong(host.prove("database"), "recovery ended at .* though the archive reaches to segment")
    finally:
        host.shell("systemctl start postgresql@$(ls /usr/lib/postgresql)-main")
