"""The attacks that vlmc 0.1.0 did not stand, each as it was found; one module for each of the promises in SECURITY.md."""

from tests.fuzz.attacks import bounds, changes, execution, loss, messages
from tests.fuzz.attacks.attempt import Attack

ATTACKS: dict[str, Attack] = {
    attack.__name__: attack for module in (loss, changes, execution, bounds, messages) for attack in module.ATTACKS
}
"""Every attack by its name."""
