# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan, start and follow a step of a release; a lost connection costs one look, not the step."""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import platform
import posixpath
import re
import time
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.anchorage.vps.plugins.module_utils import source_tree
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.controller_image import ControllerImage, take
from ansible_collections.anchorage.vps.plugins.module_utils.encoders import shell_word
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.layout import ARRIVING
from ansible_collections.anchorage.vps.plugins.module_utils.room import MIB
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

MODULE = "anchorage.vps.release_step"

#: Seconds without an answer after which the host is given up; the step goes on there all the same.
PATIENCE = 120

#: Takes a file from standard input under a name of its own, and gives it the wanted name when it is whole. Whatever ends it before, nothing stays.
RECEIVE = (
    "umask 077; mkdir -p {directory} && cd {directory} || exit 1; got=$(mktemp {arriving}XXXXXXXX) || exit 1; "
    "trap 'rm -f \"$got\"' EXIT; trap 'exit 1' HUP INT TERM; "
    'cat > "$got" && echo "{sha256}  $got" | sha256sum --check --status && sync "$got" && mv -f "$got" {name}'
)

display = Display()


def receive(path: str, data: bytes) -> str:
    """Return the shell command that takes these very bytes from its input and writes them to a path, or nothing."""
    directory, name = posixpath.split(path)
    return RECEIVE.format(arriving=ARRIVING, directory=shell_word(directory), name=shell_word(name), sha256=hashlib.sha256(data).hexdigest())


def _living(name: str, plan: dict[str, t.Any]) -> str:
    return f"{name} release {plan['live']} in slot {plan['slot']}" if plan.get("live") else f"{name} has no live release on this host"


def _not_whole(what: str, name: str, plan: dict[str, t.Any], how_much: str, done: dict[str, t.Any]) -> AnchorageError:
    """Return why something that was sent is not there."""
    place, said = posixpath.dirname(plan["incoming"]), done["stderr"].strip()[-300:] or "the connection broke"
    return AnchorageError(
        f"The {what} of {name} did not reach this host whole ({how_much}): {said}.",
        what=f"the way of the {what} to the host",
        live=_living(name, plan),
        next_step=f"Make room there if it is full (df -h {place}; df -i {place}), then run deploy.yml again.",
    )


