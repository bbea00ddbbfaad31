//! The activations of a forward and TransformerLens' names for them.

use std::fmt;
use std::str::FromStr;

use crate::config::norm::LnSite;
use crate::{Error, Result};

/// An activation of a forward: what it is, where, and its shape, as TransformerLens has them. Layers are
/// 0-based.
///
/// [`Display`](fmt::Display) and [`FromStr`] are TransformerLens' names: `blocks.3.attn.hook_z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activation {
    /// Token embedding, `[batch, pos, n_embd]`.
    Embed,
    /// Position embedding, `[batch, pos, n_embd]`.
    PosEmbed,
    /// Residual stream before block, `[batch, pos, n_embd]`.
    ResidPre(usize),
    /// What an LN divides the centred residual stream by: σ of each token, or the constant σ̄ of a fake LN,
    /// `[batch, pos, 1]` (`[batch, pos, n_embd]` where `special_axis = "feature"` makes it differ between
    /// features). Values have one of their own only while they read another normalisation than queries and
    /// keys.
    Scale(LnSite),
    /// What an LN hands on, γ and β applied, `[batch, pos, n_embd]`. That of ln_f is what is unembedded,
    /// which every model has, with ln_f or without.
    Normalized(LnSite),
    /// Queries, `[batch, pos, head, d_head]`.
    Q(usize),
    /// Keys, `[batch, pos, head, d_head]`.
    K(usize),
    /// Values, `[batch, pos, head, d_head]`.
    V(usize),
    /// Scaled and causally masked attention scores, `[batch, head, query_pos, key_pos]`.
    AttnScores(usize),
    /// Attention probabilities, `[batch, head, query_pos, key_pos]`.
    Pattern(usize),
    /// Attention-weighted values before the output projection, `[batch, pos, head, d_head]`.
    Z(usize),
    /// What attention adds to the residual stream, `[batch, pos, n_embd]`.
    AttnOut(usize),
    /// Residual stream between attention and MLP, `[batch, pos, n_embd]`.
    ResidMid(usize),
    /// MLP before its non-linearity, `[batch, pos, n_inner]`.
    MlpPre(usize),
    /// MLP after its non-linearity, `[batch, pos, n_inner]`.
    MlpPost(usize),
    /// What the MLP adds to the residual stream, `[batch, pos, n_embd]`.
    MlpOut(usize),
    /// Residual stream after block, `[batch, pos, n_embd]`; after the last block this is the input of ln_f.
    ResidPost(usize),
}

/// The activation of that kind in a block.
type InBlock = fn(usize) -> Activation;

/// Activations of a block, with the part of their names after `blocks.N.`.
const OF_A_BLOCK: [(&str, InBlock); 19] = [
    ("hook_resid_pre", Activation::ResidPre),
    ("ln1.hook_scale", |l| Activation::Scale(LnSite::Ln1Qk(l))),
    ("ln1.hook_normalized", |l| Activation::Normalized(LnSite::Ln1Qk(l))),
    ("ln1_v.hook_scale", |l| Activation::Scale(LnSite::Ln1V(l))),
    ("ln1_v.hook_normalized", |l| Activation::Normalized(LnSite::Ln1V(l))),
    ("attn.hook_q", Activation::Q),
    ("attn.hook_k", Activation::K),
    ("attn.hook_v", Activation::V),
    ("attn.hook_attn_scores", Activation::AttnScores),
    ("attn.hook_pattern", Activation::Pattern),
    ("attn.hook_z", Activation::Z),
    ("hook_attn_out", Activation::AttnOut),
    ("hook_resid_mid", Activation::ResidMid),
    ("ln2.hook_scale", |l| Activation::Scale(LnSite::Ln2(l))),
    ("ln2.hook_normalized", |l| Activation::Normalized(LnSite::Ln2(l))),
    ("mlp.hook_pre", Activation::MlpPre),
    ("mlp.hook_post", Activation::MlpPost),
    ("hook_mlp_out", Activation::MlpOut),
    ("hook_resid_post", Activation::ResidPost),
];

/// Those of no block.
const OTHERS: [(&str, Activation); 4] = [
    ("hook_embed", Activation::Embed),
    ("hook_pos_embed", Activation::PosEmbed),
    ("ln_final.hook_scale", Activation::Scale(LnSite::LnF)),
    ("ln_final.hook_normalized", Activation::Normalized(LnSite::LnF)),
];

