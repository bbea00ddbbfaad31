//! Numbers and rows as a reader wants them.

/// Columns of the table, and how many of them at the left are words.
pub(super) const COLUMNS: usize = 11;
const WORDS: usize = 6;

/// A line of the table.
pub(super) type Row = [String; COLUMNS];

/// A time in a unit that suits it.
pub(super) fn seconds(s: f64) -> String {
    if s < 1.0 { format!("{:.1} ms", 1e3 * s) } else { format!("{s:.2} s") }
}

/// Operations per second.
pub(super) fn flops(per_s: f64) -> String {
    if per_s < 1e12 { format!("{:.0} GFLOP/s", per_s / 1e9) } else { format!("{:.1} TFLOP/s", per_s / 1e12) }
}

/// Rounded, with commas between thousands.
pub(super) fn thousands(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// As Markdown.
pub(super) fn as_markdown(rows: &[Row]) -> String {
    let mut lines: Vec<String> = rows.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    lines.insert(1, format!("|{}{}", "---|".repeat(WORDS), "---:|".repeat(COLUMNS - WORDS)));
    lines.join("\n")
}

/// In columns, numbers to the right.
pub(super) fn as_columns(rows: &[Row]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &Row| {
        let cells = row.iter().zip(&widths).enumerate();
        let padded: Vec<String> = cells
            .map(
                |(i, (cell, &width))| {
                    if i < WORDS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        padded.join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
