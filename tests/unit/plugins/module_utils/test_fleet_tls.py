# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's authority and its certificates, made by the real openssl: what is made once, what is made anew and when, and what leaves a host."""

from __future__ import annotations

import grp
import json
import os
import pathlib
import ssl
import subprocess

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import fleet_tls, secret_store
from ansible_collections.anchorage.vps.plugins.module_utils.certificates import DAY, Certificate, TlsWorld, read_certificate
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.fleet_tls import Wanted, takes_plain

from .engine_fakes import make, place

WANTED = Wanted.of(["cache1"], ["10.0.0.22", "127.0.0.1"])


class LaterWorld(TlsWorld):
    """The real one, some days later, writing as whoever runs the tests."""

    days = 0.0

    def now(self):
        return super().now() + self.days * DAY

    def write_atomic(self, path, data, *, mode, uid=None, gid=None):
        super().write_atomic(path, data, mode=mode)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A host of which the paths are elsewhere."""
    for name, path in {"TLS": "", "AUTHORITY": "/ca.pem", "TRUSTED": "/trusted.pem", "KEY": "/server.key", "CERTIFICATE": "/server.pem"}.items():
        monkeypatch.setattr(fleet_tls, name, f"{tmp_path}/tls{path}")
    group = grp.getgrgid(os.getgid()).gr_name
    monkeypatch.setattr(fleet_tls, "READERS", {name: (group, f"{tmp_path}/tls/{name}.pem") for name in fleet_tls.READERS})
    monkeypatch.setattr(secret_store, "SECRETS", f"{tmp_path}/secrets")
    (tmp_path / "secrets").mkdir()
    return LaterWorld()


def served(world, wanted=WANTED, services=("redis",)):
    """Bring a host to its certificate, as the playbook does. Returns the authority's."""
    certificate, _made = fleet_tls.authority(world, check=False)
    fleet_tls.trust(world, certificate, check=False)
    request, _why, _changed = fleet_tls.ask(world, certificate, wanted, services, check=False)
    fleet_tls.install(world, fleet_tls.sign(world, request, wanted), wanted, services)
    return certificate


def text(path):
    return pathlib.Path(path).read_text()


def shown(path):
    return subprocess.run(["openssl", "x509", "-in", path, "-noout", "-text"], capture_output=True, text=True, check=True).stdout


class TestAuthority:
    def test_it_is_made_once_and_its_key_is_in_no_answer(self, world):
        certificate, made = fleet_tls.authority(world, check=False)
        assert made and "PRIVATE" not in certificate
        assert fleet_tls.authority(world, check=False) == (certificate, False)
        kept = pathlib.Path(secret_store.path_of(fleet_tls.KEPT))
        assert kept.stat().st_mode & 0o777 == 0o600 and "PRIVATE KEY" in json.loads(kept.read_text())["key"]
        assert os.listdir(secret_store.SECRETS) == [kept.name], "nothing of the making is left"

    def test_check_mode_makes_none(self, world):
        assert fleet_tls.authority(world, check=True) == ("", True)
        assert os.listdir(secret_store.SECRETS) == []

    @pytest.mark.parametrize("kept", ['{"key": "x"}', '{"certificate": "x"}', "{"])
    def test_a_damaged_one_is_named_and_none_is_made_in_its_place(self, world, kept):
        path = pathlib.Path(secret_store.path_of(fleet_tls.KEPT))
        path.write_text(kept)
        with pytest.raises(AnchorageError, match=r"fleet\.ca\.json"):
            fleet_tls.authority(world, check=False)
        assert path.read_text() == kept

    def test_it_may_sign_servers_and_no_other_authority(self, world):
        certificate = served(world)
        assert "CA:TRUE, pathlen:0" in shown(fleet_tls.AUTHORITY) and "CA:FALSE" in shown(fleet_tls.CERTIFICATE)
        assert read_certificate(world, certificate.encode()).days_left(world.now()) > 3640

    def test_a_host_without_it_signs_nothing(self, world):
        with pytest.raises(AnchorageError, match="does not keep the fleet's authority"):
            fleet_tls.sign(world, "request", WANTED)

    def test_no_certificate_outlives_it(self, world, monkeypatch):
        monkeypatch.setattr(fleet_tls, "AUTHORITY_DAYS", 20)
        certificate = served(world)
        authority, server = (read_certificate(world, pem) for pem in (certificate.encode(), world.read(fleet_tls.CERTIFICATE)))
        assert authority.not_after - DAY <= server.not_after <= authority.not_after
        world.days = 21
        with pytest.raises(AnchorageError, match="has expired"):
            fleet_tls.sign(world, "request", WANTED)


