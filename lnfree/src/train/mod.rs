//! Training: the loop, and what it writes besides checkpoints.

pub mod tensorboard;
