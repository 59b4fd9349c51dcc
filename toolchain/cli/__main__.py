"""`python -m vlmc.toolchain.cli` is `vlmc`."""

from vlmc.toolchain.cli.main import main

main()
