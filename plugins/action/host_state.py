# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide on the controller what host_state does: render, read once, act only on what is off."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import typing as t

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.host_state import done_to
from ansible_collections.anchorage.vps.plugins.module_utils.host_state_spec import (
    ARGUMENT_SPEC,
    normalise,
    unknown_keys,
    unquoted_modes,
)

AGENT = "anchorage.vps.host_state_agent"
GRACE_SECONDS = 45
#: Contents of files that go along with the read, so that what is off can be put right in the same execution.
OFFER_BYTES = 64 * 1024
HIDDEN = "(secret content hidden)\n"

Result = dict[str, t.Any]


def validated(arguments: t.Mapping[str, t.Any]) -> Result:
    """Return a document's normal form; raise before anything is done when it says something that cannot be meant."""
    plain = json.loads(json.dumps(dict(arguments), default=str))
    problems = unknown_keys(plain) or unquoted_modes(plain)
    if not problems:
        checked = ArgumentSpecValidator(ARGUMENT_SPEC, mutually_exclusive=None, required_together=None, required_one_of=None, required_if=None).validate(
            _without_none(plain)
        )
        problems = list(checked.error_messages)
    if problems:
        raise AnchorageError(f"host_state: {problems[0]}", live="nothing was done", problems=problems)
    try:
        return normalise(checked.validated_parameters)
    except AnchorageError as error:
        raise AnchorageError(f"host_state: {error.message}", live="nothing was done") from error


def _without_none(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_none(part) for part in value]
    return value


def wire_form(document: t.Mapping[str, t.Any], contents: t.Mapping[str, bytes]) -> Result:
    """Return the document as the host reads it: files by digest, without their contents."""
    files = [
        {
            **{key: entry[key] for key in ("path", "owner", "group", "mode", "secret")},
            "sha256": hashlib.sha256(contents[entry["path"]]).hexdigest(),
        }
        for entry in document["files"]
    ]
    return {**document, "files": files}


