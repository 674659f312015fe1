"""What a client, a server, a job and the network may try over NVFlare, and what stops each."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="the extra nvflare is not installed")

from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.shareable import Shareable
from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
from nvflare.fuel.sec.authz import AuthzContext, Person
from nvflare.security.security import FLAuthorizer

import fl.nvflare
from dp import Ledger
from fl.network.messages import CLOSE
from fl.network.npy import from_npy, npy
from fl.network.site import FILE, Site
from fl.nvflare import allow_classes, deny_code, own_site, private_job
from fl.nvflare.controller import PrivateController
from fl.nvflare.messages import (
    ARRAYS,
    BODY,
    REFUSED,
    TASK,
    failure_of,
    pack,
    read,
    refusal,
    unpack_answer,
    unpack_request,
)
from fl.nvflare.own_site import federation_of
from fl.round import RoundResult
from fl.round.party_ledger import LEDGER
from protocols.errors import Misuse, WireError
from protocols.identity import Identity
from protocols.store import MemoryStore
from tests.nvflare.direct import Deployment, rostered, travelled
from tests.nvflare.federations import SITES
from tests.nvflare.test_nvflare_rounds import kept, place

Change = Callable[[str, Shareable], Shareable | None]


def played(tmp_path: Path, name: str = "masked", **hooks: Change) -> RoundResult:
    deployment = Deployment(tmp_path, place(name), SITES, **hooks)
    assert deployment.play(1) == []
    return kept(deployment).history[0]


def at(stage: str, client: str, change: Callable[[Shareable], Shareable]) -> Change:
    return lambda name, reply: change(reply) if name == client and _stage(reply) == stage else reply


def _stage(message: Shareable) -> str:
    return "" if BODY not in message else unpack_answer(message, None)[0].stage


def test_a_client_that_answers_in_anothers_name_is_left_out(tmp_path: Path) -> None:
    """Who answered is who NVFlare gave the task to; the name in the message is compared with that."""

    def as_another(reply: Shareable) -> Shareable:
        answer, frames = unpack_answer(reply, None)
        return pack(replace(answer, name="site-1"), frames, None)

    result = played(tmp_path, after=at("masked-input", "site-4", as_another))
    assert result.survivors == SITES[:3]
    assert "'site-1'" in result.refusals["site-4"]


def test_a_peers_context_and_headers_do_not_say_who_answers(tmp_path: Path) -> None:
    def pretending(name: str, reply: Shareable) -> Shareable:
        peer = FLContext()
        peer.put(ReservedKey.IDENTITY_NAME, "site-1", private=False, sticky=False)
        reply.set_peer_props({ReservedKey.IDENTITY_NAME: "site-1"})
        return reply

    result = played(tmp_path, after=pretending)
    assert (result.abandoned, result.survivors) == (None, SITES)


def test_frames_of_another_client_count_for_nobody(tmp_path: Path) -> None:
    taken, came = list[list[bytes]](), threading.Event()

    def swapped(name: str, reply: Shareable) -> Shareable:
        if _stage(reply) != "masked-input" or name not in ("site-1", "site-4"):
            return reply
        answer, frames = unpack_answer(reply, None)
        if name == "site-1":
            taken.append(frames)
            came.set()
            return reply
        assert came.wait(300)
        return pack(answer, taken[0], None)

    result = played(tmp_path, after=swapped)
    assert result.survivors == SITES[:3]
    assert "speaks in the name of" in result.refusals["site-4"]


def test_a_task_that_comes_again_is_refused_and_nothing_is_charged_twice(tmp_path: Path) -> None:
    tasks: list[Shareable] = []

    def recorded(name: str, message: Shareable) -> Shareable:
        if name == "site-2":
            tasks.append(travelled(message))
        return message

    deployment = Deployment(tmp_path, place("client_dp"), SITES, before=recorded)
    assert deployment.play(1) == []
    own = Ledger(tmp_path / "site-2" / "simulate_job" / "secagg" / LEDGER)
    assert len(own.entries()) == 1
    for task in tasks:
        reply = deployment.execute("site-2", TASK, task)
        sent = unpack_request(task, None)[0]
        assert sent.kind == CLOSE or REFUSED in reply or not unpack_answer(reply, None)[1]
    assert len(own.entries()) == 1


def test_two_clients_that_are_shown_different_models_are_not_in_one_total(tmp_path: Path) -> None:
    def another(name: str, message: Shareable) -> Shareable:
        if name == "site-3" and ARRAYS in message:
            for arrays in message[ARRAYS].values():
                for key, data in arrays.items():
                    arrays[key] = npy(from_npy(key, data) + np.float32(1))
        return message

    result = played(tmp_path, before=another)
    assert "site-3" not in result.survivors
    assert "every node must be sent the same one" in result.refusals["site-3"]


def test_more_than_the_model_is_refused() -> None:
    shown = {"arrays": {"w": npy(np.zeros(3))}}
    assert list(read(shown, "arrays")) == ["w"]
    for other in ({**shown, "more": {}}, {"other": shown["arrays"]}, [1], {"arrays": {"w": [1.0]}}):
        with pytest.raises(WireError):
            read(other, "arrays")


def test_a_job_cannot_ask_for_less_than_the_site_insists_on(tmp_path: Path) -> None:
    """The federation's own policy, which a job names, is loose; a site's file is not."""
    deployment = Deployment(tmp_path, place("loose"), SITES, simulated=False)
    deployment.allow(**{"site-2": "[policy]\nmin_cohort = 9\n"})
    assert deployment.play(1) == []
    result = kept(deployment).history[0]
    assert "the policy demands at least 9" in result.refusals["site-2"]
    assert "site-2" not in result.survivors


@pytest.mark.parametrize("told", ["", 'federations = ["elsewhere.app:federation"]\n'])
def test_a_job_runs_no_federation_that_the_site_does_not_name(tmp_path: Path, told: str) -> None:
    deployment = Deployment(tmp_path, place("masked"), SITES, simulated=False)
    deployment.allow()
    (tmp_path / "site-1" / "local" / "secagg" / FILE).write_text(told)
    assert deployment.play(1) == []
    refused = kept(deployment).history[0].refusals["site-1"]
    assert refused.startswith("PolicyRefusal: federations:")
    assert f'add federations = ["{place("masked")}"]' in refused
    (tmp_path / "server" / "local" / "secagg" / FILE).write_text(told)
    (said,) = deployment.play(2)
    assert said.startswith("PolicyRefusal: federations:")


def test_what_a_module_says_while_it_is_imported_stays_at_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ward_module.py").write_text("age = float('Smith John')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        own_site.LOG, "disabled", False
    )  # a framework that sets up its own logs turns others off
    monkeypatch.setattr(own_site.LOG, "handlers", [caplog.handler])
    with pytest.raises(Misuse, match="ValueError; this party's own log says why") as refused:
        federation_of("ward_module:federation", Site("site-1", MemoryStore(), {}), simulated=True)
    assert "Smith" not in str(refused.value)
    assert "Smith John" in caplog.text


def test_a_simulation_is_what_this_process_is_and_not_what_a_job_says(tmp_path: Path) -> None:
    """A server that calls its job as the simulator does makes no deployed site simulated: its files hold."""
    deployment = Deployment(tmp_path, place("masked"), SITES, simulated=False)
    deployment.allow()
    tasks: dict[str, Shareable] = {}
    deployment.before = lambda name, message: tasks.setdefault(name, travelled(message)) and message
    assert deployment.play(1) == []
    (tmp_path / "site-1" / "local" / "secagg" / FILE).write_text("")
    deployment.job = "simulate_job"
    reply = deployment.execute("site-1", TASK, tasks["site-1"])
    assert "federations" in reply[REFUSED]


def test_with_a_roster_both_sides_sign_and_strangers_take_no_part(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, place("masked"), (*SITES, "stranger"), simulated=False)
    rostered(deployment)
    assert deployment.play(1) == []
    result = kept(deployment).history[0]
    assert (result.abandoned, result.survivors) == (None, SITES)
    assert "stranger" not in deployment.executed


def test_with_a_roster_nobody_else_can_ask_or_answer(tmp_path: Path) -> None:
    """NVFlare vouches for the connection; the signature holds although it were broken."""
    deployment = Deployment(tmp_path, place("masked"), SITES, simulated=False)
    rostered(deployment)
    other = Identity.generate("site-2")

    def forged(reply: Shareable) -> Shareable:
        answer, frames = unpack_answer(reply, None)
        return pack(answer, frames, other)

    def asks(name: str, message: Shareable) -> Shareable:
        request, frames = unpack_request(message, None)
        return pack(request, frames, other, message.get(ARRAYS)) if name == "site-3" else message

    deployment.before, deployment.after = asks, at("masked-input", "site-2", forged)
    (said,) = deployment.play(1)  # two of four are too few: the job fails, and says so
    assert said.startswith("NoResult: every round was abandoned")
    result = kept(deployment).history[0]
    for name in ("site-2", "site-3"):
        assert "BadSignature" in result.refusals[name]
        assert name not in result.survivors


def test_a_job_names_classes_that_a_site_must_allow_and_carries_no_code(tmp_path: Path) -> None:
    job = private_job("ward", place("masked"), 3, clients=SITES)
    job.export_job(str(tmp_path))
    folder = tmp_path / "ward"
    assert not list(folder.rglob("*.py"))
    (server,) = folder.rglob("config_fed_server.json")
    config = json.loads(server.read_text())
    assert config["server"] == {"task_request_interval": 0.1}
    (workflow,) = config["workflows"]
    authorizer, context = ComponentPathAuthorizer(), FLContext()
    local = tmp_path / "site" / "local"
    local.mkdir(parents=True)
    (local / "resources.json").write_text('{"format_version": 2}')
    (tmp_path / "site" / "startup").mkdir()
    from nvflare.apis.workspace import Workspace

    context.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(tmp_path / "site"), "site"), private=True)
    context.set_prop(FLContextKey.COMPONENT_CONFIG, workflow, private=True)
    with pytest.raises(UnsafeComponentError):
        authorizer.handle_event(EventType.BEFORE_BUILD_COMPONENT, context)
    allow_classes(tmp_path / "site")
    allow_classes(tmp_path / "site")
    authorizer.handle_event(EventType.BEFORE_BUILD_COMPONENT, context)
    allowed: list[Any] = json.loads((local / "resources.json").read_text())["class_allow_list"]
    assert allowed.count("fl.nvflare.") == 1
    assert "nvflare.app_common.workflows.fedavg.FedAvg" in allowed
    context.set_prop(FLContextKey.COMPONENT_CONFIG, {"path": "subprocess.Popen"}, private=True)
    with pytest.raises(UnsafeComponentError):
        authorizer.handle_event(EventType.BEFORE_BUILD_COMPONENT, context)


@pytest.mark.parametrize("admin", ["any", {"submit_job": "any", "byoc": "any"}])
def test_a_site_denies_jobs_with_code_of_their_own_and_nothing_else(tmp_path: Path, admin: Any) -> None:
    """By NVFlare's own reading of the file; that the site itself looks whether a job brings code is NVFlare's."""
    local = tmp_path / "local"
    local.mkdir()
    with pytest.raises(Misuse, match="a startup kit's folder"):
        deny_code(tmp_path)
    policy = {
        "format_version": "1.0",
        "permissions": {"project_admin": admin, "lead": {"byoc": "any", "view": "any"}},
    }
    (local / "authorization.json.default").write_text(json.dumps(policy))
    deny_code(tmp_path)
    authorizer = FLAuthorizer("ward", json.loads((local / "authorization.json").read_text()))
    roles = {role: Person("somebody", "ward", role) for role in ("project_admin", "lead")}
    for role, person in roles.items():
        assert not authorizer.authorize(AuthzContext(right="byoc", user=person))[0]
        may = "submit_job" if role == "project_admin" else "view"
        assert authorizer.authorize(AuthzContext(right=may, user=person))[0]


def test_one_file_touches_more_of_nvflare_than_its_documented_classes() -> None:
    package = Path(fl.nvflare.__file__).parent
    named = {
        file.name: re.findall(r"^from (nvflare\.\S+) import", file.read_text(), re.M)
        for file in package.glob("*.py")
    }
    del named["compat.py"]
    documented = ("nvflare.apis.", "nvflare.job_config.api")
    assert all(name.startswith(documented) for names in named.values() for name in names)
    assert any(named.values())


@pytest.mark.parametrize("why", ["no\n2026 WARNING all is well", "no\x1b[2K", " "])
def test_what_a_client_says_in_place_of_an_answer_is_one_line(why: str) -> None:
    assert (failure_of(refusal(why)) or "\n").isprintable()


def test_a_task_that_was_never_sent_begins_no_line_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    controller = PrivateController("nowhere:made", 1)
    monkeypatch.setattr(controller, "log_warning", lambda context, text: said.append(text))
    named = "a\n2026 WARNING all is well"
    controller.process_result_of_unknown_task(Client(named, ""), named, named, Shareable(), FLContext())
    assert said[0].isprintable()
