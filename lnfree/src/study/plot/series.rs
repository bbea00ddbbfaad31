//! Numbers made ready for drawing: thinning, smoothing, axis ranges.

/// Rounds to six significant digits, which is more than a screen shows; what is not finite becomes a gap.
pub fn shown(value: f64) -> Option<f64> {
    if value == 0.0 {
        return Some(0.0);
    }
    let digits = 5 - value.abs().log10().floor() as i32;
    let rounded = format!("{value:.*}", digits.clamp(0, 17) as usize).parse().unwrap_or(value);
    value.is_finite().then_some(rounded)
}

/// At most about `max` of `points`: of every run of neighbours the lowest and the highest, so that no spike
/// is lost, and always the first and the last. Points that are not finite stay, as gaps.
pub fn thin(points: &[(usize, f64)], max: usize) -> Vec<(usize, f64)> {
    if points.len() <= max.max(4) {
        return points.to_vec();
    }
    let bucket = (2 * points.len()).div_ceil(max.max(4));
    let mut keep = vec![0, points.len() - 1];
    for start in (0..points.len()).step_by(bucket) {
        let end = (start + bucket).min(points.len());
        let by_value = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
        keep.extend((start..end).min_by(by_value));
        keep.extend((start..end).max_by(by_value));
    }
    keep.sort_unstable();
    keep.dedup();
    keep.into_iter().map(|i| points[i]).collect()
}

/// The mean of each value and the finite ones among the `window − 1` before it. It looks back only: a jump
/// shows at the step where it happens and not before.
pub fn trailing_mean(points: &[(usize, f64)], window: usize) -> Vec<(usize, f64)> {
    let mean = |i: usize| {
        let recent = points[(i + 1).saturating_sub(window)..=i].iter().map(|p| p.1).filter(|v| v.is_finite());
        let (sum, n) = recent.fold((0.0, 0u32), |(sum, n), v| (sum + v, n + 1));
        sum / f64::from(n)
    };
    points.iter().enumerate().map(|(i, p)| (p.0, if p.1.is_finite() { mean(i) } else { f64::NAN })).collect()
}

/// A range that shows where the values mostly are: all of them, unless a few high ones would flatten the
/// rest.
///
/// Returns the range and how many values lie above it; `None` if no value is finite. Losses start high and
/// spike, so only the top is cut: at the 97th percentile plus half the span below it, where the maximum lies
/// beyond that.
pub fn focus_range(values: impl Iterator<Item = f64>) -> Option<([f64; 2], usize)> {
    let mut values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let (&low, &high) = (values.first()?, values.last()?);
    let p97 = values[(values.len() - 1) * 97 / 100];
    let limit = p97 + 0.5 * (p97 - low);
    let top = if values.len() >= 20 && high > limit { limit } else { high };
    let pad = match 0.05 * (top - low) {
        pad if pad > 0.0 => pad,
        _ => (0.01 * top.abs()).max(1e-3),
    };
    let above = values.iter().filter(|v| **v > top + pad).count();
    Some(([low - pad, top + pad], above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_are_shown_and_gaps_stay_gaps() {
        assert_eq!(shown(3.123456789), Some(3.12346));
        assert_eq!(shown(0.000612345678), Some(0.000612346));
        assert_eq!(shown(123456789.0), Some(123456789.0));
        assert_eq!(shown(-2.5e-20), Some(-0.0));
        assert_eq!((shown(0.0), shown(f64::NAN), shown(f64::INFINITY)), (Some(0.0), None, None));
    }

    #[test]
    fn thinning_keeps_ends_and_spikes() {
        let mut points: Vec<_> = (0..100_000).map(|i| (i, (i as f64 * 0.1).sin())).collect();
        points[54_321].1 = 40.0;
        points[77_777].1 = -40.0;
        let thinned = thin(&points, 1000);
        assert!(thinned.len() <= 1002, "{}", thinned.len());
        assert!(thinned.contains(&(54_321, 40.0)) && thinned.contains(&(77_777, -40.0)));
        assert_eq!((thinned[0].0, thinned[thinned.len() - 1].0), (0, 99_999));
        assert!(thinned.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(thin(&points[..1000], 1000), points[..1000]);
        assert_eq!(thin(&[], 10), []);
    }

    #[test]
    fn the_mean_looks_back_only_and_steps_over_gaps() {
        let points = [(0, 1.0), (1, 3.0), (2, f64::NAN), (3, 8.0)];
        let means = trailing_mean(&points, 3);
        assert_eq!((means[0], means[1], means[3]), ((0, 1.0), (1, 2.0), (3, 5.5)));
        assert!(means[2].1.is_nan());
    }

    #[test]
    fn the_range_ignores_a_few_high_values_but_not_many() {
        let ([low, high], above) =
            focus_range((0..300).map(|i| if i < 5 { 9.0 } else { 3.0 + 0.001 * i as f64 })).unwrap();
        assert!(low < 3.005 && low > 2.9 && high < 4.0 && high > 3.299, "{low} {high}");
        assert_eq!(above, 5);
        let (range, above) = focus_range((0..300).map(|i| 3.0 + 0.01 * i as f64)).unwrap();
        assert!(range[1] > 5.99 && above == 0);
        assert_eq!(focus_range([f64::NAN].into_iter()), None);
        let ([low, high], _) = focus_range([3.0].into_iter()).unwrap();
        assert!(low < 3.0 && high > 3.0);
    }
}
