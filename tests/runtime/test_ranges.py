"""Id ranges: two projects never get one, whoever takes over what a vanished project claimed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness import SOURCE

CLAIM = f"""
import sys
sys.path.insert(0, {SOURCE!r})
from containust.runtime import ranges
ranges.DIRECTORY = sys.argv[1]
sys.stdin.readline()
print(ranges.claim("0000000000", sys.argv[2]))
"""


def test_a_stale_claim_is_taken_over_by_one_project_only(tmp_path: Path) -> None:
    claims = tmp_path / "ranges"
    for turn in range(3):
        gone = tmp_path / "gone"
        claims.mkdir(exist_ok=True)
        for path in claims.iterdir():
            path.unlink()
        first = 0x7000_0000
        for slot in range(3):
            os.symlink(gone, claims / str(first + slot * 65536))
        projects = [tmp_path / f"p{turn}-{number}" for number in range(6)]
        for project in projects:
            project.mkdir()
        processes = [
            subprocess.Popen(
                [sys.executable, "-IS", "-c", CLAIM, str(claims), str(project)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for project in projects
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        bases = [int(process.communicate(timeout=30)[0]) for process in processes]
        assert len(set(bases)) == len(projects), bases
        for base, project in zip(bases, projects, strict=True):
            assert os.readlink(claims / str(base)) == str(project)
