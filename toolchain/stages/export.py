"""export: write graphs or engines into an artifact, once they have given the same answers as the model itself."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from vlmc import exporters
from vlmc.exporters.backend import Backend, resolve
from vlmc.exporters.base import Exporter, Options, Precision
from vlmc.runtime.artifact import Artifact, extend
from vlmc.runtime.deployment import DEPLOYMENT
from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.speed import Fastest, fastest
from vlmc.toolchain.deploy.agreement import Exported, compare_answers
from vlmc.toolchain.deploy.deployed import Deployed, deploy
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.machine.versions import version_of, versions
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.base import Stage


class Export(Stage):
    """Add a backend's folder to an artifact."""

    name, accepts, produces = "export", ("pruned", "merged"), None

    def __init__(self, options: ExportSettings, backend: str, progress: Progress | None = None) -> None:
        self.options, self.backend = options, backend
        self.progress = progress or Progress(quiet=True)

    def requires(self, source: SavedModel) -> None:
        _ = source.family

    def run(self, artifact: Artifact) -> dict[str, Any]:
        """Add the folder and return its report, which lies there as JSON too.

        Raises:
            InputError: the backend or an option is unknown, the artifact has an adapter that is not merged, or vlmc cannot
                export such a model.
            CheckFailed: a graph differs from the model or lacks the promised sparsity; the artifact stays as it was.
            EnvironmentLacks: a package is missing.
        """
        exporter = exporters.find(self.backend)
        described = exporter.backend
        options, measured = _options(described, self.options)
        exporter.check(options)
        artifact = Artifact.open(artifact.root)  # what was opened may be older than the last folder that was added
        source = SavedModel(str(artifact.root), artifact.root)
        self.check(source)
        with extend(artifact, described.name) as folder:
            model = source.load()
            deployed = deploy(source, model, artifact.manifest.layers)
            return self._fill(folder, exporter, options, Deploying(source, model, deployed, measured))

    def _fill(self, folder: Path, exporter: Exporter, options: Options, work: "Deploying") -> dict[str, Any]:
        described, deployed = exporter.backend, work.deployed
        with self.progress.task("export", len(deployed.specs) + 1) as task:
            report = exporter.export(deployed.specs, folder, options, task.advance)
            report |= {"layers_in_no_graph": deployed.unreached}
            report["cpu_sparse_measured"] = work.measured and asdict(work.measured)
            (folder / DEPLOYMENT).write_text(deployed.deployment.to_json(), encoding="utf-8")
            if described.session is not None and options.precision != "bf16":  # nothing here runs graphs in bf16
                exported = Exported(deployed.deployment, folder, described.suffix, resolve(described.session))
                answers = compare_answers(work.model, work.source, exported, deployed.questions, options.tolerance)
                report["agreement"] = answers
            report["versions"] = _versions(described)
            (folder / described.report).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            task.advance("compared with torch")
        return report


@dataclass(frozen=True)
class Deploying:
    """A model on disk, loaded, and described for a backend; `measured` is what --cpu-sparse auto found."""

    source: SavedModel
    model: nn.Module
    deployed: Deployed
    measured: Fastest | None


def _options(backend: Backend, settings: ExportSettings) -> tuple[Options, Fastest | None]:
    """Return the backend's options, what the user gave or its default, and what was measured to choose one.

    Raises:
        InputError: an option was given that it does not have.
        EnvironmentLacks: the kernels that --cpu-sparse auto measures were not built.
    """
    given = {name: value for name, value in settings.model_dump().items() if value is not None}
    for name in given:
        if name not in backend.options:
            raise InputError(f"--{name.replace('_', '-')} is not an option of {backend.name}: leave it out")
    gpus = tuple(settings.gpu.split(",")) if settings.gpu else ()
    precision = cast(Precision, settings.precision or backend.options["precision"])
    kind, measured = settings.cpu_sparse, None
    if kind == "auto":
        if settings.cpu_activations == "bf16":
            raise InputError("--cpu-activations bf16 needs --cpu-sparse bf16, and auto may take another type")
        measured = fastest()
        kind = measured.type
    return Options(precision, gpus, kind, settings.cpu_activations or "fp32"), measured


def _versions(backend: Backend) -> dict[str, str]:
    packages = (*backend.packages, *backend.runtimes, *backend.alternatives)
    return versions() | {name: found for name in packages if (found := version_of(name))}