class TestServer:
    def test_its_certificate_is_for_what_the_contract_says_whatever_it_asks_for(self, world):
        certificate, _made = fleet_tls.authority(world, check=False)
        fleet_tls.trust(world, certificate, check=False)
        os.makedirs(fleet_tls.TLS, exist_ok=True)
        pathlib.Path(fleet_tls.KEY).write_text(fleet_tls.new_key(world))
        argv = ["openssl", "req", "-new", "-key", fleet_tls.KEY, "-subj", "/CN=db1", "-addext", "subjectAltName=DNS:db1"]
        request = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        fleet_tls.install(world, fleet_tls.sign(world, request, WANTED), WANTED, ["redis"])
        assert "db1" not in shown(fleet_tls.CERTIFICATE)
        names = next(line for line in shown(fleet_tls.CERTIFICATE).splitlines() if "DNS:" in line)
        assert fleet_tls.said(names) == set(WANTED.extension.split(","))

    def test_nothing_is_done_twice(self, world):
        certificate = served(world)
        before = {name: text(f"{fleet_tls.TLS}/{name}") for name in os.listdir(fleet_tls.TLS)}
        assert fleet_tls.ask(world, certificate, WANTED, ["redis"], check=False) == ("", "", False)
        assert fleet_tls.trust(world, certificate, check=False) is False
        assert {name: text(f"{fleet_tls.TLS}/{name}") for name in os.listdir(fleet_tls.TLS)} == before

    def test_key_and_certificate_are_in_one_file_that_its_service_alone_may_read(self, world):
        served(world)
        path = pathlib.Path(fleet_tls.READERS["redis"][1])
        assert path.stat().st_mode & 0o777 == 0o640 and pathlib.Path(fleet_tls.KEY).stat().st_mode & 0o777 == 0o600
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, path)
        assert not os.path.exists(fleet_tls.READERS["postgresql"][1]), "who serves nothing gets nothing"

    def test_a_service_that_comes_later_gets_what_is_there(self, world):
        certificate = served(world)
        assert fleet_tls.ask(world, certificate, WANTED, ["redis", "postgresql"], check=True) == ("", "", True)
        assert not os.path.exists(fleet_tls.READERS["postgresql"][1])
        assert fleet_tls.ask(world, certificate, WANTED, ["redis", "postgresql"], check=False) == ("", "", True)
        assert text(fleet_tls.READERS["postgresql"][1]) == text(fleet_tls.READERS["redis"][1])

    @pytest.mark.parametrize(("days", "why"), [(364, ""), (366, "more than half of its life is over")])
    def test_it_is_made_anew_at_half_of_its_life(self, world, days, why):
        certificate = served(world)
        key = text(fleet_tls.KEY)
        world.days = days
        assert fleet_tls.ask(world, certificate, WANTED, ["redis"], check=False)[1] == why
        assert text(fleet_tls.KEY) == key, "a renewal keeps the key"

    @pytest.mark.parametrize("wanted", [Wanted.of(["cache2"], ["10.0.0.22", "127.0.0.1"]), Wanted.of(["cache1"], ["10.0.0.23", "127.0.0.1"])])
    def test_it_is_made_anew_for_other_names_and_addresses(self, world, wanted):
        assert fleet_tls.ask(world, served(world), wanted, ["redis"], check=False)[1] == "it is for other names or addresses"

    def test_it_is_made_anew_by_another_authority(self, world):
        served(world)
        os.unlink(secret_store.path_of(fleet_tls.KEPT))
        other, _made = fleet_tls.authority(world, check=False)
        assert fleet_tls.trust(world, other, check=False) is True
        assert fleet_tls.ask(world, other, WANTED, ["redis"], check=False)[1] == "the fleet's authority did not sign it"

    def test_a_key_that_is_lost_or_another_one_is_made_anew(self, world):
        certificate = served(world)
        pathlib.Path(fleet_tls.KEY).write_text(fleet_tls.new_key(world))
        assert fleet_tls.ask(world, certificate, WANTED, ["redis"], check=False)[1] == "it belongs to another key"
        os.unlink(fleet_tls.KEY)
        assert fleet_tls.ask(world, certificate, WANTED, ["redis"], check=False)[1] == "there is none yet"
        assert "PRIVATE" in text(fleet_tls.KEY)

    def test_check_mode_makes_no_key_and_no_request(self, world):
        certificate, _made = fleet_tls.authority(world, check=False)
        assert fleet_tls.trust(world, certificate, check=True) is True
        assert fleet_tls.ask(world, certificate, WANTED, ["redis"], check=True) == ("", "there is none yet", True)
        assert not os.path.exists(fleet_tls.TLS)

    def test_what_does_not_fit_is_not_installed(self, world):
        certificate = served(world)
        before = text(fleet_tls.CERTIFICATE)
        request = fleet_tls.request_of(world, fleet_tls.KEY)
        with pytest.raises(AnchorageError, match="other names or addresses"):
            fleet_tls.install(world, fleet_tls.sign(world, request, Wanted.of(["x"], [])), WANTED, ["redis"])
        assert text(fleet_tls.CERTIFICATE) == before and certificate


