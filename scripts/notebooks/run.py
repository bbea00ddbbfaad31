"""Executes notebooks without a browser; what `scripts/notebook.sh --run` and `--check` run.

A cell fails when it does not compile, panics, ends with an error or writes to stderr, unless its tag `raises-exception` says
that it should. What is stored is what a reader needs: no times of execution, no widths of a terminal, so that running a
notebook again changes what has changed.
"""

import argparse
import base64
import io
import os
import pathlib
import queue
import sys
import tempfile
import time

import nbformat
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image

# Figures bring images only where nobody looks on, see Figure::evcxr_display.
os.environ["LNFREE_FIGURE_IMAGES"] = "1"

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
KERNEL = "lnfree"
LARGEST = 2_000_000
# Seconds without a word after which a cell has said all.
SETTLE = 0.3
# Where notebooks put what they make.
RUNS = "../runs/notebooks"
# What every notebook begins with; the variable makes the kernel load what it knows types by.
WARM_UP = [
    ':dep lnfree = { path = "../lnfree", default-features = false, features = ["kernels", "study"] }\nuse lnfree::prelude::*;',
    'let nano = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;\n'
    'println!("{} blocks", nano.model.h.len());',
]


def failure(cell):
    """Why a cell has failed, or None."""
    if "raises-exception" in cell.metadata.get("tags", []):
        return None
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            return "\n".join(output.traceback) or output.evalue
        if output.output_type == "stream" and output.name == "stderr":
            return output.text
    return None


def settle(client, cell, index):
    """Waits for what a cell still has to say: evcxr may call it done before its stderr has arrived, where its errors are."""
    while True:
        try:
            message = run_sync(client.kc.get_iopub_msg)(timeout=SETTLE)
        except queue.Empty:
            return
        if message["msg_type"] in ("stream", "error"):
            client.process_message(message, cell, index)


def execute(notebook, say=lambda text: None):
    """Executes all cells; returns the reason of the first failure, or None, and the seconds each cell took."""
    seconds = []
    client = NotebookClient(
        notebook, kernel_name=KERNEL, timeout=None, allow_errors=True, resources={"metadata": {"path": str(FOLDER)}}
    )
    started = time.monotonic()
    with client.setup_kernel():
        seconds.append(time.monotonic() - started)
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            started = time.monotonic()
            try:
                client.execute_cell(cell, index)
                settle(client, cell, index)
            except (CellExecutionError, DeadKernelError) as error:
                return f"cell {index + 1}: {error}", seconds
            seconds.append(time.monotonic() - started)
            say(f"  cell {index + 1}: {seconds[-1]:.1f} s")
            why = failure(cell)
            if why:
                return f"cell {index + 1}:\n{cell.source}\n{why}", seconds
    return None, seconds


def shrink(data):
    """Gives a figure's image the size of the figure, in which Jupyter Lab shows it until it is pointed at, and of its colours the 256
    that look the same, in a quarter of the bytes."""
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    if image.height == 2 * data.get("application/vnd.plotly.v1+json", {}).get("layout", {}).get("height", 0):
        half = image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        half.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(out.getvalue()).decode()


def is_nothing(output):
    """Whether this is the value of a cell that ends in a loop."""
    data = output.get("data", {})
    return list(data) == ["text/plain"] and data["text/plain"].strip() == "()"


def tidy(notebook):
    """Leaves only what a reader needs, the same for the same outputs."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "lnfree (Rust)", "language": "rust", "name": KERNEL},
            "language_info": {"name": "rust", "file_extension": ".rs", "mimetype": "text/rust", "codemirror_mode": "rust"},
        }
    )
    count = 0
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number:02}"
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        merged = []
        for output in cell.outputs:
            if is_nothing(output):
                continue
            if output.output_type == "execute_result":
                output.execution_count = count
                output.metadata = {}
            if "image/png" in output.get("data", {}):
                shrink(output.data)
            if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
                merged[-1].text += output.text
            else:
                merged.append(output)
        cell.outputs = merged


def warm_up():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in WARM_UP])
    why, seconds = execute(notebook)
    if why:
        sys.exit(why)
    print("kernel, first cell, first variable: " + ", ".join(f"{s:.1f} s" for s in seconds))


def chosen(names):
    """The notebooks of these names, with or without folder and ending; all without names."""
    there = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    if not names:
        return list(there.values())
    stems = [pathlib.Path(name).stem for name in names]
    for name, stem in zip(names, stems):
        if stem not in there:
            sys.exit(f"notebook {name}: there are {', '.join(there)}")
    return [there[stem] for stem in stems]


def run(paths, store):
    with tempfile.TemporaryDirectory() as scratch:
        failed = [path.stem for path in paths if not run_one(path, store, scratch)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_one(path, store, scratch):
    """Whether it went well. What is not stored makes runs of its own in `scratch`, and leaves those of the user alone."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if not store and cell.cell_type == "code":
            cell.source = cell.source.replace(RUNS, scratch)
    print(f"{path.stem}:", flush=True)
    started = time.monotonic()
    why, _ = execute(notebook, say=lambda text: print(text, flush=True))
    total = time.monotonic() - started
    if why:
        print(f"{path.stem} failed after {total:.0f} s, {why}", file=sys.stderr, flush=True)
        return False
    tidy(notebook)
    text = nbformat.writes(notebook, version=4) + "\n"
    size = len(text.encode())
    if size > LARGEST:
        print(f"{path.stem}: {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}", file=sys.stderr, flush=True)
        return False
    if store:
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)
    print(f"{path.stem}: done in {total:.0f} s, {size / 1e3:.0f} kB", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", action="store_true", help="store the outputs")
    what.add_argument("--check", action="store_true", help="store nothing")
    what.add_argument("--warm-up", action="store_true", help="compile what every notebook needs")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    if arguments.warm_up:
        warm_up()
    else:
        run(chosen(arguments.names), store=arguments.run)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        # The kernel has been shut down by then; training runs go on from their last checkpoint.
        print("stopped", file=sys.stderr)
        sys.exit(130)
