# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import grp
import hashlib
import io
import json
import os
import pwd

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.host_state import Engine
from ansible_collections.anchorage.vps.plugins.module_utils.host_state_spec import normalise
from ansible_collections.anchorage.vps.plugins.module_utils.host_state_tree import Tree
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

ME = pwd.getpwuid(os.getuid()).pw_name
MINE = grp.getgrgid(os.getgid()).gr_name
UNIT = {"name": "shop", "enabled": None, "state": None, "masked": None, "restart_on": ["/etc/shop/"], "reload_on": ["/etc/sites/"]}


class Host(World):
    """A host with one unit that became active at second 1000, on a clock that stands at 2000."""

    def __init__(self):
        self.invocation = "first"
        self.state = "active"
        self.commands = []
        self.refused = ()
        self.since = 1000.0

    def now(self):
        return 2000.0

    def monotonic(self):
        return 2000.0

    def run(self, argv, **options):
        self.commands.append(list(argv))
        if argv[:2] == ["systemctl", "show"]:
            return Completed(
                0,
                f"Id=shop.service\nLoadState=loaded\nActiveState={self.state}\nUnitFileState=enabled\nNeedDaemonReload=no\n"
                f"InvocationID={self.invocation}\nActiveEnterTimestampMonotonic={int(self.since * 1e6)}\n",
                "",
            )
        if argv[0] == "systemctl":
            return Completed(int(argv[3] in self.refused), "", "Job for it failed\n" * (argv[3] in self.refused)) if len(argv) > 3 else Completed(0, "", "")
        if argv[0] == "journalctl":
            return Completed(0, "its last words\n", "")
        return super().run(argv, **options)


@pytest.fixture
def host(tmp_path):
    for name in ("shop", "sites"):
        (tmp_path / "etc" / name).mkdir(parents=True)
        write(tmp_path, f"etc/{name}/a", "one", 900)
    return Host()


def write(root, path, text, mtime):
    (root / path).write_text(text)
    os.chmod(root / path, 0o644)
    os.utime(root / path, (mtime, mtime))


def engine(host, root, fetch=None):
    known = {"root": os.getuid(), ME: os.getuid()}
    groups = {"root": os.getgid(), MINE: os.getgid()}
    return Engine(host, Tree(str(root), uid=known.get, gid=groups.get), fetch=fetch, records=str(root / "run"), root=str(root))


def document(files=(), unit=None, **more):
    wire = [
        {"path": path, "owner": ME, "group": MINE, "mode": "0644", "secret": False, "sha256": hashlib.sha256(text.encode()).hexdigest()} for path, text in files
    ]
    normal = normalise({"units": [{**UNIT, **(unit or {})}], **more})
    return {**normal, "files": wire}


def contents(*files):
    return {path: base64.b64encode(text.encode()).decode() for path, text in files}


def verdict(host, root, **options):
    return engine(host, root).read(document(**options))["units"]["off"]


def test_a_unit_that_is_younger_than_its_files_is_left_alone(host, tmp_path):
    assert verdict(host, tmp_path) == []


def test_without_a_record_a_file_younger_than_the_unit_means_a_restart(host, tmp_path):
    write(tmp_path, "etc/shop/a", "one", 1500)
    assert verdict(host, tmp_path)[0]["after"] == {"state": "restarted"}


def test_a_reload_is_enough_for_files_of_reload_on(host, tmp_path):
    write(tmp_path, "etc/sites/a", "one", 1500)
    assert verdict(host, tmp_path)[0]["after"] == {"state": "reloaded"}


def test_what_a_read_saw_loaded_is_remembered_so_that_an_old_file_put_in_place_is_seen(host, tmp_path):
    verdict(host, tmp_path)
    write(tmp_path, "etc/shop/a", "two", 500)
    assert verdict(host, tmp_path)[0]["because"] == ["/etc/shop/a"]


def test_check_mode_remembers_nothing(host, tmp_path):
    engine(host, tmp_path).read(document(), check=True)
    assert not (tmp_path / "run").exists()


def test_a_removed_file_is_seen(host, tmp_path):
    verdict(host, tmp_path)
    (tmp_path / "etc/shop/a").unlink()
    assert verdict(host, tmp_path)[0]["because"] == ["/etc/shop/a"]


def test_a_run_that_dies_before_the_restart_is_made_up_for(host, tmp_path):
    verdict(host, tmp_path)
    wanted = [("/etc/shop/a", "two")]
    engine(host, tmp_path).apply(document(wanted), contents(*wanted))
    again = engine(host, tmp_path).read(document(wanted))
    assert again["tree"] == []
    assert again["units"]["off"][0]["after"] == {"state": "restarted"}


