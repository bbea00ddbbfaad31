//! A number that was published, or that we recorded, and when another one is the same.

use super::Request;

/// How far a number may lie from the published one, as a part of it, where neither has an interval.
pub(super) const OF_PUBLISHED: f64 = 0.02;
/// How far a number may lie from the recorded one, as a part of it: sums are split by threads, and processors
/// round otherwise.
pub(super) const OF_RECORDED: f64 = 1e-3;
/// What is always allowed of a recorded number, a hundred times that of a percentage: of an error that is
/// rounding alone nothing else is to be expected. A whole number below a thousand has to be the same.
pub(super) const LEAST: f64 = 1e-4;

/// A number to hold what was measured against.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// The model's label.
    pub label: String,
    /// What was asked; of another request it says nothing.
    pub request: Request,
    /// What it is called among the findings.
    pub number: String,
    /// As of [`super::Number`].
    pub unit: String,
    /// The number.
    pub value: f64,
    /// Its interval, where there is one.
    pub interval: Option<[f64; 2]>,
    /// Where it is from.
    pub origin: Origin,
}

/// Where a figure is from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Origin {
    /// The paper.
    Published {
        /// Half of a unit in its last printed place.
        rounding: f64,
    },
    /// Our own record.
    Recorded,
}

impl Figure {
    /// Whether `measured`, with its 95% interval where it has one, is this number. A published one has been
    /// measured by others: intervals have to overlap. A recorded one is the same computation once more, of
    /// which values are compared.
    pub fn agrees(&self, measured: f64, interval: Option<[f64; 2]>) -> bool {
        let (apart, size) = ((measured - self.value).abs(), self.value.abs());
        let Origin::Published { rounding } = self.origin else {
            let least = if self.unit == "%" { 100.0 * LEAST } else { LEAST };
            return apart <= least.max(OF_RECORDED * size);
        };
        let theirs = self.interval.unwrap_or([self.value - rounding, self.value + rounding]);
        let ours = interval.unwrap_or([measured; 2]);
        let overlap = ours[0] <= theirs[1] && theirs[0] <= ours[1];
        let bare = interval.is_none() && self.interval.is_none();
        overlap || (bare && apart <= OF_PUBLISHED * size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(value: f64, unit: &str) -> Figure {
        Figure {
            label: "original".into(),
            request: Request::Circuits { heads: 4 },
            number: "x".into(),
            unit: unit.into(),
            value,
            interval: Some([value - 1.0, value + 1.0]),
            origin: Origin::Recorded,
        }
    }

    #[test]
    fn a_record_allows_a_thousandth_and_intervals_nothing() {
        let agrees = |value, unit, measured| recorded(value, unit).agrees(measured, Some([0.0, 1e3]));
        assert!(agrees(3.5, "nats", 3.5034) && agrees(-3.5, "nats", -3.5034));
        assert!(!agrees(3.5, "nats", 3.5036) && !agrees(-3.5, "nats", 3.5));
        assert!(agrees(119.8, "", 119.9) && !agrees(119.8, "", 119.6));
    }

    #[test]
    fn small_numbers_may_differ_by_rounding_and_counts_not_at_all() {
        let agrees = |value, unit, measured| recorded(value, unit).agrees(measured, None);
        assert!(agrees(3e-7, "", 9e-5) && !agrees(3e-7, "", 2e-4));
        assert!(agrees(0.0005, "%", 0.009) && !agrees(0.0005, "%", 0.02));
        assert!(agrees(18.0, "", 18.0) && !agrees(18.0, "", 17.0) && !agrees(0.0, "", 1.0));
    }

    #[test]
    fn nothing_agrees_that_is_no_number() {
        for measured in [f64::NAN, f64::INFINITY] {
            assert!(!recorded(3.5, "nats").agrees(measured, None));
        }
    }
}
