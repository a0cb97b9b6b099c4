"""pytest plugin: with CI=true a run that skipped anything has failed, since every tool the tests need is there.

Its exit status is none of pytest's own, so that running once more what failed does not hide it.
"""

import os

import pytest

SKIPPED = "skipped"
STATUS = 6


def _skipped(config: pytest.Config) -> list[pytest.CollectReport | pytest.TestReport]:
    """Return what was skipped, in a run that may not skip; empty in a worker, whose controller hears of it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get(SKIPPED, []) if reporter and os.environ.get("CI") == "true" else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and _skipped(session.config):
        session.exitstatus = STATUS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if skipped := _skipped(config):
        terminalreporter.section("with CI=true nothing may be skipped", red=True)
        for report in skipped:
            terminalreporter.line(report.nodeid, red=True)
