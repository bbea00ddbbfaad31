//! What a benchmark runs.

use std::str::FromStr;

use serde::Serialize;

use crate::config::FloatType;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Optimizer steps: forwards and backwards of the micro-batches, clipping, AdamW.
    Train,
    /// Losses of batches, without gradients.
    Eval,
    /// Texts written together, token by token, with keys and values kept: prompts of random tokens, continued
    /// greedily.
    Generate,
}

/// What is done about LN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BenchLn {
    /// Ordinary LN; in training, the vanilla control.
    Real,
    /// As in a run that is removing ln_1 from the values: every ln_2 fake and every ln_1 of queries and keys,
    /// that of values in the first half of the blocks; statistics followed.
    Half,
    /// Every LN replaced; in training, as in a run after its last removal, statistics still followed.
    Fake,
    /// No LN left: the folded export. Not for training.
    Folded,
}

impl FromStr for Task {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "train" => Ok(Task::Train),
            "eval" => Ok(Task::Eval),
            "generate" => Ok(Task::Generate),
            _ => Err("one of train, eval, generate".into()),
        }
    }
}

impl FromStr for BenchLn {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "real" => Ok(BenchLn::Real),
            "half" => Ok(BenchLn::Half),
            "fake" => Ok(BenchLn::Fake),
            "folded" => Ok(BenchLn::Folded),
            _ => Err("one of real, half, fake, folded".into()),
        }
    }
}

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BenchOptions {
    /// Training, evaluation or generation.
    pub task: Task,
    /// What is done about LN.
    pub ln: BenchLn,
    /// Sequences in a batch; in training, in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches in an optimizer step; other tasks have none.
    pub accumulation: usize,
    /// Tokens in a sequence; of a generation, the prompt's and the new ones.
    pub seq: usize,
    /// Of a generation, how many of them are the prompt's: at least 1, and fewer than all.
    pub prompt: usize,
    /// Steps, batches of an evaluation or rounds of writing that are timed.
    pub steps: usize,
    /// Those before, which are not.
    pub warmup: usize,
    /// What matrix products are computed in.
    pub dtype: FloatType,
    /// In training, compute blocks again instead of keeping what is inside of them.
    pub checkpointing: bool,
    /// In training, the weight of the auxiliary loss; 0 leaves it out.
    pub aux_weight: f64,
}

impl BenchOptions {
    /// Micro-batches in a step of this task.
    pub(super) fn micro_batches(&self) -> usize {
        if self.task == Task::Train { self.accumulation } else { 1 }
    }

    /// Tokens that a step takes in, or of a generation those that it writes.
    pub(super) fn tokens(&self) -> usize {
        let of_a_sequence = match self.task {
            Task::Generate => self.seq - self.prompt,
            Task::Train | Task::Eval => self.seq,
        };
        self.batch_size * self.micro_batches() * of_a_sequence
    }
}
