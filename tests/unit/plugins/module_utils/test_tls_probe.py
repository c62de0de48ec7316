# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import ssl

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import tls_probe
from ansible_collections.anchorage.vps.plugins.module_utils.certificates import TlsWorld, make_bootstrap
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.tls_probe import Expectation, Target, check
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import Authority, Stub, fine, hang_at_once, within

#: To be sure that no old protocol is spoken, it must be tried.
pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion")

DAY = 86400
TIMER = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nUnit=certbot.service\n"
SERVICE = "Result=success\nExecMainStatus=0\n"


class Later(World):
    """A world whose calendar is ahead, and whose systemd says what a test wants."""

    def __init__(self, days: float = 0, units: dict[str, str] | None = None) -> None:
        self.days, self.units = days, units or {}

    def now(self) -> float:
        return super().now() + self.days * DAY

    def run(self, argv, **more):
        if argv[0] == "systemctl":
            return Completed(0, self.units.get(argv[-1], "LoadState=not-found\n"), "")
        return super().run(argv, **more)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")), "good")


@pytest.fixture
def serve():
    stubs = []

    def start(pair, behaviour=fine):
        stubs.append(Stub(behaviour, tls=pair))
        return stubs[-1]

    yield start
    for stub in stubs:
        stub.close()


def ask(stub, *, names=("shop.test",), ca_path=None, world=None, deadline_seconds=3, **wanted):
    target = Target(names, f"127.0.0.1:{stub.port}", ca_path, 2)
    found = check(target, Expectation(**wanted), world=world or Later(), deadline_seconds=deadline_seconds, interval_seconds=5)
    return found, {item.name: item for item in found.checks}


def test_a_trusted_certificate_is_healthy_and_tells_how_long_it_lives(authority, serve):
    pair = authority.issue("shop.test", 80)
    found, checks = ask(serve(pair), ca_path=authority.certificate, certificate_path=pair[0])
    assert found.healthy and found.grade == "ok", found.message
    assert found.extra["protocol"] == "TLSv1.3" and 79 < found.extra["days_left"] <= 80
    assert set(checks) == {"certificate:shop.test", "lifetime:shop.test", "protocol", "served"}
    assert checks["certificate:shop.test"].evidence["names"] == ["shop.test"] and "good" in checks["certificate:shop.test"].evidence["issuer"]


@pytest.mark.parametrize(
    ("lifetime", "passed", "grade"),
    [
        (80, 0, "ok"),
        (80, 55, "ok"),
        (80, 57, "warn"),
        (80, 71, "warn"),
        (80, 73, "fail"),
        (6, 4, "ok"),
        (6, 4.3, "warn"),
        (6, 5.5, "fail"),
        (365, 330, "ok"),  # 35 days are left, which is in time for who renews at 30
        (365, 340, "warn"),
        (365, 357, "fail"),
    ],
)
def test_what_is_left_is_judged_as_a_share_of_the_lifetime(authority, serve, lifetime, passed, grade):
    found, checks = ask(serve(authority.issue("shop.test", lifetime)), ca_path=authority.certificate, world=Later(passed))
    assert checks["lifetime:shop.test"].verdict == grade == found.grade
    if grade != "ok":
        assert "its renewal is overdue" in found.message and "days are left to shop.test" in found.message


def test_an_expired_certificate_is_named_as_such(authority, serve, tmp_path):
    expired = Authority(str(tmp_path), "old")
    pair = expired.issue("shop.test", -1)
    found, checks = ask(serve(pair), ca_path=expired.certificate)
    assert not found.healthy and "the certificate of shop.test expired" in found.message and "days ago" in found.message
    assert "lifetime:shop.test" not in checks


def test_a_stranger_signed_it(authority, serve, tmp_path):
    found, _checks = ask(serve(Authority(str(tmp_path), "stranger").issue("shop.test")), ca_path=authority.certificate)
    assert not found.healthy and "ends at nobody that is trusted here" in found.message and "stranger" in found.message
    lenient, _checks = ask(serve(Authority(str(tmp_path), "private").issue("shop.test")), ca_path=authority.certificate, untrusted="warn")
    assert lenient.grade == "warn"


def test_the_wrong_name_says_which_names_it_has(authority, serve):
    found, checks = ask(serve(authority.issue("other.test", 80)), names=["shop.test", "other.test"], ca_path=authority.certificate)
    assert not found.healthy and "the certificate served for shop.test is for other.test" in found.message
    assert checks["certificate:other.test"].verdict == "ok"


def test_the_stand_in_is_told_from_other_self_signed_certificates(serve, tmp_path):
    fullchain, key = make_bootstrap(TlsWorld(), str(tmp_path / "made"), ["shop.test"])
    pair = (str(tmp_path / "chain.pem"), str(tmp_path / "key.pem"))
    for path, data in zip(pair, (fullchain, key)):
        with open(path, "wb") as stream:
            stream.write(data)
    found, _checks = ask(serve(pair))
    assert not found.healthy and "no authority has issued its certificate yet" in found.message
    lenient, checks = ask(serve(pair), untrusted="warn")
    assert lenient.healthy and checks["certificate:shop.test"].verdict == "warn"


