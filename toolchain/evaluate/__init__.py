"""Evaluation: the accuracy of a model, beside that of its dense twin."""

from vlmc.toolchain.evaluate.accuracy import Accuracy, answer_all, evaluate, score

__all__ = ["Accuracy", "answer_all", "evaluate", "score"]
