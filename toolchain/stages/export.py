"""export: write graphs or engines into an artifact, once they have given the same answers as the model itself."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from pydantic import ByteSize, TypeAdapter, ValidationError
from torch import nn

from vlmc import exporters
from vlmc.exporters.backend import Backend, resolve
from vlmc.exporters.base import Exporter, Options, Precision
from vlmc.runtime.artifact import Artifact, Layer, Manifest, extend, put_texts
from vlmc.runtime.artifact.folder import GENAI
from vlmc.runtime.deployment import DEPLOYMENT, CacheLayout
from vlmc.runtime.errors import InputError, shortened
from vlmc.runtime.kernels.speed import Fastest, fastest
from vlmc.toolchain import data
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.deploy import triton
from vlmc.toolchain.deploy.agreement import FEW, TOKENS, Exported, compare_answers
from vlmc.toolchain.deploy.deployed import Deployed, deploy
from vlmc.toolchain.deploy.genai import layout as genai
from vlmc.toolchain.deploy.twins import leave_adapters_apart, rank_of
from vlmc.toolchain.machine.progress import Progress, Task
from vlmc.toolchain.machine.versions import version_of, versions
from vlmc.toolchain.models.fitting import open_model
from vlmc.toolchain.models.origin import find_dense
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.quantise import Quantised, quantise
from vlmc.toolchain.reporting.export_page import page
from vlmc.toolchain.reporting.export_summary import summarise
from vlmc.toolchain.reporting.paths import EXPORTS, EXPORTS_PAGE
from vlmc.toolchain.reporting.report import refresh
from vlmc.toolchain.settings import ExportSettings, RoundingSettings
from vlmc.toolchain.stages.base import Stage

DENSE_TWIN, LORA_TWIN = "dense-twin", "lora-twin"
NEAREST = RoundingSettings()
_OF_ROUNDING = {"rounding", "group"}
"""What --cpu-sparse int8 takes with any rounding; the other options are for one that looks at data."""


class Export(Stage):
    """Add a backend's folder to an artifact; `dense` names the dense model, for its twin, if it cannot be found."""

    name, accepts, produces = "export", ("pruned", "merged"), None

    def __init__(
        self,
        options: ExportSettings,
        backend: str,
        progress: Progress | None = None,
        *,
        dense: str | None = None,
        download: bool = False,
        rounding: RoundingSettings = NEAREST,
        seed: int = 0,
    ) -> None:
        self.options, self.backend = options, backend
        self.rounding, self.seed = rounding, seed
        self.dense, self.download = dense, download
        self.progress = progress or Progress(quiet=True)

    def requires(self, source: SavedModel) -> None:
        _ = source.family

    def run(self, artifact: Artifact) -> dict[str, Any]:
        """Add the folder and return its report, which lies there as JSON too.

        Raises:
            InputError: the backend or an option is unknown, the artifact has an adapter that is not merged, vlmc cannot
                export such a model, or the dense model of a twin is not found.
            CheckFailed: a graph differs from the model or lacks the promised sparsity; the artifact stays as it was.
            EnvironmentLacks: a package is missing.
        """
        exporter = exporters.find(self.backend)
        options, measured = _options(exporter.backend, self.options)
        options = replace(options, span=_span(self.options, self.rounding))
        exporter.check(options)
        artifact = Artifact.open(artifact.root)  # what was opened may be older than the last folder that was added
        source = SavedModel(str(artifact.root), artifact.root)
        self.check(source)
        if self.options.layout == "genai":
            genai.kind_of(source.family)
        dense = find_dense(artifact, self.dense, download=self.download) if self.options.dense_twin else None
        samples = self._samples()
        with extend(artifact, exporter.backend.name) as folder:
            quantised = None if samples is None else self._quantise(folder, artifact.manifest, source, samples)
            with self.progress.task("export", 1) as task:
                work = Exporting(exporter, options, _cache(exporter.backend, self.options), task)
                report = self._fill(folder, artifact.manifest, source, dense, work, quantised)
            report["rounding"] = quantised and quantised.report
            report["cpu_sparse_measured"] = measured and asdict(measured)
            report["versions"] = _versions(exporter.backend)
            (folder / exporter.backend.report).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if self.options.layout == "triton":
            write_repository(artifact)
        if self.options.layout == "genai":
            self._write_genai(artifact, source, exporter, options)
        write_summary(artifact, self.progress)
        return report

    def _write_genai(self, artifact: Artifact, source: SavedModel, exporter: Exporter, options: Options) -> None:
        layers = artifact.manifest.layers
        with (
            extend(Artifact.open(artifact.root), GENAI) as folder,
            self.progress.task("export for onnxruntime-genai", len(genai.GRAPHS)) as task,
        ):
            genai.write(folder, source, open_model(source), layers, exporter, options, task)

    def _samples(self) -> Sequence[Sample] | None:
        """Return the calibration samples; None where rounding looks at none."""
        if self.rounding.rounding == "nearest":
            return None
        return data.load(self.rounding, "train", self.rounding.calibration, check=True, seed=self.seed)

    def _quantise(self, folder: Path, manifest: Manifest, source: SavedModel, samples: Sequence[Sample]) -> Quantised:
        with TemporaryDirectory(dir=folder) as scratch:
            return quantise(source, manifest.layers, self.rounding, samples, Path(scratch), self.progress)

    def _fill(
        self,
        folder: Path,
        manifest: Manifest,
        source: SavedModel,
        dense: SavedModel | None,
        work: "Exporting",
        quantised: Quantised | None,
    ) -> dict[str, Any]:
        """Write the model's graphs, then those of its twins, each into a folder of its own inside."""
        model = open_model(source)
        deployed = deploy(source, model, manifest.layers, {} if quantised is None else quantised.layers, work.cache)
        report = work.write(folder, source, model, deployed)
        twins: dict[str, Any] = {}
        if self.options.lora_twin:
            leave_adapters_apart(model, manifest.layers, rank_of(manifest))
            twins[LORA_TWIN] = work.twin(folder / LORA_TWIN, source, model, manifest.layers)
        if dense is not None:
            del model, deployed
            twins[DENSE_TWIN] = work.twin(folder / DENSE_TWIN, dense, open_model(dense), {})
        return report | {"twins": twins}


