"""The words that rows are named with, and found by."""

DEMO, WIDE, DENSE = "demo", "wide", "dense"
THEIR_WANDA, THEIR_SPARSEGPT = "llm-compressor Wanda", "llm-compressor SparseGPT"
THEIR_WANDA_STORED, THEIR_SPARSEGPT_STORED = f"{THEIR_WANDA}, bfloat16", f"{THEIR_SPARSEGPT}, bfloat16"
WANDA, SPARSEGPT, ADMM, ADMM_REFIT = "vlmc Wanda", "vlmc SparseGPT", "vlmc ADMM", "vlmc ADMM + refit"
TEXTBOOK_WANDA, TEXTBOOK_SPARSEGPT = "textbook Wanda", "textbook SparseGPT"

TIME, BUSY, ABOVE, ABSOLUTE = "time to prune", "processor time", "peak memory", "peak memory, whole process"
ACCURACY, ERROR = "accuracy", "output error, median layer"
AGREEMENT = f"mask positions that agree with {THEIR_WANDA}"
BETTER = f"layers with less error than {THEIR_SPARSEGPT}"
RATIO = f"worst layer's error, to {THEIR_SPARSEGPT}"
