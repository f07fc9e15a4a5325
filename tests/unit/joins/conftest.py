"""How many examples the property tests of the join run: HYPOTHESIS_PROFILE=thorough runs 10,000."""

from hypothesis import HealthCheck, settings

# Examples are whole joins: a slow one is not a fault, and a shared machine is no clock.
for name, examples in {"joins": 300, "thorough": 10_000}.items():
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
    )
