"""``python -m spotd``: the same as the ``spotd`` command."""

import sys

from spotd.cli.main import main

sys.exit(main())
