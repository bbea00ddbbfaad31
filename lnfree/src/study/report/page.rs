//! Pieces of HTML: escaping, numbers, times, figures.

use plotly::Plot;

/// The page's style sheet.
pub const STYLE: &str = include_str!("page.css");
/// Draws the figures that the page carries as JSON, in colours that fit the page.
pub const SCRIPT: &str = include_str!("page.js");

/// Text as HTML, safe in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

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
pub fn figure(id: &str, description: &str, plot: &Plot) -> String {
    let json = plot.to_json().replace('<', "\\u003c");
    let description = escape(description);
    format!(
        "<div class=\"figure\" id=\"{id}\" role=\"img\" aria-label=\"{description}\"></div>\n\
         <script type=\"application/json\" data-figure=\"{id}\">{json}</script>\n"
    )
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
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    let is_leap =
        |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02} UTC", day + 1, second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        // `date -u -d @1709208000`, a leap day; the last minute of a leap year; a century that is one.
        assert_eq!(utc(1_709_208_000), "2024-02-29 12:00 UTC");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59 UTC");
        assert_eq!(utc(951_868_800), "2000-03-01 00:00 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00 UTC");
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
