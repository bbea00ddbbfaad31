//! Values that cannot work are refused before anything is loaded, with the key named.

use super::{AdaptiveConfig, Config, FloatType};
use crate::config::norm::RemovalKind;
use crate::config::schedule::{ListedRemoval, ScheduleConfig};

/// The highest temperature of a teacher; the lowest is one over it.
const HOTTEST: f64 = 100.0;

type Check = Result<(), (String, String)>;

/// The most of anything that is counted: products of three of these still are numbers.
const MOST: usize = 1 << 20;
/// The most steps; a step takes longer than a nanosecond, and a century has no more of those.
const MOST_STEPS: usize = 1 << 41;

fn require(ok: bool, key: &str, message: impl Into<String>) -> Check {
    if ok { Ok(()) } else { Err((key.to_string(), message.into())) }
}

impl Config {
    /// Checks what types alone cannot say; the error is `(table.key, message)`.
    pub(super) fn validate(&self) -> Check {
        self.validate_model()?;
        self.validate_train()?;
        self.validate_schedule()?;
        self.validate_listed()?;
        self.validate_adaptive()?;
        let norm = &self.norm;
        require((0.0..=1.0).contains(&norm.momentum), "norm.momentum", "must lie between 0 and 1")?;
        require(
            norm.special_std || !norm.exclude_position_0,
            "norm.exclude_position_0",
            "needs norm.special_std = true: without it there is one average over all positions",
        )?;
        require(!norm.init.is_empty(), "norm.init", "must be \"measure\" or the path of a std file")?;
        require(
            !norm.per_channel || self.lora.rank.is_none(),
            "norm.per_channel",
            "changes LN weights, which stay as they are with lora.rank",
        )?;
        self.validate_counts()?;
        require(self.data.block_size >= 2, "data.block_size", "must be at least 2")?;
        let (passages, random) = (self.data.repeated_passages, self.data.repeated_random);
        for (key, share) in [("data.repeated_passages", passages), ("data.repeated_random", random)] {
            require((0.0..=1.0).contains(&share), key, "must lie between 0 and 1")?;
        }
        require(
            passages + random == 0.0 || self.data.block_size >= 8,
            "data.block_size",
            "must be at least 8 for sequences that repeat 4 tokens or more",
        )?;
        require(
            passages + random <= 1.0,
            "data.repeated_random",
            format!("and data.repeated_passages = {passages} make more than the whole data"),
        )?;
        self.validate_distill()?;
        self.validate_lora()?;
        require(!self.data.train.is_empty(), "data.train", "names no data")?;
        require(self.eval.batch_size > 0, "eval.batch_size", "must be at least 1")?;
        require(self.eval.max_sequences > 0, "eval.max_sequences", "must be at least 1")
    }

    fn validate_distill(&self) -> Check {
        let distill = &self.distill;
        let (weight, temperature, hidden) = (distill.weight, distill.temperature, distill.hidden_weight);
        require(hidden.is_finite() && hidden >= 0.0, "distill.hidden_weight", "must not be negative")?;
        require((0.0..=1.0).contains(&weight), "distill.weight", "must lie between 0 and 1")?;
        let range = HOTTEST.recip()..=HOTTEST;
        require(
            range.contains(&temperature),
            "distill.temperature",
            format!("must lie between {} and {}", range.start(), range.end()),
        )?;
        match &distill.teacher {
            Some(name) => {
                require(!name.is_empty(), "distill.teacher", "names no model")?;
                require(weight > 0.0, "distill.weight", "is 0: leave distill.teacher out instead")
            }
            None => {
                let unset = "has no meaning without distill.teacher";
                require(weight == 1.0, "distill.weight", unset)?;
                require(hidden == 0.0, "distill.hidden_weight", unset)?;
                require(temperature == 1.0, "distill.temperature", unset)
            }
        }
    }

    fn validate_lora(&self) -> Check {
        let Some(rank) = self.lora.rank else { return Ok(()) };
        let most = format!("must lie between 1 and {MOST}");
        require((1..=MOST).contains(&rank), "lora.rank", most)?;
        require(
            self.train.param_dtype == FloatType::Float32,
            "train.param_dtype",
            "must be \"float32\" with lora.rank: a matrix in bfloat16 would round its adapter away",
        )?;
        require(
            self.train.decay_ln.is_none(),
            "train.decay_ln",
            "has no meaning with lora.rank, with which no LN trains: leave it out",
        )
    }