def owner() -> str:
    """Return who runs this, for whoever is refused meanwhile."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return re.sub(r"[^\w.@-]", "_", f"{user}@{platform.node()}")


class StepFailed(Exception):
    """A step, or a question to the host, did not succeed."""

    def __init__(self, result: dict[str, t.Any]) -> None:
        super().__init__(result.get("msg"))
        self.result = result


class ActionModule(ActionBase):
    """Runs one step for each app that needs it, one after the other."""

    # A temporary directory costs two remote executions, and stays on the host when this run is killed.
    TRANSFERS_FILES = False
    _supports_check_mode = True

    #: Whom it asks on the host.
    module_name = MODULE

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Do the step."""
        result = super().run(tmp, task_vars)
        del tmp
        self._vars = task_vars or {}
        args = dict(self._task.args)
        plans: dict[str, t.Any] = {}
        if args.get("operation") == "rollback":
            return {**result, **self._rollback(args)}
        if args.get("operation") == "plan":
            return {**result, **self._preview(args)}
        if args.get("operation", "step") != "step":
            return {**result, **self._execute_module(module_name=MODULE, module_args=args, task_vars=self._vars)}
        try:
            sources = {name: self._source(str(path)) for name, path in (args.get("sources") or {}).items()}
            known = {name: checksum for name, (checksum, _path) in sources.items()}
            documents = {json.loads(text)["name"]: text for text in args.get("documents") or []}
            answer = self._ask({"operation": "plan", "apps": args["apps"], "sources": known, "documents": list(documents.values())})
            plans, changed = answer["apps"], bool(answer.get("changed"))
            for name in args["apps"]:
                plan = plans[name]
                needed = args["step"] in plan["steps"]
                if args["step"] == "stage":
                    changed = changed or needed or "migrate" in plan["steps"]
                else:
                    changed = changed or needed
                if needed and not self._task.check_mode:
                    plan["outcome"] = self._step(name, args["step"], plan, sources.get(name), documents.get(name))
            result.update(changed=changed, apps=plans, **{key: answer[key] for key in ("status",) if key in answer})
        except StepFailed as failure:
            # What was done for the apps before this one is known to whoever has to undo it.
            result.update({"apps": plans, **failure.result, "failed": True})
        except AnchorageError as error:
            result.update(apps=plans, failed=True, msg=error.text(), error=error.as_dict())
        return result

    def _rollback(self, args: dict[str, t.Any]) -> dict[str, t.Any]:
        """Ask all apps first; only if each has a way back, go."""
        try:
            asked = {key: args[key] for key in ("apps", "release", "code_only") if args.get(key) is not None}
            plans = self._ask({"operation": "rollback_plan", **asked})["apps"]
            needed = [name for name in args["apps"] if plans[name]["needed"]]
            for name in args["apps"]:
                if name not in needed and plans[name].get("note"):
                    self._print(name, [plans[name]["note"]])
            for name in [] if self._task.check_mode else needed:
                plans[name]["outcome"] = self._step(name, "rollback", plans[name], None, None)
        except StepFailed as failure:
            return {**failure.result, "failed": True}
        return {"changed": bool(needed), "apps": plans}

    def _preview(self, args: dict[str, t.Any]) -> dict[str, t.Any]:
        """Ask what a deploy would do, in all detail. Nothing is sent and nothing changed."""
        try:
            sources = {name: self._source(str(path)) for name, path in (args.get("sources") or {}).items()}
            documents = {json.loads(text)["name"]: json.loads(text) for text in args.get("documents") or []}
            migrations = {name: source_tree.migrations(path, documents[name]) for name, (_checksum, path) in sources.items() if name in documents}
            asked = {
                "operation": "plan",
                "detail": True,
                "apps": args["apps"],
                "documents": list(args.get("documents") or []),
                "sources": {name: checksum for name, (checksum, _path) in sources.items()},
            }
            if migrations:
                asked["migrations"] = json.dumps(migrations)
            return {"changed": False, "apps": self._ask(asked)["apps"]}
        except StepFailed as failure:
            return {**failure.result, "failed": True}
        except AnchorageError as error:
            return {"failed": True, "msg": error.text(), "error": error.as_dict()}

    def _source(self, path: str) -> tuple[str, str]:
        """Return the checksum and the absolute path of a source on the controller."""
        absolute = os.path.abspath(os.path.expanduser(path))
        if os.path.isdir(absolute):
            return source_tree.checksum(absolute), absolute
        return source_tree.file_checksum(absolute), absolute

    def _ask(self, args: dict[str, t.Any]) -> dict[str, t.Any]:
        answer = self._execute_module(module_name=self.module_name, module_args=args, task_vars=self._vars)
        if answer.get("failed") or answer.get("unreachable"):
            raise StepFailed(answer)
        return t.cast("dict[str, t.Any]", answer)

    def _step(self, name: str, step: str, plan: dict[str, t.Any], source: tuple[str, str] | None, document: str | None) -> dict[str, t.Any]:
        wish = {**{key: plan[key] for key in ("release", "tree", "source")}, "owner": owner()}
        args: dict[str, t.Any] = {"operation": "start", "step": step, "apps": [name], "wish": wish}
        if document is not None:
            args["documents"] = [document]
        if step == "stage" and plan.get("source_needed") and source is not None:
            self._send(name, source[1], plan)
        if step == "stage" and plan.get("image_needed") and source is not None and document is not None:
            self._send_image(name, source, plan, json.loads(document))
        return self._follow(name, self._ask(args), {"apps": [name]}, f"Step {step} of {name} goes on there; run deploy.yml again to see how it ended.")

    def _follow(self, name: str, answer: dict[str, t.Any], who: dict[str, t.Any], given_up: str) -> dict[str, t.Any]:
        """Print what something long on the host says until it ends, and return how. A lost connection costs one look.

        :arg name: what its lines are about.
        :arg answer: what its start said.
        :arg who: what a look must name.
        :arg given_up: what is said of it when the host does not answer any more.
        """
        log = answer["log"]
        self._print(name, answer["lines"])
        lost_since = None
        while answer["running"]:
            try:
                answer = self._ask({"operation": "follow", **who, "log": log, "offset": answer["offset"]})
                lost_since = None
                self._print(name, answer["lines"])
            except (AnsibleConnectionFailure, StepFailed) as error:
                if isinstance(error, StepFailed) and not error.result.get("unreachable"):
                    raise
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > PATIENCE:
                    raise StepFailed({"msg": f"The host did not answer for {PATIENCE} s. {given_up}"}) from error
                display.warning(f"{self._vars.get('inventory_hostname')}: connection lost, the step goes on there; trying again")
                self._connection.reset()
                time.sleep(3)
        outcome = t.cast("dict[str, t.Any]", answer["outcome"])
        if not outcome["ok"]:
            error = {key: value for key, value in outcome["error"].items() if key != "details"}
            raise StepFailed({"msg": outcome["text"], "error": error, "log": log})
        return outcome

    def _send(self, name: str, source: str, plan: dict[str, t.Any]) -> None:
        """Put a source where the host looks for it, in one execution that leaves nothing behind when it is cut off."""
        if os.path.isfile(source):
            with open(source, "rb") as stream:
                data = stream.read()
        else:
            packed = io.BytesIO()
            source_tree.pack(source, packed)
            data = packed.getvalue()
        done = self._low_level_execute_command(receive(plan["incoming"], data), in_data=data)
        if done["rc"] != 0:
            raise _not_whole("source", name, plan, f"{len(data)} bytes for {posixpath.dirname(plan['incoming'])}", done)

    def _send_image(self, name: str, source: tuple[str, str], plan: dict[str, t.Any], document: dict[str, t.Any]) -> None:
        """Let the controller's Docker build an image, and put it where the host looks for it, piece by piece: a connection takes bytes, and no stream."""
        log, scratch = Log(lambda line: self._print(name, [line])), C.DEFAULT_LOCAL_TMP
        path, sent = plan["image_incoming"], 0
        place, part = posixpath.dirname(path), f"{ARRIVING}image.{os.urandom(4).hex()}"
        try:
            image = ControllerImage(document, source[0], str(plan["image_platform"]), World(), log, shared=os.path.dirname(scratch), scratch=scratch)
            room: int | None = image.make(source[1])
            began = time.monotonic()
            for piece, sha256 in image.packed():
                sent += len(piece)
                done = self._low_level_execute_command(take(path, part, size=sent, room=room, sha256=sha256), in_data=piece)
                if done["rc"] != 0:
                    raise _not_whole("image", name, plan, f"{sent} bytes for {place}", done)
                room = None
        except AnchorageError as error:
            error.live = error.live or _living(name, plan)
            if sent:
                self._low_level_execute_command(f"rm -f {shell_word(posixpath.join(place, part))}")
            raise
        log.say(f"{name}: sent the image in {time.monotonic() - began:.0f} s ({sent / MIB:.0f} MiB)")

    def _print(self, name: str, lines: list[str]) -> None:
        host = self._vars.get("inventory_hostname", "")
        for line in lines:
            display.display(f"  {host} {line}" if line.startswith(name) else f"  {host} {name}: {line}")
