//! Walks that go on no GPU.

use std::path::Path;

use tch::Device;

use super::{SIZES, Walk, published_points, run_points};
use crate::config::Config;
use crate::config::norm::RemovalKind;
use crate::config::schedule::ScheduleConfig;
use crate::eval::locate_model;
use crate::model::Shape;
use crate::study::plot::Figure;
use crate::train::{Mode, start_or_resume};

fn stand_in(size: &str) -> Walk {
    Walk::with(size, "runs", Device::Cpu, Some("no GPU".into())).unwrap()
}

#[test]
fn a_stand_in_removes_the_same_kinds_at_the_same_parts_of_the_run() {
    for (size, ..) in SIZES {
        let walk = stand_in(size);
        let part = |config: &Config, kind| {
            let steps: Vec<f64> = (config.schedule().removals().iter())
                .filter(|r| r.kind == kind)
                .map(|r| r.step as f64 / config.train.max_steps as f64)
                .collect();
            (steps.first().copied().unwrap(), steps.last().copied().unwrap())
        };
        for kind in RemovalKind::ALL {
            let (here, there) = (part(&walk.config, kind), part(&walk.size_config, kind));
            let apart = (here.0 - there.0).abs().max((here.1 - there.1).abs());
            assert!(apart < 0.02, "{size}, {kind:?}: {here:?} and {there:?}");
        }
        let order = |config: &Config| {
            let mut kinds: Vec<_> = config.schedule().removals().iter().map(|r| r.kind).collect();
            kinds.dedup();
            kinds
        };
        assert_eq!(order(&walk.config), RemovalKind::ALL, "{size}");
        assert_eq!(Config::parse(&walk.config.to_toml(), size, &[]).unwrap(), walk.config);
    }
}

#[test]
fn a_stand_in_says_so_and_shows_no_published_figure_beside_its_own() {
    let walk = stand_in("gpt2-xl");
    assert!(walk.to_string().starts_with("STAND-IN: no GPU."));
    assert!(walk.references().is_empty());
    let figure = walk.shown(plotly::Plot::new().into());
    assert!(figure.to_json().contains("standing in for gpt2-xl (48 blocks)"));
    assert_eq!(walk.models().last().unwrap().label, "LN-free");
    assert_eq!(walk.published().unwrap().len(), 9);
}

#[test]
fn the_real_walk_is_the_paper_with_a_model_of_our_own() {
    let walk = Walk::real("gpt2-medium", "runs", Device::Cpu).unwrap();
    assert_eq!(walk.config, walk.size_config);
    let labels: Vec<String> = walk.models().into_iter().map(|m| m.label).collect();
    assert_eq!(labels, ["Medium original", "Medium vanilla", "Medium LN-free"]);
    // Our LN-free model stands beside the published one's figure.
    assert_eq!(walk.references().len(), 9);
    assert!(!walk.shown(plotly::Plot::new().into()).to_json().contains("standing in"));
    // The large run goes on after the step that was published: it is that one that is exported and compared.
    let large = Walk::real("gpt2-large", "runs", Device::Cpu).unwrap();
    assert_eq!((large.config.train.max_steps, large.card().steps, large.references().len()), (1200, 600, 9));
    let mut forgot = large;
    forgot.config.train.keep_steps = Vec::new();
    assert_eq!((forgot.card().steps, forgot.references().len()), (1200, 6));
    assert!(Walk::real("gpt3", "runs", Device::Cpu).is_err());
}