class TestWanted:
    def test_names_addresses_and_what_libpq_before_15_compares(self):
        wanted = Wanted.of(["db1"], ["10.0.0.21", "2001:DB8::1", "db.internal"])
        assert wanted == (("db.internal", "db1"), ("10.0.0.21", "2001:db8::1"))
        assert wanted.extension == "DNS:db.internal,DNS:db1,DNS:10.0.0.21,DNS:2001:db8::1,IP:10.0.0.21,IP:2001:db8::1"

    @pytest.mark.parametrize("name", ["a,IP:10.0.0.1", "a\nb", "", "-a", "a b"])
    def test_nothing_else_gets_into_the_extension(self, name):
        with pytest.raises(AnchorageError, match="no name that a certificate can hold"):
            Wanted.of([name], [])

    def test_what_openssl_prints_is_what_it_was_told(self):
        printed = "X509v3 Subject Alternative Name: \n    DNS:db1, DNS:10.0.0.21, IP Address:10.0.0.21, IP Address:2001:DB8:0:0:0:0:0:1\n"
        assert fleet_tls.said(printed) == {"DNS:db1", "DNS:10.0.0.21", "IP:10.0.0.21", "IP:2001:db8::1"}


class TestTrust:
    def test_processes_trust_the_operators_authorities_too(self, world, tmp_path):
        further = tmp_path / "further.pem"
        further.write_text("-----FURTHER-----\n")
        certificate, _made = fleet_tls.authority(world, check=False)
        assert fleet_tls.trust(world, certificate, check=False) is True
        assert fleet_tls.join(world, str(further), check=False) is True
        assert text(fleet_tls.AUTHORITY) == certificate, "a database is verified by the fleet's alone"
        assert text(fleet_tls.TRUSTED) == certificate + "-----FURTHER-----\n"
        assert fleet_tls.join(world, str(further), check=False) is False
        further.write_text("-----OTHER-----\n")
        assert fleet_tls.join(world, str(further), check=True) is True and "OTHER" not in text(fleet_tls.TRUSTED)
        assert fleet_tls.join(world, str(further), check=False) is True and "OTHER" in text(fleet_tls.TRUSTED)
        assert fleet_tls.join(world, "", check=False) is True and text(fleet_tls.TRUSTED) == certificate

    def test_a_file_that_is_not_there_is_named(self, world):
        fleet_tls.trust(world, fleet_tls.authority(world, check=False)[0], check=False)
        with pytest.raises(AnchorageError, match=r"release_extra_ca_file /absent\.pem"):
            fleet_tls.join(world, "/absent.pem", check=False)
        assert fleet_tls.join(world, "/absent.pem", check=True) is True

    def test_a_host_goes_on_with_a_certificate_that_is_old_and_with_no_other(self, world):
        served(world)
        assert fleet_tls.serves(world, fleet_tls.OLD) is True
        assert fleet_tls.serves(world, "it belongs to another key") is False
        world.days = 731
        assert fleet_tls.serves(world, fleet_tls.OLD) is False, "it has expired"


