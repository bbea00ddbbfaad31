//! Means over few seeds, with what they can be trusted to.

/// Two-sided 95% quantiles of Student's t for 1 to 9 degrees of freedom (any table of it); with more the last
/// is a little too wide.
const T: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/// A mean over seeds and half the width of its 95% interval; none of one seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub half_width: Option<f64>,
}

impl Spread {
    /// Of one value a seed; `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let half_width = (n > 1).then(|| {
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            T[(n - 2).min(T.len() - 1)] * (variance / n as f64).sqrt()
        });
        Some(Spread { mean, half_width })
    }

    /// With `digits` after the point, `sign` before positive ones.
    pub fn text(&self, digits: usize, sign: bool) -> String {
        let mean = match sign {
            true => format!("{:+.digits$}", self.mean),
            false => format!("{:.digits$}", self.mean),
        };
        self.half_width.map_or(mean.clone(), |half| format!("{mean} ± {half:.digits$}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_seeds_by_hand() {
        let spread = Spread::of(&[1.0, 2.0, 3.0]).unwrap();
        // The standard error is 1/√3, t of two degrees 4.303.
        assert!((spread.half_width.unwrap() - 4.303 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(spread.text(2, true), "+2.00 ± 2.48");
        assert_eq!(Spread::of(&[0.5]).unwrap().text(1, false), "0.5");
        assert_eq!(Spread::of(&[]), None);
    }
}
