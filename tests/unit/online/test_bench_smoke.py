"""The feature-read benchmark at a tiny size: it runs, compares the values, and says what it is."""

from bench.features.__main__ import measure


def test_the_benchmark_compares_values_and_reports_each_peer_at_each_batch() -> None:
    found = measure(entities=150, repeats=1, calls={1: 3, 100: 3})

    assert 2 * 2 * 3 == len(found)
    assert {"ms"} == {one.unit for one in found}
    assert all(one.ours > 0 and one.peer > 0 and one.ratio for one in found)
    assert 8 == sum(one.goal is not None for one in found)
