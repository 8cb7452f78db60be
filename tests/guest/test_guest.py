"""What tests found in a machine with the unified cgroup hierarchy, an older kernel and two disks of its own."""

from __future__ import annotations

import pytest

from guest import plugin


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("test", plugin.marked(), ids=str)
def test_in_the_guest(request: pytest.FixtureRequest, test: str) -> None:
    file, _, function = test.partition("::")
    cases = [
        case
        for case in plugin.outcome(plugin.directory(request.config))
        if case.file == file and case.name.partition("[")[0] == function
    ]
    assert cases, f"{test} did not run"
    wrong = [f"{case.name}: {case.kind}\n{case.text}" for case in cases if case.kind != "passed"]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
