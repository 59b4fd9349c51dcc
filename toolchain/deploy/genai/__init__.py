"""A folder that onnxruntime-genai loads, inside an artifact: graphs, their configuration, the tokenizer."""
