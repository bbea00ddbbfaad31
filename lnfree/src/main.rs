//! The `lnfree` command.

fn main() {}