    /// No number may overflow what is computed with it.
    fn validate_counts(&self) -> Check {
        let (model, train) = (&self.model, &self.train);
        let counts = [
            ("model.n_head", model.n_head),
            ("model.n_embd", model.n_embd),
            ("model.block_size", model.block_size),
            ("data.block_size", Some(self.data.block_size)),
            ("train.batch_size", Some(train.batch_size)),
            ("train.gradient_accumulation_steps", Some(train.gradient_accumulation_steps)),
            ("eval.batch_size", Some(self.eval.batch_size)),
        ];
        for (key, count) in counts {
            require(count.is_none_or(|n| n <= MOST), key, format!("must be at most {MOST}"))?;
        }
        let most = format!("must be at most {MOST_STEPS}");
        require(train.max_steps <= MOST_STEPS, "train.max_steps", most)
    }

    fn validate_model(&self) -> Check {
        let model = &self.model;
        require(!model.name.is_empty(), "model.name", "names no model")?;
        require((1..=1000).contains(&model.n_layer), "model.n_layer", "must lie between 1 and 1000")?;
        if let (Some(n_embd), Some(n_head)) = (model.n_embd, model.n_head) {
            require(
                n_head > 0 && n_embd > 0 && n_embd % n_head == 0,
                "model.n_embd",
                format!("{n_embd} is not a multiple of model.n_head = {n_head}"),
            )?;
        }
        for (key, scale) in [
            ("model.initializer_range", model.initializer_range),
            ("model.embedding_range", model.embedding_range),
            ("model.sinusoidal_positions", model.sinusoidal_positions),
        ] {
            require(scale.is_none_or(|x| x > 0.0 && x <= 10.0), key, "must lie above 0 and at most at 10")?;
        }
        require(model.eot_token_id.is_none_or(|id| id >= 0), "model.eot_token_id", "must not be negative")?;
        if let Some(positions) = model.block_size {
            require(
                positions >= self.data.block_size,
                "model.block_size",
                format!("{positions} positions are too few for data.block_size = {}", self.data.block_size),
            )?;
        }
        Ok(())
    }

    fn validate_train(&self) -> Check {
        let train = &self.train;
        require(train.batch_size > 0, "train.batch_size", "must be at least 1")?;
        require(
            train.micro_batch_size.is_none_or(|n| n > 0 && train.batch_size.is_multiple_of(n)),
            "train.micro_batch_size",
            format!("must divide train.batch_size = {}", train.batch_size),
        )?;
        require(
            train.gradient_accumulation_steps > 0,
            "train.gradient_accumulation_steps",
            "must be at least 1",
        )?;
        require(train.max_steps > 0, "train.max_steps", "must be at least 1")?;
        require(
            train.param_dtype != FloatType::Tf32,
            "train.param_dtype",
            "must be \"float32\" or \"bfloat16\": tf32 is a way to compute, not to store",
        )?;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        require(positive(train.learning_rate), "train.learning_rate", "must be a positive number")?;
        require(
            not_negative(train.min_lr) && train.min_lr <= train.learning_rate,
            "train.min_lr",
            format!("must lie between 0 and train.learning_rate = {}", train.learning_rate),
        )?;
        require(
            train.warmup_steps <= train.max_steps,
            "train.warmup_steps",
            format!("{} is more than train.max_steps = {}", train.warmup_steps, train.max_steps),
        )?;
        require(not_negative(train.weight_decay), "train.weight_decay", "must not be negative")?;
        require(positive(train.max_grad_norm), "train.max_grad_norm", "must be a positive number")?;
        require((0.0..1.0).contains(&train.beta1), "train.beta1", "must lie in [0, 1)")?;
        require((0.0..1.0).contains(&train.beta2), "train.beta2", "must lie in [0, 1)")?;
        require(positive(train.adam_eps), "train.adam_eps", "must be a positive number")?;
        require(not_negative(train.aux_loss_weight), "train.aux_loss_weight", "must not be negative")?;
        require(train.save_every > 0, "train.save_every", "must be at least 1")?;
        if let Some(step) = train.keep_steps.iter().find(|step| !(1..=train.max_steps).contains(step)) {
            let message =
                format!("{step} is no step of this run: from 1 to train.max_steps = {}", train.max_steps);
            return Err(("train.keep_steps".into(), message));
        }
        let dropout = train.dropout.unwrap_or(0.0);
        require((0.0..1.0).contains(&dropout), "train.dropout", "must lie in [0, 1)")
    }