def test_a_hand_that_changed_and_loaded_a_file_does_not_fool_the_record(host, tmp_path):
    verdict(host, tmp_path)
    write(tmp_path, "etc/sites/a", "by hand, and reloaded by hand", 1500)
    wanted = [("/etc/sites/a", "one")]
    answer = engine(host, tmp_path).apply(document(wanted), contents(*wanted), act=True)
    assert answer["acted"][0]["after"] == {"state": "reloaded"}


def test_once_settled_nothing_is_off(host, tmp_path):
    wanted = [("/etc/shop/a", "two")]
    engine(host, tmp_path).apply(document(wanted), contents(*wanted))
    host.invocation, host.since = "second", 1.0
    engine(host, tmp_path).settle(document(wanted), {"shop.service": "restarted"}, confirmed=False)
    assert verdict(host, tmp_path, files=wanted) == []


def test_a_reload_does_not_pass_for_a_restart(host, tmp_path):
    verdict(host, tmp_path)
    write(tmp_path, "etc/shop/a", "two", 500)
    engine(host, tmp_path).settle(document(), {"shop.service": "reloaded"}, confirmed=False)
    assert verdict(host, tmp_path)[0]["after"] == {"state": "restarted"}


def test_a_unit_that_failed_after_its_restart_is_an_error_that_names_it(host, tmp_path):
    host.state = "failed"
    with pytest.raises(AnchorageError) as raised:
        engine(host, tmp_path).settle(document(), {"shop.service": "restarted"}, confirmed=False)
    assert raised.value.message.startswith("shop.service was restarted and has failed since")


def test_check_mode_predicts_the_restart_that_a_planned_file_causes(host, tmp_path):
    answer = engine(host, tmp_path).read(document([("/etc/shop/new", "x")]), check=True)
    assert answer["units"]["off"][0] == {
        "name": "shop.service",
        "before": {"state": "active"},
        "after": {"state": "restarted"},
        "because": ["/etc/shop/new"],
    }


def test_a_unit_file_makes_the_manager_reload(host, tmp_path):
    wanted = [("/etc/systemd/system/shop.service", "[Service]\n")]
    assert engine(host, tmp_path).apply(document(wanted), contents(*wanted))["daemon_reload"]
    assert ["systemctl", "daemon-reload"] in host.commands


def test_what_changed_between_reading_and_installing_stops_it(host, tmp_path):
    with pytest.raises(AnchorageError) as raised:
        engine(host, tmp_path).apply(document([("/etc/shop/a", "two")]), {})
    assert "changed on the host while it was worked on" in raised.value.message
    assert (tmp_path / "etc/shop/a").read_text() == "one"


def test_texts_of_secret_files_never_leave_the_host(host, tmp_path):
    wanted = document([("/etc/shop/a", "two")])
    wanted["files"][0]["secret"] = True
    change = engine(host, tmp_path).read(wanted, texts=True)["tree"][0]
    assert "text" not in change and "one" not in str(change)


