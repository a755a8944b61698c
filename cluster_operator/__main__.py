"""``python -m cluster_operator``."""

import sys

from cluster_operator.main import main

sys.exit(main())
