"""The versions of what a result depends on."""

from importlib.metadata import PackageNotFoundError, version

from vlmc.runtime import __version__

PACKAGES = ("torch", "transformers", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Map vlmc and the packages that decide a result's bytes to their versions."""
    return {"vlmc": __version__} | {name: found for name in PACKAGES if (found := version_of(name))}


def version_of(package: str) -> str | None:
    """Return the installed version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