def mask(value: t.Any, secrets: t.Iterable[bytes]) -> t.Any:
    """Return a result without the words and lines of secret files that commands quote in their complaints."""
    parts = set()
    for secret in secrets:
        for line in secret.decode("utf-8", "replace").splitlines():
            words = {word.strip("\"';,") for word in line.replace("=", " ").replace(":", " ").split()}
            parts |= {part for part in (line.strip(), *words) if len(part) >= 6}
    longest_first = sorted(parts, key=len, reverse=True)

    def masked(part: t.Any) -> t.Any:
        if isinstance(part, dict):
            return {key: masked(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [masked(inner) for inner in part]
        if isinstance(part, str):
            for word in longest_first:
                part = part.replace(word, "(hidden)")
        return part

    return masked(value)


class ActionModule(ActionBase):
    """Bring a host into the state that one document describes."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        result = super().run(tmp, task_vars)
        del tmp
        self._vars = task_vars or {}
        self._executions = 0
        self._changes: list[Result] = []
        self._diff: list[Result] = []
        self._notes: list[str] = []
        secrets: list[bytes] = []
        try:
            document = validated(self._task.args)
            contents = {entry["path"]: self._content(index, entry) for index, entry in enumerate(document["files"])}
            secrets += [contents[entry["path"]] for entry in document["files"] if entry["secret"]]
            self._converge(wire_form(document, contents), contents)
        except AnchorageError as error:
            result.update({"failed": True, "msg": error.text(), "error": error.as_dict()})
        except _Refused as refused:
            result.update(mask(refused.result, secrets))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        self._notes = list(dict.fromkeys(self._notes))
        for note in self._notes if self._changes else []:
            self._display.display(f"{self._vars.get('inventory_hostname', 'host')}: {note}")
        result["changed"] = bool(self._changes)
        result["changes"] = self._changes
        result["changed_paths"] = sorted({change["name"] for change in self._changes if change["kind"] in _TREE_KINDS})
        result["notes"] = self._notes
        result["executions"] = self._executions
        if self._task.diff:
            result["diff"] = self._diff
        return result

    # Rendering

    def _content(self, index: int, entry: Result) -> bytes:
        where = f"files[{index}] ({entry['path']})"
        if entry.get("content") is not None:
            return entry["content"].encode()
        kind = "template" if entry.get("template") is not None else "src"
        directory, name = {"template": "templates", "src": "files"}[kind], entry[kind]
        try:
            path = self._find_needle(directory, name)
        except AnsibleError as error:
            raise AnchorageError(
                f"host_state: {where}: the {kind} {name} was found in no {directory} directory of the role or the play",
                live="nothing was done",
            ) from error
        if kind == "src":
            with open(self._loader.get_real_file(path), "rb") as stream:
                return stream.read()
        return self._rendered(path, entry).encode()

    def _rendered(self, path: str, entry: Result) -> str:
        search = []
        for directory in [*self._vars.get("ansible_search_path", []), self._loader.get_basedir(), os.path.dirname(path)]:
            search += [os.path.join(directory, "templates"), directory]
        variables = {**self._vars, **entry["vars"], "template_path": path, "template_destpath": entry["path"]}
        templar = self._templar.copy_with_new_env(searchpath=search, available_variables=variables)
        text = trust_as_template(self._loader.get_text_file_contents(path))
        try:
            rendered = templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": False})
        except AnsibleError as error:
            reason = "an expression in it fails" if entry["secret"] else str(error)
            raise AnchorageError(f"host_state: {entry['template']} for {entry['path']}: {reason}", live="nothing was done") from error
        return "" if rendered is None else str(rendered)

    # Talking to the host

    def _remote(self, operation: str, document: Result, **payload: t.Any) -> Result:
        return self._module(AGENT, {"operation": operation, "payload": json.dumps({"document": document, **payload})})["answer"]

    def _module(self, name: str, arguments: Result) -> Result:
        self._executions += 1
        answer = self._execute_module(module_name=name, module_args=arguments, task_vars=self._vars)
        if answer.get("failed") or answer.get("unreachable"):
            kept = {key: answer[key] for key in ("msg", "error", "stderr", "exception", "module_stderr", "module_stdout") if key in answer}
            kept.setdefault("msg", f"{name} failed without a word")
            raise _Refused({"failed": True, **kept})
        return answer

    # Deciding

    def _converge(self, document: Result, contents: t.Mapping[str, bytes]) -> None:
        offered = None if self._task.check_mode or sum(map(len, contents.values())) > OFFER_BYTES else _encoded(contents)
        seen = self._remote("read", document, texts=self._task.diff, contents=offered)
        self._notes += seen["notes"]
        if self._task.check_mode:
            self._predict(document, contents, seen)
            return
        armed = seen.get("confirm") == "pending"
        applied = seen.get("applied")
        if applied is None:
            fresh = self._provide_packages(document, seen)
            fresh = self._provide_accounts(document, seen) or fresh
            fresh = fresh and any(document[kind] for kind in ("users", "directories", "files", "links", "absent", "units"))
            units = seen["units"]
            if fresh or seen["tree"] or seen["strays"] or units["daemon_reload"] or units["off"] or units["unknown"]:
                wanted = contents if fresh else {change["path"]: contents[change["path"]] for change in seen["tree"] if change["path"] in contents}
                applied = self._remote("apply", document, contents=_encoded(wanted), act=not armed)
        if applied is not None:
            self._tell_tree(applied["changes"], seen["tree"], contents)
            if applied["daemon_reload"]:
                self._changes.append({"kind": "manager", "name": "systemd", "before": None, "after": "reloaded"})
            self._notes += applied["notes"]
            armed = armed or applied["armed"]
            if not armed:
                self._tell_acted(applied)
        if armed:
            self._settle_under_timer(document)

    def _predict(self, document: Result, contents: t.Mapping[str, bytes], seen: Result) -> None:
        packages = seen["packages"]
        if packages["broken"]:
            self._tell("dpkg", "interrupted", ", ".join(packages["broken"]), "healed")
        self._tell_tree(seen["repositories"], seen["repositories"], {})
        self._tell_packages(packages)
        for kind in ("groups", "users"):
            for change in seen[kind]:
                self._tell(kind[:-1], change["name"], change["before"], change["after"])
        self._tell_tree(seen["tree"], seen["tree"], contents)
        if packages["missing"]:
            reason = f"because {', '.join(packages['missing'])} is not installed yet"
            self._notes += [f"not predicted: whether {name} accepts the new files, {reason}" for name in seen["validators"]]
            self._notes += [f"not predicted: {name}, {reason}" for name in seen["units"]["unknown"]]
        else:
            if seen["validators"]:
                self._notes += self._remote("apply", document, contents=_encoded(contents), act=False)["notes"]
            planned = {os.path.basename(change["path"]) for change in seen["tree"]}
            for name in seen["units"]["unknown"]:
                if name in planned or f"{name.partition('@')[0]}@.service" in planned:
                    self._tell("unit", name, None, "as described")
                else:
                    self._notes.append(f"not predicted: {name}, which does not exist on the host yet")
        for unit in seen["units"]["off"]:
            self._tell_unit(unit)

    def _provide_packages(self, document: Result, seen: Result) -> bool:
        packages = seen["packages"]
        changed = False
        if packages["broken"]:
            healed = self._remote("heal", document)
            if healed["changed"]:
                self._tell("dpkg", "interrupted", ", ".join(packages["broken"]), "healed")
                changed = True
        if seen["repositories"]:
            self._remote("repositories", document)
            self._tell_tree(seen["repositories"], seen["repositories"], {})
            changed = True
        if packages.get("policy_left"):
            self._tell("policy", "/usr/sbin/policy-rc.d", "left by a run that died", "absent")
        if packages["missing"] or packages["present"] or packages.get("policy_left"):
            refresh = changed or bool(packages.get("lists_old"))
            self._remote("packages", document, missing=list(packages["missing"]), unwanted=list(packages["present"]), refresh=refresh)
        self._tell_packages(packages)
        return changed or bool(packages["missing"] or packages["present"])

    def _provide_accounts(self, document: Result, seen: Result) -> bool:
        for kind, module in (("groups", "ansible.builtin.group"), ("users", "ansible.builtin.user")):
            for change in seen[kind]:
                wanted = next(entry for entry in document[kind] if entry["name"] == change["name"])
                arguments = {key: value for key, value in wanted.items() if key != "authorized_keys" and value not in (None, [])}
                if kind == "users" and wanted["groups"]:
                    arguments["append"] = True
                self._module(module, arguments)
                self._tell(kind[:-1], change["name"], change["before"], change["after"])
        return bool(seen["groups"] or seen["users"])

    def _settle_under_timer(self, document: Result) -> None:
        """Let the units load what is risky, then prove with a new connection that the host can still be reached."""
        confirm = document["confirm"]
        deadline = time.monotonic() + confirm["seconds"] + GRACE_SECONDS
        try:
            acted = done_to(self._tell_acted(self._remote("act", document)))
        except _Refused as refused:
            self._remote("go_back", document)
            refused.result["msg"] = f"{refused.result['msg']} The previous files of {confirm['name']} were put back."
            raise
        except AnsibleError as error:
            acted = {}
            self._display.warning(f"the connection broke while units loaded the new files: {error}")
        reason = ""
        while time.monotonic() < deadline:
            try:
                self._connection.reset()
                self._remote("settle", document, acted=acted, confirmed=True)
                return
            except _Refused as refused:
                if "error" in refused.result:
                    refused.result["msg"] += f" The last attempt to connect anew said: {reason}" if reason else ""
                    raise
                reason = refused.result["msg"]
            except AnsibleError as error:
                reason = str(error)
            time.sleep(3)
        raise _Refused(
            {
                "failed": True,
                "msg": f"host_state: the host cannot be reached by a new connection, and the timer of {confirm['name']} should have put the"
                f" previous files back. Last: {reason}",
            }
        )

    # Telling

    def _tell(self, kind: str, name: str, before: t.Any, after: t.Any, **more: t.Any) -> None:
        self._changes.append({"kind": kind, "name": name, "before": before, "after": after, **more})
        if kind not in _TREE_KINDS:
            self._diff.append({"before_header": f"{kind} {name}", "after_header": f"{kind} {name}", "before": _lines(before), "after": _lines(after)})

    def _tell_acted(self, answer: Result) -> list[Result]:
        """Tell what was done to the units, and end here where one did not follow."""
        acted = t.cast("list[Result]", answer["acted"])
        for unit in acted:
            self._tell_unit(unit)
        if answer["failure"]:
            raise _Refused({"failed": True, **answer["failure"]})
        return acted

    def _tell_unit(self, unit: Result) -> None:
        self._tell("unit", unit["name"], unit["before"], unit["after"], because=unit["because"])

    def _tell_packages(self, packages: Result) -> None:
        for wish, version in packages["missing"].items():
            self._tell("package", wish, version, "present")
        for name, version in packages["present"].items():
            self._tell("package", name, version, None)

    def _tell_tree(self, changes: t.Sequence[Result], read: t.Sequence[Result], contents: t.Mapping[str, bytes]) -> None:
        texts = {change["path"]: change for change in read}
        for change in changes:
            self._tell(change["kind"], change["path"], change["before"], change["after"])
            self._diff.append(_tree_diff(change, texts.get(change["path"], {}), contents.get(change["path"])))


_TREE_KINDS = ("file", "directory", "link", "absent")


class _Refused(Exception):
    """A step that failed; carries the result to hand back."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.get("msg"))
        self.result = result


def _encoded(contents: t.Mapping[str, bytes]) -> dict[str, str]:
    return {path: base64.b64encode(content).decode() for path, content in contents.items()}


def _lines(value: t.Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "".join(f"{key}: {part}\n" for key, part in value.items())
    return f"{value}\n"


def _tree_diff(change: Result, read: Result, content: bytes | None) -> Result:
    """Return one element of a diff: the text where it may be shown, and what else is off."""
    headers = {"before_header": change["path"], "after_header": change["path"]}
    after = change["after"]
    content_differs = change["kind"] == "file" and isinstance(after, dict) and ("content" in after or "kind" in after)
    if content_differs and change["secret"]:
        return {**headers, "before": "", "after": HIDDEN}
    if content_differs:
        new = read.get("new_text")
        if new is None:
            try:
                new = (content or b"").decode()
            except UnicodeDecodeError:
                new = "(binary content)\n"
        return {**headers, "before": read.get("text") or "", "after": new}
    if change["kind"] == "absent":
        return {**headers, "before": read.get("text") or _lines(change["before"]), "after": ""}
    return {**headers, "before": _lines(change["before"]), "after": _lines(after)}
