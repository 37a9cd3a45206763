"""Tests of caecnn_jax.training.overview."""

from caecnn_jax.training import overview, workload


def test_the_time_left_counts_no_epoch_from_before(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(overview.time, "monotonic", lambda: clock[0])
    work = {"a": workload.Work({"test": 10}, {}, 0, 300)}
    line = overview.Overview(work, {"a": 2980}, done=0)
    with line.running("a") as on_epoch:
        clock[0] = 1.0
        on_epoch({"run": "test"})
        assert "about 0:00:01 left" in line._line()
