"""What every child has imported from the start: the slow imports, made once. Nothing is computed here."""

import contextlib
import importlib

import onnxruntime  # noqa: F401
import pyarrow.parquet  # noqa: F401
import torch
import transformers  # noqa: F401

import tests.fuzz.calls
import tests.fuzz.child  # noqa: F401

torch.set_num_threads(1)
for name in (
    "transformers.generation",
    "transformers.models.auto.processing_auto",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llava.processing_llava",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.image_processing_pil_clip",
    "transformers.models.llama.modeling_llama",
    "transformers.models.idefics3.modeling_idefics3",
    "transformers.models.idefics3.processing_idefics3",
    "sklearn.decomposition",
    "vlmc.runtime",
    "vlmc.toolchain.cli.app",
    "vlmc.toolchain.evaluate.compare",
    "vlmc.toolchain.stages.compress",
    "vlmc.toolchain.stages.export",
    "vlmc.toolchain.study",
    "vlmc.toolchain.reporting.verification",
    "vlmc.toolchain.reporting.tables",
    "vlmc.toolchain.data.forms.places",
):
    with contextlib.suppress(ModuleNotFoundError):  # a newer transformers may have it elsewhere: it is then imported later
        importlib.import_module(name)