def write_repository(artifact: Artifact) -> None:
    """Write the model repository by which Triton Inference Server serves the artifact's ONNX graphs."""
    with extend(Artifact.open(artifact.root), triton.FOLDER) as folder:
        for path, text in triton.repository().items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")


def write_summary(artifact: Artifact, progress: Progress) -> None:
    """Write what all exports of an artifact amount to, as a page and as JSON, and into the report."""
    found = summarise(Artifact.open(artifact.root))
    put_texts(artifact, {EXPORTS: json.dumps(found, indent=2) + "\n", EXPORTS_PAGE: page(found)})
    refresh(artifact, progress)


@dataclass(frozen=True)
class Exporting:
    """A backend at work, with its options."""

    exporter: Exporter
    options: Options
    cache: CacheLayout
    task: Task

    def write(self, folder: Path, source: SavedModel, model: nn.Module, deployed: Deployed) -> dict[str, Any]:
        """Write a model's graphs and how they are fed; where they can be run, hold their answers against the model's."""
        backend, options = self.exporter.backend, self.options
        self.task.extend(len(deployed.specs))
        report = self.exporter.export(deployed.specs, folder, options, self.task)
        report |= {"layers_in_no_graph": deployed.unreached, "cache": deployed.deployment.cache}
        (folder / DEPLOYMENT).write_text(deployed.deployment.to_json(), encoding="utf-8")
        if backend.session is not None and options.precision != "bf16":  # nothing here runs graphs in bf16
            streamed = any(spec.streamed for spec in deployed.specs)
            opens = partial(resolve(backend.session), frugal=streamed)
            exported = Exported(deployed.deployment, folder, backend.suffix, opens)
            asked = [deployed.questions[0], deployed.questions[-1]] if streamed else deployed.questions  # one image, and two
            limit = FEW if streamed else TOKENS
            with self.exporter.as_exported(deployed.specs, folder, options):
                report["agreement"] = compare_answers(model, source, exported, asked, options.tie, limit)
        self.task.advance("compared with torch")
        return report

    def twin(self, folder: Path, source: SavedModel, model: nn.Module, layers: Mapping[str, Layer]) -> dict[str, Any]:
        """Write a twin's graphs, their weights dense and in the graph's own type."""
        folder.mkdir()
        self.task.extend(1)
        return replace(self, options=self.options.plain).write(
            folder, source, model, deploy(source, model, layers, cache=self.cache)
        )


