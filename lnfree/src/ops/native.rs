//! The kernels of `native/` made safe; `choose` says what each takes and returns.

mod losses;
mod norms;
mod reading;
mod reads;
mod tensors;

pub(crate) use losses::*;
pub(crate) use norms::*;
pub(crate) use reading::*;
pub(crate) use reads::*;
pub(crate) use tensors::*;
