"""The image, built for real. It takes minutes and a root shell, so it runs only when asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ASKED = os.environ.get("TEST_SPOTD_IMAGE") == "1"


@pytest.mark.skipif(not ASKED, reason="builds an image: set TEST_SPOTD_IMAGE=1 to run it")
@pytest.mark.timeout(1800)
def test_image_works() -> None:
    """The image builds, is not root, runs the demo, and refuses wrong settings."""
    script = Path(__file__).with_name("image.sh")

    run = subprocess.run(["bash", str(script)], check=False)

    assert run.returncode == 0