#[test]
fn what_was_run_here_is_found_below_a_folder() {
    let root = tempfile::tempdir().unwrap();
    assert!(run_points(root.path().join("nowhere")).unwrap().is_empty());
    let base = Config::load("nano", &[]).unwrap();
    let plan = ScheduleConfig { start_ln2: Some(1), ..ScheduleConfig::default() };
    let mut config = Config { schedule: plan, ..base };
    config.train.max_steps = 3;
    config.train.warmup_steps = 1;
    config.data.eval = None;
    for (mode, folder) in
        [(Mode::WithoutLn, "a/ln_free"), (Mode::WithoutLn, "b/deeper/again"), (Mode::WithLn, "vanilla")]
    {
        start_or_resume(&config, mode, root.path().join(folder), Device::Cpu).unwrap();
    }
    // Twice the same plan, and a control that removed nothing: one point.
    let points = run_points(root.path()).unwrap();
    assert_eq!(points.len(), 1, "{points:?}");
    assert_eq!((points[0].steps, points[0].tokens, points[0].published), (3, 12_288.0, false));
    assert_eq!(
        points[0].parameters,
        Shape { n_layer: 6, n_embd: 128, block_size: 128, vocab_size: 4096, untied: false, norms: true }
            .parameters() as f64
    );
}

#[test]
fn the_published_points_are_those_of_the_table() {
    let points = published_points().unwrap();
    assert_eq!(points.iter().map(|p| p.steps).collect::<Vec<_>>(), [300, 500, 600, 800]);
    assert_eq!(points[0].tokens, 300.0 * 524_288.0);
    assert!(
        points
            .windows(2)
            .all(|pair| pair[0].parameters < pair[1].parameters && pair[0].tokens < pair[1].tokens)
    );
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::write(to.join(file.file_name()), std::fs::read(file.path()).unwrap()).unwrap();
    }
}

/// An evaluation that is there is read; one of an export that was made again since is made again.
#[test]
fn evaluations_are_made_once() {
    let root = tempfile::tempdir().unwrap();
    let mut walk = stand_in("gpt2");
    walk.folder = root.path().into();
    walk.suite.limit = 2;
    walk.suite.datasets.truncate(1);
    copy_folder(&locate_model("nano_LNFree200").unwrap(), &walk.export_dir());
    let rows = walk.evaluate().unwrap();
    let labels: Vec<_> = rows.iter().filter_map(|row| row.label.as_deref()).collect();
    assert_eq!(labels, ["original", "vanilla", "LN-free"]);
    let written = |label: &str| {
        let file = walk.eval_dir().join(format!("{label}--nano-addresses.json"));
        std::fs::metadata(file).unwrap().modified().unwrap()
    };
    let before = ["original", "LN-free"].map(written);
    assert_eq!(walk.evaluate().unwrap(), rows);
    assert_eq!(["original", "LN-free"].map(written), before);
    // As if the export had been made again; a clock may not tell two writes apart.
    let config = std::fs::File::options().append(true).open(walk.export_dir().join("config.json")).unwrap();
    config.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
    assert_eq!(walk.evaluate().unwrap().len(), 3);
    assert_eq!(written("original"), before[0]);
    assert!(written("LN-free") > before[1]);
}

#[test]
fn the_steps_of_a_walk_follow_from_each_other() {
    let root = tempfile::tempdir().unwrap();
    let mut walk = stand_in("gpt2-medium");
    walk.folder = root.path().into();
    walk.config.train.max_steps = 4;
    walk.config.train.warmup_steps = 0;
    walk.config.eval.max_sequences = 4;
    // Everything goes before the run ends, so that it can be exported.
    walk.config.schedule = Config::load("nano", &[]).unwrap().schedule.stretched(0.0, 0.0);
    let said = |figure: Figure| figure.to_json();
    for figure in [walk.train(), walk.stds_over_time(), walk.optimisation(), walk.stds_over_depth()] {
        assert!(said(figure.unwrap()).contains("standing in for gpt2-medium"));
    }
    let proof = walk.export().unwrap();
    assert!(proof.relative_rms < 1e-4 && proof.to_string().contains("relative RMS"), "{proof}");
    let patterns = said(walk.attention("The people of the United States").unwrap());
    assert!(patterns.contains("LN-free") && patterns.contains("original"));
    let texts = said(walk.continuations(&["The people", "It was"]).unwrap());
    assert!(texts.contains("The people") && texts.contains("It was") && texts.contains("LN-free"));
}
