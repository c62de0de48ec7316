# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile values through every encoder into the real thing, on Debian 12 and 13: each comes out byte for byte, or is refused, and nothing of it is run.

What a sink may refuse stands here and not in the encoder, which so cannot have it easy.
"""

from __future__ import annotations

import io
import json
import pathlib
import subprocess
import tarfile
import typing as t

import pytest
import yaml

from ansible_collections.anchorage.vps.plugins.module_utils import encoders, zipapp
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.tests import hostile

VALUES = hostile.all_values()
ROOT = pathlib.Path(__file__).resolve().parents[3]
ENGINE = ROOT / "plugins" / "module_utils"
PLACE = "/root/sinks"
PACKAGES = {"trixie": "docker-compose docker-cli", "bookworm": ""}
COMMON = "postgresql redis-server nginx-light pgbackrest"

#: Prints its arguments and the variables of the corpus as JSON. A byte that is no UTF-8 would be a surrogate, and so no value of ours.
ECHO = "import json, os, sys; print(json.dumps({'args': sys.argv[1:], 'env': {k: v for k, v in os.environ.items() if k[:1] == 'v' and k[1:].isdigit()}}))\n"


class Sink:
    """A host, its files, and what was seen."""

    def __init__(self, container: str, suite: str) -> None:
        self.container = container
        self.suite = suite

    def run(self, script: str, given: bytes = b"") -> bytes:
        """Run a shell script as root and return what it printed."""
        done = subprocess.run(["docker", "exec", "-i", self.container, "sh", "-euc", script], input=given, capture_output=True, check=False)
        assert done.returncode == 0, f"{script}: {done.returncode}\n{(done.stdout[-2000:] + done.stderr[-3000:]).decode(errors='replace')}"
        return done.stdout

    def put(self, **files: str | bytes) -> None:
        """Write files; the first underscore of a name is a dot."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                entry = tarfile.TarInfo(name.replace("_", ".", 1))
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
        self.run(f"mkdir -p {PLACE} && cd {PLACE} && tar x", packed.getvalue())

    def python(self, script: str, **files: str | bytes) -> t.Any:
        """Run Python on the host and return the JSON that it printed."""
        self.put(script_py=script, **files)
        return json.loads(self.run(f"cd {PLACE} && python3 -I script.py"))

    def settled(self, what: str, seconds: int = 20) -> None:
        """Wait until a command succeeds."""
        self.run(f"for i in $(seq {seconds * 5}); do {what} >/dev/null 2>&1 && exit 0; sleep 0.2; done; {what}")


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def sink(sinks, request) -> Sink:
    """A host with the programs whose grammars these are."""
    suite = request.param
    facts = yaml.safe_load(sinks.inventory.read_text())["all"]["children"]["lab"]["hosts"][suite]
    host = Sink(facts["lab_container"], suite)
    quiet = "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update >/dev/null; apt-get -qqy install --no-install-recommends"
    host.run(f"{quiet} {COMMON} {PACKAGES[suite]} >/dev/null 2>&1; rm -f {hostile.CANARY}")
    return host


@pytest.fixture(autouse=True)
def nothing_is_run(sink) -> t.Iterator[None]:
    """No value was run: neither on the host nor here, in front of each test and behind it."""
    for _side in ("before", "after"):
        seen = sink.run(f"ls -d {hostile.CANARY} 2>/dev/null || true")
        assert seen == b"" and not pathlib.Path(hostile.CANARY).exists()
        if _side == "before":
            yield


def encoded(encode: t.Callable[[str, str], str], refused: t.Callable[[str], bool]) -> dict[str, str]:
    """Return each value in its notation; one that is refused must be one that may be, and its error names its key and not the value."""
    found = {}
    for key, value in VALUES.items():
        try:
            found[key] = encode(value, key)
        except AnchorageError as error:
            assert refused(value), (key, value)
            assert error.message.startswith((key, "the password ")) and (len(value) < 4 or value not in error.text())
        else:
            assert not refused(value), (key, value)
    assert len(found) >= 240
    return found


def same(found: t.Mapping[str, str], kept: t.Collection[str]) -> None:
    """Every value came out as it went in."""
    wrong = {key: (VALUES[key], found.get(key)) for key in kept if found.get(key) != VALUES[key]}
    assert not wrong, (len(wrong), dict(list(wrong.items())[:5]))


