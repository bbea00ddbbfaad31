//! The nano study as `data/study.json` records it, and the tables that documents make of it.

use serde::{Deserialize, Serialize};

/// The embedded models on the embedded texts. Reads `results.json` of `eval-all` too.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub evaluations: Vec<Row>,
    /// Paired, sequence by sequence.
    pub differences: Vec<Row>,
    /// Of each model; `results.json` has none.
    #[serde(default)]
    pub heads: Vec<Heads>,
    /// Likewise.
    #[serde(default)]
    pub interiors: Vec<Interior>,
}

/// What a model makes of random tokens that are said twice.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Heads {
    pub label: String,
    /// Loss the first time, nats per token.
    pub first: f64,
    /// Loss the second time.
    pub again: f64,
    /// The largest score of a head.
    pub previous_token: f64,
    pub duplicate_token: f64,
    pub induction: f64,
}

/// What a model is like inside, on text.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Interior {
    pub label: String,
    /// Share of queries, over all heads, that give position 0 more than 0.3.
    pub sink_rate: f64,
    /// The block after which position 0 stands out most.
    pub after_block: usize,
    /// Mean norm of the centred residual stream there, at position 0.
    pub first_norm: f64,
    /// The same at later positions.
    pub other_norm: f64,
    /// The likeliest entropy neuron of the last MLP.
    pub neuron: usize,
    /// Its norm over variance, over that of the median neuron.
    pub neuron_ratio: f64,
    /// The part of its output in the eighth of all directions that the unembedding reads least.
    pub neuron_in_smallest: f64,
    /// What replacing it with its mean does to the mean loss, nats.
    pub loss_change: f64,
    /// And to the mean entropy of the predictions, nats.
    pub entropy_change: f64,
}

/// Loss of a model on a data set, or the difference of two models: nats per token.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub label: String,
    pub dataset: String,
    pub n_sequences: u64,
    pub mean: f64,
    /// 95%.
    #[serde(alias = "mean_interval")]
    pub interval: [f64; 2],
}

/// The pages that have a table of the study, from the repository's root.
pub const PAGES: [&str; 3] = ["README.md", "docs/src/evaluation.md", "data/README.md"];

/// Where a table begins in its page, and where it ends.
const MARKS: [&str; 2] = ["<!-- table of the example nano_record -->\n\n", "\n<!-- end of the table -->\n"];

/// A page with the record's table in place of the one that it has; none where the marks are missing.
pub fn with_table(page: &str, text: &str, record: &Record) -> Option<String> {
    let (before, rest) = text.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    let table = match page {
        "README.md" => record.means(),
        "data/README.md" => [record.heads(), record.interiors()].join("\n"),
        _ => record.intervals(),
    };
    Some([before, MARKS[0], &table, MARKS[1], after].concat())
}

impl Record {
    /// Means, and what removing LN costs beside fine-tuning alone.
    fn means(&self) -> String {
        let datasets = labels(&self.evaluations, |row| &row.dataset);
        let of_losses = lines(&self.evaluations, |row| vec![format!("{:.4}", row.mean)]);
        let costs = self.differences.iter().filter(|row| row.label == "LN-free − vanilla");
        let of_costs = lines(costs, |row| vec![signed(row.mean)]);
        table(&datasets, of_losses.into_iter().chain(of_costs))
    }

    /// Means and differences, each with its interval.
    fn intervals(&self) -> String {
        let datasets = labels(&self.evaluations, |row| &row.dataset);
        let heads: Vec<&str> = datasets.into_iter().flat_map(|dataset| [dataset, "95% interval"]).collect();
        let of_losses = lines(&self.evaluations, |row| {
            let [low, high] = row.interval;
            vec![format!("{:.4}", row.mean), format!("{low:.4} to {high:.4}")]
        });
        let of_differences =
            lines(&self.differences, |row| vec![signed(row.mean), row.interval.map(signed).join(" to ")]);
        table(&heads, of_losses.into_iter().chain(of_differences))
    }

    /// Losses on random tokens, and the best heads.
    fn heads(&self) -> String {
        let heads =
            ["first time, nats", "second time, nats", "previous token", "duplicate token", "induction"];
        let line = |row: &Heads| {
            let Heads { label, first, again, previous_token, duplicate_token, induction } = row;
            let numbers = [first, again, previous_token, duplicate_token, induction];
            std::iter::once(label.clone()).chain(numbers.map(|x| format!("{x:.3}"))).collect()
        };
        table(&heads, self.heads.iter().map(line))
    }

    /// Sinks, norms and entropy neurons.
    fn interiors(&self) -> String {
        let heads = [
            "sink rate",
            "norm at position 0",
            "at others",
            "after block",
            "neuron",
            "ratio over median",
            "in least-read eighth",
            "loss",
            "entropy",
        ];
        let line = |row: &Interior| {
            vec![
                row.label.clone(),
                format!("{:.1}%", 100.0 * row.sink_rate),
                format!("{:.1}", row.first_norm),
                format!("{:.1}", row.other_norm),
                row.after_block.to_string(),
                row.neuron.to_string(),
                format!("{:.1}", row.neuron_ratio),
                format!("{:.2}", row.neuron_in_smallest),
                signed(row.loss_change),
                signed(row.entropy_change),
            ]
        };
        table(&heads, self.interiors.iter().map(line))
    }
}

/// Every value of a column once, in the order of the rows.
fn labels<'a>(rows: impl IntoIterator<Item = &'a Row>, column: fn(&Row) -> &String) -> Vec<&'a str> {
    let mut found = Vec::new();
    for row in rows {
        let value = column(row).as_str();
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

/// A line for each label: the label, then the cells of its rows.
fn lines<'a>(
    rows: impl IntoIterator<Item = &'a Row> + Clone,
    cells: impl Fn(&Row) -> Vec<String>,
) -> Vec<Vec<String>> {
    let line = |label: &str| {
        let own = rows.clone().into_iter().filter(|row| row.label == label);
        std::iter::once(label.to_owned()).chain(own.flat_map(&cells)).collect()
    };
    labels(rows.clone(), |row| &row.label).into_iter().map(line).collect()
}

fn signed(x: f64) -> String {
    format!("{x:+.4}").replace('-', "−")
}

fn table(heads: &[&str], lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = format!("| model | {} |\n|---|{}\n", heads.join(" | "), "---:|".repeat(heads.len()));
    for line in lines {
        table += &format!("| {} |\n", line.join(" | "));
    }
    table
}
