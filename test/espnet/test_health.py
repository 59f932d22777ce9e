import pytest

from bilevel.espnet.health import Health


def test_the_alarm_comes_after_a_window_below_the_floor_and_not_before():
    health = Health(window=5)
    for step in range(20):
        health.check({"ssl_label_perplexity": 40.0, "ssl_enhanced_perplexity": 1.0 if step % 2 else 9.0}, step)
    constant = {"ssl_label_perplexity": 40.0, "ssl_enhanced_perplexity": 1.0}
    for step in range(20, 23):  # with the one of step 19, four in a row
        health.check(constant, step)
    with pytest.raises(ValueError, match=r"step 23: .*ssl_enhanced_perplexity is 1 over the last 5 steps, expected at"):
        health.check(constant, 23)


def test_a_source_is_watched_by_itself():
    health = Health(window=3)
    for step in range(2):
        for source, value in (("good", 40.0), ("silent", 1.0)):
            health.check({"ssl_label_perplexity": value}, step, source)
    health.check({"ssl_label_perplexity": 40.0}, 2, "good")
    with pytest.raises(ValueError, match=r"step 2: .*ssl_label_perplexity of source silent is 1 over the last 3 steps"):
        health.check({"ssl_label_perplexity": 1.0}, 2, "silent")


def test_constant_states_and_a_disabled_alarm():
    with pytest.raises(ValueError, match="ssl_feature_std is 0"):
        Health(window=1).check({"ssl_feature_std": 0.0}, 0)
    Health(window=1, enabled=False).check({"ssl_feature_std": 0.0}, 0)
    Health(window=1).check({"loss": 0.0}, 0)
