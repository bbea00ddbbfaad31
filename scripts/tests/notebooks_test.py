"""Tries scripts/notebooks/run.py with the real kernel, and looks at the notebooks as they are stored.

    ~/.cache/lnfree/jupyter/bin/python scripts/tests/notebooks_test.py

after ./scripts/notebook.sh --setup.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import sys
import tempfile
import unittest

import nbformat

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/notebooks"))
os.environ.setdefault("JUPYTER_PATH", str(ROOT / ".evcxr/jupyter"))

import run  # noqa: E402

FIRST = run.WARM_UP[0]
FIGURE, IMAGE = "application/vnd.plotly.v1+json", "image/png"


def notebook(*sources):
    """Cells of these sources; one that ends in `// fails` is expected to."""
    tags = lambda source: {"tags": ["raises-exception"]} if source.endswith("// fails") else {}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s, metadata=tags(s)) for s in sources])


def said(cell, kinds=("stdout",)):
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name in kinds)


def error(cell):
    """What a reader is told when a cell fails."""
    errors = ["\n".join(o.traceback) or o.evalue for o in cell.outputs if o.output_type == "error"]
    return "".join(errors) + said(cell, ("stderr",))


class Cells(unittest.TestCase):
    """One kernel each."""

    def test_the_kernel_and_its_variables_outlive_a_cell_that_fails(self):
        cells = notebook(
            FIRST,
            "let forty = 40;",
            "let typed_wrong: u32 = \"text\"; // fails",
            'Config::load("no such config", &[])?; // fails',
            'Figure::from(lnfree::plot::Plot::new()).save("figure.docx")?; // fails',
            "println!(\"{}\", forty + 2);",
        )
        why, seconds = run.execute(cells)
        self.assertIsNone(why)
        self.assertEqual(len(seconds), 1 + len(cells.cells))
        self.assertIn("mismatched types", error(cells.cells[2]))
        self.assertIn("no such config", error(cells.cells[3]))
        self.assertIn("figure.docx: a figure is saved as .html, .svg or .png", error(cells.cells[4]))
        self.assertEqual(said(cells.cells[5]).strip(), "42")

    def test_a_cell_calls_what_the_crate_itself_does_not(self):
        cells = notebook(
            FIRST,
            "let few = Tensor::from_slice(&[1i16, 2, 3]).roll([3i64], [0i64]);",
            "let nines = Tensor::full([2, 2, 2, 2], 9i64, (Kind::Int, Device::Cpu)).clamp_max(7i64);",
            "println!(\"{:?} {:?}\", nines.size(), Vec::<i16>::try_from(few.clamp_max(2i64)).unwrap());",
        )
        why, _ = run.execute(cells)
        self.assertIsNone(why)
        self.assertEqual(said(cells.cells[3]).strip(), "[2, 2, 2, 2] [1, 2, 2]")

    def test_a_cell_that_fails_ends_the_run_with_code_1_and_stores_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "broken.ipynb")
            nbformat.write(notebook(FIRST, 'Config::load("no such config", &[])?;', 'println!("not reached");'), path)
            before = path.read_bytes()
            output = io.StringIO()
            with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
                with self.assertRaises(SystemExit) as ended:
                    run.run([path], store=True)
            # Python's exit code for a text is 1.
            self.assertEqual(ended.exception.code, "failed: broken")
            self.assertIn("cell 2", output.getvalue())
            self.assertIn("no such config", output.getvalue())
            self.assertEqual(path.read_bytes(), before)


class Names(unittest.TestCase):
    def test_notebooks_go_by_name_path_or_all_together(self):
        everything = [path.stem for path in run.chosen([])]
        self.assertEqual(everything[0], "00_quickstart")
        self.assertEqual(run.chosen(["notebooks/scaling.ipynb"]), run.chosen(["scaling"]))
        with self.assertRaises(SystemExit) as ended:
            run.chosen(["scalling"])
        self.assertIn("notebook scalling: there are 00_quickstart", ended.exception.code)


class Stored(unittest.TestCase):
    """The notebooks as they are committed."""

    def setUp(self):
        self.notebooks = {path.stem: path for path in run.chosen([])}

    def test_they_have_all_their_outputs_and_no_traces_of_a_machine(self):
        for name, path in self.notebooks.items():
            with self.subTest(name):
                text = path.read_text()
                self.assertLess(len(text.encode()), run.LARGEST)
                read = nbformat.reads(text, as_version=4)
                code = [cell for cell in read.cells if cell.cell_type == "code"]
                self.assertEqual([cell.execution_count for cell in code], list(range(1, len(code) + 1)))
                self.assertFalse([run.failure(cell) for cell in code if run.failure(cell)])
                run.tidy(read)
                self.assertEqual(nbformat.writes(read, version=4) + "\n", text)
                for trace in (str(ROOT), str(pathlib.Path.home()) + "/"):
                    self.assertNotIn(trace, text)

    def test_every_figure_has_its_image(self):
        for name, path in self.notebooks.items():
            with self.subTest(name):
                outputs = [o for cell in json.loads(path.read_text())["cells"] for o in cell.get("outputs", [])]
                figures = [o["data"] for o in outputs if FIGURE in o.get("data", {})]
                self.assertTrue(figures)
                self.assertTrue(all(IMAGE in data for data in figures))

    def test_the_sizes_are_walked_by_the_same_cells(self):
        def cells(name):
            read = nbformat.read(self.notebooks[name], as_version=4)
            return [re.sub(r'Walk::of\("[^"]*"', "Walk::of(", c.source) for c in read.cells if c.cell_type == "code"]

        first, *others = [name for name in self.notebooks if name.startswith("gpt2_")]
        self.assertEqual(len(others), 3)
        for name in others:
            self.assertEqual(cells(name), cells(first), f"{name} and {first}")

    def test_a_figure_of_a_stand_in_says_what_it_is(self):
        for name in (name for name in self.notebooks if name.startswith("gpt2_")):
            read = nbformat.read(self.notebooks[name], as_version=4)
            if not any("STAND-IN" in said(cell) for cell in read.cells if cell.cell_type == "code"):
                continue
            for cell in read.cells:
                figures = [o.data[FIGURE] for o in cell.get("outputs", []) if FIGURE in o.get("data", {})]
                # The size's own plan and the published table are what they are called.
                if figures and not re.search(r"size_schedule|results_bars\(&published\)", cell.source):
                    self.assertIn("standing in for", json.dumps(figures, ensure_ascii=False), f"{name}: {cell.source}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
