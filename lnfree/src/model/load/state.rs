//! The state of LNs from and to the tensors of a checkpoint.

use tch::{Device, Kind};

use crate::config::norm::{LnMode, NormSettings, SpecialAxis, ln_names};
use crate::model::ln_state::LnState;
use crate::model::weights::Weights;

/// Reads the LN state under the names that the paper's checkpoints use, and takes it out of `weights`.
pub(super) fn read_state(
    weights: &mut Weights,
    n_layer: usize,
    settings: Option<NormSettings>,
    device: Device,
) -> Result<LnState, String> {
    let names = ln_names(n_layer);
    let mut numbers = Vec::new();
    let mut flags = Vec::new();
    let mut momentum = 0.9;
    for name in &names {
        let take = |field: &str, index: i64| -> Result<f64, String> {
            let key = format!("{name}.{field}");
            let tensor = weights.get(&key).ok_or_else(|| format!("the LN state has no {key}"))?;
            // A view of a torch file may lie in memory in any order.
            let flat = tensor.to_kind(Kind::Double).reshape(-1);
            if flat.size()[0] == 0 {
                return Err(format!("{key} is empty"));
            }
            Ok(flat.double_value(&[index.min(flat.size()[0] - 1)]))
        };
        let is = |x: f64| if x != 0.0 { LnMode::Fake } else { LnMode::Real };
        flags.push((
            is(take("is_fake", 0)?),
            is(take("attn_v_is_fake", 0)?),
            take("bos_special_treatment", 0)? != 0.0,
        ));
        momentum = take("momentum", 0)?;
        let running = (take("real_average_std", 0)?, take("real_bos_std", 0)?);
        let frozen = [
            take("average_std_buffer", 1)?,
            take("average_std_buffer", 0)?,
            take("bos_std_buffer", 1)?,
            take("bos_std_buffer", 0)?,
        ];
        if !frozen.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(format!("{name} has a standard deviation that is not a positive number"));
        }
        numbers.push((running, frozen));
    }
    weights.retain(|key, _| !is_state(key));
    let special_std = flags.last().is_some_and(|f| f.2);
    let settings = settings.unwrap_or(NormSettings {
        momentum,
        special_std,
        special_axis: SpecialAxis::Position,
        ..NormSettings::default()
    });
    let initial: Vec<(f64, f64)> = numbers.iter().map(|n| n.0).collect();
    let mut ln = LnState::real(&initial, settings, device);
    for (block, row) in ln.blocks.iter_mut().zip(flags.chunks(2)) {
        (block.ln1_qk, block.ln1_v, block.ln1_special) = row[0];
        block.ln2 = row[1].0;
    }
    ln.lnf = flags[2 * n_layer].0;
    let frozen: Vec<f32> = numbers.iter().flat_map(|n| n.1.map(|x| x as f32)).collect();
    ln.statistics.frozen = tch::Tensor::from_slice(&frozen).view([-1, 4]).to_device(device);
    Ok(ln)
}

/// Whether a tensor of this name is a part of the state of an LN.
pub(super) fn is_state(name: &str) -> bool {
    STATE_FIELDS.iter().any(|field| name.ends_with(field))
}

/// What a checkpoint stores per LN beside weight and bias.
const STATE_FIELDS: [&str; 9] = [
    ".is_fake",
    ".attn_v_is_fake",
    ".bos_special_treatment",
    ".grad_acc_steps",
    ".momentum",
    ".real_average_std",
    ".real_bos_std",
    ".average_std_buffer",
    ".bos_std_buffer",
];

/// The LN state as tensors under the names that the paper's checkpoints use, so that one reader serves both.
pub fn state_tensors(ln: &LnState, block_size: i64, n_embd: i64) -> Weights {
    let _guard = tch::no_grad_guard();
    let running = ln.statistics.running.to_device(Device::Cpu);
    let frozen = ln.statistics.frozen.to_device(Device::Cpu);
    let len = match ln.settings.special_axis {
        SpecialAxis::Position => block_size,
        SpecialAxis::Feature => n_embd,
    };
    let flag = |on: bool| tch::Tensor::from(on);
    let buffer = |row: &tch::Tensor, base: i64| {
        let rest = row.get(base).expand([len - 1], false);
        tch::Tensor::cat(&[row.get(base + 1).view(1), rest], 0)
    };
    let mut out = Weights::new();
    for (row, name) in ln_names(ln.n_layer()).into_iter().enumerate() {
        let block = ln.blocks.get(row / 2);
        let (is_fake, v_fake, special) = match (block, row % 2) {
            (Some(b), 0) => (b.ln1_qk.is_fake(), b.ln1_v.is_fake(), b.ln1_special),
            (Some(b), _) => (b.ln2.is_fake(), false, ln.settings.special_std),
            (None, _) => (ln.lnf.is_fake(), false, ln.settings.special_std),
        };
        let (run, froze) = (running.get(row as i64), frozen.get(row as i64));
        let mut put = |field: &str, tensor: tch::Tensor| out.insert(format!("{name}{field}"), tensor);
        put(".is_fake", flag(is_fake));
        put(".attn_v_is_fake", flag(v_fake));
        put(".bos_special_treatment", flag(special));
        put(".grad_acc_steps", tch::Tensor::from(1i64));
        put(".momentum", tch::Tensor::from(ln.settings.momentum as f32));
        put(".real_average_std", run.get(0).copy());
        put(".real_bos_std", run.get(1).copy());
        put(".average_std_buffer", buffer(&froze, 0));
        put(".bos_std_buffer", buffer(&froze, 2));
    }
    out
}