def never(_value: str) -> bool:
    return False


def test_there_are_enough_values():
    assert len(VALUES) >= 300


def test_a_process_gets_them_as_environment_and_as_arguments(sink):
    """The file that stands between a release and its processes, read by the command that the host has."""
    command = zipapp.build(lambda name: (ENGINE / f"{name}.py").read_bytes())
    argv = ["/usr/bin/python3", "-I", f"{PLACE}/echo.py", *VALUES.values()]
    sink.put(anchorage_pyz=command, echo_py=ECHO, process_json=encoders.process_file(argv, "/", VALUES))
    seen = json.loads(sink.run(f"python3 -I {PLACE}/anchorage.pyz exec {PLACE}/process.json"))
    same(seen["env"], VALUES)
    assert seen["args"] == list(VALUES.values())


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_takes_them_as_words(sink, shell):
    words = encoded(encoders.shell_word, never)
    sink.put(echo_py=ECHO, words_sh="python3 -I echo.py \\\n" + " \\\n".join(words.values()) + "\n")
    seen = json.loads(sink.run(f"cd {PLACE} && {shell} words.sh"))
    assert seen["args"] == list(VALUES.values())


def test_a_unit_takes_them_as_environment_and_as_arguments(sink):
    environment = encoded(lambda value, key: encoders.systemd_word(f"{key}={value}", key), never)
    arguments = encoded(encoders.systemd_argument, never)
    lines = [f"Environment={word}" for word in environment.values()]
    command = f"ExecStart=/usr/bin/python3 -I {PLACE}/echo.py \\\n  " + " \\\n  ".join(arguments.values())
    sink.put(
        echo_py=ECHO,
        unit=f"[Service]\nType=oneshot\nStandardOutput=truncate:{PLACE}/unit.out\n" + "\n".join([*lines, command]) + "\n",
    )
    sink.run(f"cp {PLACE}/unit /run/systemd/system/sinks.service; systemctl daemon-reload; systemctl start sinks.service")
    seen = json.loads(sink.run(f"cat {PLACE}/unit.out; rm /run/systemd/system/sinks.service; systemctl daemon-reload"))
    same(seen["env"], VALUES)
    assert seen["args"] == list(VALUES.values())


def test_a_transient_unit_takes_them_as_environment_and_as_arguments(sink):
    """The way of a build: variables by --setenv as they are, the command's words encoded."""
    arguments = encoded(encoders.systemd_run_argument, never)
    argv = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *(f"--setenv={key}={value}" for key, value in VALUES.items()), "--"]
    argv += ["/usr/bin/python3", "-I", f"{PLACE}/echo.py", *arguments.values()]
    seen = sink.python(f"import subprocess; print(subprocess.run({argv!r}, capture_output=True, check=True, text=True).stdout)", echo_py=ECHO)
    same(seen["env"], VALUES)
    assert seen["args"] == list(VALUES.values())


# ---- PostgreSQL

PSQL = f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -f {PLACE}/script.sql"


@pytest.fixture(scope="module")
def postgresql(sink) -> Sink:
    """A server that runs, whose clients may read our files."""
    sink.settled("runuser -u postgres -- psql -XAtqc 'SELECT 1'")
    sink.run("chmod 755 /root")
    return sink


def literals() -> str:
    """Return a script that sends each value and gets it back as the bytes that the server has."""
    rows = ",\n".join(f"('{key}', {literal})" for key, literal in encoded(encoders.sql_literal, never).items())
    return f"SELECT json_object_agg(k, encode(convert_to(v, 'UTF8'), 'hex')) FROM (VALUES {rows}) AS x (k, v);\n"


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_postgresql_takes_them_as_literals(postgresql, conforming):
    postgresql.put(script_sql=f"SET client_encoding = 'UTF8';\nSET standard_conforming_strings = {conforming};\n" + literals())
    seen = json.loads(postgresql.run(PSQL))
    same({key: bytes.fromhex(text).decode() for key, text in seen.items()}, VALUES)


def test_postgresql_takes_them_as_names(postgresql):
    names = encoded(encoders.sql_identifier, lambda value: not 0 < len(value.encode()) <= 63)
    columns = [f"SELECT json_build_object('k', '{key}', 'v', to_json(x)) FROM (SELECT 1 AS {name}) x;" for key, name in names.items()]
    postgresql.put(script_sql="SET client_encoding = 'UTF8';\n" + "\n".join(columns))
    rows = [json.loads(line) for line in postgresql.run(PSQL).splitlines()]
    same({row["k"]: next(iter(row["v"])) for row in rows}, names)


