from __future__ import annotations

import ast
import asyncio
import collections
import inspect
import itertools
import json
import logging
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common import framing
from common.catalogue import CATALOGUE, Direction
from common.events import Reason, VersionChanged
from common.session import HostSession
from common.versions import Version
from host_agent import commands, refusals, release
from host_agent.budget import Limits
from host_agent.feed import Feed
from host_agent.guest import Guest, Shared, State
from host_agent.known import Departure
from host_agent.meter import ROUND_TRIPS, Meter
from host_agent.metrics import AGES, BATCH, CONTENT_TYPE, DROPS, OTHER, REFUSALS, Levels, Metrics
from host_agent.registry import Registry
from tests.needs import ROOT

from .parts import run

DASHBOARD = ROOT / "packaging" / "grafana" / "vmaccord.json"
RULES = ROOT / "packaging" / "prometheus" / "vmaccord.rules.yml"
PLAYED_RULES = ROOT / "packaging" / "prometheus" / "vmaccord.rules.test.yml"
DOCUMENT = ROOT / "docs" / "metrics.md"

#: What the alerts use that is not of this daemon: Prometheus says whether it could read, node_exporter how old a file is.
FOREIGN = {"up", "node_textfile_mtime_seconds"}

#: Labels that Prometheus adds.
ADDED = {"instance", "job", "file", "le"}

#: How a sample is known: its name and its labels.
Key = tuple[str, frozenset[tuple[str, str]]]

IDLE = Levels(supported=3, commands=0, unsent=0, events=0, events_ever=0)

HEARTBEAT = b'{"__name__":"heartbeat","apiVersion":3,"free-ram":"512","memory-stat":{"mem_total":1}}\n'


class Host:
    """The parts of a daemon that metrics are made of, with a clock of its own."""

    def __init__(self, levels: Levels = IDLE, facts_size: int = 262144) -> None:
        self.now = 100.0
        self.meter = Meter()
        self.limits = Limits(facts_size=facts_size)
        self.shared = Shared(self.meter, run(_make_feed()), self.limits)
        self.registry = Registry(self._make, 1000.0)
        self.metrics = Metrics(self.meter, self.registry, lambda: self.now, lambda: levels, 12345.5)

    def _make(self, name: str) -> Guest:
        return Guest(name, HostSession(Version.V3, "host-1"), self.now, self.shared)

    def guest(self, name: str, *lines: bytes) -> Guest:
        """A guest whose channel is open and that says *lines*."""
        guest = self.registry.arrived(name)
        guest.found("/run/port", self.now)
        guest.connected(self.now)
        self.hear(guest, *lines)
        return guest

    def hear(self, guest: Guest, *lines: bytes) -> None:
        guest.session.receive_data(b"".join(lines), self.now)
        guest.absorb(guest.session.events(), self.now)

    def text(self) -> str:
        body, content_type = run(self.metrics.render())
        assert content_type == CONTENT_TYPE
        return body.decode("utf-8")

    def samples(self) -> dict[Key, float]:
        return dict(_samples(self.text()))

    def value(self, name: str, /, **labels: str) -> float:
        return self.samples()[name, frozenset(labels.items())]

    def values(self, name: str, label: str) -> dict[str, float]:
        """What is not 0 of the metric *name*, by *label*."""
        return {dict(labels)[label]: value for (each, labels), value in self.samples().items() if each == name and value}


