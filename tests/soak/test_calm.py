from __future__ import annotations

from tests.soak.calm import Growth
from tests.soak.subject import Level


def test_growth_is_what_came_after_the_first_calm_of_a_life() -> None:
    growth = Growth()
    growth.look(Level("a", descriptors=120, threads=3, resident=5000), guests=100)
    assert (growth.descriptors, growth.resident, growth.threads) == (0, 0, 0)
    growth.look(Level("a", descriptors=135, threads=5, resident=5600), guests=110)
    growth.look(Level("a", descriptors=121, threads=4, resident=5100), guests=100)
    assert (growth.descriptors, growth.resident, growth.threads) == (5, 600, 5)
    growth.look(Level("b", descriptors=900, threads=9, resident=9000), guests=100)
    assert (growth.descriptors, growth.resident, growth.threads) == (5, 600, 5)