def test_postgresql_takes_them_as_settings(postgresql):
    def control(value: str) -> bool:
        return any(ord(letter) < 32 or letter == "\x7f" for letter in value)

    settings = encoded(encoders.postgresql_setting, control)
    ask = ", ".join(f"('{key}', current_setting('sinks.{key}'))" for key in settings)
    postgresql.put(
        sinks_conf="".join(f"sinks.{key} = {text}\n" for key, text in settings.items()),
        script_sql=f"SET client_encoding = 'UTF8';\nSELECT json_object_agg(k, v) FROM (VALUES {ask}) AS x (k, v);\n",
    )
    postgresql.run(f"for d in /etc/postgresql/*/main/conf.d; do install -m 644 {PLACE}/sinks.conf $d/sinks.conf; done; systemctl reload postgresql@*")
    postgresql.settled(f"cd / && runuser -u postgres -- psql -XAtqc \"SELECT current_setting('sinks.{max(settings)}')\"")
    seen = json.loads(postgresql.run(PSQL))
    postgresql.run("rm /etc/postgresql/*/main/conf.d/sinks.conf; systemctl reload postgresql@*")
    same(seen, settings)


def test_clients_of_postgresql_take_them_as_passwords(postgresql):
    """By a literal into the server, by an address and by a password file out of it: a login works where all of them are right."""
    roles = {key: literal for key, literal in encoded(encoders.sql_literal, never).items() if VALUES[key]}
    urls = encoded(encoders.url_part, never)
    passes = encoded(
        lambda value, key: encoders.pgpass_line("127.0.0.1", 5432, "postgres", key, value), lambda value: not value or not {*"\r\n"}.isdisjoint(value)
    )
    begin = "SET client_encoding = 'UTF8'; SET client_min_messages = error;\n"
    postgresql.put(script_sql=begin + "".join(f"DROP ROLE IF EXISTS {key}; CREATE ROLE {key} LOGIN PASSWORD {text};\n" for key, text in roles.items()))
    postgresql.run(PSQL)

    def logins(logins: t.Iterable[str]) -> list[str]:
        postgresql.put(script_sql="".join(f"\\connect 'postgres://{login}@127.0.0.1/postgres'\nSELECT current_user;\n" for login in logins))
        return postgresql.run(f"export PGPASSFILE={PLACE}/own.pgpass; {PSQL}").decode().split()

    postgresql.put(own_pgpass="# nothing\n")
    postgresql.run(f"chown postgres {PLACE}/own.pgpass; chmod 600 {PLACE}/own.pgpass")
    assert logins(f"{key}:{urls[key]}" for key in roles) == [*roles]
    postgresql.put(own_pgpass="# a file of many\n" + "".join(passes.values()))
    postgresql.run(f"chown postgres {PLACE}/own.pgpass; chmod 600 {PLACE}/own.pgpass")
    assert logins(passes) == [*passes]


def test_pgbackrest_takes_them_as_values(sink):
    def lost(value: str) -> bool:
        return not value or value.strip(" \t") != value or any(ord(letter) < 32 or letter == "\x7f" for letter in value)

    values = encoded(encoders.pgbackrest_value, lost)
    told = "repo1-type=s3\nrepo1-s3-endpoint=127.0.0.1:1\nrepo1-s3-region=x\nrepo1-s3-key=x\nrepo1-s3-key-secret=x\n"
    known = {key: f"[global]\n{told}repo1-s3-bucket={text}\nlog-level-console=info\n[x]\npg1-path=/x\npg1-port=1\n" for key, text in values.items()}
    # It begins with a line of the options that it found, in quotes where they hold a blank.
    script = """
import json, re, subprocess
found = {}
for key, text in json.load(open("known.json")).items():
    open("one.conf", "w").write(text)
    said = subprocess.run(["pgbackrest", "--config=/root/sinks/one.conf", "--stanza=x", "check"], capture_output=True, text=True, cwd="/").stdout
    value = re.search(" --repo1-s3-bucket=(.*?) --repo1-s3-endpoint=", said).group(1)
    found[key] = value[1:-1] if " " in value and value[0] == value[-1] == '"' else value
print(json.dumps(found))
"""
    same(sink.python(script, known_json=json.dumps(known)), values)


