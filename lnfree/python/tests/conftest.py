import shutil

import formats
import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A random LN-free GPT-2 of two blocks."""
    return formats.tiny(tmp_path_factory.mktemp("tiny") / "source")


@pytest.fixture(scope="session")
def folders(model, tmp_path_factory):
    """It in every format, with a tokenizer whose tokens are numbers."""
    home = tmp_path_factory.mktemp("formats")
    source = model.folder
    return {form: model.write(form, home / form, tokenizer=source) for form in formats.FORMATS}


@pytest.fixture
def changed(model, tmp_path):
    """Writes a format with keys of config.json changed, or files damaged by a function of its tensors."""

    def write(form, spoil=None, **keys):
        folder = model.write(form, tmp_path / form, tokenizer=model.folder, **keys)
        if spoil:
            tensors = formats.read(folder / "model.safetensors")
            formats.write(folder / "model.safetensors", spoil(tensors) or tensors)
        return folder

    yield write
    shutil.rmtree(tmp_path)
