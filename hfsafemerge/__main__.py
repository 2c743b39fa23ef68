"""`python -m hfsafemerge`: the same as the command `hfsafemerge`."""

import sys

from hfsafemerge.cli import main

sys.exit(main())
