//! Pieces of the report pages: numbers, times, figures.

use chrono::DateTime;
use maud::{Markup, PreEscaped, html};
use plotly::Plot;

/// The page's style sheet.
pub const STYLE: &str = include_str!("page.css");
/// Draws the figures that the page carries as JSON, in colours that fit the page.
pub const SCRIPT: &str = include_str!("page.js");

/// A whole number with a thin space at every thousand.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A figure: a place for it, and its data as JSON that no text inside can break out of.
pub fn figure(id: &str, description: &str, plot: &Plot) -> Markup {
    let json = plot.to_json().replace('<', "\\u003c");
    html! {
        div.figure id=(id) role="img" aria-label=(description) {}
        script type="application/json" data-figure=(id) { (PreEscaped(json)) }
    }
}

/// plotly.js itself, as a `<script>`. The crate hands it out together with MathJax, which nothing here needs.
pub fn plotly_js() -> String {
    let mut scripts = Plot::offline_js_sources();
    const END: &str = "</script>";
    let end = scripts.find(END).map_or(scripts.len(), |at| at + END.len());
    scripts.truncate(end);
    scripts
}

/// Seconds since 1970 as `2025-01-31 14:05 UTC`.
pub fn utc(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map_or_else(
        || format!("{seconds} s after 1970"),
        |time| time.format("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_to_the_minute() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        // `date -u -d @1709208000`.
        assert_eq!(utc(1_709_208_000), "2024-02-29 12:00 UTC");
        assert_eq!(utc(u64::MAX), "18446744073709551615 s after 1970");
    }

    #[test]
    fn a_figure_holds_texts_that_look_like_tags() {
        let mut plot = Plot::new();
        plot.add_trace(plotly::Scatter::new(vec![0], vec![0]).name("</script><b>"));
        let html = figure("f", "\"x\" < y", &plot).into_string();
        assert!(html.contains("aria-label=\"&quot;x&quot; &lt; y\""), "{html}");
        assert_eq!(html.matches("</script>").count(), 1, "{html}");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn the_script_is_plotly_alone_and_whole() {
        let script = plotly_js();
        assert_eq!((script.matches("<script").count(), script.matches("</script>").count()), (1, 1));
        assert!(script.contains("window.Plotly = Plotly"));
        assert!(script.trim_end_matches("</script>").ends_with("return Plotly;\n}));"));
    }
}
