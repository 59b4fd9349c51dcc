"""The textbook's contestant: Wanda and SparseGPT straight from their papers, whole model and all statistics in memory.

Every layer's statistics come from one pass of the dense model. Shapes: O out features, I in features, L tokens.
"""

import torch
from torch import Tensor, nn

from prune_peers.job import Job, load_model, main, read_inputs, save_model

DAMPING, BLOCK = 0.01, 128


@torch.no_grad()
def prune(job: Job) -> None:
    """Run all samples through the dense model, then prune layer after layer."""
    model = load_model(job)
    layers = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear) and ".layers." in name}
    sums = {name: torch.zeros(layer.in_features, layer.in_features) for name, layer in layers.items()}
    if job.method == "wanda":
        sums = {name: torch.zeros(layer.in_features) for name, layer in layers.items()}

    def add(name: str, x_LI: Tensor) -> None:
        sums[name] += x_LI.square().sum(0) if job.method == "wanda" else x_LI.T @ x_LI

    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: add(name, args[0].flatten(0, -2)))
    for sample in read_inputs(job):
        model(**sample, use_cache=False)
    for name, layer in layers.items():
        layer.weight.copy_(wanda(layer.weight, sums[name]) if job.method == "wanda" else sparsegpt(layer.weight, sums[name]))
    save_model(model, job)


def two_of_four(scores_OI: Tensor) -> Tensor:
    """Return the mask (O, I) of the two highest scores in every four."""
    groups = scores_OI.reshape(len(scores_OI), -1, 4)
    return torch.zeros_like(groups, dtype=torch.bool).scatter(2, groups.topk(2).indices, True).flatten(1)


def wanda(weight_OI: Tensor, squares_I: Tensor) -> Tensor:
    """Wanda, equation 1: score |W_ij| times the norm of input j."""
    return weight_OI * two_of_four(weight_OI.abs() * squares_I.sqrt())


def sparsegpt(weight_OI: Tensor, hessian_II: Tensor) -> Tensor:
    """SparseGPT, algorithm 1."""
    weight_OI, size = weight_OI.clone(), len(hessian_II)
    damped_II = hessian_II + DAMPING * hessian_II.diagonal().mean() * torch.eye(size)
    factor_II = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped_II)), upper=True)
    keep_OI = torch.ones_like(weight_OI, dtype=torch.bool)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        error_OB = torch.zeros(len(weight_OI), end - start)
        for j in range(start, end):
            if j % 4 == 0:
                group = slice(j, j + 4)
                keep_OI[:, group] = two_of_four(weight_OI[:, group] ** 2 / factor_II.diagonal()[group] ** 2)
            error_OB[:, j - start] = weight_OI[:, j] * ~keep_OI[:, j] / factor_II[j, j]
            weight_OI[:, j:end] -= torch.outer(error_OB[:, j - start], factor_II[j, j:end])
        weight_OI[:, end:] -= error_OB @ factor_II[start:end, end:]
    return weight_OI * keep_OI


if __name__ == "__main__":
    main(prune)
