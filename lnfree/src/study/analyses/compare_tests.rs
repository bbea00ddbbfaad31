//! Comparisons with figures of the paper, and with figures of a record.

use super::*;
use crate::study::analyses::published::sample;
use crate::study::analyses::{InterpRecord, Pairs, Provenance, Sample};
use crate::study::found::{Found, Number};

fn findings(label: &str, request: Request, numbers: Vec<Number>) -> Findings {
    Findings {
        request,
        label: label.into(),
        model: "m".into(),
        original: None,
        seconds: 1.0,
        found: Found { numbers, ..Found::default() },
    }
}

/// What was asked where all of it was found.
fn asked(findings: &[Findings]) -> Vec<(&str, &Request)> {
    findings.iter().map(|of| (of.label.as_str(), &of.request)).collect()
}

fn beside_paper(findings: &[Findings]) -> Vec<Row> {
    compare(findings, &asked(findings), "paper")
}

fn verdict(label: &str, request: Request, number: Number) -> Verdict {
    let name = number.name.clone();
    let rows = beside_paper(&[findings(label, request, vec![number])]);
    rows.into_iter().find(|row| row.number == name).unwrap().verdict
}

#[test]
fn intervals_that_overlap_agree() {
    let sinks = |low: f64, high: f64| {
        let number = Number::new("sink rate", (low + high) / 2.0, "%").with_interval([low, high]);
        verdict("Medium LN-free", Request::Sinks(sample()), number)
    };
    assert_eq!(sinks(48.0, 50.0), Verdict::Agrees);
    assert_eq!(sinks(48.6, 50.0), Verdict::Differs);
    let bare =
        |value| verdict("Medium original", Request::Sinks(sample()), Number::new("sink rate", value, "%"));
    assert_eq!((bare(53.2), bare(52.9)), (Verdict::Agrees, Verdict::Differs));
}

#[test]
fn a_figure_without_an_interval_is_what_is_rounded_to_it() {
    let effects = |value, interval| {
        let number = Number::new("NMAE, mean over heads", value, "%").with_interval(interval);
        verdict("Small LN-free", Request::DirectEffects(sample()), number)
    };
    assert_eq!(effects(2e-5, [1e-5, 3e-5]), Verdict::Agrees);
    assert_eq!(effects(0.02, [0.01, 0.03]), Verdict::Differs);
    let loss =
        |value| verdict("Small original", Request::Outputs(sample()), Number::new("loss", value, "nats"));
    assert_eq!((loss(2.95), loss(3.1)), (Verdict::Agrees, Verdict::Differs));
    assert_eq!(loss(f64::NAN), Verdict::Differs);
}

#[test]
fn another_sample_does_not_compare() {
    let of =
        |sample| verdict("Small original", Request::Outputs(sample), Number::new("loss", 2.9642, "nats"));
    assert_eq!(of(sample()), Verdict::Agrees);
    for other in [
        Sample { data: "pile-apollo".into(), ..sample() },
        Sample { sequences: 999, ..sample() },
        Sample { positions: 1024, ..sample() },
    ] {
        assert_eq!(of(other), Verdict::NotComparable);
    }
}

#[test]
fn each_model_stands_beside_its_own_figures() {
    let loss =
        |label: &str| findings(label, Request::Outputs(sample()), vec![Number::new("loss", 2.8, "nats")]);
    let all = [loss("Medium LN-free"), loss("Small original"), loss("something else")];
    let rows = beside_paper(&all);
    let of = |label: &str| rows.iter().filter(|row| row.label == label).count();
    // The original has no distance to itself.
    assert_eq!((rows.len(), of("Small original"), of("Medium LN-free")), (7, 3, 4));
    let jsd = rows.iter().find(|row| row.number.starts_with("JSD")).unwrap();
    assert_eq!((jsd.measured, jsd.published, jsd.verdict), (None, 0.0347, Verdict::NotComparable));
    assert!(!jsd.recorded && compare(&all, &asked(&all), "another").is_empty());
    assert_eq!(
        summary(&rows).unwrap(),
        "beside the published figures: 1 agrees, 1 differs, 5 not comparable"
    );
}

/// Two analyses of one model, and the figures of a record of them.
fn recorded_once() -> ([Findings; 2], Vec<Figure>) {
    let loss = Number::new("loss", 3.488, "nats").with_interval([3.417, 3.554]);
    let error = Number::new("attribution patching error", 0.028, "");
    let pairs = Pairs::Repeated { n: 16, period: 20, seed: 0 };
    let all = [
        findings("original", Request::Outputs(sample()), vec![loss]),
        findings("original", Request::Patching(pairs), vec![error]),
    ];
    let [command, processor, date] = [(); 3].map(|()| String::new());
    let record = InterpRecord::of(&all, Provenance { command, processor, date });
    (all, record.into_figures())
}

fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    rows.iter().map(|row| row.verdict).collect()
}

#[test]
fn what_is_off_by_more_than_the_tolerance_is_told() {
    let (mut all, figures) = recorded_once();
    let rows = beside(&figures, &all, &asked(&all));
    assert_eq!(verdicts(&rows), [Verdict::AsRecorded; 2]);
    assert!(rows.iter().all(|row| row.recorded && row.measured == Some(row.published)), "{rows:?}");
    assert_eq!(summary(&rows).unwrap(), "beside our record (tolerance 0.1%): 2 as recorded");
    // Its interval still has the recorded loss in it.
    all[0].found.numbers[0].value = Some(3.5);
    let rows = beside(&figures, &all, &asked(&all));
    assert_eq!(verdicts(&rows), [Verdict::NotAsRecorded, Verdict::AsRecorded]);
    assert_eq!(
        summary(&rows).unwrap(),
        "beside our record (tolerance 0.1%): 1 as recorded, 1 not as recorded"
    );
    all[0].found.numbers[0].value = None;
    assert_eq!(beside(&figures, &all, &asked(&all))[0].verdict, Verdict::NotAsRecorded);
}

#[test]
fn what_was_asked_and_is_missing_is_told() {
    let (mut all, figures) = recorded_once();
    let whole = asked(&all);
    let rows = beside(&figures, &all[..1], &whole);
    assert_eq!(verdicts(&rows), [Verdict::AsRecorded, Verdict::NotComparable]);
    assert_eq!((rows[1].analysis.as_str(), rows[1].measured, rows[1].published), ("patching", None, 0.028));
    // Of what was not asked nothing is said.
    assert_eq!(beside(&figures, &all[..1], &whole[..1]).len(), 1);
    assert!(beside(&figures, &[], &[]).is_empty() && summary(&[]).is_none());
    // Nor is another number, or one of another request, the one that is recorded.
    all[0].found.numbers[0].unit = "bits".into();
    all[1].request = Request::Patching(Pairs::Repeated { n: 16, period: 21, seed: 0 });
    let rows = beside(&figures, &all, &asked(&all));
    assert_eq!(verdicts(&rows), [Verdict::NotComparable; 2]);
    assert_eq!(summary(&rows).unwrap(), "beside our record (tolerance 0.1%): 2 not comparable");
}

#[test]
fn of_several_analyses_of_a_kind_the_one_that_was_recorded_is_compared() {
    let (all, figures) = recorded_once();
    let other = Findings { request: Request::Patching(Pairs::Ioi { n: 8, seed: 42 }), ..all[1].clone() };
    for all in [[all[1].clone(), other.clone()], [other, all[1].clone()]] {
        assert_eq!(verdicts(&beside(&figures, &all, &asked(&all))), [Verdict::AsRecorded]);
    }
}
