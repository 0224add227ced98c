"""`python -m tfllm`."""

import sys

from tfllm.cli import main

sys.exit(main())
