"""Evaluation: how many questions a model answers right, and how that compares with its dense twin."""

from vlmc.toolchain.evaluate.accuracy import Accuracy, answer_all, evaluate, score

__all__ = ["Accuracy", "answer_all", "evaluate", "score"]
