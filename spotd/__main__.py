"""``python -m spotd``: the same as the ``spotd`` command."""

import sys

from spotd.cli import main

sys.exit(main())
