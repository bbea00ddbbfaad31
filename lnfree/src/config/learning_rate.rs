//! The learning rate of every step.

/// Linear warm-up, then a cosine from `learning_rate` to `min_lr`: Hugging Face's `cosine_with_min_lr`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LrSchedule {
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Where the cosine ends, at `max_steps`.
    pub min_lr: f64,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: usize,
    /// Optimizer steps in all.
    pub max_steps: usize,
}

impl LrSchedule {
    /// The learning rate used by optimizer step `step` (0-based). Step 0 has 0 when there is a warm-up.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step as f64 / self.warmup_steps.max(1) as f64);
        }
        let span = self.max_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = (step - self.warmup_steps) as f64 / span as f64;
        let cosine = (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0);
        let floor = self.min_lr / self.learning_rate;
        self.learning_rate * (cosine * (1.0 - floor) + floor).max(0.0)
    }
}