def test_the_root_itself_is_self_signed(authority, serve):
    found, _checks = ask(serve((authority.certificate, f"{authority.base}.key")), names=["good"])
    assert not found.healthy and "is self-signed" in found.message


def test_a_renewed_certificate_that_is_not_served_is_found(authority, serve):
    served, renewed = authority.issue("shop.test", 80), authority.issue("shop.test", 79)
    found, checks = ask(serve(served), ca_path=authority.certificate, certificate_path=renewed[0])
    assert not found.healthy and f"another certificate is served than the one in {renewed[0]}" in found.message
    assert checks["certificate:shop.test"].verdict == "ok" and "reload nginx" in found.message


@pytest.mark.parametrize(("content", "words"), [(None, "there is no certificate at"), ("rubbish", "holds no certificate")])
def test_the_file_on_the_disk_is_no_certificate(authority, serve, tmp_path, content, words):
    path = tmp_path / "fullchain.pem"
    if content:
        path.write_text(content)
    found, _checks = ask(serve(authority.issue("shop.test", 80)), ca_path=authority.certificate, certificate_path=str(path))
    assert not found.healthy and words in found.message


def test_an_old_protocol_is_refused_by_the_floor(authority, serve):
    stub = serve(authority.issue("shop.test", 80))
    found, _checks = ask(stub, ca_path=authority.certificate, min_protocol="TLSv1.3")
    assert not found.healthy and "it agrees on TLSv1.2, wanted TLSv1.3 at least" in found.message
    stub.context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert ask(stub, ca_path=authority.certificate, min_protocol="TLSv1.3")[0].healthy
    stub.context.set_ciphers("ALL:@SECLEVEL=0")
    stub.context.minimum_version = ssl.TLSVersion.TLSv1
    found, _checks = ask(stub, ca_path=authority.certificate)
    assert not found.healthy and "it agrees on TLSv1" in found.message


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ({}, "there is no certbot.timer"),
        ({"certbot.timer": TIMER.replace("active\n", "inactive\n"), "certbot.service": SERVICE}, "certbot.timer is inactive"),
        ({"certbot.timer": TIMER.replace("enabled", "disabled"), "certbot.service": SERVICE}, "gone after a boot"),
        ({"certbot.timer": TIMER, "certbot.service": "Result=exit-code\nExecMainStatus=1\n"}, "the last run of certbot.service ended with exit-code (code 1)"),
    ],
)
def test_a_renewal_that_does_not_come_is_found_before_the_certificate_expires(authority, serve, units, words):
    stub = serve(authority.issue("shop.test", 80))
    found, _checks = ask(stub, ca_path=authority.certificate, world=Later(units=units), renewal_timer="certbot.timer")
    assert found.healthy and found.grade == "warn" and words in found.message


def test_a_renewal_that_is_alive(authority, serve):
    world = Later(units={"certbot.timer": TIMER, "certbot.service": SERVICE})
    found, _checks = ask(serve(authority.issue("shop.test", 80)), ca_path=authority.certificate, world=world, renewal_timer="certbot.timer")
    assert found.healthy, found.message


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = check(Target(["shop.test"], f"127.0.0.1:{port}"), Expectation(), world=Later(), deadline_seconds=1)
    assert not found.healthy and "refused the connection" in found.message


def test_a_server_without_tls_and_one_that_hangs(serve):
    plain = Stub(fine)
    found, _checks = ask(plain)
    plain.close()
    assert not found.healthy and "does not agree on TLS" in found.message
    silent = Stub(hang_at_once)
    with within(4):
        found, _checks = ask(silent)
    silent.close()
    assert not found.healthy


def test_a_server_that_never_answers_the_handshake_costs_one_timeout():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        target = Target(["a.test", "b.test"], f"127.0.0.1:{mute.getsockname()[1]}", None, 1)
        with within(4):
            found = check(target, Expectation(), world=Later(), deadline_seconds=2)
    assert not found.healthy and "did not finish the TLS handshake" in found.message


@pytest.mark.parametrize(
    ("target", "wanted", "words"),
    [
        (Target([]), Expectation(), "names must have"),
        (Target(["a"], "x:y:z"), Expectation(), "must look like"),
        (Target(["a"], ca_path="/nowhere"), Expectation(), "/nowhere cannot be used"),
        (Target(["a"]), Expectation(warn_percent=5), "fail_percent <= warn_percent"),
    ],
)
def test_a_question_without_sense(target, wanted, words):
    with pytest.raises(AnchorageError, match=words):
        check(target, wanted, world=Later())


def test_a_wildcard_is_asked_for_by_one_of_its_members(authority, serve):
    found, checks = ask(serve(authority.issue("*.shop.test", 80)), names=["*.shop.test"], ca_path=authority.certificate)
    assert found.healthy and "certificate:*.shop.test" in checks


def test_the_protocols_of_the_floor_have_one_below_each():
    assert set(tls_probe.BELOW) == set(tls_probe.PROTOCOLS)
