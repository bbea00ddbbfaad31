//! An unpickler that knows the few operations of a state dict and refuses all others.
//!
//! A pickle is a program for a stack machine that may import and call anything. This machine has no way to do
//! either: names are looked up in the list of [`Global::find`], and "calling" one of them builds a
//! description of a tensor. Work and memory are bounded by the pickle's length: a value on the stack costs at
//! least one byte of it, containers are never copied, and nothing here recurses.
//!
//! The operations are those of Python's `pickle` documentation and `pickletools`; what `torch.save` makes of
//! them is in PyTorch's `torch/serialization.py` and `torch/_utils.py`.

use std::collections::HashMap;

use super::Why;
use super::bytes::Bytes;
use super::pickle_values::{Global, Storage, Value, View};

/// The state dict of gpt2-xl with all LN buffers takes 0.2 MB.
pub(super) const MAX_PICKLE: usize = 8 << 20;
/// … and 40 thousand operations.
const MAX_OPERATIONS: usize = 1 << 20;

/// What one pickle held; `state_dict.rs` reads it.
pub(super) struct Unpickled<'a> {
    pub(super) machine: Machine<'a>,
    /// What was on top of the stack at the end.
    pub(super) result: Value<'a>,
    /// Bytes up to and with the STOP.
    pub(super) length: usize,
}

/// Runs the pickle at the start of `bytes`.
pub(super) fn unpickle(bytes: &[u8]) -> Why<Unpickled<'_>> {
    let mut machine = Machine { rest: Bytes(bytes), ..Machine::default() };
    for _ in 0..MAX_OPERATIONS {
        let at = bytes.len() - machine.rest.0.len();
        let operation = machine.u8()?;
        if operation == b'.' {
            let result = machine.pop()?;
            return Ok(Unpickled { machine, result, length: at + 1 });
        }
        machine.run(operation).map_err(|why| format!("{why} (byte {at} of the pickle)"))?;
    }
    Err(format!("its pickle has more than {MAX_OPERATIONS} operations: not the weights of a GPT-2"))
}

/// The stack machine.
#[derive(Default)]
pub(super) struct Machine<'a> {
    /// What is left of the pickle.
    rest: Bytes<'a>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
    items: Vec<Value<'a>>,
    pub(super) lists: Vec<Vec<Value<'a>>>,
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) storages: Vec<Storage<'a>>,
    storage_keys: HashMap<&'a str, usize>,
    pub(super) views: Vec<View>,
}

impl<'a> Machine<'a> {
    fn run(&mut self, operation: u8) -> Why<()> {
        match operation {
            0x80 => self.protocol()?,
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' | b'K' | b'M' | 0x8a => self.integer(operation)?,
            b'G' => self.take(8).map(|_| self.stack.push(Value::Float))?,
            b'X' | 0x8c => self.string(operation)?,
            b')' => self.tuple(0)?,
            0x85..=0x87 => self.tuple(usize::from(operation - 0x84))?,
            b't' => self.above_mark().and_then(|n| self.tuple(n))?,
            b']' => self.new_list(),
            b'a' => self.append(1)?,
            b'e' => self.above_mark().and_then(|n| self.append(n))?,
            b'}' => self.new_dict(),
            b's' => self.set_items(2)?,
            b'u' => self.above_mark().and_then(|n| self.set_items(n))?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(operation)?,
            b'c' | 0x93 => self.global(operation)?,
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => return Err(refused(operation)),
        }
        Ok(())
    }

    fn protocol(&mut self) -> Why<()> {
        match self.u8()? {
            2..=5 => Ok(()),
            other => Err(format!("its pickle has protocol {other}; 2 to 5 are known")),
        }
    }

