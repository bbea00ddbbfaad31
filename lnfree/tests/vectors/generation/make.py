"""Makes `expected.json`: what transformers' generate makes of tiny-a with several config files (greedy, float32, CPU).

Run with torch 2.11.0 and transformers 4.57 (python make.py). tests/weights/generation.rs compares lnfree with it. The
weights are tiny-a's; a case changes keys of config.json and brings a generation_config.json, or none. Texts include the
prompt and the token that ended them, as transformers returns them.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

here = Path(__file__).parent
tiny = here.parent / "tiny-a"
MAX_NEW_TOKENS = 12


def generate(config: dict, generation: dict | None, prompt: list[int], limit: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copy(tiny / "model.safetensors", folder)
        base = json.loads((tiny / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(base | config))
        if generation is not None:
            (folder / "generation_config.json").write_text(json.dumps(generation))
        model = AutoModelForCausalLM.from_pretrained(folder)
        ids = torch.tensor([prompt])
        lengths = {"max_new_tokens": MAX_NEW_TOKENS} if limit else {}
        text = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **lengths)
        return {"config": config, "generation_config": generation, "prompt": prompt, "limit": limit, "text": text[0].tolist()}


prompt = [3, 141, 59, 26]
plain = generate({"eos_token_id": None}, None, prompt, True)["text"][len(prompt):]
first, later = plain[2], plain[3]
cases = [
    ({"eos_token_id": None}, None, True),
    ({"eos_token_id": [255, first]}, None, True),
    ({"eos_token_id": [later, first]}, None, True),
    ({"eos_token_id": [255, first]}, {"_from_model_config": True, "eos_token_id": 255}, True),
    ({"eos_token_id": first}, {"eos_token_id": [255, later]}, True),
    ({"eos_token_id": first}, {"eos_token_id": None}, True),
    ({"eos_token_id": first}, {"bos_token_id": 1}, True),
    ({"eos_token_id": 255}, {"eos_token_id": [9999, first, -1]}, True),
    ({"eos_token_id": first}, {"eos_token_id": first, "min_length": len(prompt) + 4}, True),
    ({"eos_token_id": first}, {"eos_token_id": first, "min_new_tokens": 4}, True),
    ({}, {"eos_token_id": 255, "repetition_penalty": 1.3}, True),
    ({}, {"eos_token_id": 255, "repetition_penalty": 0.8}, True),
    ({"repetition_penalty": 1.3}, None, True),
    ({"repetition_penalty": 1.3}, {"_from_model_config": True, "eos_token_id": 255}, True),
    ({"repetition_penalty": 1.3}, {"eos_token_id": 255}, True),
    ({}, {"eos_token_id": 255, "max_length": 9}, False),
    ({}, {"eos_token_id": 255, "max_length": 9, "max_new_tokens": 7}, False),
    ({"max_length": 7}, None, False),
]
found = [generate(config, generation, prompt, limit) for config, generation, limit in cases]
lines = ",\n".join(json.dumps(case) for case in found)
(here / "expected.json").write_text(f'{{"max_new_tokens": {MAX_NEW_TOKENS}, "cases": [\n{lines}\n]}}\n')
