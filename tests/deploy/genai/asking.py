"""Asks onnxruntime-genai, in a process of its own.

`asking.py answer FOLDER ARRAYS.npz TOKENS` prints the tokens of an answer; `asking.py process FOLDER IMAGE PROMPT FILE.npy`
keeps the pixels that its processor makes.
"""

import json
import sys

import numpy as np
import onnxruntime_genai as genai


def answer(folder: str, arrays: str, tokens: str) -> None:
    given = dict(np.load(arrays))
    ids_BS = given.pop("ids").astype(np.int32)
    model = genai.Model(folder)
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=ids_BS.shape[1] + int(tokens), do_sample=False, batch_size=1)
    generator = genai.Generator(model, parameters)
    for name, array in given.items():
        generator.set_model_input(name, array)
    generator.append_tokens(ids_BS)
    while not generator.is_done():
        generator.generate_next_token()
    print(json.dumps(generator.get_sequence(0)[ids_BS.shape[1] :].tolist()))


def process(folder: str, image: str, prompt: str, file: str) -> None:
    model = genai.Model(folder)
    made = model.create_multimodal_processor()(prompt, images=genai.Images.open(image))
    np.save(file, made["pixel_values"].as_numpy())
    print(json.dumps(sorted(made.keys())))


if __name__ == "__main__":
    {"answer": answer, "process": process}[sys.argv[1]](*sys.argv[2:])
