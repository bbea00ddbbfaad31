//! A figure that shows itself in a notebook and saves itself as a file.

use std::ops::Deref;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use plotly::Plot;
use plotly::common::{Anchor, Font};
use plotly::layout::Annotation;
use serde_json::Value;

use super::image::{ImageFormat, render};
use super::theme;
use crate::base::atomic::{write_bytes, write_text};
use crate::{Error, Result};

/// Pixels of an image where nothing else is asked for: the width of a notebook page.
const WIDTH: usize = 860;
/// Set by `scripts/notebooks/run.py` for the kernels that it starts.
const WITH_IMAGES: &str = "LNFREE_FIGURE_IMAGES";
/// Pixels of height of a figure whose layout does not say.
const HEIGHT: usize = 480;

/// One of this crate's figures: a [`Plot`] that a notebook shows when it is the last value of a cell, and
/// that can be saved.
#[derive(Clone)]
pub struct Figure {
    plot: Plot,
    width: usize,
}

/// The figure takes over what all figures share: plotly's buttons, and that it is as wide as its page.
impl From<Plot> for Figure {
    fn from(mut plot: Plot) -> Figure {
        plot.set_configuration(theme::configuration());
        Figure { plot, width: WIDTH }
    }
}

impl Deref for Figure {
    type Target = Plot;

    fn deref(&self) -> &Plot {
        &self.plot
    }
}

impl Figure {
    /// Another width for images, in pixels.
    pub fn width(mut self, pixels: usize) -> Figure {
        self.width = pixels;
        self
    }

    /// Writes a line below the figure that stays with it wherever it is saved or copied: what it shows, and
    /// what not.
    pub fn caption(mut self, text: &str) -> Figure {
        // Below the title of the axis, which keeps the margin that it has without a caption.
        const ROOM: usize = 30;
        let bottom = self.layout_number(&["margin", "b"]).unwrap_or(theme::MARGIN_BOTTOM) + ROOM;
        let mut layout = self.plot.layout().clone();
        layout.add_annotation(
            Annotation::new()
                .text(theme::escape(text))
                .font(Font::new().size(12).color(theme::CAPTION))
                .show_arrow(false)
                .x_ref("paper")
                .y_ref("paper")
                .x(0.0)
                .y(0.0)
                .x_anchor(Anchor::Left)
                .y_anchor(Anchor::Bottom)
                .y_shift(-(bottom as f64) + 2.0),
        );
        let height = self.height() + ROOM;
        self.plot.set_layout(layout.margin(theme::margin(bottom)).height(height));
        self
    }

    /// Saves to a file whose name ends in `.html` (interactive, needs no network), `.svg` or `.png`.
    ///
    /// # Errors
    /// Another ending, a file that cannot be written, or an image where the program that draws images is
    /// missing (see [`Figure::png`]).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match path.extension().and_then(|e| e.to_str()) {
            Some("html") => write_text(path, &self.plot.to_html()),
            Some("svg") => write_bytes(path, &self.svg()?),
            Some("png") => write_bytes(path, &self.png()?),
            _ => Err(Error::file(path, "a figure is saved as .html, .svg or .png")),
        }
    }

    /// The figure as an image of twice its size in pixels, on white, drawn by Kaleido: `scripts/notebook.sh`
    /// installs it, `LNFREE_KALEIDO` names another copy.
    ///
    /// # Errors
    /// When Kaleido is missing or gives up.
    pub fn png(&self) -> Result<Vec<u8>> {
        render(self.json()?, ImageFormat::Png, self.width, self.height())
    }

    /// The figure as an SVG file on white; as [`Figure::png`].
    ///
    /// # Errors
    /// When Kaleido is missing or gives up.
    pub fn svg(&self) -> Result<Vec<u8>> {
        render(self.json()?, ImageFormat::Svg, self.width, self.height())
    }

    /// Shows the figure in Jupyter, interactive. Where nobody looks on (`scripts/notebook.sh --run`) its
    /// image goes with it, for where notebooks are only looked at, as on GitHub. Jupyter Lab would show that
    /// instead, and makes its own when it saves.
    pub fn evcxr_display(&self) {
        let mut out = mime("application/vnd.plotly.v1+json", &self.plot.to_json());
        if std::env::var_os(WITH_IMAGES).is_some() {
            match self.png() {
                Ok(png) => out.push_str(&mime("image/png", &BASE64_STANDARD.encode(png))),
                Err(error) => {
                    out.push_str(&mime("text/plain", &format!("a figure without an image: {error}")))
                }
            }
        }
        print!("{out}");
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.plot.to_json()).map_err(|e| Error::invalid(format!("figure: {e}")))
    }

    fn height(&self) -> usize {
        self.layout_number(&["height"]).unwrap_or(HEIGHT)
    }

    /// What the layout says at this place.
    fn layout_number(&self, keys: &[&str]) -> Option<usize> {
        let json = self.json().unwrap_or_default();
        keys.iter().fold(&json["layout"], |value, key| &value[*key]).as_u64().map(|n| n as usize)
    }
}

/// What evcxr's kernel takes for a value of that type.
fn mime(kind: &str, content: &str) -> String {
    format!("EVCXR_BEGIN_CONTENT {kind}\n{content}\nEVCXR_END_CONTENT\n")
}