async def _make_feed() -> Feed:
    """In a loop, where Python 3.9 wants its events made."""
    return Feed("run")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Hostile guests are told of in the log, which is not looked at here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _samples(text: str) -> Iterator[tuple[Key, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield (sample.name, frozenset(sample.labels.items())), sample.value


# ---- Guests ----


def test_guests_are_counted_by_state_and_agreed_version() -> None:
    host = Host()
    for name in ("web-1", "web-2"):
        host.guest(name, HEARTBEAT)
    host.guest("old", HEARTBEAT.replace(b":3,", b":1,"))
    host.guest("mute")
    host.registry.arrived("starting").found("/run/port", host.now)
    host.registry.left("gone", host.now)
    silent = host.guest("silent", HEARTBEAT)
    silent.session.tick(host.now + 20)
    silent.absorb(silent.session.events(), host.now + 20)
    counted = {
        (dict(labels)["state"], dict(labels)["agreed"]): value
        for (name, labels), value in host.samples().items()
        if name == "vmaccord_guests" and value
    }
    assert counted == {
        ("responsive", "3"): 2,
        ("responsive", "1"): 1,
        ("connected", "0"): 1,
        ("connecting", "none"): 1,
        ("absent", "none"): 1,
        ("unresponsive", "3"): 1,
    }


def test_every_state_and_version_is_there_before_a_guest_is() -> None:
    states = {dict(labels)["state"] for name, labels in Host().samples() if name == "vmaccord_guests"}
    agreed = {dict(labels)["agreed"] for name, labels in Host().samples() if name == "vmaccord_guests"}
    assert states == {state.value for state in State}
    assert agreed == {"none", *(str(version) for version in Version)}


def test_throttled_guests_are_counted_now_and_over_time() -> None:
    host = Host()
    flood, calm = host.guest("flood", HEARTBEAT), host.guest("calm", HEARTBEAT)
    flood.throttle(True)
    calm.throttle(True)
    calm.throttle(False)
    assert host.value("vmaccord_throttled_guests") == 1
    assert host.value("vmaccord_throttled_total") == 2


def test_guests_whose_hand_off_is_in_doubt_are_counted() -> None:
    host = Host()
    doubtful, _ = host.guest("a", HEARTBEAT), host.guest("b", HEARTBEAT)
    doubtful.departure = Departure("0" * 32, "a", None, "host-b", 0.0)
    assert host.value("vmaccord_handoffs_in_doubt") == 1


def test_ages_of_heartbeats_are_a_distribution_over_all_open_channels() -> None:
    host = Host()
    oldest = host.guest("oldest", HEARTBEAT)
    host.now += 20
    host.guest("older", HEARTBEAT)
    host.guest("closed", HEARTBEAT).disconnected("the end", host.now)
    host.guest("never heard")
    host.now += 3
    host.guest("fresh", HEARTBEAT)
    host.hear(oldest, b'{"__name__":"echo"}\n')
    ends = {
        dict(labels)["le"]: value for (name, labels), value in host.samples().items() if name.endswith("age_seconds_bucket")
    }
    assert (ends["1.0"], ends["2.5"], ends["5.0"], ends["15.0"], ends["30.0"], ends["+Inf"]) == (1, 1, 2, 2, 3, 3)
    assert len(ends) == len(AGES) + 1
    assert host.value("vmaccord_heartbeat_age_seconds_gcount") == 3
    assert host.value("vmaccord_heartbeat_age_seconds_gsum") == 26
    assert host.value("vmaccord_oldest_heartbeat_seconds") == 23


def test_a_heartbeat_that_came_during_the_scrape_is_not_from_the_future() -> None:
    host = Host()
    host.guest("web-1", HEARTBEAT)
    host.now -= 1
    assert host.value("vmaccord_heartbeat_age_seconds_gsum") == 0


# ---- Counters ----


def test_a_change_of_the_agreed_version_is_counted_by_its_reason() -> None:
    host = Host()
    host.guest("web-1", HEARTBEAT, HEARTBEAT.replace(b":3,", b":1,"))
    host.hear(host.guest("web-2", HEARTBEAT), HEARTBEAT.replace(b":3,", b":1,"))
    assert host.values("vmaccord_agreed_changes_total", "reason") == {"first-agreement": 2, "guest-downgraded": 1}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_of_a_change_has_a_series_of_its_own(reason: Reason) -> None:
    host = Host()
    host.guest("web-1").absorb([VersionChanged(Version.V0, Version.V1, reason, "because")], host.now)
    assert host.values("vmaccord_agreed_changes_total", "reason") == {reason.name.lower().replace("_", "-"): 1}


def test_messages_are_counted_by_name_and_direction() -> None:
    host = Host()
    host.guest("web-1", HEARTBEAT, HEARTBEAT, b'{"__name__":"echo"}\n')
    host.meter.sent["shutdown"] += 4
    assert host.value("vmaccord_messages_total", direction="in", name="heartbeat") == 2
    assert host.value("vmaccord_messages_total", direction="in", name="echo") == 1
    assert host.value("vmaccord_messages_total", direction="out", name="echo") == 0
    assert host.value("vmaccord_messages_total", direction="out", name="shutdown") == 4


def test_every_message_of_the_table_has_a_series_from_the_start() -> None:
    expected = {("in" if row.direction is Direction.TO_HOST else "out", row.name) for row in CATALOGUE.rows}
    found = {
        (dict(labels)["direction"], dict(labels)["name"])
        for name, labels in Host().samples()
        if name == "vmaccord_messages_total"
    }
    assert found == expected | {("in", OTHER), ("out", OTHER)}


def test_what_is_in_no_table_is_counted_together() -> None:
    host = Host()
    host.meter.received.update({"evil": 2, "\x1b[31m": 3, "heartbeat": 1})
    assert host.value("vmaccord_messages_total", direction="in", name=OTHER) == 5
    assert "evil" not in host.text()


def test_bytes_are_counted_by_direction() -> None:
    host = Host()
    host.meter.bytes_received, host.meter.bytes_sent = 70, 30
    assert host.values("vmaccord_bytes_total", "direction") == {"in": 70, "out": 30}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"garbage\n", "malformed"),
        (b"x" * framing.LINE_LIMIT + b"\n", "overlong"),
        (b'{"__name__":"no-such-message"}\n', "unknown"),
        (b'{"__name__":"shutdown"}\n', "wrong-direction"),
        (b'{"__name__":"host-name","name":7}\n', "invalid-arguments"),
        (b'{"__name__":"host-name","name":"%s"}\n' % (b"x" * 300_000), "facts-too-large"),
    ],
)
def test_whatever_is_dropped_is_counted_by_its_reason(line: bytes, reason: str) -> None:
    host = Host()
    host.guest("bad", line)
    assert host.values("vmaccord_dropped_total", "reason") == {reason: 1}


