from __future__ import annotations

import itertools

from tests.soak import plan
from tests.soak.plan import ENDINGS, Scale, Storm, storms, versions

SCALE = Scale(guests=40, domains=3, seconds=5.0, life=5)


def first(count: int, seed: int = 1, scale: Scale = SCALE) -> list[Storm]:
    return list(itertools.islice(storms(seed, scale), count))


def test_a_seed_determines_everything() -> None:
    assert first(6) == first(6)
    assert first(6) != first(6, seed=2)
    assert versions(1, "ports", 30) == versions(1, "ports", 30)
    assert versions(1, "ports", 30) != versions(1, "virtual", 30)


def test_a_storm_does_not_depend_on_how_many_come_before() -> None:
    assert first(6)[:2] == first(2)


def test_only_the_last_storms_of_a_life_end_it() -> None:
    assert [storm.adversity for storm in first(10)] == [
        "reload",
        "disk",
        "libvirt",
        *ENDINGS,
        "none",
        "reload",
        "disk",
        *ENDINGS,
    ]


def test_what_can_not_be_had_is_left_out() -> None:
    scale = SCALE._replace(adversities=("none",), domains=0)
    steps = [step for storm in first(5, scale=scale) for step in storm.steps]
    assert {storm.adversity for storm in first(5, scale=scale)} == {"none", *ENDINGS}
    assert not {"fill_disk", "stop_libvirt"} & {step.do for step in steps}
    assert "domains" not in {step.whom for step in steps}


def test_steps_are_in_order_and_concern_guests_that_there_are() -> None:
    for storm in first(10):
        assert [step.at for step in storm.steps] == sorted(step.at for step in storm.steps)
        for step in storm.steps:
            assert 0 <= step.at <= storm.seconds
            if step.whom == "guests":
                assert 0 <= step.arguments["first"] <= step.arguments["first"] + step.arguments["count"] <= SCALE.guests


def test_every_disturbance_comes_in_the_end() -> None:
    done = {step.do for storm in first(20) for step in storm.steps if step.whom == "guests"}
    assert len(done) == 9
    assert {"remove", "rename", "say", "behave", "delay"} <= done


def test_a_plan_can_be_read() -> None:
    text = plan.Storm(7, "kill", 5.0, (plan.Step(1.5, "daemon", "kill", {"pause": 0.5}),)).text
    assert text == "storm 7: kill, 5 s\n     1.50  daemon: kill pause=0.5"
