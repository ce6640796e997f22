# SPDX-License-Identifier: Apache-2.0
"""What holds for all unit tests: no property depends on how fast the machine is, and many share a process."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any_speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_speed")


def pytest_configure(config: pytest.Config) -> None:
    """Do without ansible-test's process for each test, which costs as much as the tests: so does plain pytest.

    ansible-test's workers share the tests as before, and a worker that crashes fails the test that it was at.
    """
    if config.pluginmanager.has_plugin("ansible_forked"):
        config.pluginmanager.unregister(name="ansible_forked")