def test_a_message_newer_than_supported_is_counted_as_dropped() -> None:
    host = Host()
    guest = host.guest("new")
    guest.session.support(Version.V1, host.now)
    host.hear(guest, b'{"__name__":"containers","list":[]}\n')
    assert host.values("vmaccord_dropped_total", "reason") == {"newer-than-supported": 1}


def test_the_reasons_of_drops_are_those_that_the_code_has() -> None:
    sources = "".join(inspect.getsource(inspect.getmodule(each) or each) for each in (HostSession, Guest))
    found = re.findall(r'_drop\(\s*"([a-z-]+)"', sources) + re.findall(r'dropped\["([a-z-]+)"\]', sources)
    assert set(found) == set(DROPS)


def test_what_a_forgotten_guest_sent_stays_counted() -> None:
    host = Host()
    host.guest("bad", b"garbage\n" * 3)
    host.guest("worse", b"garbage\n")
    host.registry.remove("bad").forgotten()
    assert host.values("vmaccord_dropped_total", "reason") == {"malformed": 4}


def test_times_to_completion_are_a_histogram() -> None:
    host = Host()
    for seconds in (0.0005, 0.02, 0.025, 400.0):
        host.meter.round_trips.add(seconds)
    ends = {
        dict(labels)["le"]: value
        for (name, labels), value in host.samples().items()
        if name == "vmaccord_completion_seconds_bucket"
    }
    assert [ends[str(end)] for end in ROUND_TRIPS] == [1, 1, 1, 1, *[3] * 12]
    assert ends["+Inf"] == host.value("vmaccord_completion_seconds_count") == 4
    assert host.value("vmaccord_completion_seconds_sum") == pytest.approx(400.0455)


def test_what_becomes_of_commands_is_counted() -> None:
    host = Host()
    host.meter.late, host.meter.unknown, host.meter.timeouts = 1, 2, 3
    host.meter.refusals.update({"busy": 4, "surprise": 5})
    assert host.value("vmaccord_late_completions_total") == 1
    assert host.value("vmaccord_unknown_completions_total") == 2
    assert host.value("vmaccord_timed_out_commands_total") == 3
    assert host.values("vmaccord_refused_commands_total", "reason") == {"busy": 4, OTHER: 5}


def test_what_becomes_of_hand_offs_is_counted() -> None:
    host = Host()
    host.meter.handoffs.update({"handed-over": 2, "taken-over": 3, "failed": 4})
    told = host.values("vmaccord_handoffs_total", "reason")
    assert told == {"handed-over": 2, "taken-over": 3, "failed": 4}


def test_the_kinds_of_refusals_are_those_that_the_code_has() -> None:
    sources = map(inspect.getsource, (commands, refusals))
    calls = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Refused"]
    kinds = {kind.value for kind in made if isinstance(kind, ast.Constant)}
    assert len(kinds) >= 7
    assert kinds <= set(REFUSALS)


# ---- The daemon itself ----


def test_levels_are_told() -> None:
    host = Host(Levels(2, commands=1, unsent=5, events=3, events_ever=4, state_rows=6, state_failing=True, lost_sources=7))
    told = {
        name: host.value(f"vmaccord_{name}")
        for name in ("supported_api_version", "events_total", "state_failing", "lost_sources")
    }
    assert told == {
        "supported_api_version": 2,
        "events_total": 4,
        "state_failing": 1,
        "lost_sources": 7,
    }
    queues = {name: host.value(f"vmaccord_queue_{name}") for name in ("commands", "write_bytes", "events", "state_rows")}
    assert queues == {"commands": 1, "write_bytes": 5, "events": 3, "state_rows": 6}


