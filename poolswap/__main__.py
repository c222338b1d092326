"""`python -m poolswap`: the command line where the script is not on the PATH."""

from poolswap.cli.app import main

raise SystemExit(main())
