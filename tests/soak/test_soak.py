"""A short soak: the checker works, and sees what happens.

How fast spotd is on a machine that does other things too is for no test to judge, so only rules
that need no clock count here. A soak by hand, or in ``.ci/run long``, judges by all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.servers import redis_server
from tests.soak.soak import soak

TTL_S = 2.0


@pytest.mark.skipif(redis_server() is None, reason="needs Debian's redis-server")
@pytest.mark.long  # `.ci/run long` has a whole soak
async def test_a_stream_that_is_cut_breaks_no_rule(tmp_path: Path) -> None:
    """Under load the stream is cut: prices go on in order for two daemons and two consumers."""
    result = await soak(
        tmp_path, seconds=3.0, seed=5, ttl_s=TTL_S, only=("stream_cut",), quotes_per_s=100.0
    )

    wrong = [violation for violation in result.violations if not violation.timed]
    assert not wrong, "\n\n".join(f"{each}\n{each.context}" for each in wrong)
    assert result.faults["stream_cut"] >= 1
    assert result.figures["sessions opened"] >= 2
    assert result.figures["updates on channels"] > 0
    assert result.figures["updates told by SpotClient"] > 0
    assert result.figures["updates told by the relay"] > 0
