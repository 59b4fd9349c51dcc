"""What looks at a model's folder does not import transformers, which takes several times as long as the look."""

import subprocess
import sys

import pytest


@pytest.mark.integration
def test_a_model_is_found_without_transformers() -> None:
    code = "import sys, vlmc.toolchain.models.saved; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