def test_a_host_that_knows_no_versions_supports_less_than_any() -> None:
    assert Host(IDLE._replace(supported=None)).value("vmaccord_supported_api_version") == -1


def test_the_process_is_measured() -> None:
    host = Host()
    assert host.value("vmaccord_process_start_time_seconds") == 12345.5
    assert host.value("vmaccord_process_cpu_seconds_total") > 0
    assert host.value("vmaccord_process_open_fds") > 2
    assert host.value("vmaccord_process_max_fds") == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert (
        1_000_000
        < host.value("vmaccord_process_resident_memory_bytes")
        < host.value("vmaccord_process_virtual_memory_bytes")
    )
    assert host.value("vmaccord_build_info", version=release()) == 1


def test_without_a_descriptor_left_all_else_is_told() -> None:
    host = Host()

    async def short_of_descriptors() -> tuple[bytes, str]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            return await host.metrics.render()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    body, _ = run(short_of_descriptors())
    assert b"vmaccord_process_max_fds 0.0" in body
    assert b"vmaccord_process_open_fds" not in body


# ---- Bounds ----


def test_thousands_of_hostile_guests_make_no_series_and_choose_no_label() -> None:
    idle = set(Host().samples())
    host = Host()
    for number in range(3000):
        evil = f'evil-{number}"\\n\x1b[31m\u202e'
        lines = [
            json.dumps({"__name__": evil, "apiVersion": evil}),
            json.dumps({"__name__": "heartbeat", "apiVersion": number, "agentId": evil}),
            json.dumps({"__name__": "heartbeat", "apiVersion": 10**30 + number, "agentId": evil + "2"}),
            json.dumps({"__name__": "heartbeat", "apiVersion": evil, "free-ram": evil, "memory-stat": {evil: number}}),
            json.dumps({"__name__": "host-name", "name": evil}),
            json.dumps({"__name__": "completion", "reply_id": evil, "done": True, evil: evil}),
            "{" + evil,
        ]
        host.guest(evil, *(line.encode() + b"\n" for line in lines))
        if number % 3 == 0:
            host.registry.remove(evil).forgotten()
    text = host.text()
    assert set(dict(_samples(text))) == idle
    assert "evil" not in text
    assert "\x1b" not in text
    assert len(idle) < 200


def test_others_get_their_turns_between_small_pieces_of_a_scrape() -> None:
    host = Host()
    for number in range(10 * BATCH):
        host.registry.arrived(f"vm-{number}")
    turns = itertools.count()

    async def scrape() -> int:
        loop = asyncio.get_running_loop()

        def turn() -> None:
            next(turns)
            timers.append(loop.call_soon(turn))

        timers = collections.deque([loop.call_soon(turn)], maxlen=1)
        await host.metrics.render()
        timers[0].cancel()
        return next(turns)

    assert run(scrape()) >= 10


def test_guests_may_come_and_go_during_a_scrape() -> None:
    host = Host()
    for number in range(3 * BATCH):
        host.guest(f"vm-{number}", b"garbage\n")

    async def scrape() -> bytes:
        scraping = asyncio.ensure_future(host.metrics.render())
        await asyncio.sleep(0)
        for number in range(3 * BATCH):
            host.registry.remove(f"vm-{number}").forgotten()
            host.guest(f"other-{number}")
        body, _ = await scraping
        return body

    assert f'vmaccord_dropped_total{{reason="malformed"}} {float(3 * BATCH)}\n'.encode() in run(scrape())


def test_scrapes_at_the_same_time_do_not_mix() -> None:
    host = Host()
    for number in range(2 * BATCH):
        host.guest(f"vm-{number}", HEARTBEAT)

    async def both() -> tuple[tuple[bytes, str], ...]:
        return await asyncio.gather(host.metrics.render(), host.metrics.render())

    for body, _ in run(both()):
        assert f"vmaccord_heartbeat_age_seconds_gcount {float(2 * BATCH)}\n".encode() in body


# ---- Documentation, dashboard and alerts ----


def test_the_documented_metrics_are_those_that_are_told() -> None:
    table = DOCUMENT.read_text("utf-8").partition("\n## All metrics\n")[2].partition("\n## ")[0]
    documented = [line for line in table.splitlines() if line.startswith("| `")]
    told = []
    for family in text_string_to_metric_families(Host().text()):
        if family.name.endswith(("_gcount", "_gsum")):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        told.append(f"| `{name}` | {family.type} | {', '.join(f'`{label}`' for label in labels)} | {family.documentation} |")
    assert documented == told


