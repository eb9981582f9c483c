from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.discovery import PORTS, Added, Event, Removed
from host_agent.discovery.domains import Domains, Unusable, port_of

from .fake_libvirt import domain_xml

LEGACY, CURRENT = PORTS


def channel(name: str, path: Optional[str], kind: str = "unix", mode: str = "bind", target: str = "virtio") -> str:
    source = f"<source mode='{mode}' path='{path}'/>" if path else ""
    return f"<channel type='{kind}'>{source}<target type='{target}' name='{name}' state='connected'/></channel>"


def running(*channels: str) -> str:
    return f"<domain id='3'><name>web</name><uuid>u-1</uuid><devices>{''.join(channels)}</devices></domain>"


def test_the_port_has_the_name_and_the_uuid_of_its_domain() -> None:
    assert port_of(running(channel("org.qemu.guest_agent.0", "/q"), channel(CURRENT, "/p"))) == Added("web", "/p", "u-1")


def test_the_legacy_port_is_preferred() -> None:
    assert port_of(running(channel(CURRENT, "/new"), channel(LEGACY, "/old"))) == Added("web", "/old", "u-1")
    assert port_of(running(channel(CURRENT, "/new"), channel(LEGACY, None))) == Added("web", "/new", "u-1")


@pytest.mark.parametrize(
    "xml",
    [
        domain_xml("web", "u-1", "/p", number=None),
        running(),
        running(channel(CURRENT, None)),
        running(channel("org.qemu.guest_agent.0", "/p")),
        running(channel(CURRENT, "/p", mode="connect")),
        running(channel(CURRENT, "/p", kind="pty")),
        running(channel(CURRENT, "/p", target="xen")),
        "<domain id='1'><name>web</name></domain>",
        "<something id='1'/>",
    ],
)
def test_a_domain_that_does_not_run_or_does_not_listen_has_no_port(xml: str) -> None:
    assert port_of(xml) is None


@pytest.mark.parametrize("name", ["", "a\tb", "a&#133;b"])
def test_a_name_that_can_not_be_used_is_said(name: str) -> None:
    with pytest.raises(Unusable, match="rename the domain"):
        port_of(domain_xml(name, "u-1", "/p"))


def test_xml_that_is_none_is_said() -> None:
    with pytest.raises(Unusable, match="XML that can't be read"):
        port_of("<domain")


def test_only_what_changes_is_reported() -> None:
    domains = Domains()
    web = Added("web", "/1", "u-1")
    assert domains.put("u-1", None) == []
    assert domains.put("u-1", web) == [web]
    assert domains.put("u-1", web) == []
    restored = Added("web", "/2", "u-1")
    assert domains.put("u-1", restored) == [restored]
    assert domains.put("u-1", None) == [Removed("web", "/2")]


def test_a_renamed_domain_is_removed_and_added() -> None:
    domains = Domains()
    domains.put("u-1", Added("web", "/1", "u-1"))
    assert domains.put("u-1", Added("db", "/1", "u-1")) == [Removed("web", "/1"), Added("db", "/1", "u-1")]


def test_a_domain_that_took_over_a_name_has_it_alone() -> None:
    domains = Domains()
    domains.put("u-1", Added("web", "/1", "u-1"))
    assert domains.put("u-2", Added("web", "/2", "u-2")) == [Removed("web", "/1"), Added("web", "/2", "u-2")]
    assert domains.put("u-1", Added("old", "/1", "u-1")) == [Added("old", "/1", "u-1")]


def test_domains_that_do_not_run_any_more_are_removed() -> None:
    domains = Domains()
    for number in "123":
        domains.put(f"u-{number}", Added(f"vm-{number}", f"/{number}", f"u-{number}"))
    assert domains.keep({"u-2", "u-4"}) == [Removed("vm-1", "/1"), Removed("vm-3", "/3")]


class Ledger:
    """What events add up to; each must fit those before."""

    def __init__(self) -> None:
        self.known: dict[str, Added] = {}

    def take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Added):
                self.known[event.name] = event
            else:
                assert self.known.pop(event.name).path == event.path


UUIDS = st.sampled_from(["u-1", "u-2", "u-3"])
STEPS = st.tuples(UUIDS, st.none() | st.tuples(st.sampled_from("ab"), st.sampled_from(["/1", "/2"])))


@given(st.lists(STEPS | st.frozensets(UUIDS)))
def test_events_always_add_up_to_the_domains_that_were_seen_last(steps: list[object]) -> None:
    domains, ledger = Domains(), Ledger()
    seen: dict[str, Added] = {}
    for step in steps:
        if isinstance(step, frozenset):
            ledger.take(domains.keep(step))
            seen = {uuid: port for uuid, port in seen.items() if uuid in step}
            continue
        assert isinstance(step, tuple)
        uuid, found = step
        port = Added(found[0], found[1], uuid) if found else None
        ledger.take(domains.put(uuid, port))
        seen = {each: old for each, old in seen.items() if each != uuid and (port is None or old.name != port.name)}
        if port:
            seen[uuid] = port
        assert sorted(ledger.known.values(), key=repr) == sorted(seen.values(), key=repr)
