"""`python -m tfopt` is the console script `tfopt`."""

import sys

from tfopt.main import main

sys.exit(main())