def test_packages_are_read_only_when_the_document_speaks_of_them(host, tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text("Package: a\nStatus: install ok unpacked\nVersion: 1\n")
    assert engine(host, tmp_path).read(document())["packages"]["broken"] == []
    assert engine(host, tmp_path).read(document(packages=["a1"]))["packages"]["broken"] == ["a"]


REPOSITORY = {
    "name": "r",
    "uris": ["https://deb.example.com"],
    "suites": ["x"],
    "components": [],
    "types": ["deb"],
    "architectures": [],
    "enabled": True,
    "signed_by": "https://deb.example.com/key",
    "fingerprint": "0" * 40,
}


def test_a_key_that_cannot_be_fetched_stops_it_before_any_repository_changes(host, tmp_path):
    def fetch(url, timeout):
        raise OSError("no route to host")

    with pytest.raises(AnchorageError) as raised:
        engine(host, tmp_path, fetch).repositories(document(repositories=[REPOSITORY]))
    assert "the key of r could not be read from https://deb.example.com/key: no route to host" in raised.value.message
    assert not (tmp_path / "etc/apt").exists()


def test_a_key_that_is_not_the_pinned_one_is_refused(host, tmp_path):
    with pytest.raises(AnchorageError):
        engine(host, tmp_path, lambda url, timeout: io.BytesIO(b"something else")).repositories(document(repositories=[REPOSITORY]))
    assert not (tmp_path / "etc/apt").exists()


def verbs(host):
    return [command[3] for command in host.commands if command[:2] == ["systemctl", "--quiet"]]


def test_units_follow_their_files_in_one_go(host, tmp_path):
    engine(host, tmp_path).read(document())
    files = [("/etc/shop/a", "two")]
    answer = engine(host, tmp_path).apply(document(files), contents(*files), act=True)
    assert verbs(host) == ["restart"] and answer["failure"] is None
    assert answer["acted"][0]["because"] == ["/etc/shop/a"]


def test_without_the_word_no_unit_is_touched(host, tmp_path):
    files = [("/etc/shop/a", "two")]
    answer = engine(host, tmp_path).apply(document(files), contents(*files))
    assert verbs(host) == [] and "acted" not in answer


def test_a_unit_that_does_not_follow_ends_it_and_says_its_last_words(host, tmp_path):
    write(tmp_path, "etc/shop/a", "one", 1500)
    host.refused = ("restart",)
    answer = engine(host, tmp_path).act(document(), settle=True)
    assert answer["acted"] == [] and answer["failure"]["log"] == "its last words"
    assert "systemctl restart shop.service failed: Job for it failed" in answer["failure"]["msg"] and "Next:" in answer["failure"]["msg"]


def test_what_a_unit_loaded_is_remembered_once_it_was_acted_on(host, tmp_path):
    write(tmp_path, "etc/shop/a", "one", 1500)
    engine(host, tmp_path).act(document(), settle=True)
    assert verdict(host, tmp_path) == []
    engine(host, tmp_path).act(document(), settle=False)
    assert verbs(host) == ["restart"]


def test_a_read_that_is_offered_the_contents_puts_files_and_units_right(host, tmp_path):
    engine(host, tmp_path).read(document())
    files = [("/etc/shop/a", "two")]
    answer = engine(host, tmp_path).read(document(files), offered=contents(*files))
    assert answer["applied"]["acted"][0]["name"] == "shop.service" and (tmp_path / "etc/shop/a").read_text() == "two"


@pytest.mark.parametrize("more", [{"groups": [{"name": "nobody-has-this-group"}]}, {"packages": ["nobody-has-this-package"]}])
def test_what_other_modules_do_first_comes_first(host, tmp_path, more):
    files = [("/etc/shop/a", "two")]
    answer = engine(host, tmp_path).read(document(files, **more), offered=contents(*files))
    assert "applied" not in answer and (tmp_path / "etc/shop/a").read_text() == "one"


class AptHost(Host):
    """A host whose apt-get answers what a test wrote down."""

    def __init__(self, *answers):
        super().__init__()
        self.answers, self.asked, self.slept = list(answers), [], 0

    def run(self, argv, **options):
        if argv[0] == "apt-cache":
            return Completed(0, " nodejs | 22.1.0-1 | repo\n nodejs | 20.9.0-2 | repo\n nodejs | 20.8.0-1 | repo\n", "")
        if argv[0] != "apt-get":
            return super().run(argv, **options)
        words = [word for word in argv[1:] if not word.startswith(("-", "DPkg", "Dpkg", "APT"))]
        self.asked.append(" ".join(words))
        self.policy = self.read(self.policy_path)
        assert options["env"]["DEBIAN_FRONTEND"] == "noninteractive" and "Dpkg::Options::=--force-confold" in argv
        return self.answers.pop(0) if self.answers else Completed(0, "", "")

    def sleep(self, seconds):
        self.slept += seconds


def apt(root, *answers, lists=True):
    """Return such a host, with lists of packages or without, and its engine."""
    host = AptHost(*answers)
    host.policy_path = str(root / "usr/sbin/policy-rc.d")
    (root / "usr/sbin").mkdir(parents=True)
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
    if lists:
        (root / "var/lib/apt/lists").joinpath("mirror_InRelease").touch()
        os.utime(root / "var/lib/apt/lists/mirror_InRelease", (1900, 1900))
    return host, engine(host, root)


STALE = Completed(100, "", "E: Failed to fetch nginx_1.deb  404  Not Found\n")


@pytest.mark.parametrize(
    ("answers", "options", "asked"),
    [
        ([], {}, ["install nginx"]),
        ([], {"refresh": True}, ["update", "install nginx"]),
        ([], {"lists": False}, ["update", "install nginx"]),
        ([STALE], {}, ["install nginx", "update", "install nginx"]),
    ],
    ids=["fresh lists", "a new repository", "no lists", "stale lists"],
)
def test_lists_are_fetched_when_they_cannot_be_right(tmp_path, answers, options, asked):
    host, found = apt(tmp_path, *answers, lists=options.get("lists", True))
    found.packages(["nginx"], [], refresh=options.get("refresh", False))
    assert host.asked == asked


def test_no_service_starts_meanwhile_and_what_said_so_goes_again(tmp_path):
    host, found = apt(tmp_path)
    found.packages(["nginx"], ["telnet"], refresh=False)
    assert host.asked == ["install nginx", "remove telnet"]
    assert b"exit 101" in host.policy and not (tmp_path / "usr/sbin/policy-rc.d").exists()
    (tmp_path / "usr/sbin/policy-rc.d").write_text("somebody's own")
    found.packages(["nginx"], [], refresh=False)
    assert (tmp_path / "usr/sbin/policy-rc.d").read_text() == "somebody's own"


def test_wildcards_become_the_newest_version_that_fits(tmp_path):
    host, found = apt(tmp_path)
    found.packages(["nodejs=20.*"], [], refresh=False)
    assert host.asked == ["install nodejs=20.9.0-2"]


def test_what_apt_cannot_do_is_said_in_its_words_and_leaves_no_policy(tmp_path):
    host, found = apt(tmp_path, Completed(100, "", "reading\nE: Unable to locate package nginks\n"), Completed(0, "", ""), STALE)
    with pytest.raises(AnchorageError, match="apt-get: nginks could not be installed: E: Failed to fetch") as error:
        found.packages(["nginks"], [], refresh=False)
    assert "packages or repositories" in error.value.next_step
    assert not (tmp_path / "usr/sbin/policy-rc.d").exists() and host.asked == ["install nginks", "update", "install nginks"]


def test_a_repository_of_somebody_else_that_is_away_does_not_keep_ours_from_working(tmp_path):
    broken = Completed(100, "", "E: Failed to fetch https://example.com/InRelease\n")
    host, found = apt(tmp_path, broken, broken, broken)
    found.packages(["nginx"], [], refresh=True)
    assert host.asked == ["update", "update", "update", "install nginx"] and host.slept == 4


def test_locked_lists_are_waited_for(tmp_path):
    locked = Completed(100, "", "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7\n")
    host, found = apt(tmp_path, *[locked] * 9)
    found.packages(["nginx"], [], refresh=True)
    assert host.asked == ["update"] * 10 + ["install nginx"]


def kept(root):
    path = root / "var/lib/anchorage/files.json"
    return {name: entry.get("sha256", entry["kind"]) for name, entry in json.loads(path.read_text()).items()} if path.exists() else None


def test_what_was_installed_is_kept_for_a_diagnosis(host, tmp_path):
    wanted = [("/etc/shop/a", "two")]
    digest = hashlib.sha256(b"two").hexdigest()
    engine(host, tmp_path).read(document(wanted), check=True)
    assert kept(tmp_path) is None, "a check remembers nothing"
    engine(host, tmp_path).read(document(wanted))
    assert kept(tmp_path) in (None, {}), "what is off is not what provisioning left"
    engine(host, tmp_path).apply(document(wanted), contents(*wanted), check=True)
    assert kept(tmp_path) in (None, {})
    engine(host, tmp_path).apply(document(wanted), contents(*wanted))
    assert kept(tmp_path) == {"/etc/shop/a": digest}
    (tmp_path / "etc/shop/a").write_text("by hand")
    engine(host, tmp_path).read(document(wanted))
    assert kept(tmp_path) == {"/etc/shop/a": digest}, "an edit is not what provisioning left"
    engine(host, tmp_path).apply(document([], absent=["/etc/shop/a"]), {})
    assert kept(tmp_path) == {"/etc/shop/a": "removed"}
    engine(host, tmp_path).read(document([("/etc/shop/b", "three")]))
    engine(host, tmp_path).apply(document([("/etc/shop/b", "three")]), contents(("/etc/shop/b", "three")))
    (tmp_path / "etc/shop/b").unlink()
    engine(host, tmp_path).read(document([], absent=["/etc/shop/*"]))
    assert kept(tmp_path)["/etc/shop/b"] == "removed", "somebody else was faster"


def test_a_file_that_was_right_already_is_kept_too(host, tmp_path):
    engine(host, tmp_path).read(document([("/etc/shop/a", "one")]))
    assert kept(tmp_path) == {"/etc/shop/a": hashlib.sha256(b"one").hexdigest()}


def test_what_is_in_a_private_file_that_is_removed_is_not_shown(host, tmp_path):
    place = tmp_path / "etc/shop"
    for name, mode in (("private", 0o640), ("public", 0o644)):
        (place / name).write_text(f"{name} words")
        (place / name).chmod(mode)
    told = engine(host, tmp_path).read(document([], absent=["/etc/shop/p*"]), texts=True)["tree"]
    assert {change["path"]: change.get("text") for change in told} == {"/etc/shop/private": None, "/etc/shop/public": "public words"}
