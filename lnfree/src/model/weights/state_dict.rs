//! The parts of a file that `torch.save` wrote, out of its pickles.

use std::collections::BTreeMap;

use super::Why;
use super::pickle::Unpickled;
use super::pickle_values::{Storage, Value, View};

impl<'a> Unpickled<'a> {
    /// What the tensors of the pickle are views of.
    pub(super) fn storages(&self) -> &[Storage<'a>] {
        &self.machine.storages
    }

    /// The pickle as a state dict: a view for each name.
    pub(super) fn tensors(&self) -> Why<BTreeMap<&'a str, &View>> {
        let Value::Dict(dict) = self.result else {
            return Err("does not hold a state dict (a dict of tensors)".into());
        };
        let mut tensors = BTreeMap::new();
        for (key, value) in &self.machine.dicts[dict] {
            let Value::Str(name) = *key else {
                return Err("holds a dict whose keys are not names: not a state dict".into());
            };
            let Value::Tensor(view) = *value else {
                return Err(format!("holds `{name}`, which is not a tensor: not a state dict"));
            };
            if tensors.insert(name, &self.machine.views[view]).is_some() {
                return Err(format!("holds `{name}` twice"));
            }
        }
        Ok(tensors)
    }

    /// The pickle as a dict that holds the boolean `key`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let Value::Dict(dict) = self.result else { return None };
        self.machine.dicts[dict].iter().find_map(|pair| match *pair {
            (Value::Str(name), Value::Bool(flag)) if name == key => Some(flag),
            _ => None,
        })
    }

    /// The pickle as a list of names.
    pub(super) fn names(&self) -> Why<Vec<&'a str>> {
        let Value::List(list) = self.result else { return Err("misses its list of storages".into()) };
        let name = |value: &Value<'a>| match *value {
            Value::Str(name) => Ok(name),
            _ => Err("has a damaged list of storages".to_string()),
        };
        self.machine.lists[list].iter().map(name).collect()
    }
}
