"""Worker processes: jobs are done, failures told, deaths survived."""

from __future__ import annotations

from worker_support import fail_to_start, start_counting

from test_pvs.workers import run_jobs


def run(jobs: list[str], *starters) -> tuple[list[tuple[str, str]], dict[str, list[float]]]:
    reports: dict[str, list[float]] = {}
    failures = run_jobs(jobs, starters, lambda job, done: reports.setdefault(job, []).append(done))
    return [(failure.job, failure.reason) for failure in failures], reports


def test_jobs_are_done_and_failures_told():
    failures, reports = run(["ok", "bad", "ok"], start_counting, start_counting)
    assert failures == [("bad", "this one is bad")]
    assert sorted(reports["ok"]) == sorted([0.25, 0.5, 0.75, 1.0, 1.0] * 2)
    assert reports["bad"] == [0.25, 0.25]


def test_a_death_costs_one_job():
    failures, reports = run(["die", "ok", "ok", "ok"], start_counting, start_counting)
    assert failures == [("die", "its process ended with exit code 7")]
    assert len(reports["ok"]) == 15


def test_jobs_that_nobody_is_left_to_do_are_told(capfd):
    failures, _ = run(["a", "b", "c"], fail_to_start, fail_to_start)
    assert sorted(job for job, _ in failures) == ["a", "b", "c"]
    assert ("c", "all worker processes died") in failures
    assert "no model here" in capfd.readouterr().err


def test_no_jobs_need_no_process():
    assert run([], start_counting) == ([], {})
