"""Checks of how VMs close before they leave their pools: probes, flag file, hooks, responder. Pure.

A closed VM answers the load balancer's probe with 503. That is evidence only where the probe asks
what answers so: the responder (`[probe] listen`) or the application, over HTTP.
"""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from controller.azure.topology import LoadBalancerDetails
from controller.config.base import is_loopback, socket_address
from controller.config.schema import Settings
from controller.core.azure_names import fold, short
from controller.core.resources import HealthProbe
from controller.doctor.facts import DoctorFacts
from controller.doctor.remedies import SHORTEST_S, az, in_group, probe_times
from controller.doctor.report import Finding, failed, passed, warned
from controller.probe.settings import AZURE_PROBE_ADDRESSES, AllowedSources
from controller.system.paths import DEFAULTS
from controller.system.service_manager import MANAGER

ALL_UP = "allprobedup"
AS_SUPERUSER = f"run the doctor {MANAGER.as_superuser}"


def check_closing(facts: DoctorFacts) -> list[Finding]:
    """Return the findings about the VM's own side of a drain."""
    settings = facts.settings
    if not settings.policy.close:
        return list(_unused(facts))
    return [
        *_probes(facts),
        *_flag(facts),
        *_hooks(facts),
        *_responder(facts),
    ]


def _unused(facts: DoctorFacts) -> Iterator[Finding]:
    settings = facts.settings
    parts = (("[probe] listen", settings.probe.listen), ("[[hooks]]", settings.hooks))
    if unused := [name for name, value in parts if value]:
        message = f"{' and '.join(unused)} have no effect, because close = false in [policy]"
        yield warned("closing", message, ("remove close = false from [policy]",))


# --- probes ---


def _probes(facts: DoctorFacts) -> Iterator[Finding]:
    managed = {fold(pool.id) for pool in facts.settings.backend_pools}
    for balancer in facts.known_load_balancers:
        known: dict[str, HealthProbe] = {}
        for rule in balancer.load_balancer.rules:
            if rule.probe is not None and managed & set(map(fold, rule.pool_ids)):
                known[fold(rule.probe.probe_id)] = rule.probe
        yield from (_Probe(facts, balancer, each).finding() for each in known.values())


class _Probe:
    """One probe, and what has to change so that it notices a closed VM."""

    def __init__(
        self, facts: DoctorFacts, balancer: LoadBalancerDetails, probe: HealthProbe
    ) -> None:
        self._facts, self._settings, self._probe = facts, facts.settings, probe
        self._balancer_id = balancer.load_balancer.load_balancer_id
        self._name = short(probe.probe_id)
        names = [fold(each) for each in balancer.probe_names]
        self._order = names.index(fold(self._name)) if fold(self._name) in names else 0
        listen = facts.settings.probe.listen
        self._port = socket_address(listen)[1] if listen else 0
        self._options: dict[str, str] = {}

    def finding(self) -> Finding:
        check, subject = "closing-probe", f"{short(self._balancer_id)}/{self._name}"
        no_evidence = self._no_evidence()
        others = (*self._uncounted(), *self._too_slow(), *self._all_up())
        problems = [each for each in (no_evidence, *others) if each]
        probe = self._probe
        if not problems:
            message = (
                f"{probe.protocol} port {probe.port}: notices a closed VM within "
                f"{probe.notices_in_s:g} s"
            )
            return passed(check, message, subject=subject)
        only_way = bool(no_evidence) and self._settings.policy.mechanism == "probe"
        report = failed if only_way else warned
        return report(check, "; ".join(problems), tuple(self._fix()), subject=subject)

    def _no_evidence(self) -> str:
        """Return why a 503 of this VM does not reach the load balancer; note what to change."""
        probe, wanted = self._probe, self._settings.probe.path
        protocol, path = fold(probe.protocol), probe.path or "/"
        problems: list[str] = []
        if protocol == "tcp":
            problems.append("a TCP probe finds a closed VM healthy, because its port is open")
        elif self._port and protocol == "https":
            problems.append("it asks over HTTPS, and the responder answers HTTP")
        if self._port and probe.port != self._port:
            problems.append(
                f"it asks port {probe.port}, and [probe] listen is port {self._port}: it does not "
                "see that the VM is closed"
            )
        if self._port and protocol != "tcp" and path.lstrip("/") != wanted.lstrip("/"):
            problems.append(f"it asks for {path}, and [probe] path is {wanted}")
        if problems:
            port, target = (self._port, wanted) if self._port else (probe.port, path)
            self._options |= {"protocol": "Http", "port": str(port), "path": target}
        return "; ".join(problems)

    @property
    def _is_uncounted(self) -> bool:
        """Whether only the health of rules can prove that the VM is out, as the planner asks."""
        by_application = not self._port and fold(self._probe.protocol) != "tcp"
        return by_application and self._settings.policy.close_only

    def _uncounted(self) -> Iterator[str]:
        if self._is_uncounted:
            yield (
                "the application answers it, and [probe] listen is empty, so nothing counts the "
                "refused probes: a VM that closes is held, unless the identity has the role "
                "'lb-drain rule health', which is not checked here"
            )

    def _too_slow(self) -> Iterator[str]:
        probe, limit_s = self._probe, self._settings.policy.connection_drain_s
        if probe.notices_in_s <= limit_s:
            return
        yield (
            f"it notices a closed VM after up to {probe.notices_in_s:g} s (interval x threshold), "
            f"and connection_drain_s is {limit_s:g}: the VM is removed before"
        )
        self._options |= probe_times(limit_s)

    def _all_up(self) -> Iterator[str]:
        if fold(self._probe.when_all_down) == ALL_UP:
            yield (
                "noHealthyBackendsBehavior is AllProbedUp: when every member answers 503, every "
                "member gets new connections again"
            )

    def _fix(self) -> Iterator[str]:
        if self._is_uncounted:
            yield 'listen = "0.0.0.0:9810" in [probe], and let the probe ask that port'
            yield (
                "or assign the role in deploy/roles/rule-health.json on the subscription of the "
                "load balancer"
            )
        if self._options:
            command = az(
                "network lb probe update",
                **in_group(self._facts, self._balancer_id),
                lb_name=short(self._balancer_id),
                name=self._name,
                **self._options,
            )
            by_application = "protocol" in self._options and not self._port
            note = (
                "  # the application has to answer it with 503 while the flag file exists"
                if by_application
                else ""
            )
            yield command + note
        if self._probe.notices_in_s > self._settings.policy.connection_drain_s < SHORTEST_S:
            yield f"connection_drain_s = {SHORTEST_S} in [policy]"
        if fold(self._probe.when_all_down) == ALL_UP:
            version = self._settings.azure.network_api_version
            value = f"properties.probes[{self._order}].noHealthyBackendsBehavior=AllProbedDown"
            yield az("resource update", ids=self._balancer_id, api_version=version, set=value)