impl Activation {
    /// The block it is in; `None` for those of the embedding and of ln_f.
    pub fn layer(self) -> Option<usize> {
        use Activation::*;
        match self {
            Embed | PosEmbed | Scale(LnSite::LnF) | Normalized(LnSite::LnF) => None,
            ResidPre(l) | Q(l) | K(l) | V(l) | AttnScores(l) | Pattern(l) | Z(l) | AttnOut(l)
            | ResidMid(l) | MlpPre(l) | MlpPost(l) | MlpOut(l) | ResidPost(l) => Some(l),
            Scale(site) | Normalized(site) => match site {
                LnSite::Ln1Qk(l) | LnSite::Ln1V(l) | LnSite::Ln2(l) => Some(l),
                LnSite::LnF => None,
            },
        }
    }

    /// All of a model of `n_layer` blocks, in the order of a forward.
    pub fn all(n_layer: usize) -> impl Iterator<Item = Activation> {
        let blocks = (0..n_layer).flat_map(|layer| OF_A_BLOCK.into_iter().map(move |(_, of)| of(layer)));
        let [embed, pos_embed, scale, normalized] = OTHERS.map(|(_, activation)| activation);
        [embed, pos_embed].into_iter().chain(blocks).chain([scale, normalized])
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer() {
            Some(layer) => {
                let of_it = OF_A_BLOCK.iter().find(|(_, of)| of(layer) == *self);
                write!(f, "blocks.{layer}.{}", of_it.map_or("", |(name, _)| name))
            }
            None => f.write_str(OTHERS.iter().find(|(_, other)| other == self).map_or("", |(name, _)| name)),
        }
    }
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Activation> {
        let other = OTHERS.iter().find(|(other, _)| *other == name).map(|(_, activation)| *activation);
        let in_a_block = || {
            let (layer, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
            let layer = layer.parse().ok().filter(|n: &usize| n.to_string() == layer)?;
            OF_A_BLOCK.iter().find(|(of, _)| *of == rest).map(|(_, of)| of(layer))
        };
        other.or_else(in_a_block).ok_or_else(|| {
            let last = name.rsplit('.').next().unwrap_or(name);
            let like = OF_A_BLOCK.iter().map(|(of, _)| *of).find(|of| of.ends_with(last));
            let hint = like.map_or_else(String::new, |of| format!("; `blocks.0.{of}` is one"));
            Error::invalid(format!("`{name}` is no activation that TransformerLens has in a GPT-2{hint}"))
        })
    }
}

/// An [`Activation`] or its name.
pub trait NamedActivation {
    /// The activation.
    ///
    /// # Errors
    /// A name that is none.
    fn activation(self) -> Result<Activation>;
}

impl NamedActivation for Activation {
    fn activation(self) -> Result<Activation> {
        Ok(self)
    }
}

impl NamedActivation for &Activation {
    fn activation(self) -> Result<Activation> {
        Ok(*self)
    }
}

impl NamedActivation for &str {
    fn activation(self) -> Result<Activation> {
        self.parse()
    }
}

impl NamedActivation for String {
    fn activation(self) -> Result<Activation> {
        self.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        let all: Vec<_> = Activation::all(12).collect();
        assert_eq!(all.len(), 12 * OF_A_BLOCK.len() + OTHERS.len());
        for activation in &all {
            assert_eq!(activation.to_string().parse::<Activation>().unwrap(), *activation);
        }
        assert_eq!(Activation::Z(10).to_string(), "blocks.10.attn.hook_z");
        assert_eq!(Activation::Scale(LnSite::LnF).to_string(), "ln_final.hook_scale");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for name in
            ["", "z", "blocks.hook_z", "blocks.x.hook_z", "blocks.+1.attn.hook_z", "blocks.01.attn.hook_z"]
        {
            assert!(name.parse::<Activation>().is_err(), "{name}");
        }
        let error = "blocks.0.hook_z".parse::<Activation>().unwrap_err().to_string();
        assert!(
            error.contains("`blocks.0.hook_z`") && error.contains("`blocks.0.attn.hook_z` is one"),
            "{error}"
        );
    }
}