# ---- Redis


def test_redis_takes_them_as_passwords(sink):
    """In an ACL as their hash; from a client as an argument, and in an address."""
    rules = encoded(encoders.redis_password, never)
    urls = encoded(encoders.url_part, never)
    users = ["user default off", *(f"user {key} reset on {rule} +@all" for key, rule in rules.items())]
    script = """
import json, subprocess
known = json.load(open("known.json"))
server = subprocess.Popen(["redis-server", "--port", "7399", "--bind", "127.0.0.1", "--aclfile", "/root/sinks/users.acl", "--save", ""], stdout=-3)
ask = lambda *words, **more: subprocess.run(["redis-cli", "-p", "7399", *words], capture_output=True, text=True, **more).stdout.strip()
while "NOAUTH" not in ask("PING"): pass
found = {}
for key, (value, url) in known.items():
    found[key] = [ask("--no-auth-warning", "-u", f"redis://{key}:{url}@127.0.0.1:7399", "ACL", "WHOAMI") if value else key,
                  ask("--no-auth-warning", "--user", key, "--pass", value, "ACL", "WHOAMI") if value else key]
server.terminate()
print(json.dumps(found))
"""
    known = json.dumps({key: (VALUES[key], urls[key]) for key in VALUES})
    seen = sink.python(script, users_acl="\n".join([*users, ""]), known_json=known)
    assert {key: who for key, who in seen.items() if who != [key, key]} == {}


# ---- Nginx


def test_nginx_takes_them_as_strings(sink):
    """As what a location returns, in the form of the role: by way of a map."""
    strings = encoded(encoders.nginx_string, lambda value: "$" in value)
    maps = "".join(f'map $host $sinks_{key} {{\n  "" "";\n  default {text};\n}}\n' for key, text in strings.items())
    places = "".join(f"location = /{key} {{ return 200 {text}; }}\nlocation = /map/{key} {{ return 200 $sinks_{key}; }}\n" for key, text in strings.items())
    sink.put(sinks_conf=f"variables_hash_max_size 8192;\n{maps}server {{\n  listen 127.0.0.1:8399;\n  default_type text/plain;\n{places}}}\n")
    sink.run(f"cp {PLACE}/sinks.conf /etc/nginx/conf.d/sinks.conf; nginx -t; systemctl restart nginx")
    script = f"""
import http.client, json
line = http.client.HTTPConnection("127.0.0.1", 8399)
def ask(path):
    line.request("GET", path)
    return line.getresponse().read().decode()
print(json.dumps({{key: [ask("/" + key), ask("/map/" + key)] for key in {[*strings]!r}}}))
"""
    seen = sink.python(script)
    sink.run("rm /etc/nginx/conf.d/sinks.conf; systemctl reload nginx")
    same({key: direct for key, (direct, _mapped) in seen.items()}, strings)
    same({key: mapped for key, (_direct, mapped) in seen.items()}, strings)


# ---- Compose


def test_compose_takes_them_from_its_files(sink):
    """In the definition, and from a file of variables; what Compose shows has each dollar sign twice again."""
    if sink.suite == "bookworm":
        pytest.skip("Debian 12 has no Compose of today")

    def ends_badly(value: str) -> bool:
        return value[-1:] in ("\\", '"') and not {*"'\\\r\n"}.isdisjoint(value)

    lines = encoded(lambda value, key: encoders.compose_env_line(key, value), ends_badly)
    services = {
        "file": {"image": "x", "env_file": ["./own.env"]},
        "text": {"image": "x", "environment": {key: encoders.compose_text(value) for key, value in VALUES.items()}},
        "words": {"image": "x", "command": [encoders.compose_text(value) for value in VALUES.values()]},
    }
    sink.put(own_env="".join(lines.values()), compose_yml=encoders.compose_file({"name": "sinks", "services": services}))
    seen = json.loads(sink.run(f"cd {PLACE} && docker compose config --format json"))["services"]
    for service, kept in (("file", lines), ("text", VALUES)):
        environment = seen[service]["environment"]
        assert {key: text for key, text in environment.items() if text != VALUES[key].replace("$", "$$")} == {}
        assert {*environment} == {*kept}
    assert seen["words"]["command"] == [value.replace("$", "$$") for value in VALUES.values()]