    fn validate_adaptive(&self) -> Check {
        let adaptive = &self.adaptive;
        let Some(tolerance) = adaptive.tolerance else {
            let unset = "has no meaning without adaptive.tolerance";
            let default = AdaptiveConfig::default();
            require(adaptive.window == default.window, "adaptive.window", unset)?;
            require(adaptive.explodes_at == default.explodes_at, "adaptive.explodes_at", unset)?;
            return require(adaptive.retries == default.retries, "adaptive.retries", unset);
        };
        require(
            self.distill.teacher.is_some(),
            "adaptive.tolerance",
            "needs distill.teacher, the model that it is measured from",
        )?;
        require(tolerance > 0.0 && tolerance.is_finite(), "adaptive.tolerance", "must be a positive number")?;
        require(
            adaptive.explodes_at > tolerance,
            "adaptive.explodes_at",
            format!("must be more than adaptive.tolerance = {tolerance}"),
        )?;
        require(
            (1..=MOST).contains(&adaptive.window),
            "adaptive.window",
            format!("must lie between 1 and {MOST}"),
        )?;
        require(adaptive.retries <= 16, "adaptive.retries", "must be at most 16: each takes twice as long")
    }

    /// Removals that are listed one by one.
    fn validate_listed(&self) -> Check {
        let (listed, key) = (&self.schedule.removals, "schedule.removals");
        if listed.is_empty() {
            return Ok(());
        }
        let others = ScheduleConfig { removals: Vec::new(), ..self.schedule.clone() };
        require(
            others == ScheduleConfig::default(),
            key,
            "says when which LN goes: leave start, gap, order and taper_steps out",
        )?;
        for (i, removal) in listed.iter().enumerate() {
            let of_block = removal.kind != RemovalKind::LnF;
            require(
                removal.layer.is_some() == of_block && removal.layer.is_none_or(|l| l < self.model.n_layer),
                key,
                format!("{}: layer must be a block, and for lnf be left out", removal.kind),
            )?;
            let (step, taper, max_steps) = (removal.step, removal.taper_steps, self.train.max_steps);
            require(
                (taper..max_steps).contains(&step),
                key,
                format!(
                    "step {step}: must lie between its taper_steps = {taper} and train.max_steps = {max_steps}"
                ),
            )?;
            let same = |other: &ListedRemoval| (other.kind, other.layer) == (removal.kind, removal.layer);
            require(
                !listed[..i].iter().any(same),
                key,
                format!("{} at step {step} has gone before: once is enough", removal.kind),
            )?;
        }
        Ok(())
    }

    /// Everything that is scheduled must have happened before the last step.
    fn validate_schedule(&self) -> Check {
        let (taper, n_layer) = (self.schedule.taper_steps, self.model.n_layer);
        require(taper <= self.train.max_steps, "schedule.taper_steps", "must be at most train.max_steps")?;
        if let Some(order) = &self.schedule.order {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            require(
                sorted.iter().copied().eq(0..n_layer),
                "schedule.order",
                format!("must name each block from 0 to {} once", n_layer.saturating_sub(1)),
            )?;
        }
        for kind in RemovalKind::ALL {
            let (Some(start), gap) = self.schedule.of(kind) else { continue };
            let layers = if kind == RemovalKind::LnF { 1 } else { self.model.n_layer };
            let tapers = !matches!(kind, RemovalKind::Eot | RemovalKind::Bos);
            require(
                !tapers || start >= taper,
                &format!("schedule.start_{kind}"),
                format!("must be at least schedule.taper_steps = {taper}: the gate closes before"),
            )?;
            let last = gap.checked_mul(layers - 1).and_then(|span| start.checked_add(span));
            let max_steps = self.train.max_steps;
            require(
                last.is_some_and(|last| last < max_steps),
                &format!("schedule.start_{kind}"),
                format!(
                    "the last of {layers} removals would come at step {}, but train.max_steps is {max_steps}",
                    last.map_or("(too large)".into(), |l| l.to_string())
                ),
            )?;
        }
        Ok(())
    }
}