    fn integer(&mut self, operation: u8) -> Why<()> {
        let length = match operation {
            b'J' => 4,
            b'K' => 1,
            b'M' => 2,
            _ => usize::from(self.u8()?),
        };
        let bytes = self.take(length)?;
        // Little-endian two's complement, but one and two bytes are unsigned.
        let signed = !matches!(operation, b'K' | b'M');
        let fill = if signed && bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide.get_mut(..length).ok_or("its pickle holds an absurdly large number")?.copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn string(&mut self, operation: u8) -> Why<()> {
        let length = if operation == b'X' { self.u32()? } else { self.u8()?.into() };
        let text =
            std::str::from_utf8(self.take(length)?).map_err(|_| "its pickle holds text that is not UTF-8")?;
        self.stack.push(Value::Str(text));
        Ok(())
    }

    fn tuple(&mut self, n: usize) -> Why<()> {
        let start = self.items.len();
        let from = self.floor(n)?;
        self.items.extend(self.stack.drain(from..));
        self.stack.push(Value::Tuple(start, self.items.len()));
        Ok(())
    }

    fn new_list(&mut self) {
        self.stack.push(Value::List(self.lists.len()));
        self.lists.push(Vec::new());
    }

    fn new_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(Vec::new());
    }

    fn append(&mut self, n: usize) -> Why<()> {
        let from = self.floor(n)?;
        let Some(&Value::List(list)) = from.checked_sub(1).and_then(|at| self.stack.get(at)) else {
            return Err("its pickle appends to something that is not a list".into());
        };
        self.lists[list].extend(self.stack.drain(from..));
        Ok(())
    }

    fn set_items(&mut self, n: usize) -> Why<()> {
        let from = self.floor(n)?;
        let Some(&Value::Dict(dict)) = from.checked_sub(1).and_then(|at| self.stack.get(at)) else {
            return Err("its pickle sets items of something that is not a dict".into());
        };
        if !n.is_multiple_of(2) {
            return Err("its pickle sets a key without a value".into());
        }
        let pairs = self.stack[from..].chunks_exact(2).map(|pair| (pair[0], pair[1]));
        self.dicts[dict].extend(pairs);
        self.stack.truncate(from);
        Ok(())
    }

    fn memo(&mut self, operation: u8) -> Why<()> {
        let key = match operation {
            b'q' | b'h' => self.u8()?.into(),
            b'r' | b'j' => self.u32()?,
            _ => self.memo.len(),
        };
        if matches!(operation, b'h' | b'j') {
            let value = self.memo.get(&key).ok_or("its pickle recalls what it never stored")?;
            self.stack.push(*value);
        } else {
            let value = self.stack.last().ok_or(EMPTY)?;
            self.memo.insert(key, *value);
        }
        Ok(())
    }

    fn global(&mut self, operation: u8) -> Why<()> {
        let (module, name) = if operation == b'c' {
            (self.line()?, self.line()?)
        } else {
            let name = self.pop()?;
            match (self.pop()?, name) {
                (Value::Str(module), Value::Str(name)) => (module, name),
                _ => return Err("its pickle refers to a name that is not text".into()),
            }
        };
        self.stack.push(Value::Global(Global::find(module, name)?));
        Ok(())
    }

    fn persistent(&mut self) -> Why<()> {
        let id = self.pop()?;
        let storage = Storage::from_id(self.tuple_items(id)?)?;
        let next = self.storages.len();
        let index = *self.storage_keys.entry(storage.key).or_insert(next);
        if index == next {
            self.storages.push(storage);
        } else if self.storages[index] != storage {
            return Err(format!("its pickle describes the storage {} in two ways", storage.key));
        }
        self.stack.push(Value::Storage(index));
        Ok(())
    }