# --- this VM ---


def _flag(facts: DoctorFacts) -> Iterator[Finding]:
    check, flag_file = "flag-file", facts.settings.drain.flag_file
    if not flag_file:
        message = "flag_file in [drain] is empty: no web server can see that this VM is closed"
        yield warned(check, message, (f"flag_file = {DEFAULTS.flag_file_toml} in [drain]",))
    elif problem := facts.vm_side.flag_problem:
        fix = (
            f"flag_file = {DEFAULTS.flag_file_toml} in [drain]",
            MANAGER.allow_writing(os.path.dirname(flag_file)),
        )
        yield failed(check, problem, fix)
    elif flag_file in facts.vm_side.unseen:
        message = f"this user cannot check that the agent can create {flag_file}"
        yield warned(check, message, (AS_SUPERUSER,))
    else:
        yield passed(check, f"{flag_file} can be created")


def _hooks(facts: DoctorFacts) -> Iterator[Finding]:
    check, hooks = "hooks", facts.settings.hooks
    for program, problem in facts.vm_side.hook_problems.items():
        fix = MANAGER.allow_running(program)
        yield failed(check, f"{program} {problem}", (fix,), subject=program)
    unseen = sorted({hook.command[0] for hook in hooks} & facts.vm_side.unseen)
    for program in unseen:
        message = f"this user cannot check that the agent can run {program}"
        yield warned(check, message, (AS_SUPERUSER,), subject=program)
    if hooks and not unseen and not facts.vm_side.hook_problems:
        yield passed(check, f"every program exists and can be executed ({len(hooks)})")


def _responder(facts: DoctorFacts) -> Iterator[Finding]:
    check, listen = "responder", facts.settings.probe.listen
    if not listen:
        return
    found = facts.vm_side
    if problem := found.responder_problem:
        fix = f"{MANAGER.restart_probe}  # so that it reads the configuration again"
        if found.responder_is_other:
            fix = "stop the other program, or change the port of listen in [probe] and of the probe"
        yield failed(check, f"{listen}: {problem}", (fix,))
    elif unreachable := _unreachable(facts.settings):
        message, fix = unreachable
        yield failed(check, message, (fix, f"{MANAGER.restart_probe}  # afterwards"))
    elif found.responder_answers:
        yield passed(check, f"it answers on {listen}")
    else:
        message = f"nothing answers GET {facts.settings.probe.path} on {listen}"
        fix = f"{MANAGER.enable_probe}  # the health probe fails until it answers"
        yield failed(check, message, (fix,))


def _unreachable(settings: Settings) -> tuple[str, str] | None:
    """Return why the load balancer gets no answer although this VM does, and what to change."""
    if is_loopback(urlsplit(settings.azure.imds_endpoint).hostname):
        return None  # a simulated Azure: its load balancer is on this host too
    host, port = socket_address(settings.probe.listen)
    if is_loopback(host):
        message = f"it listens on {host} only, where the load balancer does not reach it"
        return message, f'listen = "0.0.0.0:{port}" in [probe]'
    allowed = AllowedSources(settings.probe.allow)
    if not any(allowed.allows(each.partition("/")[0]) for each in AZURE_PROBE_ADDRESSES):
        message = "allow in [probe] has no address that probes of the load balancer come from"
        return message, f'add "{AZURE_PROBE_ADDRESSES[0]}" to allow in [probe]'
    return None