def _dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return dashboard


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in _dashboard()["panels"] if panel["type"] != "row"]


def _rules() -> list[dict[str, str]]:
    """The rules, read as far as they use YAML: a key and its value on one line."""
    rules: list[dict[str, str]] = []
    for line in RULES.read_text("utf-8").splitlines():
        key, separator, value = line.strip().partition(": ")
        if key == "- alert":
            rules.append({"alert": value})
        elif rules and separator:
            rules[-1][key] = value[1:-1] if value[:1] in ("'", '"') else value
    return rules


def _expressions() -> list[str]:
    return [target["expr"] for panel in _panels() for target in panel["targets"]] + [rule["expr"] for rule in _rules()]


def test_every_metric_of_the_dashboard_and_the_alerts_is_told() -> None:
    known = {name for name, _ in Host().samples()} | FOREIGN
    expressions = _expressions()
    assert len(expressions) > 40
    for expression in expressions:
        named = set(re.findall(r"\b(?:vmaccord_\w+|up|node_\w+)\b(?!\\)", re.sub(r'"[^"]*"', '""', expression)))
        assert named, expression
        assert named <= known, expression


def test_every_label_and_value_of_the_dashboard_and_the_alerts_is_told() -> None:
    told = collections.defaultdict(set)
    for name, labels in Host().samples():
        for label, value in labels:
            told[name, label].add(value)
    for expression in _expressions():
        for name, matchers in re.findall(r"(vmaccord_\w+)\{([^}]*)\}", expression):
            for label, values in re.findall(r'(\w+)(?:=~|!=|=)"([^"]*)"', matchers):
                assert label in ADDED or set(values.split("|")) <= told[name, label], expression
        labels_of_all = {label for _, label in told} | ADDED
        for grouping in re.findall(r"by \(([^)]*)\)", expression):
            assert set(grouping.split(", ")) <= labels_of_all, expression


def test_every_metric_has_a_place_in_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in _panels() for target in panel["targets"])
    unseen = {family.name for family in text_string_to_metric_families(Host().text()) if family.name not in shown}
    assert unseen == {
        "vmaccord_heartbeat_age_seconds_gcount",
        "vmaccord_heartbeat_age_seconds_gsum",
        "vmaccord_process_virtual_memory_bytes",
    }


def test_the_dashboard_takes_its_data_source_and_hosts_from_variables() -> None:
    variables = {variable["name"]: variable for variable in _dashboard()["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["instance"]["query"]["query"] == "label_values(vmaccord_build_info, instance)"
    for panel in _panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'instance=~"$instance"' in target["expr"]


def test_no_panel_can_show_html() -> None:
    assert {panel["type"] for panel in _panels()} == {"stat", "timeseries"}
    assert "<" not in DASHBOARD.read_text("utf-8")


def test_panels_have_a_number_of_their_own_and_do_not_overlap() -> None:
    panels = _dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = collections.Counter(
        cell
        for place in (panel["gridPos"] for panel in panels)
        for cell in itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
    )
    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) == 23
    assert all(panel["title"] and panel["description"] for panel in _panels())


def test_every_alert_is_complete_and_documented() -> None:
    rules = _rules()
    document = DOCUMENT.read_text("utf-8")
    assert len(rules) == len({rule["alert"] for rule in rules}) >= 10
    for rule in rules:
        assert {"alert", "expr", "severity", "summary", "description"} <= rule.keys()
        assert rule["severity"] in ("critical", "warning")
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "0m"))
        assert rule["summary"].count("{{") == rule["summary"].count("}}")
        assert f"\n| `{rule['alert']}` | {rule['severity']} |" in document
    assert document.count("\n| `Vmaccord") == len(rules)


def test_every_alert_is_played() -> None:
    played = PLAYED_RULES.read_text("utf-8")
    assert [rule["alert"] for rule in _rules() if rule["alert"] not in played] == []


def _promtool(*arguments: str, text: Optional[str] = None) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    ended = subprocess.run(
        ["promtool", *arguments], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_prometheus_has_nothing_to_say_against_the_metrics() -> None:
    assert _promtool("check", "metrics", text=Host().text()) == ""


def test_prometheus_understands_the_alerts() -> None:
    _promtool("check", "rules", str(RULES))


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    _promtool("test", "rules", str(PLAYED_RULES))


def test_prometheus_understands_the_dashboard(tmp_path: Any) -> None:
    expressions = [target["expr"].replace("$__rate_interval", "5m") for panel in _panels() for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert f"{len(rules)} rules found" in _promtool("check", "rules", os.fspath(path))
