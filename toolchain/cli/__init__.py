"""The command line: parse, call one function, print. Nothing heavy is imported before a command runs."""

from vlmc.toolchain.cli.main import main

__all__ = ["main"]
