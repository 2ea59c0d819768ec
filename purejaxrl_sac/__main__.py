import sys

from purejaxrl_sac.cli import main

sys.exit(main())