@pytest.mark.parametrize(
    ("settings", "links", "plain"),
    [
        ("bind 127.0.0.1\nport 6379\n", "", True),
        ("# Managed\nbind 127.0.0.1 10.0.0.22\nport 6379\n", "", True),
        ("port 6379\n\nport 0\n", "", False),
        ("bind 127.0.0.1 10.0.0.22\ninclude /x\n", "tls-port 7379\nport 6379\n", True),
        ("bind 127.0.0.1 10.0.0.22\ninclude /x\n", "tls-port 7379\nport 0\n", False),
        ("bind 127.0.0.1 10.0.0.22\ninclude /x\n", "", False),
        ("", "", False),
    ],
)
def test_who_takes_plain_connections(settings, links, plain):
    assert takes_plain(settings, links) is plain


@pytest.mark.parametrize(
    ("left", "verdict", "cause"),
    [(731, "ok", ""), (60, "ok", ""), (59, "warn", "it ends in 59 days"), (0, "fail", "it expired 0 days ago"), (-3, "fail", "it expired 3 days ago")],
)
def test_health_tells_of_the_end(left, verdict, cause):
    found = fleet_tls.judge_certificate("it", Certificate("1", "s", "i", (), 0.0, left * DAY), 0.0)
    assert (found.verdict, found.cause) == (verdict, cause)


def test_health_tells_of_what_cannot_be_read():
    assert fleet_tls.judge_certificate("it", None, 0.0).verdict == "fail"


def test_health_asks_about_the_authority_and_the_hosts_own(world):
    served(world)
    assert [item.name for item in fleet_tls.check(world, deadline_seconds=5).checks] == ["the fleet's authority", "the certificate of this host"]
    world.days = 680
    told = fleet_tls.check(world, deadline_seconds=5)
    assert told.healthy and "the certificate of this host ends in" in told.summary
    os.unlink(fleet_tls.CERTIFICATE)
    assert [item.name for item in fleet_tls.check(world, deadline_seconds=5).checks] == ["the fleet's authority"]


class TestApps:
    @pytest.fixture
    def shop(self, tmp_path, monkeypatch):
        """An app of which r1 is live, and was made when Redis was reached in plain text."""
        place(tmp_path, monkeypatch)
        app, world, _log = make(tmp_path)
        world.files[f"{fleet_tls.DOCUMENTS}/shop.json"] = json.dumps({**app.document, "redis_url": "rediss://shop:x@10.0.0.22:7379/0"})
        app.journal.mark("r1", "staged", tree="t1", source="s1")
        self.live_with(app, world, redis_url="redis://shop:x@10.0.0.22:6379/0")
        return app, world

    @staticmethod
    def live_with(app, world, **urls):
        world.files[app.layout.document("r1")] = json.dumps({**app.document, **urls})

    def test_what_counts_is_what_is_live_and_not_what_is_wanted(self, shop):
        app, world = shop
        assert fleet_tls.plain_apps(world, ["shop", "never-deployed"]) == [], "nothing is live"
        app.journal.go_live("r1", "blue", "t1")
        app.journal.settled()
        assert fleet_tls.plain_apps(world, ["shop"]) == ["shop"]
        self.live_with(app, world, redis_url="rediss://shop:x@10.0.0.22:7379/0", redis_cache_url="redis://shop:x@10.0.0.22:6380/0")
        assert fleet_tls.plain_apps(world, ["shop"]) == ["shop"]
        self.live_with(app, world, redis_url="rediss://shop:x@10.0.0.22:7379/0", redis_cache_url=None)
        assert fleet_tls.plain_apps(world, ["shop"]) == []

    def test_while_a_switch_is_unfinished_the_release_before_may_need_it(self, shop):
        app, world = shop
        self.live_with(app, world, redis_url="rediss://shop:x@10.0.0.22:7379/0")
        app.journal.go_live("r1", "blue", "t1")
        assert app.unsettled and fleet_tls.plain_apps(world, ["shop"]) == ["shop"]