    /// "Calls" a global, which can only mean to describe a tensor or to make an empty dict.
    fn reduce(&mut self) -> Why<()> {
        let arguments = self.pop()?;
        let Value::Global(global) = self.pop()? else {
            return Err("its pickle calls something that is not a name".into());
        };
        let arguments = self.tuple_items(arguments)?;
        if global == Global::OrderedDict && arguments.is_empty() {
            self.new_dict();
            return Ok(());
        }
        let built = match (global, arguments) {
            (Global::RebuildParameter, &[Value::Tensor(tensor), Value::Bool(_), Value::Dict(_)]) => tensor,
            (
                Global::RebuildTensor,
                &[Value::Storage(storage), Value::Int(offset), shape, stride, Value::Bool(_), Value::Dict(_)],
            ) => {
                let (shape, stride) = (self.integers(shape)?, self.integers(stride)?);
                self.views.push(View { storage, offset, shape, stride });
                self.views.len() - 1
            }
            _ => return Err("its pickle builds a tensor in a way that torch.save does not".into()),
        };
        self.stack.push(Value::Tensor(built));
        Ok(())
    }

    /// A state dict carries its module versions as attributes. They are of no use here, and nothing else may
    /// have any.
    fn build(&mut self) -> Why<()> {
        match (self.pop()?, self.stack.last()) {
            (Value::Dict(_), Some(Value::Dict(_))) => Ok(()),
            _ => Err("its pickle sets attributes of something that is not a state dict".into()),
        }
    }

    fn tuple_items(&self, value: Value<'a>) -> Why<&[Value<'a>]> {
        match value {
            Value::Tuple(start, end) => Ok(&self.items[start..end]),
            _ => Err("its pickle has something else where a tuple belongs".into()),
        }
    }

    fn integers(&self, tuple: Value<'a>) -> Why<Vec<i64>> {
        let items = self.tuple_items(tuple)?;
        let integer = |value: &Value| match *value {
            Value::Int(n) => Ok(n),
            _ => Err("its pickle has a shape that is not made of numbers".to_string()),
        };
        // Nine are too many already; a long tuple shared by many tensors would be copied for each.
        items.iter().take(9).map(integer).collect()
    }

    /// Where the top `n` values of the stack begin; they must lie above the last mark.
    fn floor(&self, n: usize) -> Why<usize> {
        let lowest = self.marks.last().copied().unwrap_or(0);
        self.stack.len().checked_sub(n).filter(|&at| at >= lowest).ok_or_else(|| EMPTY.into())
    }

    /// Removes the last mark and says how many values lie above it.
    fn above_mark(&mut self) -> Why<usize> {
        let mark = self.marks.pop().ok_or("its pickle misses a mark")?;
        Ok(self.stack.len() - mark)
    }

    fn pop(&mut self) -> Why<Value<'a>> {
        self.floor(1)?;
        self.stack.pop().ok_or_else(|| EMPTY.into())
    }

    fn take(&mut self, n: usize) -> Why<&'a [u8]> {
        self.rest.take(n).ok_or_else(|| TRUNCATED.into())
    }

    fn u8(&mut self) -> Why<u8> {
        self.rest.u8().ok_or_else(|| TRUNCATED.into())
    }

    fn u32(&mut self) -> Why<usize> {
        self.rest.u32().map(|n| n as usize).ok_or_else(|| TRUNCATED.into())
    }

    /// Text up to the next newline.
    fn line(&mut self) -> Why<&'a str> {
        let length = self.rest.0.iter().take(256).position(|&b| b == b'\n').ok_or(TRUNCATED)?;
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| "its pickle has a name that is not UTF-8".into())
    }
}

const TRUNCATED: &str = "its pickle is truncated";
const EMPTY: &str = "its pickle takes more values than it has";

/// Names the refused operation, for those that people will meet.
fn refused(operation: u8) -> String {
    let name = match operation {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        b'P' => "PERSID",
        b'2' => "DUP",
        0x8b => "LONG4",
        0x8d => "BINUNICODE8",
        0x96..=0x98 => "out-of-band BUFFER",
        b'B' | b'C' | 0x8e | b'T' | b'U' | b'S' => "BYTES",
        _ => "unknown",
    };
    format!(
        "its pickle uses the operation 0x{operation:02x} ({name}), which a state dict has no need of: refused, and \
         nothing was executed; use a safetensors file, or a state dict of plain tensors"
    )
}
