//! What a pickle of weights is made of, and what may be built from it.

use tch::Kind;

use super::Why;

/// A value on the unpickler's stack. Containers are numbers of slots in its arenas, so that values are copied
/// freely, cycles leak nothing and deep nesting overflows no stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Str(&'a str),
    Global(Global),
    /// Start and end in the arena of tuple items.
    Tuple(usize, usize),
    List(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
}

/// The only names that a pickle of weights may refer to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Kind),
}

impl Global {
    /// Looks a name up; anything but the few below is refused, and nothing is ever imported or called.
    pub(super) fn find(module: &str, name: &str) -> Why<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(Kind::Float),
            ("torch", "DoubleStorage") => Self::Storage(Kind::Double),
            ("torch", "HalfStorage") => Self::Storage(Kind::Half),
            ("torch", "BFloat16Storage") => Self::Storage(Kind::BFloat16),
            ("torch", "LongStorage") => Self::Storage(Kind::Int64),
            ("torch", "IntStorage") => Self::Storage(Kind::Int),
            ("torch", "ShortStorage") => Self::Storage(Kind::Int16),
            ("torch", "CharStorage") => Self::Storage(Kind::Int8),
            ("torch", "ByteStorage") => Self::Storage(Kind::Uint8),
            ("torch", "BoolStorage") => Self::Storage(Kind::Bool),
            _ => {
                return Err(format!(
                    "its pickle asks for `{module}.{name}`, which weights have no need of: refused, and nothing was \
                     executed; use a safetensors file, or a state dict of plain tensors"
                ));
            }
        })
    }
}

/// A run of elements in the file that tensors are views of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage<'a> {
    /// Its name in the file.
    pub(super) key: &'a str,
    pub(super) kind: Kind,
    /// Number of elements.
    pub(super) numel: i64,
}

impl<'a> Storage<'a> {
    /// From a persistent id: `("storage", type, key, device, number of elements[, None])`.
    pub(super) fn from_id(items: &[Value<'a>]) -> Why<Self> {
        let items = items.strip_suffix(&[Value::None]).unwrap_or(items);
        match *items {
            [
                Value::Str("storage"),
                Value::Global(Global::Storage(kind)),
                Value::Str(key),
                Value::Str(_),
                Value::Int(numel),
            ] if numel >= 0 => Ok(Self { key, kind, numel }),
            _ => Err("its pickle refers to something that is not a plain tensor storage".into()),
        }
    }

    /// Length in bytes.
    pub(super) fn bytes(&self) -> Why<u64> {
        let size = self.kind.elt_size_in_bytes() as u64;
        (self.numel as u64).checked_mul(size).ok_or_else(|| format!("storage {}: absurd size", self.key))
    }
}

/// A tensor as a view of a storage.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Number of the storage.
    pub(super) storage: usize,
    /// In elements.
    pub(super) offset: i64,
    pub(super) shape: Vec<i64>,
    /// In elements.
    pub(super) stride: Vec<i64>,
}

impl View {
    /// Number of elements; [`None`] when that is more than any storage has.
    pub(super) fn numel(&self) -> Option<i64> {
        // A zero anywhere makes the product zero, however large the rest is.
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().try_fold(1i64, |n, &size| n.checked_mul(size))
    }

    /// Checks that every element lies inside a storage of `available` elements, and that there are no more
    /// elements than it has (an expanded tensor could ask for any amount of memory later).
    pub(super) fn check(&self, available: i64) -> Why<()> {
        let outside = || {
            format!(
                "shape {:?} with strides {:?} does not fit its storage of {available} elements",
                self.shape, self.stride
            )
        };
        let sane = |values: &[i64]| values.iter().all(|&n| n >= 0);
        if self.shape.len() > 8 || self.shape.len() != self.stride.len() {
            return Err(format!("{} sizes and {} strides", self.shape.len(), self.stride.len()));
        }
        if self.offset < 0 || !sane(&self.shape) || !sane(&self.stride) {
            return Err("negative size, stride or offset".into());
        }
        let numel = self.numel().filter(|&n| n <= available).ok_or_else(outside)?;
        if numel == 0 {
            return Ok(());
        }
        let last = self.shape.iter().zip(&self.stride).try_fold(self.offset, |last, (&size, &stride)| {
            (size - 1).checked_mul(stride).and_then(|step| last.checked_add(step))
        });
        if last.is_some_and(|last| last < available) { Ok(()) } else { Err(outside()) }
    }
}