def _options(backend: Backend, settings: ExportSettings) -> tuple[Options, Fastest | None]:
    """Return the backend's options, what the user gave or its default, and what was measured to choose one.

    Raises:
        InputError: an option was given that it does not have.
        EnvironmentLacks: the kernels that --cpu-sparse auto measures were not built.
    """
    given = {name: value for name, value in settings.model_dump().items() if value is not None and value is not False}
    for name in given:
        if name not in backend.options:
            raise InputError(f"--{name.replace('_', '-')} is not an option of {backend.name}: leave it out")
    gpus = tuple(settings.gpu.split(",")) if settings.gpu else ()
    precision = cast(Precision, settings.precision or backend.options["precision"])
    kind, measured = settings.cpu_sparse, None
    if kind == "auto":
        if settings.cpu_activations not in (None, "fp32"):
            asked = settings.cpu_activations
            raise InputError(f"--cpu-activations {asked} needs --cpu-sparse {asked}, and auto may take another type")
        measured = fastest()
        kind = measured.type
    share = None if settings.require_sparse is None else _share(settings.require_sparse)
    activations, packed = settings.cpu_activations or "fp32", settings.packed
    workspace = None if settings.workspace is None else _bytes(settings.workspace)
    return Options(precision, gpus, kind, activations, packed=packed, require_sparse=share, workspace=workspace), measured


def _span(settings: ExportSettings, rounding: RoundingSettings) -> int:
    """Return how many columns share a scale of int8.

    Raises:
        InputError: an option of rounding was given that has no meaning here.
    """
    given = sorted(rounding.model_fields_set)
    if given and settings.cpu_sparse != "int8":
        raise InputError(f"--{given[0].replace('_', '-')} is for --cpu-sparse int8: no other type is rounded so")
    useless = [name for name in given if name not in _OF_ROUNDING]
    if useless and rounding.rounding == "nearest":
        raise InputError(f"--{useless[0].replace('_', '-')} is for --rounding gptq: rounding to nearest looks at no data")
    return rounding.group


def _cache(backend: Backend, settings: ExportSettings) -> CacheLayout:
    """Return the cache's layout: what the user chose, or the backend's default; concatenated where it knows one only."""
    return settings.cache or cast(CacheLayout, backend.options.get("cache", "concatenated"))


def _share(text: str) -> float:
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)%", text.strip())
    if found is None or not 0 < float(found[1]) <= 100:
        raise InputError(f"--require-sparse {shortened(text, 40)}: give a percentage above 0% and up to 100%, such as 90%")
    return float(found[1]) / 100


def _bytes(text: str) -> int:
    try:
        found = int(TypeAdapter(ByteSize).validate_python(text.strip()))
    except ValidationError:
        found = 0
    if not 1 << 20 <= found <= 1 << 50:
        raise InputError(f"--workspace {shortened(text, 40)}: give a size of 1MiB or more, such as 4GB or 512MiB")
    return found


def _versions(backend: Backend) -> dict[str, str]:
    packages = (*backend.packages, *backend.runtimes, *backend.alternatives)
    return versions() | {name: found for name in packages if (found := version_of(name))}
