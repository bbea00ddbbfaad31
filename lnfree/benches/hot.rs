//! The hot pieces of a training step, each alone: `cargo bench`. Medians on whatever threads there are.

use std::hint::black_box;
use std::time::{Duration, Instant};

use lnfree::data::{Batches, Layout, TokenFile, Tokenizer, write_tokens};
use lnfree::hook::NoHook;
use lnfree::hub::embedded_model;
use lnfree::loss::{cross_entropy, linear_cross_entropy};
use lnfree::model::{Compute, Gpt2, Gpt2Config, StepModel, causal_attention};
use lnfree::norm::{LnState, RemovalKind};
use lnfree::optim::{AdamW, AdamWConfig};
use lnfree::tch::{self, Device, Kind, Tensor};

/// How long each piece is run at least.
const AT_LEAST: Duration = Duration::from_millis(500);

/// Runs `work` over and over and prints the median time, and what of `n` units a second that makes.
fn time(name: &str, n: usize, unit: &str, mut work: impl FnMut()) {
    work();
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < AT_LEAST || times.len() < 5 {
        let started = Instant::now();
        work();
        times.push(started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!("{name:<28} {:>10.3} ms  {:>12.0} {unit}/s", 1e3 * median, n as f64 / median);
}

fn main() {
    // `cargo test --benches` only wants to see it start.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let config = Gpt2Config::new(1, 12, 768, 256, 8192).unwrap();
    let model = Gpt2::init(config, 0, Device::Cpu).unwrap();
    let ids = Tensor::randint(8192, [4, 256], (Kind::Int64, Device::Cpu));
    norms(&model, &ids);
    folding(&model);
    attention();
    losses();
    optimizer(&model);
    data();
}

fn norms(model: &Gpt2, ids: &Tensor) {
    let _guard = tch::no_grad_guard();
    let (real, mut fake) = (LnState::plain(1, Device::Cpu), LnState::plain(1, Device::Cpu));
    for kind in RemovalKind::ALL {
        fake.remove(kind, None);
    }
    let x = Tensor::randn([4, 256, 768], (Kind::Float, Device::Cpu));
    for (name, ln, observe) in [
        ("norm, real", &real, false),
        ("norm, real, followed", &real, true),
        ("norm, fake", &fake, false),
        ("norm, fake, followed", &fake, true),
    ] {
        time(name, 1024, "tokens", || {
            let mut pass = model.pass(ids, ln, Compute { observe, ..Compute::default() }).unwrap();
            let _ = black_box(model.final_norm(&x, &mut pass, &mut NoHook));
        });
    }
}

/// Preparing a step, with fake LNs put into c_attn and c_fc, and taking them out of the gradients.
fn folding(model: &Gpt2) {
    model.set_requires_grad(true);
    let mut fake = LnState::plain(1, Device::Cpu);
    for kind in RemovalKind::ALL {
        fake.remove(kind, None);
    }
    for (name, dtype) in [("folding, float32", Kind::Float), ("folding, bfloat16", Kind::BFloat16)] {
        time(name, 768 * (2304 + 3072), "weights", || {
            let compute = Compute { dtype, ..Compute::default() };
            StepModel::run(model, &fake, compute, usize::MAX, |_| Ok(())).unwrap();
        });
    }
}

fn attention() {
    let above = |kind| Tensor::randn([1, 12, 1024, 64], (Kind::Float, Device::Cpu)).to_kind(kind);
    let libtorch = |q: &Tensor, k: &Tensor, v: &Tensor| {
        Tensor::scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, true, None, false)
    };
    for (name, kind) in [("float32", Kind::Float), ("bfloat16", Kind::BFloat16)] {
        let qkv: Vec<Tensor> = (0..3).map(|_| above(kind).set_requires_grad(true)).collect();
        let grad = above(kind);
        let both = |of: &str, attention: &dyn Fn(&Tensor, &Tensor, &Tensor) -> Tensor| {
            time(&format!("attention, {name}{of}"), 1024, "tokens", || {
                let _guard = tch::no_grad_guard();
                let _ = black_box(attention(&qkv[0], &qkv[1], &qkv[2]));
            });
            time(&format!("attention and gradients, {name}{of}"), 1024, "tokens", || {
                (attention(&qkv[0], &qkv[1], &qkv[2]) * &grad).sum(kind).backward();
            });
        };
        both("", &causal_attention);
        both(", libtorch's", &libtorch);
    }
}

/// Forward and backward, of what is unembedded and of the unembedding.
fn losses() {
    let last = Tensor::randn([512, 768], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let head = (Tensor::randn([8192, 768], (Kind::Float, Device::Cpu)) * 0.02).set_requires_grad(true);
    let targets = Tensor::randint(8192, [512], (Kind::Int64, Device::Cpu));
    time("loss, through logits", 512, "tokens", || {
        let logits = last.linear::<Tensor>(&head, None).unsqueeze(0);
        cross_entropy(&logits, &targets.unsqueeze(0)).backward();
    });
    let mut head_grad = head.detach().zeros_like();
    time("loss, without logits", 512, "tokens", || {
        let _ = black_box(
            linear_cross_entropy(&last.detach(), &head.detach(), &targets, 1.0, &mut head_grad).unwrap(),
        );
    });
}

fn optimizer(model: &Gpt2) {
    model.set_requires_grad(true);
    let constants = AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let mut adamw = AdamW::new(model.named_parameters(), |_| true, constants);
    for (_, parameter) in model.named_parameters() {
        (parameter * 1e-3).sum(Kind::Float).backward();
    }
    let one = Tensor::from(1.0f32);
    time("AdamW", model.n_parameters(), "parameters", || adamw.step(1e-5, &one).unwrap());
    time("gradient norm", model.n_parameters(), "parameters", || {
        let _ = black_box(adamw.grad_norm());
    });
}

fn data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.arrow");
    write_tokens(&path, (0..512u32).map(|row| Ok(vec![row % 500; 1024])), Layout::Fixed(1024), 512).unwrap();
    let mut batches = Batches::new(TokenFile::open(&path).unwrap(), 0, true).unwrap();
    time("loader", 16 * 1024, "tokens", || {
        let _ = black_box(batches.next_batch(16).unwrap());
    });
    let tokenizer = Tokenizer::from_dir(embedded_model("nano").unwrap()).unwrap();
    let text =
        "It is the duty of the Government to see that the people of the United States are safe. ".repeat(200);
    let n = tokenizer.encode(&text).unwrap().len();
    time("tokenizer", n, "tokens", || {
        let _ = black_box(tokenizer.encode(&text).unwrap());
    });
}
